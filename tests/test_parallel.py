"""Meshes and shardings, on 8 virtual CPU devices in processes of their own."""

import socket
import textwrap
from concurrent.futures import ThreadPoolExecutor
from types import SimpleNamespace
from typing import Any

import jax
import numpy as np
import pytest

from stableanimator_jax.errors import InputError
from stableanimator_jax.parallel import make_mesh, row_share
from tests.virtual_devices import run_on_virtual_devices


def test_mesh_takes_all_devices_or_the_first_few():
    run_on_virtual_devices(
        8,
        """
        import jax
        from jax.sharding import AxisType
        from stableanimator_jax.parallel import make_mesh

        assert make_mesh().shape == {"data": 8, "fsdp": 1, "frame": 1}
        assert make_mesh(fsdp=2, frame=2).shape == {"data": 2, "fsdp": 2, "frame": 2}
        assert make_mesh().axis_types == (AxisType.Auto,) * 3
        assert set(make_mesh(2).devices.flat) == set(jax.devices()[:2])
        assert set(make_mesh(1, 2, 3).devices.flat) == set(jax.devices()[:6])
        assert set(make_mesh(devices=jax.devices()[5:]).devices.flat) == set(jax.devices()[5:])
        """,
    )


@pytest.mark.parametrize(
    ("sizes", "message"),
    [
        ({"data": 5}, "a mesh of data 5 x fsdp 1 x frame 1 takes 5 devices: there are 4"),
        ({"data": 2, "fsdp": 2, "frame": 2}, "a mesh of data 2 x fsdp 2 x frame 2 takes 8 devices: there are 4"),
        ({"fsdp": 3}, "4 devices cannot be laid out by fsdp 3 x frame 1 = 3: make that a divisor of 4"),
        ({"fsdp": 4, "frame": 2}, "4 devices cannot be laid out by fsdp 4 x frame 2 = 8: make that a divisor of 4"),
        ({"data": 0}, "the mesh's data axis must have 1 device or more, got 0"),
        ({"frame": -1}, "the mesh's frame axis must have 1 device or more, got -1"),
    ],
)
def test_a_mesh_that_the_devices_do_not_make_is_refused(sizes, message):
    with pytest.raises(InputError, match=f"^{message}$"):
        make_mesh(**sizes, devices=jax.devices()[:1] * 4)


def test_fsdp_shards_the_largest_divisible_axis():
    run_on_virtual_devices(
        8,
        """
        import jax, jax.numpy as jnp
        from jax.sharding import PartitionSpec as P
        from stableanimator_jax.parallel import fsdp_shardings, make_mesh

        mesh = make_mesh(2, 4)
        shape = lambda *s: jax.ShapeDtypeStruct(s, jnp.bfloat16)
        params = {
            "kernel": shape(320, 1280),
            "conv": [shape(3, 3, 640, 320)],
            "not the largest": shape(512, 1001),
            "indivisible": shape(999, 1001),
            "small": shape(320),
            "scalar": shape(),
        }
        wanted = {
            "kernel": P(None, "fsdp"),
            "conv": [P(None, None, "fsdp")],
            "not the largest": P("fsdp"),
            "indivisible": P(),
            "small": P(),
            "scalar": P(),
        }
        found = jax.tree.map(lambda s: s.spec, fsdp_shardings(params, mesh))
        assert found == wanted, found
        assert fsdp_shardings(shape(320), mesh, smallest=1).spec == P("fsdp")
        assert fsdp_shardings(shape(320, 1280), make_mesh()).spec == P()
        """,
    )


def test_sharded_computation_equals_unsharded():
    """Parameters sharded by FSDP, rows by the batch: the same loss and gradients, and 1/8 of the memory each."""
    run_on_virtual_devices(
        8,
        """
        import jax, jax.numpy as jnp, numpy as np
        from stableanimator_jax.parallel import batch_sharding, fsdp_shardings, make_mesh, place_local_rows, replicated

        rng = np.random.default_rng(0)
        params = {"a": rng.standard_normal((64, 256)), "b": rng.standard_normal((256, 40)), "c": np.ones(40)}
        params = jax.tree.map(lambda x: jnp.asarray(x, jnp.float32), params)
        rows = {"x": rng.standard_normal((16, 64)).astype(np.float32)}

        def loss(p, batch):
            return jnp.mean(jnp.square(jnp.tanh(batch["x"] @ p["a"]) @ p["b"] + p["c"][None]))

        wanted = jax.value_and_grad(loss)(params, rows)

        mesh = make_mesh(fsdp=8)
        shardings = fsdp_shardings(params, mesh, smallest=1024)
        assert shardings["c"] == replicated(mesh)
        sharded = jax.device_put(params, shardings)
        assert sharded["a"].addressable_shards[0].data.shape == (64, 32)
        batch = place_local_rows(rows, mesh)
        assert batch["x"].sharding == batch_sharding(mesh) and batch["x"].addressable_shards[3].data.shape == (2, 64)
        np.testing.assert_array_equal(batch["x"], rows["x"])
        with jax.set_mesh(mesh):
            found = jax.jit(jax.value_and_grad(loss), out_shardings=(replicated(mesh), shardings))(sharded, batch)
        assert found[1]["a"].sharding == shardings["a"]
        jax.tree.map(lambda f, w: np.testing.assert_allclose(f, w, rtol=1e-5, atol=1e-6), found, wanted)
        """,
    )


def test_rows_are_spread_over_the_mesh_or_left_alone():
    run_on_virtual_devices(
        8,
        """
        import jax.numpy as jnp, numpy as np
        from stableanimator_jax.parallel import batch_sharding, make_mesh, shard_batch

        rows = {"x": jnp.arange(48.0).reshape(16, 3)}
        assert shard_batch(rows, None) is rows
        spread = shard_batch(rows, make_mesh())
        assert spread["x"].sharding == batch_sharding(make_mesh())
        np.testing.assert_array_equal(spread["x"], rows["x"])
        """,
    )


def test_a_batch_that_does_not_divide_is_refused():
    run_on_virtual_devices(
        8,
        """
        import numpy as np
        from stableanimator_jax.errors import InputError
        from stableanimator_jax.parallel import make_mesh, place_local_rows, shard_batch

        for place in (shard_batch, place_local_rows):
            try:
                place(np.zeros((12, 3)), make_mesh())
            except InputError as e:
                assert str(e) == "a batch of 12 cannot be spread over 8 devices: make it a multiple of 8", e
            else:
                raise AssertionError("placed 12 rows on 8 devices")
        """,
    )


def two_processes(devices: int, code: str) -> list[str]:
    """Run `code` in two processes that are one JAX cluster, each with its `number`. The last line that each printed."""
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        address = f"127.0.0.1:{probe.getsockname()[1]}"

    def process(number: int) -> str:
        start = f"import jax\nnumber = {number}\njax.distributed.initialize('{address}', 2, number)\n"
        return run_on_virtual_devices(devices, start + textwrap.dedent(code))

    with ThreadPoolExecutor() as pool:
        return [out.splitlines()[-1] for out in pool.map(process, range(2))]  # before it comes what Gloo prints


def test_two_processes_make_one_global_batch():
    """Each of two processes places its share of the rows; both see the sum over all of them.

    On a mesh whose frames reach over both processes, both have the same rows to read.
    """
    printed = two_processes(
        2,
        """
        import numpy as np
        from stableanimator_jax.parallel import batch_sharding, make_mesh, place_local_rows, row_share

        whole = np.arange(16, dtype=np.float32).reshape(8, 2)
        # Rows over all devices, over the processes alone, over the devices of each; and the last on one row each.
        for shape, share in (((4, 1, 1), (number, 2)), ((1, 2, 2), (number, 2)), ((1, 1, 4), (0, 1))):
            mesh = make_mesh(*shape)
            assert row_share(mesh) == share, (shape, row_share(mesh))
            host, hosts = share
            batch = place_local_rows(np.split(whole, hosts)[host], mesh)
            assert batch.shape == (8, 2) and batch.sharding == batch_sharding(mesh)
            for shard in batch.addressable_shards:
                np.testing.assert_array_equal(shard.data, whole[shard.index])
            print(jax.jit(lambda x: x.sum(0))(batch))
        """,
    )
    assert printed == ["[56. 64.]"] * 2


def test_unequal_shares_of_rows_are_refused():
    """Stand-ins for devices: processes of 4, with frames over 3, 6 and 8 of them."""
    devices = np.array([SimpleNamespace(process_index=n // 4) for n in range(24)])

    def mesh(*shape: int) -> Any:
        sizes = dict(zip(("data", "fsdp", "frame"), shape, strict=True))
        return SimpleNamespace(shape=sizes, devices=devices.reshape(shape))

    assert row_share(mesh(1, 3, 8)) == (0, 3)
    assert row_share(mesh(3, 1, 8)) == (0, 3)
    assert row_share(mesh(6, 2, 2)) == (0, 6)
    with pytest.raises(InputError, match="data 4 x fsdp 2 x frame 3 gives its 6 processes unequal shares"):
        row_share(mesh(4, 2, 3))
    with pytest.raises(InputError, match="data 2 x fsdp 2 x frame 6 gives its 6 processes unequal shares"):
        row_share(mesh(2, 2, 6))
