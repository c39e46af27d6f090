"""What is prepared for training: videos, and folders in the published layout, found below one folder and opened."""

import contextlib
import hashlib
import os
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import NamedTuple

import numpy as np
from jaxtyping import Float32, UInt8

from stableanimator_jax.commands import called
from stableanimator_jax.config import EMBEDDING_DIM
from stableanimator_jax.data.face_track import Face, FaceTrack, face_in_mask
from stableanimator_jax.data.images import BLACK, load_image
from stableanimator_jax.data.numbered import IMAGE_SUFFIXES, numbered_frames, numbered_images
from stableanimator_jax.data.resampling import read_driving
from stableanimator_jax.data.video import VIDEO_SUFFIXES
from stableanimator_jax.errors import InputError, as_input_error, first_line, printable
from stableanimator_jax.files import is_directory
from stableanimator_jax.provenance import file_sha256

_PARTS = ("images", "poses", "faces")


@dataclass(frozen=True)
class Source:
    """A video file, or a published-layout folder, which has a folder `images`."""

    name: str
    """Its path below the folder that is prepared, with forward slashes, printable."""
    path: Path

    @property
    def is_folder(self) -> bool:
        return is_directory(self.path)


class SourceFrame(NamedTuple):
    """One frame as it is stored."""

    image: UInt8[np.ndarray, "h w 3"]
    pose: UInt8[np.ndarray, "h w 3"] | None
    """The skeleton that lies beside it, where there is one."""


@dataclass(frozen=True)
class OpenSource:
    """A source whose frames can be read."""

    width: int
    height: int
    fps: float
    """0 for a folder of images."""
    fps_note: str | None
    """What is to be said of `fps` where a video does not state it: "states no frame rate: …"."""
    frames: Iterator[SourceFrame]
    has_poses: bool
    track: FaceTrack | None
    """Face boxes in pixels of frames, where the source has masks."""
    embeddings: Float32[np.ndarray, "f 512"] | None


def find_sources(folder: Path) -> list[Source]:
    """All videos and published-layout folders at any depth, by name. Names that begin with a dot are passed over.

    Raises:
        InputError: the folder cannot be read, or there is nothing of the kind in it.
    """
    with as_input_error(f"cannot read input {folder}"):
        if not folder.is_dir():
            raise InputError(f"input {folder} is not a folder" if folder.exists() else f"input {folder} does not exist")
        list(folder.iterdir())  # os.walk passes over what it cannot read
    found = []
    for place, folders, files in os.walk(folder):
        here = Path(place)
        if "images" in folders:
            found.append(here)
        folders[:] = [f for f in folders if not f.startswith(".") and not ("images" in folders and f in _PARTS)]
        found += [here / f for f in files if Path(f).suffix.lower() in VIDEO_SUFFIXES and not f.startswith(".")]
    if not found:
        raise InputError(
            f"input {folder} has no videos ({', '.join(sorted(VIDEO_SUFFIXES))}) and no folders NAME/images in it"
        )
    names = {path: path.relative_to(folder).as_posix() for path in found}
    # The folder itself may be one of the published layout; it goes by its own name.
    return sorted(
        (Source(printable(folder.absolute().name if name == "." else name), path) for path, name in names.items()),
        key=lambda source: source.name,
    )


def content_hash(source: Source) -> str:
    """SHA-256 of a video's bytes, or of the names and bytes of all that a folder's preparation reads.

    Raises:
        InputError: something cannot be read.
    """
    with as_input_error(f"cannot read {source.path}"):
        if not source.is_folder:
            return file_sha256(source.path)
        parts = (source.path / part for part in _PARTS)
        files = [f for part in parts for f in part.glob("*") if f.suffix.lower() in IMAGE_SUFFIXES]
        files += [f for f in (source.path / "embeddings.npy",) if f.exists()]
        listing = hashlib.sha256()
        for file in sorted(files):
            listing.update(os.fsencode(f"{file.relative_to(source.path).as_posix()}\n{file_sha256(file)}\n"))
        return listing.hexdigest()


@contextlib.contextmanager
def open_source(source: Source, fps: float | None) -> Iterator[OpenSource]:
    """Open a source; within the `with` block its frames come one by one.

    Videos are brought to `fps` frames a second, or their own average where it is None. Images stay as they are.

    Raises:
        InputError: it cannot be read; its parts do not fit each other; or, when its frames are read, damage.
    """
    if source.is_folder:
        yield _open_folder(source.path)
        return
    with read_driving(source.path, fps=fps, what="video") as (info, frames):
        pairs = (SourceFrame(frame, None) for frame in frames)
        yield OpenSource(
            info.width, info.height, info.fps, info.fps_note, pairs, has_poses=False, track=None, embeddings=None
        )


def _open_folder(folder: Path) -> OpenSource:
    numbered = numbered_frames(folder / "images", "images")
    images = list(numbered.values())
    first = load_image(images[0])
    height, width = first.shape[:2]
    poses = None
    if is_directory(folder / "poses"):
        poses = list(numbered_frames(folder / "poses", "poses").values())
        if len(poses) != len(images):
            raise InputError(f"poses {folder / 'poses'}: there are {len(poses)}, but {len(images)} images")
    track = None
    if is_directory(folder / "faces"):
        track = _load_masks(folder / "faces", list(numbered), (width, height))
    embeddings = None
    if (folder / "embeddings.npy").exists():
        embeddings = load_embeddings(folder / "embeddings.npy", len(images))
    frames = _folder_frames(images, poses, (height, width, 3))
    return OpenSource(width, height, 0.0, None, frames, poses is not None, track, embeddings)


def _load_masks(directory: Path, numbers: list[int], size: tuple[int, int]) -> FaceTrack:
    """What each image's mask says; no face where there is no mask."""
    faces: list[Face | None] = []
    masks = numbered_images(directory, "face masks")
    for number in numbers:
        path = masks.get(number)
        if path is None:
            faces.append(None)
            continue
        mask = load_image(path, what="face mask", background=BLACK)
        if mask.shape[1::-1] != size:
            raise InputError(
                f"face mask {path} is {mask.shape[1]}x{mask.shape[0]} pixels, but the images are {size[0]}x{size[1]}"
            )
        faces.append(face_in_mask(mask))
    return FaceTrack.of(faces)


def _folder_frames(images: list[Path], poses: list[Path] | None, shape: tuple[int, ...]) -> Iterator[SourceFrame]:
    for i, path in enumerate(images):
        pose = None if poses is None else load_image(poses[i], what="pose", background=BLACK)
        frame = SourceFrame(load_image(path), pose)
        for what, file, image in (("image", path, frame.image), ("pose", poses and poses[i], pose)):
            if image is not None and image.shape != shape:
                raise InputError(
                    f"{what} {file} is {image.shape[1]}x{image.shape[0]} pixels, but {images[0].name} of the images"
                    f" is {shape[1]}x{shape[0]}"
                )
        yield frame


def load_embeddings(path: Path, frames: int) -> Float32[np.ndarray, "f 512"]:
    """Read `embeddings.npy` of a published-layout folder: one row a frame, zeros where there is no face.

    Raises:
        InputError: it cannot be read, or has another shape or values that are not finite.
    """
    try:
        with path.open("rb") as file:
            array = np.lib.format.read_array(file, allow_pickle=False)
    except (OSError, ValueError, EOFError) as e:
        raise InputError(f"embeddings {path} cannot be read as a plain .npy file: {first_line(e)}") from e
    if array.shape != (frames, EMBEDDING_DIM) or array.dtype.kind != "f" or not np.isfinite(array).all():
        raise InputError(
            f"embeddings {path} must be [{frames}, {EMBEDDING_DIM}] finite numbers, not {array.dtype}"
            f" {list(array.shape)}; make them anew with {called('prepare')} faces --overwrite"
        )
    return array.astype(np.float32)
