"""The mesh and every sharding.

Three axes. Rows of a batch are spread over "data" and "fsdp", parameters over "fsdp" alone, the frames of each row over
"frame". Shardings of parameters and batches are given by whoever places them; those of activations are asked for inside
the models by `spread`, `whole` and `on_each_image`, which do nothing where no mesh is set (`jax.set_mesh`).
"""

import math
from collections.abc import Callable, Sequence
from typing import Any

import jax
import numpy as np
from einops import rearrange
from jax.sharding import AxisType, Mesh, NamedSharding, PartitionSpec
from jaxtyping import Array, Float, PyTree, Shaped

from stableanimator_jax.errors import InputError

DATA, FSDP, FRAME = "data", "fsdp", "frame"
BATCH_AXES = (DATA, FSDP)
SMALLEST_SHARDED = 2**16
"""Parameters of fewer elements are whole on every device: gathering them would cost more than it saves."""


def make_mesh(
    data: int | None = None,
    fsdp: int = 1,
    frame: int = 1,
    devices: Sequence[jax.Device] | None = None,  # pyright: ignore[reportInvalidTypeForm] (JAX exports no alias)
) -> Mesh:
    """A mesh over the first data x fsdp x frame of `devices` (of all devices of all processes, by default).

    Neighbours along "frame" are nearest to each other, then those along "fsdp": that is the order of their traffic.
    The axes are Auto (the compiler propagates shardings): under JAX's default, Explicit, the plain matrix
    products of the models raise on sharded parameters.

    Args:
        data: groups of devices with a copy of the parameters and rows of their own; None: as many as there are
            devices for.
        fsdp: devices that share one copy of the parameters, each with rows of its own.
        frame: devices that share the frames of a row.

    Raises:
        InputError: a size is below 1, there are too few devices, or, without `data`, fsdp x frame does not divide them.
    """
    devices = list(jax.devices() if devices is None else devices)
    for name, size in ((DATA, data), (FSDP, fsdp), (FRAME, frame)):
        if size is not None and size < 1:
            raise InputError(f"the mesh's {name} axis must have 1 device or more, got {size}")
    if data is None:
        if len(devices) % (fsdp * frame):
            raise InputError(
                f"{len(devices)} devices cannot be laid out by fsdp {fsdp} x frame {frame} = {fsdp * frame}: "
                f"make that a divisor of {len(devices)}"
            )
        data = len(devices) // (fsdp * frame)
    shape = (data, fsdp, frame)
    if math.prod(shape) > len(devices):
        raise InputError(
            f"a mesh of data {data} x fsdp {fsdp} x frame {frame} takes {math.prod(shape)} devices: "
            f"there are {len(devices)}"
        )
    return jax.make_mesh(
        shape, (DATA, FSDP, FRAME), axis_types=(AxisType.Auto,) * 3, devices=devices[: math.prod(shape)]
    )


def replicated(mesh: Mesh | None) -> NamedSharding | None:
    """Every device holds all of it. Without a mesh None, which stands for JAX's default device."""
    return None if mesh is None else NamedSharding(mesh, PartitionSpec())


def on_part(arrays: PyTree[jax.Array], mesh: Mesh) -> PyTree[jax.Array]:
    """Arrays that other devices hold whole beside those of `mesh`, as these alone hold them. Nothing is copied."""
    devices = set(mesh.devices.flat)

    def part(array: jax.Array) -> jax.Array:
        held = [shard.data for shard in array.addressable_shards if shard.device in devices]
        return jax.make_array_from_single_device_arrays(array.shape, NamedSharding(mesh, PartitionSpec()), held)

    return jax.tree.map(part, arrays)


def rows_apart(mesh: Mesh) -> int:
    """Over how many devices, or groups of devices along "frame", the rows of a batch are spread."""
    return mesh.shape[DATA] * mesh.shape[FSDP]


def batch_sharding(mesh: Mesh) -> NamedSharding:
    """Rows, the first axis, are spread over "data" and "fsdp"; devices along "frame" hold the same rows."""
    return NamedSharding(mesh, PartitionSpec(BATCH_AXES))


def fsdp_shardings(params: PyTree[Any], mesh: Mesh, smallest: int = SMALLEST_SHARDED) -> PyTree[NamedSharding]:
    """A sharding for every parameter, by its shape alone: its largest axis that "fsdp" divides evenly.

    Args:
        params: arrays or anything with a `shape` (abstract parameters, before any memory is allocated).
        smallest: parameters of fewer elements are replicated.
    """
    size = mesh.shape[FSDP]

    def sharding(param: Any) -> NamedSharding:
        divisible = [axis for axis, length in enumerate(param.shape) if length % size == 0]
        if size == 1 or not divisible or math.prod(param.shape) < smallest:
            return NamedSharding(mesh, PartitionSpec())
        largest = max(divisible, key=lambda axis: param.shape[axis])
        return NamedSharding(mesh, PartitionSpec(*[None] * largest, FSDP))

    return jax.tree.map(sharding, params)


def shard_batch(batch: PyTree[jax.Array], mesh: Mesh | None) -> PyTree[jax.Array]:
    """Spread rows over the mesh's devices; without a mesh, leave them as they are.

    Raises:
        InputError: the rows do not divide over the devices.
    """
    if mesh is None:
        return batch
    for rows in jax.tree.leaves(batch):
        _require_divisible(len(rows), rows_apart(mesh))
    return jax.device_put(batch, batch_sharding(mesh))


def row_share(mesh: Mesh) -> tuple[int, int]:
    """Which of how many equal shares of a batch's rows this process has to read: `host` and `hosts` of `make_loader`.

    Where the frames of a row are spread over several processes, these have the same share.

    Raises:
        InputError: the processes' shares are unequal, or overlap without being the same.
    """
    blocks = _row_blocks(mesh)
    shares = sorted(set(blocks.values()), key=min)
    if len(set(map(len, shares))) > 1 or sum(map(len, shares)) != rows_apart(mesh):
        raise InputError(
            f"a mesh of data {mesh.shape[DATA]} x fsdp {mesh.shape[FSDP]} x frame {mesh.shape[FRAME]} gives its "
            f"{len(blocks)} processes unequal shares of a batch: make frame a divisor or a multiple of the "
            "devices of a process"
        )
    return shares.index(_own_row_blocks(mesh)), len(shares)


def place_local_rows(batch: PyTree[np.ndarray], mesh: Mesh) -> PyTree[jax.Array]:
    """This process's share of a batch's rows, as part of the global arrays that `batch_sharding` describes.

    Every process gives its `row_share`; the global batch has them in the order of the processes' devices.

    Raises:
        InputError: the rows do not divide over this process's devices.
    """
    blocks, sharding = len(_own_row_blocks(mesh)), batch_sharding(mesh)

    def place(rows: np.ndarray) -> jax.Array:
        _require_divisible(len(rows), blocks)
        return jax.make_array_from_process_local_data(sharding, rows)

    return jax.tree.map(place, batch)


def _row_blocks(mesh: Mesh) -> dict[int, frozenset[int]]:
    """For every process, which of the equal blocks of rows, one a place along "data" and "fsdp", its devices hold."""
    blocks: dict[int, set[int]] = {}
    for block, devices in enumerate(mesh.devices.reshape(-1, mesh.shape[FRAME])):
        for device in devices:
            blocks.setdefault(device.process_index, set()).add(block)
    return {process: frozenset(held) for process, held in blocks.items()}


def _own_row_blocks(mesh: Mesh) -> frozenset[int]:
    blocks = _row_blocks(mesh)
    if jax.process_index() not in blocks:
        raise InputError(
            f"the mesh of {mesh.size} devices has none of process {jax.process_index()}: let it take all devices"
        )
    return blocks[jax.process_index()]


def _require_divisible(rows: int, devices: int) -> None:
    if rows % devices:
        raise InputError(f"a batch of {rows} cannot be spread over {devices} devices: make it a multiple of {devices}")


def on_each_device(function: Callable[..., Any], mesh: Mesh) -> Callable[[Any, Any], Any]:
    """`function(shared, *item)` on as many items as the mesh has devices, each on a device of its own.

    Returns:
        a function of `shared`, which every device holds whole, and of the items as one: their arrays stacked along a
        first axis of `mesh.size`. What it gives is stacked so too. No device hears of another's.
    """
    apart = PartitionSpec(mesh.axis_names)

    def own(shared: Any, items: Any) -> Any:
        made = function(shared, *jax.tree.map(lambda stacked: stacked[0], items))
        return jax.tree.map(lambda x: x[None], made)

    return jax.shard_map(own, mesh=mesh, in_specs=(PartitionSpec(), apart), out_specs=apart, check_vma=False)


def leading_shards(shape: Sequence[int]) -> tuple[int, int]:
    """Over how many devices of the current mesh an activation's rows (axis 0) and its axis 1 are spread.

    1 where no mesh is set, inside `jax.shard_map`, and where the mesh does not divide the axis.
    """
    mesh = jax.sharding.get_abstract_mesh()
    if mesh.empty or AxisType.Manual in mesh.axis_types:
        return 1, 1
    rows, frames = math.prod(mesh.shape.get(axis, 1) for axis in BATCH_AXES), mesh.shape.get(FRAME, 1)
    return (
        rows if shape and shape[0] % rows == 0 else 1,
        frames if len(shape) > 1 and shape[1] % frames == 0 else 1,
    )


def leading_spec(shape: Sequence[int]) -> PartitionSpec:
    """The sharding that `leading_shards` counts: rows over "data" and "fsdp", axis 1 over "frame", the rest whole."""
    mesh = jax.sharding.get_abstract_mesh()
    rows, frames = leading_shards(shape)
    over = tuple(axis for axis in BATCH_AXES if mesh.shape.get(axis, 1) > 1)
    return PartitionSpec(over if rows > 1 else None, FRAME if frames > 1 else None)


def spread(x: Shaped[Array, "b n *rest"]) -> Shaped[Array, "b n *rest"]:
    """Ask that every device hold its rows of an activation, its share of axis 1, and all of the other axes.

    Axis 1 is the frames in spatial layers and the pixels in temporal ones: in both no place of it sees another. Going
    from the one to the other is then an all-to-all among the devices along "frame". `x` itself comes back where the
    current mesh spreads neither.
    """
    if leading_shards(x.shape) == (1, 1):
        return x
    return jax.lax.with_sharding_constraint(x, leading_spec(x.shape))


def whole(parameter: Array) -> Array:
    """Ask for all of a parameter that is sharded over "fsdp", where it is used and in the dtype that it is used in.

    Left to itself the compiler may leave the parameter where it is and send the activations round instead.
    """
    mesh = jax.sharding.get_abstract_mesh()
    if mesh.empty or AxisType.Manual in mesh.axis_types or mesh.shape.get(FSDP, 1) == 1:
        return parameter
    return jax.lax.with_sharding_constraint(parameter, PartitionSpec())


def on_each_image(
    function: Callable[[Array], Array], x: Float[Array, "*batch h w c"]
) -> Float[Array, "*batch h2 w2 d"]:
    """`function`, which takes `[n, h, w, c]` and does not mix images, on images with any leading axes.

    With two of them, rows and frames, both may be spread over devices. Merged as they come, no sharding could say who
    holds what, and the compiler would gather the frames: so images are put in the order of the devices that hold them.
    """
    *leading, h, w, c = x.shape
    rows, frames = leading_shards(leading)
    if frames == 1:
        y = function(x.reshape(-1, h, w, c))
        return y.reshape(*leading, *y.shape[1:])
    images = rearrange(spread(x), "(r b) (n f) h w c -> (r n b f) h w c", r=rows, n=frames)
    return spread(
        rearrange(function(images), "(r n b f) h w c -> (r b) (n f) h w c", r=rows, n=frames, b=leading[0] // rows)
    )
