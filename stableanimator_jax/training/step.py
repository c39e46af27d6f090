"""One training step, and one of validation: pure functions of state and batch, to be jitted."""

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Any, NamedTuple, cast

import jax
import jax.numpy as jnp
import optax
from jax.sharding import Mesh
from jaxtyping import Array, Float, PyTree

from stableanimator_jax import diffusion
from stableanimator_jax.data.clips import Clips, Pixels
from stableanimator_jax.models.functional import Blueprint
from stableanimator_jax.models.pixels import pixels
from stableanimator_jax.parallel import fsdp_shardings
from stableanimator_jax.training.config import ObjectiveConfig, TrainableConfig
from stableanimator_jax.training.latents import EncodingNoise, encode, sample
from stableanimator_jax.training.objective import Draws, denoising_error, training_conditioning
from stableanimator_jax.training.state import TrainState
from stableanimator_jax.training.trainable import Params, assemble

BANDS = (0.5, 2.0, 10.0)
"""Noise levels between the bands that the loss is told apart by."""


class Metrics(NamedTuple):
    """Sums over clips, to be added up over steps and only then divided; see `means`. Float32."""

    loss: Float[Array, ""]
    """The loss times the clips."""
    clips: Float[Array, ""]
    inside: Float[Array, ""]
    """EDM-weighted squared error summed inside the faces, without the face's weight."""
    inside_count: Float[Array, ""]
    outside: Float[Array, ""]
    outside_count: Float[Array, ""]
    bands: Float[Array, "bands"]
    """The loss of the clips in each band of noise levels."""
    band_clips: Float[Array, "bands"]


@dataclass(frozen=True)
class Task:
    """What is computed, beside the arrays: everything that a step is compiled for."""

    blueprints: Mapping[str, Blueprint[Any]]
    trainable: TrainableConfig
    objective: ObjectiveConfig
    remat: bool = True
    accumulate: int = 1
    ema_decay: float = 0.0


Step = Callable[..., tuple[TrainState, Metrics, Float[Array, ""]]]


def make_step(task: Task, optimizer: optax.GradientTransformation, mesh: Mesh) -> Step:
    """The training step: (state, frozen parameters, batch) to (state, metrics, norm of the gradients before clipping).

    A fourth argument, a number, multiplies the learning rate of the step: for schedules that the steps do not decide.
    To be jitted with the state donated, under `jax.set_mesh(mesh)`.
    """

    def step(
        state: TrainState, frozen: Params, batch: Clips[Array], rate_scale: Float[Array, ""] | None = None
    ) -> tuple[TrainState, Metrics, Float[Array, ""]]:
        key = jax.random.fold_in(jax.random.wrap_key_data(state.key), state.step)
        latents = latent_shape(task, batch)
        noise, draws = encoding_noise(key, latents, batch), training_draws(key, latents)

        def loss(params: Params, part: tuple[Clips[Array], EncodingNoise, Draws]) -> tuple[Array, Metrics]:
            metrics = clip_errors(task, params, frozen, *part, dropout=task.objective.dropout)
            return metrics.loss / metrics.clips, metrics

        gradient = jax.grad(loss, has_aux=True)
        if task.accumulate == 1:
            gradients, metrics = gradient(state.params, (batch, noise, draws))
        else:
            gradients, metrics = _accumulated(gradient, state.params, (batch, noise, draws), task.accumulate, mesh)
        gradients = jax.lax.with_sharding_constraint(gradients, fsdp_shardings(gradients, mesh))
        with jax.numpy_dtype_promotion("standard"):  # optax counts in integers
            updates, opt_state = optimizer.update(gradients, state.opt_state, state.params)
        if rate_scale is not None:  # weight decay is in the updates too, and both are times the rate
            updates = jax.tree.map(lambda update: update * rate_scale, updates)
        params = cast(Params, optax.apply_updates(state.params, updates))
        ema = state.ema
        if task.ema_decay:
            # Young averages forget faster, or they would remember the beginning for long.
            decay = jnp.minimum(task.ema_decay, (1 + state.step) / (10 + state.step)).astype(jnp.float32)
            ema = jax.tree.map(lambda old, new: decay * old + (1 - decay) * new, ema, params)
        new = TrainState(state.step + 1, params, opt_state, ema, state.key)
        return new, metrics, optax.tree.norm(gradients)

    return step


def latent_shape(task: Task, batch: Clips[Array]) -> tuple[int, ...]:
    """[b, f, h, w, c] of a batch's latents."""
    return (*batch.masks.shape, task.blueprints["vae"].config.latent_channels)


def encoding_noise(key: Array, latents: tuple[int, ...], batch: Clips[Array]) -> EncodingNoise:
    """Drawn for the whole batch at once: the same however devices and parts share it."""
    b, _, h, w, c = latents
    keys = jax.random.split(jax.random.fold_in(key, 0), 3)
    augmentation = batch.images.reference.shape if isinstance(batch.images, Pixels) else (b, 1, 1, 3)
    return EncodingNoise(
        diffusion.standard_noise(keys[0], latents),
        diffusion.standard_noise(keys[1], (b, h, w, c)),
        diffusion.standard_noise(keys[2], augmentation),
    )


def training_draws(key: Array, latents: tuple[int, ...]) -> Draws:
    """As `encoding_noise`; noise levels are stratified over the batch."""
    keys = jax.random.split(jax.random.fold_in(key, 1), 3)
    uniform = jax.random.uniform(keys[0], (latents[0],), jnp.float32)
    return Draws(
        noise=diffusion.standard_noise(keys[1], latents),
        sigma=diffusion.training_sigmas(diffusion.stratified(uniform)),
        dropout=jax.random.uniform(keys[2], (latents[0],), jnp.float32),
    )


def clip_errors(
    task: Task,
    params: Params,
    frozen: Params,
    batch: Clips[Array],
    noise: EncodingNoise,
    draws: Draws,
    *,
    dropout: float,
) -> Metrics:
    """Encode a batch, noise it, denoise it, and measure. Differentiable by `params`."""
    models = {name: model.module() for name, model in assemble(task.blueprints, params, frozen, task.trainable).items()}
    moments = batch.images
    if isinstance(moments, Pixels):
        augmentation = task.objective.noise_augmentation * noise.augmentation
        moments = encode(models["vae"], models["image_encoder"], moments, augmentation)
    latents, image_latents = sample(models["vae"], moments, noise)
    conditioning = training_conditioning(
        models["pose_net"],
        models["face_encoder"],
        image_latents=image_latents,
        image_embedding=moments.image_embedding,
        id_embedding=batch.id_embedding,
        poses=pixels(batch.poses),
        added_time_ids=jnp.asarray(task.objective.added_time_ids, jnp.float32),
    )
    error = denoising_error(
        models["unet"],
        latents,
        batch.masks,
        conditioning,
        draws,
        dropout=dropout,
        face_weight=task.objective.face_weight,
        remat=task.remat,
    )
    inside = jnp.broadcast_to(batch.masks[..., None].astype(jnp.float32), error.squared.shape)
    band = jax.nn.one_hot(jnp.searchsorted(jnp.asarray(BANDS), draws.sigma), len(BANDS) + 1, dtype=jnp.float32)
    return Metrics(
        loss=error.losses.sum(),
        clips=jnp.asarray(len(error.losses), jnp.float32),
        inside=jnp.sum(error.squared * inside),
        inside_count=inside.sum(),
        outside=jnp.sum(error.squared * (1 - inside)),
        outside_count=(1 - inside).sum(),
        bands=jnp.sum(error.losses[:, None] * band, axis=0),
        band_clips=band.sum(0),
    )


def means(metrics: Metrics) -> dict[str, float]:
    """What curves show: means over the clips that were summed. Bands and insides that had none are left out."""
    values = {"loss": float(metrics.loss) / float(metrics.clips)}
    for name, total, count in (
        ("loss_inside_face", metrics.inside, metrics.inside_count),
        ("loss_outside_face", metrics.outside, metrics.outside_count),
    ):
        if count > 0:
            values[name] = float(total) / float(count)
    edges = ["0", *(f"{edge:g}" for edge in BANDS), "inf"]
    for k, count in enumerate(metrics.band_clips):
        if count > 0:
            values[f"loss_by_noise/{edges[k]}-{edges[k + 1]}"] = float(metrics.bands[k]) / float(count)
    return values


def _accumulated(
    gradient: Callable[[Params, Any], tuple[Params, Metrics]],
    params: Params,
    whole: PyTree[Array],
    parts: int,
    mesh: Mesh,
) -> tuple[Params, Metrics]:
    """Mean gradients and summed metrics of a batch in equal parts, one after the other."""

    def cut(rows: Array) -> Array:
        # Every so many-th row: each device has rows of its own in every part.
        return jnp.moveaxis(rows.reshape(-1, parts, *rows.shape[1:]), 1, 0)

    def add(total: tuple[Params, Metrics], part: Any) -> tuple[tuple[Params, Metrics], None]:
        gradients, metrics = jax.tree.map(jnp.add, total, gradient(params, part))
        return (jax.lax.with_sharding_constraint(gradients, shardings), metrics), None

    shapes = jax.eval_shape(gradient, params, jax.tree.map(lambda rows: cut(rows)[0], whole))
    zeros = jax.tree.map(lambda leaf: jnp.zeros(leaf.shape, leaf.dtype), shapes)
    shardings = fsdp_shardings(shapes[0], mesh)
    (gradients, metrics), _ = jax.lax.scan(add, zeros, jax.tree.map(cut, whole))
    return jax.tree.map(lambda g: g / parts, gradients), metrics
