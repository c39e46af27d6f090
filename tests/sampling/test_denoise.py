"""The denoising loop's own promises; the golden cases pin its arithmetic."""

import re
import sys
from dataclasses import replace

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from stableanimator_jax import diffusion
from stableanimator_jax.models.catalogue import blueprint
from stableanimator_jax.models.conditioning import Conditioning
from stableanimator_jax.models.functional import Model
from stableanimator_jax.sampling.config import SamplingConfig
from stableanimator_jax.sampling.denoise import SamplingError, denoise
from stableanimator_jax.sampling.denoiser import PoseFeatures, WindowDenoiser, predict, row_batches
from stableanimator_jax.sampling.samplers import dpmpp_2m, euler, sampler_of
from stableanimator_jax.sampling.windows import plan_windows
from tests.golden_models import reference_model
from tests.training.mini_model import MINI, mini_params
from tests.virtual_devices import run_on_virtual_devices

SAMPLING = SamplingConfig(steps=2, window=4, overlap=1)


@pytest.fixture(scope="module")
def models():
    return reference_model("unet"), reference_model("pose_net")


def inputs(frames: int, window: int = 4, seed: int = 0):
    rng = np.random.default_rng(seed)
    image, faces, latents = (
        jnp.asarray(rng.standard_normal((1, *shape)), jnp.float32) for shape in ((64,), (4, 64), (8, 8, 4))
    )
    condition = Conditioning(image, faces, jnp.asarray([SAMPLING.added_time_ids], jnp.float32), latents)
    poses = rng.integers(0, 256, (frames, 64, 64, 3), np.uint8)
    return condition, poses, jnp.asarray(rng.standard_normal((window, 8, 8, 4)), jnp.float32)


@pytest.mark.slow
def test_any_length_is_compiled_once(models):
    predict.clear_cache()
    for frames in (1, 3, 4, 5, 9, 12):
        out = denoise(*models, *inputs(frames), SAMPLING)
        assert out.shape == (frames, 8, 8, 4)
        assert jnp.isfinite(out).all()
    assert predict._cache_size() == 1


@pytest.mark.long
def test_a_short_video_is_the_start_of_one_that_holds_its_last_pose(models):
    condition, poses, noise = inputs(2)
    padded = np.concatenate([poses, poses[-1:], poses[-1:]])
    np.testing.assert_array_equal(
        denoise(*models, condition, poses, noise, SAMPLING), denoise(*models, condition, padded, noise, SAMPLING)[:2]
    )


def test_pose_features_kept_or_computed_anew_are_the_same(models):
    _, poses, _ = inputs(9)
    plan = plan_windows(9, 4, 1)
    kept, anew = PoseFeatures(models[1], poses, plan), PoseFeatures(models[1], poses, plan, most_bytes=0)
    sigma = np.float32(1)
    assert kept.kept is not None
    assert anew.kept is None
    for window in range(len(plan.indices)):
        both = kept(window, sigma)["pose_features"], anew(window, sigma)["pose_features"]
        np.testing.assert_array_equal(*both)


@pytest.mark.long
def test_guidance_of_one_takes_one_branch(models):
    """Scale 1 everywhere is the conditional branch alone: the same video with half the rows."""
    calls = []
    one = SamplingConfig(steps=2, window=4, overlap=1, guidance_min=1, guidance_max=1, rows_at_once=1)
    alone = denoise(*models, *inputs(4), one, on_progress=lambda done, total: calls.append((done, total)))
    assert calls == [(1, 2), (2, 2)]
    almost = SamplingConfig(steps=2, window=4, overlap=1, guidance_min=1, guidance_max=1 + 1e-6)
    np.testing.assert_allclose(alone, denoise(*models, *inputs(4), almost), atol=1e-3)


def rows_of_each_call(monkeypatch) -> list[int]:
    """How many rows every call of the UNet gets from now on."""
    rows = []
    module = sys.modules[denoise.__module__]

    def counting(unet, given, sigma):
        rows.append(len(given.latents))
        return predict(unet, given, sigma)

    monkeypatch.setattr(module, "predict", counting)
    return rows


@pytest.mark.long
def test_an_interval_of_every_level_is_all_guidance(models):
    everywhere = denoise(*models, *inputs(9), SAMPLING)
    interval = replace(SAMPLING, guidance_interval=(0.002, 700.0))
    np.testing.assert_array_equal(denoise(*models, *inputs(9), interval), everywhere)


@pytest.mark.long
def test_outside_the_interval_the_unconditional_branch_is_not_computed(models, monkeypatch):
    rows, told = rows_of_each_call(monkeypatch), []
    aligned = SamplingConfig(steps=8, schedule="aligned", window=4, overlap=1, guidance_interval=(1.789, 11.257))
    assert [aligned.guides(sigma) for sigma in aligned.sigmas[:-1]] == [False, False, True, True, True] + [False] * 3

    denoise(*models, *inputs(4), aligned, on_progress=lambda done, total: told.append((done, total)))
    assert rows == [1, 1, 2, 2, 2, 1, 1, 1]  # one window
    assert told == [(n, 8) for n in range(1, 9)]

    rows.clear(), told.clear()
    predict.clear_cache()
    denoise(*models, *inputs(9), aligned, on_progress=lambda done, total: told.append((done, total)))
    assert rows == [2, 1] * 2 + [2, 2, 2] * 3 + [2, 1] * 3  # three windows; no row fills up
    assert told == [(n, 19) for n in range(1, 20)]
    assert predict._cache_size() == 2


def test_outside_the_interval_the_conditional_branch_alone_counts(models):
    """With steps at 700 and 0.002, guided at one of them: the other is that of guidance 1."""
    condition, poses, noise = inputs(9)
    low = replace(SAMPLING, guidance_interval=(0.0, 1.0))
    latents = {}
    for name, sampling in {
        "low": low,
        "none": replace(SAMPLING, guidance_min=1, guidance_max=1),
        "all": SAMPLING,
    }.items():
        steps = latents[name] = []
        denoise(*models, condition, poses, noise, sampling, on_step=lambda _, after, steps=steps: steps.append(after))
    np.testing.assert_allclose(latents["low"][0], latents["none"][0], atol=1e-4)
    assert jnp.abs(latents["low"][0] - latents["all"][0]).max() > 1e-2
    assert jnp.abs(latents["low"][1] - latents["none"][1]).max() > 1e-3


@pytest.mark.parametrize(("name", "evaluations"), [("published", 50), ("balanced", 30), ("fast", 17)])
def test_presets_take_so_many_evaluations_and_are_deterministic(models, monkeypatch, name, evaluations):
    rows = rows_of_each_call(monkeypatch)
    sampling = replace(SAMPLING, seed=3).with_preset(name)
    assert (sampling.window, sampling.seed) == (4, 3)
    first = denoise(*models, *inputs(4), sampling)
    assert sum(rows) == evaluations
    assert jnp.isfinite(first).all()
    np.testing.assert_array_equal(first, denoise(*models, *inputs(4), sampling))


def test_published_is_the_default():
    assert SamplingConfig() == SamplingConfig().with_preset("published")
    other = SamplingConfig(sampler="dpmpp_2m", steps=3).with_preset("fast")
    assert other.with_preset("published") == SamplingConfig()
    np.testing.assert_array_equal(SamplingConfig().sigmas, diffusion.karras_sigmas(25))
    assert sampler_of(SamplingConfig().sampler, jax.random.key(0)) is euler


def test_settings_choose_the_sampler(models):
    sampling = replace(SAMPLING, steps=3)
    second_order = denoise(*models, *inputs(4), replace(sampling, sampler="dpmpp_2m"))
    np.testing.assert_array_equal(second_order, denoise(*models, *inputs(4), sampling, sampler=dpmpp_2m))
    assert jnp.abs(second_order - denoise(*models, *inputs(4), sampling)).max() > 1e-3


def test_a_preset_goes_without_an_interval_where_there_is_no_guidance():
    assert SamplingConfig(guidance_min=1, guidance_max=1).with_preset("fast").guidance_interval == (0, 1000)


def test_poses_and_face_matter(models):
    condition, poses, noise = inputs(4)
    first = denoise(*models, condition, poses, noise, SAMPLING)
    assert jnp.abs(first - denoise(*models, condition, 255 - poses, noise, SAMPLING)).max() > 1e-3
    other = condition._replace(face_tokens=-condition.face_tokens)
    assert jnp.abs(first - denoise(*models, other, poses, noise, SAMPLING)).max() > 1e-3


def test_progress_counts_every_call(models):
    calls = []
    denoise(*models, *inputs(9), SAMPLING, on_progress=lambda done, total: calls.append((done, total)))
    # 9 frames are 3 windows of 4: 3 guided calls a step.
    assert calls == [(i + 1, 6) for i in range(6)]


def test_a_latent_that_is_not_finite_stops_the_run(models):
    condition, poses, noise = inputs(4)
    with pytest.raises(SamplingError, match=re.escape("after step 1 of 2")):
        denoise(*models, condition, poses, noise.at[0, 0, 0, 0].set(jnp.nan), SAMPLING)


@pytest.mark.parametrize(("windows", "rows", "sizes"), [(1, 2, [1]), (3, 2, [2, 1]), (4, 2, [2, 2]), (5, 8, [5])])
def test_row_batches_that_are_not_filled_up(windows, rows, sizes):
    batches = list(row_batches(windows, 1, rows, fill=False))
    assert [len(batch.window) for batch in batches] == sizes
    assert np.concatenate([batch.window for batch in batches]).tolist() == list(range(windows))
    assert all((batch.weight == 1).all() for batch in batches)


@pytest.mark.long
@pytest.mark.parametrize(
    ("dtype", "remedy"),
    [("float16", "a number was too large for float16, try --dtype bfloat16"), ("bfloat16", "float32")],
)
def test_what_to_do_about_numbers_that_are_too_large(dtype, remedy):
    """Beyond 65504 the face tokens are infinite in float16; in bfloat16 they need to be larger."""
    condition, poses, noise = inputs(4)
    condition = condition._replace(face_tokens=condition.face_tokens * (1e6 if dtype == "float16" else 3e38))
    unet, pose_net = (Model(mini_params(name), blueprint(MINI, name)) for name in ("unet", "pose_net"))
    with pytest.raises(SamplingError, match=remedy):
        denoise(unet.computing_in(dtype), pose_net, condition, poses, noise, SAMPLING)


@pytest.mark.parametrize(("windows", "branches", "rows"), [(1, 2, 2), (3, 2, 2), (3, 2, 4), (5, 1, 2), (1, 2, 8)])
def test_row_batches_cover_every_row_once(windows, branches, rows):
    seen = []
    for batch in row_batches(windows, branches, rows):
        assert len(batch.window) == rows
        seen += [(w, b) for w, b, real in zip(batch.window, batch.branch, batch.weight, strict=True) if real]
    assert sorted(seen) == [(w, b) for w in range(windows) for b in range(branches)]


@pytest.mark.slow
def test_rows_at_once_and_their_spread_over_a_mesh_change_nothing():
    run_on_virtual_devices(
        8,
        """
        import jax, numpy as np
        from stableanimator_jax.parallel import make_mesh, replicated
        from stableanimator_jax.sampling.config import SamplingConfig
        from stableanimator_jax.sampling.denoise import denoise
        from tests.golden_models import reference_model
        from tests.sampling.test_denoise import inputs

        mesh = make_mesh()
        assert len(mesh.devices) == 8
        models = reference_model("unet"), reference_model("pose_net")

        def video(models, rows, mesh=None):
            sampling = SamplingConfig(steps=2, window=4, overlap=1, rows_at_once=rows)
            return denoise(*models, *inputs(9), sampling, mesh=mesh)

        alone = video(models, 2)
        for rows in (1, 5):
            np.testing.assert_allclose(video(models, rows), alone, atol=2e-4)
        spread = video(jax.device_put(models, replicated(mesh)), 8, mesh)
        np.testing.assert_allclose(np.asarray(spread), np.asarray(alone), atol=2e-4)
        """,
    )


@pytest.mark.parametrize("frames", [1, 2, 15, 16, 17, 29, 100])
def test_averaging_guidance_and_steps_at_any_length(frames):
    """The loop around the UNet, restated in float64, with a stand-in for the UNet that tells rows and places apart."""
    window, overlap, low, high = 16, 4, 1.5, 4.0
    rng = np.random.default_rng(frames)
    noise = rng.standard_normal((window, 2, 2, 4))
    by_place = rng.standard_normal((window, 1, 1, 1))

    def stand_in(latents, poses, conditional):
        return 0.3 * np.tanh(latents) + by_place + poses * conditional + 0.5 * conditional

    def predict_stand_in(rows, sigma, place):
        given = rows.conditioning
        out = stand_in(
            np.asarray(rows.latents), np.asarray(given.pose_features), np.asarray(given.image_latents)[:, None]
        )
        return jnp.asarray(out, jnp.float32)

    levels = rng.integers(0, 256, (frames, 1, 1, 1), np.uint8)
    plan, sigmas = plan_windows(frames, window, overlap), diffusion.karras_sigmas(2)
    denoiser = WindowDenoiser(
        predict_stand_in,
        Conditioning(jnp.ones((1, 2)), None, jnp.ones((1, 3)), jnp.ones((1, 1, 1, 1))),
        lambda k, _: {"pose_features": jnp.asarray(levels[plan.poses[k]] / 255, jnp.float32)},
        plan,
        scales=np.float32(low) + plan.rise * np.float32(high - low),
        guides=lambda sigma: True,
        rows_at_once=2,
    )
    start = noise[np.arange(plan.frames) % window] * diffusion.init_noise_sigma(sigmas)
    out = euler(denoiser, jnp.asarray(start, jnp.float32), sigmas)[:frames]

    padded = max(frames, window)
    windows, s = [], 0
    while s + window <= padded:
        windows.append([0, *range(s + 1, s + window)])
        s += window - overlap
    if padded - 1 not in {i for w in windows for i in w}:
        windows.append([0, *range(padded - window + 1, padded)])
    scale = np.concatenate([np.linspace(low, high, frames), np.full(padded - frames, high if frames > 1 else low)])
    pose = np.array([levels[min(i, frames - 1), 0, 0, 0] / 255 for i in range(padded)]).reshape(-1, 1, 1, 1)
    latents = np.array([noise[i % window] for i in range(padded)]) * np.sqrt(700.0**2 + 1)
    for sigma, following in ((700.0, 0.002), (0.002, 0.0)):
        means = []
        for conditional in (1, 0):
            total, count = np.zeros_like(latents), np.zeros(padded)
            for w in windows:
                prediction = stand_in(latents[w], pose[w], conditional)
                for place, frame in enumerate(w):
                    weight = min((place + 0.5) * 2 / window, 2 - (place + 0.5) * 2 / window)
                    total[frame] += weight * prediction[place]
                    count[frame] += weight
            means.append(total / count.reshape(-1, 1, 1, 1))
        prediction = means[1] + scale.reshape(-1, 1, 1, 1) * (means[0] - means[1])
        clean = -sigma / np.sqrt(sigma**2 + 1) * prediction + latents / (sigma**2 + 1)
        latents = latents + (latents - clean) / sigma * (following - sigma)
    np.testing.assert_allclose(out, latents[:frames], atol=2e-3)
