"""The converter's engine on made-up tables: templates, transforms, strictness, streaming."""

import weakref
from collections.abc import Iterator, Mapping

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from stableanimator_jax.errors import InputError
from stableanimator_jax.weights.rules import (
    CONV2D,
    IDENTITY,
    LINEAR,
    TEMPORAL_CONV,
    Ignore,
    Rule,
    Table,
    WeightsError,
    flatten,
    plan_export,
    plan_import,
    stream,
    unflatten,
)
from stableanimator_jax.weights.tables import FLATTENED_LINEAR
from tests.weights.state_dicts import convert, export

TABLE = Table(
    "example",
    (
        Rule("{block}.{layer:to_q|to_k}.weight", "{block}.{layer}.kernel", LINEAR),
        Rule("{block}.net.0.weight", "{block}.proj.kernel", LINEAR),
        Rule("conv.weight", "conv.kernel", CONV2D),
        Rule("{name}.bias", "{name}.bias"),
        Ignore("{block}.steps", "a counter"),
    ),
)


def abstract(shapes: dict[str, tuple[int, ...]], dtype=jnp.float32) -> dict:
    """Nested ShapeDtypeStructs from dotted paths; numbers become integer keys, as in an `nnx.List`."""
    leaves = {
        tuple(int(part) if part.isdigit() else part for part in path.split(".")): jax.ShapeDtypeStruct(shape, dtype)
        for path, shape in shapes.items()
    }
    return unflatten(leaves)


MODEL = abstract({"blocks.0.to_q.kernel": (3, 5), "blocks.0.proj.kernel": (5, 2), "conv.kernel": (3, 3, 4, 6)})
SHAPES = {"blocks.0.to_q.weight": (5, 3), "blocks.0.net.0.weight": (2, 5), "conv.weight": (6, 4, 3, 3)}


def state_dict(shapes: Mapping[str, tuple[int, ...]] = SHAPES) -> dict[str, np.ndarray]:
    rng = np.random.default_rng(0)
    return {key: rng.standard_normal(shape, dtype=np.float32) for key, shape in shapes.items()}


@pytest.mark.parametrize(
    ("template", "key", "path"),
    [
        ("{i}.{layer:a|b}.weight", "12.b.weight", "b/12"),
        ("{i}.{layer:a|b}.weight", "x.b.weight", None),
        ("{i}.{layer:a|b}.weight", "12.ab.weight", None),
        ("{i}.{layer:a.b|c}.weight", "1.a.b.weight", "a.b/1"),
        ("{i}.{layer:a.b|c}.weight", "1.axb.weight", None),
    ],
)
def test_numbers_and_alternatives(template: str, key: str, path: str | None):
    rule = Rule(template, "{layer}/{i}")
    assert rule.to_target(key) == path
    if path is not None:
        assert rule.to_source(path) == key


def test_a_named_field_is_whole_parts_of_a_path():
    rule = Rule("{block}.norm.weight", "{block}.norm.scale")
    assert rule.to_target("a.0.b.norm.weight") == "a.0.b.norm.scale"
    assert rule.to_source("a.0.b.norm.scale") == "a.0.b.norm.weight"
    for other in ("norm.weight", ".norm.weight", "a..norm.weight", "a.xnorm.weight", "a.norm.weight.x"):
        assert rule.to_target(other) is None


def test_a_rule_that_could_not_be_inverted_is_refused():
    with pytest.raises(ValueError, match="same fields"):
        Rule("{block}.{i}.weight", "{block}.kernel")


sizes = st.integers(1, 5)


@given(o=sizes, i=sizes, h=sizes, w=sizes)
def test_transforms_are_undone_by_their_inverses_and_know_their_shapes(o: int, i: int, h: int, w: int):
    for transform, source, target in (
        (IDENTITY, (o,), (o,)),
        (IDENTITY, (), ()),
        (IDENTITY, (o, i), (o, i)),
        (LINEAR, (o, i), (i, o)),
        (CONV2D, (o, i, h, w), (h, w, i, o)),
        (TEMPORAL_CONV, (o, i, h, 1, 1), (h, i, o)),
        (FLATTENED_LINEAR, (o, i * 49), (i * 49, o)),
    ):
        array = np.arange(np.prod(source)).reshape(source)
        there = transform.forward(array)
        assert there.shape == target
        assert transform.inverse_shape(target) == source
        np.testing.assert_array_equal(transform.inverse(there), array)


def test_transforms_put_every_element_where_the_layer_expects_it():
    rng = np.random.default_rng(0)
    weight = rng.standard_normal((6, 4, 3, 2))
    assert CONV2D.forward(weight)[2, 1, 3, 5] == weight[5, 3, 2, 1]
    weight = rng.standard_normal((6, 4, 3, 1, 1))
    assert TEMPORAL_CONV.forward(weight)[2, 3, 5] == weight[5, 3, 2, 0, 0]
    weight = rng.standard_normal((6, 4))
    assert LINEAR.forward(weight)[3, 5] == weight[5, 3]


def test_the_flattened_layer_gives_the_same_output_in_either_order():
    rng = np.random.default_rng(0)
    features, weight = rng.standard_normal((4, 7, 7)), rng.standard_normal((5, 4 * 49))
    channels_last = np.moveaxis(features, 0, -1).reshape(-1)
    np.testing.assert_allclose(channels_last @ FLATTENED_LINEAR.forward(weight), weight @ features.reshape(-1))


def test_convert_lays_out_and_nests():
    weights = state_dict()
    params = convert(TABLE, weights, MODEL)
    assert jax.tree.structure(params) == jax.tree.structure(MODEL)
    np.testing.assert_array_equal(params["blocks"][0]["to_q"]["kernel"], weights["blocks.0.to_q.weight"].T)
    np.testing.assert_array_equal(params["blocks"][0]["proj"]["kernel"], weights["blocks.0.net.0.weight"].T)
    assert all(array.flags.c_contiguous for array in jax.tree.leaves(params))


def test_export_undoes_convert():
    weights = state_dict()
    back = export(TABLE, convert(TABLE, weights, MODEL))
    assert back.keys() == weights.keys()
    for key, array in weights.items():
        np.testing.assert_array_equal(back[key], array)
        assert back[key].flags.c_contiguous


def test_values_are_cast_to_each_parameters_own_dtype():
    model = {"a": {"bias": jax.ShapeDtypeStruct((4,), jnp.bfloat16)}, "b": {"bias": jax.ShapeDtypeStruct((4,), "f4")}}
    weights = state_dict({"a.bias": (4,), "b.bias": (4,)})
    weights["b.bias"] = weights["b.bias"].astype(np.float16)
    params = convert(TABLE, weights, model)
    assert params["a"]["bias"].dtype == jnp.bfloat16
    assert params["b"]["bias"].dtype == np.float32
    np.testing.assert_array_equal(params["a"]["bias"], weights["a.bias"].astype(jnp.bfloat16))
    assert export(TABLE, params)["a.bias"].dtype == jnp.bfloat16


def test_jax_arrays_export():
    params = jax.tree.map(jnp.asarray, convert(TABLE, state_dict(), MODEL))
    np.testing.assert_array_equal(export(TABLE, params)["conv.weight"], state_dict()["conv.weight"])


def test_converted_values_share_no_memory_with_their_source():
    weights = state_dict({"a.bias": (4,)})
    params = convert(TABLE, weights, abstract({"a.bias": (4,)}))
    assert not np.shares_memory(params["a"]["bias"], weights["a.bias"])
    assert not np.shares_memory(export(TABLE, params)["a.bias"], params["a"]["bias"])


def test_ignored_keys_are_left_out():
    plan = plan_import(TABLE, SHAPES | {"norm.steps": ()}, MODEL)
    assert [a.key for a in plan] == list(SHAPES)


def test_every_problem_is_reported_at_once():
    table = Table(
        "example", (*TABLE.rules, Rule("old.bias", "a.bias"), Rule("{name}.to_k.weight", "{name}.k.kernel", LINEAR))
    )
    shapes = SHAPES | {
        "surprise.weight": (7,),
        "blocks.9.to_q.weight": (5, 3),
        "a.bias": (4,),
        "old.bias": (4,),
        "blocks.0.to_k.weight": (5, 3),
        "conv.weight": (6, 4, 3, 5),
    }
    del shapes["blocks.0.net.0.weight"]
    model = abstract(
        {
            "blocks.0.to_q.kernel": (3, 5),
            "blocks.0.to_k.kernel": (3, 5),
            "blocks.0.proj.kernel": (5, 2),
            "conv.kernel": (3, 3, 4, 6),
            "a.bias": (4,),
        }
    )
    with pytest.raises(WeightsError) as caught:
        plan_import(table, shapes, model)
    assert caught.value.problems == {
        "unmapped": [
            "surprise.weight [7]: no rule has this name",
            "blocks.9.to_q.weight [5, 3]: the model has no blocks.9.to_q.kernel",
        ],
        "ambiguous": [
            "old.bias meets 2 rules: old.bias; a.bias",
            "blocks.0.to_k.weight meets 2 rules: blocks.0.to_k.kernel; blocks.0.k.kernel",
        ],
        "unfilled": ["blocks.0.proj.kernel [5, 2], from blocks.0.net.0.weight"],
        "wrong shape": ["conv.weight is [6, 4, 3, 5], the model takes [6, 4, 3, 3]"],
    }
    assert isinstance(caught.value, InputError)
    message = str(caught.value)
    assert message.startswith("the weights do not fit the model example: 2 unmapped, 2 ambiguous, 1 unfilled, 1 wrong")
    assert all(line in message for lines in caught.value.problems.values() for line in lines)


def test_two_keys_for_one_parameter_are_reported():
    table = Table("example", (Rule("new.weight", "x.kernel", LINEAR), Rule("old.weight", "x.kernel", LINEAR)))
    with pytest.raises(WeightsError) as caught:
        plan_import(table, {"new.weight": (2, 3), "old.weight": (2, 3)}, abstract({"x.kernel": (3, 2)}))
    assert caught.value.problems == {"doubly filled": ["x.kernel by new.weight and by old.weight"]}


def test_a_key_both_ruled_and_ignored_is_ambiguous():
    table = Table("example", (Rule("{name}.bias", "{name}.bias"), Ignore("a.bias", "a test")))
    with pytest.raises(WeightsError) as caught:
        plan_import(table, {"a.bias": (1,)}, {})
    assert caught.value.problems == {"ambiguous": ["a.bias meets 2 rules: a.bias; ignored, because a test"]}


def test_a_layout_that_cannot_apply_is_reported_by_both_directions():
    model = abstract({"conv.kernel": (3, 4, 6)})
    expected = {"wrong shape": ["conv.kernel is [3, 4, 6] in the model, but CONV2D lays out 'h w i o'"]}
    with pytest.raises(WeightsError) as caught:
        plan_import(TABLE, {"conv.weight": (6, 4, 3)}, model)
    assert caught.value.problems == expected
    with pytest.raises(WeightsError) as caught:
        plan_export(TABLE, model)
    assert caught.value.problems == expected


def test_export_is_strict_too():
    rules = (
        Rule("a.{name}.bias", "{name}.bias"),
        Rule("b.bias", "z.bias"),
        Rule("c.weight", "m"),
        Rule("c.weight", "n"),
    )
    model = abstract({"y.bias": (1,), "z.bias": (1,), "lost": (2, 3), "m": (1,), "n": (1,)})
    with pytest.raises(WeightsError) as caught:
        plan_export(Table("example", rules), model)
    assert caught.value.problems == {
        "unmapped": ["lost [2, 3]: no rule has this name"],
        "ambiguous": ["z.bias meets 2 rules: a.z.bias, b.bias"],
        "doubly filled": ["c.weight by m and by n"],
    }


def test_a_wholly_different_file_gives_a_readable_message():
    with pytest.raises(WeightsError) as caught:
        plan_import(TABLE, {f"other.{i}.weight": (1,) for i in range(1000)}, MODEL)
    assert len(caught.value.problems["unmapped"]) == 1000
    assert len(str(caught.value).splitlines()) == 1 + 20 + 1 + 3
    assert "unmapped: ... and 980 more" in str(caught.value)


class OneAtATime(Mapping[str, np.ndarray]):
    """Makes each tensor when asked, and refuses to while an earlier one is still alive."""

    def __init__(self):
        self.reads = 0
        self.alive: weakref.ref[np.ndarray] | None = None

    def __getitem__(self, key: str) -> np.ndarray:
        assert self.alive is None or self.alive() is None, "the tensor before is still held"
        array = np.ones(SHAPES[key], np.float32)
        self.reads += 1
        self.alive = weakref.ref(array)
        return array

    def __iter__(self) -> Iterator[str]:
        return iter(SHAPES)

    def __len__(self) -> int:
        return len(SHAPES)


def test_streaming_reads_each_tensor_once_and_holds_one():
    source = OneAtATime()
    plan = plan_import(TABLE, SHAPES, MODEL)
    assert source.reads == 0
    paths = []
    for path, array in stream(TABLE, plan, source):
        paths.append(path)
        assert array.shape == flatten(MODEL)[path].shape
        del array
    assert source.reads == len(SHAPES)
    assert sorted(paths, key=str) == sorted(flatten(MODEL), key=str)


def test_a_file_that_lies_about_a_shape_is_caught():
    # Transposed, this one would pass for another shape of the same rank.
    plan = plan_import(TABLE, SHAPES, MODEL)
    weights = state_dict()
    weights["blocks.0.to_q.weight"] = weights["blocks.0.to_q.weight"].T
    with pytest.raises(WeightsError, match=r"blocks.0.to_q.weight is \[3, 5\], its file said \[5, 3\]"):
        dict(stream(TABLE, plan, weights))


def test_quantised_weights_are_refused():
    weights = state_dict() | {"conv.weight": np.ones(SHAPES["conv.weight"], np.int8)}
    with pytest.raises(WeightsError, match=r"conv.weight is int8, not floating point"):
        convert(TABLE, weights, MODEL)


def test_flatten_and_unflatten_keep_integer_keys():
    tree = {"a": {0: {"b": 1}, 1: 2}, "c": 3}
    assert flatten(tree) == {("a", 0, "b"): 1, ("a", 1): 2, ("c",): 3}
    assert unflatten(flatten(tree)) == tree
