"""Small train states, different at each step, for tests of checkpoints."""

from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
import optax

from stableanimator_jax.config import StableAnimatorConfig
from stableanimator_jax.weights.checkpoint_item import SaveModels

CONFIG = StableAnimatorConfig.tiny()


def train_state(step: int) -> dict[str, Any]:
    """A state of the kinds of arrays and containers that training has."""
    rng = np.random.default_rng(step)

    def drawn(*shape: int, dtype: Any = np.float32) -> jax.Array:
        return jnp.asarray(rng.standard_normal(shape).astype(dtype))

    params = {
        "unet": {"conv_in.kernel": drawn(8, 64), "blocks.0.kernel": drawn(4, 32), "blocks.0.bias": drawn(32)},
        "face_encoder": {"scale": drawn(16, dtype=jnp.bfloat16)},
    }
    optimiser = optax.chain(optax.clip_by_global_norm(1.0), optax.adamw(1e-3))
    # As after some steps: Adam's moments are not zero.
    opt_state = jax.tree.map(
        lambda leaf: drawn(*leaf.shape, dtype=leaf.dtype) if leaf.ndim else jnp.full((), step, leaf.dtype),
        jax.eval_shape(optimiser.init, params),
    )
    key = jax.random.key_data(jax.random.key(step))
    return {"step": jnp.int32(step), "params": params, "opt_state": opt_state, "ema": {}, "key": key}


def data_state(step: int) -> bytes:
    return f'{{"step": {step}}}'.encode() + b"\xff"


def weights(step: int) -> SaveModels:
    params = train_state(step)["params"]["unet"]
    nested = {
        "conv_in": {"kernel": params["conv_in.kernel"]},
        "blocks": {0: {"kernel": params["blocks.0.kernel"], "bias": params["blocks.0.bias"]}},
    }
    return SaveModels(CONFIG, {"unet": nested}, {"step": step})


def abstract(tree: Any) -> Any:
    return jax.tree.map(lambda leaf: jax.ShapeDtypeStruct(leaf.shape, leaf.dtype), tree)


def require_equal(actual: Any, expected: Any) -> None:
    """Same containers, dtypes and bits."""
    assert jax.tree.structure(actual) == jax.tree.structure(expected)
    for one, other in zip(jax.tree.leaves(actual), jax.tree.leaves(expected), strict=True):
        assert one.dtype == other.dtype
        assert np.asarray(one).tobytes() == np.asarray(other).tobytes()
