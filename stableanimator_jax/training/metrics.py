"""What a training run logs: TensorBoard, a file of JSON lines, and Weights & Biases where it is asked for."""

import importlib
import json
import math
import socket
import struct
import time
import uuid
from abc import ABC, abstractmethod
from collections.abc import Iterator, Mapping
from contextlib import ExitStack, suppress
from dataclasses import dataclass
from pathlib import Path
from typing import IO, Any, Literal

import jax
import numpy as np
from jaxtyping import UInt8

from stableanimator_jax.errors import InputError, as_input_error, printable
from stableanimator_jax.files import replacing

TENSORBOARD = "tensorboard"
JSON_LINES = "metrics.jsonl"
_WANDB_RUN = "wandb_run.txt"


@dataclass(frozen=True)
class WandbConfig:
    """Weights & Biases (needs the [wandb] extra)."""

    mode: Literal["off", "online", "offline"] = "off"
    """Send metrics to Weights & Biases (after `wandb login`), or write them for `wandb sync` to send later."""
    project: str = "stableanimator-jax"
    """The project that the run is put into."""
    name: str | None = None
    """The run's name; by default the output directory's."""


class MetricsWriter:
    """Curves and pictures of a run: `with MetricsWriter(output) as metrics: metrics.write(step, {"loss": 0.1})`.

    Process 0 writes; on the others every call does nothing. Each write is on disk when the call returns.
    """

    def __init__(
        self,
        directory: Path,
        *,
        resumed: int | None = None,
        wandb: WandbConfig | None = None,
        settings: Mapping[str, Any] | None = None,
    ):
        """
        Args:
            directory: the run's output; it is made. Events for TensorBoard go to `tensorboard` in it, scalars also to
                `metrics.jsonl`.
            resumed: the step that the run goes on from. What was written for later steps, before the run stopped, is
                dropped. None for a run from its beginning: anything written before is dropped.
            wandb: whether to log to Weights & Biases too.
            settings: the run's configuration, which Weights & Biases shows beside it; plain data.

        Raises:
            InputError: nothing can be written there; or Weights & Biases is not installed or does not start.
        """
        self._logs: list[_Log] = []
        if jax.process_index() != 0:
            return
        with ExitStack() as made:
            with as_input_error(f"cannot write {directory}"):
                directory.mkdir(parents=True, exist_ok=True)
            for log in _open_logs(directory, -1 if resumed is None else resumed, wandb, settings or {}):
                self._logs.append(log)
                made.callback(log.close)
            made.pop_all()

    def __enter__(self) -> "MetricsWriter":
        return self

    def __exit__(self, *_: object) -> None:
        self.close()

    def write(self, step: int, values: Mapping[str, float]) -> None:
        """Log scalars of the step `step` (the number of steps done). Slashes in names make groups.

        Anything that `float` takes is a value, scalar arrays too.

        Raises:
            InputError: they cannot be written, as on a full disk.
        """
        if self._logs:
            numbers = {name: float(value) for name, value in values.items()}
            for log in self._logs:
                log.scalars(step, numbers)

    def image(self, step: int, name: str, picture: UInt8[np.ndarray, "h w 3"]) -> None:
        """Log a picture, to TensorBoard and Weights & Biases.

        Raises:
            InputError: it cannot be written, as on a full disk.
            ValueError: it is not 8-bit RGB.
        """
        if picture.dtype != np.uint8 or picture.ndim != 3 or picture.shape[-1] != 3:
            raise ValueError(f"picture {name} is {picture.dtype} {picture.shape}, expected uint8 [h, w, 3]")
        for log in self._logs:
            log.image(step, name, picture)

    def close(self) -> None:
        """Finish; no more can be written."""
        with ExitStack() as closing:
            while self._logs:
                closing.callback(self._logs.pop().close)


class _Log(ABC):
    """One place that metrics go to."""

    @abstractmethod
    def scalars(self, step: int, values: Mapping[str, float]) -> None: ...

    def image(self, step: int, name: str, picture: np.ndarray) -> None:  # noqa: B027 (a log may hold numbers only)
        """Nothing, where a log holds numbers only."""

    @abstractmethod
    def close(self) -> None: ...


class _FileLog(_Log):
    """One that is a file, on disk after every write."""

    path: Path
    file: IO[Any]

    def append(self, data: str | bytes) -> None:
        with as_input_error(f"cannot write {self.path}"):
            self.file.write(data)
            self.file.flush()

    def close(self) -> None:
        with suppress(OSError):  # told when it was written
            self.file.close()


def _open_logs(directory: Path, resumed: int, wandb: WandbConfig | None, settings: Mapping[str, Any]) -> Iterator[_Log]:
    if wandb is not None and wandb.mode != "off":
        yield _Wandb(directory, resumed, wandb, settings)  # the first, because it is the one that may be missing
    yield _JsonLines(directory / JSON_LINES, resumed)
    yield _TensorBoard(directory / TENSORBOARD, resumed)


class _JsonLines(_FileLog):
    """One line a call: `{"step": 10, "loss": 0.12}`. A value that is no finite number is null."""

    def __init__(self, path: Path, resumed: int):
        self.path = path
        kept = [line for line in _lines(path) if _step_of(line) <= resumed]
        with replacing(path) as temporary:
            temporary.write_text("".join(f"{line}\n" for line in kept))
        with as_input_error(f"cannot write {path}"):
            self.file = path.open("a")

    def scalars(self, step: int, values: Mapping[str, float]) -> None:
        finite = {name: value if math.isfinite(value) else None for name, value in values.items()}
        self.append(json.dumps({"step": step, **finite}) + "\n")


def _lines(path: Path) -> list[str]:
    with as_input_error(f"cannot write {path}"):
        return path.read_text(errors="replace").splitlines() if path.exists() else []


def _step_of(line: str) -> float:
    """A line's step; infinite where a kill left half a line."""
    try:
        return float(json.loads(line)["step"])
    except (ValueError, TypeError, KeyError):
        return math.inf


class _TensorBoard(_FileLog):
    """An event file, of tensorboardX's messages.

    Not by its `SummaryWriter`: that writes in a thread, which a full disk ends, and then the next calls wait for ever.
    """

    def __init__(self, directory: Path, resumed: int):
        # Imported here: it imports torch wherever that is installed, which takes seconds.
        from tensorboardX import record_writer, summary
        from tensorboardX.proto import event_pb2

        self.messages: Any = event_pb2
        self.summary, self.checksum = summary, record_writer.masked_crc32c
        with as_input_error(f"cannot write {directory}"):
            directory.mkdir(exist_ok=True)
            # TensorBoard wants "tfevents" in a name, and reads a directory's files in the order of their names.
            number = sum(1 for _ in directory.iterdir())
            self.path = directory / f"events.out.tfevents.{int(time.time())}.{socket.gethostname()}.{number:04d}"
            self.file = self.path.open("xb")
        self._add(file_version="brain.Event:2")
        # It hides what earlier files have from this step on.
        self._add(step=resumed + 1, session_log=self.messages.SessionLog(status=self.messages.SessionLog.START))

    def scalars(self, step: int, values: Mapping[str, float]) -> None:
        for name, value in values.items():
            self._add(step=step, summary=self.summary.scalar(name, value))

    def image(self, step: int, name: str, picture: np.ndarray) -> None:
        self._add(step=step, summary=self.summary.image(name, picture, dataformats="HWC"))

    def _add(self, **fields: Any) -> None:
        """Write an event as a TFRecord: its length and itself, each with a checksum."""
        event = self.messages.Event(wall_time=time.time(), **fields).SerializeToString()
        length = struct.pack("<Q", len(event))
        checksums = (struct.pack("<I", self.checksum(part)) for part in (length, event))
        self.append(length + next(checksums) + event + next(checksums))


class _Wandb(_Log):
    """A run of Weights & Biases. Its number is kept in the output, so that a resumed run goes on in the same curves."""

    def __init__(self, directory: Path, resumed: int, config: WandbConfig, settings: Mapping[str, Any]):
        try:
            wandb = importlib.import_module("wandb")
        except ImportError as e:
            raise InputError(
                f"logging to Weights & Biases needs the package wandb ({e}): install the [wandb] extra, or set "
                f"its mode to off"
            ) from e
        number = directory / _WANDB_RUN
        with as_input_error(f"cannot write {number}"):
            identity = number.read_text().strip() if resumed >= 0 and number.exists() else uuid.uuid4().hex[:8]
            number.write_text(identity + "\n")
        self.picture = wandb.Image
        try:
            self.run = wandb.init(
                project=config.project,
                name=printable(config.name or directory.resolve().name),
                id=identity,
                # W&B takes no step twice: until the run is past what it has, it leaves points out.
                resume="allow" if config.mode == "online" else None,
                mode=config.mode,
                dir=str(directory),
                config=dict(settings),
            )
        except Exception as e:  # whatever its service or its settings have against it
            raise InputError(
                f"Weights & Biases does not start: {str(e) or type(e).__name__}; run `wandb login`, or set its mode "
                f"to offline or off"
            ) from e

    def scalars(self, step: int, values: Mapping[str, float]) -> None:
        self.run.log(dict(values), step=step)

    def image(self, step: int, name: str, picture: np.ndarray) -> None:
        self.run.log({name: self.picture(picture)}, step=step)

    def close(self) -> None:
        self.run.finish()
