"""The one on-disk layout of models: a directory with `config.json` and Orbax items for each model.

    DIR/config.json         format version, configuration, where the weights came from, every other file's size
    DIR/unet/part_000/ ...  Orbax, a flat dictionary of arrays by dotted parameter path
    DIR/vae/  ...           any of the models may be absent

Loading goes through Orbax straight into each parameter's target dtype and sharding: no host holds a second copy.
Models are cut into parts because Orbax holds an item three times over while it writes it, and once more while it reads.
The sizes are there because Orbax, given a file cut short, fills the terminal with tracebacks of its own threads.
"""

import json
import shutil
import sys
import time
from collections.abc import Callable, Iterable, Iterator, Mapping
from contextlib import contextmanager, nullcontext
from dataclasses import dataclass, fields
from pathlib import Path
from typing import Any

import jax
import numpy as np
import orbax.checkpoint as ocp
from etils import epath
from jax.experimental import multihost_utils

from stableanimator_jax.commands import called
from stableanimator_jax.config import StableAnimatorConfig, read_json
from stableanimator_jax.errors import InputError, as_input_error, first_line
from stableanimator_jax.family import FAMILY
from stableanimator_jax.files import replacing_directory, require_local, require_utf8, unfinished_directory
from stableanimator_jax.weights.rules import Path as ParameterPath
from stableanimator_jax.weights.rules import by_name, dotted, flatten, nested_as
from stableanimator_jax.weights.run_folder import find_weights
from stableanimator_jax.weights.storage import damage, file_sizes, forget_place, orbax_silenced

MODELS = tuple(f.name for f in fields(StableAnimatorConfig) if f.name != "kind")
STABLEANIMATOR = tuple(name for name in MODELS if name in (*FAMILY["stableanimator"].models, "arcface"))
"""Those of a whole StableAnimator."""
_FORMAT = "stableanimator-jax"
_VERSION = 1
_PART_BYTES = 256 * 2**20
Parameters = Mapping[Any, Any] | Iterable[tuple[ParameterPath, Any]]


@dataclass(frozen=True)
class Description:
    """What a checkpoint's `config.json` says."""

    config: StableAnimatorConfig
    models: tuple[str, ...]
    source: dict[str, Any]
    """Where the weights came from, in the words of whoever saved them."""
    files: dict[str, int]
    """Every file but `config.json` with its size in bytes."""


def save_checkpoint(
    path: Path | str,
    config: StableAnimatorConfig,
    params: Mapping[str, Parameters],
    source: Mapping[str, Any] | None = None,
    *,
    overwrite: bool = False,
) -> None:
    """Write a checkpoint, all or nothing: beside its place first, then renamed into it.

    With several processes every one must call this, on a file system that they share.

    Args:
        path: the directory to make.
        config: the configuration of all models, of those not in `params` too.
        params: by model name, its parameters as a nested dict of JAX or NumPy arrays, written in their own dtypes;
            or as pairs of path and array, made one after the other, where they should not all be in memory at once.
        source: anything worth keeping about the weights' origin, as JSON takes it.
        overwrite: replace a checkpoint that is at `path`.

    Raises:
        InputError: `path` holds something that must not be replaced (`require_replaceable`), or cannot be written.
            What making the pairs raises goes through, and leaves nothing written either.
    """
    unknown = sorted(set(params) - set(MODELS))
    if unknown or not params:
        raise ValueError(f"params must hold some of {MODELS}, got {sorted(params)}")
    place = Path(path).resolve()
    require_replaceable(place, overwrite=overwrite)
    description = make_description(config, source)

    unfinished, first = unfinished_directory(place), jax.process_index() == 0
    label = f"the checkpoint {place}"
    try:
        with replacing_directory(place, overwrite=overwrite, label=label) if first else nullcontext():
            _wait_for_all("checkpoint begun")
            with orbax_silenced(), _removed_on_failure(unfinished), ocp.StandardCheckpointer() as checkpointer:
                for model, parameters in params.items():
                    for name, part in cut(parameters):
                        checkpointer.save(unfinished / model / name, part)
                        # Else the next part would be made while this one is still in memory.
                        checkpointer.wait_until_finished()
            _wait_for_all("checkpoint written")
            if first:
                forget_place(unfinished)
                write_description(unfinished, description)
        _wait_for_all("checkpoint in place")
    except InputError:
        raise
    except (OSError, ValueError) as e:  # TensorStore's failure to write is a ValueError
        raise InputError(f"cannot write {label}: {first_line(e)}") from e


def make_description(config: StableAnimatorConfig, source: Mapping[str, Any] | None = None) -> dict[str, Any]:
    """What `config.json` says of a checkpoint, but for its files.

    Raises:
        TypeError: JSON does not take `source`.
    """
    description = {"format": _FORMAT, "version": _VERSION, "config": config.to_dict(), "source": dict(source or {})}
    json.dumps(description)  # raises here rather than after everything is written
    return description


def write_description(directory: epath.PathLike, description: Mapping[str, Any]) -> None:
    """Write `config.json` into a directory that has everything else: with it the directory is a checkpoint."""
    text = json.dumps({**description, "files": file_sizes(directory)}, indent=2)
    (epath.Path(directory) / "config.json").write_text(text + "\n")


def cut(parameters: Parameters) -> Iterator[tuple[str, dict[str, Any]]]:
    """The Orbax items of one model: the name of each, and its arrays by dotted parameter path."""
    pairs = flatten(parameters).items() if isinstance(parameters, Mapping) else parameters
    part, size, number = {}, 0, 0
    for path, array in pairs:
        if part and size + array.nbytes > _PART_BYTES:
            yield f"part_{number:03}", part
            part, size, number = {}, 0, number + 1
        part[dotted(path)] = array
        size += array.nbytes
    if part:
        yield f"part_{number:03}", part


def describe(path: Path | str) -> Description:
    """Read a checkpoint's `config.json` and check that every file that it lists is there, whole.

    Here and wherever a checkpoint is read, `path` may be a training run's folder: its last weights.

    Raises:
        InputError: `path` is not a directory, not a checkpoint, of a newer format, or half-written.
    """
    return _described(path, _place)


def _place(path: Path | str) -> Path:
    return find_weights(Path(path).resolve())


def _described(path: Path | str, find: Callable[[Path | str], Path]) -> Description:
    # A name too long, or a loop of symbolic links (a RuntimeError up to Python 3.12).
    with as_input_error(f"cannot read checkpoint {path}", RuntimeError, ValueError):
        return _describe(find(path))


def _describe(place: Path) -> Description:
    if not place.exists():
        raise InputError(f"checkpoint {place} does not exist")
    if not place.is_dir():
        raise InputError(f"checkpoint {place} is not a directory")
    require_utf8(place, "checkpoint")
    file = place / "config.json"
    if not file.exists():
        found = [model for model in MODELS if (place / model).exists()]
        if found:
            raise InputError(f"checkpoint {place} is incomplete: it has {', '.join(found)} but no config.json")
        raise InputError(f"{place} is not a checkpoint: it has no config.json; {called('convert')} makes one")
    data = read_json(file)
    if not isinstance(data, dict) or data.get("format") != _FORMAT:
        raise InputError(f"{place} is not a checkpoint of this project: {called('convert')} makes one from PyTorch's")
    if data.get("version") != _VERSION:
        raise InputError(f"{file} has format version {data.get('version')!r}, this program reads {_VERSION}: update it")
    if not all(isinstance(data.get(field), dict) for field in ("config", "source", "files")):
        raise InputError(f"{file} is damaged: it must have config, source and files, each an object")
    if wrong := damage(place, data["files"]):
        raise InputError(f"checkpoint {place} is {wrong}; copy or convert it again")
    try:
        config = StableAnimatorConfig.from_dict(data["config"])
    except InputError as e:
        raise InputError(f"{file}: {e}") from e
    folders = {name.split("/")[0] for name in data["files"]}
    return Description(config, tuple(model for model in MODELS if model in folders), data["source"], data["files"])


def require_models(path: Path | str, models: Iterable[str]) -> None:
    """Raise `InputError` unless a checkpoint holds all of `models`, or as `describe` does."""
    held = describe(path).models
    missing = [model for model in models if model not in held]
    if missing:
        has = f"it has {', '.join(held)}" if held else "it has no models at all"
        raise InputError(f"checkpoint {_place(path)} has no {', '.join(missing)}; {has}")


def load_params(path: Path | str, model: str, abstract: Mapping[Any, Any]) -> dict[Any, Any]:
    """Read one model's parameters, straight into the dtype and sharding that `abstract` states for each.

    Args:
        abstract: the model's parameters as a nested dict of `jax.ShapeDtypeStruct`s. Leaves without a sharding
            go to the first local device.

    Returns:
        `jax.Array`s nested as `abstract` is.

    Raises:
        InputError: the model is not in the checkpoint, is of another configuration (the message names the first
            parameter that differs), or is damaged. Or as `describe`.
    """
    place = _place(path)
    wanted = {name: placed(leaf) for name, leaf in by_name(abstract).items()}
    loaded = {}
    with _reading(place, model) as parts:
        stored = {name: leaf for _, part in parts for name, leaf in part.items()}
        require_same_parameters(f"{model} of checkpoint {place}", stored, wanted)
        with ocp.StandardCheckpointer() as checkpointer:
            for part, names in parts:
                loaded |= checkpointer.restore(part, {name: wanted[name] for name in names})
    return nested_as(abstract, loaded)


def placed(leaf: jax.ShapeDtypeStruct) -> jax.ShapeDtypeStruct:
    """An abstract array with its sharding, or the first local device where it has none."""
    device = jax.sharding.SingleDeviceSharding(jax.local_devices()[0])
    return jax.ShapeDtypeStruct(leaf.shape, leaf.dtype, sharding=leaf.sharding or device)


def stored_params(path: Path | str, model: str) -> dict[str, jax.ShapeDtypeStruct]:
    """The shape and stored dtype of each of a model's parameters by dotted name, in the order of `stream_params`.

    Raises:
        InputError: the model is not in the checkpoint, or is damaged. Or as `describe`.
    """
    with _reading(_place(path), model) as parts:
        return {name: leaf for _, part in parts for name, leaf in part.items()}


def stream_params(path: Path | str, model: str) -> Iterator[tuple[str, np.ndarray]]:
    """Read one model's parameters one after the other, in their stored dtypes; few are in memory at a time.

    Raises:
        InputError: as for `stored_params`.
    """
    device = jax.sharding.SingleDeviceSharding(jax.local_devices(backend="cpu")[0])
    wanted = {n: jax.ShapeDtypeStruct(s.shape, s.dtype, sharding=device) for n, s in stored_params(path, model).items()}
    for name, array in stream_arrays(path, model, wanted):
        yield name, np.asarray(array)


def stream_arrays(
    path: Path | str, model: str, wanted: Mapping[str, jax.ShapeDtypeStruct]
) -> Iterator[tuple[str, jax.Array]]:
    """Read some of one model's parameters, by dotted name, into the dtypes and shardings that `wanted` states.

    They come in the order of `stored_params`; no more than a part of the checkpoint is in memory at a time. With
    several processes all of them must read the same.

    Raises:
        InputError: as for `stored_params`.
    """
    with _reading(_place(path), model) as parts, ocp.PyTreeCheckpointer() as checkpointer:
        for part, stored in parts:
            chosen = {name: wanted[name] for name in stored if name in wanted}
            arguments = ocp.checkpoint_utils.construct_restore_args(chosen)
            items = ocp.args.PyTreeRestore(item=chosen, restore_args=arguments, partial_restore=True)
            loaded = checkpointer.restore(part, args=items) if chosen else {}
            for name in chosen:
                yield name, loaded.pop(name)


@contextmanager
def _reading(place: Path, model: str) -> Iterator[list[tuple[Path, dict[str, jax.ShapeDtypeStruct]]]]:
    """A model's parts, each with what it holds; errors while they are read become an `InputError`."""
    require_models(place, [model])
    with orbax_silenced():
        try:
            with ocp.StandardCheckpointer() as checkpointer:
                parts = []
                for part in sorted((place / model).glob("part_*")):
                    tree = checkpointer.metadata(part).item_metadata.tree
                    parts.append((part, {n: jax.ShapeDtypeStruct(tree[n].shape, tree[n].dtype) for n in sorted(tree)}))
            yield parts
        except (InputError, jax.errors.JaxRuntimeError):
            raise
        except Exception as e:  # Orbax raises plain Exceptions where a file cannot be read
            raise InputError(f"cannot read {model} of checkpoint {place}: {first_line(e)}") from e


def require_same_parameters(where: str, stored: Mapping[str, Any], wanted: Mapping[str, Any]) -> None:
    """Raise `InputError` unless two models or states have the same arrays, by name and shape; it names the first."""
    another = f"{where} is of another configuration"
    for name, leaf in wanted.items():
        if name not in stored:
            raise InputError(f"{another}: it has no {name}")
        if tuple(stored[name].shape) != tuple(leaf.shape):
            raise InputError(f"{another}: its {name} is {list(stored[name].shape)}, not {list(leaf.shape)}")
    surplus = [name for name in stored if name not in wanted]
    if surplus:
        raise InputError(f"{another}: its {surplus[0]} has no place here")


def require_replaceable(path: Path | str, *, overwrite: bool = False) -> None:
    """Check that a checkpoint may be written to `path`: nothing is there, or an empty directory.

    With `overwrite` also a checkpoint, if there is nothing in it but what was saved there.

    Raises:
        InputError: anything else is there, or `path` is a URL or no UTF-8.
    """
    require_local(path)
    place = Path(path).resolve()
    require_utf8(place, "checkpoint")
    if place.is_dir() and not any(place.iterdir()):
        return
    if place.is_dir():
        try:
            ours = _described(place, Path).files
        except InputError as e:
            raise InputError(f"will not replace {place}, which is not a whole checkpoint ({e}); choose another") from e
        if others := sorted(file_sizes(place).keys() - ours.keys() - {"config.json"}):
            raise InputError(
                f"will not replace the checkpoint {place}: {others[0]} in it is not of the checkpoint; choose another"
            )
        if not overwrite:
            raise InputError(f"there is a checkpoint in {place}: choose another place, or replace it by --overwrite")
    elif place.exists():
        raise InputError(f"cannot write a checkpoint to {place}: it is a file; name a directory")


@contextmanager
def _removed_on_failure(directory: Path) -> Iterator[None]:
    """Where the block fails, remove `directory` once Orbax's threads have left off.

    They go on writing for a moment, which brings removed directories back, and each of them that fails too has
    Python print a traceback through `sys.unraisablehook`.
    """
    hook, sys.unraisablehook = sys.unraisablehook, lambda *_: None
    try:
        yield
    except BaseException:
        quiet = 0
        while quiet < 5:
            shutil.rmtree(directory, ignore_errors=True)
            time.sleep(0.1)
            quiet = 0 if directory.exists() else quiet + 1
        raise
    finally:
        sys.unraisablehook = hook


def _wait_for_all(what: str) -> None:
    if jax.process_count() > 1:
        multihost_utils.sync_global_devices(what)
