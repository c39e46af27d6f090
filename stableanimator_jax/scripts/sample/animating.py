"""A run's inputs given to the models: frames come out, and bars show how it goes."""

import itertools
from collections.abc import Callable, Iterator
from dataclasses import replace
from typing import TYPE_CHECKING

import numpy as np
from jaxtyping import Float32, UInt8

from stableanimator_jax.data.face_track import Face, FaceTrack
from stableanimator_jax.progress import ProgressBars, Stopwatch
from stableanimator_jax.sampling.config import Crop
from stableanimator_jax.scripts.sample.faces import FaceInputs, Portrait
from stableanimator_jax.scripts.sample.inputs import Inputs
from stableanimator_jax.scripts.sample.settings import SampleConfig
from stableanimator_jax.scripts.sample.unfinished import Begun

if TYPE_CHECKING:
    from stableanimator_jax.sampling.face_control import FaceOptimisation, StepReport
    from stableanimator_jax.sampling.pipeline import Animator
    from stableanimator_jax.sampling.samplers import Unfinished


def with_a_face(inputs: Inputs) -> Inputs:
    """The inputs with a face in every frame, where faces are looked for: without one nothing would be optimised."""
    if inputs.face is None or isinstance(inputs.face.faces, FaceTrack):
        return inputs
    size = np.asarray(inputs.size, np.float32)
    landmarks = np.asarray([[0.45, 0.45], [0.55, 0.45], [0.5, 0.5], [0.46, 0.55], [0.54, 0.55]], np.float32) * size
    anywhere = Face(np.concatenate([0.4 * size, 0.6 * size]), landmarks)
    return replace(inputs, face=replace(inputs.face, faces=lambda frame, number: anywhere))


def _optimisation(animator: "Animator", face: FaceInputs, config: SampleConfig) -> "FaceOptimisation":
    from stableanimator_jax.sampling.face_control import FaceOptimisation

    return FaceOptimisation(config.hjb, _embedded(animator, face.reference, config.hjb.crop), face.faces)


def _embedded(animator: "Animator", face: Portrait | np.ndarray, crop: Crop) -> Float32[np.ndarray, "512"]:
    if isinstance(face, Portrait):
        return animator.embed_face(face.image, face.face, crop)
    return face


def animated(
    animator: "Animator",
    inputs: Inputs,
    config: SampleConfig,
    watch: Stopwatch,
    begun: Begun,
    *,
    on_unfinished: "Callable[[Unfinished], None] | None" = None,
    shown: bool = True,
) -> Iterator[UInt8[np.ndarray, "H W 3"]]:
    """The video's frames one by one, but for those that are there.

    Args:
        animator: the models.
        inputs, config: the run's.
        watch: hears when denoising ends.
        begun: where to begin; what the face optimisation does is added to its reports.
        on_unfinished: called with every place from which another run can go on.
        shown: by progress bars.
    """
    hjb = None if inputs.face is None else _optimisation(animator, inputs.face, config)
    identity = inputs.identity.embedding
    with ProgressBars(shown=shown) as bars:
        steps = config.sampling.steps
        on_denoise = bars.begin("denoising", "call")
        bars.step(1, steps)
        on_decode = None

        def denoised(done: int, total: int) -> None:
            nonlocal on_decode
            on_denoise(done, total)
            if done == total:
                watch.lap("denoise")
                on_decode = bars.begin("decoding", "frame")

        def optimise(done: int, total: int) -> None:
            bars.note(f"optimising the face in frame {done} of {total}")

        def optimised(report: "StepReport") -> None:
            begun.reports.append(report)
            similarity = f"face similarity {report.similarity_before:.3f} -> {report.similarity_after:.3f}"
            bars.note(similarity if report.faces else "no face found")

        def decoded(done: int, total: int) -> None:
            assert on_decode is not None  # decoding follows denoising
            on_decode(done, total)

        chunks = animator.stream(
            inputs.reference,
            inputs.poses,
            reference_pose=inputs.reference_pose,
            frames=inputs.frames if inputs.poses is None else None,
            width=inputs.size[0],
            height=inputs.size[1],
            id_embedding=None if identity is None else _embedded(animator, identity, "box"),
            sampling=config.sampling,
            hjb=hjb,
            on_step=lambda step, _: bars.step(step + 2, steps) if step + 1 < steps else None,
            on_denoise=denoised,
            on_optimise=optimise,
            on_optimised=optimised,
            on_decode=decoded,
            unfinished=begun.state,
            on_unfinished=on_unfinished,
            first_frame=inputs.finishing.first_decoded(begun.frames),
        )
        yield from inputs.finishing(itertools.chain.from_iterable(chunks), begun.frames)
