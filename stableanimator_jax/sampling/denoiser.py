"""The denoiser of a whole video: windows x guidance x UNet.

A *row* is one window in one guidance branch. The UNet always takes the same number of rows of the same number of
frames; where windows are of a fixed length (`windows.tile`), whatever that of the video, so it is compiled once. Rows
are an array axis, so a mesh can spread them.
"""

from collections.abc import Callable, Iterator
from dataclasses import dataclass
from functools import partial
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
from jax.sharding import Mesh
from jaxtyping import Array, Float, Float32, Int, UInt8

from stableanimator_jax import diffusion
from stableanimator_jax.models.conditioning import Conditioning, Control
from stableanimator_jax.models.control_net import ControlNet
from stableanimator_jax.models.functional import Model
from stableanimator_jax.models.pixels import pixels
from stableanimator_jax.models.pose_net import PoseNet
from stableanimator_jax.models.unet import UNet, predict_v
from stableanimator_jax.parallel import replicated, shard_batch
from stableanimator_jax.sampling.guidance import UNCONDITIONAL, branch_shares, unconditional_where
from stableanimator_jax.sampling.programs import kept
from stableanimator_jax.sampling.windows import Windows

# Pose features of all windows are kept on the device from step to step while they fit into this; a longer video's
# are computed anew each step (a thousandth of the UNet's work), so that memory does not grow with its length.
POSE_FEATURE_BYTES = 2**30


class Rows(NamedTuple):
    """What one call of the UNet works on: r windows, each in one guidance branch."""

    latents: Float[Array, "r w h w2 c"]
    """Noisy latents of each window's frames."""
    conditioning: Conditioning
    """Of each row."""


class Place(NamedTuple):
    """Which of a step's calls one is. As long as the branches are as many, it has the same rows in every step."""

    branches: int
    call: int


Predict = Callable[[Rows, Float[Array, ""], Place], Float[Array, "r w h w2 c"]]
"""Called with rows, their noise level and the call's place; gives the v-prediction of each, float32."""


@kept
@jax.jit
def predict(unet: Model[UNet], rows: Rows, sigma: Float[Array, ""]) -> Float[Array, "r w h w2 c"]:
    """The UNet's v-prediction for every row."""
    return predict_v(unet.module(), rows.latents, sigma, rows.conditioning)


Driving = Callable[[int, Float[np.floating, ""]], dict[str, Any]]
"""Called with a window's number and a noise level; gives those fields of `Conditioning`, of a row `[w, ...]`, that tell
the UNet of the window's poses."""


class WindowDenoiser:
    """A `samplers.Denoiser` for a video of any length: every window in every branch, guided, and averaged.

    Args:
        predict: the UNet, of rows.
        condition: of the video, as one row without poses.
        driving: the poses of each window.
        plan: the windows.
        scales: guidance of each place of each window.
        guides: whether there is guidance at a noise level; where not, the unconditional branch is left out.
        rows_at_once: in one call of `predict`.
        mesh: spreads the rows; None for the default device.
        on_call: called after every call of `predict` but the last with how many there were; see `calls`.
    """

    def __init__(
        self,
        predict: Predict,
        condition: Conditioning,
        driving: Driving,
        plan: Windows,
        *,
        scales: Float32[np.ndarray, "windows w"],
        guides: Callable[[Float[np.floating, ""]], bool],
        rows_at_once: int,
        mesh: Mesh | None = None,
        on_call: Callable[[int], None] | None = None,
    ):
        self.predict, self.condition, self.driving, self.plan = predict, condition, driving, plan
        self.guides, self.mesh, self.on_call = guides, mesh, on_call
        windows = len(plan.indices)
        self.guided = list(row_batches(windows, 2, rows_at_once))
        # A row that only fills up would cost as much as guidance; but a mesh needs one for each of its parts.
        self.unguided = list(row_batches(windows, 1, rows_at_once, fill=mesh is not None))
        counts = np.zeros(plan.frames, np.float32)
        np.add.at(counts, plan.indices, plan.weights)
        mean = plan.weights / counts[plan.indices]
        self.shares = {n: branch_shares(scales, n) * mean[:, None] for n in (1, 2)}

    def calls(self, sigma: Float[np.floating, ""]) -> int:
        """How many calls of `predict` a noise level takes."""
        return len(self.guided if self.guides(sigma) else self.unguided)

    def __call__(self, latents: Float[Array, "f h w c"], sigma: Float[np.floating, ""]) -> Float[Array, "f h w c"]:
        """The clean sample that noisy latents are predicted to be."""
        branches, batches = (2, self.guided) if self.guides(sigma) else (1, self.unguided)
        total = jnp.zeros(latents.shape, jnp.float32, device=replicated(self.mesh))
        for i, batch in enumerate(batches):
            indices = self.plan.indices[batch.window]
            driven = {k: self.driving(k, sigma) for k in set(batch.window.tolist())}  # branches share a window's
            dropped = batch.branch == UNCONDITIONAL
            rows = _take_rows(latents, self.condition, [driven[k] for k in batch.window.tolist()], indices, dropped)
            prediction = self.predict(shard_batch(rows, self.mesh), jnp.asarray(sigma), Place(branches, i))
            shares = batch.weight[:, None] * self.shares[branches][batch.window, batch.branch]
            total = _add_rows(total, prediction, indices, shares)
            if self.on_call and i + 1 < len(batches):
                total.block_until_ready()  # or the bar would show how fast work is queued
                self.on_call(i + 1)
        return _clean(total, latents, sigma)


@jax.jit
def _take_rows(
    latents: Array, condition: Conditioning, driven: list[dict[str, Any]], indices: Array, dropped: Array
) -> Rows:
    r = len(indices)
    video = condition._replace(
        added_time_ids=jnp.broadcast_to(condition.added_time_ids, (r, *condition.added_time_ids.shape[1:])),
        **jax.tree.map(lambda *of_rows: jnp.stack(of_rows), *driven),
    )
    return Rows(latents[indices], unconditional_where(video, dropped))


@partial(jax.jit, donate_argnums=0)
def _add_rows(total: Array, prediction: Array, indices: Array, shares: Array) -> Array:
    return total.at[indices].add(prediction * shares[:, :, None, None, None])


@jax.jit
def _clean(total: Array, latents: Array, sigma: Array) -> Array:
    return diffusion.denoised(total, latents, sigma)


@dataclass(frozen=True)
class RowBatch:
    """One call's share of the rows of a step, on the host."""

    window: Int[np.ndarray, "r"]
    """Which window."""
    branch: Int[np.ndarray, "r"]
    """Which branch; see `guidance`."""
    weight: Float32[np.ndarray, "r"]
    """1, or 0 for a row that only fills the batch up."""


def row_batches(windows: int, branches: int, rows_at_once: int, *, fill: bool = True) -> Iterator[RowBatch]:
    """All rows of a step in batches of `rows_at_once`, a window's branches beside each other.

    The last batch is filled up to that number, so that all are of one shape, or with `fill` False has what is left.
    """
    rows = np.arange(windows * branches)
    for start in range(0, len(rows), rows_at_once):
        batch = np.arange(start, start + rows_at_once)
        batch = batch if fill else batch[batch < len(rows)]
        real = batch < len(rows)
        batch = np.where(real, batch, rows[-1])
        yield RowBatch(batch // branches, batch % branches, real.astype(np.float32))


def driven_by(
    driver: Model[PoseNet] | Model[ControlNet], poses: UInt8[np.ndarray, "f H W 3"], plan: Windows
) -> Driving:
    """Poses through the network that a model has for them: skeleton images of the video's frames, on the host."""
    features = {PoseNet: PoseFeatures, ControlNet: ControlFeatures}[driver.blueprint.kind]
    return features(driver, poses, plan)


def undriven(window: int, sigma: Float[np.floating, ""]) -> dict[str, Any]:
    """The `Driving` of a model that takes no poses."""
    del window, sigma
    return {}


class PoseFeatures:
    """The `Driving` by PoseNet: features kept on the device where all of them fit, else computed when asked for.

    Args:
        pose_net: the model.
        poses: skeleton images of the video's frames, on the host.
        plan: the windows.
        most_bytes: that are kept.
    """

    def __init__(
        self,
        pose_net: Model[PoseNet],
        poses: UInt8[np.ndarray, "f H W 3"],
        plan: Windows,
        most_bytes: int = POSE_FEATURE_BYTES,
    ):
        self.pose_net, self.poses, self.plan = pose_net, poses, plan
        first = self._compute(0)
        keep = first.nbytes * len(plan.poses) <= most_bytes
        self.kept = [first, *map(self._compute, range(1, len(plan.poses)))] if keep else None

    def _compute(self, window: int) -> Float[Array, "w h w2 d"]:
        return _encode_poses(self.pose_net, self.poses[self.plan.poses[window]])

    def __call__(self, window: int, sigma: Float[np.floating, ""]) -> dict[str, Any]:
        """The features of a window's frames, in PoseNet's compute dtype."""
        del sigma
        return {"pose_features": self.kept[window] if self.kept else self._compute(window)}


@kept
@jax.jit
def _encode_poses(pose_net: Model[PoseNet], poses: Array) -> Array:
    return pose_net.module()(pixels(poses))


class ControlFeatures:
    """The `Driving` by a control net, whose features are others at every noise level.

    Args:
        control_net: the model.
        poses: skeleton images of the video's frames, on the host.
        plan: the windows.
    """

    def __init__(self, control_net: Model[ControlNet], poses: UInt8[np.ndarray, "f H W 3"], plan: Windows):
        self.control_net, self.poses, self.plan = control_net, poses, plan
        self.strength = jnp.float32(control_net.blueprint.config.strength)

        self.last: tuple[tuple[int, float], Control] | None = None

    def __call__(self, window: int, sigma: Float[np.floating, ""]) -> dict[str, Any]:
        """The features of a window's frames, in the control net's compute dtype."""
        wanted = (window, float(sigma))
        if self.last is None or self.last[0] != wanted:  # with one row a call, both branches ask one after the other
            features = encode_control(self.control_net, self.poses[self.plan.poses[window]], jnp.asarray(sigma))
            self.last = wanted, Control(features, self.strength)
        return {"control": self.last[1]}


@kept
@jax.jit
def encode_control(
    control_net: Model[ControlNet], poses: UInt8[Array, "w H W 3"], sigma: Float[Array, ""]
) -> Float[Array, "w h w2 c"]:
    """The control net's features of a window."""
    shares = poses[None].astype(jnp.float32) / 255
    return control_net.module()(shares, diffusion.timestep(sigma)[None])[0]
