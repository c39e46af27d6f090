"""The whole sampler as one object: a checkpoint in, videos out."""

from collections.abc import Callable, Iterator
from dataclasses import dataclass
from typing import Literal

import jax
import jax.numpy as jnp
import numpy as np
from jax.sharding import Mesh
from jaxtyping import Array, Float, Float32, UInt8

from stableanimator_jax.config import StableAnimatorConfig
from stableanimator_jax.errors import InputError
from stableanimator_jax.models.arcface import ArcFace
from stableanimator_jax.models.conditioning import Conditioning
from stableanimator_jax.models.face_encoder import FaceEncoder
from stableanimator_jax.models.functional import Blueprint, Model
from stableanimator_jax.models.image_encoder import ImageEncoder
from stableanimator_jax.models.layers import Precision
from stableanimator_jax.models.pose_net import PoseNet
from stableanimator_jax.models.unet import UNet
from stableanimator_jax.models.vae import VAE
from stableanimator_jax.sampling.conditions import encode_condition
from stableanimator_jax.sampling.config import Crop, SamplingConfig
from stableanimator_jax.sampling.decode import decode_frames
from stableanimator_jax.sampling.denoise import Progress, denoise
from stableanimator_jax.sampling.face_control import FaceControl, FaceOptimisation, StepReport, embed_face
from stableanimator_jax.sampling.samplers import Hook
from stableanimator_jax.shipped import EMBEDDED
from stableanimator_jax.weights.opening import open_checkpoint

Dtype = Literal["bfloat16", "float32"]
PUBLISHED = SamplingConfig()


@dataclass(frozen=True)
class Animator:
    """The models that sampling needs, loaded. Make one with `Animator.load`."""

    config: StableAnimatorConfig
    unet: Model[UNet]
    pose_net: Model[PoseNet]
    vae: Model[VAE]
    image_encoder: Model[ImageEncoder]
    face_encoder: Model[FaceEncoder] | None
    """None where the UNet takes no face (`unet.id_injection` is "none")."""
    arcface: Model[ArcFace] | None = None
    """Loaded for the face optimisation only."""
    mesh: Mesh | None = None

    @classmethod
    def load(
        cls,
        checkpoint: str = EMBEDDED,
        *,
        dtype: Dtype = "bfloat16",
        arcface: bool = False,
        mesh: Mesh | None = None,
    ) -> "Animator":
        """Load a checkpoint.

        Args:
            checkpoint: a checkpoint directory, a training run's folder (its last weights), or "embedded" for the
                small one in this package.
            dtype: what UNet, PoseNet, Face Encoder and CLIP compute in. VAE and ArcFace are float32, as SVD asks.
            arcface: load ArcFace too, which the face optimisation needs.
            mesh: devices to spread the denoiser's rows over; parameters are copied to each.

        Raises:
            InputError: no such checkpoint, or one that does not hold these models.
        """
        source = open_checkpoint(checkpoint)
        config = source.config
        reduced = Precision(jnp.dtype(dtype), jnp.dtype(dtype))
        full = Precision(jnp.dtype("float32"), jnp.dtype("float32"))
        return cls(
            config=config,
            unet=source.load("unet", Blueprint(UNet, config.unet, reduced), mesh),
            pose_net=source.load("pose_net", Blueprint(PoseNet, config.pose_net, reduced), mesh),
            vae=source.load("vae", Blueprint(VAE, config.vae, full), mesh),
            image_encoder=source.load("image_encoder", Blueprint(ImageEncoder, config.image_encoder, reduced), mesh),
            face_encoder=source.load("face_encoder", Blueprint(FaceEncoder, config.face_encoder, reduced), mesh)
            if config.unet.takes_faces
            else None,
            arcface=source.load("arcface", Blueprint(ArcFace, config.arcface, full), mesh) if arcface else None,
            mesh=mesh,
        )

    def animate(
        self,
        reference: UInt8[np.ndarray, "H0 W0 3"],
        poses: UInt8[np.ndarray, "f H W 3"],
        *,
        id_embedding: Float[np.ndarray, "512"] | None = None,
        sampling: SamplingConfig = PUBLISHED,
        hjb: FaceOptimisation | None = None,
        on_denoise: Progress | None = None,
        on_optimise: Progress | None = None,
        on_optimised: Callable[[StepReport], None] | None = None,
        on_decode: Progress | None = None,
    ) -> UInt8[np.ndarray, "f H W 3"]:
        """Animate a person along poses. Arguments as for `stream`; all frames at once."""
        chunks = self.stream(
            reference,
            poses,
            id_embedding=id_embedding,
            sampling=sampling,
            hjb=hjb,
            on_denoise=on_denoise,
            on_optimise=on_optimise,
            on_optimised=on_optimised,
            on_decode=on_decode,
        )
        return np.concatenate(list(chunks))

    def stream(
        self,
        reference: UInt8[np.ndarray, "H0 W0 3"],
        poses: UInt8[np.ndarray, "f H W 3"],
        *,
        id_embedding: Float[np.ndarray, "512"] | None = None,
        sampling: SamplingConfig = PUBLISHED,
        hjb: FaceOptimisation | None = None,
        on_denoise: Progress | None = None,
        on_optimise: Progress | None = None,
        on_optimised: Callable[[StepReport], None] | None = None,
        on_decode: Progress | None = None,
    ) -> Iterator[UInt8[np.ndarray, "n H W 3"]]:
        """Animate a person along poses, chunk of frames by chunk.

        Args:
            reference: RGB photo of the person. It is resized to the poses' size; crop it to their aspect first
                (`stableanimator_jax.data.images.fit_aspect`), or it is stretched.
            poses: RGB skeleton images in DWPose's style, one a frame; their size is the output's, both sides
                multiples of `config.size_multiple` pixels.
            id_embedding: the person's raw ArcFace embedding; None leaves the face to the reference alone, and so do
                weights without an ID adapter, as SVD's own.
            sampling: settings.
            hjb: optimise the face while denoising (paper section 3.4); needs `Animator.load(..., arcface=True)`.
            on_denoise, on_decode: called with (done, total) as the work goes on.
            on_optimise: called with the frames optimised so far at a denoising step, and all of them.
            on_optimised: called with what the face optimisation did at a denoising step.

        Raises:
            InputError: sizes or types that do not fit; `SamplingError`: latents that are no longer finite.
        """
        self._check(reference, poses)
        embedding = np.zeros(self.config.face_encoder.id_embedding_dim, np.float32)
        if id_embedding is not None:
            embedding = np.asarray(id_embedding, np.float32)
            if embedding.shape != (self.config.face_encoder.id_embedding_dim,):
                raise InputError(
                    f"the face embedding has shape {list(embedding.shape)}, "
                    f"must be [{self.config.face_encoder.id_embedding_dim}]"
                )
            if not np.isfinite(embedding).all():
                raise InputError("the face embedding holds NaN or infinite values")
        hook = None
        if hjb is not None:
            hook = self._face_control(hjb, sampling, on_optimise, on_optimised)
        height, width = poses.shape[1:3]
        augmentation_key, noise_key = jax.random.split(jax.random.key(sampling.seed))
        augmentation = jax.random.normal(augmentation_key, (height, width, 3))
        condition = self.encode(reference, embedding, augmentation, sampling)
        scale = self.config.vae.downscale
        noise_shape = (sampling.window, height // scale, width // scale, self.config.vae.latent_channels)
        noise = jax.random.normal(noise_key, noise_shape)
        latents = self.denoise(condition, poses, noise, sampling, on_denoise, hook=hook)
        yield from decode_frames(self.vae, latents, sampling.decode_chunk, on_decode)

    def encode(
        self,
        reference: UInt8[np.ndarray, "H0 W0 3"],
        id_embedding: Float[np.ndarray, "512"],
        augmentation_noise: Float[Array, "H W 3"],
        sampling: SamplingConfig,
    ) -> Conditioning:
        """The conditions of a video; see `sampling.conditions.encode_condition`."""
        return encode_condition(
            self.image_encoder,
            self.face_encoder,
            self.vae,
            reference,
            id_embedding,
            augmentation_noise,
            sampling.added_time_ids,
        )

    def denoise(
        self,
        condition: Conditioning,
        poses: UInt8[np.ndarray, "f H W 3"],
        noise: Float[Array, "w h w2 c"],
        sampling: SamplingConfig,
        on_progress: Progress | None = None,
        *,
        hook: Hook | None = None,
    ) -> Float[Array, "f h w2 c"]:
        """The latents of a video; see `sampling.denoise.denoise`."""
        return denoise(
            self.unet,
            self.pose_net,
            condition,
            poses,
            noise,
            sampling,
            hook=hook,
            mesh=self.mesh,
            on_progress=on_progress,
        )

    def embed_face(
        self,
        image: UInt8[np.ndarray, "H W 3"],
        box: Float32[np.ndarray, "4"],
        landmarks: Float32[np.ndarray, "5 2"] | None = None,
        crop: Crop = "box",
    ) -> Float32[np.ndarray, "512"]:
        """The raw ArcFace embedding of a photo's face; see `sampling.face_control.embed_face`."""
        return embed_face(self._arcface(), image, box, landmarks, crop)

    def _arcface(self) -> Model[ArcFace]:
        if self.arcface is None:
            raise InputError("the face optimisation needs ArcFace: load the checkpoint with arcface=True")
        return self.arcface

    def _face_control(
        self,
        hjb: FaceOptimisation,
        sampling: SamplingConfig,
        on_chunk: Progress | None,
        on_step: Callable[[StepReport], None] | None,
    ) -> FaceControl:
        return FaceControl(
            self.vae,
            self._arcface(),
            hjb,
            sampling.steps,
            decode_chunk=sampling.decode_chunk,
            on_chunk=on_chunk,
            on_step=on_step,
        )

    def _check(self, reference: np.ndarray, poses: np.ndarray) -> None:
        for name, array, ndim in (("reference", reference, 3), ("poses", poses, 4)):
            if array.dtype != np.uint8 or array.ndim != ndim or array.shape[-1] != 3 or 0 in array.shape:
                wanted = "[height, width, 3]" if ndim == 3 else "[frames, height, width, 3]"
                raise InputError(f"{name} must be uint8 RGB {wanted}, not empty; got {array.dtype} {list(array.shape)}")
        check_size(self.config, width=poses.shape[2], height=poses.shape[1])


def check_size(config: StableAnimatorConfig, *, width: int, height: int) -> None:
    """Raise `InputError` unless the output size suits the models; the message names the nearest that does."""
    multiple = config.size_multiple
    if width % multiple or height % multiple or min(width, height) < multiple:
        near_width, near_height = (max(multiple, round(n / multiple) * multiple) for n in (width, height))
        raise InputError(
            f"the output size {width}x{height} does not work: width and height must be multiples of {multiple}; "
            f"the nearest is {near_width}x{near_height}"
        )
