"""What a run does with its frames as they are decoded: colours, and the reference's own background."""

from collections.abc import Iterator
from dataclasses import dataclass
from itertools import islice
from pathlib import Path

import numpy as np
from jaxtyping import UInt8

from stableanimator_jax.data.images import BLACK, load_image, resize
from stableanimator_jax.data.keypoints import Keypoints, keypoints_beside, load_keypoints
from stableanimator_jax.data.numbered import IMAGE_SUFFIXES, numbered_frames
from stableanimator_jax.errors import InputError
from stableanimator_jax.family import Member
from stableanimator_jax.files import is_directory, require_file
from stableanimator_jax.perception.driving_poses import fitted_keypoints
from stableanimator_jax.sampling.background import WHITE, keep_background, keep_background_by_masks
from stableanimator_jax.sampling.colours import match_colours
from stableanimator_jax.sampling.video_inputs import fitted_reference
from stableanimator_jax.scripts.sample.movement import Movement
from stableanimator_jax.scripts.sample.settings import SampleConfig

_LEAST_PURE = 0.8  # share of a mask's pixels that are nearly black or white; of photos it is a third
_PURE = 40


@dataclass(frozen=True, eq=False)
class Finishing:
    """What is to be done, and what it needs."""

    reference: UInt8[np.ndarray, "H W 3"]
    """At the output's size."""
    colours: bool
    """Whether frames get its colours."""
    mask: UInt8[np.ndarray, "H W"] | Path | None
    """Of the reference's person, at the output's size; or where the masks of the frames are; None keeps no
    background."""
    keypoints: Keypoints | None
    """Of the output's frames, where `mask` is the reference's."""

    def first_decoded(self, first: int) -> int:
        """Where decoding must begin for frames from `first` on: colours are judged by the beginning."""
        return 0 if self.colours else first

    def __call__(
        self, frames: Iterator[UInt8[np.ndarray, "H W 3"]], first: int
    ) -> Iterator[UInt8[np.ndarray, "H W 3"]]:
        """Frames from `first` on as they are written, of those from `first_decoded(first)` on as they are decoded."""
        if self.colours:
            frames = islice(match_colours(frames, self.reference), first, None)
        if isinstance(self.mask, Path):
            return keep_background_by_masks(frames, self.reference, islice(_masks(self.mask), first, None))
        if self.mask is not None and self.keypoints is not None:
            return keep_background(frames, self.reference, self.mask, self.keypoints, first_frame=first)
        return frames


def check_background(config: SampleConfig, reference: UInt8[np.ndarray, "h w 3"]) -> None:
    """What can be said of `--keep-background` before the poses, which take long to find, are known.

    Raises:
        InputError: the masks are not there, or the reference's cannot be used.
    """
    if (path := config.keep_background) is None or is_directory(path):
        return
    if path.suffix.lower() in IMAGE_SUFFIXES:
        _reference_mask(path, reference)
    else:
        require_file(path, "masks")


def read_finishing(
    config: SampleConfig,
    kind: Member,
    reference: UInt8[np.ndarray, "h w 3"],
    fitted: UInt8[np.ndarray, "h2 w2 3"],
    movement: Movement,
    size: tuple[int, int],
    frames: int,
) -> Finishing:
    """Read and check what is needed.

    Args:
        config: the run's.
        kind: whose weights make the frames.
        reference: the photo at its own size.
        fitted: the photo of the output's aspect.
        movement: the poses.
        size: the output's width and height.
        frames: of the output.

    Raises:
        InputError: masks that cannot be used, or nothing that says where the generated person is.
    """
    shown = resize(fitted, *size, "lanczos")
    path = config.keep_background
    if path is None:
        return Finishing(shown, config.match_colours, None, None)
    if is_directory(path) or path.suffix.lower() not in IMAGE_SUFFIXES:
        _check_masks(path, size, frames)
        return Finishing(shown, config.match_colours, path, None)
    mask = _reference_mask(path, reference)
    mask = resize(fitted_reference(kind, mask, *size, config.fit), *size, "lanczos")[..., 0]
    keypoints = _keypoints(config, movement, size)
    if frames > len(keypoints.points):  # the photo's own pose comes first: there the person is where the mask is
        empty = np.zeros_like(keypoints.points[:1]), np.zeros_like(keypoints.scores[:1])
        points, scores = (np.concatenate(p) for p in zip(empty, (keypoints.points, keypoints.scores), strict=True))
        keypoints = Keypoints(points, scores, *size, keypoints.fps)
    finishing = Finishing(shown, config.match_colours, mask, keypoints)
    try:
        finishing(iter([]), 0)
    except InputError as e:
        raise InputError(f"--keep-background {path}: {e}") from e
    return finishing


def _reference_mask(path: Path, reference: UInt8[np.ndarray, "h w 3"]) -> UInt8[np.ndarray, "h w 3"]:
    mask = load_image(path, what="mask", background=BLACK)
    if mask.shape != reference.shape:
        (height, width), (h, w) = reference.shape[:2], mask.shape[:2]
        raise InputError(f"mask {path} is {w}x{h} pixels, but the reference is {width}x{height}: it must fit it")
    pure = float(((mask.max(axis=-1) < _PURE) | (mask.min(axis=-1) > 255 - _PURE)).mean())
    if pure < _LEAST_PURE:
        raise InputError(
            f"{path} is no mask: only {pure:.0%} of its pixels are black or white; the person must be white in it, and "
            "the rest black"
        )
    return mask


def _keypoints(config: SampleConfig, movement: Movement, size: tuple[int, int]) -> Keypoints:
    """Of the output's frames, in pixels of them."""
    place = movement.place
    if isinstance(place, Keypoints):
        return place
    if place is None:
        raise InputError(
            "--keep-background must know where the person is in every frame, and these weights take no poses: give a "
            "directory or a video of masks, one a frame of the output"
        )
    beside = keypoints_beside(place)
    if beside is None:
        raise InputError(
            f"--keep-background must know where the person is in every frame, and poses {config.poses or place} are "
            "pictures: give keypoints as --poses, put their keypoints.json beside them, or give a directory or a video "
            "of masks, one a frame of the output"
        )
    found = load_keypoints(beside)
    if len(found.points) != movement.timing.count:
        raise InputError(
            f"{beside} has {len(found.points)} frames, but there are {movement.timing.count} poses beside it"
        )
    return fitted_keypoints(found, *size, config.fit).at(movement.timing, movement.fps)


def _masks(path: Path) -> Iterator[UInt8[np.ndarray, "h w"]]:
    """Of the frames, one by one."""
    if is_directory(path):
        for file in numbered_frames(path, "masks").values():
            yield load_image(file, what="mask", background=BLACK).max(axis=-1)
        return
    from stableanimator_jax.data.video import read_frames  # PyAV, which images do without

    with read_frames(path, what="masks") as (_, frames):
        for frame in frames:
            yield frame.max(axis=-1)


def _check_masks(path: Path, size: tuple[int, int], frames: int) -> None:
    count, white = 0, False
    for mask in _masks(path):
        if mask.shape[::-1] != size:
            raise InputError(
                f"mask {count} of {path} is {mask.shape[1]}x{mask.shape[0]} pixels, but the output {size[0]}x{size[1]}"
            )
        count, white = count + 1, white or bool((mask >= WHITE).any())
    if count != frames:
        raise InputError(f"masks {path}: there are {count}, but the output has {frames} frames")
    if not white:
        raise InputError(f"masks {path} are black all over: what is to stay of the frames must be white in them")
