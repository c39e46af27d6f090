"""Checkpoints of a training run, from which it goes on as if it had never stopped, by Orbax.

    OUT/checkpoints/STEP/state/     the arrays of the train state, by dotted path, and files.json: every file's size
    OUT/checkpoints/STEP/data/      where the loader is
    OUT/checkpoints/STEP/weights/   the models for inference, in the layout of `weights.checkpoint`: for `sample.py`

A step's directory is written beside its place and renamed into it, or in a storage bucket, where nothing can be
renamed, marked by a last file: what a crash leaves behind is never taken for a checkpoint, and goes at the next start.
A step to be deleted is renamed first, too.
"""

import json
import logging
import os
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager, suppress
from dataclasses import dataclass
from typing import Annotated, Any

import jax
import orbax.checkpoint as ocp
from etils import epath
from jaxtyping import PyTree
from orbax.checkpoint.checkpoint_managers import AnyPreservationPolicy, EveryNSteps, LatestN, PreservationPolicy

from stableanimator_jax.errors import InputError, first_line, reason_of
from stableanimator_jax.files import require_utf8, url_scheme
from stableanimator_jax.limits import AtLeast, check_limits
from stableanimator_jax.weights.checkpoint import placed, require_same_parameters
from stableanimator_jax.weights.checkpoint_item import ModelsHandler, SaveModels
from stableanimator_jax.weights.storage import damage, file_sizes, orbax_silenced

_DELETED = ".deleted"
_BUCKETS = {"gs": "etils[epath-gcs]", "s3": "etils[epath-s3]"}
"""URLs that both `etils.epath` and TensorStore write to, with the package that the first needs for it."""
_GIGABYTES_AT_A_TIME = 2
"""Orbax's default, 96, has a whole state in memory a second time while it is written; a limit makes it no slower.
The largest single array must be smaller."""


@dataclass(frozen=True)
class CheckpointConfig:
    """When a training run saves its state, and what is kept."""

    every: Annotated[int, AtLeast(1)] = 1000
    """Steps from one checkpoint to the next."""
    keep: Annotated[int, AtLeast(1)] = 2
    """How many of the newest checkpoints are kept. While one is written there is one more."""
    keep_every: Annotated[int, AtLeast(0)] = 0
    """Checkpoints whose step is a multiple of this are kept for good; 0: none is."""
    asynchronous: bool = True
    """Write in the background while training goes on, from a copy in the host's memory."""

    def __post_init__(self):
        check_limits(self, "checkpoints")


class Checkpoints:
    """The checkpoints of one training run. Close it, or use it in a `with` statement: that waits for the last one.

    With several processes every one makes this and calls each method with its part of the same arrays, in the same
    order, on storage that they share. One run at a time may use a directory.

    Args:
        directory: the run's output directory, made if need be; a path, or a bucket's URL such as `gs://bucket/run`
            where `etils.epath` can open it (no bucket was at hand to test with).

    Raises:
        InputError: nothing can be written there.
    """

    def __init__(self, directory: str | os.PathLike[str], config: CheckpointConfig | None = None):
        self.config = config or CheckpointConfig()
        self.directory = require_writable(directory)
        self._came_from: int | None = None
        self._under_way: int | None = None
        self._unsound = False
        self._state = _StateHandler(save_concurrent_gb=_GIGABYTES_AT_A_TIME, restore_concurrent_gb=_GIGABYTES_AT_A_TIME)
        self._silence = ExitStack()
        # Threads fail while training goes on; the error itself comes out of the next call here.
        self._silence.enter_context(orbax_silenced())
        try:
            self._manager = ocp.CheckpointManager(
                self.directory, options=_options(self.config), handler_registry=_handlers(self._state)
            )
            self._delete_for_good()
        except OSError as e:
            self._silence.close()
            raise InputError(f"cannot use {self.directory} for checkpoints: {reason_of(e)}") from e

    def due(self, step: int) -> bool:
        """Whether the settings ask for a checkpoint after this many steps."""
        return step % self.config.every == 0

    def steps(self) -> list[int]:
        """The steps that there are whole checkpoints of, in order. Waits for one that is under way.

        Raises:
            InputError: that one could not be written.
        """
        self.wait()
        return sorted(self._manager.all_steps())

    def save(self, step: int, state: PyTree[jax.Array], data_state: bytes, weights: SaveModels) -> None:
        """Save a step, once the save before it has ended; returns as soon as the arrays are copied.

        The arrays may then be donated or deleted. A step that was saved or restored last is not saved again. Where
        training went on from an earlier checkpoint, later ones are deleted first: they are another course's.
        `data_state` is the loader's `state()`.

        Raises:
            InputError: it cannot be written, or the one before it could not (the message says which); or the run
                did not go on from the checkpoints that are in its directory.
            RuntimeError: a save failed or was interrupted before: threads of it may be writing still.
        """
        self.wait()
        if self._unsound:
            raise RuntimeError("a checkpoint failed or was interrupted: nothing can be saved after it")
        if step == self._came_from:
            return
        self._leave_later_ones(step)
        self._under_way = step
        items = ocp.args.Composite(
            state=ocp.args.StandardSave(_by_name(state)),
            data=ocp.args.JsonSave({"step": step, "loader": data_state.decode("utf-8", "surrogateescape")}),
            weights=weights,
        )
        self._unsound = True
        with self._writing():
            self._manager.save(step, args=items, force=True)
        self._unsound = False

    def restore(self, abstract_state: PyTree[Any], step: int | None = None) -> tuple[int, PyTree[jax.Array], bytes]:
        """Read a step back; training then goes on from it.

        Args:
            abstract_state: the train state as `jax.ShapeDtypeStruct`s: each array is read straight into the dtype and
                the sharding that it states, whatever they were when it was saved. Without a sharding it goes to the
                first local device.
            step: which; None for the latest.

        Returns:
            the step, the state, and the loader's state.

        Raises:
            InputError: there is no such step, it is of another model or optimiser (the message names the first array
                that differs), or it is damaged.
        """
        steps = self.steps()
        if not steps:
            raise InputError(f"there is no checkpoint to go on from in {self.directory}")
        step = steps[-1] if step is None else step
        if step not in steps:
            raise InputError(f"{self.directory} has no checkpoint of step {step}; it has {_listed(steps)}")
        place = self.directory / str(step)
        wanted = _by_name(jax.tree.map(placed, abstract_state))
        with self._reading(step, steps):
            sizes = json.loads((place / "state" / "files.json").read_text())
            if wrong := damage(place / "state", sizes):
                raise OSError(f"it is {wrong.replace(': ', ': state/', 1)}")
            stored = self._state.metadata(place / "state").tree
            try:
                require_same_parameters(f"the state in {place}", stored, wanted)
            except InputError as e:
                raise InputError(f"{e}; go on with the settings that it was trained with") from e
            items = ocp.args.Composite(state=ocp.args.StandardRestore(wanted), data=ocp.args.JsonRestore())
            restored = self._manager.restore(step, args=items)
            data = restored["data"]
            if data["step"] != step:
                raise OSError(f"it is of step {data['step']}")
            data_state = data["loader"].encode("utf-8", "surrogateescape")
        self._came_from = step
        leaves = [restored["state"][name] for name in wanted]
        return step, jax.tree.unflatten(jax.tree.structure(abstract_state), leaves), data_state

    def wait(self) -> None:
        """Wait until what was saved is in its place.

        Raises:
            InputError: it could not be written.
        """
        with self._writing():
            self._manager.wait_until_finished()
        if self._under_way in self._manager.all_steps():
            self._came_from = self._under_way
        self._under_way = None
        self._delete_for_good()

    def close(self) -> None:
        """Wait for a save under way, and end. Raises `InputError` if it could not be written."""
        try:
            self.wait()
        finally:
            self._manager.close()
            if not self._unsound:  # else there are threads left to fail
                self._silence.close()

    def __enter__(self) -> "Checkpoints":
        return self

    def __exit__(self, *exception: object) -> None:
        self.close()

    def _leave_later_ones(self, step: int) -> None:
        there = self._manager.all_steps()
        if there and self._came_from is None:
            raise InputError(
                f"{self.directory} has checkpoints, of step {_listed(sorted(there))}, that this run did not go on "
                "from: resume from them, or name another output directory"
            )
        for later in sorted((s for s in there if s >= step or s > (self._came_from or 0)), reverse=True):
            self._manager.delete(later)

    def _delete_for_good(self) -> None:
        if jax.process_index() == 0:
            with suppress(OSError):  # it is tried again after the next save
                (self.directory / _DELETED).rmtree(missing_ok=True)

    @contextmanager
    def _writing(self) -> Iterator[None]:
        try:
            yield
        except jax.errors.JaxRuntimeError:
            raise
        except (OSError, ValueError) as e:  # TensorStore's failure to write is a ValueError
            step, self._under_way = self._under_way, None
            self._unsound = True
            raise InputError(f"cannot write the checkpoint {self.directory / str(step)}: {first_line(e)}") from e

    @contextmanager
    def _reading(self, step: int, steps: list[int]) -> Iterator[None]:
        try:
            yield
        except (InputError, jax.errors.JaxRuntimeError):
            raise
        except Exception as e:  # Orbax raises plain Exceptions where a file cannot be read
            others = [s for s in steps if s != step]
            instead = f"go on from another with --resume-step ({_listed(others)}), or " if others else ""
            delete = f"delete {self.directory / str(step)}"
            raise InputError(f"cannot read the checkpoint of step {step}: {first_line(e)}; {instead}{delete}") from e


class _StateHandler(ocp.StandardCheckpointHandler):
    """Orbax's own, with a list of the files that it wrote."""

    def finalize(self, directory: epath.Path) -> None:
        super().finalize(directory)
        (directory / "files.json").write_text(json.dumps(file_sizes(directory), indent=2) + "\n")


def _handlers(state: _StateHandler) -> ocp.DefaultCheckpointHandlerRegistry:
    handlers = ocp.DefaultCheckpointHandlerRegistry()
    data = ocp.JsonCheckpointHandler()
    handlers.add("state", ocp.args.StandardSave, state)
    handlers.add("state", ocp.args.StandardRestore, state)
    handlers.add("data", ocp.args.JsonSave, data)
    handlers.add("data", ocp.args.JsonRestore, data)
    handlers.add("weights", SaveModels, ModelsHandler())
    return handlers


def _options(config: CheckpointConfig) -> ocp.CheckpointManagerOptions:
    kept: list[PreservationPolicy] = [LatestN(config.keep)]
    if config.keep_every:
        kept.append(EveryNSteps(config.keep_every))
    return ocp.CheckpointManagerOptions(
        preservation_policy=AnyPreservationPolicy(kept),
        cleanup_tmp_directories=True,
        todelete_subdir=_DELETED,
        enable_async_checkpointing=config.asynchronous,
        # Else an item's directory is not there yet when it makes its own below it.
        async_options=ocp.AsyncOptions(create_directories_asynchronously=False),
    )


def require_writable(output: str | os.PathLike[str]) -> epath.Path:
    """The directory of an output directory's checkpoints, made and tried before anything is trained.

    Raises:
        InputError: nothing can be written there.
    """
    scheme = url_scheme(output)
    if scheme and (scheme not in _BUCKETS or "://" not in os.fspath(output)):
        raise InputError(f"cannot write checkpoints to {output}: give a folder, or a bucket's URL, gs://… or s3://…")
    directory = epath.Path(output) / "checkpoints"
    require_utf8(output, "output directory")
    try:
        if not scheme:
            directory = directory.expanduser().resolve()
            # A bucket has no directories; and gcsfs would make a bucket where a name is mistyped.
            directory.mkdir(parents=True, exist_ok=True)
        probe = directory / f".written-by-process-{jax.process_index()}"
        with _logging_off():  # gcsfs logs a traceback for every try
            probe.write_text("")
            probe.unlink()
    except ImportError as e:
        raise InputError(f"cannot write to {directory}: {first_line(e)}: pip install '{_BUCKETS[scheme or '']}'") from e
    except Exception as e:  # a bucket's library has errors of its own; ValueError: a name that no file can have
        if scheme:
            advice = "is the bucket's name right, and may this machine write to it?"
        elif isinstance(e, OSError | RuntimeError | ValueError):
            advice = "name another output directory"
        else:
            raise
        raise InputError(f"cannot write to {directory}: {reason_of(e)}; {advice}") from e
    return directory


@contextmanager
def _logging_off() -> Iterator[None]:
    before = logging.root.manager.disable
    logging.disable()
    try:
        yield
    finally:
        logging.disable(before)


def _by_name(tree: PyTree[Any]) -> dict[str, Any]:
    """The leaves by dotted path, which does not change with the kinds of containers that hold them."""
    leaves = jax.tree_util.tree_leaves_with_path(tree)
    named = {jax.tree_util.keystr(path, simple=True, separator="."): leaf for path, leaf in leaves}
    if len(named) != len(leaves):
        raise ValueError("two arrays of the state have the same dotted path")
    return named


def _listed(steps: list[int]) -> str:
    shown = [str(step) for step in steps[-5:]]
    return ", ".join((["..."] if len(steps) > 5 else []) + shown)
