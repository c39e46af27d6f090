"""The `config.json` files of SVD's folder, of diffusers and transformers: read as this project's configurations, and
written for them."""

import dataclasses
import os
from collections.abc import Callable
from pathlib import Path
from typing import Any, TypeVar

from stableanimator_jax.config import (
    ImageEncoderConfig,
    StableAnimatorConfig,
    UNetConfig,
    VAEConfig,
    from_dict,
    read_json,
)
from stableanimator_jax.errors import InputError
from stableanimator_jax.models.clip_input import CLIP_MEAN, CLIP_STD

C = TypeVar("C", UNetConfig, VAEConfig, ImageEncoderConfig)

_UNET, _VAE = "UNetSpatioTemporalConditionModel", "AutoencoderKLTemporalDecoder"
_CLIP, _CLIP_TYPE = "CLIPVisionModelWithProjection", "clip_vision_model"


def _unet_blocks(levels: int) -> dict[str, list[str]]:
    """Every level but the lowest has attention."""
    return {
        "down_block_types": [*["CrossAttnDownBlockSpatioTemporal"] * (levels - 1), "DownBlockSpatioTemporal"],
        "up_block_types": ["UpBlockSpatioTemporal", *["CrossAttnUpBlockSpatioTemporal"] * (levels - 1)],
    }


def _vae_blocks(levels: int) -> dict[str, list[str]]:
    return {"down_block_types": ["DownEncoderBlock2D"] * levels}


# Every field of the diffusers classes with its default: files written by older versions leave some out. Those that
# configurations of this project have too go by the same names there.
_UNET_FIELDS = {
    "sample_size": None,
    "in_channels": 8,
    "out_channels": 4,
    **_unet_blocks(4),
    "block_out_channels": [320, 640, 1280, 1280],
    "addition_time_embed_dim": 256,
    "projection_class_embeddings_input_dim": 768,
    "layers_per_block": 2,
    "cross_attention_dim": 1024,
    "transformer_layers_per_block": 1,
    "num_attention_heads": [5, 10, 20, 20],
    "num_frames": 25,
}
_VAE_FIELDS = {
    "in_channels": 3,
    "out_channels": 3,
    **_vae_blocks(1),
    "block_out_channels": [64],
    "layers_per_block": 1,
    "latent_channels": 4,
    "sample_size": 32,
    "scaling_factor": 0.18215,
    "force_upcast": True,
}


def read_published_config(path: Path, kind: type[C]) -> C:
    """Read the `config.json` of SVD's UNet or VAE (diffusers) or image encoder (transformers).

    Raises:
        InputError: the file cannot be read, belongs to another class, or describes a network that this project
            does not build. The message names the file, the field and its value.
    """
    readers: dict[type, Callable[[dict[str, Any]], Any]] = {
        UNetConfig: _unet,
        VAEConfig: _vae,
        ImageEncoderConfig: _image_encoder,
    }
    data = read_json(path)
    try:
        if not isinstance(data, dict):
            raise InputError(f"expected an object with fields, got {data!r:.80}")
        return readers[kind](data)
    except InputError as e:
        raise InputError(f"{path}: {e}") from e


def _unet(data: dict[str, Any]) -> UNetConfig:
    fields = _diffusers_fields(data, _UNET, _UNET_FIELDS)
    levels = _levels(fields)
    for name, supported in _unet_blocks(levels).items():
        _only(fields, name, supported)
    if _one_for_all_levels(fields, "transformer_layers_per_block") != 1:
        raise _unsupported(fields, "transformer_layers_per_block", "1")
    heads = fields["num_attention_heads"]
    return from_dict(
        UNetConfig,
        _ours(UNetConfig, fields)
        | {name: _one_for_all_levels(fields, name) for name in ("layers_per_block", "cross_attention_dim")}
        | {"num_attention_heads": heads if isinstance(heads, list) else [heads] * levels},
    )


def _vae(data: dict[str, Any]) -> VAEConfig:
    fields = _diffusers_fields(data, _VAE, _VAE_FIELDS)
    for name, supported in _vae_blocks(_levels(fields)).items():
        _only(fields, name, supported)
    return from_dict(VAEConfig, _ours(VAEConfig, fields))


def _image_encoder(data: dict[str, Any]) -> ImageEncoderConfig:
    # Imported here because it takes seconds. Without torch it would say on stderr that it can do little.
    os.environ.setdefault("TRANSFORMERS_NO_ADVISORY_WARNINGS", "1")
    from huggingface_hub.errors import StrictDataclassError
    from transformers import CLIPVisionConfig

    # A whole CLIP's file has another type and would otherwise be read as all defaults.
    _only(data, "model_type", _CLIP_TYPE)
    if data.get("architectures"):
        _only(data, "architectures", [_CLIP])
    try:
        published = CLIPVisionConfig.from_dict(data).to_dict()
    except StrictDataclassError as e:
        raise InputError(" ".join(str(e).split())) from e
    _only(published, "num_channels", 3)
    if published["hidden_act"] not in ("gelu", "quick_gelu"):
        raise _unsupported(published, "hidden_act", "'gelu' or 'quick_gelu'")
    return from_dict(ImageEncoderConfig, _ours(ImageEncoderConfig, published))


def _diffusers_fields(data: dict[str, Any], class_name: str, defaults: dict[str, Any]) -> dict[str, Any]:
    """The fields of a diffusers configuration, all of them; an unknown one could mean another network."""
    _only(data, "_class_name", class_name)
    given = {name: value for name, value in data.items() if not name.startswith("_")}
    for name, value in given.items():
        if name not in defaults and value is not None:
            raise InputError(f"{name} is {value!r}, a field that this project does not know in a {class_name}")
    return defaults | given


def _levels(fields: dict[str, Any]) -> int:
    channels = fields["block_out_channels"]
    if not isinstance(channels, list) or not channels:
        raise _unsupported(fields, "block_out_channels", "a list of the levels' widths")
    return len(channels)


def _one_for_all_levels(fields: dict[str, Any], name: str) -> Any:
    """diffusers takes a number, or a list with one for each level. Ours are the same at every level."""
    value = fields[name]
    if not isinstance(value, list):
        return value
    if len(value) != _levels(fields) or any(v != value[0] for v in value):
        raise _unsupported(fields, name, "one value for every level")
    return value[0]


def _ours(config: Any, fields: dict[str, Any]) -> dict[str, Any]:
    """The fields that a configuration of this project, or its class, has too."""
    return {field.name: fields[field.name] for field in dataclasses.fields(config) if field.name in fields}


def _only(fields: dict[str, Any], name: str, supported: Any) -> None:
    if fields.get(name) != supported:
        raise _unsupported(fields, name, repr(supported))


def _unsupported(fields: dict[str, Any], name: str, supported: str) -> InputError:
    found = repr(fields[name]) if name in fields else "missing"
    return InputError(f"{name} is {found}, this project supports {supported}")


def svd_configs(config: StableAnimatorConfig) -> dict[str, dict[str, Any]]:
    """The JSON files of a whole SVD pipeline by path within its folder; those of a component lie in its own."""
    unet, vae, image_encoder = (dataclasses.asdict(part) for part in (config.unet, config.vae, config.image_encoder))
    return {
        "model_index.json": _MODEL_INDEX,
        "unet/config.json": {
            "_class_name": _UNET,
            **_UNET_FIELDS,
            "sample_size": 96,
            **_unet_blocks(len(unet["block_out_channels"])),
            **{name: value for name, value in unet.items() if name in _UNET_FIELDS},
        },
        "vae/config.json": {
            "_class_name": _VAE,
            **_VAE_FIELDS,
            "sample_size": 768,
            **_vae_blocks(len(vae["block_out_channels"])),
            **{name: value for name, value in vae.items() if name in _VAE_FIELDS},
        },
        "image_encoder/config.json": {
            "architectures": [_CLIP],
            "model_type": _CLIP_TYPE,
            **image_encoder,
            "num_channels": 3,
            "attention_dropout": 0.0,
            "initializer_factor": 1.0,
            "initializer_range": 0.02,
            "torch_dtype": "float32",
        },
        "scheduler/scheduler_config.json": _SCHEDULER,
        "feature_extractor/preprocessor_config.json": _feature_extractor(config.image_encoder.image_size),
    }


def _feature_extractor(size: int) -> dict[str, Any]:
    return {
        "image_processor_type": "CLIPImageProcessor",
        "do_convert_rgb": True,
        "do_resize": True,
        "size": {"shortest_edge": size},
        "resample": 3,  # Pillow's bicubic
        "do_center_crop": True,
        "crop_size": {"height": size, "width": size},
        "do_rescale": True,
        "rescale_factor": 1 / 255,
        "do_normalize": True,
        "image_mean": list(CLIP_MEAN),
        "image_std": list(CLIP_STD),
    }


_SCHEDULER = {
    "_class_name": "EulerDiscreteScheduler",
    "num_train_timesteps": 1000,
    "beta_start": 0.00085,
    "beta_end": 0.012,
    "beta_schedule": "scaled_linear",
    "trained_betas": None,
    "prediction_type": "v_prediction",
    "interpolation_type": "linear",
    "use_karras_sigmas": True,
    "sigma_min": 0.002,
    "sigma_max": 700.0,
    "timestep_spacing": "leading",
    "timestep_type": "continuous",
    "steps_offset": 1,
}

_MODEL_INDEX = {
    "_class_name": "StableVideoDiffusionPipeline",
    "feature_extractor": ["transformers", "CLIPImageProcessor"],
    "image_encoder": ["transformers", _CLIP],
    "scheduler": ["diffusers", "EulerDiscreteScheduler"],
    "unet": ["diffusers", _UNET],
    "vae": ["diffusers", _VAE],
}
