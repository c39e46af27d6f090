"""Reading collectives from a program's text: the forms that XLA writes for CPUs and TPUs."""

import pytest

from tests.hlo import Collective, collectives, table
from tests.virtual_devices import run_on_virtual_devices

# ruff: noqa: E501
PROGRAM = """\
HloModule jit_step, is_scheduled=true

%add (x: f32[], y: f32[]) -> f32[] {
  ROOT %sum = f32[] add(%x, %y)
}

%inner (p: (s32[], bf16[8,4])) -> (s32[], bf16[8,4]) {
  %send.1 = (bf16[8,4]{1,0}, bf16[8,4]{1,0}, u32[], u32[]) collective-permute-start(%a), source_target_pairs={{0,1},{1,0}}
  %send-done = bf16[8,4]{1,0} collective-permute-done(%send.1)
  ROOT %t = (s32[], bf16[8,4]) tuple(%i, %send-done)
}

%outer (p.1: (s32[])) -> (s32[]) {
  %exchange = (f32[2,5]{1,0}, f32[2,5]{1,0}, /*index=5*/f32[2,5]{1,0}) all-to-all(%a, %b, %c), replica_groups={{0,1,2},{3,4,5}}
  %while.1 = (s32[], bf16[8,4]) while(%tuple), condition=%c1, body=%inner, backend_config={"known_trip_count":{"n":"3"}}
  ROOT %u = (s32[]) tuple(%i)
}

%all-reduce-scatter.2 (p.2: f32[64]) -> f32[8] {
  %whole = f32[64]{0} all-reduce(%p.2), replica_groups=[2,8]<=[16], to_apply=%add
  ROOT %slice = f32[8]{0} dynamic-slice(%whole, %i), dynamic_slice_sizes={8}
}

%unused (p.3: f32[64]) -> f32[64] {
  ROOT %nothing = f32[64]{0} all-reduce(%p.3), replica_groups=[2,8]<=[16], to_apply=%add
}

ENTRY %main (p.4: f32[64]) -> f32[8] {
  %gather = (bf16[10,3]{1,0}, bf16[40,3]{1,0}) all-gather-start(%w), replica_groups=mesh['axis_0'=2,'axis_1'=8] {'axis_0', 'axis_1':(2)2}, dimensions={0}
  %gathered = bf16[40,3]{1,0} all-gather-done(%gather)
  %norm = (f32[], f32[6]{0}) all-reduce(%n, %m), replica_groups={}, to_apply=%add
  %scattered = f32[4]{0} reduce-scatter(%g), replica_groups=[4,4]<=[16], dimensions={0}, to_apply=%add
  %while.2 = (s32[]) while(%tuple.1), condition=%c2, body=%outer, backend_config={"known_trip_count":{"n":"5"}}
  ROOT %fusion = f32[8]{0} fusion(%p.4), kind=kCustom, calls=%all-reduce-scatter.2
}
"""


def test_kinds_bytes_groups_and_rounds():
    assert sorted(collectives(PROGRAM, 16)) == [
        Collective("all-gather", 40 * 3 * 2, 4, 1),
        Collective("all-reduce", 4 + 6 * 4, 16, 1),
        Collective("all-to-all", 3 * 2 * 5 * 4, 3, 5),
        Collective("collective-permute", 8 * 4 * 2, 2, 15),
        Collective("reduce-scatter", 4 * 4 * 4, 4, 1),
        Collective("reduce-scatter", 64 * 4, 8, 1),
    ]


def test_bytes_that_a_device_sends():
    rows = table(collectives(PROGRAM, 16))
    assert rows["all-gather"] == (1, pytest.approx(240 * 3 / 4))
    assert rows["all-reduce"] == (1, pytest.approx(2 * 28 * 15 / 16))
    assert rows["all-to-all"] == (5, pytest.approx(5 * 120 * 2 / 3))
    assert rows["collective-permute"] == (15, 15 * 64)
    assert rows["reduce-scatter"] == (2, pytest.approx(64 * 3 / 4 + 256 * 7 / 8))


def test_a_compiled_loop():
    run_on_virtual_devices(
        8,
        """
        import jax, jax.numpy as jnp
        from jax.sharding import NamedSharding, PartitionSpec as P
        from stableanimator_jax.parallel import make_mesh, spread, whole
        from tests.hlo import Collective, collectives

        def f(w, x):
            def body(x, _):
                x = spread(x).swapaxes(1, 2)
                return spread(x) @ whole(w), None
            return jax.lax.scan(body, x, length=6)[0]

        mesh = make_mesh(1, 2, 4)
        array = lambda shape, *spec: jax.ShapeDtypeStruct(shape, jnp.float32, sharding=NamedSharding(mesh, P(*spec)))
        with jax.set_mesh(mesh):
            compiled = jax.jit(f).lower(array((32, 32), "fsdp"), array((4, 8, 8, 32), "fsdp", "frame")).compile()
        found = collectives(compiled.as_text(), 8)
        assert Collective("all-gather", 32 * 32 * 4, 2, 1) in found, found  # once, before the loop
        exchanges = [one for one in found if one.kind == "all-to-all"]
        assert {one[1:3] for one in exchanges} == {(2 * 8 * 2 * 32 * 4, 4)}, found
        assert sum(one.times for one in exchanges) == 6, found
        """,
    )
