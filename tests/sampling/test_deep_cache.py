"""DeepCache: what is kept is what is needed, and it is computed anew when it must be."""

from dataclasses import replace
from functools import partial

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from stableanimator_jax.errors import InputError
from stableanimator_jax.models.catalogue import blueprint
from stableanimator_jax.models.conditioning import Conditioning
from stableanimator_jax.models.flops import matmul_flops
from stableanimator_jax.models.functional import Model
from stableanimator_jax.sampling import deep_cache
from stableanimator_jax.sampling.config import SamplingConfig
from stableanimator_jax.sampling.deep_cache import DeepCache, predict_keeping, predict_reusing
from stableanimator_jax.sampling.denoise import denoise
from stableanimator_jax.sampling.denoiser import Place, Rows, predict
from tests.training.mini_model import MINI, mini_params

BRANCHES = range(3)
CACHED = SamplingConfig(steps=8, window=4, overlap=1, cache_interval=3)


@pytest.fixture(scope="module")
def models():
    return tuple(Model(mini_params(name), blueprint(MINI, name)) for name in ("unet", "pose_net"))


def inputs(frames: int):
    random = np.random.default_rng(0)
    image, faces, latents = (
        jnp.asarray(random.standard_normal((1, *shape)), jnp.float32) for shape in ((64,), (4, 64), (8, 8, 4))
    )
    condition = Conditioning(image, faces, jnp.asarray([CACHED.added_time_ids], jnp.float32), latents)
    poses = random.integers(0, 256, (frames, 64, 64, 3), np.uint8)
    return condition, poses, jnp.asarray(random.standard_normal((4, 8, 8, 4)), jnp.float32)


@pytest.fixture(scope="module")
def rows():
    """Of the shapes that `denoise` calls the UNet with, whose programs serve here too."""
    condition, _, noise = inputs(4)
    features = jnp.asarray(np.random.default_rng(1).standard_normal((2, 4, 8, 8, 32)), jnp.float32)
    twice = jax.tree.map(lambda row: jnp.concatenate([row, -row]), condition)
    return Rows(jnp.stack([noise, noise / 2]), twice._replace(pose_features=features))


@pytest.mark.long
@pytest.mark.parametrize("branch", BRANCHES)
def test_what_is_kept_and_the_layers_above_it_are_the_unet(models, rows, branch):
    sigma = jnp.float32(2.0)
    whole = predict(models[0], rows, sigma)
    kept, deep = predict_keeping(models[0], rows, sigma, branch=branch)
    np.testing.assert_allclose(kept, whole, atol=1e-5)
    np.testing.assert_allclose(predict_reusing(models[0], rows, sigma, deep, branch=branch), whole, atol=1e-5)
    # It is of that moment: deep features of nothing give another video, and another moment other deep features.
    assert jnp.abs(predict_reusing(models[0], rows, sigma, jnp.zeros_like(deep), branch=branch) - whole).max() > 1e-3
    later = predict_keeping(models[0], rows, sigma / 2, branch=branch)[1]
    assert jnp.abs(later - deep).max() > 1e-3


def test_a_deeper_branch_computes_more_and_the_deepest_all_but_the_lowest_block(models, rows):
    sigma = jnp.float32(2.0)

    def flops(branch: int) -> int:
        _, deep = jax.eval_shape(partial(predict_keeping, branch=branch), models[0], rows, sigma)
        return matmul_flops(partial(predict_reusing, branch=branch), models[0], rows, sigma, deep)

    counts = [flops(branch) for branch in BRANCHES]
    assert counts == sorted(set(counts))
    whole = matmul_flops(predict, models[0], rows, sigma)
    assert counts[0] < 0.6 * whole
    assert 0.6 * whole < counts[-1] < whole


@pytest.mark.parametrize("dtype", ["bfloat16", "float16"])
def test_what_is_kept_takes_16_bits_where_the_unet_computes_in_them(models, rows, dtype):
    model = models[0].computing_in(dtype)
    _, deep = jax.eval_shape(partial(predict_keeping, branch=0), model, rows, jnp.float32(2.0))
    assert (deep.shape, deep.dtype) == ((2, 4, 8, 8, 64), jnp.dtype(dtype))


@pytest.fixture
def calls(monkeypatch):
    """Which program every call of the UNet is, from now on."""
    made = []

    def note(name: str):
        function = getattr(deep_cache, name)

        def noting(*args, **static):
            made.append(name.removeprefix("predict_"))
            return function(*args, **static)

        monkeypatch.setattr(deep_cache, name, noting)

    note("predict_keeping"), note("predict_reusing")
    return made


K, R = "keeping", "reusing"


def test_every_third_step_is_whole(models, calls):
    video = denoise(*models, *inputs(4), CACHED)
    assert calls == [K, R, R, K, R, R, K, R]
    assert jnp.isfinite(video).all()
    calls.clear()
    denoise(*models, *inputs(7), replace(CACHED, steps=3))  # two windows
    assert calls == [K, K, R, R, R, R]


def test_windows_keep_apart(models):
    """Two windows of the same frames are one window twice, cached or not."""
    condition, poses, noise = inputs(1)
    noise = jnp.broadcast_to(noise[:1], noise.shape)
    videos = [denoise(*models, condition, np.repeat(poses, f, 0), noise, CACHED) for f in (4, 7)]
    np.testing.assert_allclose(videos[1][:2], videos[0][:2], atol=0.5)


def test_a_changed_clean_sample_makes_the_next_step_whole(models, calls):
    hooks = {2: lambda clean: clean + 0.1, 3: lambda clean: clean}
    denoise(*models, *inputs(4), CACHED, hook=lambda step, clean: hooks.get(step, hooks[3])(clean))
    assert calls == [K, R, R, K, R, R, K, R]
    calls.clear()
    denoise(*models, *inputs(4), CACHED, hook=lambda step, clean: clean + 0.1 if step < 5 else clean)
    assert calls == [K, K, K, K, K, K, R, R]


def test_where_guidance_begins_or_ends_the_step_is_whole(models, calls):
    interval = replace(CACHED, schedule="aligned", cache_interval=8, guidance_interval=(1.789, 11.257))
    denoise(*models, *inputs(4), interval)
    assert calls == [K, R, K, R, R, K, R, R]


@pytest.mark.long
def test_a_video_comes_near_the_one_of_whole_steps_the_nearer_the_deeper(models):
    whole = denoise(*models, *inputs(4), replace(CACHED, cache_interval=1))
    off = [
        float(jnp.abs(denoise(*models, *inputs(4), replace(CACHED, cache_interval=2, cache_branch=b)) - whole).mean())
        for b in BRANCHES
    ]
    assert 0 < off[2] < off[0] < 0.5 * float(jnp.abs(whole).mean())


def test_a_branch_that_the_unet_has_not(models):
    with pytest.raises(InputError, match="cache-branch must be from 0 to 2 for this UNet, got 3"):
        DeepCache(models[0], 2, 3)
    with pytest.raises(InputError, match="cache-branch 3 has no use while every step runs the whole UNet"):
        SamplingConfig(cache_branch=3)
    assert Place(2, 0) != Place(1, 0)
