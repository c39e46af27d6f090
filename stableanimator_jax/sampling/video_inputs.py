"""What a video is made from, checked and brought to the output's size as the model's kind asks."""

from pathlib import Path
from typing import NamedTuple

import numpy as np
from jaxtyping import UInt8

from stableanimator_jax.config import StableAnimatorConfig
from stableanimator_jax.data.images import BLACK, FitMode, ImageLike, as_image, cover, fit, fit_aspect
from stableanimator_jax.data.keypoint_formats import holds_keypoints
from stableanimator_jax.data.poses import PosesLike, as_poses
from stableanimator_jax.errors import InputError
from stableanimator_jax.family import Member, member

MOST_FRAMES = 1024
"""Of a model that sees all of them at once."""


class VideoInputs(NamedTuple):
    """As the models take them."""

    reference: UInt8[np.ndarray, "h w 3"]
    """Of the output's aspect."""
    poses: UInt8[np.ndarray, "f H W 3"] | None
    """With the reference's own in front, and in the colours, that the kind asks for; None where it takes none."""
    frames: int
    """That are denoised."""
    width: int
    height: int


def video_inputs(
    config: StableAnimatorConfig,
    reference: ImageLike,
    poses: PosesLike | None,
    *,
    reference_pose: ImageLike | None = None,
    frames: int | None = None,
    width: int | None = None,
    height: int | None = None,
    mode: FitMode = "crop",
) -> VideoInputs:
    """Read and check them; see `Animator.stream`.

    Raises:
        InputError: something that the kind needs is missing, or something is given that it has no use for; a file that
            cannot be read; or a size that does not suit the models.
    """
    kind = member(config)
    _check_given(kind, poses=poses is not None, frames=frames, reference_pose=reference_pose is not None)
    image = as_image(reference, what="reference")
    if poses is None:
        if width is None or height is None:
            raise InputError(f"{kind.title} takes no poses, whose size the output could have: give width and height")
        driven, shape = None, (config.unet.num_frames if frames is None else frames, height, width)
    else:
        if isinstance(poses, str | Path) and holds_keypoints(Path(poses)):
            from stableanimator_jax.perception.keypoint_poses import poses_from_keypoints  # PyAV, as for videos

            poses = poses_from_keypoints(poses, width, height, mode)
        driven = as_poses(poses, width, height, mode)
        if reference_pose is not None:
            own = as_image(reference_pose, what="reference pose", background=BLACK)
            own = fit(own, driven.shape[2], driven.shape[1], mode, filter="bicubic", fill=BLACK)
            driven = np.concatenate([own[None], driven])
        if kind.swaps_colours:
            driven = driven[..., ::-1]
        shape = driven.shape[:3]
    count, rows, columns = shape
    check_size(config, width=columns, height=rows)
    return VideoInputs(fitted_reference(kind, image, columns, rows, mode), driven, count, columns, rows)


def fitted_reference(
    kind: Member, image: UInt8[np.ndarray, "h w 3"], width: int, height: int, mode: FitMode
) -> UInt8[np.ndarray, "h2 w2 3"]:
    """The reference of the output's aspect; of its size where the image encoder is to see no more of it."""
    if kind.crops_reference:
        return cover(image, width, height, mode)
    return fit_aspect(image, width, height, mode)


def _check_given(kind: Member, *, poses: bool, frames: int | None, reference_pose: bool) -> None:
    if kind.driver is not None and not poses:
        raise InputError(f"{kind.title} needs poses")
    if kind.driver is None and poses:
        raise InputError(f"{kind.title} takes no poses: it moves the picture by itself; say how long by frames")
    if kind.driver is not None and frames is not None:
        raise InputError(f"frames is for models that take no poses: of {kind.title} each pose makes one")
    if frames is not None and (not isinstance(frames, int) or not 1 <= frames <= MOST_FRAMES):
        raise InputError(f"frames must be a whole number from 1 to {MOST_FRAMES}, got {frames}")
    if kind.reference_pose_first and not reference_pose:
        raise InputError(f"{kind.title} begins with the reference's own pose: give reference_pose")
    if not kind.reference_pose_first and reference_pose:
        raise InputError(f"{kind.title} has no use for the reference's own pose: leave out reference_pose")


def check_size(config: StableAnimatorConfig, *, width: int, height: int) -> None:
    """Raise `InputError` unless the output size suits the models; the message names the nearest that does."""
    multiple = config.size_multiple
    if width % multiple or height % multiple or min(width, height) < multiple:
        near_width, near_height = (max(multiple, round(n / multiple) * multiple) for n in (width, height))
        raise InputError(
            f"the output size {width}x{height} does not work: width and height must be multiples of {multiple}; "
            f"the nearest is {near_width}x{near_height}"
        )
