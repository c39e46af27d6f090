"""Meshes and shardings, on 8 virtual CPU devices in processes of their own."""

import socket
from concurrent.futures import ThreadPoolExecutor

import jax
import pytest

from stableanimator_jax.errors import InputError
from stableanimator_jax.parallel import make_mesh
from tests.virtual_devices import run_on_virtual_devices


def test_mesh_takes_all_devices_or_the_first_few():
    run_on_virtual_devices(
        8,
        """
        import jax
        from jax.sharding import AxisType
        from stableanimator_jax.parallel import make_mesh

        assert make_mesh().shape == {"data": 8}
        assert make_mesh().axis_types == (AxisType.Auto,)
        assert set(make_mesh(2).devices.flat) == set(jax.devices()[:2])
        assert set(make_mesh(devices=jax.devices()[5:]).devices.flat) == set(jax.devices()[5:])
        """,
    )


@pytest.mark.parametrize("data", [0, -1, len(jax.devices()) + 1])
def test_a_mesh_of_more_devices_than_there_are_is_refused(data):
    with pytest.raises(InputError, match=f"cannot spread over {data} devices: there are {len(jax.devices())}"):
        make_mesh(data)


def test_fsdp_shards_the_largest_divisible_axis():
    run_on_virtual_devices(
        8,
        """
        import jax, jax.numpy as jnp
        from jax.sharding import PartitionSpec as P
        from stableanimator_jax.parallel import fsdp_shardings, make_mesh

        mesh = make_mesh()
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
            "kernel": P(None, "data"),
            "conv": [P(None, None, "data")],
            "not the largest": P("data"),
            "indivisible": P(),
            "small": P(),
            "scalar": P(),
        }
        found = jax.tree.map(lambda s: s.spec, fsdp_shardings(params, mesh))
        assert found == wanted, found
        assert fsdp_shardings(shape(320), mesh, smallest=1).spec == P("data")
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

        mesh = make_mesh()
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


def test_two_processes_make_one_global_batch():
    """Each of two processes places its own rows; both see the sum over all of them."""
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
            from stableanimator_jax.parallel import make_mesh, place_local_rows

            rows = np.arange(8, dtype=np.float32).reshape(4, 2) + 100 * {number}
            batch = place_local_rows(rows, make_mesh())
            assert batch.shape == (8, 2)
            print(jax.jit(lambda x: x.sum(0))(batch))
            """,
        )

    with ThreadPoolExecutor() as pool:
        found = list(pool.map(process, range(2)))
    assert [out.splitlines()[-1] for out in found] == ["[424. 432.]"] * 2  # after what Gloo prints
