"""`prepare_data.py encode`: the VAE's latents and CLIP's embedding of every frame, computed once for all of training.

Each clip becomes one file that appears whole or not at all, so that a run can be stopped and goes on after what is
there. Of the VAE the whole posterior is kept: training draws from it anew at every step, as it does from pixels.
"""

import dataclasses
import functools
import time
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from pathlib import Path
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import Array, Float16, Float32, Int32, UInt8
from tqdm import tqdm

from stableanimator_jax.commands import called
from stableanimator_jax.data.clip_format import bucket_size
from stableanimator_jax.data.clip_source import PixelClip
from stableanimator_jax.data.encoded import (
    ENCODED_FILE,
    Encoding,
    PixelClips,
    clip_files,
    damaged_files,
    encoded_folder,
    present_files,
    read_encoding,
    write_encoding,
)
from stableanimator_jax.data.prepared import PreparedClips, read_dataset_file
from stableanimator_jax.data.published_layout import PublishedLayout
from stableanimator_jax.diffusion import standard_noise
from stableanimator_jax.errors import InputError, reason_of
from stableanimator_jax.files import is_directory, replacing, require_file
from stableanimator_jax.interrupts import check_interrupted
from stableanimator_jax.models.catalogue import blueprint
from stableanimator_jax.models.clip_input import clip_pixels
from stableanimator_jax.models.functional import Model
from stableanimator_jax.models.image_encoder import ImageEncoder
from stableanimator_jax.models.pixels import pixels
from stableanimator_jax.models.vae import VAE
from stableanimator_jax.preparation.config import EncodeConfig
from stableanimator_jax.provenance import versions
from stableanimator_jax.runtime import choose_device, compute_dtype, keep_compiled_programs, out_of_memory_explained
from stableanimator_jax.weights.fingerprint import fingerprint
from stableanimator_jax.weights.opening import open_checkpoint

_FIELDS = {
    "vae": "another VAE",
    "image_encoder": "another CLIP image encoder",
    "image_encoder_dtype": "another --dtype",
    "noise_augmentation": "another --noise-augmentation",
    "seed": "another --seed",
}


@dataclass(frozen=True)
class EncodeResult:
    """What `encode` did."""

    folder: Path
    """Where the encoded clips are."""
    clips: int
    """Of the data."""
    encoded: int
    """Those that were not there yet."""
    frames: int
    """Of these."""
    bytes: int
    """Of all."""
    seconds: float
    device: str
    damaged: list[str]
    """What is wrong with the clips that could not be read and were left out."""


@dataclass(frozen=True)
class _Chunk:
    """Frames of one clip; the last chunk's last frame is repeated up to the batch, so that all have one shape."""

    clip: PixelClip
    file: str
    frames: UInt8[np.ndarray, "n h w 3"]
    first: int


class _Damaged(NamedTuple):
    """A clip that cannot be read to its end."""

    file: str
    why: str


def encode(config: EncodeConfig) -> EncodeResult:
    """Encode every clip that is not encoded yet.

    Raises:
        InputError: no data, no such checkpoint or device, clips that are encoded with other models or settings, too
            little memory or disk.
    """
    if config.data is None:
        raise InputError(f"give the data: {called('prepare')} encode DATASET --checkpoint DIR")
    if config.checkpoint is None:
        raise InputError("give --checkpoint DIR, whose VAE and CLIP image encoder training is to use")
    sources = _sources(config, config.data.expanduser())
    checkpoint = open_checkpoint(config.checkpoint)
    device = choose_device(config.device)
    if config.compilation_cache:
        keep_compiled_programs()
    dtype = compute_dtype(config.dtype)
    encoding = Encoding(
        vae=fingerprint(config.checkpoint, "vae"),
        image_encoder=fingerprint(config.checkpoint, "image_encoder"),
        image_encoder_dtype=dtype,
        latent_channels=checkpoint.config.vae.latent_channels,
        embedding_dim=checkpoint.config.image_encoder.projection_dim,
        noise_augmentation=config.noise_augmentation,
        seed=config.seed,
    )
    folder = encoded_folder(sources[0])
    _claim(folder, encoding)
    files = [clip_files(source) for source in sources]
    present = present_files(folder)
    todo = [(s, i, f) for s, names in zip(sources, files, strict=True) for i, f in enumerate(names) if f not in present]
    clips = sum(map(len, files))
    started, lengths = time.perf_counter(), list[int]()
    damaged: dict[str, str] = {}
    if todo:
        vae, image_encoder = (
            checkpoint.load(model, blueprint(checkpoint.config, model, dtype)) for model in ("vae", "image_encoder")
        )
        with (
            out_of_memory_explained(
                f"the device has too little memory for {config.batch} frames at a time: lower --batch"
            ),
            tqdm(total=clips, initial=clips - len(todo), desc="encoding", unit="clip") as bar,
        ):
            for length in _encode_clips(todo, vae, image_encoder, encoding, folder, config.batch):
                if isinstance(length, _Damaged):
                    damaged[length.file] = length.why
                else:
                    lengths.append(length)
                bar.update()
        known = {file: why for file, why in damaged_files(folder).items() if not (folder / file).exists()}
        if known | damaged != damaged_files(folder):
            with replacing(folder / ENCODED_FILE) as file:
                write_encoding(file, encoding, versions(), known | damaged)
    seconds = time.perf_counter() - started
    size = sum((folder / name).stat().st_size for names in files for name in names if name not in damaged)
    return EncodeResult(
        folder, clips, len(lengths), sum(lengths), size, seconds, device, damaged=list(damaged.values())
    )


def _sources(config: EncodeConfig, data: Path) -> Sequence[PixelClips]:
    if not is_directory(data):
        require_file(data, "data")
        if config.size is None:
            raise InputError(f"{data} is a list of folders: give the --size WIDTHxHEIGHT to train in")
        # One frame besides the reference: how many training takes is not for this program to know.
        return [PublishedLayout(data, bucket_size(config.size), config.fit or "crop", frames=1)]
    if useless := config.size or config.fit:
        raise InputError(f"{data} is a dataset, whose clips have their sizes already: leave out {useless!r}")
    buckets = read_dataset_file(data)["buckets"]
    sources = [PreparedClips(data, s, b) for b, splits in buckets.items() for s, count in splits.items() if count]
    if not sources:
        raise InputError(f"dataset {data} has no clips")
    return sources


def _claim(folder: Path, encoding: Encoding) -> None:
    """Make the folder, or go on with one that was encoded in the same way."""
    try:
        folder.mkdir(parents=True, exist_ok=True)
        left = set(folder.glob(".*.tmp"))  # by a run that was killed
        if (folder / ENCODED_FILE).exists():
            found = read_encoding(folder)
            for field in dataclasses.fields(Encoding):
                if getattr(found, field.name) != getattr(encoding, field.name):
                    what = _FIELDS.get(field.name, f"another {field.name}")
                    raise InputError(f"the clips in {folder} are encoded with {what}: use the same, or remove it")
        elif set(folder.iterdir()) - left:
            raise InputError(f"cannot write {folder}: it is not empty and holds no encoded clips of ours")
        else:
            with replacing(folder / ENCODED_FILE) as file:
                write_encoding(file, encoding, versions())
        for path in left:
            path.unlink(missing_ok=True)
    except OSError as e:
        raise InputError(f"cannot write {folder}: {reason_of(e)}") from e


def _encode_clips(
    todo: Sequence[tuple[PixelClips, int, str]],
    vae: Model[VAE],
    image_encoder: Model[ImageEncoder],
    encoding: Encoding,
    folder: Path,
    batch: int,
) -> Iterator[int | _Damaged]:
    """Write each clip's file, and then yield its number of frames; of a damaged one nothing is written."""
    key = jax.random.key(np.uint32(encoding.seed))
    parts: list[Any] = []
    # Frames are decoded while the device works on those before them.
    for chunk in _one_ahead(_chunks(todo, batch)):
        check_interrupted()
        if isinstance(chunk, _Damaged):
            parts = []
            yield chunk
            continue
        # The clip's own noise, whatever its place among the others.
        noise_key = jax.random.fold_in(key, np.uint32(int(chunk.file[:8], 16)))
        numbers = chunk.first + np.arange(batch, dtype=np.int32)
        parts.append(encode_frames(vae, image_encoder, chunk.frames, numbers, noise_key, encoding.noise_augmentation))
        if len(parts) > 1:
            parts[-2] = jax.device_get(parts[-2])  # else the device's queue would fill its memory
        if (length := chunk.clip.length) <= chunk.first + batch:
            record = encoding.record(chunk.clip.size)
            frames = np.empty(length, record)
            for name, arrays in zip(record.names or (), zip(*parts, strict=True), strict=True):
                frames[name] = np.concatenate(arrays)[:length]
            _write(folder / chunk.file, frames, chunk.clip.name)
            parts = []
            yield length


def encode_frames(
    vae: Model[VAE],
    image_encoder: Model[ImageEncoder],
    frames: UInt8[np.ndarray, "n H W 3"],
    numbers: Int32[np.ndarray, "n"],
    key: Array,
    noise_augmentation: float,
) -> tuple[Float16[Array, "n h w c2"], Float16[Array, "n h w c2"], Float32[Array, "n d"]]:
    """What is kept of frames: moments, moments with noise augmentation, CLIP's image embedding.

    Args:
        vae, image_encoder: the models.
        frames: RGB, 0 to 255.
        numbers: of the frames in their clip, which decide their noise.
        key: the clip's.
        noise_augmentation: how much unit Gaussian noise is added to pixels in [-1, 1].
    """
    plain, noisy = _with_noise(frames, numbers, key, np.float32(noise_augmentation))
    return _moments(vae, plain), _moments(vae, noisy), _embedding(image_encoder, plain)


@jax.jit
def _with_noise(
    frames: UInt8[Array, "n H W 3"], numbers: Int32[Array, "n"], key: Array, noise_augmentation: Float32[Array, ""]
) -> tuple[Float32[Array, "n H W 3"], Float32[Array, "n H W 3"]]:
    plain = pixels(frames)
    noise = jax.vmap(lambda number: standard_noise(jax.random.fold_in(key, number), frames.shape[1:]))(numbers)
    return plain, plain + noise_augmentation * noise


@jax.jit
def _moments(vae: Model[VAE], images: Float32[Array, "n H W 3"]) -> Float16[Array, "n h w c2"]:
    return jnp.concatenate(vae.module().encode(images), axis=-1).astype(jnp.float16)


@jax.jit
def _embedding(image_encoder: Model[ImageEncoder], images: Float32[Array, "n H W 3"]) -> Float32[Array, "n d"]:
    return image_encoder.module()(clip_pixels(images)).astype(jnp.float32)


def _chunks(todo: Sequence[tuple[PixelClips, int, str]], batch: int) -> Iterator[_Chunk | _Damaged]:
    for clips, index, file in todo:
        try:
            clip = clips[index]
            for first in range(0, clip.length, batch):
                frames = clip.read_frames(range(first, min(first + batch, clip.length)))
                short = batch - len(frames)
                yield _Chunk(clip, file, np.pad(frames, [(0, short), (0, 0), (0, 0), (0, 0)], mode="edge"), first)
        except InputError as e:
            yield _Damaged(file, str(e))


def _one_ahead(chunks: Iterator[_Chunk | _Damaged]) -> Iterator[_Chunk | _Damaged]:
    """The same; each is made, in a thread, while the one before it is used."""
    make: Callable[[], _Chunk | _Damaged | None] = functools.partial(next, chunks, None)
    with ThreadPoolExecutor(1) as thread:
        coming = thread.submit(make)
        while (chunk := coming.result()) is not None:
            coming = thread.submit(make)
            yield chunk


def _write(file: Path, frames: np.ndarray, name: str) -> None:
    for field in frames.dtype.names or ():
        finite = np.isfinite(frames[field]).reshape(len(frames), -1).all(axis=1)
        if not finite.all():
            raise InputError(
                f"clip {name}: {field} of frame {int(np.argmin(finite))} is not finite, or too large for float16: "
                "the checkpoint does not suit"
            )
    with replacing(file) as temporary, temporary.open("wb") as stream:
        np.save(stream, frames)
