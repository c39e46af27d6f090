"""Training clips: one record for a batch of them, on the host and on the devices."""

from collections.abc import Sequence
from itertools import chain
from typing import Generic, NamedTuple

import jax
import numpy as np
from jaxtyping import Bool, Float, Float32, UInt8

from stableanimator_jax.models.pixels import AnyArray

PIXELS_PER_LATENT = 8  # along height and width


class Pixels(NamedTuple, Generic[AnyArray]):
    """What clips show. RGB, 0 to 255."""

    frames: UInt8[AnyArray, "b f H W 3"]
    reference: UInt8[AnyArray, "b H W 3"]
    """A frame of the same video that is not among `frames`."""


class Moments(NamedTuple, Generic[AnyArray]):
    """What the frozen models make of it. Clips encoded ahead hold the moments in float16."""

    frames: Float[AnyArray, "b f h w 2c"]
    """The VAE's posterior: mean, then log-variance; not scaled."""
    reference: Float[AnyArray, "b h w 2c"]
    """The same of the reference with noise augmentation."""
    image_embedding: Float32[AnyArray, "b d"]
    """CLIP's, of the reference without noise."""


class Clips(NamedTuple, Generic[AnyArray]):
    """A batch of clips from one bucket: a host's rows, or those of all hosts spread over the devices."""

    images: Pixels[AnyArray] | Moments[AnyArray]
    poses: UInt8[AnyArray, "b f H W 3"]
    """Drawn skeletons, RGB on black."""
    masks: Bool[AnyArray, "b f h w"]
    """Of the latents' size. True inside the faces' boxes, or all over where no face is known."""
    id_embedding: Float32[AnyArray, "b 512"]
    """Raw ArcFace embedding of the reference; zeros where no frame outside of the clip has a face."""
    names: tuple[str, ...] = ()
    """Of the clips. On the host alone."""


def joined(batches: Sequence[Clips[np.ndarray]]) -> Clips[np.ndarray]:
    """Batches of one kind and bucket as one, rows in their order."""
    rows = jax.tree.map(lambda *arrays: np.concatenate(arrays), *(batch._replace(names=()) for batch in batches))
    return rows._replace(names=tuple(chain.from_iterable(batch.names for batch in batches)))
