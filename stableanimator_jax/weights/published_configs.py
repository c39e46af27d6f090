"""The `config.json` files that diffusers and transformers publish, as this project's configurations."""

import os
from collections.abc import Callable
from pathlib import Path
from typing import Any, Literal, overload

from stableanimator_jax.config import ImageEncoderConfig, UNetConfig, VAEConfig, from_dict, read_json
from stableanimator_jax.errors import InputError

Kind = Literal["unet", "vae", "image_encoder"]

# Every field of the diffusers classes with its default: files written by older versions leave some out.
_UNET_FIELDS = {
    "sample_size": None,
    "in_channels": 8,
    "out_channels": 4,
    "down_block_types": [*["CrossAttnDownBlockSpatioTemporal"] * 3, "DownBlockSpatioTemporal"],
    "up_block_types": ["UpBlockSpatioTemporal", *["CrossAttnUpBlockSpatioTemporal"] * 3],
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
    "down_block_types": ["DownEncoderBlock2D"],
    "block_out_channels": [64],
    "layers_per_block": 1,
    "latent_channels": 4,
    "sample_size": 32,
    "scaling_factor": 0.18215,
    "force_upcast": True,
}


@overload
def read_published_config(path: Path, kind: Literal["unet"]) -> UNetConfig: ...
@overload
def read_published_config(path: Path, kind: Literal["vae"]) -> VAEConfig: ...
@overload
def read_published_config(path: Path, kind: Literal["image_encoder"]) -> ImageEncoderConfig: ...
def read_published_config(path: Path, kind: Kind) -> UNetConfig | VAEConfig | ImageEncoderConfig:
    """Read the `config.json` of SVD's UNet or VAE (diffusers) or image encoder (transformers).

    Raises:
        InputError: the file cannot be read, belongs to another class, or describes a network that this project
            does not build. The message names the file, the field and its value.
    """
    readers: dict[Kind, Callable[[dict[str, Any]], UNetConfig | VAEConfig | ImageEncoderConfig]] = {
        "unet": _unet,
        "vae": _vae,
        "image_encoder": _image_encoder,
    }
    data = read_json(path)
    try:
        if not isinstance(data, dict):
            raise InputError(f"expected an object with fields, got {data!r:.80}")
        return readers[kind](data)
    except InputError as e:
        raise InputError(f"{path}: {e}") from e


def _unet(data: dict[str, Any]) -> UNetConfig:
    fields = _diffusers_fields(data, "UNetSpatioTemporalConditionModel", _UNET_FIELDS)
    levels = _levels(fields)
    attending = levels - 1
    _only(fields, "down_block_types", [*["CrossAttnDownBlockSpatioTemporal"] * attending, "DownBlockSpatioTemporal"])
    _only(fields, "up_block_types", ["UpBlockSpatioTemporal", *["CrossAttnUpBlockSpatioTemporal"] * attending])
    if _one_for_all_levels(fields, "transformer_layers_per_block") != 1:
        raise _unsupported(fields, "transformer_layers_per_block", "1")
    heads = fields["num_attention_heads"]
    return from_dict(
        UNetConfig,
        _pick(fields, "in_channels", "out_channels", "block_out_channels")
        | _pick(fields, "addition_time_embed_dim", "projection_class_embeddings_input_dim")
        | {name: _one_for_all_levels(fields, name) for name in ("layers_per_block", "cross_attention_dim")}
        | {"num_attention_heads": heads if isinstance(heads, list) else [heads] * levels},
    )


def _vae(data: dict[str, Any]) -> VAEConfig:
    fields = _diffusers_fields(data, "AutoencoderKLTemporalDecoder", _VAE_FIELDS)
    _only(fields, "down_block_types", ["DownEncoderBlock2D"] * _levels(fields))
    names = ("in_channels", "out_channels", "latent_channels", "block_out_channels", "layers_per_block")
    return from_dict(VAEConfig, _pick(fields, *names, "scaling_factor"))


def _image_encoder(data: dict[str, Any]) -> ImageEncoderConfig:
    # Imported here because it takes seconds. Without torch it would say on stderr that it can do little.
    os.environ.setdefault("TRANSFORMERS_NO_ADVISORY_WARNINGS", "1")
    from huggingface_hub.errors import StrictDataclassError
    from transformers import CLIPVisionConfig

    # A whole CLIP's file has another type and would otherwise be read as all defaults.
    _only(data, "model_type", "clip_vision_model")
    if data.get("architectures"):
        _only(data, "architectures", ["CLIPVisionModelWithProjection"])
    try:
        published = CLIPVisionConfig.from_dict(data).to_dict()
    except StrictDataclassError as e:
        raise InputError(" ".join(str(e).split())) from e
    _only(published, "num_channels", 3)
    if published["hidden_act"] not in ("gelu", "quick_gelu"):
        raise _unsupported(published, "hidden_act", "'gelu' or 'quick_gelu'")
    sizes = ("hidden_size", "intermediate_size", "num_hidden_layers", "num_attention_heads", "projection_dim")
    return from_dict(
        ImageEncoderConfig, _pick(published, *sizes, "image_size", "patch_size", "hidden_act", "layer_norm_eps")
    )


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


def _pick(fields: dict[str, Any], *names: str) -> dict[str, Any]:
    return {name: fields[name] for name in names}


def _only(fields: dict[str, Any], name: str, supported: Any) -> None:
    if fields.get(name) != supported:
        raise _unsupported(fields, name, repr(supported))


def _unsupported(fields: dict[str, Any], name: str, supported: str) -> InputError:
    found = repr(fields[name]) if name in fields else "missing"
    return InputError(f"{name} is {found}, this project supports {supported}")
