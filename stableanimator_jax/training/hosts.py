"""Several processes as one run: how they find each other, and whether they were told the same."""

import json
from typing import Any

import jax
import numpy as np
from jax.experimental import multihost_utils

from stableanimator_jax.errors import InputError
from stableanimator_jax.training.config import DistributedConfig


def start_distributed(config: DistributedConfig) -> None:
    """Connect this process with the others. To be called before JAX is asked for anything.

    Raises:
        InputError: they do not find each other.
    """
    if config.start == "off":
        return
    settings: dict[str, Any] = {}
    if config.start == "slurm":
        settings = {"cluster_detection_method": "slurm"}
    if config.start == "explicit":
        settings = {
            "coordinator_address": config.coordinator,
            "num_processes": config.processes,
            "process_id": config.process,
        }
    try:
        jax.distributed.initialize(**settings)
    except (RuntimeError, ValueError) as e:
        reason = str(e).partition("\n")[0]
        raise InputError(f"--distributed.start {config.start} does not work here: {reason}") from e


def leave_together() -> None:
    """Wait for the other processes, so that none takes another's end for a failure. Nothing can be computed after."""
    if jax.process_count() > 1:
        jax.distributed.shutdown()


def require_agreement(settings: dict[str, Any]) -> None:
    """Check that every process was told the same, and stop all of them where one was not.

    Args:
        settings: plain nested data.

    Raises:
        InputError: on every process; names the first setting in which one differs from process 0.
    """
    if jax.process_count() == 1:
        return
    text = json.dumps(settings, sort_keys=True).encode()
    longest = int(np.max(multihost_utils.process_allgather(np.asarray(len(text)))))
    padded = np.frombuffer(text.ljust(longest), np.uint8)
    everyone = [json.loads(bytes(row)) for row in multihost_utils.process_allgather(padded)]
    first = _flat(everyone[0])
    for process, theirs in enumerate(everyone):
        for name, value in _flat(theirs).items():
            if first.get(name) != value:
                raise InputError(
                    f"the processes do not agree: {name} is {first.get(name)!r} on process 0, but {value!r} on "
                    f"process {process}; give all of them the same settings and files"
                )


def changes(before: dict[str, Any], now: dict[str, Any]) -> dict[str, tuple[Any, Any]]:
    """The settings that differ, by name, as they were and as they are."""
    old, new = _flat(before), _flat(now)
    return {name: (old.get(name), new.get(name)) for name in sorted(old | new) if old.get(name) != new.get(name)}


def _flat(settings: Any, prefix: str = "") -> dict[str, Any]:
    if not isinstance(settings, dict):
        return {prefix: settings}
    return {
        k: v for name, part in settings.items() for k, v in _flat(part, f"{prefix}.{name}" if prefix else name).items()
    }
