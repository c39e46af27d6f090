"""Every model's table against the published checkpoints' full lists of keys, both directions, nothing allocated."""

import dataclasses
import functools
from collections.abc import Iterator, Mapping

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from flax import nnx
from hypothesis import given, settings
from hypothesis import strategies as st

from stableanimator_jax.config import (
    ArcFaceConfig,
    ControlNetConfig,
    FaceEncoderConfig,
    ImageEncoderConfig,
    PoseNetConfig,
    StableAnimatorConfig,
    UNetConfig,
    VAEConfig,
)
from stableanimator_jax.models.arcface import ArcFace
from stableanimator_jax.models.control_net import ControlNet
from stableanimator_jax.models.face_encoder import FaceEncoder
from stableanimator_jax.models.image_encoder import ImageEncoder
from stableanimator_jax.models.layers import Precision
from stableanimator_jax.models.pose_net import PoseNet
from stableanimator_jax.models.unet import UNet
from stableanimator_jax.models.vae import VAE
from stableanimator_jax.weights.rules import Ignore, Rule, Table, WeightsError, flatten, plan_export, plan_import
from stableanimator_jax.weights.tables import add_id_adapter, tables
from tests.golden_data import manifest
from tests.weights.state_dicts import convert, export

MODELS = {
    "unet": UNet,
    "vae": VAE,
    "image_encoder": ImageEncoder,
    "face_encoder": FaceEncoder,
    "pose_net": PoseNet,
    "control_net": ControlNet,
    "arcface": ArcFace,
}
MANIFESTS = {
    "unet": "stableanimator_unet",
    "vae": "svd_vae",
    "image_encoder": "svd_image_encoder",
    "face_encoder": "face_encoder",
    "pose_net": "pose_net",
    "control_net": "controlnext",
    "arcface": "arcface_r100",
}
FULL_SIZE = StableAnimatorConfig()
TABLES = tables(FULL_SIZE)


class OneKey:
    """Stands in for `nnx.Rngs` where only shapes matter.

    Its traced counter makes `nnx.eval_shape` of a UNet take 17 s instead of 1 with jax 0.10: JAX searches the whole
    trace for the counter's origin whenever it is set.
    """

    def __init__(self):
        self.key = jax.random.key(0)

    def params(self) -> jax.Array:
        return self.key


def abstract_params(model: str, config, precision: Precision | None = None) -> dict:
    make = functools.partial(MODELS[model], config, precision=precision or Precision())
    return nnx.to_pure_dict(nnx.state(nnx.eval_shape(lambda: make(rngs=OneKey()))))


@functools.cache
def full_size(model: str) -> dict:
    return abstract_params(model, getattr(FULL_SIZE, model))


def expected_keys(model: str) -> dict[str, tuple[int, ...]]:
    """The published keys but for those that the table ignores."""
    return {key: shape for key, shape in manifest(MANIFESTS[model]).items() if not TABLES[model].ignored(key)}


@pytest.mark.parametrize("model", MODELS)
def test_every_published_key_fills_one_parameter_and_every_parameter_is_filled(model: str):
    plan = plan_import(TABLES[model], manifest(MANIFESTS[model]), full_size(model))
    assert {a.path for a in plan} == set(flatten(full_size(model)))
    assert {a.key: a.source_shape for a in plan} == expected_keys(model)


@pytest.mark.parametrize("model", MODELS)
def test_export_makes_the_published_keys_and_shapes(model: str):
    plan = plan_export(TABLES[model], full_size(model))
    assert {a.key: a.source_shape for a in plan} == expected_keys(model)


@pytest.mark.parametrize("model", MODELS)
def test_only_counters_are_ignored(model: str):
    ignored = set(manifest(MANIFESTS[model])) - set(expected_keys(model))
    assert all(key.endswith("num_batches_tracked") for key in ignored)


def test_full_size_parameter_counts():
    count = {model: sum(leaf.size for leaf in jax.tree.leaves(full_size(model))) for model in MODELS}
    assert round(count["unet"] / 1e9, 2) == 1.55
    assert round(count["face_encoder"] / 1e6) == 57
    assert round(count["control_net"] / 1e6, 2) == 3.53


@pytest.mark.parametrize("model", MODELS)
def test_no_rule_is_dead(model: str):
    keys = [*manifest(MANIFESTS[model]), "vision_model.embeddings.position_ids"]
    for rule in TABLES[model].rules:
        assert any(_applies(rule, key) for key in keys), rule


def _applies(rule: Rule | Ignore, key: str) -> bool:
    return rule.applies(key) if isinstance(rule, Ignore) else rule.to_target(key) is not None


@pytest.mark.parametrize("model", MODELS)
def test_dropped_added_misshapen_and_repeated_keys_are_all_reported_at_once(model: str):
    shapes = dict(manifest(MANIFESTS[model]))
    dropped, misshapen, repeated = list(expected_keys(model))[-3:]
    del shapes[dropped]
    shapes[misshapen] = (*shapes[misshapen], 3)
    shapes["extra.tensor"] = (1, 2)
    table = TABLES[model]
    (repeated_path, _), (dropped_path, _) = (table.targets(key)[0] for key in (repeated, dropped))
    twice = Table(model, (*table.rules, Rule("again", repeated_path)))
    shapes["again"] = shapes[repeated]
    with pytest.raises(WeightsError) as caught:
        plan_import(twice, shapes, full_size(model))
    problems = caught.value.problems
    assert problems.keys() == {"unmapped", "doubly filled", "unfilled", "wrong shape"}
    assert problems["unmapped"] == ["extra.tensor [1, 2]: no rule has this name"]
    assert problems["doubly filled"] == [f"{repeated_path} by {repeated} and by again"]
    assert len(problems["unfilled"]) == 1
    assert problems["unfilled"][0].startswith(f"{dropped_path} [")
    assert problems["unfilled"][0].endswith(f"from {dropped}")
    given, wanted = list(shapes[misshapen]), list(shapes[misshapen][:-1])
    assert problems["wrong shape"] == [f"{misshapen} is {given}, the model takes {wanted}"]
    assert str(caught.value).startswith(f"the weights do not fit the model {model}: ")


def test_svd_lacks_the_id_adapter_and_nothing_else():
    with pytest.raises(WeightsError) as caught:
        plan_import(TABLES["unet"], manifest("svd_unet"), full_size("unet"))
    assert caught.value.problems.keys() == {"unfilled"}
    assert len(caught.value.problems["unfilled"]) == 32
    assert all(".id_to_" in line for line in caught.value.problems["unfilled"])


def test_svd_with_an_added_id_adapter_has_exactly_the_published_keys():
    adapted = add_id_adapter(manifest("svd_unet"))
    assert dict(adapted) == manifest("stableanimator_unet")
    assert len(adapted) == len(manifest("stableanimator_unet"))
    plan_import(TABLES["unet"], adapted, full_size("unet"))


class Counting(Mapping[str, int]):
    """A state dict that says which tensors were read."""

    def __init__(self, keys: list[str]):
        self.keys_ = keys
        self.reads: list[str] = []

    def __getitem__(self, key: str) -> int:
        self.reads.append(key)
        return self.keys_.index(key)

    def __iter__(self) -> Iterator[str]:
        return iter(self.keys_)

    def __len__(self) -> int:
        return len(self.keys_)


def test_the_added_id_adapter_copies_the_spatial_cross_attention_and_reads_lazily():
    source = Counting(list(manifest("svd_unet")))
    adapted = add_id_adapter(source)
    assert source.reads == []
    block = "mid_block.attentions.0.transformer_blocks.0.attn2"
    assert adapted[f"{block}.processor.id_to_k.weight"] == adapted[f"{block}.to_k.weight"]
    assert adapted[f"{block}.processor.id_to_v.weight"] == adapted[f"{block}.to_v.weight"]
    assert source.reads == [f"{block}.to_{x}.weight" for x in "kkvv"]
    assert not any("temporal" in key and "processor" in key for key in adapted)


def test_an_id_adapter_is_not_added_twice():
    with pytest.raises(WeightsError, match="have an ID adapter"):
        add_id_adapter(manifest("stableanimator_unet"))


def test_without_refinement_the_fusion_is_ignored():
    config = dataclasses.replace(FULL_SIZE, face_encoder=FaceEncoderConfig(refine=False))
    table = tables(config)["face_encoder"]
    model = abstract_params("face_encoder", config.face_encoder)
    plan = plan_import(table, manifest("face_encoder"), model)
    assert sorted(a.key for a in plan) == [
        "norm.bias", "norm.weight", "proj.0.bias", "proj.0.weight", "proj.2.bias", "proj.2.weight",
    ]  # fmt: skip
    assert plan_export(table, model)


def test_plain_addition_has_the_same_weights():
    aligned = StableAnimatorConfig.tiny().unet
    added = dataclasses.replace(aligned, id_injection="addition")
    assert plan_export(TABLES["unet"], abstract_params("unet", added)) == plan_export(
        TABLES["unet"], abstract_params("unet", aligned)
    )


def test_bfloat16_models_keep_their_norms_in_float32():
    precision = Precision(compute=jnp.bfloat16, params=jnp.bfloat16)
    model = abstract_params("unet", StableAnimatorConfig.tiny().unet, precision)
    dtypes = {(a.path[-1], a.dtype.name) for a in plan_export(TABLES["unet"], model)}
    assert {("kernel", "bfloat16"), ("scale", "float32"), ("mix_factor", "float32")} <= dtypes
    assert ("scale", "bfloat16") not in dtypes


# Small configurations, drawn at random, with real arrays.
heads = st.sampled_from([1, 2, 4])
width = st.sampled_from([32, 64])
SMALL = {
    "unet": st.builds(
        lambda widths, heads, layers, context, injection: UNetConfig(
            block_out_channels=widths,
            num_attention_heads=tuple(heads for _ in widths),
            layers_per_block=layers,
            cross_attention_dim=context,
            addition_time_embed_dim=8,
            projection_class_embeddings_input_dim=24,
            id_injection=injection,
        ),
        st.lists(width, min_size=2, max_size=3).map(tuple),
        heads,
        st.integers(1, 2),
        st.sampled_from([24, 64]),
        st.sampled_from(["distribution_aware", "addition"]),
    ),
    "vae": st.builds(
        VAEConfig,
        block_out_channels=st.lists(width, min_size=2, max_size=4).map(tuple),
        layers_per_block=st.integers(1, 2),
        latent_channels=st.integers(3, 4),
    ),
    "image_encoder": st.builds(
        ImageEncoderConfig,
        hidden_size=width,
        intermediate_size=st.sampled_from([40, 48]),
        num_hidden_layers=st.integers(1, 3),
        num_attention_heads=heads,
        image_size=st.just(28),
        patch_size=st.sampled_from([7, 14]),
        projection_dim=st.sampled_from([16, 24]),
    ),
    "face_encoder": st.builds(
        FaceEncoderConfig,
        cross_attention_dim=st.sampled_from([64, 128]),
        id_embedding_dim=st.sampled_from([16, 24]),
        image_embedding_dim=st.sampled_from([24, 32]),
        num_tokens=st.integers(1, 4),
        depth=st.integers(1, 3),
        refine=st.booleans(),
    ),
    "pose_net": st.builds(PoseNetConfig, out_channels=st.sampled_from([8, 40])),
    "control_net": st.builds(ControlNetConfig, out_channels=st.sampled_from([8, 40])),
    "arcface": st.builds(
        ArcFaceConfig,
        layers=st.tuples(*[st.integers(1, 2)] * 4),
        widths=st.tuples(*[st.sampled_from([4, 6])] * 4),
        embedding_dim=st.sampled_from([8, 16]),
    ),
}


@pytest.mark.parametrize("model", MODELS)
def test_small_models_convert_and_export_bit_for_bit(model: str):
    @settings(max_examples=4, deadline=None, derandomize=True, database=None)
    @given(config=SMALL[model], seed=st.integers(0, 2**32 - 1))
    def check(config, seed: int):
        abstract = abstract_params(model, config)
        unrefined = isinstance(config, FaceEncoderConfig) and not config.refine
        every = tables(dataclasses.replace(FULL_SIZE, face_encoder=FaceEncoderConfig(refine=not unrefined)))
        table = (TABLES | every)[model]
        rng = np.random.default_rng(seed)

        weights = {a.key: rng.standard_normal(a.source_shape).astype(np.float32) for a in plan_export(table, abstract)}
        params = convert(table, weights, abstract)
        assert jax.tree.map(np.shape, params) == jax.tree.map(lambda leaf: leaf.shape, abstract)
        _assert_same(export(table, params), weights)

        params = jax.tree.map(lambda leaf: rng.standard_normal(leaf.shape).astype(leaf.dtype), abstract)
        _assert_same(flatten(convert(table, export(table, params), abstract)), flatten(params))

    check()


def _assert_same(actual: Mapping, expected: Mapping) -> None:
    assert actual.keys() == expected.keys()
    for key, array in expected.items():
        np.testing.assert_array_equal(actual[key], array, strict=True)
