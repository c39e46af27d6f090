"""Samplers on a denoiser whose answer is known."""

import math
from itertools import pairwise

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from stableanimator_jax import diffusion
from stableanimator_jax.sampling.samplers import dpmpp_2m, euler

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

    for sampler in (euler, heun, dpmpp_2m):
        seen.clear()
        out = sampler(gaussian, jnp.ones((3, 2, 2, 4)) * SIGMAS[0], SIGMAS, hook=hook)
        assert seen == [0, 1, 2, 3, 4]
        np.testing.assert_allclose(out, 2.0, atol=1e-5)


@pytest.mark.mistyped  # in float64, where the order shows to the end
@pytest.mark.parametrize(("sampler", "order"), [(euler, 1), (dpmpp_2m, 2)])
@pytest.mark.parametrize("schedule", [diffusion.karras_sigmas, diffusion.aligned_sigmas])
def test_order_of_convergence(sampler, order, schedule):
    """To the closed form of Gaussian data: half the steps' length is half the error of Euler, and a quarter of 2M."""

    def error(steps: int) -> float:
        sigmas = schedule(steps)[:-1].astype(np.float64)  # the step to 0 ends at the clean sample, whatever the order
        end = sampler(lambda latents, sigma: latents * (0.25 / (0.25 + sigma**2)), jnp.ones((1, 1, 1, 1)), sigmas)
        assert end.dtype == np.float64
        return float(end.item() / math.sqrt((0.25 + sigmas[-1] ** 2) / (0.25 + sigmas[0] ** 2)) - 1)

    with jax.enable_x64(True):
        errors = [error(steps) for steps in (120, 240, 480)]
    assert abs(errors[0]) < (0.05, 0.005)[order - 1]
    orders = [math.log2(coarse / fine) for coarse, fine in pairwise(errors)]
    np.testing.assert_allclose(orders, order, atol=0.06)
    assert abs(orders[1] - order) < abs(orders[0] - order)


def test_dpmpp_2m_is_the_papers_recursion():
    """Lu et al. 2022, algorithm 2, in float64: lambda = -log(sigma), alpha = 1; Euler's first step, and to 0."""
    latents = np.random.default_rng(0).standard_normal((3, 2, 2, 4)) * SIGMAS[0]
    shifts = np.linspace(-1, 1, 5)  # the hook's, so that clean samples are not a multiple of the latents

    x, cleans, widths = latents, [], []
    for step, (sigma, following) in enumerate(pairwise(SIGMAS.astype(np.float64))):
        cleans.append(x * 0.25 / (0.25 + sigma**2) + shifts[step])
        if following == 0:
            x = cleans[-1]
            break
        widths.append(np.log(sigma) - np.log(following))
        d = cleans[-1]
        if step:
            r = widths[-2] / widths[-1]
            d = (1 + 1 / (2 * r)) * cleans[-1] - 1 / (2 * r) * cleans[-2]
        x = following / sigma * x - np.expm1(-widths[-1]) * d

    def hook(step, clean):
        return clean + np.float32(shifts[step])

    np.testing.assert_allclose(
        dpmpp_2m(gaussian, jnp.asarray(latents, jnp.float32), SIGMAS, hook=hook), x, rtol=1e-4, atol=1e-4
    )


@pytest.mark.parametrize("sampler", [euler, dpmpp_2m])
def test_every_step_is_told_with_its_latents(sampler):
    told = {}
    out = sampler(gaussian, jnp.ones((1, 2, 2, 4)), SIGMAS, on_step=lambda step, latents: told.update({step: latents}))
    assert list(told) == [0, 1, 2, 3, 4]
    np.testing.assert_array_equal(told[4], out)
    assert all(jnp.isfinite(latents).all() for latents in told.values())  # none of them was given away to a program
