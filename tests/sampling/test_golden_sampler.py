"""The whole sampler against the published code: encoding, windows, guidance, Euler steps, chunked decoding."""

import jax.numpy as jnp
import numpy as np
import pytest

from stableanimator_jax.sampling.conditions import encode_condition
from stableanimator_jax.sampling.config import SamplingConfig
from stableanimator_jax.sampling.decode import decode_chunk
from stableanimator_jax.sampling.denoise import denoise
from tests.golden_data import assert_close, load
from tests.golden_models import channels_last, reference_model

TOLERANCE = 5e-4


@pytest.fixture(scope="module")
def models():
    return {name: reference_model(name) for name in ("unet", "vae", "image_encoder", "face_encoder", "pose_net")}


def sample(models, case, sampling):
    condition = encode_condition(
        models["image_encoder"],
        models["face_encoder"],
        models["vae"],
        case["reference"],
        case["id_embedding"],
        jnp.asarray(channels_last(case["aug_noise"])[0]),
        sampling.added_time_ids,
    )
    noise = jnp.asarray(channels_last(case["init_noise"])[0])
    return denoise(models["unet"], models["pose_net"], condition, case["poses"], noise, sampling)


@pytest.mark.long
@pytest.mark.parametrize("rows_at_once", [2, 1, 3])
def test_sampler(models, rows_at_once):
    case = load("sampler")
    sampling = SamplingConfig(
        steps=int(case["num_steps"]),
        guidance_min=float(case["guidance"]),
        guidance_max=float(case["guidance"]),
        window=int(case["tile_size"]),
        overlap=int(case["overlap"]),
        rows_at_once=rows_at_once,
    )
    latents = sample(models, case, sampling)
    assert_close(latents, channels_last(case["latents"])[0], TOLERANCE)
    if rows_at_once != 2:
        return
    frames = [decode_chunk(models["vae"], latents[i : i + 4]) for i in range(0, len(latents), 4)]
    decoded = np.moveaxis(case["decoded"][0], 0, -1)  # [C, F, H, W] as published
    assert_close(np.concatenate(frames), decoded, TOLERANCE)


def test_sampler_where_windows_fit_exactly_and_guidance_rises(models):
    case = load("sampler_exact_fit")
    sampling = SamplingConfig(
        steps=int(case["num_steps"]),
        guidance_min=float(case["guidance_min"]),
        guidance_max=float(case["guidance_max"]),
        window=int(case["tile_size"]),
        overlap=int(case["overlap"]),
    )
    assert_close(sample(models, case, sampling), channels_last(case["latents"])[0], TOLERANCE)
