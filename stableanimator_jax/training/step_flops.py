"""What a training step needs to compute, for its speed in TFLOP/s and as a share of the devices' peak."""

import jax
from jaxtyping import Array

from stableanimator_jax.data.clips import Clips
from stableanimator_jax.models.flops import matmul_flops, without_rematerialisation
from stableanimator_jax.training.step import Task, clip_errors, encoding_noise, latent_shape, training_draws
from stableanimator_jax.training.trainable import Params


def step_flops(task: Task, params: Params, frozen: Params, batch: Clips[Array]) -> int:
    """Floating-point operations of the matrix products and convolutions of one step, over all devices.

    Encoding, the forward pass, and the backward pass to the trained parameters; nothing that is computed twice to save
    memory. Takes seconds; arguments may be abstract.

    Args:
        task: what is computed.
        params: trained parameters.
        frozen: the others.
        batch: of the whole step.
    """

    def loss(params: Params, frozen: Params, batch: Clips[Array]) -> Array:
        key, latents = jax.random.key(0), latent_shape(task, batch)
        noise, draws = encoding_noise(key, latents, batch), training_draws(key, latents)
        return clip_errors(task, params, frozen, batch, noise, draws, dropout=task.objective.dropout).loss

    return matmul_flops(jax.grad(without_rematerialisation(loss)), params, frozen, batch)
