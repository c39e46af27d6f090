"""Denoising that goes on where it was interrupted ends at the latents of a run that was not."""

from dataclasses import replace

import jax.numpy as jnp
import numpy as np
import pytest

from stableanimator_jax.models.catalogue import blueprint
from stableanimator_jax.models.functional import Model
from stableanimator_jax.sampling.config import SamplingConfig
from stableanimator_jax.sampling.denoise import denoise
from stableanimator_jax.sampling.samplers import Unfinished
from tests.sampling.test_deep_cache import inputs
from tests.training.mini_model import MINI, mini_params

SAMPLING = SamplingConfig(steps=6, window=4, overlap=1)
CASES = {
    "euler": (SAMPLING, range(1, 7)),
    "second order": (replace(SAMPLING, sampler="dpmpp_2m"), range(1, 7)),
    # Deep features are not kept: it goes on where the whole UNet runs next.
    "deep cache": (replace(SAMPLING, sampler="dpmpp_2m", cache_interval=2), (2, 4, 6)),
    "guided in part": (replace(SAMPLING, guidance_interval=(0.5, 60.0)), range(1, 7)),
}


@pytest.fixture(scope="module")
def models():
    return tuple(Model(mini_params(name), blueprint(MINI, name)) for name in ("unet", "pose_net"))


@pytest.mark.long
@pytest.mark.parametrize("frames", [2, 9])
@pytest.mark.parametrize("case", CASES)
def test_from_any_place_it_ends_at_the_same_latents(models, case, frames):
    sampling, places = CASES[case]
    found = []
    hook = lambda step, clean: clean * (1 + 0.01 * step) if case == "euler" else clean  # noqa: E731
    whole = denoise(*models, *inputs(frames), sampling, hook=hook, on_unfinished=found.append)
    assert [place.steps for place in found] == list(places)
    for place in (found[0], found[-2], found[-1]):
        kept = Unfinished(place.steps, np.asarray(place.latents), np.asarray(place.clean))
        steps, told = [], []
        again = denoise(
            *models, *inputs(frames), sampling, hook=hook, unfinished=kept,
            on_step=lambda step, _, steps=steps: steps.append(step),
            on_progress=lambda done, total, told=told: told.append((done, total)),
        )  # fmt: skip
        np.testing.assert_array_equal(again, whole)
        assert steps == list(range(place.steps, 6))
        assert [done for done, _ in told] == sorted({done for done, _ in told})
        assert told[-1][0] == told[-1][1]


def test_from_the_start_it_is_the_noise_that_counts(models):
    condition, poses, noise = inputs(4)
    one, other = (denoise(*models, condition, poses, start, SAMPLING) for start in (noise, noise + 0.5))
    assert jnp.abs(one - other).max() > 1e-3
