"""Denoising: every step, every window, both guidance branches, by one compiled call of the UNet.

A *row* is one window in one guidance branch. The UNet always takes the same number of rows of the same number of
frames, whatever the length of the video, so it is compiled once; rows are an array axis, so a mesh can spread them.
"""

from collections.abc import Callable, Iterator
from contextlib import nullcontext
from dataclasses import dataclass
from functools import partial
from itertools import pairwise
from typing import NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
from jax.sharding import Mesh
from jaxtyping import Array, Float, UInt8

from stableanimator_jax import diffusion
from stableanimator_jax.errors import InputError
from stableanimator_jax.models.pose_net import PoseNet
from stableanimator_jax.models.unet import UNet
from stableanimator_jax.parallel import replicated, shard_batch
from stableanimator_jax.sampling.conditions import Condition
from stableanimator_jax.sampling.config import SamplingConfig
from stableanimator_jax.sampling.models import Model
from stableanimator_jax.sampling.windows import Windows, guidance_scales, plan_windows

# Pose features of all windows are kept on the device from step to step while they fit into this; a longer video's
# are computed anew each step (a thousandth of the UNet's work), so that memory does not grow with its length.
POSE_FEATURE_BYTES = 2**30

Progress = Callable[[int, int], None]
"""Called with how much is done and how much there is."""

Control = Callable[[int, Float[Array, "f h w c"]], Float[Array, "f h w c"]]
"""Called with a step's number, from 0, and its predicted clean sample; gives the one to go on with."""


class SamplingError(InputError):
    """The denoiser's output is of no use: not every latent is finite."""


class Rows(NamedTuple):
    """What one call of the UNet works on: r windows, each in one guidance branch."""

    latents: Float[Array, "r w h w2 c"]
    """Noisy latents of each window's frames."""
    pose_features: Float[Array, "r w h w2 d"]
    conditional: Float[Array, "r"]
    """1 for the conditional branch, 0 for the unconditional one, which sees neither reference, face nor pose."""


@jax.jit
def predict(
    unet: Model[UNet],
    rows: Rows,
    condition: Condition,
    sigma: Float[Array, ""],
    added_time_ids: Float[Array, "3"],
) -> Float[Array, "r w h w2 c"]:
    """The UNet's v-prediction for every row, in float32."""
    r, frames = rows.latents.shape[:2]

    def where_conditional(x: Array) -> Array:
        """`x` for every row of the conditional branch, zero for the others."""
        return jnp.expand_dims(x, 0) * rows.conditional.reshape(r, *(1,) * x.ndim)

    image_latents = jnp.broadcast_to(
        where_conditional(condition.image_latents)[:, None],
        (r, frames, *condition.image_latents.shape),
    )
    noisy = diffusion.scale_input(rows.latents, sigma)
    prediction = unet.module()(
        jnp.concatenate([noisy, image_latents], axis=-1),
        jnp.broadcast_to(diffusion.timestep(sigma), (r,)),
        where_conditional(condition.image_embedding),
        where_conditional(condition.face_tokens),
        jnp.broadcast_to(added_time_ids, (r, *added_time_ids.shape)),
        rows.pose_features,
    )
    return prediction.astype(jnp.float32)


@jax.jit
def encode_poses(pose_net: Model[PoseNet], poses: UInt8[Array, "f H W 3"]) -> Float[Array, "f h w d"]:
    """PoseNet's features of skeleton images, in its compute dtype."""
    return pose_net.module()(poses.astype(jnp.float32) / 127.5 - 1)


@partial(jax.jit, static_argnames="branches")
def _take_rows(latents: Array, pose_features: tuple[Array, ...], indices: Array, branch: Array, branches: int) -> Rows:
    conditional = (branch == 0).astype(jnp.float32) if branches == 2 else jnp.ones(branch.shape, jnp.float32)
    features = jnp.stack(pose_features)
    mask = conditional.astype(features.dtype).reshape(-1, 1, 1, 1, 1)
    return Rows(latents[indices], features * mask, conditional)


@partial(jax.jit, donate_argnums=0)
def _add_rows(total: Array, prediction: Array, indices: Array, branch: Array, weights: Array) -> Array:
    return total.at[branch[:, None], indices].add(prediction * weights[:, :, None, None, None])


@jax.jit
def _clean(total: Array, counts: Array, latents: Array, scales: Array, sigma: Array) -> Array:
    """Average over windows, guide, and turn the prediction into the clean sample."""
    mean = total / counts.reshape(1, -1, 1, 1, 1)
    prediction = diffusion.guide(mean[0], mean[1], scales) if mean.shape[0] == 2 else mean[0]
    return diffusion.denoised(prediction, latents, sigma)


@partial(jax.jit, donate_argnums=1)
def _step(clean: Array, latents: Array, sigma: Array, sigma_next: Array) -> tuple[Array, Array]:
    latents = diffusion.euler_step(clean, latents, sigma, sigma_next)
    return latents, jnp.isfinite(latents).all()


@dataclass(frozen=True)
class RowBatch:
    """One call's share of the rows of a step, on the host."""

    window: np.ndarray
    """`[r]`: which window."""
    branch: np.ndarray
    """`[r]`: 0 conditional, 1 unconditional."""
    weight: np.ndarray
    """`[r]`: 1, or 0 for a row that only fills the batch up."""


def row_batches(windows: int, branches: int, rows_at_once: int) -> Iterator[RowBatch]:
    """All rows of a step in batches of `rows_at_once`, a window's branches beside each other."""
    rows = np.arange(windows * branches)
    for start in range(0, len(rows), rows_at_once):
        batch = np.arange(start, start + rows_at_once)
        real = batch < len(rows)
        batch = np.where(real, batch, rows[-1])
        yield RowBatch(batch // branches, batch % branches, real.astype(np.float32))


def denoise(
    unet: Model[UNet],
    pose_net: Model[PoseNet],
    condition: Condition,
    poses: UInt8[np.ndarray, "f H W 3"],
    noise: Float[Array, "w h w2 c"],
    sampling: SamplingConfig,
    *,
    control: Control | None = None,
    mesh: Mesh | None = None,
    on_progress: Progress | None = None,
) -> Float[Array, "f h w2 c"]:
    """Sample the latents of a video by Euler steps along SVD's noise levels.

    Args:
        unet, pose_net: the models.
        condition: the reference, encoded.
        poses: skeleton images of the output size, on the host; at least one.
        noise: unit Gaussian noise for one window of frames; frame i of the video starts from noise[i mod window].
        sampling: settings.
        control: changes each step's predicted clean sample, such as `sampling.face_control.FaceControl`.
        mesh: spread the rows of a call over its "data" and "fsdp" axes, which must divide `rows_at_once`, and the
            frames of each over "frame".
        on_progress: called after every call of the UNet.

    Returns:
        float32 latents, multiplied by the VAE's scaling factor as the UNet sees them.

    Raises:
        SamplingError: the latents are no longer finite; names the step.
    """
    with nullcontext() if mesh is None else jax.set_mesh(mesh):
        return _denoise(unet, pose_net, condition, poses, noise, sampling, control, mesh, on_progress)


def _denoise(
    unet: Model[UNet],
    pose_net: Model[PoseNet],
    condition: Condition,
    poses: np.ndarray,
    noise: Array,
    sampling: SamplingConfig,
    control: Control | None,
    mesh: Mesh | None,
    on_progress: Progress | None,
) -> Array:
    plan = plan_windows(len(poses), sampling.window, sampling.overlap)
    branches = 2 if sampling.guided else 1
    batches = list(row_batches(len(plan.indices), branches, sampling.rows_at_once))
    features_of = _PoseFeatures(pose_net, poses, plan)

    counts = np.zeros(plan.frames, np.float32)
    np.add.at(counts, plan.indices, np.broadcast_to(plan.weights, plan.indices.shape))
    scales = guidance_scales(len(poses), plan.frames, sampling.guidance_min, sampling.guidance_max)
    added_time_ids = np.array(
        [sampling.fps - 1, sampling.motion_bucket, sampling.noise_augmentation],
        np.float32,
    )
    sigmas = diffusion.karras_sigmas(sampling.steps)
    latents = jnp.asarray(noise)[np.arange(plan.frames) % sampling.window] * diffusion.init_noise_sigma(sigmas)
    latents, condition = jax.device_put((latents, condition), replicated(mesh))

    for step, (sigma, sigma_next) in enumerate(pairwise(sigmas)):
        total = jnp.zeros((branches, *latents.shape), jnp.float32, device=replicated(mesh))
        for i, batch in enumerate(batches):
            indices = plan.indices[batch.window]
            features = {k: features_of(k) for k in set(batch.window.tolist())}  # a window's branches share them
            pose_features = tuple(features[k] for k in batch.window.tolist())
            rows = shard_batch(_take_rows(latents, pose_features, indices, batch.branch, branches), mesh)
            prediction = predict(unet, rows, condition, sigma, added_time_ids)
            total = _add_rows(total, prediction, indices, batch.branch, batch.weight[:, None] * plan.weights[None])
            if on_progress and i + 1 < len(batches):
                total.block_until_ready()  # or the bar would show how fast work is queued
                on_progress(step * len(batches) + i + 1, sampling.steps * len(batches))
        clean = _clean(total, counts, latents, scales, sigma)
        if control is not None:  # the frames that fill a short video's window up are nobody's
            clean = clean.at[: len(poses)].set(control(step, clean[: len(poses)]))
        latents, finite = _step(clean, latents, sigma, sigma_next)
        if not finite:
            reduced = unet.blueprint.precision.compute != np.float32
            raise SamplingError(
                f"the latents are no longer finite after step {step + 1} of {sampling.steps}: "
                + ("try --dtype float32" if reduced else "check the checkpoint's weights and the face embedding")
            )
        if on_progress:
            on_progress((step + 1) * len(batches), sampling.steps * len(batches))
    return latents[: len(poses)]


class _PoseFeatures:
    """Pose features by window: kept where all of them fit, else computed when asked for."""

    def __init__(self, pose_net: Model[PoseNet], poses: np.ndarray, plan: Windows):
        self.pose_net = pose_net
        # Frames that fill the window of a short video up repeat its last pose.
        self.poses = poses
        self.indices = np.minimum(plan.indices, len(poses) - 1)
        first = self._compute(0)
        keep = first.nbytes * len(plan.indices) <= POSE_FEATURE_BYTES
        self.kept = [first, *map(self._compute, range(1, len(plan.indices)))] if keep else None

    def _compute(self, window: int) -> Array:
        return encode_poses(self.pose_net, self.poses[self.indices[window]])

    def __call__(self, window: int) -> Array:
        return self.kept[window] if self.kept else self._compute(window)
