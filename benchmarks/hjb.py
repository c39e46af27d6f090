"""How fast the face optimisation is: seconds an iteration, matmul rate reached, memory, the similarity gained.

    python benchmarks/hjb.py                                       # 16 frames of 512x512, published sizes, float32
    python benchmarks/hjb.py --dtype bfloat16 --margin 0.25        # in bfloat16, and the faces' region alone
    python benchmarks/hjb.py --width 1024 --height 576 --frames 64 --against torch
    JAX_PLATFORMS=cpu python benchmarks/hjb.py --config tiny       # the same, small, on a CPU

The decoder and ArcFace hold random weights made on the device, and run in the production function (`refine`), towards
a random direction, with a face in the middle of every frame. Prints a table, the machine, the versions and the command.
`--against torch` first times the same optimisation in torch, with diffusers' decoder under its gradient checkpointing,
chunk by chunk too, in a process of its own.
"""

import collections
import dataclasses
import importlib.util
import json
import shlex
import statistics
import subprocess
import sys
import time
from collections.abc import Sequence
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Annotated, Any, Literal, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
from _device import NOISE, difference, machine, matmul_rate, peak_memory, random_model, versions

from stableanimator_jax.config import ArcFaceConfig, VAEConfig
from stableanimator_jax.data.face_track import Face, FaceTrack
from stableanimator_jax.errors import InputError
from stableanimator_jax.limits import Above, AtLeast, Between, check_limits
from stableanimator_jax.models.arcface import ArcFace
from stableanimator_jax.models.flops import matmul_flops
from stableanimator_jax.models.functional import Blueprint, Model
from stableanimator_jax.models.layers import Precision
from stableanimator_jax.models.vae import VAE
from stableanimator_jax.sampling.face_crop import crops_of
from stableanimator_jax.sampling.face_region import face_regions
from stableanimator_jax.sampling.hjb import Refinement, lower_chunk, refine, refine_chunk
from stableanimator_jax.scripts.cli import parse_flags, run_script

LEARNING_RATE = 0.1  # the published first step's


@dataclass(frozen=True)
class Options:
    """What to measure."""

    config: Literal["published", "tiny"] = "published"
    """The published sizes, or tiny models that a CPU runs in seconds (width and height default to 64)."""
    width: int | None = None
    """Output width in pixels; 512 by default."""
    height: int | None = None
    """Output height in pixels; 512 by default."""
    frames: Annotated[int, AtLeast(1)] = 16
    """Frames of the video."""
    iterations: Annotated[int, AtLeast(2)] = 3
    """Adam's iterations in one step, at least 2: an iteration's time is what they add to a step of one. With more of
    them it is less lost in noise."""
    chunk: Annotated[int, AtLeast(1)] = 4
    """Frames decoded at once."""
    dtype: Literal["bfloat16", "float32"] = "float32"
    """What the decoder and ArcFace compute in; their parameters, norms and Adam are float32 always."""
    margin: Annotated[float | None, Between(0, 10)] = None
    """Also time the region mode, with this margin around the faces, in lengths of their longer side."""
    face_share: Annotated[float, Above(0, 1)] = 0.1
    """The face's share of a frame's area."""
    repeat: Annotated[int, AtLeast(2)] = 3
    """Steps of each kind to time, at least 2: the median counts, and how far they are apart says how exact it is."""
    against: Literal["none", "torch"] = "none"
    """Also time the same in torch (needs the [parity] extra)."""

    def __post_init__(self):
        check_limits(self)
        (height, width), multiple = self.size, self.vae.downscale
        if height % multiple or width % multiple or min(height, width) < multiple:
            raise InputError(f"the size {width}x{height} does not work: the decoder makes multiples of {multiple}")

    @property
    def vae(self) -> VAEConfig:
        return VAEConfig() if self.config == "published" else VAEConfig(block_out_channels=(32, 32), layers_per_block=1)

    @property
    def arcface(self) -> ArcFaceConfig:
        tiny = ArcFaceConfig(layers=(1, 1, 1, 1), widths=(8, 8, 16, 16), embedding_dim=32)
        return ArcFaceConfig() if self.config == "published" else tiny

    @property
    def size(self) -> tuple[int, int]:
        """Height and width in pixels."""
        default = 512 if self.config == "published" else 64
        return default if self.height is None else self.height, default if self.width is None else self.width

    @property
    def latent_size(self) -> tuple[int, int]:
        return self.size[0] // self.vae.downscale, self.size[1] // self.vae.downscale

    @property
    def box(self) -> tuple[int, int, int, int]:
        """The face (left, top, right, bottom), inclusive: a square in the middle, or wider where that is too high."""
        height, width = self.size
        face_height = min(height, round((self.face_share * height * width) ** 0.5))
        face_width = max(1, min(width, round(self.face_share * height * width / face_height)))
        y, x = (height - face_height) // 2, (width - face_width) // 2
        return x, y, x + face_width - 1, y + face_height - 1

    @property
    def faces(self) -> FaceTrack:
        return FaceTrack.of([Face(np.array(self.box, np.float32))] * self.frames)


Models = tuple[Model[VAE], Model[ArcFace]]


class Problem(NamedTuple):
    """What is optimised."""

    latents: jax.Array
    reference: jax.Array


def make_problem(options: Options) -> Problem:
    shape = (options.frames, *options.latent_size, options.vae.latent_channels)
    latents = jax.random.normal(jax.random.key(1), shape, jnp.float32)
    return Problem(latents, jax.random.normal(jax.random.key(2), (options.arcface.embedding_dim,), jnp.float32))


def step(
    models: Models, problem: Problem, options: Options, *, iterations: int, margin: float | None = None
) -> tuple[float, Refinement]:
    """Seconds of one optimised step, and what it gave."""
    start = time.perf_counter()
    out = refine(
        *models,
        problem.latents,
        options.faces,
        problem.reference,
        LEARNING_RATE,
        iterations=iterations,
        chunk=options.chunk,
        margin=margin,
    )
    out.latents.block_until_ready()
    return time.perf_counter() - start, out


class Measured(NamedTuple):
    """One way to optimise a step."""

    first_seconds: float
    step_seconds: float
    iteration_seconds: float | None
    """None where it is lost in noise."""
    iteration_flops: int
    memory: int
    memory_source: str
    refinement: Refinement


def measure_mode(models: Models, problem: Problem, options: Options, margin: float | None) -> Measured:
    first, refinement = step(models, problem, options, iterations=options.iterations, margin=margin)
    step(models, problem, options, iterations=1, margin=margin)  # compiled
    whole, single = (
        [step(models, problem, options, iterations=n, margin=margin)[0] for _ in range(options.repeat)]
        for n in (options.iterations, 1)
    )
    added = difference(whole, single)
    region = region_size(options, margin)
    memory, source = peak_memory(
        lambda: lower_chunk(
            *models,
            frames=min(options.chunk, options.frames),
            latent_size=options.latent_size,
            iterations=options.iterations,
            region=region,
        ).compile()
    )
    return Measured(
        first_seconds=first,
        step_seconds=statistics.median(whole),
        iteration_seconds=None if added is None else added / (options.iterations - 1),
        iteration_flops=iteration_flops(models, options, region),
        memory=memory,
        memory_source=source,
        refinement=refinement,
    )


def region_size(options: Options, margin: float | None) -> tuple[int, int]:
    """Height and width, in latent cells, of what is decoded."""
    if margin is None:
        return options.latent_size
    regions = face_regions(
        crops_of(options.faces, "box"),
        options.faces.valid,
        chunk=options.chunk,
        frame=options.latent_size,
        downscale=options.vae.downscale,
        margin=margin,
    )
    return regions.size


def iteration_flops(models: Models, options: Options, region: tuple[int, int]) -> int:
    """Matrix arithmetic of one iteration over all chunks: what a second iteration adds to each chunk's program."""

    def chunk_flops(frames: int, iterations: int) -> int:
        lowered = lower_chunk(
            *models, frames=frames, latent_size=options.latent_size, iterations=iterations, region=region
        )
        arguments, _ = jax.tree.map(lambda x: jax.ShapeDtypeStruct(x.shape, x.dtype), lowered.args_info)
        return matmul_flops(partial(refine_chunk, size=region, iterations=iterations), *arguments)

    sizes = collections.Counter(min(options.chunk, options.frames - i) for i in range(0, options.frames, options.chunk))
    return sum(times * (chunk_flops(n, 2) - chunk_flops(n, 1)) for n, times in sizes.items())


def whole_frame_similarity(models: Models, latents: jax.Array, problem: Problem, options: Options) -> float:
    """The similarity of latents from elsewhere, as the whole-frame mode's own program sees it."""
    _, out = step(models, problem._replace(latents=latents), options, iterations=options.iterations)
    return out.similarity_before


def measure(options: Options) -> list[tuple[str, str]]:
    """Every row of the table."""
    vae = random_model(Blueprint(VAE, options.vae, Precision()))
    arcface = random_model(Blueprint(ArcFace, options.arcface, Precision()))
    exact: Models = vae, arcface
    models: Models = vae.computing_in(options.dtype), arcface.computing_in(options.dtype)
    problem = make_problem(options)
    # The region first: a device's statistics know the most memory of all so far, and whole frames take more.
    region = None if options.margin is None else measure_mode(models, problem, options, options.margin)
    whole = measure_mode(models, problem, options, None)
    rate = matmul_rate(options.dtype)
    rows = [
        *mode_rows(whole, rate, options),
        (f"this device's {matmul_name(options.dtype)} matrix product", f"{rate / 1e12:.2f} TFLOP/s"),
        ("similarity before and after", similarities(whole.refinement)),
    ]
    if region is not None:
        height, width = (n * options.vae.downscale for n in region_size(options, options.margin))
        rows += [
            ("region mode, what it decodes", f"{width}x{height}, {height * width / np.prod(options.size):.1%}"),
            *((f"region mode, {name}", value) for name, value in mode_rows(region, rate, options)),
            ("region mode, times faster", times_faster(whole, region)),
            ("region mode, similarity before and after", similarities(region.refinement)),
            (
                "region mode, similarity after in whole frames",
                f"{whole_frame_similarity(models, region.refinement.latents, problem, options):.4f}",
            ),
        ]
    if options.dtype != "float32":
        _, refinement = step(exact, problem, options, iterations=options.iterations)
        seen = whole_frame_similarity(exact, whole.refinement.latents, problem, options)
        rows += [
            ("float32, similarity before and after", similarities(refinement)),
            (f"{options.dtype}'s result, similarity as float32 sees it", f"{seen:.4f}"),
        ]
    return rows


def mode_rows(mode: Measured, rate: float, options: Options) -> list[tuple[str, str]]:
    seconds = mode.iteration_seconds
    achieved = None if seconds is None else mode.iteration_flops / seconds
    return [
        ("first step, compiled", f"{mode.first_seconds:.1f} s"),
        (f"a step of {options.iterations} iterations (median)", f"{mode.step_seconds:.4f} s"),
        ("an iteration", NOISE if seconds is None else f"{seconds:.4f} s"),
        ("matrix arithmetic an iteration (counted from the jaxpr)", f"{mode.iteration_flops / 1e12:.3f} TFLOP"),
        ("achieved", NOISE if achieved is None else f"{achieved / 1e12:.2f} TFLOP/s"),
        ("share of this device's matrix product", NOISE if achieved is None else f"{achieved / rate:.1%}"),
        (f"peak memory ({mode.memory_source})", f"{mode.memory / 1e9:.2f} GB"),
    ]


def times_faster(whole: Measured, region: Measured) -> str:
    if whole.iteration_seconds is None or region.iteration_seconds is None:
        return NOISE
    return f"{whole.iteration_seconds / region.iteration_seconds:.2f}"


def matmul_name(dtype: str) -> str:
    """JAX's default precision decides what a float32 product is."""
    tensor_cores = dtype == "float32" and jax.default_backend() == "gpu"
    return "float32 (TF32, JAX's default)" if tensor_cores else dtype


def similarities(refinement: Refinement) -> str:
    return f"{refinement.similarity_before:.4f}, {refinement.similarity_after:.4f}"


def measure_torch(options: Options) -> list[tuple[str, str]]:
    """Time torch in another process, which is gone from the device before JAX starts on it."""
    for package in ("torch", "diffusers"):
        if importlib.util.find_spec(package) is None:
            raise InputError(f"--against torch needs {package}: install the [parity] extra")
    asked = {
        "vae": dataclasses.asdict(options.vae),
        "arcface": dataclasses.asdict(options.arcface),
        "height": options.latent_size[0],
        "width": options.latent_size[1],
        "box": options.box,
        "frames": options.frames,
        "chunk": options.chunk,
        "iterations": options.iterations,
        "repeat": options.repeat,
        "learning_rate": LEARNING_RATE,
        "dtype": options.dtype,
    }
    script = Path(__file__).with_name("torch_hjb.py")
    done = subprocess.run([sys.executable, str(script), json.dumps(asked)], stdout=subprocess.PIPE, text=True)
    if done.returncode:
        raise InputError(f"{script.name} failed with exit status {done.returncode}; its messages are above")
    rows: list[tuple[str, Any]] = json.loads(done.stdout.splitlines()[-1])
    return [(f"torch, {name}", value) for name, value in rows]


def main(argv: Sequence[str]) -> None:
    options = parse_flags(argv, Options(), prog="hjb.py", description=(__doc__ or "").splitlines()[0])
    height, width = options.size
    torch_rows = measure_torch(options) if options.against == "torch" else []
    rows = measure(options) + torch_rows

    print(f"\n{options.config} model, {options.frames} frames of {width}x{height}, {options.dtype}\n")
    print("| | |\n|---|---|")
    print("\n".join(f"| {name} | {value} |" for name, value in rows))
    print(f"\nMachine: {machine()}")
    print(f"Versions: {versions('jax', 'jaxlib', 'flax', 'optax', 'torch', 'diffusers')}")
    print(f"Command: python benchmarks/hjb.py {shlex.join(argv)}".rstrip())


if __name__ == "__main__":
    raise SystemExit(run_script(main))
