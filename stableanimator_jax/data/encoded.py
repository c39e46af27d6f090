"""Clips with what the frozen models make of every frame, computed ahead by `prepare_data.py encode`.

A clip's frames are the records of one `.npy` file, so that a few of them are read by mapping it to memory. The file's
name is a hash of what its clip's frames are: where the data has changed, or is another's, there is no such file. What
the models were is in `encoded.json` beside the files, and compared whenever they are opened.
"""

import dataclasses
import hashlib
import json
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from jaxtyping import Bool

from stableanimator_jax.commands import called
from stableanimator_jax.config import from_dict, read_json
from stableanimator_jax.data.clip_source import PixelClip
from stableanimator_jax.data.clips import PIXELS_PER_LATENT, Clips, Moments
from stableanimator_jax.data.prepared import DATASET_FILE, PreparedClips
from stableanimator_jax.data.published_layout import PublishedLayout, file_sizes
from stableanimator_jax.errors import InputError, reason_of
from stableanimator_jax.files import is_directory
from stableanimator_jax.provenance import sha256_of

ENCODED_FILE = "encoded.json"
_FORMAT = "stableanimator-jax encoded clips"
_VERSION = 1  # a change in what is stored or how it is computed must raise it
_AGAIN = f"run {called('prepare')} encode (again)"

PixelClips = PreparedClips | PublishedLayout


@dataclass(frozen=True)
class Encoding:
    """What decides the numbers of encoded clips."""

    vae: str
    """The VAE's `weights.fingerprint.fingerprint`."""
    image_encoder: str
    """CLIP's."""
    image_encoder_dtype: str
    """What CLIP computed in; the VAE does in float32."""
    latent_channels: int
    embedding_dim: int
    """Of CLIP's projected image embedding."""
    noise_augmentation: float
    """How much unit Gaussian noise the VAE's copy of a reference has, in pixels of [-1, 1]."""
    seed: int
    """Of that noise."""

    def record(self, size: tuple[int, int]) -> np.dtype[Any]:
        """One frame of a clip whose frames have this (width, height)."""
        width, height = size
        moments = (height // PIXELS_PER_LATENT, width // PIXELS_PER_LATENT, 2 * self.latent_channels)
        return np.dtype(
            [
                ("moments", "<f2", moments),
                ("condition_moments", "<f2", moments),
                ("image_embedding", "<f4", (self.embedding_dim,)),
            ]
        )


@dataclass(frozen=True)
class EncodedClip:
    """One clip, as a `Clip`."""

    clip: PixelClip
    file: Path
    encoding: Encoding

    @property
    def name(self) -> str:
        return self.clip.name

    @property
    def length(self) -> int:
        return self.clip.length

    @property
    def size(self) -> tuple[int, int]:
        return self.clip.size

    @property
    def has_face(self) -> Bool[np.ndarray, "length"]:
        return self.clip.has_face

    def read(self, indices: Sequence[int], *, mirrored: bool = False) -> Clips[np.ndarray]:
        """Read these frames' numbers and decode their skeletons; their pixels are not decoded.

        Raises:
            InputError: a file cannot be read, or is not what its clip has become.
        """
        if mirrored:
            raise ValueError("the latents of a mirrored image are not the mirrored latents")
        rows = self._map()[list(indices)]
        images = Moments(
            rows["moments"][None, :-1], rows["condition_moments"][None, -1], rows["image_embedding"][None, -1]
        )
        return self.clip.read_with(images, indices)

    def _map(self) -> np.ndarray:
        try:
            frames = np.load(self.file, mmap_mode="r", allow_pickle=False)
        except (OSError, ValueError, EOFError) as e:
            raise InputError(
                f"encoded clip {self.name}: cannot read {self.file}: {reason_of(e)}; remove that file and {_AGAIN}"
            ) from e
        wanted = self.encoding.record(self.size), (self.length,)
        if (frames.dtype, frames.shape) != wanted:
            raise InputError(
                f"encoded clip {self.name}: {self.file} does not hold its {self.length} frames; remove it and {_AGAIN}"
            )
        return frames


class EncodedClips:
    """The clips of a prepared dataset's bucket and split, or of the published layout, encoded. A `ClipSource`.

    Args:
        clips: where everything but pixels comes from, and beside which the encoded clips lie.
        vae, image_encoder: `weights.fingerprint.fingerprint` of the models that training is to go on with.
        noise_augmentation: of the reference, which the UNet is told.

    Raises:
        InputError: they are not encoded, not all of them, or with other models or noise; one line says which.
    """

    def __init__(self, clips: PixelClips, *, vae: str, image_encoder: str, noise_augmentation: float = 0.02):
        self.clips, self.folder = clips, encoded_folder(clips)
        self.encoding = read_encoding(self.folder)
        for what, found, wanted in (
            ("another VAE", self.encoding.vae, vae),
            ("another CLIP image encoder", self.encoding.image_encoder, image_encoder),
            (
                f"noise augmentation {self.encoding.noise_augmentation:g}",
                self.encoding.noise_augmentation,
                noise_augmentation,
            ),
        ):
            if found != wanted:
                raise InputError(
                    f"the encoded clips in {self.folder} were made with {what}, not with what training uses: "
                    f"remove that folder and {_AGAIN}"
                )
        self.files = clip_files(clips)
        present, damaged = present_files(self.folder), damaged_files(self.folder)
        found = {i: damaged[file] for i, file in enumerate(self.files) if file in damaged and file not in present}
        self.damaged: Mapping[int, str] = found | dict(clips.damaged)
        wanted = {file for i, file in enumerate(self.files) if i not in self.damaged}
        if missing := len(wanted - present):
            raise InputError(
                f"{missing} of {len(clips)} clips are not encoded in {self.folder}, or have changed since: {_AGAIN}"
            )

    @property
    def size(self) -> tuple[int, int]:
        return self.clips.size

    def contents(self) -> dict[str, str]:
        return self.clips.contents()

    def __len__(self) -> int:
        return len(self.clips)

    def __getitem__(self, index: int, /) -> EncodedClip:
        """The clip at `index`. Raises as that of the clips that these were made of."""
        if index in self.damaged:
            raise InputError(self.damaged[index])
        return EncodedClip(self.clips[index], self.folder / self.files[index], self.encoding)


def encoded_folder(clips: PixelClips) -> Path:
    """Where the encoded clips of these are: in the dataset's folder, or beside the list LIST.txt as LIST.encoded."""
    if isinstance(clips, PreparedClips):
        return clips.directory / "encoded"
    return clips.list_file.with_suffix(".encoded")


def clip_files(clips: PixelClips) -> list[str]:
    """The name of each clip's file: another one where the clip's frames are others.

    Of a prepared dataset that is what its `dataset.json` says, which has hashes of all videos; of published folders,
    the name, how frames are fitted, and the images' names and sizes in bytes.

    Raises:
        InputError: those cannot be read.
    """
    if isinstance(clips, PreparedClips):
        dataset = sha256_of([clips.directory / DATASET_FILE])
        return [_file_name([dataset, clips.bucket, clips.split, index]) for index in range(len(clips))]
    found = map(clips.folder_at, range(len(clips)))
    return [_file_name([clip.name, clip.size, clip.fit, _sizes(clip.images())]) for clip in found]


def _file_name(identity: list[Any]) -> str:
    return f"{hashlib.sha256(json.dumps(identity).encode()).hexdigest()[:32]}.npy"


def _sizes(files: dict[int, Path]) -> list[tuple[str, int]]:
    try:
        return file_sizes(list(files.values()))
    except OSError as e:
        raise InputError(f"cannot read frame {e.filename}: {reason_of(e)}") from e


def present_files(folder: Path) -> set[str]:
    """The names of the encoded clips that are there; a clip's file is there whole or not at all."""
    try:
        return {path.name for path in folder.iterdir() if path.suffix == ".npy"}
    except OSError as e:
        raise InputError(f"cannot read encoded clips {folder}: {reason_of(e)}") from e


def damaged_files(folder: Path) -> dict[str, str]:
    """What is wrong with the clips that could not be encoded, by the name of the file that is not there."""
    data = read_json(folder / ENCODED_FILE)
    return dict(data.get("damaged", {})) if isinstance(data, dict) else {}


def read_encoding(folder: Path) -> Encoding:
    """What clips in this folder are encoded by. Raises `InputError` where there are none, or in another format."""
    if not is_directory(folder) or not (folder / ENCODED_FILE).is_file():
        raise InputError(f"there are no encoded clips in {folder}: {_AGAIN}, or train on pixels")
    data = read_json(folder / ENCODED_FILE)
    if not isinstance(data, dict) or data.get("format") != _FORMAT:
        raise InputError(f"{folder / ENCODED_FILE} is not what {called('prepare')} encode writes")
    if data.get("version") != _VERSION:
        raise InputError(
            f"the encoded clips in {folder} have format version {data.get('version')!r}, this program reads "
            f"{_VERSION}: remove that folder and {_AGAIN}"
        )
    try:
        return from_dict(Encoding, data.get("encoding"))
    except (InputError, TypeError) as e:  # TypeError: a field is missing
        raise InputError(f"{folder / ENCODED_FILE} is damaged: {e}; remove that folder and {_AGAIN}") from e


def write_encoding(
    file: Path, encoding: Encoding, versions: dict[str, str], damaged: Mapping[str, str] | None = None
) -> None:
    """Write what `read_encoding` reads, with the versions of what computed, which nothing is compared with.

    `damaged` is what `damaged_files` gives.
    """
    data = {
        "format": _FORMAT,
        "version": _VERSION,
        "encoding": dataclasses.asdict(encoding),
        "versions": versions,
    } | ({"damaged": dict(damaged)} if damaged else {})
    file.write_text(json.dumps(data, indent=1) + "\n", encoding="utf-8")
