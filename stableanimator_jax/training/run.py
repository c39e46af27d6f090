"""A run of `train.py`: data in; checkpoints, curves and videos out."""

import json
from collections.abc import Callable
from contextlib import ExitStack
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import jax
import numpy as np
import optax
from jax.sharding import Mesh

from stableanimator_jax.config import StableAnimatorConfig, read_json
from stableanimator_jax.data.device_batches import AnyDeviceBatch, DeviceBatches
from stableanimator_jax.data.files import replacing
from stableanimator_jax.data.loader import Loader, make_loader
from stableanimator_jax.errors import InputError
from stableanimator_jax.flops import matmul_flops, peak_flops
from stableanimator_jax.parallel import BATCH_AXES, make_mesh, row_share
from stableanimator_jax.runtime import choose_device, keep_compiled_programs
from stableanimator_jax.training.checkpoints import Checkpoints
from stableanimator_jax.training.config import TrainConfig
from stableanimator_jax.training.hosts import changes, require_agreement, start_distributed
from stableanimator_jax.training.metrics import MetricsWriter
from stableanimator_jax.training.optimizer import learning_rate, make_optimizer
from stableanimator_jax.training.progress import TrainProgress
from stableanimator_jax.training.sources import sources, training_clips, validation_clips
from stableanimator_jax.training.state import (
    TrainState,
    abstract_state,
    begin,
    load,
    model_config,
    training_blueprints,
)
from stableanimator_jax.training.step import Metrics, Task, make_step, means
from stableanimator_jax.training.stopping import Stopping
from stableanimator_jax.training.trainable import Params, merged, split_abstract
from stableanimator_jax.training.validation import Validation
from stableanimator_jax.weights.checkpoint_item import SaveModels
from stableanimator_jax.weights.embedded import CheckpointSource, open_checkpoint

SETTINGS = "config.json"
# What a run's checkpoints mean: another value makes them another run's.
_FIXED = ("init_from", "model.", "trainable.", "dtype", "seed", "optimizer.ema_decay", "optimizer.clip_norm")


@dataclass(frozen=True)
class _Run:
    """What stays the same from the first step to the last."""

    config: TrainConfig
    model: StableAnimatorConfig
    task: Task
    optimizer: optax.GradientTransformation
    mesh: Mesh
    frozen: Params
    weights: Callable[[Params, Params], dict[str, dict[Any, Any]]]


def run(config: TrainConfig) -> None:
    """Train. Says on stdout what is done, with a progress bar on stderr.

    Raises:
        InputError: what was asked for cannot be done; found before anything is computed wherever it can be.
        KeyboardInterrupt: the run was asked to stop; it has saved.
    """
    config = config.absolute()
    start_distributed(config.distributed)
    device = choose_device(config.device)
    if config.compilation_cache:
        keep_compiled_programs()
    on_cpu = device.endswith("(cpu)")
    config = replace(config, dtype=config.dtype if config.dtype != "auto" else "float32" if on_cpu else "bfloat16")
    require_agreement({k: v for k, v in config.to_dict().items() if k != "distributed"})
    mesh = make_mesh(config.mesh.data, config.mesh.fsdp, config.mesh.frame)
    _require_divisible(config, mesh)

    source = open_checkpoint(config.init_from)
    model = model_config(source.config, config.model)
    clips = training_clips(config)
    loader = _loader(config, sources(clips, config, model), mesh)
    require_agreement({"training data": json.loads(loader.state())})
    with ExitStack() as opened:
        checkpoints = opened.enter_context(Checkpoints(config.output, config.checkpoints))
        resumed = _resumed_step(config, checkpoints)
        _keep_settings(config, resumed)
        _say(f"device: {device}, computing in {config.dtype}; mesh {dict(mesh.shape)}")
        _say(f"data: {sum(map(len, clips))} clips in {len(clips)} buckets, batches of {config.data.loader.batch_size}")

        opened.enter_context(jax.set_mesh(mesh))
        made, trained = _prepare(config, source, model, mesh)
        validation = _validation(config, made, mesh)
        if resumed is None:
            state = begin(trained, made.optimizer, mesh, ema=config.optimizer.ema_decay > 0, seed=config.seed)
        else:
            wanted = abstract_state(
                split_abstract(made.task.blueprints, config.trainable)[0],
                made.optimizer,
                mesh,
                ema=config.optimizer.ema_decay > 0,
            )
            del trained
            _, state, position = checkpoints.restore(wanted, resumed)
            loader.restore(position)
            _say(f"going on from step {resumed}")
        batches = opened.enter_context(DeviceBatches(loader, mesh))
        metrics = opened.enter_context(
            MetricsWriter(config.output, resumed=resumed, wandb=config.wandb, settings=config.to_dict())
        )
        _train(made, state, resumed or 0, batches, loader, checkpoints, metrics, validation)


def _train(
    made: _Run,
    state: TrainState,
    done: int,
    batches: DeviceBatches,
    loader: Loader,
    checkpoints: Checkpoints,
    metrics: MetricsWriter,
    validation: Validation | None,
) -> None:
    config = made.config
    step = jax.jit(make_step(made.task, made.optimizer, made.mesh), donate_argnums=0)
    rate = learning_rate(config.optimizer, config.steps)
    flops: dict[Any, float] = {}
    peak = peak_flops(jax.devices()[0])
    peak = None if peak is None else peak * made.mesh.size
    with (
        Stopping() as stopping,
        TrainProgress(config.steps, done=done, peak=peak) as progress,
    ):
        log = _Log(config, metrics, progress, rate, loader)
        waiting: _Waiting | None = None
        while done < config.steps:
            batch = next(batches)
            if batch.masks.shape not in flops:
                with progress.paused("preparing"):
                    flops[batch.masks.shape] = _useful_flops(made, state, batch)
            state, sums, norm = step(state, made.frozen, batch)
            done += 1
            if waiting is not None:
                log.add(waiting)  # while the device is busy with this step, the one before is looked at
            waiting = _Waiting(done, sums, norm, int(np.prod(batch.masks.shape[:2])), flops[batch.masks.shape])
            stop = stopping.asked(done)
            last = done == config.steps
            save = last or stop or checkpoints.due(done)
            validate = validation is not None and not stop and (last or done % config.validation.every == 0)
            if save or validate:
                log.add(waiting)  # nothing is saved before its loss is known to be a number
                waiting = None
            if save:
                with progress.paused("saving"):
                    checkpoints.save(done, state, batches.state(), _weights(made, state, done))
            if validate and validation is not None:
                with progress.paused("validating"):
                    _validate(validation, made, state, done, metrics, stopping.check)
            if stop:
                checkpoints.wait()
                _say(f"stopped after step {done}, which is saved; --resume goes on from it")
                raise KeyboardInterrupt
        checkpoints.wait()
    _say(f"trained {done} steps; the weights are in {checkpoints.directory / str(done) / 'weights'}")


@dataclass(frozen=True)
class _Waiting:
    """What a step that is still being computed will have found."""

    step: int
    metrics: Metrics
    norm: jax.Array
    frames: int
    flops: float


class _Log:
    """Adds up what steps found, shows it, and writes points of the curves."""

    def __init__(
        self,
        config: TrainConfig,
        metrics: MetricsWriter,
        progress: TrainProgress,
        rate: optax.Schedule,
        loader: Loader,
    ):
        self._config, self._metrics, self._progress, self._rate, self._loader = config, metrics, progress, rate, loader
        self._sums: Metrics | None = None
        self._norms: list[float] = []

    def add(self, found: _Waiting) -> None:
        """Wait for a step. Raises `InputError` where its loss is not a number."""
        sums, norm = jax.device_get((found.metrics, found.norm))
        loss = float(sums.loss) / float(sums.clips)
        if not np.isfinite(loss) or not np.isfinite(norm):
            names = ", ".join(self._loader.batch_at(found.step - 1).names)
            what = "loss" if not np.isfinite(loss) else "norm of the gradients"
            raise InputError(
                f"the {what} of step {found.step} is {loss if what == 'loss' else float(norm)}, with clips {names}; "
                "nothing is saved of it: go on from the last checkpoint with --resume and a smaller "
                "--optimizer.learning-rate, or without these clips"
            )
        rate = float(np.asarray(self._rate(found.step - 1)))
        speeds = self._progress.update(
            found.step, loss=loss, learning_rate=rate, frames=found.frames, flops=found.flops
        )
        total = self._sums = sums if self._sums is None else jax.tree.map(np.add, self._sums, sums)
        self._norms.append(float(norm))
        if found.step % self._config.log_every == 0 or found.step == self._config.steps:
            values = {f"train/{name}": value for name, value in means(total).items()}
            values |= {"train/gradient_norm": float(np.mean(self._norms)), "train/learning_rate": rate}
            values |= {f"speed/{name}": value for name, value in speeds.items() if name != "loss_smoothed"}
            self._metrics.write(found.step, values)
            self._sums, self._norms = None, []


def _prepare(
    config: TrainConfig, source: CheckpointSource, model: StableAnimatorConfig, mesh: Mesh
) -> tuple[_Run, Params]:
    """Load the models, and say what is trained."""
    from stableanimator_jax.weights.checkpoint import models_in

    has_arcface = source.path is not None and "arcface" in models_in(source.path)
    blueprints = training_blueprints(model, config.dtype, arcface=has_arcface)  # pyright: ignore[reportArgumentType]
    trained, frozen, anew = load(source, blueprints, config, mesh)
    task = Task(
        blueprints,
        config.trainable,
        config.objective,
        config.remat,
        config.optimizer.accumulate,
        config.optimizer.ema_decay,
    )
    count = sum(leaf.size for leaf in jax.tree.leaves(trained))
    _say(f"weights: {config.init_from}" + (f"; begun anew: {', '.join(anew)}" if anew and source.path else ""))
    _say(f"trained: {count / 1e6:.1f} M parameters ({config.trainable.unet}, PoseNet, Face Encoder)")
    nested = jax.jit(lambda trained, frozen: merged(blueprints, trained, frozen, config.trainable))
    plain = config.trainable.unet != "lora"  # then nothing is computed, and nothing copied
    weights = (lambda t, f: merged(blueprints, t, f, config.trainable)) if plain else nested
    return _Run(config, model, task, make_optimizer(config.optimizer, config.steps), mesh, frozen, weights), trained


def _weights(made: _Run, state: TrainState, step: int) -> SaveModels:
    """The models for inference, of the running mean where there is one."""
    source = {"trained_from": made.config.init_from, "step": step, "ema": bool(state.ema)}
    return SaveModels(made.model, made.weights(state.ema or state.params, made.frozen), source)


def _useful_flops(made: _Run, state: TrainState, batch: AnyDeviceBatch) -> float:
    """Of one step, without what is computed twice to save memory."""
    whole = replace(made.task, remat=False)
    abstract = jax.tree.map(lambda a: jax.ShapeDtypeStruct(a.shape, a.dtype), (state, made.frozen, batch))
    return float(matmul_flops(make_step(whole, made.optimizer, made.mesh), *abstract))


def _validation(config: TrainConfig, made: _Run, mesh: Mesh) -> Validation | None:
    if not config.validation.every:
        return None
    clips = validation_clips(config)
    rows = mesh.shape[BATCH_AXES[0]] * mesh.shape[BATCH_AXES[1]]
    settings = replace(config.data.loader, batch_size=rows, seed=0, horizontal_flip=False, workers=0, proportions=None)
    host, hosts = row_share(mesh)
    loader = make_loader(sources(clips, config, made.model), settings, host=host, hosts=hosts)
    pixels = make_loader(clips, replace(settings, batch_size=1))
    most = min(config.validation.clips, sum(map(len, clips)))
    wanted = replace(config.validation, clips=most, videos=min(config.validation.videos, most))
    return Validation(wanted, made.task, made.model, mesh, loader, pixels)


def _validate(
    validation: Validation,
    made: _Run,
    state: TrainState,
    step: int,
    metrics: MetricsWriter,
    check: Callable[[], None],
) -> None:
    params = state.ema or state.params
    values = validation.loss(params, made.frozen, check)
    directory = made.config.output / "validation" / str(step)
    found, sheets = validation.videos(params, made.frozen, directory, check)
    metrics.write(step, {f"validation/{name}": value for name, value in (values | found).items()})
    for name, sheet in sheets.items():
        metrics.image(step, name, sheet)


def _loader(config: TrainConfig, clips: Any, mesh: Mesh) -> Loader:
    host, hosts = row_share(mesh)
    return make_loader(clips, config.data.loader, host=host, hosts=hosts)


def _require_divisible(config: TrainConfig, mesh: Mesh) -> None:
    rows = mesh.shape[BATCH_AXES[0]] * mesh.shape[BATCH_AXES[1]]
    parts = rows * config.optimizer.accumulate
    size = config.data.loader.batch_size
    if size % parts:
        raise InputError(
            f"a batch of {size} cannot be shared out among data {mesh.shape['data']} x fsdp {mesh.shape['fsdp']} "
            f"devices in {config.optimizer.accumulate} parts: make --data.batch-size a multiple of {parts}, "
            f"such as {max(1, round(size / parts)) * parts}"
        )


def _resumed_step(config: TrainConfig, checkpoints: Checkpoints) -> int | None:
    """Which step to go on from, None to begin. Raises `InputError` for another run's directory."""
    steps = checkpoints.steps()
    if config.resume_step is not None:
        if config.resume_step not in steps:
            there = f"it has {', '.join(map(str, steps))}" if steps else "it has none"
            raise InputError(f"{checkpoints.directory} has no checkpoint of step {config.resume_step}; {there}")
        return config.resume_step
    if steps and not config.resume:
        raise InputError(
            f"{config.output} holds a run's checkpoints already (step {steps[-1]}): go on with it by --resume, or name "
            "another --output"
        )
    return steps[-1] if steps else None


def _keep_settings(config: TrainConfig, resumed: int | None) -> None:
    """Leave the run's settings in its directory. Raises `InputError` where going on with others means nothing."""
    path = config.output / SETTINGS
    settings = config.to_dict()
    if resumed is not None and path.is_file():
        before = read_json(path)
        changed = changes(before if isinstance(before, dict) else {}, settings)
        for name, (old, new) in changed.items():
            if name.startswith(_FIXED):
                flag = "--" + name.replace("_", "-")
                raise InputError(
                    f"this run was begun with {flag} {old}, and cannot go on with {new}: leave it as it was"
                )
        shown = [f"{n} {o} -> {v}" for n, (o, v) in changed.items() if not n.startswith(("resume", "distributed"))]
        if shown:
            _say(f"note: settings that are not as they were: {', '.join(shown)}")
    if jax.process_index() == 0:
        try:
            with replacing(path) as unfinished:
                Path(unfinished).write_text(json.dumps(settings, indent=1) + "\n", encoding="utf-8")
        except OSError as e:
            raise InputError(f"cannot write to --output {config.output}: {e.strerror}") from e


def _say(text: str) -> None:
    if jax.process_index() == 0:
        print(text, flush=True)
