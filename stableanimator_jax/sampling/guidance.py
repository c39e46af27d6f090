"""Classifier-free guidance: what a branch goes without, and what it counts in the sum of the branches.

Sampling's unconditional branch goes without every condition at once. Training drops conditions by a rule of its own, so
that the models learn to do without them.
"""

from functools import partial

import jax
import numpy as np
from jaxtyping import Array, Bool, Float, Float32

from stableanimator_jax.models.conditioning import Conditioning

CONDITIONAL, UNCONDITIONAL = 0, 1
"""The branches, as numbers of an axis: `branch_shares` has them in this order."""


def unconditional_where(conditioning: Conditioning, dropped: Bool[Array, "r"]) -> Conditioning:
    """`conditioning`, of r rows or of one for all, without any condition but the time ids in the rows `dropped`."""
    names = ("image_embedding", "face_tokens", "image_latents", "pose_features", "control")
    return _kept(conditioning, dict.fromkeys(names, ~dropped))


def dropped_at_random(conditioning: Conditioning, uniform: Float[Array, "b"], rate: float) -> Conditioning:
    """Training's dropout of conditions, as published.

    A clip goes without the image embedding where its draw is below 2 * rate, and without the image latents where it is
    from rate up to 3 * rate; so without both in between. Face tokens and poses are always there.

    Args:
        conditioning: of every clip.
        uniform: a draw from [0, 1) for every clip.
        rate: up to 1/3; 0 drops nothing.
    """
    return _kept(
        conditioning,
        {
            "image_embedding": uniform >= 2 * rate,
            "image_latents": (uniform < rate) | (uniform >= 3 * rate),
        },
    )


def branch_shares(scales: Float32[np.ndarray, "windows w"], branches: int) -> Float32[np.ndarray, "windows branches w"]:
    """What each branch's prediction counts in the guided one: the conditional's `scales`, the unconditional's the rest.

    Their sum is unconditional + scale * (conditional - unconditional); of one branch, the conditional itself.
    """
    if branches == 1:
        return np.ones_like(scales)[:, None]
    return np.stack([scales, 1 - scales], axis=1)


def _kept(conditioning: Conditioning, where: dict[str, Bool[Array, "r"]]) -> Conditioning:
    """`conditioning` with fields zero in the rows in which they are not kept."""

    def keep(field: Array, rows: Bool[Array, "r"]) -> Array:
        return field * rows.astype(field.dtype).reshape(-1, *(1,) * (field.ndim - 1))

    kept = {name: jax.tree.map(partial(keep, rows=rows), getattr(conditioning, name)) for name, rows in where.items()}
    return conditioning._replace(**kept)
