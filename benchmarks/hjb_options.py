"""What each setting of the face optimisation does to a video: similarity reached, time, and how much it changes.

    JAX_PLATFORMS=cpu python benchmarks/hjb_options.py                 # the small weights in the package
    python benchmarks/hjb_options.py --checkpoint CHECKPOINT --size 512

Animates the package's example once for every setting, all from the same seed, in the production sampler (`Animator`),
and prints a table, the machine, the versions and the command.
"""

import shlex
import time
from collections.abc import Sequence
from dataclasses import dataclass, replace
from typing import Annotated, Literal, NamedTuple

import jax.numpy as jnp
import numpy as np
from _device import machine, versions

from stableanimator_jax.data.face_track import FaceTrack, load_face_boxes
from stableanimator_jax.data.images import fit_aspect, load_image
from stableanimator_jax.data.poses import load_poses
from stableanimator_jax.errors import InputError
from stableanimator_jax.limits import Between, check_limits
from stableanimator_jax.models.arcface import cosine
from stableanimator_jax.sampling.config import Crop, HJBConfig, SamplingConfig
from stableanimator_jax.sampling.face_control import FaceOptimisation, StepReport
from stableanimator_jax.sampling.pipeline import Animator
from stableanimator_jax.scripts.cli import parse_flags, run_script
from stableanimator_jax.scripts.sample.faces import Portrait, portrait
from stableanimator_jax.shipped import EMBEDDED, EXAMPLE

EXAMPLE_FRAMES = 32
COLUMNS = (
    "setting",
    "cosine before and after the last optimised step",
    "of the video's faces, box crop",
    "of the video's faces, aligned",
    "seconds",
    "difference from published, 8-bit levels",
    "in the faces' boxes",
    "outside of them",
)
PUBLISHED = HJBConfig(iterations="published")
SETTINGS = {
    "published": PUBLISHED,  # first, because the others are compared with it
    "off": HJBConfig(),
    "paper": HJBConfig(iterations="paper"),
    "start-10": replace(PUBLISHED, start=10),
    "every-2": replace(PUBLISHED, every=2),
    "every-4": replace(PUBLISHED, every=4),
    "learning-rate-0.02": replace(PUBLISHED, learning_rate=0.02),
    "chunk-2": replace(PUBLISHED, chunk=2),
    "margin-0.25": replace(PUBLISHED, margin=0.25),
    "margin-0.5": replace(PUBLISHED, margin=0.5),
    "crop-aligned": replace(PUBLISHED, crop="aligned"),
    "dtype-bfloat16": replace(PUBLISHED, dtype="bfloat16"),
}


@dataclass(frozen=True)
class Options:
    """What to compare on."""

    checkpoint: str = EMBEDDED
    """A checkpoint directory with ArcFace in it, or the small weights in the package."""
    size: int = 64
    """Width and height in pixels."""
    frames: Annotated[int, Between(1, EXAMPLE_FRAMES)] = 16
    """Frames of the example's 32."""
    steps: Annotated[int, Between(1, 1000)] = 25
    """Denoising steps."""
    dtype: Literal["bfloat16", "float32"] = "float32"
    """What the denoiser computes in."""
    only: tuple[str, ...] = ()
    """Settings to compare with the published one; by default all of them."""

    def __post_init__(self):
        check_limits(self)
        if unknown := set(self.only) - set(SETTINGS):
            raise InputError(f"there is no setting {min(unknown)}; there are {', '.join(SETTINGS)}")
        for name in self.chosen:
            if SETTINGS[name].adam_iterations:
                SETTINGS[name].optimised_steps(self.steps)

    @property
    def chosen(self) -> list[str]:
        """In the table's order."""
        return [name for name in SETTINGS if not self.only or name in (*self.only, "published")]


class Problem(NamedTuple):
    """The package's example, ready to be animated."""

    reference: np.ndarray
    """Of the output's aspect, at its own resolution."""
    portrait: Portrait
    poses: np.ndarray
    track: FaceTrack


class Outcome(NamedTuple):
    """One video."""

    frames: np.ndarray
    reports: list[StepReport]
    seconds: float


def load_example(options: Options) -> Problem:
    image = load_image(EXAMPLE / "reference.png", what="reference image")
    poses = load_poses(EXAMPLE / "poses", options.size, options.size, limit=options.frames).frames
    boxes = load_face_boxes(EXAMPLE / "face_boxes.json", EXAMPLE_FRAMES)
    assert boxes.track is not None
    assert boxes.size is not None
    assert boxes.reference is not None
    whole = boxes.track.fitted(boxes.size, options.size, options.size, "crop")
    shown = portrait(image, boxes.reference, (options.size, options.size), "crop", "the package's example")
    return Problem(fit_aspect(image, options.size, options.size, "crop"), shown, poses, whole[: len(poses)])


def embed(animator: Animator, problem: Problem, crop: Crop) -> np.ndarray:
    return animator.embed_face(problem.portrait.image, problem.portrait.face, crop)


def animate(
    animator: Animator, problem: Problem, config: HJBConfig, sampling: SamplingConfig, identity_crop: Crop
) -> Outcome:
    """The video by one setting, and the seconds it takes once everything is compiled."""
    hjb = None
    if config.adam_iterations:
        hjb = FaceOptimisation(config, embed(animator, problem, config.crop), problem.track)
    identity = embed(animator, problem, identity_crop)

    def run(sampling: SamplingConfig, hjb: FaceOptimisation | None) -> tuple[np.ndarray, list[StepReport]]:
        reports = []
        frames = animator.animate(
            problem.reference,
            problem.poses,
            id_embedding=identity,
            sampling=sampling,
            hjb=hjb,
            on_optimised=reports.append,
        )
        return frames, reports

    short = None if hjb is None else replace(hjb, config=replace(config, start=0, end=0))
    run(replace(sampling, steps=1), short)  # one step compiles all that the whole run needs
    start = time.perf_counter()
    frames, reports = run(sampling, hjb)
    return Outcome(frames, reports, time.perf_counter() - start)


def similarity(animator: Animator, problem: Problem, frames: np.ndarray, crop: Crop) -> float:
    """Mean cosine of a finished video's faces to the reference's, both cropped in the same way."""
    wanted = embed(animator, problem, crop)
    faces = zip(frames, problem.track.faces(), strict=True)
    found = [animator.embed_face(frame, face, crop) for frame, face in faces if face is not None]
    return float(cosine(jnp.stack(found), jnp.asarray(wanted)).mean())


def face_pixels(problem: Problem) -> np.ndarray:
    """`[f, height, width]`: whether a pixel is inside of its frame's box."""
    frames, height, width, _ = problem.poses.shape
    inside = np.zeros((frames, height, width), bool)
    for mask, (left, top, right, bottom) in zip(inside, problem.track.boxes.astype(int), strict=True):
        mask[top : bottom + 1, left : right + 1] = True
    return inside


def row(animator: Animator, problem: Problem, outcome: Outcome, published: Outcome) -> list[str]:
    """What the table says of one video."""
    difference = np.abs(outcome.frames.astype(np.float32) - published.frames.astype(np.float32)).mean(-1)
    inside = face_pixels(problem)
    last = outcome.reports[-1] if outcome.reports else None
    return [
        f"{last.similarity_before:.3f}, {last.similarity_after:.3f}" if last else "",
        f"{similarity(animator, problem, outcome.frames, 'box'):.3f}",
        f"{similarity(animator, problem, outcome.frames, 'aligned'):.3f}",
        f"{outcome.seconds:.2f}",
        f"{difference.mean():.2f}",
        f"{difference[inside].mean():.2f}",
        f"{difference[~inside].mean():.2f}",
    ]


def main(argv: Sequence[str]) -> None:
    options = parse_flags(argv, Options(), prog="hjb_options.py", description=(__doc__ or "").splitlines()[0])
    problem = load_example(options)
    animator = Animator.from_pretrained(options.checkpoint, dtype=options.dtype, arcface=True)
    # What they were trained for: the weights in the package clips of 8 frames, and faces cropped by their boxes.
    own = options.checkpoint == EMBEDDED
    window = max(2, min(8 if own else 16, options.frames))
    sampling = SamplingConfig(steps=options.steps, window=window, overlap=max(1, window // 4))
    identity_crop: Crop = "box" if own else "aligned"
    print(
        f"{options.checkpoint}, {len(problem.poses)} frames of {options.size}x{options.size}, {options.steps} steps\n"
    )
    print(f"| {' | '.join(COLUMNS)} |\n|{'---|' * len(COLUMNS)}", flush=True)
    published = None
    for name in options.chosen:
        outcome = animate(animator, problem, SETTINGS[name], sampling, identity_crop)
        published = published or outcome
        print(f"| {name} | {' | '.join(row(animator, problem, outcome, published))} |", flush=True)
    print(f"\nMachine: {machine()}")
    print(f"Versions: {versions('jax', 'jaxlib', 'flax', 'optax')}")
    print(f"Command: python benchmarks/hjb_options.py {shlex.join(argv)}".rstrip())


if __name__ == "__main__":
    raise SystemExit(run_script(main))
