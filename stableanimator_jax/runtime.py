"""Which device JAX computes on, and where it keeps compiled programs. To be called before anything is computed."""

import os
import warnings
from collections.abc import Iterator, Sequence
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import Any, Literal

import jax
import jax.numpy as jnp

from stableanimator_jax.config import Device, Dtype, StoredDtype
from stableanimator_jax.errors import InputError

# The CPU stays beside an accelerator: weights are read there.
_PLATFORMS = {"cpu": "cpu", "gpu": "cuda,cpu", "tpu": "tpu,cpu"}


def choose_device(device: Device) -> str:
    """Make `device` JAX's default, and start it. "auto" is what JAX finds (or what `JAX_PLATFORMS` says).

    Returns:
        A description for people and records, such as "1 x NVIDIA H200 (gpu)".

    Raises:
        InputError: there is no such device, or it does not start.
    """
    if device != "auto":
        jax.config.update("jax_platforms", _PLATFORMS[device])
    try:
        found = jax.default_backend()
    except RuntimeError as e:
        raise InputError(f"cannot compute on --device {device}: {e}") from e
    if device not in ("auto", found):
        raise InputError(
            f"--device {device}: JAX finds no {device} here, only {found}; give --device {found}, or install JAX "
            f"for it (the [cuda] or [tpu] extra)"
        )
    devices = jax.devices()
    return f"{len(devices)} x {devices[0].device_kind} ({found})"


def choose_devices(devices: int | Literal["all"] | Sequence[Any]) -> tuple[Any, ...]:
    """Some of JAX's devices: "all" of them, other processes' too; the first so many of this process; or these.

    Raises:
        InputError: there are not so many.
    """
    found = jax.local_devices()
    if devices == "all":
        return tuple(jax.devices())
    if isinstance(devices, Sequence) and not isinstance(devices, str) and devices:
        return tuple(devices)
    if not isinstance(devices, int) or not 1 <= devices <= len(found):
        raise InputError(f"devices must be all, or from 1 to the {len(found)} that JAX finds here, got {devices!r}")
    return tuple(found[:devices])


def compute_dtype(dtype: Any) -> Dtype:
    """The name of what to compute in where no gradients are wanted: "auto" is float16 on a GPU, as published, bfloat16
    on a TPU, and float32 on a CPU.

    Args:
        dtype: "auto", or one of these, by name or as NumPy and JAX have them.

    Raises:
        InputError: it is another one.
    """
    if isinstance(dtype, str) and dtype == "auto":
        on: dict[str, Dtype] = {"cpu": "float32", "gpu": "float16"}
        return on.get(jax.default_backend(), "bfloat16")
    try:
        name = dtype if isinstance(dtype, str) else jnp.dtype(dtype).name
    except TypeError:
        name = repr(dtype)
    if name not in ("float32", "bfloat16", "float16"):
        raise InputError(f"dtype must be auto, float16, bfloat16 or float32, got {name}")
    return name


def training_dtype(dtype: Literal["auto", "bfloat16", "float32"]) -> StoredDtype:
    """What to compute in where gradients are wanted: "auto" is float32 on a CPU, and bfloat16 elsewhere."""
    if dtype == "auto":
        return "float32" if jax.default_backend() == "cpu" else "bfloat16"
    return dtype


def keep_compiled_programs() -> Path | None:
    """Turn JAX's persistent compilation cache on, so that a second run with the same shapes need not compile.

    It lives in `JAX_COMPILATION_CACHE_DIR` where that is set, else in `stableanimator_jax` in the user's cache
    directory (`XDG_CACHE_HOME`, `~/.cache`). `JAX_ENABLE_COMPILATION_CACHE=false` turns it off. What a GPU's kernels
    were tuned to is kept there too.

    Returns:
        The cache's directory, or None where it is off or cannot be written (which costs time, never a run); of a
        bucket's address (`gs://`), a path that is nowhere.
    """
    settings: Any = jax.config  # its attributes are made when JAX is imported
    if not settings.jax_enable_compilation_cache:
        return None
    cache = Path(already) if (already := settings.jax_compilation_cache_dir) else _own_cache()
    if cache is None:
        return None
    if already and "://" not in already:
        with suppress(OSError):  # JAX says so where it writes
            cache.mkdir(parents=True, exist_ok=True)
    jax.config.update("jax_compilation_cache_dir", already or str(cache))  # as it was given: it may be a bucket's
    if "JAX_PERSISTENT_CACHE_MIN_COMPILE_TIME_SECS" not in os.environ:
        jax.config.update("jax_persistent_cache_min_compile_time_secs", 0)  # hundreds of small ones take seconds
    # A full disk costs the programs that do not fit, not a line for each of them.
    warnings.filterwarnings("ignore", "Error (reading|writing) persistent compilation cache")
    return cache


def _own_cache() -> Path | None:
    try:
        cache = Path(os.environ.get("XDG_CACHE_HOME") or Path.home() / ".cache") / "stableanimator_jax"
        cache.mkdir(parents=True, exist_ok=True)
        return cache if os.access(cache, os.W_OK | os.X_OK) else None
    except (OSError, RuntimeError):  # RuntimeError: no home directory
        return None


@contextmanager
def out_of_memory_explained(message: str) -> Iterator[None]:
    """Within the block a device out of memory is an `InputError` with this message, which says what to try."""
    try:
        yield
    except jax.errors.JaxRuntimeError as e:
        if "RESOURCE_EXHAUSTED" not in str(e):
            raise
        raise InputError(message) from e
