"""Count a program's matrix arithmetic from its jaxpr.

A compiler's own cost analysis does not see into library calls (cuDNN, Pallas kernels) and counts a loop's body
once, so measured speeds would be off by whatever those hold.
"""

import math
from collections.abc import Callable
from typing import Any

import jax
from jax.extend import core
from jax.interpreters import partial_eval

from stableanimator_jax.models.attention import compile_for


def matmul_flops(function: Callable[..., Any], *args: Any) -> int:
    """Floating-point operations of all matrix products and convolutions in one call of `function(*args)`.

    A multiplication and an addition are two. Arguments may be abstract. Attention is traced in its plain XLA form,
    whose products are those that every implementation computes. Zero padding of convolutions counts, as is usual. What
    gradients compute, and compute again under `jax.checkpoint`, counts as it will run.
    """
    with compile_for("cpu"):
        jaxpr = jax.make_jaxpr(function)(*args).jaxpr
    # What nothing needs, such as the gradients to parameters where only those to inputs are asked for, never runs.
    needed, _ = partial_eval.dce_jaxpr(jaxpr, [True] * len(jaxpr.outvars))
    return _count(needed)


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
