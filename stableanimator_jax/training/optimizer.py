"""The optimiser, all of it optax's."""

import optax

from stableanimator_jax.training.config import OptimizerConfig


def learning_rate(config: OptimizerConfig, steps: int) -> optax.Schedule:
    """Of a step, counted from 0: an even rise from 0, then constant, or along half a cosine to 0 at `steps`."""
    warm_up = optax.linear_schedule(0.0, config.learning_rate, config.warmup_steps)
    if config.schedule == "constant":
        after = optax.constant_schedule(config.learning_rate)
    else:
        after = optax.cosine_decay_schedule(config.learning_rate, max(1, steps - config.warmup_steps))
    return optax.join_schedules([warm_up, after], [config.warmup_steps])


def make_optimizer(config: OptimizerConfig, steps: int) -> optax.GradientTransformation:
    """AdamW (Loshchilov & Hutter 2019) with the schedule, gradients clipped by their norm before."""
    adamw = optax.adamw(
        learning_rate(config, steps),
        b1=config.beta1,
        b2=config.beta2,
        eps=config.eps,
        weight_decay=config.weight_decay,
    )
    # Always a chain of two, so that a run can go on with clipping or without.
    return optax.chain(optax.clip_by_global_norm(config.clip_norm) if config.clip_norm else optax.identity(), adamw)
