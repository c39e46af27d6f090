"""Muon beside AdamW: what its steps are, and that a run goes on with it. (AdamW's steps: test_step.py.)"""

from pathlib import Path

import jax
import jax.numpy as jnp
import numpy as np
import optax

from stableanimator_jax.parallel import make_mesh
from stableanimator_jax.training.checkpoints import Checkpoints
from stableanimator_jax.training.config import OptimizerConfig
from stableanimator_jax.training.optimizer import make_optimizer
from stableanimator_jax.training.state import abstract_state, begin
from tests.training.checkpoint_states import abstract, data_state, require_equal, weights

RATE = 0.01
CONFIG = OptimizerConfig(kind="muon", learning_rate=RATE, warmup_steps=0, weight_decay=0.0, clip_norm=0)
SHAPES = {"conv.kernel": (3, 3, 4, 8), "time.kernel": (3, 8, 8), "linear.kernel": (16, 8), "linear.bias": (8,)}


def drawn(seed: int):
    rng = np.random.default_rng(seed)
    return {"unet": {name: jnp.asarray(rng.standard_normal(s), jnp.float32) for name, s in SHAPES.items()}}


def steps(count: int):
    optimizer = make_optimizer(CONFIG, 100)
    params = drawn(0)
    state, updates = optimizer.init(params), params
    for i in range(count):
        with jax.numpy_dtype_promotion("standard"):
            updates, state = optimizer.update(drawn(i + 1), state, params)
        params = optax.apply_updates(params, updates)
    return optimizer, params, state, updates


def test_matrices_move_by_about_orthogonal_steps_of_adams_size():
    _, _, _, updates = steps(1)
    for name, update in updates["unet"].items():
        if name.endswith("bias"):
            np.testing.assert_allclose(np.abs(update), np.abs(update)[0], rtol=1e-3)  # Adam's first, with Nesterov's
            assert RATE < np.abs(update)[0] < 2 * RATE
            continue
        matrix = np.asarray(update).reshape(-1, update.shape[-1])
        singular = np.linalg.svd(matrix, compute_uv=False)
        assert singular.max() / singular.min() < 2, name  # a Gaussian's differ by more
        assert 0.1 * RATE < np.sqrt(np.mean(np.square(matrix))) < 0.3 * RATE, name
        gradient = np.asarray(drawn(1)["unet"][name])
        assert np.vdot(gradient, update) < 0, name


def test_its_state_is_saved_and_comes_back(tmp_path: Path):
    optimizer, params, opt_state, _ = steps(3)
    mesh = make_mesh()
    state = begin(params, optimizer, mesh, ema=False, seed=0)._replace(opt_state=opt_state)
    with Checkpoints(tmp_path) as checkpoints:
        checkpoints.save(3, state, data_state(3), weights(3))
    wanted = abstract_state(abstract(params), optimizer, mesh, ema=False)
    with Checkpoints(tmp_path) as checkpoints:
        _, restored, _ = checkpoints.restore(wanted)
    require_equal(restored, state)


def test_weights_decay():
    gradients = drawn(1)
    still = jax.tree.map(jnp.zeros_like, gradients)
    config = OptimizerConfig(kind="muon", learning_rate=RATE, warmup_steps=0, weight_decay=0.5)
    optimizer = make_optimizer(config, 100)
    with jax.numpy_dtype_promotion("standard"):
        updates, _ = optimizer.update(still, optimizer.init(drawn(0)), drawn(0))
    np.testing.assert_allclose(
        updates["unet"]["linear.kernel"], -0.5 * RATE * drawn(0)["unet"]["linear.kernel"], rtol=1e-4
    )
