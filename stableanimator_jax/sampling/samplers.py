"""Samplers: from noise to a clean sample, by a denoiser and a row of noise levels. Pure functions, as in k-diffusion.

A sampler knows nothing of windows, guidance or the UNet: the denoiser does. It gives every clean sample that it works
with to the hook first, and goes on with what the hook makes of it.
"""

import math
from collections.abc import Callable
from functools import partial
from itertools import pairwise
from typing import NamedTuple, Protocol, runtime_checkable

import jax
import numpy as np
from jaxtyping import Array, Float, Float32

from stableanimator_jax import diffusion
from stableanimator_jax.sampling.config import Solver

Denoiser = Callable[[Float[Array, "f h w c"], Float[np.floating, ""]], Float[Array, "f h w c"]]
"""Called with noisy latents and their noise level; gives the clean sample that it predicts."""

Hook = Callable[[int, Float[Array, "f h w c"]], Float[Array, "f h w c"]]
"""Called with a step's number, from 0, and its predicted clean sample; gives the one to go on with."""

OnStep = Callable[[int, Float[Array, "f h w c"]], None]
"""Called after a step with its number, from 0, and the latents as they are now."""


class Unfinished(NamedTuple):
    """What a run that was interrupted goes on from."""

    steps: int
    """That were taken."""
    latents: Float[Array, "f h w c"]
    """After the last of them."""
    clean: Float[Array, "f h w c"]
    """The clean sample that it worked with: solvers of second order need it."""


@runtime_checkable
class Sampler(Protocol):
    """What `denoise` takes: `euler` and its kind."""

    def __call__(
        self,
        denoiser: Denoiser,
        latents: Float[Array, "f h w c"],
        sigmas: Float32[np.ndarray, "levels"],
        *,
        hook: Hook | None = None,
        on_step: OnStep | None = None,
        unfinished: Unfinished | None = None,
    ) -> Float[Array, "f h w c"]:
        """Denoise `latents`, noisy by `sigmas[0]`, along `sigmas`, the last of which is 0.

        With `unfinished`, go on from there, whatever `latents` are; who never goes on can do without the argument.
        """
        ...


def euler(
    denoiser: Denoiser,
    latents: Float[Array, "f h w c"],
    sigmas: Float32[np.ndarray, "levels"],
    *,
    hook: Hook | None = None,
    on_step: OnStep | None = None,
    unfinished: Unfinished | None = None,
) -> Float[Array, "f h w c"]:
    """Euler steps of the probability-flow ODE, SVD's sampler. See `Sampler`."""

    def take(step: int, clean: Array, latents: Array, sigma: np.float32, sigma_next: np.float32) -> Array:
        del step
        return _euler_step(clean, latents, sigma, sigma_next)

    return _by_clean_samples(take, denoiser, latents, sigmas, hook=hook, on_step=on_step, unfinished=unfinished)


def dpmpp_2m(
    denoiser: Denoiser,
    latents: Float[Array, "f h w c"],
    sigmas: Float32[np.ndarray, "levels"],
    *,
    hook: Hook | None = None,
    on_step: OnStep | None = None,
    unfinished: Unfinished | None = None,
) -> Float[Array, "f h w c"]:
    """DPM-Solver++(2M) (Lu et al. 2022, algorithm 2), of second order with one evaluation a step. See `Sampler`.

    In EDM's parametrisation the exponential integrator's step is Euler's, towards the clean sample extrapolated in
    log sigma from the last two to the middle of the step. The first step has no other to extrapolate from, and the
    last, to 0, no middle: both are Euler's.
    """
    taken, before, last_width = 0, None, math.inf
    if unfinished is not None:
        taken, latents, before = unfinished
        last_width = _width(*sigmas[taken - 1 : taken + 1])
    for step, (sigma, sigma_next) in enumerate(pairwise(sigmas[taken:]), start=taken):
        clean = denoiser(latents, sigma)
        if hook is not None:
            clean = hook(step, clean)
        width = _width(sigma, sigma_next)
        ahead = clean if before is None else _extrapolate(before, clean, width / (2 * last_width))
        latents = _euler_step(ahead, latents, sigma, sigma_next)
        before, last_width = clean, width
        if on_step is not None:
            on_step(step, latents)
    return latents


Renoise = Callable[[int, Float[Array, "f h w c"]], Float[Array, "f h w c"]]
"""Called with a step's number, from 0, and latents; gives unit Gaussian noise of their shape."""


def lcm(noise: Renoise) -> Sampler:
    """The consistency model's sampler (Luo et al. 2023): to the clean sample, and back to the next level by new noise.

    For a UNet that was distilled to predict the clean sample from any level at once, such as AnimateLCM-SVD's.

    Args:
        noise: of every step but the last, which goes to 0.
    """

    def renoised(step: int, clean: Array, latents: Array, sigma: np.float32, sigma_next: np.float32) -> Array:
        del latents, sigma
        return clean if sigma_next == 0 else clean + noise(step, clean) * sigma_next

    return partial(_by_clean_samples, renoised)


def sampler_of(name: Solver, key: Array) -> Sampler:
    """The sampler of a name in `SamplingConfig`; one that draws noise draws it by `key`."""
    return lcm(normal_noise(key)) if name == "lcm" else {"euler": euler, "dpmpp_2m": dpmpp_2m}[name]


def normal_noise(key: Array) -> Renoise:
    """Of each step its own, whichever run takes it."""
    data = np.asarray(jax.random.key_data(key))  # on the host, so that the draw is where the latents are
    return lambda step, latents: _draw(data, step, latents)


@jax.jit
def _draw(key_data: Array, step: Array, latents: Array) -> Array:
    key = jax.random.fold_in(jax.random.wrap_key_data(key_data), step)
    return diffusion.standard_noise(key, latents.shape).astype(latents.dtype)


_Step = Callable[[int, Array, Array, np.float32, np.float32], Array]
"""Called with a step's number, its clean sample, its latents and its two noise levels; gives the next latents."""


def _by_clean_samples(
    take: _Step,
    denoiser: Denoiser,
    latents: Array,
    sigmas: np.ndarray,
    *,
    hook: Hook | None = None,
    on_step: OnStep | None = None,
    unfinished: Unfinished | None = None,
) -> Array:
    """A `Sampler` whose steps need nothing but their own clean sample, of one evaluation."""
    taken, latents = (0, latents) if unfinished is None else (unfinished.steps, unfinished.latents)
    for step, (sigma, sigma_next) in enumerate(pairwise(sigmas[taken:]), start=taken):
        clean = denoiser(latents, sigma)
        if hook is not None:
            clean = hook(step, clean)
        latents = take(step, clean, latents, sigma, sigma_next)
        if on_step is not None:
            on_step(step, latents)
    return latents


def _width(sigma: np.float32, sigma_next: np.float32) -> float:
    """Of a step, in log sigma; 0 for the last one."""
    return math.log(sigma / sigma_next) if sigma_next > 0 else 0.0


@jax.jit
def _extrapolate(before: Array, clean: Array, by: Array) -> Array:
    return clean + (clean - before) * by


@jax.jit
def _euler_step(clean: Array, latents: Array, sigma: Array, sigma_next: Array) -> Array:
    return diffusion.euler_step(clean, latents, sigma, sigma_next)
