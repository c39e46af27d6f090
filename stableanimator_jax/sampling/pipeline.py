"""The whole sampler as one object: a checkpoint in, videos out."""

from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any, Literal

import jax
import jax.numpy as jnp
import numpy as np
from jax.sharding import Mesh
from jaxtyping import Array, Float, Float32, UInt8

from stableanimator_jax.config import StableAnimatorConfig
from stableanimator_jax.data.face_track import Face
from stableanimator_jax.data.images import FitMode, ImageLike
from stableanimator_jax.data.poses import PosesLike
from stableanimator_jax.diffusion import standard_noise
from stableanimator_jax.errors import InputError
from stableanimator_jax.family import member
from stableanimator_jax.models.arcface import ArcFace
from stableanimator_jax.models.catalogue import blueprint, sampling_models
from stableanimator_jax.models.conditioning import Conditioning
from stableanimator_jax.models.control_net import ControlNet
from stableanimator_jax.models.face_encoder import FaceEncoder
from stableanimator_jax.models.functional import Model
from stableanimator_jax.models.image_encoder import ImageEncoder
from stableanimator_jax.models.pose_net import PoseNet
from stableanimator_jax.models.unet import UNet
from stableanimator_jax.models.vae import VAE
from stableanimator_jax.parallel import make_mesh, on_part
from stableanimator_jax.runtime import choose_devices, compute_dtype
from stableanimator_jax.sampling.conditions import encode_condition
from stableanimator_jax.sampling.config import Crop, SamplingConfig
from stableanimator_jax.sampling.decode import decode_frames, without_first
from stableanimator_jax.sampling.deep_cache import check_branch
from stableanimator_jax.sampling.denoise import Progress, denoise
from stableanimator_jax.sampling.devices import DevicePlan, plan_devices
from stableanimator_jax.sampling.face_control import FaceControl, FaceOptimisation, StepReport, embed_face
from stableanimator_jax.sampling.samplers import OnStep, Sampler, Unfinished, sampler_of
from stableanimator_jax.sampling.strengths import check_strengths, frame_strengths
from stableanimator_jax.sampling.video_inputs import video_inputs
from stableanimator_jax.sampling.windows import tile
from stableanimator_jax.shipped import EMBEDDED
from stableanimator_jax.weights.checkpoint import MODELS, describe, save_checkpoint
from stableanimator_jax.weights.opening import open_checkpoint


def plan_for(
    config: StableAnimatorConfig,
    available: int,
    frames: int,
    sampling: SamplingConfig,
    frame_devices: int | None = None,
) -> DevicePlan:
    """As `plan_devices`, of so many frames to denoise; each of several processes must have a part in it."""
    tiling, several = member(config).tiling, jax.process_count() > 1
    return plan_devices(available, frames, sampling, frame_devices, tiling=tiling, all_of_them=several)


@dataclass(frozen=True, eq=False, repr=False)
class Animator:
    """The models that sampling needs, loaded. Make one with `Animator.from_pretrained`."""

    config: StableAnimatorConfig
    unet: Model[UNet]
    vae: Model[VAE]
    image_encoder: Model[ImageEncoder]
    pose_net: Model[PoseNet] | None = None
    """None where poses go through no PoseNet, or there are none (`family.FAMILY`)."""
    control_net: Model[ControlNet] | None = None
    """ControlNeXt's."""
    face_encoder: Model[FaceEncoder] | None = None
    """None where the UNet takes no face (`unet.id_injection` is "none")."""
    arcface: Model[ArcFace] | None = None
    """Loaded for the face optimisation only."""
    devices: tuple[Any, ...] = ()
    """Those that hold the models and share the work, where they are more than JAX's default one."""
    frame_devices: int | None = None
    """Those that share the frames of a window; None leaves it to `plan`."""
    source: Mapping[str, Any] = field(default_factory=dict)
    """Where the weights came from, as their checkpoint says."""

    @classmethod
    def from_pretrained(
        cls,
        checkpoint: str | Path = EMBEDDED,
        *,
        dtype: Any = "auto",
        arcface: bool = False,
        devices: int | Literal["all"] | Sequence[Any] = 1,
        frame_devices: int | None = None,
    ) -> "Animator":
        """Load a checkpoint.

        Args:
            checkpoint: a checkpoint directory, a training run's folder (its last weights), `hf://OWNER/REPOSITORY` on
                the Hugging Face hub (a checkpoint's files as they are; `@REVISION` may follow), or "embedded" for the
                small one in this package.
            dtype: what UNet, PoseNet, Face Encoder and CLIP compute in: float32, bfloat16 or float16, or "auto":
                float16 on a GPU, as published, bfloat16 on a TPU, float32 on a CPU. VAE and ArcFace are float32, as
                SVD asks, but for the VAE's decoder with float16, as published.
            arcface: load ArcFace too, which `embed_face` and the face optimisation need.
            devices: how many of JAX's devices share the work, "all" of them, or which. Each holds a copy of the models;
                a video takes those that make it faster (`sampling.devices.plan_devices`). Several processes
                (`jax.distributed`) must give "all", and make the same calls.
            frame_devices: how many of them share the frames of a window; by default as many as is fastest.

        Raises:
            InputError: no such checkpoint, dtype or devices, or a checkpoint that does not hold these models.
        """
        computed = compute_dtype(dtype)
        opened = open_checkpoint(str(checkpoint))
        chosen = choose_devices(devices)
        mesh = None if chosen == choose_devices(1) else make_mesh(devices=chosen)
        names = [*sampling_models(opened.config), *["arcface"] * arcface]
        models = {name: opened.load(name, blueprint(opened.config, name, computed), mesh) for name in names}
        return cls(
            opened.config, **models, devices=chosen, frame_devices=frame_devices, source=describe(opened.path).source
        )

    def save_pretrained(self, directory: str | Path, *, overwrite: bool = False) -> None:
        """Write the models as a checkpoint that `from_pretrained` and every script take, all or nothing.

        Parameters are written as they are held: loaded in 16 bits, they are saved in 16 bits.

        Args:
            directory: the checkpoint to make.
            overwrite: replace a checkpoint that is there; nothing else is ever replaced.

        Raises:
            InputError: something is there already, or it cannot be written.
        """
        params = {name: model.params for name, model in self._models().items()}
        save_checkpoint(directory, self.config, params, self.source, overwrite=overwrite)

    def __repr__(self) -> str:
        models = self._models()
        count = sum(leaf.size for model in models.values() for leaf in jax.tree.leaves(model.params))
        compute = jnp.dtype(self.unet.blueprint.precision.compute).name
        return f"Animator({', '.join(models)}: {count / 1e6:,.1f} million parameters, computing in {compute})"

    def animate(
        self,
        reference: ImageLike,
        poses: PosesLike | None = None,
        *,
        reference_pose: ImageLike | None = None,
        frames: int | None = None,
        width: int | None = None,
        height: int | None = None,
        fit: FitMode = "crop",
        id_embedding: Float[np.ndarray, "512"] | None = None,
        sampling: SamplingConfig | None = None,
        pose_strength: Float[np.ndarray, "f"] | Sequence[float] | None = None,
        key: Array | None = None,
        noise: Float[Array, "w h w2 c"] | None = None,
        sampler: Sampler | None = None,
        hjb: FaceOptimisation | None = None,
        on_step: OnStep | None = None,
        on_denoise: Progress | None = None,
        on_optimise: Progress | None = None,
        on_optimised: Callable[[StepReport], None] | None = None,
        on_decode: Progress | None = None,
    ) -> UInt8[np.ndarray, "f H W 3"]:
        """Animate a person along poses. Arguments as for `stream`; all frames at once."""
        chunks = self.stream(
            reference,
            poses,
            reference_pose=reference_pose,
            frames=frames,
            width=width,
            height=height,
            fit=fit,
            id_embedding=id_embedding,
            sampling=sampling,
            pose_strength=pose_strength,
            key=key,
            noise=noise,
            sampler=sampler,
            hjb=hjb,
            on_step=on_step,
            on_denoise=on_denoise,
            on_optimise=on_optimise,
            on_optimised=on_optimised,
            on_decode=on_decode,
        )
        return np.concatenate(list(chunks))

    def stream(
        self,
        reference: ImageLike,
        poses: PosesLike | None = None,
        *,
        reference_pose: ImageLike | None = None,
        frames: int | None = None,
        width: int | None = None,
        height: int | None = None,
        fit: FitMode = "crop",
        id_embedding: Float[np.ndarray, "512"] | None = None,
        sampling: SamplingConfig | None = None,
        pose_strength: Float[np.ndarray, "f"] | Sequence[float] | None = None,
        key: Array | None = None,
        noise: Float[Array, "w h w2 c"] | None = None,
        sampler: Sampler | None = None,
        hjb: FaceOptimisation | None = None,
        on_step: OnStep | None = None,
        on_denoise: Progress | None = None,
        on_optimise: Progress | None = None,
        on_optimised: Callable[[StepReport], None] | None = None,
        on_decode: Progress | None = None,
        unfinished: Unfinished | None = None,
        on_unfinished: Callable[[Unfinished], None] | None = None,
        first_frame: int = 0,
    ) -> Iterator[UInt8[np.ndarray, "n H W 3"]]:
        """Animate a person along poses, chunk of frames by chunk.

        Inputs are read and checked at once; the work begins when the first chunk is asked for.

        Args:
            reference: photo of the person: a file, an image of Pillow's, or an RGB array. It is brought to the
                output's aspect as `fit` says.
            poses: skeletons in DWPose's style, one a frame: `Poses`, a directory or video of them, an RGB array, or
                images; or a file of keypoints, which are drawn so (docs/keypoints.md). None for models that take none
                (SVD, AnimateLCM).
            reference_pose: the skeleton of the person in the reference, for models that begin with it (MimicMotion,
                ControlNeXt), and only for them. ControlNeXt's video has a frame for it, its first.
            frames: of the video, for models that take no poses; by default as many as they were trained on.
            width, height: of the output, multiples of `config.size_multiple` pixels; by default the poses' own.
            fit: "crop" reference and poses to the output's aspect, or "pad" them to it with black.
            id_embedding: the person's raw ArcFace embedding; None leaves the face to the reference alone, and so do
                weights without an ID adapter, as SVD's own.
            sampling: settings; by default as the model is published.
            pose_strength: what each pose's features are multiplied by, beside `sampling.pose`: one number a pose, from
                0 to 3. The reference's own pose has the first one's.
            key: one of `jax.random`'s, instead of that of `sampling.seed`.
            noise: unit Gaussian noise to start one window of frames from, `[window, height / 8, width / 8, 4]` for the
                published models, instead of the key's. Of ControlNeXt, SVD and AnimateLCM all frames.
            sampler: how the steps are taken, where not as `sampling.sampler` says: a function like
                `sampling.samplers.euler`.
            hjb: optimise the face while denoising (paper section 3.4); needs `from_pretrained(..., arcface=True)`.
            on_step: called after every denoising step with its number, from 0, and the latents.
            on_denoise, on_decode: called with (done, total) as the work goes on.
            on_optimise: called with the frames optimised so far at a denoising step, and all of them.
            on_optimised: called with what the face optimisation did at a denoising step.
            unfinished: go on from here, where a run with the same arguments came to.
            on_unfinished: called with every such place; see `sampling.denoise.denoise`.
            first_frame: begin with this frame.

        Raises:
            InputError: files that cannot be read, sizes or types that do not fit; `SamplingError`: latents that are no
                longer finite.
        """
        kind = member(self.config)
        sampling = SamplingConfig.published(self.config.kind) if sampling is None else sampling
        given = video_inputs(
            self.config,
            reference,
            poses,
            reference_pose=reference_pose,
            frames=frames,
            width=width,
            height=height,
            mode=fit,
        )
        check_branch(self.config.unet, sampling.cache_branch)
        check_strengths(self.config, sampling, of_frames=pose_strength is not None)
        of_poses = None
        if pose_strength is not None:
            own = int(reference_pose is not None)
            of_poses = np.pad(frame_strengths(pose_strength, given.frames - own), (own, 0), mode="edge")
        embedding = self._embedding(id_embedding)
        plan = self.plan(given.frames, sampling)
        animator, mesh = self._on(plan)
        sampling = sampling if mesh is None else replace(sampling, rows_at_once=plan.rows)
        hjb = hjb if hjb is None or reference_pose is None else hjb.one_later()
        hook = None if hjb is None else animator._face_control(hjb, sampling, mesh, on_optimise, on_optimised)
        augmentation_key, noise_key = jax.random.split(_random_key(key, sampling.seed))
        scale = self.config.vae.downscale
        draws = tile(kind.tiling, given.frames, sampling.window, sampling.overlap).draws
        noise_shape = (draws, given.height // scale, given.width // scale, self.config.vae.latent_channels)
        if sampler is not None and not callable(sampler):
            raise InputError(
                "sampler must be a function such as sampling.samplers.euler; by its name it is a setting, "
                f"SamplingConfig(sampler=...): got {sampler!r}"
            )
        if noise is not None and np.shape(noise) != noise_shape:
            raise InputError(f"noise has shape {list(np.shape(noise))}, must be {list(noise_shape)}")

        def chunks() -> Iterator[UInt8[np.ndarray, "n H W 3"]]:
            augmentation = standard_noise(augmentation_key, (given.height, given.width, 3))
            condition = animator.encode(given.reference, embedding, augmentation, sampling)
            start = standard_noise(noise_key, noise_shape) if noise is None else jnp.asarray(noise, jnp.float32)
            latents = denoise(
                animator.unet,
                animator.driver,
                condition,
                given.poses,
                start,
                sampling,
                pose_strength=of_poses,
                tiling=kind.tiling,
                sampler=sampler or sampler_of(sampling.sampler, jax.random.fold_in(noise_key, 1)),
                hook=hook,
                mesh=mesh,
                on_step=on_step,
                on_progress=on_denoise,
                unfinished=unfinished,
                on_unfinished=on_unfinished,
            )
            first = first_frame + kind.drops_first
            chunk_start = first - first % sampling.decode_chunk
            decoded = decode_frames(
                animator.decoder,
                latents[chunk_start:],
                sampling.decode_chunk,
                on_decode,
                mesh=mesh,
                first_frame=chunk_start,
            )
            yield from without_first(decoded, first - chunk_start)

        return chunks()

    def plan(self, frames: int, sampling: SamplingConfig) -> DevicePlan:
        """How a video of so many frames, to denoise, is spread over the devices."""
        return plan_for(self.config, max(1, len(self.devices)), frames, sampling, self.frame_devices)

    def _on(self, plan: DevicePlan) -> "tuple[Animator, Mesh | None]":
        """The models on the plan's devices alone, and these as a mesh, None for a single one."""
        if len(self.devices) <= 1:
            return self, None
        mesh = plan.mesh(self.devices)
        models = self._models() if mesh.size == len(self.devices) else on_part(self._models(), mesh)
        return replace(self, **models), mesh if mesh.size > 1 else None

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

    @property
    def driver(self) -> Model[PoseNet] | Model[ControlNet] | None:
        """What poses go through."""
        name = member(self.config).driver
        return None if name is None else getattr(self, name)

    def embed_face(
        self,
        image: UInt8[np.ndarray, "H W 3"],
        face: Face,
        crop: Crop = "box",
    ) -> Float32[np.ndarray, "512"]:
        """The raw ArcFace embedding of a photo's face; see `sampling.face_control.embed_face`."""
        return embed_face(self._arcface(), image, face, crop)

    @property
    def decoder(self) -> Model[VAE]:
        """The VAE as it decodes frames that are looked at: in float16 with a UNet that computes in it."""
        is_float16 = self.unet.blueprint.precision.compute == jnp.float16
        return self.vae.computing_in(jnp.float16) if is_float16 else self.vae

    def _arcface(self) -> Model[ArcFace]:
        if self.arcface is None:
            raise InputError("the face optimisation needs ArcFace: load the checkpoint with arcface=True")
        return self.arcface

    def _face_control(
        self,
        hjb: FaceOptimisation,
        sampling: SamplingConfig,
        mesh: Mesh | None,
        on_chunk: Progress | None,
        on_step: Callable[[StepReport], None] | None,
    ) -> FaceControl:
        return FaceControl(
            self.decoder,
            self._arcface(),
            hjb,
            sampling.steps,
            decode_chunk=sampling.decode_chunk,
            mesh=mesh,
            on_chunk=on_chunk,
            on_step=on_step,
        )

    def _models(self) -> dict[str, Model[Any]]:
        """Those that are loaded, by name."""
        return {name: model for name in MODELS if (model := getattr(self, name)) is not None}

    def _embedding(self, given: Float[np.ndarray, "512"] | None) -> Float32[np.ndarray, "512"]:
        """Zeros where none is given."""
        size = self.config.face_encoder.id_embedding_dim
        embedding = np.zeros(size, np.float32) if given is None else np.asarray(given, np.float32)
        if embedding.shape != (size,):
            raise InputError(f"the face embedding has shape {list(embedding.shape)}, must be [{size}]")
        if not np.isfinite(embedding).all():
            raise InputError("the face embedding holds NaN or infinite values")
        return embedding


def _random_key(key: Array | None, seed: int) -> Array:
    if key is None:
        return jax.random.key(seed)
    if isinstance(key, jax.Array):
        if jnp.issubdtype(key.dtype, jax.dtypes.prng_key) and key.shape == ():
            return key
        if key.dtype == np.uint32 and key.shape == (2,):  # of jax.random.PRNGKey
            return jax.random.wrap_key_data(key)
    raise InputError("key must be one key of jax.random's, such as jax.random.key(0)")
