"""What a video will take, before it is computed: arithmetic counted from the programs, time and memory foretold."""

import math
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import jax
import jax.numpy as jnp

from stableanimator_jax.config import Dtype, StableAnimatorConfig
from stableanimator_jax.family import member
from stableanimator_jax.models.catalogue import blueprint, sampling_models
from stableanimator_jax.models.conditioning import Conditioning, Control
from stableanimator_jax.models.flops import matmul_flops
from stableanimator_jax.models.functional import Model
from stableanimator_jax.sampling.config import HJBConfig, SamplingConfig
from stableanimator_jax.sampling.decode import decode_chunk
from stableanimator_jax.sampling.denoiser import Rows, encode_control, predict
from stableanimator_jax.sampling.windows import tile

Array = Callable[..., Any]
"""A `jax.ShapeDtypeStruct`: called with sides, and perhaps a `dtype`; float32 where none is given."""

_SHARE_OF_MATMUL = 0.5
"""Of the rate of plain matrix products that denoising reaches: 0.47 to 0.56 on an H200."""
_STEP_BYTES = 18.0
"""Of temporaries for each byte at the UNet's first width in one call: as compiled for an H100, 576x1024, 16 bits."""


@dataclass(frozen=True)
class Forecast:
    """Of one video, on one device."""

    denoise_flop: float
    decode_flop: float
    optimise_flop: float
    """Of the face optimisation, about."""
    weight_bytes: int
    step_bytes: float
    """Of temporaries in one call of the UNet, about."""

    @property
    def flop(self) -> float:
        return self.denoise_flop + self.decode_flop + self.optimise_flop

    def seconds(self, matmul_rate: float) -> float:
        """On a device of this rate, without loading and compiling, about."""
        return self.flop / (_SHARE_OF_MATMUL * matmul_rate)


def forecast(
    config: StableAnimatorConfig,
    frames: int,
    width: int,
    height: int,
    sampling: SamplingConfig,
    hjb: HJBConfig,
    dtype: Dtype,
) -> Forecast:
    """Of `frames` to denoise. Traces the UNet and the decoder: ten seconds at the published size.

    Args:
        config: the models.
        frames, width, height: of the video.
        sampling, hjb: its settings.
        dtype: what the models compute in.
    """
    plan = tile(member(config).tiling, frames, sampling.window, sampling.overlap)
    models = [abstract_model(config, name, dtype, array) for name in sampling_models(config)]
    row = matmul_flops(predict, *step_arguments(config, plan.window, width, height, dtype, array)) / 2
    driven = control_flops(config, plan.window, width, height, dtype)
    levels = sampling.sigmas[:-1]
    rows = len(plan.indices) * sum(2 if sampling.guides(sigma) else 1 for sigma in levels)
    chunk = min(sampling.decode_chunk, frames)
    latents = array(chunk, *latent_size(config, width, height), config.vae.latent_channels)
    decoding = matmul_flops(decode_chunk, abstract_model(config, "vae", dtype, array), latents) * frames / chunk
    optimised = len(hjb.optimised_steps(sampling.steps)) if hjb.adam_iterations else 0
    numbers = math.prod((sampling.rows_at_once, plan.window, *latent_size(config, width, height)))
    return Forecast(
        denoise_flop=row * rows + driven * len(plan.indices) * len(levels),
        decode_flop=decoding,
        optimise_flop=3 * decoding * hjb.adam_iterations * optimised,  # a gradient is twice its function
        weight_bytes=sum(leaf.size * leaf.dtype.itemsize for leaf in jax.tree.leaves([m.params for m in models])),
        step_bytes=_STEP_BYTES * numbers * config.unet.block_out_channels[0] * jnp.dtype(dtype).itemsize,
    )


def array(*shape: int, dtype: Any = jnp.float32) -> Any:
    """An abstract array, nowhere in particular."""
    return jax.ShapeDtypeStruct(shape, dtype)


def latent_size(config: StableAnimatorConfig, width: int, height: int) -> tuple[int, int]:
    """Height and width of the latents of an output of this size."""
    return height // config.vae.downscale, width // config.vae.downscale


def abstract_model(config: StableAnimatorConfig, name: str, dtype: Dtype, array: Array) -> Model[Any]:
    """One model, its parameters where `array` puts them."""
    made_from = blueprint(config, name, dtype)
    leaves = jax.tree.map(lambda leaf: array(*leaf.shape, dtype=leaf.dtype), made_from.abstract_params())
    return Model(leaves, made_from)


def control_flops(config: StableAnimatorConfig, frames: int, width: int, height: int, dtype: Dtype) -> int:
    """Of the control net on one window, of models that have one."""
    if member(config).driver != "control_net":
        return 0
    poses = array(frames, height, width, 3, dtype=jnp.uint8)
    return matmul_flops(encode_control, abstract_model(config, "control_net", dtype, array), poses, array())


def step_arguments(
    config: StableAnimatorConfig, frames: int, width: int, height: int, dtype: Dtype, array: Array
) -> tuple[Model[Any], Rows, Any]:
    """What `denoiser.predict` takes for one guided window of so many frames."""
    kind, channels, rows = member(config), config.vae.latent_channels, 2
    size, compute = latent_size(config, width, height), jnp.dtype(dtype)
    pose_features, control = None, None
    if kind.driver == "pose_net":
        pose_features = array(rows, frames, *size, config.pose_net.out_channels, dtype=compute)
    if kind.driver == "control_net":
        net, poses = abstract_model(config, "control_net", dtype, array), array(frames, height, width, 3)
        sides = jax.eval_shape(encode_control, net, poses, array()).shape
        control = Control(array(rows, *sides, dtype=compute), array(rows))
    takes_face = config.unet.takes_faces
    faces = array(rows, config.face_encoder.num_tokens, config.unet.cross_attention_dim) if takes_face else None
    conditioning = Conditioning(
        image_embedding=array(rows, config.image_encoder.projection_dim),
        face_tokens=faces,
        added_time_ids=array(rows, 3),
        image_latents=array(rows, *size, channels),
        pose_features=pose_features,
        control=control,
    )
    unet = abstract_model(config, "unet", dtype, array)
    return unet, Rows(array(rows, frames, *size, channels), conditioning), array()
