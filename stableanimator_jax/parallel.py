"""The mesh and every sharding: models carry none of their own.

One axis, "data": rows of a batch are spread over it, and so are parameters where they are (FSDP).
"""

from collections.abc import Sequence
from typing import Any

import jax
import numpy as np
from jax.sharding import AxisType, Mesh, NamedSharding, PartitionSpec
from jaxtyping import PyTree

from stableanimator_jax.errors import InputError

DATA = "data"


def make_mesh(
    data: int | None = None,
    devices: Sequence[jax.Device] | None = None,  # pyright: ignore[reportInvalidTypeForm] (JAX exports no alias)
) -> Mesh:
    """A mesh with one axis, "data", over the first `data` of `devices` (all of them, of all processes, by default).

    Its axis is Auto (the compiler propagates shardings): under JAX's default, Explicit, the plain matrix
    products of the models raise on sharded parameters.

    Raises:
        InputError: there are fewer devices than asked for.
    """
    devices = list(jax.devices() if devices is None else devices)
    data = len(devices) if data is None else data
    if not 1 <= data <= len(devices):
        raise InputError(f"cannot spread over {data} devices: there are {len(devices)}; ask for 1 to {len(devices)}")
    return jax.make_mesh((data,), (DATA,), axis_types=(AxisType.Auto,), devices=devices[:data])


def replicated(mesh: Mesh | None) -> NamedSharding | None:
    """Every device holds all of it. Without a mesh None, which stands for JAX's default device."""
    return None if mesh is None else NamedSharding(mesh, PartitionSpec())


def batch_sharding(mesh: Mesh) -> NamedSharding:
    """The first axis is spread over the devices."""
    return NamedSharding(mesh, PartitionSpec(DATA))


def fsdp_shardings(params: PyTree[Any], mesh: Mesh, smallest: int = 2**16) -> PyTree[NamedSharding]:
    """A sharding for every parameter, by its shape alone: its largest axis that the devices divide evenly.

    Args:
        params: arrays or anything with a `shape` (abstract parameters, before any memory is allocated).
        smallest: parameters of fewer elements are replicated: gathering them would cost more than it saves.
    """

    def sharding(param: Any) -> NamedSharding:
        size = mesh.shape[DATA]
        divisible = [axis for axis, length in enumerate(param.shape) if length % size == 0]
        if not divisible or np.prod(param.shape) < smallest:
            return NamedSharding(mesh, PartitionSpec())
        largest = max(divisible, key=lambda axis: param.shape[axis])
        return NamedSharding(mesh, PartitionSpec(*[None] * largest, DATA))

    return jax.tree.map(sharding, params)


def shard_batch(batch: PyTree[jax.Array], mesh: Mesh | None) -> PyTree[jax.Array]:
    """Spread rows over the mesh's devices; without a mesh, leave them as they are.

    Raises:
        InputError: the rows do not divide over the devices.
    """
    if mesh is None:
        return batch
    for rows in jax.tree.leaves(batch):
        _require_divisible(len(rows), mesh.shape[DATA])
    return jax.device_put(batch, batch_sharding(mesh))


def place_local_rows(batch: PyTree[np.ndarray], mesh: Mesh) -> PyTree[jax.Array]:
    """This process's rows of a batch, as part of the global arrays that `batch_sharding` describes.

    Every process gives equally many rows; the global batch has them in the order of the processes' devices.

    Raises:
        InputError: the rows do not divide over this process's devices.
    """
    sharding = batch_sharding(mesh)

    def place(rows: np.ndarray) -> jax.Array:
        _require_divisible(len(rows), len(sharding.addressable_devices))
        return jax.make_array_from_process_local_data(sharding, rows)

    return jax.tree.map(place, batch)


def _require_divisible(rows: int, devices: int) -> None:
    if rows % devices:
        raise InputError(f"a batch of {rows} cannot be spread over {devices} devices: make it a multiple of {devices}")
