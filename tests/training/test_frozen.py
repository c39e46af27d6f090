"""What is not trained: a change of it is noticed, and it comes out of a run as it went in."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from stableanimator_jax.parallel import make_mesh
from stableanimator_jax.training.config import TrainableConfig, TrainConfig
from stableanimator_jax.training.export import Export
from stableanimator_jax.training.state import frozen_digest, load, training_blueprints
from stableanimator_jax.training.trainable import TRAINED_MODELS
from stableanimator_jax.weights.checkpoint import STABLEANIMATOR, save_checkpoint, stream_params
from stableanimator_jax.weights.opening import open_checkpoint
from stableanimator_jax.weights.rules import dotted
from tests.scripts.train_script import finish_together, start_together
from tests.training.drawn_clips import write_drawn_dataset
from tests.training.mini_model import MINI, mini_params, save_mini_model

LARGE = (3, 256, 128)  # more elements than are ever left whole on every device


def digest(array: np.ndarray, dtype=np.float32) -> str:
    bias = jnp.ones((4,), jnp.float32)
    return frozen_digest({"unet": {"kernel": jnp.asarray(array).astype(dtype), "bias": bias}, "vae": {"scale": bias}})


def test_one_other_element_of_a_large_array_is_another_digest():
    array = np.random.default_rng(0).standard_normal(LARGE, np.float32)
    digests = {digest(array)}
    for place in [(0, 0, 0), (2, 255, 127), (1, 100, 3), (1, 3, 100)]:
        other = array.copy()
        other[place] *= 1.01
        digests.add(digest(other))
    other = array.copy()
    other[1, 7], other[2, 9] = array[2, 9], array[1, 7]
    digests.add(digest(other))
    digests.add(digest(array.reshape(256, 3, 128)))
    digests.add(digest(array + 1e-3 * np.random.default_rng(1).standard_normal(LARGE, np.float32)))
    assert len(digests) == 8


def test_dtype_and_sharding_make_no_other_digest():
    array = np.random.default_rng(0).standard_normal(LARGE, np.float32)
    assert digest(array, jnp.bfloat16) == digest(array)
    names = frozen_digest({"unet": {"bias": jnp.ones(4), "kernel": jnp.asarray(array)}, "vae": {"scale": jnp.ones(4)}})
    assert names == digest(array)


@pytest.fixture(scope="module")
def source(tmp_path_factory):
    return save_mini_model(tmp_path_factory.mktemp("frozen") / "mini")


def exported(source, kind, dtype, tmp_path, change=0.0):
    """The checkpoint of a run that computes in `dtype`, its trained parameters all changed by so much."""
    checkpoint, trainable = open_checkpoint(str(source)), TrainableConfig(kind, lora_rank=2)
    blueprints = training_blueprints(MINI, dtype, arcface=True)
    trained, frozen, _ = load(checkpoint, blueprints, TrainConfig(trainable=trainable), make_mesh())
    export = Export(checkpoint, blueprints, frozen, trainable)
    save_checkpoint(tmp_path, MINI, export.models(jax.tree.map(lambda leaf: leaf + change, trained)))
    return trained, {name: dict(stream_params(tmp_path, name)) for name in STABLEANIMATOR}


@pytest.mark.long
@pytest.mark.parametrize("kind", ["adapters", pytest.param("attentions", marks=pytest.mark.slow), "lora"])
def test_a_bfloat16_run_leaves_what_it_does_not_train_as_it_was(source, kind, tmp_path):
    before = {name: dict(stream_params(source, name)) for name in STABLEANIMATOR}
    trained, after = exported(source, kind, "bfloat16", tmp_path / "out", change=0.25)
    for model in STABLEANIMATOR:
        assert before[model].keys() == after[model].keys()
        mine = {name.removesuffix(".lora_a").removesuffix(".lora_b") for name in trained.get(model, {})}
        assert bool(mine) == (model in TRAINED_MODELS)
        for name, array in after[model].items():
            assert array.dtype == np.float32
            assert np.array_equal(array, before[model][name]) == (name not in mine), name
    if kind == "lora":  # a change of (a + 1/4) (b + 1/4), added to the kernel itself and not to its rounding
        name = "mid_block.attentions.0.transformer_blocks.0.attn1.to_q.kernel"
        a, b = (np.asarray(trained["unet"][f"{name}.lora_{x}"], np.float64) + 0.25 for x in "ab")
        np.testing.assert_allclose(after["unet"][name], before["unet"][name] + 16 * a @ b, rtol=1e-6, atol=1e-6)


@pytest.mark.long
def test_a_float32_run_of_bfloat16_weights_leaves_those_as_they_were(tmp_path):
    params = {name: jax.tree.map(lambda leaf: leaf.astype(jnp.bfloat16), mini_params(name)) for name in STABLEANIMATOR}
    save_checkpoint(tmp_path / "mini", MINI, params)
    trained, after = exported(tmp_path / "mini", "attentions", "float32", tmp_path / "out")
    for model in STABLEANIMATOR:
        for name, array in stream_params(tmp_path / "mini", model):
            assert after[model][name].dtype == (np.float32 if name in trained.get(model, {}) else jnp.bfloat16)
            np.testing.assert_array_equal(after[model][name].astype(np.float32), array.astype(np.float32))


def test_a_source_that_is_no_longer_there_costs_its_last_bits_and_not_the_run(tmp_path, capsys):
    source = save_mini_model(tmp_path / "mini")
    checkpoint, trainable = open_checkpoint(str(source)), TrainableConfig()
    blueprints = training_blueprints(MINI, "bfloat16", arcface=True)
    trained, frozen, _ = load(checkpoint, blueprints, TrainConfig(trainable=trainable), make_mesh())
    export = Export(checkpoint, blueprints, frozen, trainable)
    source.rename(tmp_path / "moved")
    models = {model: {dotted(path): leaf for path, leaf in pairs} for model, pairs in export.models(trained).items()}
    assert capsys.readouterr().err.startswith(f"warning: {source} is not as it was when the run began")
    assert models["image_encoder"].keys() == frozen["image_encoder"].keys()
    assert models["unet"]["conv_in.kernel"].dtype == jnp.bfloat16


@pytest.mark.slow
def test_two_processes_leave_what_they_do_not_train_as_it_was(tmp_path):
    source = save_mini_model(tmp_path / "mini")
    write_drawn_dataset(tmp_path / "data")
    flags = ("--init-from", "mini", "--data.dataset", "data", "--validation.every", "0", "--steps", "1")
    bfloat16 = ("--trainable.unet", "lora", "--dtype", "bfloat16", "--mesh.fsdp", "2", "--output", "out")
    finish_together(start_together(tmp_path, 2, 1, *flags, *bfloat16))
    for model in ("unet", "image_encoder", "vae", "arcface"):
        after = dict(stream_params(tmp_path / "out/checkpoints/1/weights", model))
        for name, array in stream_params(source, model):
            if ".attentions." not in name:
                np.testing.assert_array_equal(after[name], array, err_msg=name)
