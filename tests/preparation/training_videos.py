"""Videos of stand-in people with stand-in faces, which the stand-in models see, for tests of the preparation."""

from collections.abc import Iterator
from pathlib import Path
from typing import cast

import av
import numpy as np
from PIL import Image

from tests.perception import standin_models, standin_poses
from tests.perception.standin_poses import PERSON, SECOND, draw_person

SIZE = 192
FLAGS = ("--buckets", "192x192", "--min-frames", "17", "--max-frames", "40", "--workers", "2")


def models(folder: Path) -> dict[str, Path]:
    """The model files, by their flags' names."""
    standin_poses.write_models(folder / "dwpose")
    faces = standin_models.write_models(folder / "faces")
    return {"insightface_root": faces, "dwpose": folder / "dwpose"}


def flags(files: dict[str, Path]) -> list[str]:
    return [part for name, path in files.items() for part in (f"--{name.replace('_', '-')}", str(path))]


def background(seed: int = 0, sharp: bool = True) -> np.ndarray:
    """A texture whose colours no stand-in model takes for anything."""
    random = np.random.default_rng(seed)
    fine = random.integers(20, 50, (SIZE, SIZE, 3)) if sharp else np.full((SIZE, SIZE, 3), 35)
    return fine.astype(np.uint8)


def scene(
    count: int,
    *,
    person: bool = True,
    face: bool = True,
    second: bool = False,
    step: float = 1.0,
    seed: int = 0,
    sharp: bool = True,
    pan: int = 0,
    shade: int = 0,
) -> Iterator[np.ndarray]:
    """Frames of someone who goes to and fro by `step` pixels a frame, with a face in the upper right corner.

    `pan` moves the background by so many pixels a frame; `shade` makes it so many levels lighter.
    """
    still = background(seed, sharp)
    if pan:  # structures large enough to be seen in a small image
        blocks = np.random.default_rng(seed).integers(0, 80, (8, 8, 1)).astype(np.uint8)
        still = np.kron(blocks, np.ones((SIZE // 8, SIZE // 8, 3), np.uint8))
    for i in range(count):
        frame = np.roll(still, pan * i, axis=1) + np.uint8(shade)
        offset = round(step * abs(i % 24 - 12))
        if person:
            draw_person(frame, (20 + offset, 50, 80 + offset, 170), PERSON)
        if second:
            draw_person(frame, (120, 80, 170, 180), SECOND)
        if face:
            frame[10:19, 135:144] = (255, 0, 0)  # one cell of the detector, to which 192 pixels are enlarged to 640
        yield frame


def write_video(path: Path, frames: Iterator[np.ndarray], fps: int = 12) -> Path:
    """Lossless, because the stand-in models tell people by exact colours."""
    path.parent.mkdir(parents=True, exist_ok=True)
    with av.open(str(path), "w") as container:
        stream = cast(av.VideoStream, container.add_stream("ffv1", fps))
        stream.height, stream.width, stream.pix_fmt = SIZE, SIZE, "bgr0"
        for frame in frames:
            container.mux(stream.encode(av.VideoFrame.from_ndarray(frame, "rgb24").reformat(format="bgr0")))
        container.mux(stream.encode(None))
    return path


def write_frames(folder: Path, frames: Iterator[np.ndarray], first: int = 0) -> Path:
    folder.mkdir(parents=True, exist_ok=True)
    for i, frame in enumerate(frames):
        Image.fromarray(frame).save(folder / f"frame_{first + i}.png")
    return folder


def tree_bytes(root: Path) -> dict[str, bytes]:
    """Every file of a dataset."""
    return {p.relative_to(root).as_posix(): p.read_bytes() for p in sorted(root.rglob("*")) if p.is_file()}
