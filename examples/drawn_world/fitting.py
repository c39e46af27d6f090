"""The loop of the small trainers: optimiser, curves, checkpoints to go on from. (StableAnimator has `train.py`.)

What a step sees depends on the seed and its number alone, so a run that was stopped goes on as if it had not been.
"""

import dataclasses
import json
import time
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal, NamedTuple

import jax
import numpy as np
import optax
import orbax.checkpoint as ocp
from jaxtyping import Array, PyTree
from tqdm import tqdm

from examples.drawn_world.settings import claim, require_counts
from stableanimator_jax.errors import InputError
from stableanimator_jax.files import replacing
from stableanimator_jax.interrupts import check_interrupted
from stableanimator_jax.training.config import OptimizerConfig
from stableanimator_jax.training.optimizer import make_optimizer
from stableanimator_jax.weights.checkpoint import require_replaceable
from stableanimator_jax.weights.storage import orbax_silenced

Batch = PyTree[np.ndarray]


@dataclass(frozen=True)
class FitConfig:
    """How a model is fitted."""

    output: Path
    """The checkpoint to make; `OUTPUT.progress` beside it is what a stopped run goes on from, and holds the curves."""
    steps: int
    """In all."""
    batch: int
    """Examples a step."""
    learning_rate: float = 1e-3
    """At its highest: it rises over the first tenth of the steps, at most 100, and falls along half a cosine to 0."""
    optimizer: Literal["adamw", "muon"] = "adamw"
    """As in `train.py`; by Muon the VAE learns in half as many steps."""
    weight_decay: float = 1e-2
    seed: int = 0
    """Of everything random: the first parameters, and whom and what each step sees."""
    every: int = 40
    """Steps between checkpoints."""

    def __post_init__(self):
        require_counts(self)


class Fitted(NamedTuple):
    """The state of a run."""

    params: PyTree[Array]
    """What is trained."""
    statistics: PyTree[Array]
    """What a step changes without a gradient."""
    opt_state: PyTree[Array]


Loss = Callable[[Any, Any, Any, Array], tuple[Array, tuple[Any, dict[str, Array]]]]
"""(params, statistics, batch, key) to the loss, with new statistics and what the curves show."""


def fit(
    config: FitConfig,
    params: Any,
    statistics: Any,
    loss: Loss,
    draw_batch: Callable[[np.random.Generator], Batch],
    *,
    stage: str = "",
) -> Fitted:
    """Minimise a loss.

    Args:
        config: see there.
        params, statistics: at the beginning, nested dicts of arrays.
        loss: see `Loss`; compiled.
        draw_batch: a batch from a random generator; runs in a thread, one batch ahead.
        stage: of a training in several ones, each with progress of its own.

    Raises:
        InputError: the loss is not a number any more; or before anything is done, the output or its progress is
            something else's, or cannot be written.
    """
    whole = config.output.with_name(f"{config.output.name}.progress")
    require_replaceable(config.output, overwrite=whole.exists())  # of an earlier run of this, whose settings are there
    settings = OptimizerConfig(
        kind=config.optimizer,
        learning_rate=config.learning_rate,
        schedule="cosine",
        warmup_steps=min(100, config.steps // 10),
        weight_decay=config.weight_decay,
    )
    optimizer = make_optimizer(settings, config.steps)

    @jax.jit
    def step(state: Fitted, batch: Batch, number: Array) -> tuple[Fitted, dict[str, Array]]:
        key = jax.random.fold_in(jax.random.key(config.seed), number)
        gradients, (new, shown) = jax.grad(loss, has_aux=True)(state.params, state.statistics, batch, key)
        with jax.numpy_dtype_promotion("standard"):  # optax counts in integers
            updates, opt_state = optimizer.update(gradients, state.opt_state, state.params)
        return Fitted(optax.apply_updates(state.params, updates), new, opt_state), shown

    def batch_of(number: int) -> Batch:
        return draw_batch(np.random.default_rng([config.seed, number]))

    progress = (whole / stage).resolve()
    plain = dataclasses.asdict(config)
    claim(progress, {name: value for name, value in plain.items() if name not in ("output", "every")})
    state = Fitted(params, statistics, optimizer.init(params))
    options = ocp.CheckpointManagerOptions(max_to_keep=1, enable_async_checkpointing=False)
    with (
        orbax_silenced(),
        ocp.CheckpointManager(progress / "checkpoints", options=options) as manager,
        ThreadPoolExecutor(1) as thread,
    ):
        first = manager.latest_step() or 0
        if first:
            state = manager.restore(first, args=ocp.args.StandardRestore(state))
        _cut(progress / "metrics.jsonl", first)
        coming = thread.submit(batch_of, first)
        window: list[dict[str, Array]] = []
        began = time.monotonic()
        name = f"{config.output.name} {stage}".strip()
        for number in tqdm(range(first, config.steps), name, config.steps, initial=first, unit="step"):
            check_interrupted()
            batch, coming = coming.result(), thread.submit(batch_of, number + 1)
            state, shown = step(state, batch, np.uint32(number))
            window.append(shown)
            done = number + 1
            if done % 20 == 0 or done == config.steps:
                rows = jax.device_get(window)
                means = {name: float(np.mean([row[name] for row in rows])) for name in rows[0]}
                window = []
                if not all(map(np.isfinite, means.values())):
                    raise InputError(f"at step {done} the loss is not a number; try a smaller --learning-rate")
                line = {"step": done, "seconds": round(time.monotonic() - began, 1), **means}
                with (progress / "metrics.jsonl").open("a") as file:
                    file.write(json.dumps(line) + "\n")
            if done % config.every == 0 or done == config.steps:
                manager.save(done, args=ocp.args.StandardSave(state))
    return state


def _cut(curves: Path, step: int) -> None:
    """Forget what a run that was stopped wrote after its last checkpoint."""
    if curves.exists():
        lines = curves.read_text().splitlines(keepends=True)
        whole = [line for line in lines if line.endswith("\n") and json.loads(line)["step"] <= step]
        with replacing(curves) as temporary:
            temporary.write_text("".join(whole))
