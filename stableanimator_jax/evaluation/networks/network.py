"""A network with its weights, ready to run over many images or clips: in batches, on one device or several."""

from collections.abc import Callable
from dataclasses import dataclass, replace
from typing import Any

import jax
import numpy as np
from jax.sharding import Mesh
from jaxtyping import Array, Float

from stableanimator_jax.models.functional import Model
from stableanimator_jax.parallel import replicated, rows_apart, shard_batch


@dataclass(frozen=True, eq=False)
class Network:
    """A network whose figures are to be compared: it says what they came from."""

    name: str
    """With what changes its results, as in "I3D, eps 0.001"."""
    model: Model[Any]
    sha256: dict[str, str]
    """Of each weight file, by its name in `published.FILES`."""
    mesh: Mesh | None = None

    def on(self, mesh: Mesh) -> "Network":
        """The same with its weights on every device of `mesh`, over which rows are then spread.

        Of several processes each has its own rows: let the mesh have this process's devices alone
        (`make_mesh(devices=jax.local_devices())`).
        """
        params = jax.device_put(self.model.params, replicated(mesh))
        return replace(self, model=replace(self.model, params=params), mesh=mesh)

    def __call__(self, *arrays: Float[np.ndarray, "n ..."]) -> Float[np.ndarray, "n *d"]:
        """What the network gives for all rows at once, by a compiled program for each number of rows.

        Args:
            arrays: as the network takes them, in float32: one, or for LPIPS two.
        """
        rows = len(arrays[0])
        apart = 1 if self.mesh is None else rows_apart(self.mesh)
        filled = [_filled(array, -(-rows // apart) * apart) for array in arrays]
        return np.asarray(_apply(self.model, *shard_batch(filled, self.mesh)))[:rows]


@jax.jit
def _apply(model: Model[Any], *arrays: Array) -> Array:
    # Of products on TPUs and newer GPUs JAX's default is less than float32, which shows in a Fréchet distance.
    with jax.default_matmul_precision("highest"):
        return model.module()(*arrays)


def features(
    network: Callable[..., np.ndarray], *arrays: Float[np.ndarray, "n ..."], batch: int
) -> Float[np.ndarray, "n *d"]:
    """What a network gives for the rows of `arrays`, `batch` at a time.

    The last batch is filled up with zeros, whose results are dropped: one program serves them all, and its memory is of
    one batch.
    """
    if batch < 1:
        raise ValueError(f"a batch has 1 row or more, got {batch}")
    found = []
    for start in range(0, max(len(arrays[0]), 1), batch):
        parts = [array[start : start + batch] for array in arrays]
        found.append(network(*(_filled(part, batch) for part in parts))[: len(parts[0])])
    return np.concatenate(found)


def _filled(array: np.ndarray, rows: int) -> np.ndarray:
    """The same with zeros after it, to have so many rows."""
    missing = rows - len(array)
    return np.concatenate([array, np.zeros((missing, *array.shape[1:]), array.dtype)]) if missing else array
