"""The denoising loop's own promises; the golden cases pin its arithmetic."""

import re

import jax.numpy as jnp
import numpy as np
import pytest

from stableanimator_jax import diffusion
from stableanimator_jax.models.conditioning import Conditioning
from stableanimator_jax.sampling.config import SamplingConfig
from stableanimator_jax.sampling.denoise import SamplingError, denoise
from stableanimator_jax.sampling.denoiser import PoseFeatures, WindowDenoiser, predict, row_batches
from stableanimator_jax.sampling.guidance import guidance_scales
from stableanimator_jax.sampling.samplers import euler
from stableanimator_jax.sampling.windows import plan_windows
from tests.golden_models import reference_model
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


def test_any_length_is_compiled_once(models):
    predict.clear_cache()
    for frames in (1, 3, 4, 5, 9, 12):
        out = denoise(*models, *inputs(frames), SAMPLING)
        assert out.shape == (frames, 8, 8, 4)
        assert jnp.isfinite(out).all()
    assert predict._cache_size() == 1


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
    assert kept.kept is not None
    assert anew.kept is None
    for window in range(len(plan.indices)):
        np.testing.assert_array_equal(kept(window), anew(window))


def test_guidance_of_one_takes_one_branch(models):
    """Scale 1 everywhere is the conditional branch alone: the same video with half the rows."""
    calls = []
    one = SamplingConfig(steps=2, window=4, overlap=1, guidance_min=1, guidance_max=1, rows_at_once=1)
    alone = denoise(*models, *inputs(4), one, on_progress=lambda done, total: calls.append((done, total)))
    assert calls == [(1, 2), (2, 2)]
    almost = SamplingConfig(steps=2, window=4, overlap=1, guidance_min=1, guidance_max=1 + 1e-6)
    np.testing.assert_allclose(alone, denoise(*models, *inputs(4), almost), atol=1e-3)


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


@pytest.mark.parametrize(("windows", "branches", "rows"), [(1, 2, 2), (3, 2, 2), (3, 2, 4), (5, 1, 2), (1, 2, 8)])
def test_row_batches_cover_every_row_once(windows, branches, rows):
    seen = []
    for batch in row_batches(windows, branches, rows):
        assert len(batch.window) == rows
        seen += [(w, b) for w, b, real in zip(batch.window, batch.branch, batch.weight, strict=True) if real]
    assert sorted(seen) == [(w, b) for w in range(windows) for b in range(branches)]


def test_rows_at_once_and_their_spread_over_a_mesh_change_nothing():
    """At a noise level of 700 the bound is a few roundings, which XLA's low effort does not keep."""
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
        full_effort=True,
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

    def predict_stand_in(rows, sigma):
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
        lambda k: jnp.asarray(levels[np.minimum(plan.indices[k], frames - 1)] / 255, jnp.float32),
        plan,
        scales=guidance_scales(frames, plan.frames, low, high),
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
