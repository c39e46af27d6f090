"""Models as pytrees, ready for `jax.jit`: parameters are traced, structure is static."""

from dataclasses import dataclass, field
from functools import lru_cache
from typing import Any, Generic, TypeVar, cast

import jax
import numpy as np
from flax import nnx

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
@dataclass(frozen=True)
class Model(Generic[M]):
    """A model's parameters, as a pure dict, with its blueprint.

    Dispatching a jitted call over a pure dict takes milliseconds where `nnx.jit` takes tenths of a second.
    """

    params: dict[Any, Any]
    blueprint: Blueprint[M] = field(metadata={"static": True})

    def module(self) -> M:
        """The module with these parameters; for use inside jitted functions."""
        return nnx.merge(self.blueprint.graphdef(), self.params)


def random_params(abstract: dict[Any, Any], seed: int) -> dict[Any, Any]:
    """Parameters drawn on the host in milliseconds, for demonstrations, tests and benchmarks of untrained models.

    Kernels are Gaussian with a spread of 1/sqrt(fan in), scales are 1, biases and statistics 0.

    Args:
        abstract: shapes and dtypes as a nested dict.
        seed: same seed, same parameters, on any machine.
    """
    generator = np.random.Generator(np.random.PCG64(seed))

    def draw(path: tuple[Any, ...], leaf: jax.ShapeDtypeStruct) -> np.ndarray:
        name = path[-1].key
        if len(leaf.shape) >= 2:
            fan_in = int(np.prod(leaf.shape[:-1]))
            return (generator.standard_normal(leaf.shape, np.float32) / np.sqrt(fan_in)).astype(leaf.dtype)
        return np.full(leaf.shape, 1 if name in ("scale", "var") else 0, leaf.dtype)

    return jax.tree_util.tree_map_with_path(draw, abstract)
