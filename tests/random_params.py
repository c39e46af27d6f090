"""Parameters of untrained models, for tests."""

from typing import Any

import jax
import numpy as np


def random_params(abstract: dict[Any, Any], seed: int) -> dict[Any, Any]:
    """Parameters drawn on the host in milliseconds.

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
