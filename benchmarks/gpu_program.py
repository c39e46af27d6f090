"""One of the large programs for an H100, compiled on a machine without a GPU: what it moves and plans.

    pip install jax-cuda12-plugin==X jax-cuda12-pjrt==X nvidia-cuda-nvcc-cu12      # X: the version of jax here
    python -m benchmarks.gpu_program --dtype float16 --width 512 --height 512

XLA takes a description of the GPU in place of one. Nothing is tuned, which needs the GPU: products are kernels of XLA's
own rather than cuBLAS', so compare everything but products. Seven minutes on 2 cores.
"""

import argparse
import collections
import importlib.util
import math
import os
import re
import time
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any, NamedTuple, cast

from stableanimator_jax.config import Dtype, Kind, StoredDtype
from stableanimator_jax.family import FAMILY

H100 = """
gpu_device_info {
  threads_per_block_limit: 1024 threads_per_warp: 32 threads_per_core_limit: 2048
  shared_memory_per_block: 49152 shared_memory_per_core: 233472 shared_memory_per_block_optin: 232448
  core_count: 132 fpus_per_core: 128 clock_rate_ghz: 1.98
  block_dim_limit_x: 2147483647 block_dim_limit_y: 65535 block_dim_limit_z: 65535
  memory_bandwidth: 3352320000000 l2_cache_size: 52428800 device_memory_size: 84978434048
  registers_per_core_limit: 65536 registers_per_block_limit: 65536
  cuda_compute_capability { major: 9 minor: 0 }
}
platform_name: "CUDA"
dnn_version_info { major: 9 minor: 8 patch: 0 }
runtime_version { major: 12 minor: 8 patch: 0 }
device_description_str: "NVIDIA H100 80GB HBM3"
"""

_BYTES = {"pred": 1, "s8": 1, "u8": 1, "f16": 2, "bf16": 2, "s32": 4, "u32": 4, "f32": 4, "s64": 8, "f64": 8}
_ARRAY = re.compile(rf"\b({'|'.join(_BYTES)})\[([\d,]*)\]")
_INSTRUCTION = re.compile(r"(?:ROOT )?%?([\w.\-]+) = (\([^=]*?\)|\w+\[[\d,]*\](?:\{[^}]*\})?) ([\w\-]+)\((.*)")
_KERNELS = ("fusion", "custom-call", "copy", "transpose", "convert", "reduce")


class Kernel(NamedTuple):
    """One kernel of a compiled program."""

    kind: str
    bytes: int
    """Of its arguments and results. An argument of which it reads a part counts whole."""


def kernels(program: str) -> Iterator[Kernel]:
    """Those of a program's text after XLA's passes, but for what fusions have inside."""
    inside = set(re.findall(r"calls=%?([\w.\-]+)", program))
    sizes: dict[str, int] = {}
    found, within = [], ""
    for line in program.splitlines():
        if line.endswith("{") and not line.startswith("HloModule"):
            within = line.removeprefix("ENTRY ").lstrip("%").split(" ")[0]
        if (match := _INSTRUCTION.match(line.strip())) is None:
            continue
        name, shape, operation, rest = match.groups()
        sizes[name] = _size(shape)
        if operation in _KERNELS and within not in inside:
            found.append((name, operation, rest))
    for name, operation, rest in found:
        target = re.search(r'custom_call_target="([^"]*)"', rest)
        kind = target.group(1) if target else re.sub(r"[\d_.]+$", "", name) if operation == "fusion" else operation
        arguments = re.findall(r"%([\w.\-]+)", rest.split("), ")[0])
        yield Kernel(kind, sizes[name] + sum(sizes.get(argument, 0) for argument in arguments))


def _size(shape: str) -> int:
    arrays = _ARRAY.findall(shape)
    return sum(_BYTES[dtype] * math.prod(int(n) for n in sides.split(",") if n) for dtype, sides in arrays)


def is_product(kernel: Kernel) -> bool:
    """A matrix product, whose kernels are others once they are tuned."""
    return kernel.kind.startswith("gemm") or kernel.kind.startswith("__cublas")


def table(found: Sequence[Kernel]) -> str:
    """Markdown, by kind, those that move most first."""
    moved: collections.Counter[str] = collections.Counter()
    for kernel in found:
        moved[kernel.kind] += kernel.bytes
    counts = collections.Counter(kernel.kind for kernel in found)
    lines = ["| kernels | number | GB |", "|---|---|---|"]
    lines += [f"| `{kind}` | {counts[kind]} | {total / 1e9:.2f} |" for kind, total in moved.most_common()]
    others = sum(kernel.bytes for kernel in found if not is_product(kernel))
    return "\n".join([*lines, f"| all but products | | {others / 1e9:.2f} |"])


def compile_program(
    what: str, dtype: Dtype, width: int, height: int, kind: Kind = "stableanimator", frames: int = 16
) -> Any:
    """The compiled program `what` of a published model: on so many frames; decoding and face optimisation on 4."""
    os.environ["JAX_SKIP_CUDA_CONSTRAINTS_CHECK"] = "1"
    os.environ["XLA_FLAGS"] = f"{os.environ.get('XLA_FLAGS', '')} --xla_gpu_autotune_level=0"
    import jax
    import jax._src.cudnn.fused_attention_stablehlo as cudnn
    import jax.numpy as jnp
    from jax.experimental import topologies
    from jax.sharding import SingleDeviceSharding

    from benchmarks._case import HJB_ITERATIONS, Case
    from benchmarks._training import random_batch, training_task
    from benchmarks.family import configuration
    from stableanimator_jax.models.attention import compile_for
    from stableanimator_jax.parallel import make_mesh
    from stableanimator_jax.sampling.decode import decode_chunk
    from stableanimator_jax.sampling.denoiser import predict
    from stableanimator_jax.sampling.forecast import abstract_model, step_arguments
    from stableanimator_jax.sampling.hjb import lower_chunk
    from stableanimator_jax.training.config import OptimizerConfig
    from stableanimator_jax.training.optimizer import make_optimizer
    from stableanimator_jax.training.state import abstract_state
    from stableanimator_jax.training.step import make_step
    from stableanimator_jax.training.trainable import split_abstract

    cudnn.check_cudnn_version = lambda: 90800  # of a library that is not here, and needs not be
    gpu = topologies.get_topology_desc(platform="cuda", target_config=H100, topology="1x1x1").devices[0]
    place = SingleDeviceSharding(gpu)
    case = Case(width, height)
    config, (rows, columns), channels = case.config, case.latent_size, case.config.vae.latent_channels

    def array(*shape: int, dtype: Any = jnp.float32) -> Any:
        return jax.ShapeDtypeStruct(shape, dtype, sharding=place)

    def placed(tree: Any) -> Any:
        return jax.tree.map(lambda leaf: array(*leaf.shape, dtype=leaf.dtype), tree)

    def model(name: str, stored: Dtype) -> Any:
        return abstract_model(config, name, stored, array)

    def step() -> jax.stages.Lowered:
        return predict.lower(*step_arguments(configuration(kind), frames, width, height, dtype, array))

    def decoder() -> jax.stages.Lowered:
        return decode_chunk.lower(model("vae", "float32").computing_in(dtype), array(4, rows, columns, channels))

    def hjb() -> jax.stages.Lowered:
        models = (model(name, "float32").computing_in(dtype) for name in ("vae", "arcface"))
        return lower_chunk(*models, frames=4, latent_size=case.latent_size, iterations=HJB_ITERATIONS, sharding=place)

    def training() -> jax.stages.Lowered:
        task, optimizer = (
            training_task(case, cast(StoredDtype, dtype)),
            make_optimizer(OptimizerConfig(), steps=100_000),
        )
        trained, frozen = split_abstract(task.blueprints, task.trainable)
        mesh = make_mesh(devices=[gpu])
        state = placed(abstract_state(trained, optimizer, mesh, ema=False))
        arguments = state, placed(frozen), placed(jax.eval_shape(lambda: random_batch(case)))
        with jax.set_mesh(mesh):
            return jax.jit(make_step(task, optimizer, mesh), donate_argnums=0).lower(*arguments)

    with compile_for("gpu"):
        lowered = {"step": step, "decoder": decoder, "hjb": hjb, "training": training}[what]()
        start = time.perf_counter()
        compiled = lowered.compile()
    print(f"compiled in {time.perf_counter() - start:.0f} s\n")
    return compiled


def main(argv: Sequence[str]) -> int:
    parser = argparse.ArgumentParser(prog="gpu_program.py", description=(__doc__ or "").splitlines()[0])
    parser.add_argument("--what", choices=("step", "decoder", "hjb", "training"), default="step")
    parser.add_argument("--dtype", choices=("float16", "bfloat16", "float32"), help="float16; training bfloat16")
    parser.add_argument("--kind", choices=tuple(FAMILY), default="stableanimator", help="whose step")
    parser.add_argument("--frames", type=int, default=16, help="of a step's rows")
    parser.add_argument("--width", type=int, default=512)
    parser.add_argument("--height", type=int, default=512)
    parser.add_argument("--text", type=Path, help="where to write the program after XLA's passes")
    options = parser.parse_args(argv)
    if min(options.width, options.height) < 64 or options.width % 64 or options.height % 64:
        parser.error(f"width and height must be multiples of 64, got {options.width}x{options.height}")
    dtype = options.dtype or ("bfloat16" if options.what == "training" else "float16")
    if options.what == "training" and dtype == "float16":
        parser.error("training is in bfloat16 or float32")
    if importlib.util.find_spec("jax_cuda12_plugin") is None:
        parser.error("jax-cuda12-plugin is not installed: this program's first lines say what to install")
    compiled = compile_program(options.what, dtype, options.width, options.height, options.kind, options.frames)
    if options.text:
        options.text.write_text(compiled.as_text())
    memory = compiled.memory_analysis()
    print(table(list(kernels(compiled.as_text()))))
    print(
        f"\n{memory.argument_size_in_bytes / 1e9:.2f} GB, and {memory.temp_size_in_bytes / 1e9:.2f} GB of temporaries"
    )
    return 0


if __name__ == "__main__":
    import sys

    raise SystemExit(main(sys.argv[1:]))
