"""A run of `train.py`: data in; checkpoints, curves and videos out."""

import json
import math
from collections.abc import Callable, Sequence
from concurrent.futures import Future, ThreadPoolExecutor
from contextlib import ExitStack, suppress
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any

import jax
import numpy as np
import optax
from jax.sharding import Mesh

from stableanimator_jax.config import StableAnimatorConfig
from stableanimator_jax.data.clip_source import ClipSource
from stableanimator_jax.data.device_batches import DeviceBatches
from stableanimator_jax.data.loader import Loader, make_loader
from stableanimator_jax.errors import InputError
from stableanimator_jax.files import url_scheme
from stableanimator_jax.hosts import (
    failing_together,
    leave_together,
    require_agreement,
    say,
    start_distributed,
    wait_for_all,
)
from stableanimator_jax.locking import alone_in
from stableanimator_jax.models.flops import peak_flops
from stableanimator_jax.parallel import FRAME, make_mesh, row_share, rows_apart
from stableanimator_jax.runtime import choose_device, keep_compiled_programs, out_of_memory_explained, training_dtype
from stableanimator_jax.scripts.train.best import Best
from stableanimator_jax.scripts.train.progress import TrainProgress
from stableanimator_jax.scripts.train.run_settings import check_settings, keep_settings, resumed_step
from stableanimator_jax.scripts.train.time_limit import TimeLimit
from stableanimator_jax.scripts.train.validation import Validation
from stableanimator_jax.training.checkpoints import Checkpoints, require_writable
from stableanimator_jax.training.config import TrainConfig
from stableanimator_jax.training.data_watch import DAMAGED, DataWatch, go_on, keep_contents
from stableanimator_jax.training.export import Export
from stableanimator_jax.training.metrics import MetricsWriter
from stableanimator_jax.training.optimizer import learning_rate, make_optimizer
from stableanimator_jax.training.sources import sources, training_clips, validation_clips
from stableanimator_jax.training.state import (
    TrainState,
    abstract_state,
    begin,
    frozen_digest,
    load,
    model_config,
    training_blueprints,
)
from stableanimator_jax.training.step import Metrics, Task, make_step, means
from stableanimator_jax.training.step_flops import step_flops
from stableanimator_jax.training.stopping import StopAsked, Stopping
from stableanimator_jax.training.trainable import Params, split_abstract
from stableanimator_jax.weights.checkpoint import describe
from stableanimator_jax.weights.checkpoint_item import SaveModels
from stableanimator_jax.weights.opening import CheckpointSource, open_checkpoint

_TOO_LITTLE_MEMORY = (
    "the device has too little memory for this: try --data.encoded, a smaller batch or more --optimizer.accumulate, "
    "--trainable.unet adapters or lora, more --mesh.fsdp or --mesh.frame, or --validation.videos 0 where it happened "
    "while validating; what was saved is whole"
)


@dataclass(frozen=True)
class _Run:
    """What stays the same from the first step to the last."""

    config: TrainConfig
    model: StableAnimatorConfig
    task: Task
    optimizer: optax.GradientTransformation
    mesh: Mesh
    frozen: Params
    export: Export


def run(config: TrainConfig) -> None:
    """Train. Says on stdout what is done, with a progress bar on stderr.

    Raises:
        InputError: what was asked for cannot be done; found before anything is computed wherever it can be.
        KeyboardInterrupt: the run was asked to stop; it has saved.
    """
    limit = TimeLimit(config.max_minutes, timed=config.optimizer.schedule == "timed")
    config = config.absolute()
    start_distributed(config.distributed)
    device = choose_device(config.device)
    if config.compilation_cache:
        keep_compiled_programs()
    config = replace(config, dtype=training_dtype(config.dtype))
    require_agreement({k: v for k, v in config.to_dict().items() if k != "distributed"})
    with failing_together():
        mesh = make_mesh(config.mesh.data, config.mesh.fsdp, config.mesh.frame)
        _require_fitting(config, mesh)
        # As it is here, so that another number of devices is noticed when the run goes on.
        config = replace(config, mesh=replace(config.mesh, data=mesh.shape["data"]))
        source = open_checkpoint(config.init_from)
        model = model_config(source.config, config.model)
        clips = training_clips(config)
        host, hosts = row_share(mesh)
        buckets = sources(clips, config, model)
        loader = make_loader(buckets, config.data.loader, host=host, hosts=hosts)
        loader.batch_at(0)  # so that data that cannot be read shows before weights are
        held_out = sources(validation_clips(config), config, model) if config.validation.every else []
    damaged = [sorted(bucket.damaged) for bucket in buckets]
    require_agreement({"training data": json.loads(loader.state()), "damaged clips": damaged})
    with ExitStack() as opened:
        place = config.checkpoint_directory or config.output
        with failing_together():
            if jax.process_index() == 0:
                for directory in dict.fromkeys([config.output, Path(place)]):
                    if url_scheme(directory) is None:
                        opened.enter_context(alone_in(directory))
            require_writable(place)
        checkpoints = opened.enter_context(Checkpoints(place, config.checkpoints))
        with failing_together():  # an output directory may be each machine's own
            resumed = resumed_step(config, checkpoints)
        say(f"device: {device}, computing in {config.dtype}; mesh {dict(mesh.shape)}")
        say(f"data: {sum(map(len, clips))} clips in {len(clips)} buckets, batches of {config.data.loader.batch_size}")

        made, trained = _prepare(config, source, model, mesh)
        digest = frozen_digest(made.frozen)
        require_agreement({"frozen weights": digest})
        with failing_together():
            if resumed is not None:
                check_settings(config, digest)
            best = Best(config.output, resumed=resumed is not None) if config.validation.keep_best else None
        validation = _validation(made, held_out, best)
        ema = config.optimizer.ema_decay > 0
        if resumed is None:
            state = begin(trained, made.optimizer, mesh, ema=ema, seed=config.seed)
        else:
            abstract_trained, _ = split_abstract(made.task.blueprints, config.trainable)
            wanted = abstract_state(abstract_trained, made.optimizer, mesh, ema=ema)
            del trained
            _, state, position = checkpoints.restore(wanted, resumed)
            go_on(loader, position, config.output, changed=config.data.changed)
            say(f"going on from step {resumed}")
        with failing_together():
            keep_settings(config, digest)
            keep_contents(config.output, loader)
            metrics = opened.enter_context(
                MetricsWriter(config.output, resumed=resumed, wandb=config.wandb, settings=config.to_dict())
            )
        held = [] if validation is None else [("validation", validation.loader), ("validation", validation.pixels)]
        data = DataWatch(config.output, [("train", loader), *held], resumed=resumed is not None)
        if problem := data.look():
            raise InputError(problem)
        batches = opened.enter_context(DeviceBatches(loader, mesh))
        opened.enter_context(out_of_memory_explained(_TOO_LITTLE_MEMORY))
        ended = _train(made, state, resumed or 0, batches, loader, checkpoints, metrics, validation, data, limit)
    leave_together()
    if ended is not None:
        raise ended


def _train(
    made: _Run,
    state: TrainState,
    done: int,
    batches: DeviceBatches,
    loader: Loader,
    checkpoints: Checkpoints,
    metrics: MetricsWriter,
    validation: Validation | None,
    data: DataWatch,
    limit: TimeLimit,
) -> BaseException | None:
    """Train to the last step. What it returns is to be raised: asked to stop, or the data fails; then it has saved."""
    config = made.config
    step = jax.jit(
        make_step(made.task, made.optimizer, made.mesh),
        donate_argnums=0,
        out_shardings=(jax.tree.map(lambda leaf: leaf.sharding, state), None, None),
    )
    programs: dict[Any, Any] = {}
    rate = learning_rate(config.optimizer, config.steps)
    flops: dict[Any, int] = {}
    peak = peak_flops(jax.devices()[0])
    peak = None if peak is None else peak * made.mesh.size
    with (
        Stopping() as stopping,
        TrainProgress(None if limit.minutes else config.steps, done=done, peak=peak) as progress,
        ThreadPoolExecutor(1) as watch,
    ):
        log = _Log(config, metrics, progress, rate, loader, data)
        waiting: _Waiting | None = None
        if validation is not None and validation.best is not None and validation.best.loss == math.inf:
            with progress.paused("validating"), suppress(StopAsked):
                _validate(validation, made, state, done, metrics, stopping.check)
        last = False
        while not last and done < config.steps:
            try:
                batch = next(batches)
            except InputError as e:
                if jax.process_count() > 1 or not done:
                    raise  # the others wait in the step for this one, and cannot save with it
                if waiting is not None:
                    log.add(waiting)
                checkpoints.save(done, state, batches.state(), _weights(made, state, done))
                checkpoints.wait()
                return InputError(f"{e}; step {done} is saved, --resume goes on from it")
            size = batch.masks.shape
            scale = limit.rate_scale()
            timed = [scale] if limit.timed else []
            with jax.set_mesh(made.mesh):  # not for longer: a video is made on one device
                if size not in programs:
                    with progress.paused("compiling"):
                        lowered = step.lower(state, made.frozen, batch, *timed)
                        counted = watch.submit(step_flops, made.task, state.params, made.frozen, batch)
                        programs[size] = lowered.compile()  # which leaves Python free for the other thread
                        flops[size] = counted.result()
                        wait_for_all()
                state, sums, norm = programs[size](state, made.frozen, batch, *timed)
            done += 1
            if waiting is not None:
                log.add(waiting)  # while the device is busy with this step, the one before is looked at
            finished = watch.submit(progress.when, norm)
            waiting = _Waiting(done, sums, norm, finished, int(np.prod(size[:2])), flops[size], float(scale))
            last = done == config.steps or limit.over()
            problem = data.look() if jax.process_count() == 1 or last or done % config.log_every == 0 else None
            stop = stopping.asked(done) or (problem is not None and not last)
            save = last or stop or checkpoints.due(done)
            validate = validation is not None and not stop and (last or done % config.validation.every == 0)
            if save or validate:
                log.add(waiting)  # nothing is saved before its loss is known to be a number
                waiting = None
            if save:
                with progress.paused("saving"):
                    checkpoints.save(done, state, batches.state(), _weights(made, state, done))
            if validate and validation is not None:
                with progress.paused("validating"), suppress(StopAsked):  # the next step will be the last
                    _validate(validation, made, state, done, metrics, stopping.check)
            if stop:
                checkpoints.wait()
                if problem is not None:
                    return InputError(f"{problem}; step {done} is saved, --resume goes on from it")
                say(f"stopped after step {done}, which is saved; --resume goes on from it")
                return KeyboardInterrupt()
        checkpoints.wait()
    if len(data):
        say(f"note: {len(data)} damaged clips were left out; {config.output / DAMAGED} lists them")
    if done < config.steps:
        say(f"the {config.max_minutes:g} minutes are over; --resume goes on from there")
    say(f"trained {done} steps; the weights are in {checkpoints.directory / str(done) / 'weights'}")
    return None


@dataclass(frozen=True)
class _Waiting:
    """What a step that is still being computed will have found."""

    step: int
    metrics: Metrics
    norm: jax.Array
    finished: Future[float]
    """By the clock of the progress: it is looked at some time later."""
    frames: int
    flops: int
    rate_scale: float
    """What the learning rate was multiplied by."""


@dataclass
class _Log:
    """Adds up what steps found, shows it, and writes points of the curves."""

    config: TrainConfig
    metrics: MetricsWriter
    progress: TrainProgress
    rate: optax.Schedule
    loader: Loader
    data: DataWatch
    _sums: Metrics | None = None
    _norms: list[float] = field(default_factory=list)

    def add(self, found: _Waiting) -> None:
        """Wait for a step. Raises `InputError` where its loss is not a number."""
        sums, norm = jax.device_get((found.metrics, found.norm))
        loss = float(sums.loss) / float(sums.clips)
        if not np.isfinite(loss) or not np.isfinite(norm):
            names = ", ".join(self.loader.batch_at(found.step - 1).names)
            what = "loss" if not np.isfinite(loss) else "norm of the gradients"
            raise InputError(
                f"the {what} of step {found.step} is {loss if what == 'loss' else float(norm)}, with clips {names}; "
                "nothing is saved of it: go on from the last checkpoint with --resume and a smaller "
                "--optimizer.learning-rate, or without these clips and with --data.changed"
            )
        rate = float(np.asarray(self.rate(found.step - 1))) * found.rate_scale
        at = found.finished.result()
        speeds = self.progress.update(
            found.step, loss=loss, learning_rate=rate, frames=found.frames, flops=found.flops, at=at
        )
        total = self._sums = sums if self._sums is None else jax.tree.map(np.add, self._sums, sums)
        self._norms.append(float(norm))
        if found.step % self.config.log_every == 0 or found.step == self.config.steps:
            values = {f"train/{name}": value for name, value in means(total).items()}
            values |= {"train/gradient_norm": float(np.mean(self._norms)), "train/learning_rate": rate}
            values |= {"data/damaged_clips": len(self.data)}
            values |= {f"speed/{name}": value for name, value in speeds.items() if name != "loss_smoothed"}
            self.metrics.write(found.step, values)
            self._sums, self._norms = None, []


def _prepare(
    config: TrainConfig, source: CheckpointSource, model: StableAnimatorConfig, mesh: Mesh
) -> tuple[_Run, Params]:
    """Load the models, and say what is trained."""
    has_arcface = "arcface" in describe(source.path).models
    blueprints = training_blueprints(model, training_dtype(config.dtype), arcface=has_arcface)
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
    say(f"weights: {config.init_from}" + (f"; begun anew: {', '.join(anew)}" if anew else ""))
    say(f"trained: {count / 1e6:.1f} M parameters ({config.trainable.unet}, PoseNet, Face Encoder)")
    export = Export(source, blueprints, frozen, config.trainable)
    return _Run(config, model, task, make_optimizer(config.optimizer, config.steps), mesh, frozen, export), trained


def _weights(made: _Run, state: TrainState, step: int) -> SaveModels:
    """The models for inference, of the running mean where there is one."""
    config = made.config
    source = {"run": str(config.output), "step": step, "ema": bool(state.ema), "trained_from": config.init_from}
    return SaveModels(made.model, made.export.models(state.ema or state.params), source)


def _validation(made: _Run, clips: Sequence[ClipSource], best: Best | None) -> Validation | None:
    if not clips:
        return None
    config = made.config
    rows = rows_apart(made.mesh)
    settings = replace(config.data.loader, batch_size=rows, seed=0, horizontal_flip=False, workers=0, proportions=None)
    host, hosts = row_share(made.mesh)
    loader = make_loader(clips, settings, host=host, hosts=hosts)
    pixels = make_loader(validation_clips(config), replace(settings, batch_size=1))
    most = min(config.validation.clips, sum(map(len, clips)))
    with failing_together():  # now, rather than when they are first needed
        for number in range(-(-most // rows)):
            loader.batch_at(number)
    wanted = replace(config.validation, clips=most, videos=min(config.validation.videos, most))
    return Validation(wanted, made.task, made.model, made.mesh, loader, pixels, best)


def _validate(
    validation: Validation, made: _Run, state: TrainState, step: int, metrics: MetricsWriter, check: Callable[[], None]
) -> None:
    params = state.ema or state.params
    values = validation.loss(params, made.frozen, check)
    directory = made.config.output / "validation" / str(step)
    found, sheets = validation.videos(params, made.frozen, directory, check)
    metrics.write(step, {f"validation/{name}": value for name, value in (values | found).items()})
    if validation.best is not None and values["loss"] < validation.best.loss:
        validation.best.keep(values["loss"], _weights(made, state, step))
    for name, sheet in sheets.items():
        metrics.image(step, name, sheet)


def _require_fitting(config: TrainConfig, mesh: Mesh) -> None:
    """Raise `InputError` unless the mesh takes all devices and divides batches and frames, and there is one clock."""
    if config.max_minutes and jax.process_count() > 1:
        raise InputError("--max-minutes is for a run of one process: the clocks of several are not the same")
    if mesh.size != len(jax.devices()):
        raise InputError(
            f"the mesh has {mesh.size} devices of {len(jax.devices())}: leave --mesh.data out, or make it more"
        )
    parts = rows_apart(mesh) * config.optimizer.accumulate
    size = config.data.loader.batch_size
    if size % parts:
        raise InputError(
            f"a batch of {size} cannot be shared out among data {mesh.shape['data']} x fsdp {mesh.shape['fsdp']} "
            f"devices in {config.optimizer.accumulate} parts: make --data.batch-size a multiple of {parts}, "
            f"such as {max(1, round(size / parts)) * parts}"
        )
    frames = config.data.loader.frames
    if frames % mesh.shape[FRAME]:
        raise InputError(
            f"{frames} frames cannot be shared out among {mesh.shape[FRAME]} devices: make --mesh.frame a divisor of "
            "--data.frames"
        )
