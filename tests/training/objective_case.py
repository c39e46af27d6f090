"""The training objective on the golden case's kind of arrays (published names, torch's layouts), in any precision."""

from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
from jax.typing import DTypeLike

from stableanimator_jax.config import StableAnimatorConfig
from stableanimator_jax.models.functional import Model
from stableanimator_jax.models.layers import Precision
from stableanimator_jax.training.objective import Draws, denoising_error, training_conditioning
from stableanimator_jax.weights.tables import tables
from tests.golden_models import channels_last, reference_model
from tests.weights.state_dicts import export

MODELS = ("unet", "pose_net", "face_encoder")
TIME_IDS = (6, 127, 0.02)
Case = dict[str, np.ndarray]
Models = dict[str, Model[Any]]


class Arrays(NamedTuple):
    """The case's clips in our layouts, as the trained models see them."""

    latents: jax.Array
    condition_latents: jax.Array
    poses: jax.Array
    masks: jax.Array
    image_embedding: jax.Array
    id_embedding: jax.Array


def reference_models(config: StableAnimatorConfig, dtype: DTypeLike = jnp.float32) -> Models:
    models = {name: reference_model(name, config, Precision(dtype, dtype)) for name in MODELS}
    return {n: Model(jax.tree.map(lambda x: x.astype(dtype), m.params), m.blueprint) for n, m in models.items()}


def batch_and_draws(case: Case, dtype: DTypeLike = jnp.float32) -> tuple[Arrays, Draws]:
    def array(x: np.ndarray) -> jax.Array:
        return jnp.asarray(x, dtype)

    batch = Arrays(
        latents=array(channels_last(case["latents"])),
        condition_latents=array(channels_last(case["condition_latents"])),
        poses=array(channels_last(case["pose"])),
        masks=jnp.asarray(case["face_mask"][:, :, 0, ::8, ::8] > 0.5),  # nearest, as torch's interpolate
        image_embedding=array(case["image_embedding"][:, 0]),
        id_embedding=array(case["id_embedding"]),
    )
    return batch, Draws(array(channels_last(case["noise"])), array(case["sigmas"]), array(case["dropout_u"]))


def error_and_gradients(models: Models, batch: Arrays, draws: Draws, dropout: Any = 0.1, face_weight: Any = 1.0):
    """To be jitted. The gradients of every parameter, by model."""
    time_ids = jnp.asarray(TIME_IDS, batch.latents.dtype)

    def loss(params):
        unet, pose_net, face_encoder = (Model(params[name], models[name].blueprint).module() for name in MODELS)
        conditioning = training_conditioning(
            pose_net,
            face_encoder,
            image_latents=batch.condition_latents,
            image_embedding=batch.image_embedding,
            id_embedding=batch.id_embedding,
            poses=batch.poses,
            added_time_ids=time_ids,
        )
        error = denoising_error(
            unet, batch.latents, batch.masks, conditioning, draws, dropout=dropout, face_weight=face_weight
        )
        return error.losses.mean(), error

    gradients, error = jax.grad(loss, has_aux=True)({name: models[name].params for name in MODELS})
    return error, gradients


def by_published_name(config: StableAnimatorConfig, gradients: dict[str, Any]) -> Case:
    """Gradients by "model/key", in torch's layouts: the converter is linear, and takes them as it takes weights."""
    out = {}
    for model in MODELS:
        exported = export(tables(config)[model], jax.tree.map(np.asarray, gradients[model]))
        out |= {f"{model}/{key}": gradient for key, gradient in exported.items()}
    return out


def golden_gradients(case: Case) -> Case:
    """The published code's, by "model/key"."""
    return {key.removeprefix("grad/"): x for key, x in case.items() if key.startswith("grad/")}


def spread(gradient: np.ndarray) -> float:
    """The standard deviation, or the size of a single number."""
    return float(gradient.std() if gradient.size > 1 else np.abs(gradient).max())


def drawn_case(config: StableAnimatorConfig, size: int, seed: int = 0) -> Case:
    """A case like the golden one, with latents of another size: every condition's presence, every noise level."""
    rng = np.random.default_rng(seed)

    def normal(*shape: int) -> np.ndarray:
        return rng.standard_normal(shape, dtype=np.float32)

    b, f, c = 3, 2, config.unet.out_channels
    mask = np.zeros((b, f, 1, 8 * size, 8 * size), np.float32)
    mask[..., 2 * size : 5 * size, 3 * size : 6 * size] = 1
    return {
        "latents": normal(b, f, c, size, size),
        "condition_latents": normal(b, c, size, size),
        "noise": normal(b, f, c, size, size),
        "sigmas": np.asarray([0.3, 2, 30], np.float32),
        "dropout_u": np.asarray([0.15, 0.25, 0.9], np.float32),
        "dropout_p": np.asarray(0.1),
        "face_mask": mask,
        "pose": rng.uniform(-1, 1, (b, f, 3, 8 * size, 8 * size)).astype(np.float32),
        "id_embedding": normal(b, config.face_encoder.id_embedding_dim),
        "image_embedding": normal(b, 1, config.face_encoder.image_embedding_dim),
    }
