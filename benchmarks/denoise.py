"""How fast the sampler is: seconds a guided step and a decoding, matmul rate reached, memory, a first run's time.

    python benchmarks/denoise.py                                   # 16 frames of 512x512, the published model
    python benchmarks/denoise.py --width 1024 --height 576 --against torch
    JAX_PLATFORMS=cpu python benchmarks/denoise.py --config tiny   # the same, small, on a CPU

The models hold random weights made on the device, and run in the production sampler (`Animator`). Prints a table,
the machine, the versions and the command. `--against torch` first times Stable Video Diffusion's UNet as diffusers
has it (no ID adapter, no pose), plain and compiled by `torch.compile`, at the same size, in a process of its own.
"""

import dataclasses
import importlib.util
import itertools
import json
import shlex
import statistics
import subprocess
import sys
import time
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Annotated, Any, Literal, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
from _device import machine, matmul_rate, peak_memory, random_model, versions

from stableanimator_jax.config import Dtype, StableAnimatorConfig
from stableanimator_jax.errors import InputError
from stableanimator_jax.limits import AtLeast, check_limits
from stableanimator_jax.models.catalogue import blueprint, sampling_models
from stableanimator_jax.models.conditioning import Conditioning
from stableanimator_jax.models.flops import matmul_flops
from stableanimator_jax.sampling.config import SamplingConfig
from stableanimator_jax.sampling.decode import decode_frames
from stableanimator_jax.sampling.denoiser import Rows, predict
from stableanimator_jax.sampling.pipeline import Animator, check_size
from stableanimator_jax.scripts.cli import parse_flags, run_script


@dataclass(frozen=True)
class Options:
    """What to measure."""

    config: Literal["published", "tiny"] = "published"
    """The published sizes, or a tiny model that a CPU runs in seconds (width and height default to 64)."""
    width: int | None = None
    """Output width in pixels; 512 by default."""
    height: int | None = None
    """Output height in pixels; 512 by default."""
    frames: Annotated[int, AtLeast(1)] = 16
    """Frames of the video."""
    window: int = 16
    """Frames that the UNet sees at once."""
    rows_at_once: int = 2
    """(window, guidance branch) rows in one call of the UNet."""
    decode_chunk: int = 4
    """Frames decoded at once."""
    steps: Annotated[int, AtLeast(1)] = 10
    """Steps to time; the median counts."""
    dtype: Literal["bfloat16", "float32"] = "bfloat16"
    """What every model but the VAE computes in. The VAE is float32, as SVD asks."""
    against: Literal["none", "torch"] = "none"
    """Also time diffusers' UNet in torch (needs the [parity] extra)."""

    def __post_init__(self):
        check_limits(self)
        self.sampling(1)  # which checks the rest

    def sampling(self, steps: int) -> SamplingConfig:
        return SamplingConfig(
            steps=steps,
            window=self.window,
            overlap=max(0, min(4, self.window - 1)),
            rows_at_once=self.rows_at_once,
            decode_chunk=self.decode_chunk,
        )

    @property
    def model(self) -> StableAnimatorConfig:
        return StableAnimatorConfig() if self.config == "published" else StableAnimatorConfig.tiny()

    @property
    def size(self) -> tuple[int, int]:
        """Height and width in pixels."""
        default = 512 if self.config == "published" else 64
        return default if self.height is None else self.height, default if self.width is None else self.width


def random_animator(config: StableAnimatorConfig, dtype: Dtype) -> Animator:
    models: dict[str, Any] = {name: random_model(blueprint(config, name, dtype)) for name in sampling_models(config)}
    return Animator(config, **models)


def predict_arguments(animator: Animator, condition: Conditioning, options: Options) -> tuple[Any, ...]:
    """What one call of the UNet takes, its rows abstract."""
    height, width = (n // animator.config.vae.downscale for n in options.size)

    def rows(*shape: int, dtype: Any = jnp.float32) -> Any:
        return jax.ShapeDtypeStruct((options.rows_at_once, *shape), dtype)

    features = (options.window, height, width, animator.config.pose_net.out_channels)
    return (
        animator.unet,
        Rows(
            latents=rows(options.window, height, width, animator.config.vae.latent_channels),
            conditioning=jax.tree.map(lambda x: rows(*x.shape[1:]), condition)._replace(
                pose_features=rows(*features, dtype=animator.pose_net.blueprint.precision.compute)
            ),
        ),
        jax.ShapeDtypeStruct((), jnp.float32),
    )


class Denoising(NamedTuple):
    """One run of the denoising loop, timed."""

    latents: jax.Array
    seconds: float
    steps: list[float]
    """Seconds from the end of each step to the end of the next."""
    calls: int
    """Calls of the UNet a step."""


def denoise(animator: Animator, condition: Conditioning, options: Options, steps: int) -> Denoising:
    """Run the production loop on random poses and noise for `steps` steps."""
    height, width = options.size
    rng = np.random.default_rng(0)
    poses = rng.integers(0, 256, (options.frames, height, width, 3), np.uint8)
    scale = animator.config.vae.downscale
    noise = jax.random.normal(
        jax.random.key(1),
        (options.window, height // scale, width // scale, animator.config.vae.latent_channels),
    )
    ends: list[float] = []
    start = time.perf_counter()
    latents = animator.denoise(
        condition, poses, noise, options.sampling(steps), lambda *_: ends.append(time.perf_counter())
    )
    latents.block_until_ready()
    seconds = time.perf_counter() - start
    calls = len(ends) // steps
    step_ends = ends[calls - 1 :: calls]
    return Denoising(latents, seconds, [after - before for before, after in itertools.pairwise(step_ends)], calls)


def decode(animator: Animator, latents: jax.Array, options: Options) -> float:
    start = time.perf_counter()
    for _ in decode_frames(animator.vae, latents, options.decode_chunk):
        pass
    return time.perf_counter() - start


def measure(options: Options) -> list[tuple[str, str]]:
    """Every row of the table."""
    animator = random_animator(options.model, options.dtype)
    height, width = options.size
    reference = np.random.default_rng(2).integers(0, 256, (height, width, 3), np.uint8)
    embedding = np.zeros(animator.config.face_encoder.id_embedding_dim, np.float32)
    condition = animator.encode(reference, embedding, jnp.zeros((height, width, 3)), options.sampling(1))

    first = denoise(animator, condition, options, steps=1)
    timed = denoise(animator, condition, options, steps=options.steps + 1)
    step = statistics.median(timed.steps)
    decode_first, decode_second = (decode(animator, timed.latents, options) for _ in range(2))

    arguments = predict_arguments(animator, condition, options)
    memory, source = peak_memory(lambda: predict.lower(*arguments).compile())
    flops = matmul_flops(predict, *arguments) * timed.calls
    rate = matmul_rate(options.dtype)
    return [
        ("first denoising of one step, compiled", f"{first.seconds:.1f} s"),
        ("first decoding, compiled", f"{decode_first:.1f} s"),
        ("a guided step (median)", f"{step:.4f} s"),
        ("slowest and fastest step", f"{max(timed.steps):.4f} s, {min(timed.steps):.4f} s"),
        ("UNet calls a step", str(timed.calls)),
        ("matrix arithmetic a step (counted from the jaxpr)", f"{flops / 1e12:.3f} TFLOP"),
        ("achieved", f"{flops / step / 1e12:.2f} TFLOP/s"),
        (f"this device's {options.dtype} matrix product", f"{rate / 1e12:.2f} TFLOP/s"),
        ("share of it", f"{flops / step / rate:.1%}"),
        (f"decoding {options.frames} frames in chunks of {options.decode_chunk}", f"{decode_second:.3f} s"),
        (f"peak memory ({source})", f"{memory / 1e9:.2f} GB"),
    ]


def measure_torch(options: Options) -> list[tuple[str, str]]:
    """Time diffusers' UNet in another process, which is gone from the device before JAX starts on it."""
    for package in ("torch", "diffusers"):
        if importlib.util.find_spec(package) is None:
            raise InputError(f"--against torch needs {package}: install the [parity] extra")
    asked = {
        "unet": dataclasses.asdict(options.model.unet),
        "height": options.size[0] // 8,
        "width": options.size[1] // 8,
        "frames": options.window,
        "steps": options.steps,
        "dtype": options.dtype,
    }
    script = Path(__file__).with_name("torch_unet.py")
    done = subprocess.run([sys.executable, str(script), json.dumps(asked)], stdout=subprocess.PIPE, text=True)
    if done.returncode:
        raise InputError(f"{script.name} failed with exit status {done.returncode}; its messages are above")
    rows = json.loads(done.stdout.splitlines()[-1])
    return [(f"diffusers, {name}", value) for name, value in rows]


def main(argv: Sequence[str]) -> None:
    options = parse_flags(argv, Options(), prog="denoise.py", description=(__doc__ or "").splitlines()[0])
    height, width = options.size
    check_size(options.model, width=width, height=height)
    torch_rows = measure_torch(options) if options.against == "torch" else []
    rows = measure(options) + torch_rows

    print(f"\n{options.config} model, {options.frames} frames of {width}x{height}, {options.dtype}\n")
    print("| | |\n|---|---|")
    print("\n".join(f"| {name} | {value} |" for name, value in rows))
    print(f"\nMachine: {machine()}")
    print(f"Versions: {versions('jax', 'jaxlib', 'flax', 'torch', 'diffusers')}")
    print(f"Command: python benchmarks/denoise.py {shlex.join(argv)}")


if __name__ == "__main__":
    raise SystemExit(run_script(main))
