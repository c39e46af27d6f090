"""The face optimisation against the published code, and its own promises."""

import jax.numpy as jnp
import numpy as np
import pytest

from stableanimator_jax import diffusion
from stableanimator_jax.sampling.hjb import Faces, refine
from tests.golden_data import load
from tests.golden_models import channels_last, reference_model


@pytest.fixture(scope="module")
def case():
    return load("hjb_step")


@pytest.fixture(scope="module")
def models():
    return reference_model("vae"), reference_model("arcface")


def test_golden_step(case, models):
    step, steps = int(case["step"]), int(case["num_steps"])
    sigmas = diffusion.karras_sigmas(steps)
    noisy = jnp.asarray(channels_last(case["sample"])[0])
    clean = diffusion.denoised(jnp.asarray(channels_last(case["model_output"])[0]), noisy, sigmas[step])
    boxes = case["face_boxes_y0y1x0x1_inclusive"].astype(np.float32)
    out = refine(
        *models,
        clean,
        Faces(boxes, np.ones(len(boxes), bool)),
        jnp.asarray(case["reference_embedding"][0]),
        0.1 * (1 - step / steps),
        iterations=int(case["iterations"]),
        chunk=int(case["decode_chunk"]),
    )
    for actual, name in (
        (out.latents, "pred_original_sample"),
        (diffusion.euler_step(out.latents, noisy, sigmas[step], sigmas[step + 1]), "prev_sample"),
    ):
        expected = channels_last(case[name])[0]
        error = np.abs(np.asarray(actual) - expected).mean() / expected.std()
        print(name, error)
        assert error < 1e-3
