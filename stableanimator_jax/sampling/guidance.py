"""Classifier-free guidance: what a branch goes without, how strong guidance is, and the sum of the branches.

Sampling's unconditional branch goes without every condition at once. Training drops conditions by a rule of its own, so
that the models learn to do without them.
"""

from functools import partial

import jax
import numpy as np
from jaxtyping import Array, Bool, Float, Float32

from stableanimator_jax.models.conditioning import Conditioning

CONDITIONAL, UNCONDITIONAL = 0, 1
"""The branches, as numbers of an axis."""


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


def guidance_scales(video_frames: int, frames: int, low: float, high: float) -> Float32[np.ndarray, "frames"]:
    """From `low` at the first frame of the video evenly to `high` at its last; `high` beyond."""
    scales = np.linspace(low, high, video_frames, dtype=np.float32)
    return np.pad(scales, (0, frames - video_frames), mode="edge")


def guide(branches: Float[Array, "branches f *shape"], scales: Float[Array, "f"]) -> Float[Array, "f *shape"]:
    """The guided prediction: unconditional + scale * (conditional - unconditional); or the one branch that there is."""
    if len(branches) == 1:
        return branches[0]
    conditional, unconditional = branches[CONDITIONAL], branches[UNCONDITIONAL]
    scale = jax.lax.expand_dims(scales, range(1, conditional.ndim))
    return unconditional + scale * (conditional - unconditional)


def _kept(conditioning: Conditioning, where: dict[str, Bool[Array, "r"]]) -> Conditioning:
    """`conditioning` with fields zero in the rows in which they are not kept."""

    def keep(field: Array, rows: Bool[Array, "r"]) -> Array:
        return field * rows.astype(field.dtype).reshape(-1, *(1,) * (field.ndim - 1))

    kept = {name: jax.tree.map(partial(keep, rows=rows), getattr(conditioning, name)) for name, rows in where.items()}
    return conditioning._replace(**kept)
