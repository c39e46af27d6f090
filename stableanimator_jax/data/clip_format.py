"""The record of one training clip: what is kept of it, and how it becomes a TFDS example and comes back.

Frames are JPEG, skeletons PNG, so that any of them can be decoded alone; docs/decisions.md says why.
"""

import re
from collections.abc import Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import numpy as np
from jaxtyping import Bool, Float32, UInt8

from stableanimator_jax.config import EMBEDDING_DIM
from stableanimator_jax.data.keypoints import POINTS
from stableanimator_jax.errors import InputError
from stableanimator_jax.opencv import cv2

if TYPE_CHECKING:
    import tensorflow_datasets as tfds

JPEG_QUALITY = 95
_MULTIPLE = 64  # of width and height: what the UNet's levels and the VAE halve
_LARGEST_SIDE = 4096


@dataclass(frozen=True)
class ClipRecord:
    """One clip: one shot, or a part of one, at its bucket's size."""

    name: str
    """Unique in a dataset: the source's name with the number of the first frame."""
    source: str
    """The video, or the published-layout folder, below the folder that was prepared."""
    first_frame: int
    """Where in the source the clip begins, counted from 0."""
    fps: float
    """Of the source; 0 where it is a folder of images, which has no speed."""
    frames: Sequence[bytes]
    """JPEG, RGB, all of one size."""
    poses: Sequence[bytes]
    """PNG, RGB: the drawn skeletons, of the frames' size."""
    points: Float32[np.ndarray, "f 134 2"]
    """What the skeletons were drawn from, in pixels; rows as in `data.keypoints.Keypoints`. Zeros where they were
    given as pictures."""
    scores: Float32[np.ndarray, "f 134"]
    boxes: Float32[np.ndarray, "f 4"]
    """The person's face, or the largest where skeletons were given as pictures; as in `data.face_track.FaceTrack`."""
    landmarks: Float32[np.ndarray, "f 5 2"]
    """As in `FaceTrack`; zeros where they are not known."""
    valid: Bool[np.ndarray, " f"]
    """Whether the frame has a face box."""
    embeddings: Float32[np.ndarray, "f 512"]
    """Raw ArcFace embeddings of that face; zeros where there is no face."""


_TENSORS: dict[str, tuple[type, tuple[int, ...]]] = {
    "points": (np.float32, (POINTS, 2)),
    "scores": (np.float32, (POINTS,)),
    "boxes": (np.float32, (4,)),
    "landmarks": (np.float32, (5, 2)),
    "valid": (np.bool_, ()),
    "embeddings": (np.float32, (EMBEDDING_DIM,)),
}
FIELDS = ("name", "source", "first_frame", "fps", "frames", "poses", *_TENSORS)


def features(size: tuple[int, int]) -> "tfds.features.FeaturesDict":
    """TFDS's description of a record whose frames have this (width, height)."""
    import tensorflow_datasets as tfds  # takes a second, which a script's --help need not wait for

    shape = (size[1], size[0], 3)
    tensors = {name: tfds.features.Tensor(shape=(None, *row), dtype=dtype) for name, (dtype, row) in _TENSORS.items()}
    return tfds.features.FeaturesDict(
        {
            "name": tfds.features.Text(),
            "source": tfds.features.Text(),
            "first_frame": np.int64,
            "fps": np.float32,
            "frames": tfds.features.Sequence(tfds.features.Image(shape=shape, encoding_format="jpeg")),
            "poses": tfds.features.Sequence(tfds.features.Image(shape=shape, encoding_format="png")),
            **tensors,
        }
    )


def to_example(record: ClipRecord) -> dict[str, Any]:
    """What a TFDS builder yields for a record."""
    example = {field: getattr(record, field) for field in FIELDS}
    return example | {"frames": list(record.frames), "poses": list(record.poses)}


def from_example(example: Any) -> ClipRecord:
    """A record out of an example as TFDS parses it, with images still encoded."""
    tensors = {
        # TFDS gives a list where a tensor has no elements at all.
        name: np.asarray(example[name], dtype).reshape(-1, *shape)
        for name, (dtype, shape) in _TENSORS.items()
    }
    return ClipRecord(
        name=_text(example["name"]),
        source=_text(example["source"]),
        first_frame=int(example["first_frame"]),
        fps=float(example["fps"]),
        frames=list(example["frames"]),
        poses=list(example["poses"]),
        **tensors,
    )


def _text(value: str | bytes) -> str:
    return value.decode() if isinstance(value, bytes) else value


def bucket_size(bucket: str) -> tuple[int, int]:
    """Width and height out of "512x512". Raises `InputError` where it is no such size."""
    match = re.fullmatch(r"(\d{1,5})x(\d{1,5})", bucket)
    size = (int(match[1]), int(match[2])) if match else (0, 0)
    if not all(0 < side <= _LARGEST_SIDE and side % _MULTIPLE == 0 for side in size):
        raise InputError(
            f"bucket {bucket!r} is no size: give WIDTHxHEIGHT in multiples of {_MULTIPLE} up to {_LARGEST_SIDE},"
            " such as 512x512"
        )
    return size


def encode_jpeg(image: UInt8[np.ndarray, "h w 3"]) -> bytes:
    """An RGB image as JPEG of quality 95."""
    return _encode(".jpg", image, [cv2.IMWRITE_JPEG_QUALITY, JPEG_QUALITY])


def encode_png(image: UInt8[np.ndarray, "h w 3"]) -> bytes:
    """An RGB image as PNG."""
    return _encode(".png", image, [])


def _encode(suffix: str, image: np.ndarray, options: list[int]) -> bytes:
    done, data = cv2.imencode(suffix, cv2.cvtColor(image, cv2.COLOR_RGB2BGR), options)
    if not done:
        raise ValueError(f"an image of shape {image.shape} cannot be encoded as {suffix}")
    return data.tobytes()


def decode_images(encoded: Sequence[bytes]) -> UInt8[np.ndarray, "k h w 3"]:
    """JPEG or PNG images of one size as RGB.

    Raises:
        ValueError: one of them is no image, as in a damaged record.
    """
    images = []
    for data in encoded:
        image = cv2.imdecode(np.frombuffer(data, np.uint8), cv2.IMREAD_COLOR_RGB) if data else None
        if image is None:
            raise ValueError("an image of the clip cannot be decoded; the record is damaged")
        images.append(image)
    return np.stack(images)
