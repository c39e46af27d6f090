"""The optimiser, all of it optax's."""

import jax
import optax
import optax.contrib
from jaxtyping import Array, PyTree

from stableanimator_jax.training.config import OptimizerConfig

_ADAMS_SIZE = 0.2  # root mean square of Adam's steps, about, as a share of the learning rate


def learning_rate(config: OptimizerConfig, steps: int) -> optax.Schedule:
    """Of a step, counted from 0: an even rise from 0, then constant, or along half a cosine to 0 at `steps`. By the
    schedule `timed` it is constant too: the run multiplies it by what the clock says."""
    warm_up = optax.linear_schedule(0.0, config.learning_rate, config.warmup_steps)
    if config.schedule != "cosine":
        after = optax.constant_schedule(config.learning_rate)
    else:
        after = optax.cosine_decay_schedule(config.learning_rate, max(1, steps - config.warmup_steps))
    return optax.join_schedules([warm_up, after], [config.warmup_steps])


def make_optimizer(config: OptimizerConfig, steps: int) -> optax.GradientTransformation:
    """AdamW (Loshchilov & Hutter 2019) or Muon (Jordan et al. 2024) with the schedule, gradients clipped by their norm.

    Muon's steps are made as large as Adam's are (Liu et al. 2025), so that one learning rate suits both.
    """
    schedule = learning_rate(config, steps)
    if config.kind == "adamw":
        rule = optax.adamw(schedule, b1=config.beta1, b2=config.beta2, eps=config.eps, weight_decay=config.weight_decay)
    else:
        rule = optax.contrib.muon(
            schedule,
            weight_decay=config.weight_decay,
            consistent_rms=_ADAMS_SIZE,
            adam_b1=config.beta1,
            adam_b2=config.beta2,
            muon_weight_dimension_numbers=_matrices,
        )
    # Always a chain of two, so that a run can go on with clipping or without.
    return optax.chain(optax.clip_by_global_norm(config.clip_norm) if config.clip_norm else optax.identity(), rule)


def _matrices(params: PyTree[Array]) -> PyTree[optax.contrib.MuonDimensionNumbers | None]:
    """Kernels as Muon sees them, inputs by outputs. None: what is no matrix is left to Adam."""

    def matrix(leaf: Array) -> optax.contrib.MuonDimensionNumbers | None:
        return None if leaf.ndim < 2 else optax.contrib.MuonDimensionNumbers(tuple(range(leaf.ndim - 1)), leaf.ndim - 1)

    return jax.tree.map(matrix, params)
