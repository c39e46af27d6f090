"""Stable Video Diffusion as an EDM (Karras et al. 2022): noise levels, preconditioning, one Euler step.

Pure functions of arrays, in float32. `sigma` is a noise level: noisy = clean + sigma * noise.
"""

import math

import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import Array, Float, Float32

SIGMA_MIN, SIGMA_MAX, RHO = 0.002, 700.0, 7.0
# Sabour et al. 2024, "Align Your Steps", for SVD: the levels of 8, 10 and 15 steps, without the 0 that they end in.
_ALIGNED = {
    8: (700, 40.045, 11.257, 4.973, 1.789, 0.7854, 0.264, 0.0511),
    10: (700, 54.5, 15.886, 7.977, 4.248, 1.789, 0.981, 0.403, 0.173, 0.034),
    15: (700, 127.63, 36.136, 15.886, 10.036, 6.466, 4.248, 2.387, 1.464, 0.981, 0.542, 0.304, 0.173, 0.0585, 0.0132),
}  # fmt: skip


def karras_sigmas(steps: int) -> np.ndarray:
    """SVD's noise levels, `[steps + 1]` float32: Karras' schedule from 700 to 0.002 (rho 7), then 0."""
    return _karras(np.linspace(0, 1, steps))


def aligned_sigmas(steps: int) -> np.ndarray:
    """Align Your Steps' noise levels for SVD, `[steps + 1]` float32, from 700, then 0.

    They are published for 8, 10 and 15 steps. For another number the nearest of these is interpolated, evenly in its
    steps and linearly in log sigma, and taken to end in `SIGMA_MIN`, as the authors do.
    """
    levels = (*_ALIGNED[min(_ALIGNED, key=lambda count: abs(count - steps))], SIGMA_MIN)
    places = np.linspace(0, 1, steps + 1)[:-1]
    between = np.interp(places, np.linspace(0, 1, len(levels)), np.log(levels))
    return np.append(np.exp(between), 0).astype(np.float32)


def lcm_sigmas(steps: int, grid: int) -> np.ndarray:
    """AnimateLCM's noise levels, `[steps + 1]` float32: evenly chosen from Karras' schedule of `grid`, then 0.

    Every (grid // steps)-th of them from the highest on, so that the last is above 0.002 but where steps is grid.
    """
    return _karras(np.arange(steps) * (grid // steps) / (grid - 1))


def _karras(ramp: np.ndarray) -> np.ndarray:
    """Karras' noise levels at places from 0 to 1, then 0."""
    high, low = SIGMA_MAX ** (1 / RHO), SIGMA_MIN ** (1 / RHO)
    return np.append((high + ramp * (low - high)) ** RHO, 0).astype(np.float32)


def init_noise_sigma(sigmas: np.ndarray) -> np.float32:
    """What unit noise is multiplied by to start from: sqrt(max sigma^2 + 1) ("leading" timestep spacing)."""
    return np.sqrt(np.max(sigmas) ** 2 + 1).astype(np.float32)


def timestep(sigma: Float[Array, "*batch"]) -> Float[Array, "*batch"]:
    """What the UNet is told of the noise level (EDM's c_noise): 0.25 ln(sigma)."""
    return 0.25 * jnp.log(sigma)


def scale_input(noisy: Float[Array, "*shape"], sigma: Float[Array, ""]) -> Float[Array, "*shape"]:
    """EDM's c_in: noisy / sqrt(sigma^2 + 1)."""
    return noisy / jnp.sqrt(jnp.square(sigma) + 1)


def denoised(
    prediction: Float[Array, "*shape"], noisy: Float[Array, "*shape"], sigma: Float[Array, ""]
) -> Float[Array, "*shape"]:
    """The clean sample that a v-prediction stands for: -sigma/sqrt(sigma^2+1) prediction + noisy/(sigma^2+1)."""
    variance = jnp.square(sigma) + 1
    return -sigma / jnp.sqrt(variance) * prediction + noisy / variance


def euler_step(
    clean: Float[Array, "*shape"],
    noisy: Float[Array, "*shape"],
    sigma: Float[Array, ""],
    sigma_next: Float[Array, ""],
) -> Float[Array, "*shape"]:
    """One Euler step of the probability-flow ODE, from `sigma` to `sigma_next`, along (noisy - clean) / sigma."""
    return noisy + (noisy - clean) / sigma * (sigma_next - sigma)


def loss_weight(sigma: Float[Array, "*batch"]) -> Float[Array, "*batch"]:
    """EDM's weight of the squared error of the denoised sample, with unit data variance: (1 + sigma^2) / sigma^2."""
    return (1 + jnp.square(sigma)) / jnp.square(sigma)


def stratified(uniform: Float[Array, "n"]) -> Float[Array, "n"]:
    """One draw in each n-th part of [0, 1), so that every batch has low and high noise levels: (i + uniform) / n."""
    return (jnp.arange(len(uniform), dtype=jnp.float32) + uniform) / len(uniform)


def training_sigmas(u: Float[Array, "*batch"]) -> Float[Array, "*batch"]:
    """Noise levels for draws in [0, 1): cosine-interpolated log-SNR (Hoogeboom et al. 2023, "simple diffusion").

    Sigma falls from about 700 at u = 0 to 0.002 at u = 1. The log-SNR goes from a schedule shifted for images of side
    32 to that of side 64; the data's standard deviation is 0.5.
    """
    data_sigma = 0.5
    most, least = (-2 * np.log(sigma / data_sigma) for sigma in (SIGMA_MIN, SIGMA_MAX))  # log-SNR

    def shifted(side: float) -> Array:
        shift = 2 * np.log(side / 64)
        start, end = (float(np.arctan(np.exp(-(bound - shift) / 2))) for bound in (least, most))
        return -2 * jnp.log(jnp.tan(start + u * (end - start))) + float(shift)

    log_snr = (1 - u) * shifted(32) + u * shifted(64)
    return jnp.exp(-log_snr / 2) * data_sigma


def standard_noise(key: Array, shape: tuple[int, ...]) -> Float32[Array, "..."]:
    """`jax.random.normal` of a shape: the same numbers, but drawn as one axis.

    XLA's CPU backend takes seconds to compile the counters of several axes, and a tenth of that of one.
    """
    return jax.random.normal(key, (math.prod(shape),), jnp.float32).reshape(shape)
