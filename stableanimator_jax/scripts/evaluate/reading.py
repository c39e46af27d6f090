"""Videos, references and driving poses of an evaluation out of their files."""

from dataclasses import dataclass
from importlib.metadata import version
from pathlib import Path
from typing import Literal

import numpy as np
from jaxtyping import UInt8

from stableanimator_jax.data.images import load_image
from stableanimator_jax.data.keypoint_formats import holds_keypoints
from stableanimator_jax.data.keypoints import Keypoints, keypoints_beside
from stableanimator_jax.data.numbered import numbered_frames, numbered_images
from stableanimator_jax.data.video import read_frames
from stableanimator_jax.errors import InputError
from stableanimator_jax.evaluation.measures import VideoPair
from stableanimator_jax.files import is_directory
from stableanimator_jax.perception.keypoint_poses import output_keypoints

ReferenceFrame = Literal["none", "first", "middle"]


@dataclass(frozen=True)
class Files:
    """Where what belongs to one video is."""

    name: str
    generated: Path | None = None
    """None where it is still to be made."""
    truth: Path | None = None
    reference: Path | None = None
    driving: Path | None = None

    def paths(self) -> dict[str, Path]:
        """Those that there are, by their names."""
        return {name: path for name, path in vars(self).items() if isinstance(path, Path)}


def decoder() -> str:
    """What reads the videos."""
    return f"PyAV {version('av')}, Pillow {version('pillow')}"


def read_pair(files: Files, reference_frame: ReferenceFrame) -> VideoPair:
    """Everything of one video.

    Raises:
        InputError: a file cannot be read, or the frames of a video differ in size.
    """
    assert files.generated is not None
    generated, fps = read_video(files.generated, "generated video")
    truth = None if files.truth is None else read_video(files.truth, "true video")[0]
    reference = None if files.reference is None else load_image(files.reference, what="reference")
    if reference is None and truth is not None:
        reference = frame_of(truth, reference_frame)
    driving = None if files.driving is None else read_driving_keypoints(files.driving)
    return VideoPair(files.name, generated, truth, reference, driving, fps)


def read_video(path: Path, what: str) -> tuple[UInt8[np.ndarray, "f h w 3"], float | None]:
    """All frames of a video file or of a folder of numbered images (or of its folder `images`), and their speed."""
    if is_directory(path):
        folder = path
        if not numbered_images(path, what) and is_directory(path / "images"):
            folder = path / "images"
        frames = [load_image(file, what=what) for file in numbered_frames(folder, what).values()]
        fps = None
    else:
        with read_frames(path, what=what) as (info, found):
            frames, fps = list(found), info.fps
    if sizes := {frame.shape[1::-1] for frame in frames} - {frames[0].shape[1::-1]}:
        (w, h), (w2, h2) = frames[0].shape[1::-1], min(sizes)
        raise InputError(f"{what} {path} has frames of different sizes, {w}x{h} and {w2}x{h2}")
    return np.stack(frames), fps


def frame_of(frames: UInt8[np.ndarray, "f h w 3"], which: ReferenceFrame) -> UInt8[np.ndarray, "h w 3"] | None:
    """The frame that stands in for a reference; None where none is to."""
    return None if which == "none" else frames[0 if which == "first" else len(frames) // 2]


def read_driving_keypoints(path: Path) -> Keypoints | None:
    """Keypoints, or those kept beside skeletons; None of skeletons alone, which say nothing that can be measured."""
    if holds_keypoints(path):
        return output_keypoints(path, None, None, "crop")
    beside = keypoints_beside(path)
    return None if beside is None else output_keypoints(beside, None, None, "crop")


def state_of(files: Files) -> dict[str, list[object]]:
    """By what it shows later that a file is another: its path, size and time, or of a folder those of its files."""
    return {name: [str(path), *_stat(path)] for name, path in files.paths().items()}


def _stat(path: Path) -> list[int]:
    try:
        files = [f for f in path.rglob("*") if f.is_file()] if path.is_dir() else [path]
        stats = [file.stat() for file in files]
    except OSError:
        return []  # reading it will say why
    return [len(stats), sum(s.st_size for s in stats), max((s.st_mtime_ns for s in stats), default=0)]
