"""The drawn world's own trainers: that they minimise what they say, go on where they stopped, and begin as meant."""

import dataclasses
import json
from pathlib import Path

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from flax import nnx

from examples.drawn_world import vae as vae_training
from examples.drawn_world.arcface import MARGIN, SCALE, ArcFaceTraining, margin_loss
from examples.drawn_world.base import BaseConfig, assemble
from examples.drawn_world.fitting import FitConfig, fit
from examples.drawn_world.image_encoder import ImageEncoderTraining
from examples.drawn_world.model import CONFIG
from examples.drawn_world.vae import VAETraining
from stableanimator_jax.errors import InputError
from stableanimator_jax.models.layers import Precision
from stableanimator_jax.models.vae import VAE
from stableanimator_jax.weights.rules import dotted, flatten


def line_loss(params, statistics, batch, key):
    noise = 0.01 * jax.random.normal(key, batch["y"].shape)
    predicted = batch["x"] @ params["kernel"] + params["bias"].reshape(1, -1)
    loss = jnp.mean(jnp.square(predicted - batch["y"] + noise))
    return loss, ({"seen": statistics["seen"] + len(batch["x"])}, {"loss": loss})


def line_batch(random: np.random.Generator):
    x = random.standard_normal((16, 3)).astype(np.float32)
    return {"x": x, "y": (x @ np.array([[1.0], [-2.0], [0.5]]) + 0.3).astype(np.float32)}


START = {"kernel": jnp.zeros((3, 1)), "bias": jnp.zeros((1,))}


def read_curves(progress: Path):
    return [json.loads(line) for line in (progress / "metrics.jsonl").read_text().splitlines()]


@pytest.mark.parametrize(("optimizer", "rate"), [("adamw", 0.1), ("muon", 0.5)])
def test_a_stopped_run_goes_on_as_if_nothing_had_happened(tmp_path: Path, optimizer, rate: float):
    config = FitConfig(tmp_path / "whole", 60, 16, learning_rate=rate, optimizer=optimizer, weight_decay=0.0, every=20)
    whole = fit(config, START, {"seen": jnp.zeros(())}, line_loss, line_batch)
    drawn = 0

    def stops(random: np.random.Generator):
        nonlocal drawn
        drawn += 1
        if drawn == 47:
            raise KeyboardInterrupt
        return line_batch(random)

    stopped = dataclasses.replace(config, output=tmp_path / "stopped")
    with pytest.raises(KeyboardInterrupt):
        fit(stopped, START, {"seen": jnp.zeros(())}, line_loss, stops)
    went_on = fit(stopped, START, {"seen": jnp.zeros(())}, line_loss, line_batch)
    jax.tree.map(np.testing.assert_array_equal, went_on, whole)
    assert whole.statistics["seen"] == 60 * 16
    lines = read_curves(tmp_path / "whole.progress")
    assert [line["step"] for line in lines] == [20, 40, 60]
    assert [line["loss"] for line in read_curves(tmp_path / "stopped.progress")] == [line["loss"] for line in lines]
    assert lines[-1]["loss"] < 0.05 * lines[0]["loss"]
    # It is done: nothing is trained again.
    again = fit(config, START, {"seen": jnp.zeros(())}, line_loss, line_batch)
    jax.tree.map(np.testing.assert_array_equal, again.params, whole.params)


def test_a_run_cannot_go_on_as_another(tmp_path: Path):
    config = FitConfig(tmp_path / "run", 20, 16)
    fit(config, START, {"seen": jnp.zeros(())}, line_loss, line_batch)
    with pytest.raises(InputError, match="is of a run with --seed 0, not 1: give the same, another --output"):
        fit(dataclasses.replace(config, seed=1), START, {"seen": jnp.zeros(())}, line_loss, line_batch)


def test_an_output_that_is_something_else(tmp_path: Path):
    (tmp_path / "run").mkdir()
    (tmp_path / "run" / "letter.txt").write_text("mine")
    with pytest.raises(InputError, match="run"):
        fit(FitConfig(tmp_path / "run", 20, 16), START, {}, line_loss, line_batch)
    assert not (tmp_path / "run.progress").exists()


@pytest.mark.parametrize(
    ("make", "wrong", "told"),
    [
        (VAETraining, {"crop": 20}, "--crop must be a multiple of 8"),
        (VAETraining, {"crop": 128}, "--crop must be at most"),
        (VAETraining, {"steps": 0}, "--steps must be from 1"),
        (ArcFaceTraining, {"learning_rate": float("nan")}, "--learning-rate must be 0 or more"),
        (ArcFaceTraining, {"seed": -1}, "--seed must be from 0"),
        (ImageEncoderTraining, {"people": 8}, "--people must be at least the --batch"),
    ],
)
def test_settings_that_cannot_be(make, wrong, told):
    with pytest.raises(InputError, match=told):
        make(**wrong)


def test_a_loss_that_is_no_number(tmp_path: Path):
    def broken(params, statistics, batch, key):
        loss, rest = line_loss(params, statistics, batch, key)
        return loss * jnp.nan, (rest[0], {"loss": loss * jnp.nan})

    config = FitConfig(tmp_path / "run", 40, 16, every=40)
    with pytest.raises(InputError, match="step 20 the loss is not a number"):
        fit(config, START, {"seen": jnp.zeros(())}, broken, line_batch)


def test_margin_loss_is_arcfaces():
    random = np.random.default_rng(0)
    embeddings, centres = random.standard_normal((5, 8)), random.standard_normal((7, 8))
    labels = np.array([0, 3, 6, 3, 1])
    unit = [x / np.linalg.norm(x, axis=-1, keepdims=True) for x in (embeddings, centres)]
    cosines = unit[0] @ unit[1].T
    angles = np.arccos(cosines)
    assert (angles[np.arange(5), labels] + MARGIN < np.pi).all()
    logits = SCALE * cosines
    logits[np.arange(5), labels] = SCALE * np.cos(angles[np.arange(5), labels] + MARGIN)
    expected = np.mean(np.log(np.exp(logits).sum(-1)) - logits[np.arange(5), labels])
    arrays = [jnp.asarray(x, jnp.float32) for x in (embeddings, centres)]
    loss, accuracy = margin_loss(*arrays, jnp.asarray(labels, jnp.int32))
    np.testing.assert_allclose(loss, expected, rtol=1e-4)
    np.testing.assert_allclose(accuracy, (cosines.argmax(-1) == labels).mean())


@pytest.mark.slow
def test_the_vae_begins_without_mixing_frames():
    graphdef, params = nnx.split(VAE(CONFIG.vae, precision=Precision(), rngs=nnx.Rngs(0)), nnx.Param)
    begun = vae_training.begin(nnx.to_pure_dict(params))
    decode = jax.jit(lambda params, latents: nnx.merge(graphdef, params).decode(latents))
    latents = np.random.default_rng(0).standard_normal((1, 3, 2, 2, CONFIG.vae.latent_channels)).astype(np.float32)
    changed = latents.copy()
    changed[:, 1] += 1
    one, other = decode(begun, latents), decode(begun, changed)
    np.testing.assert_array_equal(one[:, [0, 2]], other[:, [0, 2]])
    assert np.abs(one[:, 1] - other[:, 1]).max() > 0.01
    bias = begun["quant_conv"]["bias"]
    assert (bias[: CONFIG.vae.latent_channels] == 0).all()
    assert (bias[CONFIG.vae.latent_channels :] == vae_training.FIRST_LOG_VARIANCE).all()


def test_parts_and_whole_chunks_of_people():
    chunks = vae_training.draw_chunks(np.array([3, 4]), np.random.default_rng(0), 64)
    assert chunks["frames"].shape == (2, 4, 64, 64, 3)
    assert chunks["faces"].shape == (2, 4, 64, 64)
    assert 0.05 < chunks["faces"].mean() < 0.3


@pytest.mark.slow
def test_the_base_is_what_training_begins_from(tmp_path: Path):
    from stableanimator_jax.models.catalogue import blueprint
    from stableanimator_jax.weights.checkpoint import describe, save_checkpoint, stream_params
    from tests.random_params import random_params

    scaled = dataclasses.replace(CONFIG, vae=dataclasses.replace(CONFIG.vae, scaling_factor=0.5))
    for name in ("arcface", "vae", "image_encoder"):
        params = random_params(blueprint(CONFIG, name).abstract_params(), seed=0)
        save_checkpoint(tmp_path / name, scaled if name == "vae" else CONFIG, {name: params})
    places = {name: tmp_path / name for name in ("arcface", "vae", "image_encoder")}
    assemble(BaseConfig(**places, output=tmp_path / "base"))
    description = describe(tmp_path / "base")
    assert description.config == scaled
    assert set(description.models) == {"arcface", "vae", "image_encoder", "unet"}
    unet = {name: np.asarray(array) for name, array in stream_params(tmp_path / "base", "unet")}
    assert unet.keys() == {dotted(path) for path in flatten(blueprint(CONFIG, "unet").abstract_params())}
    for name, array in unet.items():
        last = any(f".{part}." in f".{name}" for part in ("conv2", "proj_out", "conv_out"))
        if last or name.endswith("bias"):
            assert not array.any(), name
        elif name.endswith("kernel"):
            assert array.std() > 0, name


@pytest.mark.slow
def test_the_ablations_begin_with_new_face_tokens_in_a_trained_unet(tmp_path: Path):
    from stableanimator_jax.models.catalogue import blueprint
    from stableanimator_jax.weights.checkpoint import save_checkpoint, stream_params
    from tests.random_params import random_params

    names = ("arcface", "vae", "image_encoder", "unet", "pose_net", "face_encoder")
    params = {name: random_params(blueprint(CONFIG, name).abstract_params(), seed=3) for name in names}
    save_checkpoint(tmp_path / "run", CONFIG, params)
    parts = dict.fromkeys(("arcface", "vae", "image_encoder"), tmp_path / "run")
    assemble(BaseConfig(**parts, output=tmp_path / "first", seed=1))
    assemble(BaseConfig(**parts, output=tmp_path / "base", seed=1, animator=tmp_path / "run"))
    unets = {name: dict(stream_params(tmp_path / name, "unet")) for name in ("run", "first", "base")}
    assert unets["base"].keys() == unets["run"].keys()
    anew = {name for name in unets["base"] if "id_to_" in name}
    assert len(anew) == 2 * sum(name.endswith("attn2.id_to_k.kernel") for name in anew) > 0
    for name, array in unets["base"].items():
        np.testing.assert_array_equal(array, unets["first" if name in anew else "run"][name])
    held = {name: dict(stream_params(tmp_path / name, "pose_net")) for name in ("run", "base")}
    jax.tree.map(np.testing.assert_array_equal, held["base"], held["run"])
    with pytest.raises(InputError, match="face_encoder"):
        list(stream_params(tmp_path / "base", "face_encoder"))
    other = dataclasses.replace(CONFIG, unet=dataclasses.replace(CONFIG.unet, id_injection="none"))
    save_checkpoint(tmp_path / "other", other, params)
    with pytest.raises(InputError, match=r"the unet of .*other is not of the size"):
        assemble(BaseConfig(**parts, output=tmp_path / "base", animator=tmp_path / "other", overwrite=True))
    with pytest.raises(InputError, match=r"there is a checkpoint in .*base"):
        assemble(BaseConfig(**parts, output=tmp_path / "base", seed=1))


@pytest.mark.long
def test_what_ships_is_small_and_whole(tmp_path: Path, monkeypatch: pytest.MonkeyPatch):
    from examples.drawn_world.ship import ShipConfig, ship
    from stableanimator_jax.models.catalogue import blueprint
    from stableanimator_jax.weights.checkpoint import (
        STABLEANIMATOR,
        describe,
        save_checkpoint,
        stored_params,
        stream_params,
    )
    from tests.random_params import random_params

    params = {model: random_params(blueprint(CONFIG, model).abstract_params(), seed=0) for model in STABLEANIMATOR}
    save_checkpoint(tmp_path / "arcface", CONFIG, {"arcface": params.pop("arcface")})
    save_checkpoint(
        tmp_path / "weights", CONFIG, params, {"step": 7, "trained_from": "/somebody/base", "run": "/somebody/run"}
    )
    config = ShipConfig(tmp_path / "weights", tmp_path / "arcface", tmp_path / "shipped")
    ship(config)
    shipped = describe(config.output)
    assert shipped.config == CONFIG
    assert set(shipped.models) == set(STABLEANIMATOR)
    assert shipped.source == {"step": 7, "trained on": "drawn people"}
    assert sum(shipped.files.values()) < 20_000_000
    for model in STABLEANIMATOR:
        original = dict(stream_params(tmp_path / ("arcface" if model == "arcface" else "weights"), model))
        stored = stored_params(config.output, model)
        for name, array in stream_params(config.output, model):
            assert stored[name].dtype == (jnp.bfloat16 if array.ndim >= 2 else jnp.float32)
            np.testing.assert_allclose(array.astype(np.float32), original[name], rtol=2**-8, atol=0)
    before = describe(config.output)
    with pytest.raises(InputError, match="has no arcface"):
        ship(dataclasses.replace(config, arcface=tmp_path / "weights"))
    monkeypatch.setattr("examples.drawn_world.ship.MOST_BYTES", 1000)
    with pytest.raises(InputError, match=r"there is a checkpoint in .*shipped"):
        ship(config)
    with pytest.raises(InputError, match="more than"):
        ship(dataclasses.replace(config, overwrite=True))
    assert describe(config.output) == before
    assert {path.name for path in tmp_path.iterdir()} == {"arcface", "weights", "shipped"}
