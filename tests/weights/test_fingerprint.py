"""Fingerprints tell models apart by values and configuration, not by how they are stored."""

import dataclasses

import jax
import ml_dtypes
import numpy as np
import pytest

from stableanimator_jax.config import StableAnimatorConfig, VAEConfig
from stableanimator_jax.errors import InputError
from stableanimator_jax.models.catalogue import blueprint
from stableanimator_jax.weights.checkpoint import save_checkpoint
from stableanimator_jax.weights.fingerprint import fingerprint
from tests.random_params import random_params

CONFIG = StableAnimatorConfig.tiny()


@pytest.fixture(scope="module")
def params():
    return random_params(blueprint(CONFIG, "vae").abstract_params(), seed=0)


def saved(path, params, config=CONFIG) -> str:
    save_checkpoint(path, config, {"vae": params})
    return fingerprint(str(path), "vae")


def test_a_saved_model_has_the_fingerprint_of_its_values(tmp_path, params):
    whole = saved(tmp_path / "a", params)
    rounded = jax.tree.map(lambda x: x.astype(ml_dtypes.bfloat16), params)
    short = saved(tmp_path / "b", rounded)
    assert short != whole
    assert short == saved(tmp_path / "c", jax.tree.map(lambda x: x.astype(np.float32), rounded))


def test_one_value_or_setting_makes_another(tmp_path, params):
    changed = jax.tree.map(np.copy, params)
    changed["encoder"]["conv_in"]["bias"][3] += 1e-6
    settings = dataclasses.replace(CONFIG, vae=dataclasses.replace(CONFIG.vae, scaling_factor=0.2))
    assert isinstance(settings.vae, VAEConfig)
    found = {
        saved(tmp_path / "a", changed),
        saved(tmp_path / "b", params, settings),
        saved(tmp_path / "c", params),
    }
    assert len(found) == 3


def test_a_model_that_is_not_there_is_told(tmp_path, params):
    saved(tmp_path / "a", params)
    with pytest.raises(InputError, match="has no image_encoder"):
        fingerprint(str(tmp_path / "a"), "image_encoder")
