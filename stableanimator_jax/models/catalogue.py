"""Which module each model of a checkpoint is, and the precision that its parameters are stored in."""

from typing import Any

import jax.numpy as jnp

from stableanimator_jax.config import Dtype, StableAnimatorConfig
from stableanimator_jax.family import member
from stableanimator_jax.models.arcface import ArcFace
from stableanimator_jax.models.control_net import ControlNet
from stableanimator_jax.models.face_encoder import FaceEncoder
from stableanimator_jax.models.functional import Blueprint
from stableanimator_jax.models.image_encoder import ImageEncoder
from stableanimator_jax.models.layers import Precision
from stableanimator_jax.models.pose_net import PoseNet
from stableanimator_jax.models.unet import UNet
from stableanimator_jax.models.vae import VAE

_KINDS: dict[str, Any] = {
    "unet": UNet,
    "vae": VAE,
    "image_encoder": ImageEncoder,
    "face_encoder": FaceEncoder,
    "pose_net": PoseNet,
    "control_net": ControlNet,
    "arcface": ArcFace,
}
# These compute in float32 whatever the others do; bfloat16 weights would cost them 16 bits for 0.3 GB.
_FLOAT32_ALWAYS = ("vae", "arcface")


def sampling_models(config: StableAnimatorConfig) -> tuple[str, ...]:
    """Those that make a video: of ArcFace nothing, and no Face Encoder where the UNet takes no face."""
    return tuple(name for name in member(config).models if name != "face_encoder" or config.unet.takes_faces)


def blueprint(config: StableAnimatorConfig, model: str, dtype: Dtype = "float32") -> Blueprint[Any]:
    """One model of `config` whose kernels and biases are stored in `dtype`.

    Norms, statistics, slopes and scales are float32 always, and so are the VAE and ArcFace.
    """
    stored = jnp.dtype("float32" if model in _FLOAT32_ALWAYS else dtype)
    return Blueprint(_KINDS[model], getattr(config, model), Precision(stored, stored))
