"""Whole models with the golden cases' weights, as `Model` pytrees, for tests that jit them."""

from dataclasses import replace
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np

from stableanimator_jax.config import ArcFaceConfig, StableAnimatorConfig
from stableanimator_jax.models.catalogue import blueprint
from stableanimator_jax.models.functional import Model
from stableanimator_jax.models.layers import Precision
from stableanimator_jax.weights.rules import plan_export
from stableanimator_jax.weights.tables import tables
from tests.golden_data import ReferenceWeights
from tests.weights.state_dicts import convert

# The golden cases' sizes: those of the tiny configuration, but for an IResNet of full width.
TINY = replace(StableAnimatorConfig.tiny(), arcface=ArcFaceConfig(layers=(1, 2, 2, 1)))
FLOAT32 = Precision()
BFLOAT16 = Precision(jnp.dtype("bfloat16"), jnp.dtype("bfloat16"))
FLOAT16 = Precision(jnp.dtype("float16"), jnp.dtype("float16"))


def reference_model(name: str, config: StableAnimatorConfig = TINY, precision: Precision = FLOAT32) -> Model[Any]:
    """One model of `config` with reference weights, converted by its production rule table."""
    made_from = replace(blueprint(config, name), precision=precision)
    abstract = made_from.abstract_params()
    table = tables(config)[name]
    shapes = {a.key: a.source_shape for a in plan_export(table, abstract)}
    prefix = {"control_net": "controlnext."}.get(name, f"{name}.")
    params = convert(table, ReferenceWeights(shapes, prefix), abstract)
    return Model(jax.tree.map(jnp.asarray, params), made_from)


def channels_last(array: np.ndarray) -> np.ndarray:
    """torch's `[..., c, h, w]` to `[..., h, w, c]`."""
    return np.moveaxis(array, -3, -1)
