"""The face optimisation as part of denoising: which steps, whose face, where it is, and what came of it."""

from collections.abc import Callable
from dataclasses import dataclass, replace

import jax
import jax.numpy as jnp
import numpy as np
from jax.sharding import Mesh
from jaxtyping import Array, Float, Float32, UInt8

from stableanimator_jax.data.face_track import Face, FaceTrack
from stableanimator_jax.errors import InputError
from stableanimator_jax.models.arcface import ArcFace
from stableanimator_jax.models.functional import Model
from stableanimator_jax.models.vae import VAE
from stableanimator_jax.sampling.config import Crop, HJBConfig
from stableanimator_jax.sampling.decode import decode_frames
from stableanimator_jax.sampling.face_crop import crops_of
from stableanimator_jax.sampling.hjb import refine
from stableanimator_jax.sampling.programs import kept

FindFace = Callable[[UInt8[np.ndarray, "H W 3"], int], Face | None]
"""The face of an RGB frame, whose number, from 0, comes too."""


@dataclass(frozen=True)
class StepReport:
    """What the optimisation did at one denoising step."""

    step: int
    """Counted from 0."""
    similarity_before: float
    """Mean cosine of the frames with a face to the reference; NaN where no frame has one."""
    similarity_after: float
    faces: int
    """Frames with a face."""


@dataclass(frozen=True, eq=False)
class FaceOptimisation:
    """What a video's faces shall become, and where they are."""

    config: HJBConfig
    reference: Float32[np.ndarray, "512"]
    """The reference face's raw ArcFace embedding; see `embed_face`."""
    faces: FaceTrack | FindFace
    """Where the faces are, in pixels of the output; or what finds them in the frames predicted at each step."""

    def __post_init__(self):
        if not np.isfinite(self.reference).all() or not np.any(self.reference):
            raise InputError("the reference face's embedding must be finite and not all zeros")
        if isinstance(self.faces, FaceTrack):
            crops_of(self.faces, self.config.crop)  # raises where it cannot be done

    def one_later(self) -> "FaceOptimisation":
        """The same of a video with a frame ahead of these, which is left as it is."""
        if isinstance(faces := self.faces, FaceTrack):
            return replace(self, faces=FaceTrack.of([None, *faces.faces()]))
        return replace(self, faces=lambda frame, number: None if number == 0 else faces(frame, number - 1))


class FaceControl:
    """The hook that changes each predicted clean sample: HJB's control, by Adam (paper section 3.4)."""

    def __init__(
        self,
        vae: Model[VAE],
        arcface: Model[ArcFace],
        optimisation: FaceOptimisation,
        steps: int,
        *,
        decode_chunk: int = 4,
        mesh: Mesh | None = None,
        on_step: Callable[[StepReport], None] | None = None,
        on_chunk: Callable[[int, int], None] | None = None,
    ):
        """
        Args:
            vae, arcface: the models. What they compute in is the optimisation's own choice, but where faces are looked
                for, in frames that `vae` decodes as it is.
            optimisation: what to do.
            steps: of denoising.
            decode_chunk: frames decoded at once to look for faces in.
            mesh: whose devices take chunks apart; the models are on all of them.
            on_step: called after each optimised step.
            on_chunk: called with the frames optimised so far in this step, and all of them.

        Raises:
            InputError: the steps to be optimised are not among `steps`.
        """
        config = optimisation.config
        self.config = config
        self.optimised = config.optimised_steps(steps) if config.adam_iterations else range(0)
        self.steps = steps
        self.faces = optimisation.faces
        self.reference = jnp.asarray(optimisation.reference)
        self.decode_chunk, self.mesh = decode_chunk, mesh
        self.on_step, self.on_chunk = on_step, on_chunk
        self.full_vae = vae
        self.vae, self.arcface = vae.computing_in(config.dtype), arcface.computing_in(config.dtype)

    def __call__(self, step: int, clean: Float[Array, "f h w c"]) -> Float[Array, "f h w c"]:
        """The refined clean sample of a step, or the same where this step is not optimised."""
        if step not in self.optimised:
            return clean
        track = self.faces if isinstance(self.faces, FaceTrack) else self._find(clean)
        if len(track.valid) != len(clean):
            raise InputError(f"the faces are known of {len(track.valid)} frames, but the video has {len(clean)}")
        refined = refine(
            self.vae,
            self.arcface,
            clean,
            track,
            self.reference,
            self.config.learning_rate * (1 - step / self.steps),
            iterations=self.config.adam_iterations,
            chunk=self.config.chunk,
            crop=self.config.crop,
            margin=self.config.margin,
            mesh=self.mesh,
            on_chunk=self.on_chunk,
        )
        if self.config.dtype == "float16" and not np.isfinite([*refined.losses, refined.similarity_after]).all():
            raise InputError(
                f"the face optimisation of step {step + 1} met a number that is too large for float16: try --hjb.dtype "
                "bfloat16"
            )
        if self.on_step:
            self.on_step(StepReport(step, refined.similarity_before, refined.similarity_after, int(track.valid.sum())))
        return refined.latents

    def _find(self, clean: Array) -> FaceTrack:
        assert not isinstance(self.faces, FaceTrack)
        chunks = decode_frames(self.full_vae, clean, self.decode_chunk, mesh=self.mesh)
        height, width = (side * self.full_vae.blueprint.config.downscale for side in clean.shape[1:3])
        frames = (frame for chunk in chunks for frame in chunk)
        return FaceTrack.of([self.faces(frame, i) for i, frame in enumerate(frames)], (width, height))


def embed_face(
    arcface: Model[ArcFace], image: UInt8[np.ndarray, "H W 3"], face: Face, crop: Crop
) -> Float32[np.ndarray, "512"]:
    """The raw embedding of a photo's face, cropped as the frames' faces are.

    Args:
        arcface: the model.
        image: RGB photo.
        face: where it is in the photo.
        crop: "box" or "aligned".

    Raises:
        InputError: "aligned" without landmarks.
    """
    if crop == "aligned" and face.landmarks is None:
        raise InputError("--hjb.crop aligned needs the landmarks of the reference's face, and only its box is known")
    cut = crops_of(FaceTrack.of([face]), crop).cut(jnp.asarray(image[None], jnp.float32) / 255)
    return np.asarray(_embed(arcface.computing_in("float32"), cut * 2 - 1)[0])


@kept
@jax.jit
def _embed(arcface: Model[ArcFace], faces: Array) -> Array:
    return arcface.module()(faces)
