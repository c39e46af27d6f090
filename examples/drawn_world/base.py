"""What StableAnimator's training begins from: trained ArcFace, VAE and image encoder, and a UNet that knows nothing, or
a trained one without its ID adapters."""

import dataclasses
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import jax.numpy as jnp
from flax import nnx

from examples.drawn_world.model import CONFIG
from stableanimator_jax.errors import InputError
from stableanimator_jax.models.catalogue import blueprint
from stableanimator_jax.models.layers import Precision
from stableanimator_jax.models.unet import UNet
from stableanimator_jax.weights.checkpoint import require_replaceable, save_checkpoint
from stableanimator_jax.weights.opening import open_checkpoint
from stableanimator_jax.weights.rules import flatten, unflatten

# Last layers of residual branches begin at zero, as is usual where a diffusion model is trained from nothing: each
# block then begins by changing nothing, and the prediction by being zero.
_ZERO = {"conv2", "proj_out", "conv_out"}
_ID_ADAPTER = {"id_to_k", "id_to_v"}


@dataclass(frozen=True)
class BaseConfig:
    """Where the parts are."""

    arcface: Path = Path("outputs/drawn_world/arcface")
    vae: Path = Path("outputs/drawn_world/vae")
    image_encoder: Path = Path("outputs/drawn_world/image_encoder")
    output: Path = Path("outputs/drawn_world/base")
    animator: Path | None = None
    """Weights that a run of `train.py` left: UNet and PoseNet are taken from there, but for the ID adapters' keys and
    values. Those and the Face Encoder begin anew; the ablations begin so."""
    seed: int = 0
    """Of the UNet's first parameters."""
    overwrite: bool = False
    """Replace a checkpoint that is in `output`."""


def assemble(config: BaseConfig) -> None:
    """Write the checkpoint. What is not in it, the Face Encoder and mostly PoseNet, `train.py` makes anew.

    Raises:
        InputError: a checkpoint cannot be used, or lacks its model; or the output is there.
    """
    require_replaceable(config.output, overwrite=config.overwrite)
    params = {}
    configs: dict[str, Any] = {}
    for name in ("arcface", "vae", "image_encoder"):
        source = open_checkpoint(str(getattr(config, name)))
        configs[name] = getattr(source.config, name)
        params[name] = source.load(name, blueprint(source.config, name)).params
    unet = UNet(CONFIG.unet, precision=Precision(), rngs=nnx.Rngs(config.seed))
    begun = {
        path: jnp.zeros_like(leaf) if set(path) & _ZERO else leaf
        for path, leaf in flatten(nnx.to_pure_dict(nnx.state(unet))).items()
    }
    if config.animator is not None:
        source = open_checkpoint(str(config.animator))
        for name in ("unet", "pose_net"):
            if getattr(source.config, name) != getattr(CONFIG, name):
                raise InputError(f"the {name} of {config.animator} is not of the size that is trained here")
        trained = flatten(source.load("unet", blueprint(CONFIG, "unet")).params)
        begun = {path: begun[path] if set(path) & _ID_ADAPTER else leaf for path, leaf in trained.items()}
        params["pose_net"] = source.load("pose_net", blueprint(CONFIG, "pose_net")).params
    params["unet"] = unflatten(begun)
    save_checkpoint(
        config.output,
        dataclasses.replace(CONFIG, **configs),
        params,
        {"trained on": "drawn people"},
        overwrite=config.overwrite,
    )
