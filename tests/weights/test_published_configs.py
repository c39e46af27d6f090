import json
from typing import Any

import pytest

from stableanimator_jax.config import ImageEncoderConfig, UNetConfig, VAEConfig
from stableanimator_jax.errors import InputError
from stableanimator_jax.weights.published_configs import read_published_config

# What Stable Video Diffusion's own files say.
UNET = {
    "_class_name": "UNetSpatioTemporalConditionModel",
    "_diffusers_version": "0.24.0.dev0",
    "_name_or_path": "svd/unet",
    "addition_time_embed_dim": 256,
    "block_out_channels": [320, 640, 1280, 1280],
    "cross_attention_dim": 1024,
    "down_block_types": [*["CrossAttnDownBlockSpatioTemporal"] * 3, "DownBlockSpatioTemporal"],
    "in_channels": 8,
    "layers_per_block": 2,
    "num_attention_heads": [5, 10, 20, 20],
    "num_frames": 25,
    "out_channels": 4,
    "projection_class_embeddings_input_dim": 768,
    "sample_size": 96,
    "transformer_layers_per_block": 1,
    "up_block_types": ["UpBlockSpatioTemporal", *["CrossAttnUpBlockSpatioTemporal"] * 3],
}
VAE = {
    "_class_name": "AutoencoderKLTemporalDecoder",
    "_diffusers_version": "0.24.0.dev0",
    "_name_or_path": "svd/vae",
    "block_out_channels": [128, 256, 512, 512],
    "down_block_types": ["DownEncoderBlock2D"] * 4,
    "force_upcast": True,
    "in_channels": 3,
    "latent_channels": 4,
    "layers_per_block": 2,
    "out_channels": 3,
    "sample_size": 768,
    "scaling_factor": 0.18215,
}
IMAGE_ENCODER = {
    "_name_or_path": "svd/image_encoder",
    "architectures": ["CLIPVisionModelWithProjection"],
    "attention_dropout": 0.0,
    "dropout": 0.0,
    "hidden_act": "gelu",
    "hidden_size": 1280,
    "image_size": 224,
    "initializer_factor": 1.0,
    "initializer_range": 0.02,
    "intermediate_size": 5120,
    "layer_norm_eps": 1e-05,
    "model_type": "clip_vision_model",
    "num_attention_heads": 16,
    "num_channels": 3,
    "num_hidden_layers": 32,
    "patch_size": 14,
    "projection_dim": 1024,
    "torch_dtype": "float16",
    "transformers_version": "4.34.0.dev0",
}
PUBLISHED: dict[str, dict] = {"unet": UNET, "vae": VAE, "image_encoder": IMAGE_ENCODER}
CONFIGS: dict[str, Any] = {"unet": UNetConfig, "vae": VAEConfig, "image_encoder": ImageEncoderConfig}


@pytest.fixture
def read(tmp_path):
    def read(kind: str, **changes):
        path = tmp_path / "config.json"
        fields = {name: value for name, value in (PUBLISHED[kind] | changes).items() if value is not ...}
        path.write_text(json.dumps(fields))
        return read_published_config(path, CONFIGS[kind])

    return read


def test_the_published_files_are_our_defaults(read):
    assert read("unet") == UNetConfig()
    assert read("vae") == VAEConfig()
    assert read("image_encoder") == ImageEncoderConfig()


def test_lists_of_equal_values_and_single_numbers(read):
    config = read("unet", layers_per_block=[3] * 4, cross_attention_dim=[64] * 4, num_attention_heads=8)
    assert (config.layers_per_block, config.cross_attention_dim) == (3, 64)
    assert config.num_attention_heads == (8, 8, 8, 8)
    assert read("unet", transformer_layers_per_block=[1] * 4) == UNetConfig()


def test_other_depths(read):
    config = read(
        "unet",
        block_out_channels=[32, 64],
        num_attention_heads=[2, 4],
        down_block_types=["CrossAttnDownBlockSpatioTemporal", "DownBlockSpatioTemporal"],
        up_block_types=["UpBlockSpatioTemporal", "CrossAttnUpBlockSpatioTemporal"],
    )
    assert config.block_out_channels == (32, 64)
    assert read("vae", block_out_channels=[32], down_block_types=["DownEncoderBlock2D"]).downscale == 1


def test_missing_fields_have_the_libraries_defaults(read):
    assert read("unet", num_frames=..., layers_per_block=...) == UNetConfig()
    # diffusers' own defaults, which are not SVD's
    assert read("vae", layers_per_block=...).layers_per_block == 1
    assert read("image_encoder", hidden_act=...).hidden_act == "quick_gelu"
    assert read("image_encoder", architectures=...) == ImageEncoderConfig()


@pytest.mark.parametrize(
    ("kind", "changes", "names"),
    [
        ("unet", {"_class_name": "UNet2DConditionModel"}, "_class_name is 'UNet2DConditionModel'"),
        ("unet", {"_class_name": ...}, "_class_name is missing"),
        ("unet", {"down_block_types": ["DownBlockSpatioTemporal"] * 4}, "down_block_types"),
        ("unet", {"up_block_types": UNET["up_block_types"][::-1]}, "up_block_types"),
        ("unet", {"transformer_layers_per_block": 2}, "transformer_layers_per_block is 2"),
        ("unet", {"transformer_layers_per_block": [1, 1, 1, 2]}, "transformer_layers_per_block"),
        ("unet", {"layers_per_block": [2, 2, 2, 1]}, "layers_per_block is [2, 2, 2, 1]"),
        ("unet", {"layers_per_block": [2]}, "layers_per_block is [2]"),
        ("unet", {"cross_attention_dim": [1024, 1024, 512, 1024]}, "cross_attention_dim"),
        ("unet", {"block_out_channels": 320}, "block_out_channels is 320"),
        ("unet", {"block_out_channels": []}, "block_out_channels is []"),
        ("unet", {"block_out_channels": [320, 640, 1280, 1281]}, "1281"),
        ("unet", {"in_channels": "8"}, "in_channels"),
        ("unet", {"in_channels": None}, "in_channels"),
        ("unet", {"num_attention_heads": [5, 10, 20]}, "num_attention_heads (5, 10, 20)"),
        ("unet", {"projection_class_embeddings_input_dim": 512}, "projection_class_embeddings_input_dim"),
        ("unet", {"time_cond_proj_dim": 256}, "time_cond_proj_dim is 256"),
        ("vae", {"_class_name": "AutoencoderKL"}, "_class_name is 'AutoencoderKL'"),
        ("vae", {"down_block_types": ["AttnDownEncoderBlock2D"] * 4}, "AttnDownEncoderBlock2D"),
        ("vae", {"scaling_factor": -1.0}, "scaling_factor"),
        ("vae", {"shift_factor": 0.1}, "shift_factor is 0.1"),
        ("image_encoder", {"model_type": "clip"}, "model_type is 'clip'"),
        ("image_encoder", {"model_type": ...}, "model_type is missing"),
        ("image_encoder", {"architectures": ["CLIPVisionModel"]}, "architectures is ['CLIPVisionModel']"),
        ("image_encoder", {"hidden_act": "relu"}, "hidden_act is 'relu'"),
        ("image_encoder", {"num_channels": 4}, "num_channels is 4"),
        ("image_encoder", {"hidden_size": "wide"}, "hidden_size"),
        ("image_encoder", {"num_attention_heads": 15}, "1280"),
        ("image_encoder", {"image_size": [224, 224]}, "image_size"),
        ("image_encoder", {"patch_size": 15}, "patch_size 15"),
    ],
)
def test_unsupported_values_are_refused_by_name(read, tmp_path, kind, changes, names):
    with pytest.raises(InputError) as caught:
        read(kind, **changes)
    message = str(caught.value)
    assert names in message
    assert str(tmp_path / "config.json") in message
    assert "\n" not in message


def test_an_unknown_field_that_is_null_changes_nothing(read):
    assert read("vae", shift_factor=None) == VAEConfig()


@pytest.mark.parametrize("text", ["", "[1, 2]", '{"_class_name": ', "3"])
@pytest.mark.parametrize("kind", PUBLISHED)
def test_what_is_not_a_configuration(tmp_path, kind, text):
    (tmp_path / "config.json").write_text(text)
    with pytest.raises(InputError, match=r"config\.json"):
        read_published_config(tmp_path / "config.json", CONFIGS[kind])


def test_a_missing_file(tmp_path):
    with pytest.raises(InputError, match=r"nowhere\.json"):
        read_published_config(tmp_path / "nowhere.json", UNetConfig)
