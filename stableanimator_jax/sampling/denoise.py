"""Denoising: the models, the windows, guidance and a sampler, put together."""

from collections.abc import Callable
from contextlib import nullcontext
from itertools import accumulate
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
from jax.sharding import Mesh
from jaxtyping import Array, Float, Float32, UInt8

from stableanimator_jax import diffusion
from stableanimator_jax.errors import InputError
from stableanimator_jax.family import Tiling
from stableanimator_jax.models.conditioning import Conditioning
from stableanimator_jax.models.control_net import ControlNet
from stableanimator_jax.models.functional import Model
from stableanimator_jax.models.pose_net import PoseNet
from stableanimator_jax.models.unet import UNet
from stableanimator_jax.parallel import replicated
from stableanimator_jax.sampling.config import SamplingConfig
from stableanimator_jax.sampling.deep_cache import DeepCache
from stableanimator_jax.sampling.denoiser import Place, Rows, WindowDenoiser, driven_by, predict, undriven
from stableanimator_jax.sampling.samplers import Hook, OnStep, Sampler, Unfinished, sampler_of
from stableanimator_jax.sampling.strengths import Strengths
from stableanimator_jax.sampling.windows import tile

Progress = Callable[[int, int], None]
"""Called with how much is done and how much there is."""


class SamplingError(InputError):
    """The denoiser's output is of no use: not every latent is finite."""


def denoise(
    unet: Model[UNet],
    driver: Model[PoseNet] | Model[ControlNet] | None,
    condition: Conditioning,
    poses: UInt8[np.ndarray, "f H W 3"] | None,
    noise: Float[Array, "n h w2 c"],
    sampling: SamplingConfig,
    *,
    pose_strength: Float32[np.ndarray, "f"] | None = None,
    tiling: Tiling = "filled",
    sampler: Sampler | None = None,
    hook: Hook | None = None,
    mesh: Mesh | None = None,
    on_step: OnStep | None = None,
    on_progress: Progress | None = None,
    unfinished: Unfinished | None = None,
    on_unfinished: Callable[[Unfinished], None] | None = None,
) -> Float[Array, "f h w2 c"]:
    """Sample the latents of a video along the noise levels of `sampling`.

    Args:
        unet: the model.
        driver: what poses go through; None where the UNet takes none.
        condition: the reference, encoded; one row.
        poses: skeleton images of the output size, on the host; at least one, or None without a driver.
        noise: unit Gaussian noise, of as many frames as the `Windows` have draws: one window's or the whole video's.
            Without poses it is the video's length.
        sampling: settings.
        pose_strength: of each pose, beside `sampling.pose`; None for 1.
        tiling: how windows lie; see `windows.tile`.
        sampler: how the steps are taken, where not as `sampling.sampler` says.
        hook: changes each step's predicted clean sample, such as `sampling.face_control.FaceControl`.
        mesh: spread the rows of a call over its "data" and "fsdp" axes, which must divide `rows_at_once`, and the
            frames of each over "frame".
        on_step: called after every step, with its number from 0 and the latents.
        on_progress: called after every call of the UNet.
        unfinished: go on from here, where a run with the same arguments came to.
        on_unfinished: called after every step from which another run can go on to the same latents.

    Returns:
        float32 latents, multiplied by the VAE's scaling factor as the UNet sees them.

    Raises:
        SamplingError: the latents are no longer finite; names the step.
    """
    frames, steps = len(noise if poses is None else poses), sampling.steps
    plan = tile(tiling, frames, sampling.window, sampling.overlap)
    scales = sampling.guidance_min + plan.rise * np.float32(sampling.guidance_max - sampling.guidance_min)
    steps_done, told = 0 if unfinished is None else unfinished.steps, 0
    last_clean: Any = None

    def call_done(done: int) -> None:
        nonlocal told
        now = min(calls[steps_done] + done, calls[-1])
        if on_progress and now > told:  # a sampler may denoise more than once a step
            told = now
            on_progress(now, calls[-1])

    def step_done(step: int, latents: Array) -> None:
        nonlocal steps_done
        if not _all_finite(latents):
            compute = jnp.dtype(unet.blueprint.precision.compute).name
            remedy = {
                "float16": "a number was too large for float16, try --dtype bfloat16",
                "bfloat16": "try --dtype float32",
            }
            raise SamplingError(
                f"the latents are no longer finite after step {step + 1} of {steps}: "
                + remedy.get(compute, "check the checkpoint's weights and the face embedding")
            )
        steps_done = step + 1
        if cache is not None and driving.changes_after(step):
            cache.forget()
        call_done(0)
        if on_step:
            on_step(step, latents[:frames])
        if on_unfinished and (cache is None or cache.begins_anew):
            on_unfinished(Unfinished(step + 1, latents, last_clean))

    def of_the_video(step: int, clean: Array) -> Array:
        nonlocal last_clean
        if hook is not None:
            video = clean[:frames]
            changed = hook(step, video)
            if changed is not video:
                clean = clean.at[:frames].set(changed)  # what fills a short video's window up is nobody's
                if cache is not None:
                    cache.forget()
        last_clean = clean
        return clean

    def whole(rows: Rows, sigma: Array, _: Place) -> Array:
        return predict(unet, rows, sigma)

    cache = DeepCache(unet, sampling.cache_interval, sampling.cache_branch) if sampling.cache_interval > 1 else None
    with nullcontext() if mesh is None else jax.set_mesh(mesh):
        sigmas = sampling.sigmas
        latents = jnp.asarray(noise)[plan.noise] * diffusion.init_noise_sigma(sigmas)
        latents, condition = jax.device_put((latents, condition), replicated(mesh))
        posed = undriven if driver is None or poses is None else driven_by(driver, poses, plan)
        driving = Strengths(posed, condition, plan, sampling, pose_strength)
        denoiser = WindowDenoiser(
            whole if cache is None else cache,
            condition,
            driving,
            plan,
            scales=scales,
            guides=sampling.guides,
            rows_at_once=sampling.rows_at_once,
            mesh=mesh,
            on_call=call_done if on_progress else None,
        )
        calls = list(accumulate(map(denoiser.calls, sigmas[:-1]), initial=0))  # before each step, and in all
        take = sampler or sampler_of(sampling.sampler, jax.random.key(sampling.seed))
        begun: Any = {}
        if unfinished is not None:
            call_done(0)
            placed = jax.device_put((unfinished.latents, unfinished.clean), replicated(mesh))
            begun = {"unfinished": Unfinished(unfinished.steps, *placed)}
        latents = take(denoiser, latents, sigmas, hook=of_the_video, on_step=step_done, **begun)
        return latents[:frames]


@jax.jit
def _all_finite(latents: Array) -> Array:
    return jnp.isfinite(latents).all()
