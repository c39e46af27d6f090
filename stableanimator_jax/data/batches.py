"""Training batches on the host: clips as pixels, or as latents and embeddings computed ahead."""

from collections.abc import Sequence
from itertools import chain
from typing import NamedTuple, TypeVar

import numpy as np
from jaxtyping import Bool, Float16, Float32, UInt8

PIXELS_PER_LATENT = 8  # along height and width


class Batch(NamedTuple):
    """This host's rows of one step's batch, all from one bucket. Latents are h/8 by w/8."""

    frames: UInt8[np.ndarray, "b f h w 3"]
    """RGB, 0 to 255."""
    poses: UInt8[np.ndarray, "b f h w 3"]
    """Drawn skeletons, RGB."""
    masks: Bool[np.ndarray, "b f h/8 w/8"]
    """True inside the faces' boxes, or all over where no face is known."""
    reference: UInt8[np.ndarray, "b h w 3"]
    """A frame of the same video that is not among `frames`."""
    id_embedding: Float32[np.ndarray, "b 512"]
    """Raw ArcFace embedding of the reference; zeros where no frame outside of `frames` has a face."""
    names: tuple[str, ...]
    """Of the clips."""


class EncodedClipBatch(NamedTuple):
    """The same rows with what the frozen models make of frames and reference instead of their pixels."""

    moments: Float16[np.ndarray, "b f h w 2c"]
    """The VAE's posterior of the frames: mean, then log-variance; not scaled."""
    condition_moments: Float16[np.ndarray, "b h w 2c"]
    """The same of the reference with noise augmentation."""
    image_embedding: Float32[np.ndarray, "b d"]
    """CLIP's, of the reference without noise."""
    poses: UInt8[np.ndarray, "b f H W 3"]
    """Drawn skeletons, RGB, at the frames' size."""
    masks: Bool[np.ndarray, "b f h w"]
    """As in `Batch`, of the latents' size."""
    id_embedding: Float32[np.ndarray, "b 512"]
    """As in `Batch`."""
    names: tuple[str, ...]
    """Of the clips."""


AnyBatch = Batch | EncodedClipBatch
B = TypeVar("B", bound=AnyBatch)


def joined(batches: Sequence[B]) -> B:
    """Batches of one kind and bucket as one, rows in their order."""
    *arrays, names = zip(*batches, strict=True)
    return type(batches[0])(*(np.concatenate(a) for a in arrays), names=tuple(chain.from_iterable(names)))


def at_latents(masks: Bool[np.ndarray, "k H W"]) -> Bool[np.ndarray, "k H/8 W/8"]:
    """Masks at the latents' size, exactly as torch's "nearest" resizes them."""
    return masks[:, ::PIXELS_PER_LATENT, ::PIXELS_PER_LATENT]
