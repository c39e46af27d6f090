"""One training step: what it changes, in parts of a batch, with running means and with low-rank changes."""

from dataclasses import replace
from typing import NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest

from stableanimator_jax.data.clips import Clips, Moments
from stableanimator_jax.parallel import make_mesh
from stableanimator_jax.training.config import ObjectiveConfig, OptimizerConfig, TrainableConfig, TrainConfig
from stableanimator_jax.training.export import Export
from stableanimator_jax.training.optimizer import learning_rate, make_optimizer
from stableanimator_jax.training.state import TrainState, begin, load, training_blueprints
from stableanimator_jax.training.step import BANDS, Metrics, Step, Task, make_step, means
from stableanimator_jax.training.trainable import Params, assemble, is_trained, split_abstract
from stableanimator_jax.weights.opening import CheckpointSource
from stableanimator_jax.weights.rules import dotted, flatten, unflatten
from tests.training.mini_model import MINI, save_mini_model

BLUEPRINTS = training_blueprints(MINI, "float32", arcface=False)


@pytest.fixture(scope="module")
def source(tmp_path_factory):
    return CheckpointSource(MINI, save_mini_model(tmp_path_factory.mktemp("step") / "mini"))


@pytest.fixture(scope="module")
def batch():
    random = np.random.default_rng(0)
    b, f, h, w = 4, 3, 8, 8
    masks = np.zeros((b, f, h, w), bool)
    masks[..., 2:5, 3:6] = True
    images = Moments(
        frames=jnp.asarray(random.standard_normal((b, f, h, w, 8)), jnp.float16),
        reference=jnp.asarray(random.standard_normal((b, h, w, 8)), jnp.float16),
        image_embedding=jnp.asarray(random.standard_normal((b, 64)), jnp.float32),
    )
    return Clips(
        images,
        poses=jnp.asarray(random.integers(0, 256, (b, f, 8 * h, 8 * w, 3)), jnp.uint8),
        masks=jnp.asarray(masks),
        id_embedding=jnp.asarray(random.standard_normal((b, 512)), jnp.float32),
    )


def stepped(source, batch, trainable=TrainableConfig(), **settings):  # noqa: B008 (frozen)
    mesh = make_mesh()
    task = Task(BLUEPRINTS, trainable, ObjectiveConfig(), remat=False, **settings)
    optimizer = make_optimizer(OptimizerConfig(learning_rate=1e-3, warmup_steps=0), 100)
    params, frozen, anew = load(source, BLUEPRINTS, TrainConfig(trainable=trainable), mesh)
    assert not anew
    state = begin(params, optimizer, mesh, ema=task.ema_decay > 0, seed=3)
    step = jax.jit(make_step(task, optimizer, mesh))
    with jax.set_mesh(mesh):
        after, metrics, norm = step(state, frozen, batch)
    return Stepped(state, frozen, after, metrics, norm, step)


class Stepped(NamedTuple):
    before: TrainState
    frozen: Params
    after: TrainState
    metrics: Metrics
    norm: jax.Array
    step: Step


@pytest.fixture(scope="module")
def plain(source, batch):
    return stepped(source, batch)


@pytest.mark.slow
def test_a_batch_in_parts_gives_the_same_step(source, batch, plain):
    parts = stepped(source, batch, accumulate=2)
    np.testing.assert_allclose(plain.norm, parts.norm, rtol=1e-5)
    assert means(parts.metrics) == pytest.approx(means(plain.metrics), rel=1e-5)
    assert int(plain.after.step) == 1
    moments, others = (optax.tree_utils.tree_get(found.after.opt_state, "mu") for found in (plain, parts))
    largest = max(np.abs(leaf).max() for leaf in jax.tree.leaves(moments))
    for (path, gradient), other in zip(jax.tree.leaves_with_path(moments), jax.tree.leaves(others), strict=True):
        # A bias before a norm has no gradient but rounding.
        tolerance = 1e-4 * np.abs(gradient).max() + 1e-6 * largest
        np.testing.assert_allclose(gradient, other, rtol=0, atol=tolerance, err_msg=str(path))


@pytest.mark.long
def test_the_loss_is_told_apart_by_face_and_by_noise(batch, plain):
    metrics, values = plain.metrics, means(plain.metrics)
    share = float(batch.masks.mean())
    inside, outside = values["loss_inside_face"], values["loss_outside_face"]
    assert values["loss"] == pytest.approx(2 * share * inside + (1 - share) * outside, rel=1e-5)
    assert float(metrics.band_clips.sum()) == len(batch.masks)
    assert float(metrics.bands.sum()) == pytest.approx(float(metrics.loss), rel=1e-5)
    assert len(metrics.bands) == len(BANDS) + 1


@pytest.mark.long
def test_noise_that_is_always_the_same_is_learnt_by_heart(batch, plain):
    """The step's number decides its noise, so a step that is always the first one has the same noise always."""
    state = plain.before
    with jax.set_mesh(make_mesh()):
        for _ in range(300):
            state, metrics, _ = plain.step(state._replace(step=plain.before.step), plain.frozen, batch)
            if float(metrics.loss) < 0.1 * float(plain.metrics.loss):
                return
    pytest.fail(f"it is still {float(metrics.loss)}, of {float(plain.metrics.loss)} at first")


@pytest.mark.slow
def test_low_rank_changes_and_running_means(source, batch):
    trainable = TrainableConfig("lora", lora_rank=4, lora_alpha=8.0)
    state, frozen, after, *_ = stepped(source, batch, trainable, ema_decay=0.5)
    names = set(after.params["unet"])
    factors = {name for name in names if name.endswith((".lora_a", ".lora_b"))}
    assert names - factors == {n for n in names if ".id_to_" in n}
    kernel = "mid_block.attentions.0.transformer_blocks.0.attn1.to_q.kernel"
    assert {f"{kernel}.lora_a", f"{kernel}.lora_b"} <= factors
    before = assemble(BLUEPRINTS, state.params, frozen, trainable)["unet"]
    np.testing.assert_array_equal(at(before.params, kernel), frozen["unet"][kernel])  # no change yet
    changed = assemble(BLUEPRINTS, after.params, frozen, trainable)["unet"]
    a, b = (np.asarray(after.params["unet"][f"{kernel}.lora_{x}"], np.float64) for x in "ab")
    np.testing.assert_allclose(at(changed.params, kernel), frozen["unet"][kernel] + 2 * a @ b, atol=1e-6)
    assert np.abs(b).max() > 0
    exported = unflatten(dict(Export(source, BLUEPRINTS, frozen, trainable).models(after.params)["unet"]))
    np.testing.assert_array_equal(at(exported, kernel), at(changed.params, kernel))
    decay = 0.1  # of the first step: (1 + 0) / (10 + 0)
    for old, new, mean in zip(*map(jax.tree.leaves, (state.params, after.params, after.ema)), strict=True):
        np.testing.assert_allclose(mean, decay * old + (1 - decay) * new, atol=1e-6)


@pytest.mark.slow
def test_a_step_at_part_of_the_rate_goes_part_of_the_way(source, batch, plain):
    def moved(scale: float):
        with jax.set_mesh(make_mesh()):
            after, _, _ = plain.step(plain.before, plain.frozen, batch, jnp.float32(scale))
        return jax.tree.map(lambda new, old: np.asarray(new - old), after.params, plain.before.params)

    whole = jax.tree.map(lambda new, old: np.asarray(new - old), plain.after.params, plain.before.params)
    for quarter, all_of_it in zip(jax.tree.leaves(moved(0.25)), jax.tree.leaves(whole), strict=True):
        np.testing.assert_allclose(quarter, 0.25 * all_of_it, rtol=1e-3, atol=3e-7)
    assert not any(leaf.any() for leaf in jax.tree.leaves(moved(0.0)))


@pytest.mark.slow
def test_without_id_tokens_the_face_encoder_has_no_say(source, batch, plain):
    without = replace(MINI, unet=replace(MINI.unet, id_injection="none"))
    blueprints = training_blueprints(without, "float32", arcface=False)
    mesh = make_mesh()
    task = Task(blueprints, TrainableConfig(), ObjectiveConfig(), remat=False)
    optimizer = make_optimizer(OptimizerConfig(warmup_steps=0), 100)
    params, frozen, _ = load(source, blueprints, TrainConfig(), mesh)
    state = begin(params, optimizer, mesh, ema=False, seed=3)
    after, _, _ = jax.jit(make_step(task, optimizer, mesh))(state, frozen, batch)
    moments = optax.tree_utils.tree_get(after.opt_state, "mu")
    assert all(not np.any(leaf) for leaf in jax.tree.leaves(moments["face_encoder"]))
    assert any(np.any(leaf) for leaf in jax.tree.leaves(moments["pose_net"]))
    assert any(
        np.any(leaf) for leaf in jax.tree.leaves(optax.tree_utils.tree_get(plain.after.opt_state, "mu")["face_encoder"])
    )


@pytest.mark.parametrize(
    ("unet", "trained"),
    [("attentions", {".attentions."}), ("all", {""}), ("adapters", {".id_to_k.", ".id_to_v."})],
)
def test_what_is_trained(unet, trained):
    split = split_abstract(BLUEPRINTS, TrainableConfig(unet))
    names = {dotted(path) for path in flatten(BLUEPRINTS["unet"].abstract_params())}
    assert set(split[0]["unet"]) == {name for name in names if any(part in name for part in trained)}
    assert set(split[0]["unet"]) | set(split[1]["unet"]) == names
    assert all(leaf.dtype == jnp.float32 for leaf in jax.tree.leaves(split[0]))
    assert set(split[0]) == {"unet", "pose_net", "face_encoder"}
    assert not split[1]["pose_net"]
    assert not is_trained("vae", "encoder.conv_in.kernel", unet)


def test_frozen_parameters_are_held_in_16_bits():
    _, frozen = split_abstract(training_blueprints(MINI, "bfloat16", arcface=False), TrainableConfig())
    assert frozen["unet"]["conv_in.kernel"].dtype == jnp.bfloat16
    assert frozen["vae"]["encoder.conv_in.kernel"].dtype == jnp.float32


def test_learning_rates():
    constant = learning_rate(OptimizerConfig(learning_rate=2.0, warmup_steps=4), 100)
    assert [float(constant(step)) for step in (0, 1, 4, 99)] == pytest.approx([0, 0.5, 2, 2])
    cosine = learning_rate(OptimizerConfig(learning_rate=2.0, warmup_steps=4, schedule="cosine"), 104)
    assert [float(cosine(step)) for step in (2, 4, 54, 104)] == pytest.approx([1, 2, 1, 0], abs=1e-6)


def at(params, name):
    return next(leaf for path, leaf in flatten(params).items() if dotted(path) == name)
