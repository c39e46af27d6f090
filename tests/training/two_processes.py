"""What each of two processes does that share their checkpoints with one another and with a run of one process."""

import jax
import numpy as np
from jax.sharding import AxisType, Mesh, NamedSharding, PartitionSpec

from stableanimator_jax.training.checkpoints import CheckpointConfig, Checkpoints
from stableanimator_jax.weights.checkpoint_item import SaveModels
from tests.training.checkpoint_states import CONFIG, abstract, data_state, train_state


def main(directory: str, address: str, number: int) -> None:
    """Go on from a step that one process saved; save two more; read the last on another split of the devices."""
    jax.distributed.initialize(address, 2, number)
    mesh = jax.make_mesh((2, 2), ("data", "fsdp"), axis_types=(AxisType.Auto,) * 2)
    with Checkpoints(directory, CheckpointConfig(keep=2)) as checkpoints:
        step, state, loader = checkpoints.restore(_placed(train_state(1), mesh, ("data", "fsdp")))
        assert (step, loader) == (1, data_state(1))
        _require_equal(state, train_state(1))
        kernel = state["params"]["unet"]["conv_in.kernel"]
        assert [shard.data.shape for shard in kernel.addressable_shards] == [(8, 16)] * 2
        for step in (2, 3, 4):
            state = _spread(train_state(step), mesh)
            checkpoints.save(step, state, data_state(step), SaveModels(CONFIG, _models(state), {"step": step}))
            jax.tree.map(lambda array: array.delete(), state)
        assert checkpoints.steps() == [3, 4]
        _require_equal(checkpoints.restore(_placed(train_state(4), mesh, ("fsdp",)))[1], train_state(4))


def _models(state: dict) -> dict:
    params = state["params"]["unet"]
    nested = {
        "conv_in": {"kernel": params["conv_in.kernel"]},
        "blocks": {0: {"kernel": params["blocks.0.kernel"], "bias": params["blocks.0.bias"]}},
    }
    return {"unet": nested}


def _sharding(array: jax.Array, mesh: Mesh, axes: tuple[str, ...]) -> NamedSharding:
    # The last axis, where there is one: biases and the optimiser's copies too; scalars are everywhere.
    spec = (
        PartitionSpec(*[None] * (array.ndim - 1), axes) if array.ndim and array.shape[-1] % 4 == 0 else PartitionSpec()
    )
    return NamedSharding(mesh, spec)


def _placed(state: dict, mesh: Mesh, axes: tuple[str, ...]) -> dict:
    return jax.tree.map(
        lambda leaf, array: jax.ShapeDtypeStruct(leaf.shape, leaf.dtype, sharding=_sharding(array, mesh, axes)),
        abstract(state),
        state,
    )


def _spread(state: dict, mesh: Mesh) -> dict:
    def spread(array: jax.Array) -> jax.Array:
        values = np.asarray(array)
        return jax.make_array_from_callback(values.shape, _sharding(array, mesh, ("fsdp",)), lambda at: values[at])

    return jax.tree.map(spread, state)


def _require_equal(actual: dict, expected: dict) -> None:
    assert jax.tree.structure(actual) == jax.tree.structure(expected)
    for one, other in zip(jax.tree.leaves(actual), jax.tree.leaves(expected), strict=True):
        assert one.dtype == other.dtype
        for shard in one.addressable_shards:
            np.testing.assert_array_equal(np.asarray(shard.data), np.asarray(other)[shard.index])
