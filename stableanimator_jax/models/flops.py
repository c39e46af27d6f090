"""Count a program's matrix arithmetic from its jaxpr, and know how much of it a device could do at most.

A compiler's own cost analysis does not see into library calls (cuDNN, Pallas kernels) and counts a loop's body
once, so measured speeds would be off by whatever those hold.
"""

import math
import time
from collections.abc import Callable
from typing import Any, TypeVar

import jax
import jax.numpy as jnp
from jax.extend import core
from jax.extend.core.primitives import remat_p
from jax.interpreters import partial_eval

from stableanimator_jax.models.attention import compile_for

R = TypeVar("R")

# TFLOP/s in bfloat16, without sparsity, of one JAX device, under the name that JAX gives it.
_PEAKS = {
    # Google Cloud's documentation of each TPU version, "peak compute per chip".
    "TPU v4": 275,
    "TPU v5 lite": 197,
    "TPU v5e": 197,
    "TPU v5": 459,
    "TPU v5p": 459,
    "TPU v6 lite": 918,
    "TPU v6e": 918,
    "TPU7x": 2307 / 2,  # each of a chip's two TensorCores is a device
    # NVIDIA's data sheets; where they give the figure with sparsity only, half of it.
    "NVIDIA A100-SXM4-40GB": 312,
    "NVIDIA A100-SXM4-80GB": 312,
    "NVIDIA A100-PCIE-40GB": 312,
    "NVIDIA A100 80GB PCIe": 312,
    "NVIDIA H100 80GB HBM3": 1979 / 2,
    "NVIDIA H100 PCIe": 1513 / 2,
    "NVIDIA H100 NVL": 1671 / 2,
    "NVIDIA H200": 1979 / 2,
    "NVIDIA H200 NVL": 1671 / 2,
    "NVIDIA B200": 4500 / 2,
    "NVIDIA L4": 242 / 2,
    "NVIDIA L40": 181.05,
    "NVIDIA L40S": 362.05,
    # Its architecture's white paper, with sums in float32.
    "NVIDIA GeForce RTX 4090": 165.2,
}


def peak_flops(device: jax.Device) -> float | None:  # pyright: ignore[reportInvalidTypeForm] (JAX exports no alias)
    """Most floating-point operations a second of bfloat16 matrix products that `device`'s maker states.

    None for a device that is not in the table, such as a CPU or a part of a GPU.
    """
    peak = _PEAKS.get(device.device_kind)
    return None if peak is None else peak * 1e12


def matmul_rate(dtype: Any, seconds: float = 1.0) -> float:
    """Floating-point operations a second of square matrix products of random numbers, the best of several runs."""
    size = 8192 if jax.default_backend() != "cpu" else 1024
    a, b = jax.random.normal(jax.random.key(0), (2, size, size), jnp.float32).astype(dtype)
    product = jax.jit(jnp.matmul)
    product(a, b).block_until_ready()

    def run(times: int) -> float:
        start = time.perf_counter()
        out = product(a, b)
        for _ in range(times - 1):
            out = product(a, b)
        out.block_until_ready()  # the device runs them in order
        return (time.perf_counter() - start) / times

    times = max(1, math.ceil(seconds / 5 / run(2)))
    return 2 * size**3 / min(run(times) for _ in range(5))


def matmul_flops(function: Callable[..., Any], *args: Any) -> int:
    """Floating-point operations of all matrix products and convolutions in one call of `function(*args)`.

    A multiplication and an addition are two. Arguments may be abstract. Attention is traced in its plain XLA form,
    whose products are those that every implementation computes. Zero padding of convolutions counts, as is usual. What
    gradients compute, and compute again under `jax.checkpoint`, counts as it will run; what they need to compute
    and no more is the count of `jax.grad(without_rematerialisation(loss))`.
    """
    with compile_for("cpu"):
        jaxpr = jax.make_jaxpr(function)(*args).jaxpr
    # What nothing needs, such as the gradients to parameters where only those to inputs are asked for, never runs.
    needed, _ = partial_eval.dce_jaxpr(jaxpr, [True] * len(jaxpr.outvars))
    return _count(needed)


def without_rematerialisation(function: Callable[..., R]) -> Callable[..., R]:
    """`function`, but every `jax.checkpoint` in it keeps all that it computes: gradients compute nothing twice.

    Arithmetic counted so is what is usually called a model's FLOPs: it does not grow with the memory that is saved.
    """

    def keeping(*args: Any) -> R:
        jaxpr, out = jax.make_jaxpr(function, return_shape=True)(*args)
        flat = core.jaxpr_as_fun(_keep_everything(jaxpr))(*jax.tree.leaves(args))
        return jax.tree.unflatten(jax.tree.structure(out), flat)

    return keeping


def _keep_everything(part: Any) -> Any:
    """A jaxpr whose checkpoints save every value, those in its loops and calls too; anything else as it is."""
    if type(part) is tuple:  # the branches of a condition
        return tuple(map(_keep_everything, part))
    if not isinstance(part, (core.Jaxpr, core.ClosedJaxpr)):
        return part
    if not isinstance(part, core.Jaxpr):  # closed, until JAX 0.12 made one class of both
        return part.replace(jaxpr=_keep_everything(part.jaxpr))
    eqns = []
    for eqn in part.eqns:
        params = {name: _keep_everything(value) for name, value in eqn.params.items()}
        if eqn.primitive is remat_p:
            params["policy"] = jax.checkpoint_policies.everything_saveable
        eqns.append(eqn.replace(params=params))
    return part.replace(eqns=eqns)


def _count(jaxpr: core.Jaxpr) -> int:
    total = 0
    for eqn in jaxpr.eqns:
        name = eqn.primitive.name
        inputs: Any = [v.aval for v in eqn.invars]
        outputs: Any = [v.aval for v in eqn.outvars]
        if name == "dot_general":
            (contracted, _), _ = eqn.params["dimension_numbers"]
            total += 2 * math.prod(outputs[0].shape) * math.prod(inputs[0].shape[axis] for axis in contracted)
        elif name == "conv_general_dilated":
            # Every output element sums over the kernel's window and the input channels of its group. Where a gradient
            # spreads its input out by the forward stride, only every so many of the window's places hold a number.
            out_channels = inputs[1].shape[eqn.params["dimension_numbers"].rhs_spec[0]]
            holes = math.prod(eqn.params["lhs_dilation"])
            total += 2 * math.prod(outputs[0].shape) * math.prod(inputs[1].shape) // out_channels // holes
        elif name == "while":
            raise NotImplementedError("a while loop's trip count is not in the jaxpr")
        else:
            repeats = eqn.params["length"] if name == "scan" else 1
            total += repeats * sum(map(_count, core.jaxprs_in_params(eqn.params)))
    return total
