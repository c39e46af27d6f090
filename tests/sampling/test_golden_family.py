"""The samplers of SVD's relatives against the published code: encoding, windows, guidance, steps, chunked decoding."""

from dataclasses import replace
from pathlib import Path

import jax.numpy as jnp
import numpy as np
import pytest

from stableanimator_jax import Animator
from stableanimator_jax.family import FAMILY
from stableanimator_jax.sampling.conditions import encode_condition
from stableanimator_jax.sampling.config import SamplingConfig
from stableanimator_jax.sampling.decode import decode_chunk
from stableanimator_jax.sampling.denoise import denoise
from stableanimator_jax.sampling.samplers import lcm
from tests.golden_data import assert_close, load
from tests.golden_models import channels_last
from tests.relatives import GOLDEN, golden_checkpoint

LATENTS, PIXELS = 5e-4, 5e-4


def settings(kind: str, case: dict, **changes) -> SamplingConfig:
    """As the system is published, but for what a small case has otherwise."""
    low, high = case.get("guidance_min", case.get("guidance")), case.get("guidance_max", case.get("guidance"))
    small = {"steps": int(case["num_steps"]), "guidance_min": float(low), "guidance_max": float(high)}
    names = {"tile_size": "window", "batch_frames": "window", "overlap": "overlap", "motion_bucket": "motion_bucket"}
    small |= {ours: int(case[theirs]) for theirs, ours in names.items() if theirs in case}
    return replace(SamplingConfig.published(kind), **small | changes)


class Case:
    """One golden case, and its models as a user has them: imported from files of published layout."""

    def __init__(self, name: str, folder: Path):
        self.kind, self.case = GOLDEN[name], load(name)
        animator = Animator.from_pretrained(golden_checkpoint(name, folder), dtype="float32")
        assert animator.config.kind == self.kind
        self.models = {model: getattr(animator, model) for model in FAMILY[self.kind].models}
        height, width, _ = self.case["reference"].shape
        noise = self.case.get("aug_noise")
        self.augmentation = jnp.zeros((height, width, 3)) if noise is None else jnp.asarray(channels_last(noise)[0])

    def condition(self, sampling: SamplingConfig):
        return encode_condition(
            self.models["image_encoder"],
            None,
            self.models["vae"],
            self.case["reference"],
            np.zeros(512, np.float32),
            self.augmentation,
            sampling.added_time_ids,
        )

    def latents(self, sampling: SamplingConfig, *, frames: int | None = None, **kw):
        driver = FAMILY[self.kind].driver
        noise = jnp.asarray(channels_last(self.case["init_noise"])[0])
        poses = self.case["poses"][:frames] if driver else None
        return denoise(
            self.models["unet"],
            None if driver is None else self.models[driver],
            self.condition(sampling),
            poses,
            noise if frames is None else noise[:frames],
            sampling,
            tiling=FAMILY[self.kind].tiling,
            **kw,
        )

    def decoded(self, latents):
        chunk = int(self.case["decode_chunk"])
        return np.concatenate(
            [decode_chunk(self.models["vae"], latents[i : i + chunk]) for i in range(0, len(latents), chunk)]
        )


@pytest.fixture(scope="module")
def mimicmotion(tmp_path_factory):
    return Case("mimicmotion_sampler", tmp_path_factory.mktemp("mimicmotion"))


@pytest.fixture(scope="module")
def svd(tmp_path_factory):
    return Case("svd_pipeline", tmp_path_factory.mktemp("svd"))


@pytest.fixture(scope="module")
def animatelcm(tmp_path_factory):
    return Case("lcm_svd_sampler", tmp_path_factory.mktemp("animatelcm"))


@pytest.fixture(scope="module")
def controlnext(tmp_path_factory):
    return Case("controlnext_sampler", tmp_path_factory.mktemp("controlnext"))


def expected(array: np.ndarray) -> np.ndarray:
    return channels_last(array)[0]


@pytest.mark.long
def test_mimicmotion(mimicmotion):
    case, steps = mimicmotion.case, []
    sampling = settings("mimicmotion", case)
    assert sampling.added_time_ids == (6, 127, 0)
    condition = mimicmotion.condition(sampling)
    assert_close(condition.image_embedding[0], case["image_embedding"], 1e-4)
    assert_close(condition.image_latents[0], np.moveaxis(case["image_latents"], 0, -1), 1e-4)
    latents = mimicmotion.latents(sampling, on_step=lambda _, after: steps.append(after))
    for step, wanted in zip(steps, case["step_latents"], strict=False):
        assert_close(step, channels_last(wanted), LATENTS)
    assert_close(latents, expected(case["latents"]), LATENTS)
    decoded = mimicmotion.decoded(latents)
    assert_close(decoded[:, ::2, ::2], np.moveaxis(case["decoded_every_2nd_pixel"][0], 0, -1), PIXELS)
    levels = np.clip(decoded[1:] / 2 + 0.5, 0, 1) * 255  # the published frames, without the first, are truncated
    assert np.abs(levels - 0.5 - case["frames"]).max() < 0.51


@pytest.mark.long
def test_svd(svd):
    case = svd.case
    latents = svd.latents(settings("svd", case))
    assert_close(latents, expected(case["latents"]), LATENTS)
    decoded = svd.decoded(latents)
    assert_close(decoded, np.moveaxis(case["decoded"][0], 0, -1), PIXELS)
    levels = np.clip(decoded / 2 + 0.5, 0, 1) * 255
    assert np.abs(levels - case["frames"]).max() < 0.51  # they are rounded


def given_noise(case: dict):
    return lcm(lambda step, _: jnp.asarray(channels_last(case["step_noise"][step])[0]))


@pytest.mark.long
def test_animatelcm(animatelcm):
    case = animatelcm.case
    latents = animatelcm.latents(settings("animatelcm", case), sampler=given_noise(case))
    assert_close(latents, expected(case["latents"]), LATENTS)
    assert_close(animatelcm.decoded(latents), np.moveaxis(case["decoded"][0], 0, -1), PIXELS)


@pytest.mark.long
@pytest.mark.parametrize("steps", [1, 2, 8])
def test_animatelcm_in_other_numbers_of_steps(animatelcm, steps):
    case = animatelcm.case
    latents = animatelcm.latents(settings("animatelcm", case, steps=steps), sampler=given_noise(case))
    assert_close(latents, expected(case[f"latents_{steps}_steps"]), LATENTS)


@pytest.mark.long
def test_animatelcm_unguided(animatelcm):
    case = animatelcm.case
    sampling = settings("animatelcm", case, guidance_min=1.0, guidance_max=1.0)
    assert_close(animatelcm.latents(sampling, sampler=given_noise(case)), expected(case["latents_unguided"]), LATENTS)


@pytest.mark.parametrize("steps", [1, 2, 3, 4, 8, 25, 40])
def test_animatelcms_noise_levels(steps):
    sigmas = load("lcm_svd_sampler")[f"sigmas_{steps}"]
    np.testing.assert_array_equal(SamplingConfig(steps=steps, sampler="lcm").sigmas, sigmas)


@pytest.mark.long
def test_controlnext(controlnext):
    case = controlnext.case
    sampling = settings("controlnext", case)
    assert sampling.added_time_ids == (6, 128, 0.02)
    assert_close(controlnext.condition(sampling).image_latents, channels_last(case["image_latents"]), 1e-4)
    latents = controlnext.latents(sampling)
    assert_close(latents, expected(case["latents"]), LATENTS)
    assert_close(controlnext.decoded(latents), np.moveaxis(case["decoded"][0], 0, -1), PIXELS)


@pytest.mark.slow
def test_controlnexts_guidance_rises_over_each_window(controlnext):
    case = controlnext.case
    sampling = settings("controlnext", case, guidance_min=float(case["ramp_min"]), guidance_max=float(case["ramp_max"]))
    assert_close(controlnext.latents(sampling), expected(case["latents_ramp"]), LATENTS)


@pytest.mark.slow
def test_controlnexts_short_video_is_one_window(controlnext):
    case = controlnext.case
    latents = controlnext.latents(settings("controlnext", case, window=14), frames=4)
    assert_close(latents, expected(case["latents_one_window"]), LATENTS)
