"""Images as the models take them."""

from typing import TypeVar

import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import Float32, UInt8

AnyArray = TypeVar("AnyArray", np.ndarray, jax.Array)


def pixels(images: UInt8[AnyArray, "*batch h w 3"]) -> Float32[AnyArray, "*batch h w 3"]:
    """RGB from 0 to 255 in [-1, 1]."""
    return images.astype(jnp.float32) / 127.5 - 1
