"""Which parameters are trained, and models put together from trained and frozen ones.

Parameters are held flat, by model and by dotted name: `{"unet": {"conv_in.kernel": array}}`.
"""

from collections.abc import Mapping
from typing import Any

import jax
import jax.numpy as jnp

from stableanimator_jax.models.functional import Blueprint, Model
from stableanimator_jax.training.config import Trainable, TrainableConfig
from stableanimator_jax.weights.rules import by_name, nested_as

Params = dict[str, dict[str, Any]]

TRAINED_MODELS = ("unet", "pose_net", "face_encoder")
_LORA = (".lora_a", ".lora_b")


def is_trained(model: str, name: str, unet: Trainable) -> bool:
    """Whether a parameter itself is trained; low-rank changes are parameters of their own (`low_rank_shapes`)."""
    if model != "unet":
        return model in TRAINED_MODELS
    if unet in ("adapters", "lora"):
        return ".id_to_k." in name or ".id_to_v." in name
    return unet == "all" or ".attentions." in name


def low_rank_shapes(
    model: str, params: Mapping[str, jax.ShapeDtypeStruct], config: TrainableConfig
) -> dict[str, jax.ShapeDtypeStruct]:
    """The two factors of each attention layer's low-rank change (LoRA, Hu et al. 2021), by name; none without LoRA.

    A frozen kernel `[in, out]` of the UNet's transformers is changed by `lora_a [in, rank] @ lora_b [rank, out]`.
    """
    if model != "unet" or config.unet != "lora":
        return {}
    factors = {}
    for name, leaf in params.items():
        is_linear = name.endswith(".kernel") and len(leaf.shape) == 2
        if ".attentions." in name and is_linear and not is_trained(model, name, config.unet):
            rows, columns = leaf.shape
            for factor, shape in zip(_LORA, ((rows, config.lora_rank), (config.lora_rank, columns)), strict=True):
                factors[name + factor] = jax.ShapeDtypeStruct(shape, jnp.float32)
    return factors


def split_abstract(
    blueprints: Mapping[str, Blueprint[Any]], config: TrainableConfig
) -> tuple[dict[str, dict[str, jax.ShapeDtypeStruct]], dict[str, dict[str, jax.ShapeDtypeStruct]]]:
    """Shapes and dtypes of (trained, frozen) parameters: the trained in float32, the others as the blueprints say."""
    trained: Params = {}
    frozen: Params = {}
    for model, blueprint in blueprints.items():
        leaves = by_name(blueprint.abstract_params())
        mine = {name: leaf for name, leaf in leaves.items() if is_trained(model, name, config.unet)}
        own = {name: jax.ShapeDtypeStruct(leaf.shape, jnp.float32) for name, leaf in mine.items()}
        if own := own | low_rank_shapes(model, leaves, config):
            trained[model] = own
        frozen[model] = {name: leaf for name, leaf in leaves.items() if name not in mine}
    return trained, frozen


def assemble(
    blueprints: Mapping[str, Blueprint[Any]], trained: Params, frozen: Params, config: TrainableConfig
) -> dict[str, Model[Any]]:
    """Models in their blueprints' dtypes; differentiable by `trained`."""

    def parameter(model: str, name: str, dtype: Any) -> jax.Array:
        own = trained.get(model, {})
        if name in own:
            return own[name].astype(dtype)
        return changed(frozen[model][name], own, name, config).astype(dtype)

    models = {}
    for model, blueprint in blueprints.items():
        abstract = blueprint.abstract_params()
        params = {name: parameter(model, name, leaf.dtype) for name, leaf in by_name(abstract).items()}
        models[model] = Model(nested_as(abstract, params), blueprint)
    return models


def changed(kernel: jax.Array, own: Mapping[str, jax.Array], name: str, config: TrainableConfig) -> jax.Array:
    """A frozen parameter with its low-rank change, in float32; without one, as it is."""
    if name + _LORA[0] not in own:
        return kernel
    change = jnp.matmul(*(own[name + factor] for factor in _LORA), precision=jax.lax.Precision.HIGHEST)
    return kernel.astype(jnp.float32) + config.lora_alpha / config.lora_rank * change
