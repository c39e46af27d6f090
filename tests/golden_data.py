"""The golden cases and their weights, for every test that compares with the published PyTorch code.

`tests/golden/NAME.npz` holds a case's inputs and outputs in PyTorch's layouts; its weights are a function of their
state-dict names (`tests/golden/reference_weights.py`). They enter a model through the production rule tables.
"""

import json
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import TypeVar

import jax
import jax.numpy as jnp
import numpy as np
from flax import nnx

from stableanimator_jax.weights.rules import Table, plan_export
from tests.golden.reference_weights import reference_array
from tests.weights.state_dicts import convert

TESTS = Path(__file__).parent
Module = TypeVar("Module", bound=nnx.Module)


def load(name: str) -> dict[str, np.ndarray]:
    """The arrays of one golden case, by name without `.npz`."""
    with np.load(TESTS / "golden" / f"{name}.npz", allow_pickle=False) as case:
        return dict(case)


def manifest(name: str) -> dict[str, tuple[int, ...]]:
    """Every key and shape of one published checkpoint, by name without `.json`."""
    return {key: tuple(shape) for key, shape in json.loads((TESTS / "manifests" / f"{name}.json").read_text()).items()}


class ReferenceWeights(Mapping[str, np.ndarray]):
    """A state dict of reference weights that makes each tensor when it is asked for."""

    def __init__(self, shapes: Mapping[str, tuple[int, ...]], prefix: str):
        self.shapes = shapes
        self.prefix = prefix

    def __getitem__(self, key: str) -> np.ndarray:
        return reference_array(self.prefix + key, self.shapes[key])

    def __iter__(self) -> Iterator[str]:
        return iter(self.shapes)

    def __len__(self) -> int:
        return len(self.shapes)


def load_reference_weights(model: Module, table: Table, prefix: str) -> Module:
    """Fill `model`, abstract (`nnx.eval_shape`) or not, with reference weights in its own dtypes; returns it.

    `prefix` is the golden case's, such as "unet.".
    """
    state = nnx.state(model)
    abstract = nnx.to_pure_dict(state)
    shapes = {a.key: a.source_shape for a in plan_export(table, abstract)}
    params = convert(table, ReferenceWeights(shapes, prefix), abstract)
    nnx.replace_by_pure_dict(state, jax.tree.map(jnp.asarray, params))
    nnx.update(model, state)
    return model


def assert_close(actual: np.ndarray | jax.Array, expected: np.ndarray, tolerance: float) -> None:
    """Compare shapes, and max |difference| with `tolerance` times the expected output's own standard deviation."""
    actual = np.asarray(actual, np.float32)
    assert actual.shape == expected.shape
    error = np.abs(actual - expected).max() / expected.std()
    assert error <= tolerance, f"max |difference| is {error:.2e} of the standard deviation, allowed {tolerance:.0e}"
