"""The `config.json` files of SVD's folder, as diffusers and transformers write them for a configuration of ours."""

from typing import Any

from stableanimator_jax.config import ImageEncoderConfig, StableAnimatorConfig, UNetConfig, VAEConfig


def svd_configs(config: StableAnimatorConfig) -> dict[str, dict[str, Any]]:
    """The JSON files of a whole SVD pipeline by path within its folder; those of a component lie in its own."""
    return {
        "model_index.json": _MODEL_INDEX,
        "unet/config.json": _unet(config.unet),
        "vae/config.json": _vae(config.vae),
        "image_encoder/config.json": _image_encoder(config.image_encoder),
        "scheduler/scheduler_config.json": _SCHEDULER,
        "feature_extractor/preprocessor_config.json": _feature_extractor(config.image_encoder),
    }


def _unet(config: UNetConfig) -> dict[str, Any]:
    attending = len(config.block_out_channels) - 1
    return {
        "_class_name": "UNetSpatioTemporalConditionModel",
        "sample_size": 96,
        "in_channels": config.in_channels,
        "out_channels": config.out_channels,
        "down_block_types": [*["CrossAttnDownBlockSpatioTemporal"] * attending, "DownBlockSpatioTemporal"],
        "up_block_types": ["UpBlockSpatioTemporal", *["CrossAttnUpBlockSpatioTemporal"] * attending],
        "block_out_channels": list(config.block_out_channels),
        "addition_time_embed_dim": config.addition_time_embed_dim,
        "projection_class_embeddings_input_dim": config.projection_class_embeddings_input_dim,
        "layers_per_block": config.layers_per_block,
        "cross_attention_dim": config.cross_attention_dim,
        "transformer_layers_per_block": 1,
        "num_attention_heads": list(config.num_attention_heads),
        "num_frames": 25,
    }


def _vae(config: VAEConfig) -> dict[str, Any]:
    return {
        "_class_name": "AutoencoderKLTemporalDecoder",
        "in_channels": config.in_channels,
        "out_channels": config.out_channels,
        "down_block_types": ["DownEncoderBlock2D"] * len(config.block_out_channels),
        "block_out_channels": list(config.block_out_channels),
        "layers_per_block": config.layers_per_block,
        "latent_channels": config.latent_channels,
        "sample_size": 768,
        "scaling_factor": config.scaling_factor,
        "force_upcast": True,
    }


def _image_encoder(config: ImageEncoderConfig) -> dict[str, Any]:
    return {
        "architectures": ["CLIPVisionModelWithProjection"],
        "model_type": "clip_vision_model",
        "hidden_size": config.hidden_size,
        "intermediate_size": config.intermediate_size,
        "num_hidden_layers": config.num_hidden_layers,
        "num_attention_heads": config.num_attention_heads,
        "num_channels": 3,
        "image_size": config.image_size,
        "patch_size": config.patch_size,
        "projection_dim": config.projection_dim,
        "hidden_act": config.hidden_act,
        "layer_norm_eps": config.layer_norm_eps,
        "attention_dropout": 0.0,
        "initializer_factor": 1.0,
        "initializer_range": 0.02,
        "torch_dtype": "float32",
    }


def _feature_extractor(config: ImageEncoderConfig) -> dict[str, Any]:
    return {
        "image_processor_type": "CLIPImageProcessor",
        "do_convert_rgb": True,
        "do_resize": True,
        "size": {"shortest_edge": config.image_size},
        "resample": 3,  # Pillow's bicubic
        "do_center_crop": True,
        "crop_size": {"height": config.image_size, "width": config.image_size},
        "do_rescale": True,
        "rescale_factor": 1 / 255,
        "do_normalize": True,
        "image_mean": [0.48145466, 0.4578275, 0.40821073],
        "image_std": [0.26862954, 0.26130258, 0.27577711],
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
    "image_encoder": ["transformers", "CLIPVisionModelWithProjection"],
    "scheduler": ["diffusers", "EulerDiscreteScheduler"],
    "unet": ["diffusers", "UNetSpatioTemporalConditionModel"],
    "vae": ["diffusers", "AutoencoderKLTemporalDecoder"],
}
