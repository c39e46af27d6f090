"""HJB-based face optimisation: Adam on the predicted clean sample, inside denoising (paper section 3.4).

At a denoising step the predicted clean latents are decoded, each frame's face is cropped and embedded, and Adam moves
the latents towards the reference's identity. Chunks of frames are decoded apart from each other and Adam works element
by element, so optimising chunk after chunk gives what optimising the whole video would, in one chunk's memory.
"""

from functools import partial
from typing import NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
import optax
from jaxtyping import Array, Bool, Float

from stableanimator_jax.models.arcface import ArcFace
from stableanimator_jax.models.vae import VAE
from stableanimator_jax.sampling.face_crop import crop_boxes, warp_aligned
from stableanimator_jax.sampling.models import Model

ADAM = optax.scale_by_adam(b1=0.9, b2=0.999, eps=1e-8)


class Faces(NamedTuple):
    """Where the face is in every frame of a video."""

    place: Float[np.ndarray, "f 4"] | Float[np.ndarray, "f 2 3"]
    """Boxes (y0, y1, x0, x1), inclusive, for `crop_boxes`, or transforms for `warp_aligned`."""
    valid: Bool[np.ndarray, "f"]
    """False where a frame shows no face: it contributes nothing and stays as it is."""


class Refinement(NamedTuple):
    """What one optimised step gives."""

    latents: Float[Array, "f h w c"]
    losses: Float[np.ndarray, "iterations"]
    """Mean of |1 - cosine| over the frames with a face, before each iteration."""
    similarity_before: float
    """Mean cosine of the frames with a face to the reference."""
    similarity_after: float


def refine(
    vae: Model[VAE],
    arcface: Model[ArcFace],
    latents: Float[Array, "f h w c"],
    faces: Faces,
    reference: Float[Array, "512"],
    learning_rate: float,
    *,
    iterations: int,
    chunk: int,
) -> Refinement:
    """Move predicted clean latents towards the reference's identity by Adam, a fresh optimiser each time.

    Args:
        vae, arcface: the models.
        latents: the predicted clean sample as the UNet sees it (multiplied by the VAE's scaling factor).
        faces: where the faces are.
        reference: the reference face's raw ArcFace embedding.
        learning_rate: Adam's; published: 0.1 * (1 - step / steps).
        iterations: of Adam.
        chunk: frames decoded at once.

    Returns:
        the refined latents with what they did. Without a face anywhere the latents come back as they are, with
        no losses and similarities of NaN.
    """
    counted = int(np.sum(faces.valid))
    if counted == 0:
        return Refinement(latents, np.zeros(0, np.float32), float("nan"), float("nan"))
    refined, reports = [], []
    for start in range(0, len(latents), chunk):
        part = slice(start, start + chunk)
        if not faces.valid[part].any():
            refined.append(latents[part])
            continue
        moved, report = _refine_chunk(
            vae,
            arcface,
            latents[part],
            faces.place[part],
            faces.valid[part],
            reference,
            np.float32(learning_rate),
            np.float32(counted),
            iterations=iterations,
        )
        refined.append(moved)
        reports.append(report)
    # Each chunk's numbers are its share of the mean over all frames with a face.
    losses, before, after = (np.sum([np.asarray(r[i]) for r in reports], axis=0) for i in range(3))
    return Refinement(jnp.concatenate(refined), losses, float(before), float(after))


@partial(jax.jit, static_argnames="iterations")
def _refine_chunk(
    vae: Model[VAE],
    arcface: Model[ArcFace],
    latents: Array,
    place: Array,
    valid: Array,
    reference: Array,
    learning_rate: Array,
    counted: Array,
    *,
    iterations: int,
) -> tuple[Array, tuple[Array, Array, Array]]:
    decoder, recogniser = vae.module(), arcface.module()

    def mean(values: Array) -> Array:
        """This chunk's share of the mean over the video's frames with a face."""
        return jnp.where(valid, values, 0).sum() / counted

    def loss(x: Array) -> tuple[Array, Array]:
        similarities = face_similarities(decoder, recogniser, x, place, reference)
        return mean(jnp.abs(1 - similarities)), mean(similarities)

    def iterate(carry: tuple[Array, optax.OptState], _: None) -> tuple[tuple[Array, optax.OptState], tuple]:
        x, state = carry
        (value, similarity), gradient = jax.value_and_grad(loss, has_aux=True)(x)
        with jax.numpy_dtype_promotion("standard"):  # optax counts in integers
            update, state = ADAM.update(gradient, state)
            assert isinstance(update, jax.Array)  # optax promises any tree
        # The temporal decoder leaks gradients into frames without a face, and Adam would blow them up to full steps.
        update = jnp.where(valid[:, None, None, None], update, 0)
        return (x - learning_rate * update, state), (value, similarity)

    (refined, _), (losses, similarities) = jax.lax.scan(iterate, (latents, ADAM.init(latents)), length=iterations)
    return refined, (losses, similarities[0], loss(refined)[1])


def face_similarities(vae: VAE, arcface: ArcFace, latents: Array, place: Array, reference: Array) -> Float[Array, "f"]:
    """Cosine between each frame's face and the reference embedding.

    Args:
        latents: one chunk's clean latents as the UNet sees them, decoded together.
        place: as in `Faces`.
        reference: the reference's raw embedding.
    """
    frames = vae.decode(latents[None] / vae.config.scaling_factor)[0].astype(jnp.float32)
    frames = jnp.clip(frames / 2 + 0.5, 0, 1)
    faces = crop_boxes(frames, place) if place.ndim == 2 else warp_aligned(frames, place)
    embeddings = arcface(faces * 2 - 1).astype(jnp.float32)
    # torch's cosine_similarity, down to the guard against zero vectors.
    norms = jnp.maximum(jnp.linalg.norm(embeddings, axis=-1) * jnp.linalg.norm(reference), 1e-8)
    return embeddings @ reference / norms
