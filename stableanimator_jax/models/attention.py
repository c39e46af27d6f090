"""Scaled dot-product attention for every model."""

import math

import jax
import jax.numpy as jnp
from jaxtyping import Array, Float


def attention(
    q: Float[Array, "*batch tq heads d"], k: Float[Array, "*batch tk heads d"], v: Float[Array, "*batch tk heads d"]
) -> Float[Array, "*batch tq heads d"]:
    """softmax(q kᵀ / sqrt(d)) v over each head, with the softmax in float32. Output has `q`'s dtype."""
    logits = jnp.einsum("...qhd,...khd->...hqk", q, k, preferred_element_type=jnp.float32)
    weights = jax.nn.softmax(logits / math.sqrt(q.shape[-1]), axis=-1)
    return jnp.einsum("...hqk,...khd->...qhd", weights.astype(v.dtype), v)
