"""Random torch modules' weights into our models, through the production rule tables."""

from typing import Any, TypeVar

import jax
import jax.numpy as jnp
from flax import nnx

from stableanimator_jax.weights.rules import Table
from tests.weights.state_dicts import convert

Module = TypeVar("Module", bound=nnx.Module)


def copy_torch_weights(module: Any, model: Module, table: Table) -> Module:
    """Fill `model` with the state dict of the torch `module`; returns it."""
    state = nnx.state(model)
    state_dict = {key: value.detach().numpy() for key, value in module.state_dict().items()}
    params = convert(table, state_dict, nnx.to_pure_dict(state))
    nnx.replace_by_pure_dict(state, jax.tree.map(jnp.asarray, params))
    nnx.update(model, state)
    return model
