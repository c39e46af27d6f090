"""Batches on their way to the devices: the next ones are placed while the model works on this one."""

from collections import deque
from collections.abc import Iterator
from concurrent.futures import Future, ThreadPoolExecutor
from typing import NamedTuple

import jax
from jax.sharding import Mesh
from jaxtyping import Array, Bool, Float16, Float32, UInt8

from stableanimator_jax.data.batches import AnyBatch, Batch
from stableanimator_jax.data.loader import Loader
from stableanimator_jax.parallel import place_local_rows


class DeviceBatch(NamedTuple):
    """The global batch of one step, its rows spread over the devices of all hosts. As `batches.Batch`."""

    frames: UInt8[Array, "b f h w 3"]
    poses: UInt8[Array, "b f h w 3"]
    masks: Bool[Array, "b f h/8 w/8"]
    reference: UInt8[Array, "b h w 3"]
    id_embedding: Float32[Array, "b 512"]


class DeviceEncodedBatch(NamedTuple):
    """The same of clips encoded ahead. As `batches.EncodedClipBatch`."""

    moments: Float16[Array, "b f h w 2c"]
    condition_moments: Float16[Array, "b h w 2c"]
    image_embedding: Float32[Array, "b d"]
    poses: UInt8[Array, "b f H W 3"]
    masks: Bool[Array, "b f h w"]
    id_embedding: Float32[Array, "b 512"]


AnyDeviceBatch = DeviceBatch | DeviceEncodedBatch


class DeviceBatches(Iterator[AnyDeviceBatch]):
    """A loader's batches as global arrays, some steps ahead. Close it, or use it in a `with` statement.

    One thread of its own reads and places, in order; the loader must not be used meanwhile.

    Args:
        loader: of this host. Closed with this.
        mesh: its devices get the rows; None for JAX's default device.
        ahead: batches on the devices besides the one in use. At 512x512 a row of 16 frames takes 26 MB, encoded 14.
    """

    def __init__(self, loader: Loader, mesh: Mesh | None, ahead: int = 1):
        self._loader, self._mesh, self._ahead = loader, mesh, ahead
        self._state = loader.state()
        self._thread = ThreadPoolExecutor(1, thread_name_prefix="device-batches")
        self._coming: deque[Future[tuple[AnyDeviceBatch, bytes]]] = deque()

    def __next__(self) -> AnyDeviceBatch:
        while len(self._coming) <= self._ahead:
            self._coming.append(self._thread.submit(self._fetch))
        batch, self._state = self._coming.popleft().result()
        return batch

    def state(self) -> bytes:
        """The loader's state as of the last batch that came out: those under way come again once it is restored."""
        return self._state

    def close(self) -> None:
        """End the thread, and the loader's processes."""
        self._thread.shutdown(cancel_futures=True)
        self._loader.close()

    def __enter__(self) -> "DeviceBatches":
        return self

    def __exit__(self, *exception: object) -> None:
        self.close()

    def _fetch(self) -> tuple[AnyDeviceBatch, bytes]:
        batch: AnyBatch = next(self._loader)
        return place_batch(batch, self._mesh), self._loader.state()


def place_batch(batch: AnyBatch, mesh: Mesh | None) -> AnyDeviceBatch:
    """This host's rows as part of the global batch; see `DeviceBatches`."""
    rows = batch[:-1]  # all but the names
    placed = jax.device_put(rows) if mesh is None else place_local_rows(rows, mesh)
    kind = DeviceBatch if isinstance(batch, Batch) else DeviceEncodedBatch
    return kind(*placed)
