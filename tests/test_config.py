"""Model configurations from plain data: what no model can be made of is refused, by name."""

import json

import pytest

from stableanimator_jax.config import StableAnimatorConfig, checked, read_json
from stableanimator_jax.errors import InputError


def test_there_and_back_through_json():
    config = StableAnimatorConfig.tiny()
    assert StableAnimatorConfig.from_dict(json.loads(json.dumps(config.to_dict()))) == config
    assert checked(config) == config


@pytest.mark.parametrize(
    ("part", "field", "value"),
    [
        ("unet", "num_attention_heads", [2, 0, 4, 4]),
        ("unet", "layers_per_block", 0),
        ("vae", "block_out_channels", [32, -32, 64, 64]),
        ("image_encoder", "num_attention_heads", 0),
        ("image_encoder", "patch_size", 0),
        ("face_encoder", "head_dim", 0),
        ("face_encoder", "num_tokens", -1),
        ("pose_net", "out_channels", 10**30),
        ("unet", "layers_per_block", 1_000_000),
        ("vae", "layers_per_block", 1_000_000),
        ("image_encoder", "num_hidden_layers", 1_000_000),
        ("face_encoder", "depth", 1_000_000),
        ("arcface", "layers", [1, 1_000_000, 2, 1]),
        ("arcface", "layers", [1, 0, 2, 1]),
    ],
)
def test_sizes_that_cannot_be(part, field, value):
    with pytest.raises(InputError, match=rf"Config: {field} must be from 1 to "):
        StableAnimatorConfig.from_dict({part: {field: value}})


def test_a_million_levels():
    levels = {"block_out_channels": [32] * 1_000_000, "num_attention_heads": [1] * 1_000_000}
    with pytest.raises(InputError, match=r"block_out_channels has 1000000 levels, the most are 8$"):
        StableAnimatorConfig.from_dict({"unet": levels})


@pytest.mark.parametrize("value", [10**400, float("inf"), float("nan"), "1", True])
def test_numbers_that_no_float_can_hold(value):
    with pytest.raises(InputError, match=r"^vae\.scaling_factor: expected"):
        StableAnimatorConfig.from_dict({"vae": {"scaling_factor": value}})


@pytest.mark.parametrize("text", ["[" * 100_000, "9" * 5000, "{", "\0"])
def test_files_that_are_not_json(tmp_path, text):
    file = tmp_path / "a.json"
    file.write_text(text)
    with pytest.raises(InputError, match=r"a\.json is not a JSON file"):
        read_json(file)
