"""Pose sequences: a directory of numbered skeleton images, or a video of skeletons, at the size of the output."""

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
from jaxtyping import UInt8

from stableanimator_jax.data.images import BLACK, FitMode, ImageLike, as_image, fit, image_size, load_image
from stableanimator_jax.data.keypoint_formats import holds_keypoints, keypoint_files, stated_size
from stableanimator_jax.data.numbered import numbered_frames
from stableanimator_jax.data.pose_checks import watched
from stableanimator_jax.errors import InputError
from stableanimator_jax.files import is_directory, require_file


@dataclass(frozen=True, eq=False)
class Poses:
    """A pose sequence in memory, 8 bits a channel: 0.75 MB a frame at 512x512."""

    frames: UInt8[np.ndarray, "f h w 3"]
    """Skeletons, RGB on black."""
    fps: float | None
    """Frames a second of the video they came from; None for a directory, which has no speed."""
    fps_note: str | None = None
    """What is to be said of `fps` where the video does not state it: "states no frame rate: …"."""


PosesLike = Poses | Sequence[ImageLike] | UInt8[np.ndarray, "f h w 3"] | Path | str
"""Poses as people have them: loaded, an array, images, or a directory or video for `load_poses`; the `Animator` takes
files of keypoints too."""


def as_poses(
    poses: PosesLike, width: int | None = None, height: int | None = None, mode: FitMode = "crop"
) -> UInt8[np.ndarray, "f height width 3"]:
    """Skeletons at a size, by default their own; fitted as `load_poses` does.

    Raises:
        InputError: as `load_poses`; one of `width` and `height` without the other, an array that is not uint8 RGB, or
            images of different sizes.
    """
    if (width is None) != (height is None):
        raise InputError("give both width and height, or neither")
    if isinstance(poses, str | Path):
        if width is None or height is None:
            width, height = pose_size(Path(poses))
        return load_poses(poses, width, height, mode).frames
    if isinstance(poses, Poses):
        frames = poses.frames
    elif isinstance(poses, Sequence):
        images = [as_image(pose, what=f"pose {i}", background=BLACK) for i, pose in enumerate(poses)]
        if len({image.shape for image in images}) > 1:
            raise InputError("the poses are images of different sizes")
        frames = np.array(images, np.uint8)
    else:
        frames = np.asarray(poses)
    if frames.dtype != np.uint8 or frames.ndim != 4 or frames.shape[-1] != 3 or 0 in frames.shape:
        got = f"{frames.dtype} {list(frames.shape)}" if frames.ndim else type(poses).__name__
        raise InputError(f"poses must be uint8 RGB [frames, height, width, 3], not empty; got {got}")
    if width is None or height is None or frames.shape[1:3] == (height, width):
        return frames
    return _fill(iter(frames), width, height, mode, len(frames))


def load_poses(path: Path | str, width: int, height: int, mode: FitMode = "crop", *, limit: int | None = None) -> Poses:
    """Read skeletons and fit each to the output size as it is read (bicubic, as published).

    Says on stderr where they do not look like skeletons of DWPose's (`pose_checks`).

    Args:
        path: a directory of numbered images (`numbered_images`), taken in the order of their numbers, which may
            start anywhere but must not skip any; or a video file, of which come the frames that it shows at its own
            (average) rate.
        width: of the output in pixels.
        height: of the output in pixels.
        mode: "crop" to the output's aspect, or "pad" to it with black.
        limit: read no more than this many frames.

    Raises:
        InputError: nothing there or no poses in it, a gap in the numbers, images of different sizes, or a frame
            that cannot be read; the message names it.
    """
    if limit is not None and limit < 1:
        raise InputError(f"the number of frames must be at least 1, got {limit}")
    path = Path(path)
    if holds_keypoints(path):
        raise InputError(f"poses {path} are keypoints, not skeletons: poses_from_keypoints draws them")
    if is_directory(path):
        files = list(numbered_frames(path, "poses", limit).values())
        return Poses(
            _fill(watched(_read_all(files), f"poses {path}"), width, height, mode, expected=len(files)), fps=None
        )
    from stableanimator_jax.data.resampling import read_driving  # PyAV, which arrays and images do without

    with read_driving(path, max_frames=limit, background=BLACK, what="poses") as (info, frames):
        expected = min(info.frame_count or 64, 1000)  # no trust in what a broken header states
        shown = watched(frames, f"poses {path}")
        return Poses(_fill(shown, width, height, mode, expected), info.fps, info.fps_note)


def pose_files(path: Path) -> list[Path]:
    """The files that poses are in, in order: the video itself, the directory's numbered images, or keypoints.

    Raises:
        InputError: as `load_poses`, but for what is inside of the files.
    """
    if holds_keypoints(path):
        return keypoint_files(path)
    if is_directory(path):
        return list(numbered_frames(path, "poses").values())
    require_file(path, "poses")
    return [path]


def pose_size(path: Path) -> tuple[int, int]:
    """Width and height in pixels of a pose sequence as it is stored: of skeletons, or of the picture of keypoints.

    Raises:
        InputError: as `load_poses`, or `data.keypoint_formats.stated_size`.
    """
    if holds_keypoints(path):
        return stated_size(path)
    if is_directory(path):
        return image_size(pose_files(path)[0], what="pose")
    from stableanimator_jax.data.video import read_frames  # PyAV, which images do without

    with read_frames(path, what="poses") as (info, _):
        return info.width, info.height


def _fill(images: Iterator[np.ndarray], width: int, height: int, mode: FitMode, expected: int) -> np.ndarray:
    """Fit images into one array, made for `expected` of them and grown where more come: a list would need it twice."""
    frames = np.empty((expected, height, width, 3), np.uint8)
    count = 0
    for image in images:
        if count == len(frames):
            frames.resize((count + count // 4 + 1, height, width, 3), refcheck=False)
        try:
            frames[count] = fit(image, width, height, mode, filter="bicubic", fill=BLACK)
        except InputError as e:
            raise InputError(f"pose {count}: {e}") from e
        count += 1
    frames.resize((count, height, width, 3), refcheck=False)
    return frames


def _read_all(files: list[Path]) -> Iterator[np.ndarray]:
    first = None
    for path in files:
        image = load_image(path, what="pose", background=BLACK)
        if first is None:
            first = image.shape
        if image.shape != first:
            (height, width), (h, w) = first[:2], image.shape[:2]
            raise InputError(f"pose {path} is {w}x{h} pixels, but {files[0].name} is {width}x{height}: mixed sizes")
        yield image
