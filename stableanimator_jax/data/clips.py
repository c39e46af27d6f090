"""Training clips: one record for a batch of them, on the host and on the devices."""

from collections.abc import Sequence
from dataclasses import dataclass, replace
from itertools import chain
from typing import Generic

import jax
import numpy as np
from jaxtyping import Bool, Float, Float32, UInt8

from stableanimator_jax.models.pixels import AnyArray

PIXELS_PER_LATENT = 8  # along height and width


@jax.tree_util.register_dataclass
@dataclass(frozen=True)
class Pixels(Generic[AnyArray]):
    """What clips show. RGB, 0 to 255."""

    frames: UInt8[AnyArray, "b f H W 3"]
    reference: UInt8[AnyArray, "b H W 3"]
    """A frame of the same video that is not among `frames`."""


@jax.tree_util.register_dataclass
@dataclass(frozen=True)
class Moments(Generic[AnyArray]):
    """What the frozen models make of it. Clips encoded ahead hold the moments in float16."""

    frames: Float[AnyArray, "b f h w c2"]
    """The VAE's posterior: mean, then log-variance; not scaled."""
    reference: Float[AnyArray, "b h w c2"]
    """The same of the reference with noise augmentation."""
    image_embedding: Float32[AnyArray, "b d"]
    """CLIP's, of the reference without noise."""


@jax.tree_util.register_dataclass
@dataclass(frozen=True)
class Clips(Generic[AnyArray]):
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

    @property
    def arrays(self) -> "Clips[AnyArray]":
        """The same without names."""
        return replace(self, names=())


def joined(batches: Sequence[Clips[np.ndarray]]) -> Clips[np.ndarray]:
    """Batches of one kind and bucket as one, rows in their order."""
    rows = jax.tree.map(lambda *arrays: np.concatenate(arrays), *(batch.arrays for batch in batches))
    return replace(rows, names=tuple(chain.from_iterable(batch.names for batch in batches)))
