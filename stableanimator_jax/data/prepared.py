"""Training clips out of a dataset that `prepare_data.py` made: random access, without TensorFlow."""

import functools
import hashlib
import json
import os
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import numpy as np
from jaxtyping import Bool, UInt8

from stableanimator_jax.commands import called
from stableanimator_jax.config import read_json
from stableanimator_jax.data.clip_format import ClipRecord, bucket_size, decode_images, from_example
from stableanimator_jax.data.clip_source import PixelClip
from stableanimator_jax.errors import InputError, first_line, reason_of
from stableanimator_jax.files import LFS_POINTER, is_lfs_pointer, require_utf8
from stableanimator_jax.opencv import require_opencv

DATASET_FILE = "dataset.json"
_SAMPLE = 2**16  # bytes of a shard at its beginning, in its middle and at its end


class PreparedClips:
    """The clips of one bucket and split, as a `ClipSource`; pickled as its names, opened again where it arrives."""

    def __init__(self, directory: Path, split: str, bucket: str):
        """Open them.

        Args:
            directory: what `prepare_data.py videos --output` made.
            split: "train" or "validation".
            bucket: "512x512", width before height.

        Raises:
            InputError: there is no such dataset, it has no such bucket or split, or its files cannot be read.
        """
        require_opencv()
        require_utf8(directory, "dataset")
        self.directory, self.split, self.bucket = directory, split, bucket
        self.size = bucket_size(bucket)
        self.damaged: Mapping[int, str] = {}  # shows when a record is read
        counts = read_dataset_file(directory)["buckets"]
        if bucket not in counts:
            raise InputError(f"dataset {directory} has no bucket {bucket}, only {', '.join(counts)}")
        self._length = int(counts[bucket].get(split, 0))
        if self._length == 0:
            raise InputError(f"dataset {directory} has no clips in the split {split!r} of {bucket}")
        with self._reading() as shards:
            if pointer := next(filter(is_lfs_pointer, shards), None):
                raise InputError(f"dataset {directory}: {pointer} is {LFS_POINTER}")

    def __len__(self) -> int:
        return self._length

    def __getitem__(self, index: int, /) -> "PreparedClip":
        """The clip at `index`. Its record is read whole; images are decoded by `read`.

        Raises:
            IndexError: there is no such clip.
            InputError: the dataset's files cannot be read.
        """
        if not 0 <= index < self._length:
            raise IndexError(f"clip {index} of {self._length}")
        try:
            record = from_example(self._records[index])
        except Exception as e:  # ArrayRecord and protobuf have exceptions of their own
            raise InputError(
                f"dataset {self.directory / self.bucket}: clip {index} cannot be read: {first_line(e)}"
            ) from e
        return PreparedClip(record, self.size)

    def contents(self) -> dict[str, str]:
        """Of the videos, as `dataset.json` has them; and of the shards' sizes and parts of their bytes."""
        known = read_dataset_file(self.directory)
        prepared = {name: str(content) for name, content in (known.get("videos") or {}).items()}
        prepared["the settings of prepare_data.py"] = _hash(json.dumps(known.get("settings"), sort_keys=True).encode())
        with self._reading() as shards:
            return prepared | {f"{self.bucket}/{shard.name}": _sampled_hash(shard) for shard in shards}

    @contextmanager
    def _reading(self) -> Iterator[list[Path]]:
        """The files that the clips are in; where they cannot be read, an `InputError` says so."""
        folder = self.directory / self.bucket
        try:
            yield sorted(path for path in folder.iterdir() if f"-{self.split}." in path.name)
        except OSError as e:
            raise InputError(f"cannot read dataset {folder}: {reason_of(e)}") from e

    @functools.cached_property
    def _records(self) -> "_Records":
        return _Records(self.directory / self.bucket, self.split)

    def __getstate__(self) -> dict[str, Any]:
        return {name: value for name, value in self.__dict__.items() if name != "_records"}


class _Records:
    """Examples parsed, but with their images still encoded."""

    def __init__(self, folder: Path, split: str):
        import tensorflow_datasets as tfds
        from tensorflow_datasets.core.example_parser import ExampleParserNp

        builder: Any = tfds.builder_from_directory(folder)
        raw = tfds.decode.DeserializeMethod.RAW_BYTES
        self._source = builder.as_data_source(split, deserialize_method=raw)
        features: Any = builder.info.features
        self._parser = ExampleParserNp(features.get_serialized_info())

    def __getitem__(self, index: int) -> Any:
        return self._parser.parse_example(self._source[index])


class PreparedClip(PixelClip):
    """One clip."""

    def __init__(self, record: ClipRecord, size: tuple[int, int]):
        self.record = record
        self.name, self.length, self.size = record.name, len(record.frames), size
        self.embeddings = record.embeddings

    def read_frames(self, indices: Sequence[int]) -> UInt8[np.ndarray, "k h w 3"]:
        return self._decode(self.record.frames, indices)

    def read_poses(self, indices: Sequence[int]) -> UInt8[np.ndarray, "k h w 3"]:
        return self._decode(self.record.poses, indices)

    def read_masks(self, indices: Sequence[int]) -> Bool[np.ndarray, "k h w"]:
        width, height = self.size
        masks = np.ones((len(indices), height, width), bool)
        for mask, i in zip(masks, indices, strict=True):
            if self.record.valid[i]:
                left, top, right, bottom = self.record.boxes[i].astype(int)
                mask[:] = False
                mask[top : bottom + 1, left : right + 1] = True
        return masks

    def _decode(self, images: Sequence[bytes], indices: Sequence[int]) -> UInt8[np.ndarray, "k h w 3"]:
        try:
            decoded = decode_images([images[i] for i in indices])
        except ValueError as e:
            raise InputError(f"clip {self.name}: {e}") from e
        if (size := decoded.shape[2:0:-1]) != self.size:
            raise InputError(f"clip {self.name}: its images are of another size, {size}; the record is damaged")
        return decoded


def _sampled_hash(file: Path) -> str:
    with file.open("rb") as stream:
        size = stream.seek(0, os.SEEK_END)
        parts = [str(size).encode()]
        for begin in (0, size // 2, max(0, size - _SAMPLE)):
            stream.seek(begin)
            parts.append(stream.read(_SAMPLE))
    return _hash(b"".join(parts))


def _hash(data: bytes) -> str:
    return hashlib.sha256(data).hexdigest()[:16]


def read_dataset_file(directory: Path) -> dict[str, Any]:
    """What `prepare_data.py` wrote about a dataset. Raises `InputError` where there is none."""
    path = directory / DATASET_FILE
    if not path.is_file():
        raise InputError(f"{directory} holds no prepared dataset: there is no {DATASET_FILE}; see {called('prepare')}")
    data = read_json(path)
    if not isinstance(data, dict) or not isinstance(data.get("buckets"), dict):
        raise InputError(f"{path} is not what {called('prepare')} writes")
    return data
