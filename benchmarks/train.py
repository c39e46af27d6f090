"""How fast a training step is: seconds, matmul rate reached, memory, compile time.

    python benchmarks/train.py                                  # 16 frames of 512x512, batch 1, the published model
    python benchmarks/train.py --width 576 --height 1024 --encoded --against torch
    JAX_PLATFORMS=cpu python benchmarks/train.py --config tiny  # the same, small, on a CPU

The models hold random weights made on the device; the step is the production one, on one device, with clips of random
pixels (`--encoded`: of random latents, as where `prepare_data.py encode` ran; VAE and CLIP then do not). Prints a
table, the machine, the versions and the command. `--against torch` first times a step of Stable Video Diffusion's
UNet as diffusers has it (no ID adapter, no pose, encoded clips), with its gradient checkpointing, AdamW and autocast,
at the same size, in a process of its own.
"""

import dataclasses
import importlib.util
import itertools
import json
import math
import shlex
import statistics
import subprocess
import sys
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Annotated, Any, Literal

import jax
import jax.numpy as jnp
from _device import machine, matmul_rate, peak_memory, random_model, versions
from jax.sharding import Mesh

from stableanimator_jax.config import StableAnimatorConfig
from stableanimator_jax.data.clips import Clips, Moments, Pixels
from stableanimator_jax.errors import InputError
from stableanimator_jax.limits import AtLeast, check_limits
from stableanimator_jax.parallel import batch_sharding, fsdp_shardings, make_mesh
from stableanimator_jax.sampling.pipeline import check_size
from stableanimator_jax.scripts.cli import parse_flags, run_script
from stableanimator_jax.training.config import ObjectiveConfig, OptimizerConfig, Trainable, TrainableConfig
from stableanimator_jax.training.optimizer import make_optimizer
from stableanimator_jax.training.state import TrainState, begin, training_blueprints
from stableanimator_jax.training.step import Task, make_step
from stableanimator_jax.training.step_flops import step_flops
from stableanimator_jax.training.trainable import Params, split_abstract
from stableanimator_jax.weights.rules import dotted, flatten

# Of diffusers' parameters, those with this in their names are trained.
TORCH_NAMES: dict[Trainable, str] = {"attentions": "attentions", "all": ""}


@dataclass(frozen=True)
class Options:
    """What to measure."""

    config: Literal["published", "tiny"] = "published"
    """The published sizes, or a tiny model that a CPU runs in seconds (width and height default to 64)."""
    width: int | None = None
    """Width of the clips in pixels; 512 by default."""
    height: int | None = None
    """Height of the clips in pixels; 512 by default."""
    frames: Annotated[int, AtLeast(1)] = 16
    """Frames of a clip."""
    batch: Annotated[int, AtLeast(1)] = 1
    """Clips in a batch."""
    trainable: Trainable = "attentions"
    """Which parameters of the UNet are trained, as --trainable.unet of train.py."""
    encoded: bool = False
    """Train on clips that were encoded ahead."""
    remat: bool = True
    """Compute the UNet's blocks once more in the backward pass rather than keep what is inside them."""
    steps: Annotated[int, AtLeast(1)] = 10
    """Steps to time; the median counts."""
    dtype: Literal["bfloat16", "float32"] = "bfloat16"
    """What the models compute in and hold frozen parameters in. The VAE is float32, as are trained parameters."""
    against: Literal["none", "torch"] = "none"
    """Also time diffusers' UNet in torch (needs the [parity] extra)."""

    def __post_init__(self):
        check_limits(self)
        if self.against == "torch" and self.trainable not in TORCH_NAMES:
            raise InputError(f"--against torch goes with --trainable {' or '.join(TORCH_NAMES)}")
        check_size(self.model, width=self.size[1], height=self.size[0])

    @property
    def model(self) -> StableAnimatorConfig:
        return StableAnimatorConfig() if self.config == "published" else StableAnimatorConfig.tiny()

    @property
    def size(self) -> tuple[int, int]:
        """Height and width in pixels."""
        default = 512 if self.config == "published" else 64
        return default if self.height is None else self.height, default if self.width is None else self.width

    @property
    def latent_size(self) -> tuple[int, int]:
        return self.size[0] // self.model.vae.downscale, self.size[1] // self.model.vae.downscale

    @property
    def task(self) -> Task:
        return Task(
            training_blueprints(self.model, self.dtype, arcface=False),
            TrainableConfig(self.trainable),
            ObjectiveConfig(),
            remat=self.remat,
        )


def random_parameters(task: Task, mesh: Mesh) -> tuple[Params, Params]:
    """Trained and frozen parameters that never were on the host."""
    abstract = split_abstract(task.blueprints, task.trainable)
    trained, frozen = parts = ({}, {})
    for model, blueprint in task.blueprints.items():
        leaves = {dotted(path): leaf for path, leaf in flatten(random_model(blueprint).params).items()}
        for part, shapes in zip(parts, abstract, strict=True):
            if wanted := shapes.get(model):
                # Low-rank changes are no part of the model: they begin at zero, which is as fast as anything.
                part[model] = {
                    name: jnp.asarray(leaves.pop(name, jnp.zeros(leaf.shape)), leaf.dtype)
                    for name, leaf in wanted.items()
                }
    return jax.device_put((trained, frozen), (fsdp_shardings(trained, mesh), fsdp_shardings(frozen, mesh)))


def random_batch(options: Options, mesh: Mesh) -> Clips[jax.Array]:
    """Noise with the shapes of clips, a face in the middle of every frame."""
    (height, width), (h, w), (b, f) = options.size, options.latent_size, (options.batch, options.frames)
    keys = iter(jax.random.split(jax.random.key(1), 5))

    def pixels(*leading: int) -> jax.Array:
        return jax.random.randint(next(keys), (*leading, height, width, 3), 0, 256, jnp.uint8)

    def normal(*shape: int) -> jax.Array:
        return jax.random.normal(next(keys), shape, jnp.float32)

    poses = pixels(b, f)
    masks = jnp.zeros((b, f, h, w), bool).at[:, :, h // 4 : h // 2, w // 4 : w // 2].set(True)
    identity = normal(b, options.model.face_encoder.id_embedding_dim)
    if options.encoded:
        channels = 2 * options.model.vae.latent_channels
        images = Moments(
            normal(b, f, h, w, channels).astype(jnp.float16),
            normal(b, h, w, channels).astype(jnp.float16),
            normal(b, options.model.unet.cross_attention_dim),
        )
    else:
        images = Pixels(pixels(b, f), pixels(b))
    return jax.device_put(Clips(images, poses, masks, identity), batch_sharding(mesh))


def time_steps(
    step: Callable[..., Any], state: TrainState, frozen: Params, batch: Clips[jax.Array], steps: int
) -> list[float]:
    """Seconds from the end of each step to the end of the next, each handed over while the one before runs."""
    ends, losses = [], []
    for _ in range(steps + 3):
        state, metrics, _ = step(state, frozen, batch)
        losses.append(metrics.loss)
        if len(losses) > 1:
            jax.block_until_ready(losses[-2])
            ends.append(time.perf_counter())
    if not all(math.isfinite(loss) for loss in losses):
        raise FloatingPointError(f"the losses are {[float(loss) for loss in losses]}")
    return [after - before for before, after in itertools.pairwise(ends[1:])]


def measure(options: Options) -> tuple[list[tuple[str, str]], float]:
    """Every row of the table; and seconds a step."""
    task, mesh = options.task, make_mesh(data=1)
    trained, frozen = random_parameters(task, mesh)
    batch = random_batch(options, mesh)
    flops = step_flops(task, trained, frozen, batch)
    parameters = sum(leaf.size for leaf in jax.tree.leaves(trained))
    optimizer = make_optimizer(OptimizerConfig(), steps=100_000)
    state = begin(trained, optimizer, mesh, ema=False, seed=0)
    del trained  # which the first step takes the memory of
    with jax.set_mesh(mesh):
        start = time.perf_counter()
        step = jax.jit(make_step(task, optimizer, mesh), donate_argnums=0).lower(state, frozen, batch).compile()
        compiling = time.perf_counter() - start
        times = time_steps(step, state, frozen, batch, options.steps)
    second = statistics.median(times)
    memory, source = peak_memory(lambda: step)
    rate = matmul_rate(options.dtype)
    return [
        ("trained parameters", f"{parameters / 1e6:.1f} M"),
        ("compile", f"{compiling:.1f} s"),
        ("a step (median)", f"{second:.4f} s"),
        ("slowest and fastest step", f"{max(times):.4f} s, {min(times):.4f} s"),
        ("matrix arithmetic a step (from the jaxpr, without rematerialisation)", f"{flops / 1e12:.3f} TFLOP"),
        ("achieved", f"{flops / second / 1e12:.2f} TFLOP/s"),
        (f"this device's {options.dtype} matrix product", f"{rate / 1e12:.2f} TFLOP/s"),
        ("share of it", f"{flops / second / rate:.1%}"),
        (f"peak memory ({source})", f"{memory / 1e9:.2f} GB"),
    ], second


def measure_torch(options: Options) -> list[tuple[str, str]]:
    """Time diffusers' UNet in another process, which is gone from the device before JAX starts on it."""
    for package in ("torch", "diffusers"):
        if importlib.util.find_spec(package) is None:
            raise InputError(f"--against torch needs {package}: install the [parity] extra")
    height, width = options.latent_size
    asked = {
        "unet": dataclasses.asdict(options.model.unet),
        "height": height,
        "width": width,
        "frames": options.frames,
        "batch": options.batch,
        "trained": TORCH_NAMES[options.trainable],
        "steps": options.steps,
        "dtype": options.dtype,
    }
    script = Path(__file__).with_name("torch_train.py")
    done = subprocess.run([sys.executable, str(script), json.dumps(asked)], stdout=subprocess.PIPE, text=True)
    if done.returncode:
        raise InputError(f"{script.name} failed with exit status {done.returncode}; its messages are above")
    rows = json.loads(done.stdout.splitlines()[-1])
    return [(f"diffusers, {name}", value) for name, value in rows]


def main(argv: Sequence[str]) -> None:
    options = parse_flags(argv, Options(), prog="train.py", description=(__doc__ or "").splitlines()[0])
    height, width = options.size
    torch_rows = measure_torch(options) if options.against == "torch" else []
    rows, seconds = measure(options)
    if torch_rows:
        theirs = float(dict(torch_rows)["diffusers, a step (median)"].removesuffix(" s"))
        rows += [*torch_rows, ("diffusers' step takes times as long", f"{theirs / seconds:.2f}")]

    what = "encoded clips" if options.encoded else "clips"
    print(f"\n{options.config} model, {options.batch} {what} of {options.frames} frames of {width}x{height}, ", end="")
    print(f"{options.dtype}, trains {options.trainable}\n")
    print("| | |\n|---|---|")
    print("\n".join(f"| {name} | {value} |" for name, value in rows))
    print(f"\nMachine: {machine()}")
    print(f"Versions: {versions('jax', 'jaxlib', 'flax', 'optax', 'torch', 'diffusers')}")
    print(f"Command: python benchmarks/train.py {shlex.join(argv)}".rstrip())


if __name__ == "__main__":
    raise SystemExit(run_script(main))
