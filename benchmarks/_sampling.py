"""Stages of the report: a whole video, made by the production sampler (`Animator`) with random weights."""

import itertools
import time
from collections.abc import Iterator
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np

from benchmarks._case import Case, Row, plan, timed
from benchmarks._device import random_model
from stableanimator_jax.models.catalogue import blueprint, sampling_models
from stableanimator_jax.models.flops import matmul_flops, matmul_rate
from stableanimator_jax.runtime import compute_dtype
from stableanimator_jax.sampling.config import SamplingConfig
from stableanimator_jax.sampling.decode import decode_chunk
from stableanimator_jax.sampling.denoiser import predict
from stableanimator_jax.sampling.forecast import array, step_arguments
from stableanimator_jax.sampling.pipeline import Animator


class Video(NamedTuple):
    """One video made, in seconds."""

    whole: float
    steps: list[float]
    """From the end of each step to the end of the next."""
    decoding: float


def settings(case: Case, steps: int) -> SamplingConfig:
    overlap = min(4, case.frames - 1)
    return SamplingConfig(steps=steps, window=case.frames, overlap=overlap, decode_chunk=case.chunk)


def random_animator(case: Case) -> tuple[Animator, str]:
    """With weights that never were on the host, and the dtype that it computes in, this device's default."""
    dtype = compute_dtype("auto")
    models: dict[str, Any] = {
        name: random_model(blueprint(case.config, name, dtype)) for name in sampling_models(case.config)
    }
    return Animator(case.config, **models), dtype


def make_video(animator: Animator, case: Case, sampling: SamplingConfig) -> Video:
    """Photo and skeletons to frames on the host: random ones, which take as long as any."""
    generator = np.random.default_rng(0)
    images = generator.integers(0, 256, (case.frames + 1, case.height, case.width, 3), np.uint8)
    ends: list[float] = []
    start = time.perf_counter()
    animator.animate(
        images[0],
        images[1:],
        sampling=sampling,
        on_step=lambda *_: ends.append(time.perf_counter()),  # called when the step is done on the device
    )
    end = time.perf_counter()
    return Video(end - start, [after - before for before, after in itertools.pairwise(ends)], end - ends[-1])


def predict_arguments(animator: Animator, case: Case) -> tuple[Any, ...]:
    """What the one call of the UNet in a guided step takes, its rows abstract."""
    dtype = compute_dtype(animator.unet.blueprint.precision.compute)
    _, rows, sigma = step_arguments(animator.config, case.frames, case.width, case.height, dtype, array)
    return animator.unet, rows, sigma


def measure(case: Case) -> Iterator[Row]:
    """A guided step, decoding, and the whole, warm; then what their programs plan to take of memory."""
    animator, dtype = random_animator(case)
    rate = matmul_rate(dtype)
    of_step = predict_arguments(animator, case)
    step_flop = matmul_flops(predict, *of_step)
    latents = (min(case.chunk, case.frames), *case.latent_size, case.config.vae.latent_channels)
    decode_arguments = (animator.decoder, jax.ShapeDtypeStruct(latents, jnp.float32))
    decode_flop = matmul_flops(decode_chunk, *decode_arguments) * case.frames / latents[0]
    decoder_dtype = jnp.dtype(animator.decoder.blueprint.precision.compute).name

    first = make_video(animator, case, settings(case, 1))
    yield timed("first video, of 1 step, which compiles", first.whole, dtype=dtype)
    published = settings(case, case.steps)
    videos = [make_video(animator, case, published)]
    yield timed("guided step", *videos[0].steps, flop=step_flop, rate=rate, dtype=dtype)
    videos += [make_video(animator, case, published) for _ in range(case.repeats - 1)]
    yield timed(
        f"whole video, {case.frames} frames, {case.steps} steps", *(video.whole for video in videos), dtype=dtype
    )
    yield timed(
        f"decoding {case.frames} frames",
        *(video.decoding for video in videos),
        flop=decode_flop,
        rate=matmul_rate(decoder_dtype),
        dtype=decoder_dtype,
    )
    yield plan("guided step's program", predict.lower(*of_step).compile())
    yield plan(f"decoding's program, {latents[0]} frames", decode_chunk.lower(*decode_arguments).compile())
