"""Compiled programs kept on disk, by which a second start neither traces nor compiles.

JAX's own cache keeps what the compiler makes of a traced program. Tracing the UNet takes Python a dozen seconds; so the
large programs of sampling are kept as executables, found by what they are made from: the code of this package, the
libraries' versions, the devices, the models' structure, and the shapes, dtypes and places of all arguments.
"""

import contextlib
import functools
import hashlib
import importlib.metadata
import os
import pickle
import platform
import re
import shutil
import stat
import time
import weakref
from collections.abc import Callable, Iterator
from contextvars import ContextVar
from pathlib import Path
from typing import Any, Generic, ParamSpec, TypeVar

import jax
import numpy as np
from jax.core import Tracer
from jax.experimental import serialize_executable
from jax.experimental.compilation_cache import compilation_cache
from jax.sharding import Mesh, NamedSharding

from stableanimator_jax.errors import InputError
from stableanimator_jax.files import replacing
from stableanimator_jax.models.functional import Model
from stableanimator_jax.runtime import keep_compiled_programs

P = ParamSpec("P")
R = TypeVar("R")

_TRACED_BY = ("jax", "jaxlib", "flax", "optax", "einops", "numpy")
_NO_MATTER = re.compile("cache|dir$|log|traceback|distributed|platforms")
"""JAX's settings of this kind do not change a program."""
_CPU = ("model name", "flags", "Features", "CPU ")
"""What /proc/cpuinfo says of a processor, on x86 and on ARM."""
_BUILD, _PROGRAM = re.compile("[0-9a-f]{32}"), re.compile(r"\w+-[0-9a-f]{64}")
"""Names of a folder of programs, and of a program."""
_UNUSED_FOR = 30 * 24 * 3600
"""Seconds after which the programs of other versions are removed."""


_opened: "ContextVar[_Programs | None]" = ContextVar("programs", default=None)


@contextlib.contextmanager
def quick_starts(
    folder: Path | str | None = None,
    *,
    on_compile: Callable[[str], None] = lambda name: None,
    only_compile: bool = False,
) -> Iterator[None]:
    """Within the block, functions made by `kept` take their programs from a folder, and leave there what it lacks.

    Executables are this user's, of this machine's kind and these versions, and have their checksum; others are left
    alone. Where something is wrong with one, or with the folder, the function is compiled as without it.

    Args:
        folder: is made if need be; by default `programs` in the folder of `runtime.keep_compiled_programs`, which is
            called first, for all that is not made by `kept`. What was kept there by other versions, and not used for 30
            days, is removed. Several processes of one run have JAX's own cache alone.
        on_compile: called with a function's name before it is compiled, which can take a minute.
        only_compile: functions are compiled, not run; they give ones. Other threads' calls are not concerned.

    Raises:
        InputError: `only_compile` where nothing can be kept.
    """
    cache = keep_compiled_programs()
    if only_compile and folder is None and cache is None:
        raise InputError("nothing can be compiled ahead: JAX's compilation cache is off, or cannot be written")
    if folder is None and cache is not None and cache.is_dir():
        folder = cache / "programs"
    token = _opened.set(_Programs(None if folder is None else Path(folder), on_compile, only_compile))
    try:
        yield
    finally:
        _opened.reset(token)


class kept(Generic[P, R]):
    """Decorates a jitted function whose executables `quick_starts` shall keep.

    What is given by position are arrays, trees of them, or `Model`s; what is given by name is static.
    """

    def __init__(self, function: Callable[P, R]):
        self.function: Any = function
        functools.update_wrapper(self, function)

    def __call__(self, *args: P.args, **static: P.kwargs) -> R:
        programs = _opened.get()
        if programs is None or any(isinstance(leaf, Tracer) for leaf in jax.tree.leaves(args)):
            return self.function(*args, **static)
        return programs.run(self.function, args, static)

    def __getattr__(self, name: str) -> Any:
        """What JAX's functions have: `lower`, and the like."""
        return getattr(self.function, name)


class _Programs:
    def __init__(self, folder: Path | None, on_compile: Callable[[str], None], only_compile: bool):
        self.folder = None if folder is None or jax.process_count() > 1 else _own(folder / _build())
        self.on_compile, self.only_compile = on_compile, only_compile
        self._ready: dict[Any, jax.stages.Compiled] = {}

    def run(self, function: Any, args: tuple[Any, ...], static: dict[str, Any]) -> Any:
        """Call a jitted function by its executable."""
        key = (
            function,
            tuple((name, _described(value)) for name, value in static.items()),
            *map(_signature, args),
            _described(jax.sharding.get_mesh()),
            _settings(),
        )
        if (program := self._ready.get(key)) is None:
            program = self._ready[key] = self._load(function, key[1:], args) or self._compile(
                function, key[1:], args, static
            )
        if self.only_compile:
            return jax.tree.map(lambda x: jax.device_put(np.ones(x.shape, x.dtype), x.sharding), program.out_info)
        return program(*args)

    def _path(self, function: Any, key: tuple[Any, ...]) -> Path | None:
        if self.folder is None:
            return None
        name = f"{function.__module__}.{function.__qualname__}"
        return self.folder / f"{function.__name__}-{_digest(name, repr(key), _surroundings())}"

    def _load(self, function: Any, key: tuple[Any, ...], args: tuple[Any, ...]) -> jax.stages.Compiled | None:
        path = self._path(function, key)
        try:
            if path is None or not _is_own(path):
                return None
            digest, kept = path.read_bytes().split(b"\n", 1)
            if digest != _checksum(path, kept):
                return None
            executable, out_tree, numbers = pickle.loads(kept)
            devices = {device.id: device for device in jax.local_devices()}
            program = serialize_executable.deserialize_and_load(
                executable,
                jax.tree.structure((args, {})),
                out_tree,
                execution_devices=[devices[number] for number in numbers],
            )
            os.utime(path.parent)
        except Exception:  # whatever is wrong with it, it can be compiled anew
            return None
        return program

    def _compile(
        self, function: Any, key: tuple[Any, ...], args: tuple[Any, ...], static: dict[str, Any]
    ) -> jax.stages.Compiled:
        self.on_compile(function.__name__)
        path = self._path(function, key)
        lowered = function.lower(*args, **static)
        if path is None:
            return lowered.compile()
        with _compiling_anew():
            # The option is XLA's default: with any, JAX does not give what this process may have of its own cache.
            anew = {"xla_embed_ir_in_executable": False} if jax.default_backend() == "cpu" else None
            program = lowered.compile(compiler_options=anew)
        with contextlib.suppress(Exception):  # not every program can be kept; the disk may be full
            executable, _, out_tree = serialize_executable.serialize(program)
            numbers = [device.id for device in program.runtime_executable().local_devices()]
            kept = pickle.dumps((executable, out_tree, numbers))
            with replacing(path) as part:
                part.touch(mode=0o600)
                part.write_bytes(_checksum(path, kept) + b"\n" + kept)
            _remove_unused(path.parent)
        return program


def _is_model(x: Any) -> bool:
    return isinstance(x, Model)


def _signature(tree: Any) -> Any:
    """What a program depends on of an argument. Hashable, and the same in every process by its `repr`."""
    if isinstance(tree, Model):
        return _of_model(tree)
    leaves, structure = jax.tree.flatten(tree, is_leaf=_is_model)
    if len(leaves) == 1 and leaves[0] is tree:
        return _of_leaf(tree)
    return str(structure), tuple(map(_signature, leaves))


@functools.singledispatch
def _described(value: Any) -> Any:
    """A static argument, or where something lies, with the devices' numbers."""
    return str(value)


@_described.register
def _(value: Mesh) -> Any:
    return str(value), () if value.empty else tuple(value.device_ids.flat)


_of_models: weakref.WeakKeyDictionary[Model[Any], str] = weakref.WeakKeyDictionary()


def _of_model(model: Model[Any]) -> str:
    """As `_signature`; kept, since a model has a thousand parameters, which stay as they are."""
    if model not in _of_models:
        leaves, structure = jax.tree.flatten(model)
        _of_models[model] = _digest(str(structure), repr(tuple(map(_of_leaf, leaves))))
    return _of_models[model]


def _of_leaf(leaf: Any) -> tuple[Any, ...]:
    if not isinstance(leaf, jax.Array):
        return np.shape(leaf), np.result_type(leaf).name, type(leaf).__name__
    sharding = leaf.sharding
    devices = sorted(device.id for device in sharding.device_set)
    mesh = repr(_described(sharding.mesh)) if isinstance(sharding, NamedSharding) else ""
    return leaf.shape, str(leaf.dtype), leaf.weak_type, leaf.committed, str(sharding), tuple(devices), mesh


def _checksum(path: Path, kept: bytes) -> bytes:
    return hashlib.sha256(path.name.encode() + kept).hexdigest().encode()


def _digest(*texts: str) -> str:
    return hashlib.sha256("\0".join(texts).encode()).hexdigest()


@contextlib.contextmanager
def _compiling_anew() -> Iterator[None]:
    """Without JAX's own cache: what came out of it lacks, on a CPU, what it takes to be kept once more."""
    enabled = jax.config.values["jax_enable_compilation_cache"]
    jax.config.update("jax_enable_compilation_cache", False)
    compilation_cache.reset_cache()
    try:
        yield
    finally:
        jax.config.update("jax_enable_compilation_cache", enabled)
        compilation_cache.reset_cache()


@functools.cache
def _build() -> str:
    """The code that is traced: this package's own, and the libraries it is made with."""
    package = Path(__file__).parents[1]
    files = (*package.glob("*.py"), *package.glob("models/*.py"), *package.glob("sampling/*.py"))
    sources = [file.read_text(encoding="utf-8") for file in sorted(files)]
    versions = [f"{name} {importlib.metadata.version(name)}" for name in _TRACED_BY]
    return _digest(platform.python_version(), *versions, *sources)[:32]


def _surroundings() -> str:
    """What else a program is compiled for and by."""
    device = jax.local_devices()[0]
    flags = [os.environ.get(name) for name in ("XLA_FLAGS", "LIBTPU_INIT_ARGS")]
    return repr((flags, jax.device_count(), device.device_kind, _processor()))


def _settings() -> tuple[Any, ...]:
    """JAX's, as they are now and here: some can be set for a block alone."""
    names = [name for name in jax.config.values if not _NO_MATTER.search(name)]
    return tuple(repr(getattr(jax.config, name, None)) for name in names)


@functools.cache
def _processor() -> str:
    """Programs for a CPU use what it has, and folders are shared between machines."""
    backend = jax.local_devices()[0].client
    with contextlib.suppress(OSError):
        lines = set(Path("/proc/cpuinfo").read_text(encoding="utf-8").splitlines())
        return repr((backend.platform_version, sorted(line for line in lines if line.startswith(_CPU))))
    return repr((backend.platform_version, platform.machine(), platform.processor()))


def _is_own(path: Path) -> bool:
    """Whether this user alone may have written it."""
    status = path.lstat()
    if not hasattr(os, "getuid"):  # Windows, whose user folders are their owners'
        return True
    return status.st_uid == os.getuid() and not status.st_mode & (stat.S_IWGRP | stat.S_IWOTH)


def _own(folder: Path) -> Path | None:
    """The folder, made if need be; None where it cannot be had."""
    try:
        folder.mkdir(mode=0o700, parents=True, exist_ok=True)
        return folder if _is_own(folder) else None
    except OSError:
        return None


def _remove_unused(folder: Path) -> None:
    """Remove what other versions left beside this one's folder: folders of such names with programs alone in them."""
    for other in folder.parent.iterdir():
        if other == folder or not _BUILD.fullmatch(other.name) or other.is_symlink() or not _is_own(other):
            continue
        unused = time.time() - other.stat().st_mtime > _UNUSED_FOR
        if unused and all(_PROGRAM.fullmatch(file.name) for file in other.iterdir()):
            shutil.rmtree(other, ignore_errors=True)
