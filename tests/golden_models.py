"""Whole models with the golden cases' weights, as `Model` pytrees, for tests that jit them."""

from dataclasses import replace
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np

from stableanimator_jax.config import ArcFaceConfig, StableAnimatorConfig
from stableanimator_jax.models.arcface import ArcFace
from stableanimator_jax.models.face_encoder import FaceEncoder
from stableanimator_jax.models.functional import Blueprint, Model
from stableanimator_jax.models.image_encoder import ImageEncoder
from stableanimator_jax.models.layers import Precision
from stableanimator_jax.models.pose_net import PoseNet
from stableanimator_jax.models.unet import UNet
from stableanimator_jax.models.vae import VAE
from stableanimator_jax.weights.rules import plan_export
from stableanimator_jax.weights.tables import tables
from tests.golden_data import ReferenceWeights
from tests.weights.state_dicts import convert

# The golden cases' sizes: those of the tiny configuration, but for an IResNet of full width.
TINY = replace(StableAnimatorConfig.tiny(), arcface=ArcFaceConfig(layers=(1, 2, 2, 1)))
FLOAT32 = Precision(np.dtype("float32"), np.dtype("float32"))
BFLOAT16 = Precision(jnp.dtype("bfloat16"), jnp.dtype("bfloat16"))
KINDS: dict[str, Any] = {
    "unet": UNet,
    "vae": VAE,
    "image_encoder": ImageEncoder,
    "face_encoder": FaceEncoder,
    "pose_net": PoseNet,
    "arcface": ArcFace,
}


def reference_model(name: str, config: StableAnimatorConfig = TINY, precision: Precision = FLOAT32) -> Model[Any]:
    """One model of `config` with reference weights, converted by its production rule table."""
    blueprint = Blueprint(KINDS[name], getattr(config, name), precision)
    abstract = blueprint.abstract_params()
    table = tables(config)[name]
    shapes = {a.key: a.source_shape for a in plan_export(table, abstract)}
    params = convert(table, ReferenceWeights(shapes, f"{name}."), abstract)
    return Model(jax.tree.map(jnp.asarray, params), blueprint)


def channels_last(array: np.ndarray) -> np.ndarray:
    """torch's `[..., c, h, w]` to `[..., h, w, c]`."""
    return np.moveaxis(array, -3, -1)
