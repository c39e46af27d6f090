"""Batches on the devices: the loader's, in order, ahead of time without losing any, on one device or several."""

import socket
import threading
from concurrent.futures import ThreadPoolExecutor
from itertools import islice

import jax
import numpy as np
import pytest

from stableanimator_jax.data.clips import Clips
from stableanimator_jax.data.device_batches import DeviceBatches
from stableanimator_jax.data.loader import LoaderConfig, make_loader
from stableanimator_jax.errors import InputError
from tests.data.synthetic_clips import SyntheticClips
from tests.virtual_devices import run_on_virtual_devices

CONFIG = LoaderConfig(batch_size=2, frames=3)
CLIPS = SyntheticClips(5)


def require_equal(placed: Clips[jax.Array], batch: Clips[np.ndarray]) -> None:
    assert placed.names == ()
    for x, y in zip(*map(jax.tree.leaves, (placed, batch.arrays)), strict=True):
        assert isinstance(x, jax.Array)
        assert x.dtype == y.dtype
        np.testing.assert_array_equal(x, y)


@pytest.mark.parametrize("ahead", [0, 3])
def test_batches_and_state_are_the_loaders_however_far_it_is_ahead(ahead):
    with make_loader([CLIPS], CONFIG) as loader:
        wanted = list(islice(loader, 7))
    with DeviceBatches(make_loader([CLIPS], CONFIG), None, ahead) as batches:
        for batch in wanted[:4]:
            require_equal(next(batches), batch)
        state = batches.state()
    loader = make_loader([CLIPS], CONFIG)
    loader.restore(state)
    with DeviceBatches(loader, None, ahead) as batches:
        assert batches.state() == state
        for batch in wanted[4:]:
            require_equal(next(batches), batch)
    assert not [t for t in threading.enumerate() if t.name.startswith("device-batches")]


def test_an_error_comes_out_where_the_batch_would_have():
    short = SyntheticClips(3, length=3)
    with (
        DeviceBatches(make_loader([short], CONFIG), None) as batches,
        pytest.raises(InputError, match="has 3 frames"),
    ):
        next(batches)


def test_rows_are_spread_over_the_mesh():
    run_on_virtual_devices(
        4,
        """
        from itertools import islice
        import jax
        import numpy as np
        from stableanimator_jax.data.device_batches import DeviceBatches
        from stableanimator_jax.data.loader import LoaderConfig, make_loader
        from stableanimator_jax.parallel import batch_sharding, make_mesh
        from tests.data.synthetic_clips import SyntheticClips

        clips, config, mesh = [SyntheticClips(5)], LoaderConfig(batch_size=8, frames=3), make_mesh()
        with make_loader(clips, config) as loader:
            wanted = list(islice(loader, 3))
        with DeviceBatches(make_loader(clips, config), mesh) as batches:
            for batch, placed in zip(wanted, batches):
                for x, y in zip(*map(jax.tree.leaves, (placed, batch.arrays)), strict=True):
                    assert x.sharding == batch_sharding(mesh)
                    assert x.addressable_shards[1].data.shape[0] == 2
                    np.testing.assert_array_equal(x, y)
        """,
    )


def test_two_processes_have_the_batches_of_one():
    """The global batch's rows are in the plan's order, whichever process read them."""
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        address = f"127.0.0.1:{probe.getsockname()[1]}"

    def process(number: int) -> str:
        return run_on_virtual_devices(
            2,
            f"""
            import jax
            jax.distributed.initialize("{address}", 2, {number})
            import numpy as np
            from stableanimator_jax.data.device_batches import DeviceBatches
            from stableanimator_jax.data.loader import LoaderConfig, make_loader
            from stableanimator_jax.parallel import make_mesh
            from tests.data.synthetic_clips import SyntheticClips

            clips, config = [SyntheticClips(5), SyntheticClips(3, size=(16, 32))], LoaderConfig(batch_size=8, frames=3)
            alone = make_loader(clips, config)
            with DeviceBatches(make_loader(clips, config, host={number}, hosts=2), make_mesh()) as batches:
                for step in range(4):
                    found, wanted = next(batches), alone.batch_at(step).arrays
                    for x, whole in zip(*map(jax.tree.leaves, (found, wanted)), strict=True):
                        assert x.shape == whole.shape
                        for shard in x.addressable_shards:
                            np.testing.assert_array_equal(shard.data, whole[shard.index])
            print("equal")
            """,
        )

    with ThreadPoolExecutor() as pool:
        found = list(pool.map(process, range(2)))
    assert [out.splitlines()[-1] for out in found] == ["equal"] * 2
