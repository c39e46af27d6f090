"""What StableAnimator's training begins from: trained ArcFace, VAE and image encoder, and a UNet that knows nothing."""

import dataclasses
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import jax.numpy as jnp
from flax import nnx

from stableanimator_jax.models.layers import Precision
from stableanimator_jax.models.unet import UNet
from stableanimator_jax.weights.blueprints import blueprint
from stableanimator_jax.weights.checkpoint import save_checkpoint
from stableanimator_jax.weights.embedded import open_checkpoint
from tools.drawn_world.model import CONFIG

# Last layers of residual branches begin at zero, as is usual where a diffusion model is trained from nothing: each
# block then begins by changing nothing, and the prediction by being zero.
_ZERO = ("conv2", "proj_out", "conv_out")


@dataclass(frozen=True)
class BaseConfig:
    """Where the parts are."""

    arcface: Path = Path("outputs/drawn_world/arcface")
    vae: Path = Path("outputs/drawn_world/vae")
    image_encoder: Path = Path("outputs/drawn_world/image_encoder")
    output: Path = Path("outputs/drawn_world/base")
    seed: int = 0
    """Of the UNet's first parameters."""


def assemble(config: BaseConfig) -> None:
    """Write the checkpoint. PoseNet and Face Encoder are not in it: `train.py` makes them anew."""
    params = {}
    configs: dict[str, Any] = {}
    for name in ("arcface", "vae", "image_encoder"):
        source = open_checkpoint(str(getattr(config, name)))
        configs[name] = getattr(source.config, name)
        params[name] = source.load(name, blueprint(source.config, name)).params
    unet = UNet(CONFIG.unet, precision=Precision(), rngs=nnx.Rngs(config.seed))
    params["unet"] = _zeroed(nnx.to_pure_dict(nnx.state(unet)))
    save_checkpoint(config.output, dataclasses.replace(CONFIG, **configs), params, {"trained on": "drawn people"})


def _zeroed(params: dict[Any, Any]) -> dict[Any, Any]:
    return {
        name: _all_zero(child) if name in _ZERO else _zeroed(child) if isinstance(child, dict) else child
        for name, child in params.items()
    }


def _all_zero(params: dict[Any, Any]) -> dict[Any, Any]:
    return {name: _all_zero(leaf) if isinstance(leaf, dict) else jnp.zeros_like(leaf) for name, leaf in params.items()}
