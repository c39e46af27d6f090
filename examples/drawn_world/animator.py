"""StableAnimator's own part (UNet, PoseNet, Face Encoder) trained on for some minutes, on whatever device is there."""

import contextlib
import json
import os
from dataclasses import dataclass, field
from pathlib import Path

import jax

from examples.drawn_world.clips import TRAIN_SEEDS, VALIDATION_SEEDS
from examples.drawn_world.dataset import DatasetConfig, write
from examples.drawn_world.settings import claim, require_counts
from examples.drawn_world.ship import ShipConfig, ship
from stableanimator_jax.data.loader import LoaderConfig
from stableanimator_jax.data.prepared import DATASET_FILE
from stableanimator_jax.errors import InputError
from stableanimator_jax.preparation.config import EncodeConfig
from stableanimator_jax.preparation.encoding import encode
from stableanimator_jax.scripts.train.best import BEST, LOSS
from stableanimator_jax.scripts.train.run import run
from stableanimator_jax.shipped import EMBEDDED
from stableanimator_jax.training.checkpoints import CheckpointConfig
from stableanimator_jax.training.config import (
    DataConfig,
    OptimizerConfig,
    TrainableConfig,
    TrainConfig,
    ValidationConfig,
)
from stableanimator_jax.training.metrics import JSON_LINES
from stableanimator_jax.weights.checkpoint import STABLEANIMATOR, describe, require_models, require_replaceable
from stableanimator_jax.weights.opening import open_checkpoint

CPU_BATCH = 16
_NO_END = 2**31 - 1  # steps: the time ends a run


@dataclass(frozen=True)
class AnimatorTraining:
    """How long, from what, on whom."""

    minutes: float = 60.0
    """Of training, loading and compiling included. The data is drawn and encoded before that, once; 0: only that."""
    checkpoint: str = EMBEDDED
    """All six models to begin from: a checkpoint directory, or "embedded" for the one in this package. VAE, image
    encoder and ArcFace stay as they are."""
    output: Path = Path("outputs/drawn_world/fit")
    """The data, the run, and as `checkpoint` the best weights so far. The same command goes on from what is there."""
    people: int = 2000
    """To train on, a clip each."""
    first_person: int = 0
    """The first one's number."""
    validation: int = 32
    """Others, to validate on; at most as many as there were when the data was drawn."""
    clip_frames: int = 24
    """Of a drawn clip: every third frame of its motion."""
    frames: int = 8
    """Consecutive ones of a clip that a step sees, as a window of sampling does; another one is the reference."""
    size: int = 64
    """Of the frames in pixels, a multiple of 64."""
    batch: int | None = None
    """Clips a step. By default 16 on a CPU, 128 on an accelerator."""
    every: int | None = None
    """Steps from one validation and checkpoint to the next. By default 100 on a CPU, 500 on an accelerator."""
    learning_rate: float = 1.5e-3
    """Muon's. It rises for 50 steps, stays, and falls to 0 over the last fifth of the minutes."""
    workers: int = field(default_factory=lambda: os.cpu_count() or 1)
    """Processes that draw."""
    seed: int = 0
    """Of everything random."""

    def __post_init__(self):
        require_counts(self)
        if self.clip_frames <= self.frames:
            raise InputError(
                f"--clip-frames must be more than --frames, {self.frames}, by one for the reference, got "
                f"{self.clip_frames}"
            )
        if self.first_person + self.people > VALIDATION_SEEDS - TRAIN_SEEDS:
            raise InputError(
                f"--first-person and --people must end below {VALIDATION_SEEDS}, where others are kept apart"
            )


def train(config: AnimatorTraining) -> None:
    """Make the data that is not there yet, train, and write the weights with the lowest validation loss.

    Raises:
        InputError: a checkpoint or a setting cannot be used, the output is another run's, or training came to an error;
            the best weights so far are in `run/best`.
        KeyboardInterrupt: it was asked to stop; what was trained is saved, and the best weights are written.
    """
    require_models(open_checkpoint(config.checkpoint).path, STABLEANIMATOR)
    require_replaceable(config.output / "checkpoint", overwrite=True)
    _share_out(config.batch or CPU_BATCH)
    fixed = ("checkpoint", "people", "first_person", "clip_frames", "size", "seed")
    claim(config.output, {name: getattr(config, name) for name in fixed})
    _make_data(config)
    if not config.minutes:
        return
    settings = training_settings(config, jax.default_backend())
    try:
        run(settings)
    except KeyboardInterrupt:
        _write_best(config, settings.output)
        raise
    _write_best(config, settings.output)


def _share_out(batch: int) -> None:
    """A CPU's cores as devices, each with clips of its own: as one device they idle for a sixth of a step and more.

    Nothing where JAX has started already, or was told a number.
    """
    with contextlib.suppress(RuntimeError):
        if jax.config.jax_num_cpu_devices == -1:  # pyright: ignore[reportAttributeAccessIssue]
            cores = os.cpu_count() or 1
            jax.config.update("jax_num_cpu_devices", max(n for n in range(1, cores + 1) if batch % n == 0))


def training_settings(config: AnimatorTraining, backend: str) -> TrainConfig:
    """What `train.py` is told, on JAX's backend `cpu` or another one."""
    cpu = backend == "cpu"
    batch, every = config.batch or (CPU_BATCH if cpu else 128), config.every or (100 if cpu else 500)
    readers = 0 if cpu else min(8, (os.cpu_count() or 1) // 2)
    loader = LoaderConfig(batch_size=batch, frames=config.frames, stride=1, seed=config.seed, workers=readers)
    return TrainConfig(
        init_from=config.checkpoint,
        output=config.output / "run",
        resume=True,
        steps=_NO_END,
        max_minutes=config.minutes,
        remat=False,
        seed=config.seed,
        # Another device may go on with another batch.
        data=DataConfig(dataset=config.output / "dataset", encoded=True, changed=True, loader=loader),
        trainable=TrainableConfig(unet="all"),
        optimizer=OptimizerConfig(
            kind="muon",
            learning_rate=config.learning_rate,
            schedule="timed",
            warmup_steps=50,
            weight_decay=0.0,
            ema_decay=0.998,
        ),
        checkpoints=CheckpointConfig(every=every),
        validation=ValidationConfig(every=every, clips=config.validation, videos=0, keep_best=True),
    )


def _make_data(config: AnimatorTraining) -> None:
    dataset = config.output / "dataset"
    if not (dataset / DATASET_FILE).exists():
        write(
            DatasetConfig(
                output=dataset,
                people=config.people,
                first_person=config.first_person,
                validation=config.validation,
                frames=config.clip_frames,
                stride=3,
                size=config.size,
                workers=config.workers,
                arcface=config.checkpoint,
            )
        )
    # In float32 on any device, so that any may go on with what another one encoded.
    found = encode(EncodeConfig(data=dataset, checkpoint=config.checkpoint, batch=config.clip_frames, dtype="float32"))
    print(f"data: {found.clips} clips in {dataset}, {found.encoded} of them encoded now in {found.seconds:.0f} s")


def _write_best(config: AnimatorTraining, output: Path) -> None:
    """The best weights, if there are any yet, as the package has its own: kernels in bfloat16."""
    best = output / BEST
    if not best.exists():
        return
    place = config.output / "checkpoint"
    ship(ShipConfig(weights=best, arcface=best, output=place, overwrite=True), limited=False)
    lines = [json.loads(line) for line in (output / JSON_LINES).read_text().splitlines()]
    losses = [f"{line['validation/loss']:.4f} at the beginning, " for line in lines if "validation/loss" in line]
    source = describe(best).source
    print(
        f"validation loss: {''.join(losses[:1])}{source[LOSS]:.4f} at best, after step {source['step']}: those weights "
        f"are in {place}"
    )
