"""Samplers on a denoiser whose answer is known."""

from itertools import pairwise

import jax.numpy as jnp
import numpy as np

from stableanimator_jax import diffusion
from stableanimator_jax.sampling.samplers import euler

SIGMAS = diffusion.karras_sigmas(5)


def heun(denoiser, latents, sigmas, *, hook=None, on_step=None):
    """Karras et al. 2022, algorithm 1, without churn: a second sampler, written against the seam alone.

    `test_pipeline` makes a video by it.
    """
    for step, (sigma, sigma_next) in enumerate(pairwise(sigmas)):
        clean = denoiser(latents, sigma)
        clean = clean if hook is None else hook(step, clean)
        slope = (latents - clean) / sigma
        ahead = latents + (sigma_next - sigma) * slope
        if sigma_next > 0:
            slope = (slope + (ahead - denoiser(ahead, sigma_next)) / sigma_next) / 2
            ahead = latents + (sigma_next - sigma) * slope
        latents = ahead
        if on_step is not None:
            on_step(step, latents)
    return latents


def gaussian(latents, sigma):
    """The best denoiser of data that is Gaussian with a standard deviation of 0.5."""
    return latents * np.float32(0.25 / (0.25 + sigma**2))


def test_euler_is_the_ode_of_gaussian_data():
    """Its solution scales the noise by 0.5 / sqrt(0.25 + sigma^2); Euler steps do so by a product of known factors."""
    latents = jnp.asarray(np.random.default_rng(0).standard_normal((3, 2, 2, 4)) * SIGMAS[0], jnp.float32)
    factor = 1.0
    for sigma, following in pairwise(SIGMAS.astype(np.float64)):
        factor *= 1 + (following - sigma) * sigma / (0.25 + sigma**2)
    np.testing.assert_allclose(euler(gaussian, latents, SIGMAS), latents * np.float32(factor), rtol=1e-3)


def test_the_hook_has_the_last_word_on_every_clean_sample():
    seen = []

    def hook(step, clean):
        seen.append(step)
        return jnp.full_like(clean, 2.0)

    for sampler in (euler, heun):
        seen.clear()
        out = sampler(gaussian, jnp.ones((3, 2, 2, 4)) * SIGMAS[0], SIGMAS, hook=hook)
        assert seen == [0, 1, 2, 3, 4]
        np.testing.assert_allclose(out, 2.0, atol=1e-5)


def test_every_step_is_told_with_its_latents():
    told = {}
    out = euler(gaussian, jnp.ones((1, 2, 2, 4)), SIGMAS, on_step=lambda step, latents: told.update({step: latents}))
    assert list(told) == [0, 1, 2, 3, 4]
    np.testing.assert_array_equal(told[4], out)
    assert all(jnp.isfinite(latents).all() for latents in told.values())  # none of them was given away to a program
