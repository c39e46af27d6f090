"""What benchmarks ask of the device: its name, its own matmul rate, random weights made on it."""

import importlib.metadata
import math
import platform
from pathlib import Path
from typing import TypeVar

import jax
import jax.numpy as jnp
from flax import nnx

from stableanimator_jax.models.functional import Blueprint, Model

M = TypeVar("M", bound=nnx.Module)


def random_model(blueprint: Blueprint[M], seed: int = 0) -> Model[M]:
    """A model with random weights that never were on the host.

    Kernels are slices of one Gaussian draw, each from another offset, with a spread of 1/sqrt(fan in): their values
    do not matter here beyond being random, and compiling a thousand separate draws takes minutes.
    """
    leaves, structure = jax.tree_util.tree_flatten_with_path(blueprint.abstract_params())
    longest = max(math.prod(leaf.shape) for _, leaf in leaves)

    def draw(key: jax.Array) -> list[jax.Array]:
        numbers = jax.random.normal(key, (2 * longest,), jnp.float32)
        params, start = [], 0
        for path, leaf in leaves:
            if len(leaf.shape) < 2:
                params.append(jnp.full(leaf.shape, path[-1].key in ("scale", "var"), leaf.dtype))
                continue
            size, fan_in = math.prod(leaf.shape), math.prod(leaf.shape[:-1])
            start = (start + 4099) % longest
            values = jax.lax.slice(numbers, (start,), (start + size,)) / math.sqrt(fan_in)
            params.append(values.reshape(leaf.shape).astype(leaf.dtype))
        return params

    return Model(jax.tree.unflatten(structure, jax.jit(draw)(jax.random.key(seed))), blueprint)


def machine() -> str:
    """Device and processor, for a benchmark's record."""
    devices = jax.local_devices()
    return f"{len(devices)} x {devices[0].device_kind} ({devices[0].platform}), {processor()}"


def versions(*packages: str) -> str:
    """Python's and the packages' versions; a package that is not installed is left out."""
    found = [f"Python {platform.python_version()}"]
    for package in packages:
        try:
            found.append(f"{package} {importlib.metadata.version(package)}")
        except importlib.metadata.PackageNotFoundError:
            continue
    return ", ".join(found)


def processor() -> str:
    """Its name and how many there are of it."""
    try:
        lines = Path("/proc/cpuinfo").read_text().splitlines()
    except OSError:
        return platform.processor() or platform.machine()
    names = [line.partition(":")[2].strip() for line in lines if line.startswith("model name")]
    return f"{len(names)} x {names[0]}" if names else platform.machine()
