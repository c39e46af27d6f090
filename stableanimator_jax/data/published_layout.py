"""Training data as StableAnimator's authors lay it out: folders of PNG images, named in a text file per bucket."""

import hashlib
import json
import os
from collections.abc import Iterator, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from dataclasses import dataclass
from functools import cached_property, partial
from pathlib import Path
from typing import NamedTuple

import numpy as np
from jaxtyping import Bool, Float32, UInt8
from PIL import Image

from stableanimator_jax.commands import called
from stableanimator_jax.config import EMBEDDING_DIM
from stableanimator_jax.data.clip_sampling import shortest_length
from stableanimator_jax.data.clip_source import PixelClip
from stableanimator_jax.data.images import BLACK, Filter, FitMode, fit, fit_aspect, image_size, load_image
from stableanimator_jax.data.numbered import numbered_frames, numbered_images
from stableanimator_jax.errors import InputError, first_line, reason_of
from stableanimator_jax.files import is_directory, require_file

_WHITE = 128  # masks are black and white, but for the edges that a resize has softened
_SAME_ASPECT = 0.02
_PROBLEMS_SHOWN = 5
_THREADS = 16  # that wait for a disk or a network
_ENDS = (b"IEND\xaeB`\x82", b"\xff\xd9")  # of a PNG and a JPEG: what was cut off, or is zeros at its end, has none


@dataclass(frozen=True)
class PublishedClip(PixelClip):
    """One folder. Its frames are fitted to `size` as they are read: see `PublishedLayout`."""

    name: str
    folder: Path
    length: int
    size: tuple[int, int]
    fit: FitMode

    @cached_property
    def embeddings(self) -> Float32[np.ndarray, "length 512"]:  # pyright: ignore[reportIncompatibleVariableOverride]
        """Of every frame; zeros where there is no face. Raises `InputError` unless all numbers are finite."""
        embeddings = np.array(_open_embeddings(self.folder), np.float32)
        _require_finite(embeddings, self.folder)
        return embeddings

    def read_frames(self, indices: Sequence[int]) -> UInt8[np.ndarray, "k h w 3"]:
        images = list(self.images().values())
        return np.stack([self._fitted(images[i], "frame", "lanczos") for i in indices])

    def read_poses(self, indices: Sequence[int]) -> UInt8[np.ndarray, "k h w 3"]:
        poses = list(numbered_frames(self.folder / "poses", "poses").values())
        return np.stack([self._fitted(poses[i], "pose", "bicubic") for i in indices])

    def read_masks(self, indices: Sequence[int]) -> Bool[np.ndarray, "k h w"]:
        masks = _masks(self.folder, self.images())
        return np.stack([self._mask(masks[i]) for i in indices])

    def images(self) -> dict[int, Path]:
        """The files of all frames by their numbers. Raises `InputError` where there are none, or not all."""
        return _images(self.folder)

    def _fitted(self, path: Path, what: str, filter: Filter) -> UInt8[np.ndarray, "h w 3"]:
        image = load_image(path, what=what, background=BLACK)
        return fit(image, *self.size, self.fit, filter=filter)

    def _mask(self, path: Path | None) -> Bool[np.ndarray, "h w"]:
        width, height = self.size
        everywhere = np.ones((height, width), bool)
        if path is None:
            return everywhere
        mask = load_image(path, what="face mask", background=BLACK)
        if mask.min() >= _WHITE:  # no face was found; bars around the frame would belong to it too
            return everywhere
        mask = Image.fromarray(fit_aspect(mask, width, height, self.fit).min(axis=-1))
        return np.asarray(mask.resize((width, height), Image.Resampling.NEAREST)) >= _WHITE


class PublishedLayout:
    """The folders that a text file names, one a line, as clips of one size. A `ClipSource`.

    Each folder has `images/frame_N.png` (or other numbered images: `numbered_images`), as many `poses/frame_N.png` with
    the same numbers, `faces/frame_N.png` (white boxes on black; a frame without a mask counts as white all over), and
    `embeddings.npy`, `[frames, 512]`, with zeros for frames without a face. Frames are fitted without stretching:
    images by Lanczos and poses bicubic, as published, masks by the nearest pixel.

    Every folder is looked at now, so that a mistake shows before training begins: the numbers of its files, the kind
    of its embeddings, the size of its first frame. A folder in which all is as it must be, but for a file that is
    damaged, is no mistake: it is told by `damaged`. That is found where it is cheap, by the header and the end of every
    image and by the embeddings' numbers; images are not decoded.

    Args:
        list_file: the text file. Folders are relative to it, or absolute; empty lines do not count.
        size: (width, height) of the clips in pixels.
        fit: "crop" to the aspect, or "pad" to it with black.
        frames: of a training clip; each folder needs one more, for the reference.

    Raises:
        InputError: the list cannot be read or is empty, or there is something wrong with its folders, or all of them
            are damaged. The first few of those are told together.
    """

    def __init__(self, list_file: Path | str, size: tuple[int, int], fit: FitMode = "crop", *, frames: int = 16):
        self.list_file = list_file = Path(list_file)
        require_file(list_file, "list of folders")
        self.size = size
        self._fit: FitMode = fit
        self._names = _lines(list_file)
        self._folders = [list_file.parent / name for name in self._names]
        if not self._names:
            raise InputError(f"list of folders {list_file} names no folder")
        with ThreadPoolExecutor(_THREADS) as threads:
            looked_at = list(threads.map(partial(_look_at, shortest=shortest_length(frames)), self._folders))
        problems = []
        seen: set[str] = set()
        for name, folder, found in zip(self._names, self._folders, looked_at, strict=True):
            if (path := os.path.normpath(folder)) in seen:
                problems.append(f"{name} is in it twice")
            elif found.mistake is not None:
                problems.append(found.mistake)
            seen.add(path)
        self._lengths = [found.length for found in looked_at]
        self.damaged: Mapping[int, str] = {i: f.damage for i, f in enumerate(looked_at) if f.damage is not None}
        if len(self.damaged) == len(self._names):
            problems = list(self.damaged.values())
        if problems:
            rest = len(problems) - _PROBLEMS_SHOWN
            more = [f"and {rest} more folders have problems"] if rest > 0 else []
            raise InputError(f"list of folders {list_file}: {'; '.join(problems[:_PROBLEMS_SHOWN] + more)}")

    def __len__(self) -> int:
        return len(self._names)

    def __getitem__(self, index: int, /) -> PublishedClip:
        if index in self.damaged:
            raise InputError(self.damaged[index])
        return self.folder_at(index)

    def folder_at(self, index: int) -> PublishedClip:
        """The clip at `index` even if it is damaged."""
        return PublishedClip(self._names[index], self._folders[index], self._lengths[index], self.size, self._fit)

    def contents(self) -> dict[str, str]:
        with ThreadPoolExecutor(_THREADS) as threads:
            return dict(zip(self._names, threads.map(_content, self._folders), strict=True))


_HOW_TO_MAKE = f"`{called('prepare')} faces` makes it"


@dataclass(frozen=True)
class _Found:
    """What there is to say of a folder."""

    length: int = 0
    mistake: str | None = None
    damage: str | None = None


class _DamageError(InputError):
    """A file is not what it must be, though all are there."""


@contextmanager
def _as_damage() -> Iterator[None]:
    try:
        yield
    except InputError as e:
        raise _DamageError(str(e)) from e


def _look_at(folder: Path, shortest: int) -> _Found:
    length = 0
    try:
        files = _files(folder, shortest)
        length = len(files.images)
        _check_files(folder, files)
    except _DamageError as e:
        return _Found(length, damage=str(e))
    except InputError as e:
        return _Found(mistake=str(e))
    return _Found(length)


def _lines(list_file: Path) -> list[str]:
    try:
        text = list_file.read_text(encoding="utf-8-sig")
    except UnicodeDecodeError:
        raise InputError(f"list of folders {list_file} is not a text file in UTF-8") from None
    return [line.strip() for line in text.splitlines() if line.strip()]


class _Files(NamedTuple):
    images: list[Path]
    poses: list[Path]
    masks: list[Path | None]


def _files(folder: Path, shortest: int) -> _Files:
    """All images, if as many are there as must be. Raises `InputError`."""
    if not is_directory(folder):
        raise InputError(f"{folder} is not a folder")
    numbered, numbered_poses = _images(folder), numbered_frames(folder / "poses", "poses")
    images, poses = list(numbered.values()), list(numbered_poses.values())
    if len(images) != len(poses):
        raise InputError(f"{folder} has {len(images)} images, but {len(poses)} poses")
    if min(numbered) != min(numbered_poses):
        raise InputError(f"{folder}: images begin with {images[0].name}, but poses with {poses[0].name}")
    if len(images) < shortest:
        raise InputError(f"{folder} has {len(images)} frames, but {shortest} are needed; leave it out")
    return _Files(images, poses, _masks(folder, numbered))


def _check_files(folder: Path, files: _Files) -> None:
    """Raise `InputError` where files do not fit each other, `_DamageError` where one is damaged."""
    images, poses, masks = files.images, files.poses, [mask for mask in files.masks if mask is not None]
    embeddings = _open_embeddings(folder)
    if embeddings.shape != (len(images), EMBEDDING_DIM):
        raise InputError(
            f"{_embeddings_file(folder)} is of shape {embeddings.shape}, but for {len(images)} images it must be "
            f"({len(images)}, {EMBEDDING_DIM}); {_HOW_TO_MAKE}"
        )
    _require_finite(embeddings, folder)
    width, height = _image_size(images[0])
    for path in (*poses[:1], *masks[:1]):
        other_width, other_height = _image_size(path)
        if abs(width * other_height / (height * other_width) - 1) > _SAME_ASPECT:
            raise InputError(
                f"{path} is {other_width}x{other_height} pixels, but {images[0].name} of {folder / 'images'} is "
                f"{width}x{height}: another aspect"
            )
    for what, paths in (("frame", images), ("pose", poses), ("face mask", masks)):
        for path in paths:
            _require_whole(path, what)


def _require_whole(path: Path, what: str) -> None:
    """Raise `_DamageError` unless an image has a header and, as far as its end shows, the rest."""
    try:
        with path.open("rb") as file, Image.open(file):
            file.seek(-8, os.SEEK_END)
            if file.read().endswith(_ENDS):
                return
    except Exception:  # Pillow raises all kinds of exceptions for damaged files
        pass
    with _as_damage():  # it says what is wrong; or nothing is, but something comes after the end
        load_image(path, what=what, background=BLACK)


def _content(folder: Path) -> str:
    """A hash of the names and sizes of all files, and of the embeddings' bytes."""
    try:
        embeddings = _embeddings_file(folder).read_bytes()
        parts = {part: folder / part for part in ("images", "poses", "faces")}
        files = {n: file_sizes(sorted(part.iterdir())) for n, part in parts.items() if is_directory(part)}
    except OSError as e:
        raise InputError(f"cannot read {e.filename}: {reason_of(e)}") from e
    listed = json.dumps([files, hashlib.sha256(embeddings).hexdigest()])
    return hashlib.sha256(listed.encode()).hexdigest()[:16]


def file_sizes(files: Sequence[Path]) -> list[tuple[str, int]]:
    """Names and sizes in bytes. Raises `OSError`."""
    return [(path.name, path.stat().st_size) for path in files]


def _images(folder: Path) -> dict[int, Path]:
    return numbered_frames(folder / "images", "images")


def _masks(folder: Path, images: dict[int, Path]) -> list[Path | None]:
    """The mask of every image, None where there is none. Raises `InputError` for one that belongs to no image."""
    directory = folder / "faces"
    found = numbered_images(directory, "face masks") if is_directory(directory) else {}
    if strays := found.keys() - images.keys():
        names = [path.name for path in images.values()]
        raise InputError(f"{found[min(strays)]} belongs to no image: those are {names[0]} to {names[-1]}")
    return [found.get(number) for number in images]


def _embeddings_file(folder: Path) -> Path:
    return folder / "embeddings.npy"


def _open_embeddings(folder: Path) -> np.ndarray:
    """Of a file: its shape is known, its numbers are not read yet. Raises `InputError`."""
    path = _embeddings_file(folder)
    if not path.exists():
        raise InputError(f"{path} is missing; {_HOW_TO_MAKE}")
    with _as_damage():
        require_file(path, "face embeddings")
    try:
        embeddings = np.load(path, mmap_mode="r", allow_pickle=False)
    except (ValueError, OSError, EOFError) as e:
        raise _DamageError(f"face embeddings {path} are not a plain .npy file: {first_line(e)}") from e
    if not isinstance(embeddings, np.ndarray) or embeddings.dtype.kind != "f":
        raise InputError(f"face embeddings {path} are not numbers with a fraction; {_HOW_TO_MAKE}")
    return embeddings


def _require_finite(embeddings: np.ndarray, folder: Path) -> None:
    if not np.isfinite(embeddings).all():
        raise _DamageError(f"{_embeddings_file(folder)} has numbers that are not finite; {_HOW_TO_MAKE}")


def _image_size(path: Path) -> tuple[int, int]:
    """As `image_size`, whose errors are damage."""
    with _as_damage():
        return image_size(path)
