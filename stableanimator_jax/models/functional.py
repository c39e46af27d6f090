"""Models as pytrees, ready for `jax.jit`: parameters are traced, structure is static."""

from dataclasses import dataclass, field, replace
from functools import lru_cache
from typing import Any, Generic, TypeVar, cast

import jax
import jax.numpy as jnp
from flax import nnx
from jax.typing import DTypeLike

from stableanimator_jax.models.layers import Precision

M = TypeVar("M", bound=nnx.Module)


@dataclass(frozen=True)
class Blueprint(Generic[M]):
    """What a model is built from. Hashable, so that jitted functions are compiled once for all equal models."""

    kind: type[M]
    config: Any
    precision: Precision

    def graphdef(self) -> nnx.GraphDef[M]:
        return cast("nnx.GraphDef[M]", _split(self)[0])

    def abstract_params(self) -> dict[Any, Any]:
        """The parameters' shapes and dtypes as a nested dict; nothing is allocated."""
        return _split(self)[1]


class _OneKey(nnx.Rngs):
    """The same key for every parameter: values do not matter to shapes, and NNX counts keys too slowly when traced."""

    def __init__(self):
        self.key = jax.random.key(0)

    def params(self) -> jax.Array:
        return self.key


@lru_cache(maxsize=32)
def _split(blueprint: Blueprint[Any]) -> tuple[nnx.GraphDef[Any], dict[Any, Any]]:
    module = nnx.eval_shape(lambda: blueprint.kind(blueprint.config, precision=blueprint.precision, rngs=_OneKey()))
    graphdef, state = nnx.split(module)
    return graphdef, nnx.to_pure_dict(state)


@jax.tree_util.register_dataclass
@dataclass(frozen=True, eq=False)
class Model(Generic[M]):
    """A model's parameters, as a pure dict, with its blueprint.

    Dispatching a jitted call over a pure dict takes milliseconds where `nnx.jit` takes tenths of a second.
    """

    params: dict[Any, Any]
    blueprint: Blueprint[M] = field(metadata={"static": True})

    def module(self) -> M:
        """The module with these parameters; for use inside jitted functions."""
        return nnx.merge(self.blueprint.graphdef(), self.params)

    def computing_in(self, dtype: DTypeLike) -> "Model[M]":
        """The same parameters, computed with in `dtype`."""
        precision = replace(self.blueprint.precision, compute=jnp.dtype(dtype))
        return replace(self, blueprint=replace(self.blueprint, precision=precision))
