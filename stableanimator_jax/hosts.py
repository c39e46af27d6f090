"""Several processes as one run: how they find each other, and whether they were told the same."""

import itertools
import json
import os
import re
import subprocess
import sys
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

import jax
import numpy as np
from flax.traverse_util import flatten_dict
from jax.experimental import multihost_utils
from orbax.checkpoint import multihost
from tqdm import tqdm

from stableanimator_jax.distributed import DistributedConfig
from stableanimator_jax.errors import InputError, first_line

_LONGEST = 6 * 3600  # seconds
_PATIENCE = 1  # seconds without a word
_BARRIERS = itertools.count()  # every name may be used once; the processes come by in the same order


def start_distributed(config: DistributedConfig) -> None:
    """Connect this process with the others, and say whom it waits for. To be called before JAX is asked for anything.

    Raises:
        InputError: they do not find each other, or not all come in time. The program must then end by `cli.leave`:
            a thread goes on waiting.
    """
    if config.start == "off":
        return
    settings: dict[str, Any] = {"cluster_detection_method": "slurm"} if config.start == "slurm" else {}
    others = "the other processes of this run"
    if config.start == "explicit":
        settings = {
            "coordinator_address": config.coordinator,
            "num_processes": config.processes,
            "process_id": config.process,
        }
        first = "" if config.process == 0 else ", of them process 0"
        others = f"{(config.processes or 0) - 1} more of {config.processes} processes{first} at {config.coordinator}"
    problems: list[Exception] = []

    def connect() -> None:
        try:
            # When its own time is over JAX ends the program, with pages about C++.
            jax.distributed.initialize(**settings, initialization_timeout=_LONGEST)
        except Exception as e:
            problems.append(e)

    connecting = threading.Thread(target=connect, daemon=True)
    connecting.start()
    connecting.join(_PATIENCE)
    if connecting.is_alive():
        print(f"waiting for {others}, for {config.wait} s", file=sys.stderr, flush=True)
        connecting.join(max(0, config.wait - _PATIENCE))
    if connecting.is_alive():
        raise InputError(
            f"waited {config.wait} s in vain for {others}: start every process of the run, let each reach process 0, "
            "or wait longer by --distributed.wait"
        )
    for problem in problems:
        if not isinstance(problem, RuntimeError | ValueError | KeyError):
            raise problem
        reason = f"{problem.args[0]} is not set" if isinstance(problem, KeyError) else first_line(problem)
        raise InputError(f"--distributed.start {config.start} does not work here: {reason}") from problem
    _tell_pages_in_one_line()


_ENDED = "another process of this run ended, or cannot be reached any more; where it ran, its last line says why"

# Passes on what it reads until the C++ underneath tells that the run is over, by pages and a trace of its stack.
_FILTER = rf"""
import os, re, signal
for number in (signal.SIGINT, signal.SIGTERM, signal.SIGHUP):
    signal.signal(number, signal.SIG_IGN)
told = re.compile(rb"[EF]\d{{4}} [\d:.]+ +\d+ (coordination_service_agent[.]cc|client[.]h):")
before = b""
while block := os.read(0, 65536):
    text = before + block
    found = told.search(text)
    if not found:
        os.write(2, block)
        before = text[-100:]
        continue
    os.write(2, text[len(before) : max(len(before), found.start())] + b"\n" + b"error: {_ENDED}\n")
    while os.read(0, 65536):
        pass
"""


def _tell_pages_in_one_line() -> None:
    """When another process ends, JAX ends this one from a thread of its own; make one line of all that it says."""
    reading, writing = os.pipe()
    sys.stderr.flush()
    command = [sys.executable, "-c", _FILTER]
    subprocess.Popen(command, stdin=reading, stdout=subprocess.DEVNULL, start_new_session=True)
    os.dup2(writing, 2)
    os.close(reading)
    os.close(writing)


@contextmanager
def ending_together() -> Iterator[None]:
    """Within the block, what JAX raises because another process ended is an `InputError`."""
    try:
        yield
    except jax.errors.JaxRuntimeError as e:
        if jax.process_count() > 1 and re.search("Gloo|NCCL|UNAVAILABLE|Connection|coordination", str(e)):
            raise InputError(_ENDED) from e
        raise


def process_count() -> int:
    """Of this run."""
    return jax.process_count()


def is_first() -> bool:
    """Whether this is process 0, which writes and speaks."""
    return jax.process_index() == 0


def from_process_0(arrays: Any) -> Any:
    """Process 0's arrays, on the host, on every process; all must call it with arrays of these shapes and dtypes."""
    return multihost_utils.broadcast_one_to_all(arrays)


def wait_for_all() -> None:
    """Wait until every process is here, however long one compiles or makes a video: collectives wait half a minute."""
    if jax.process_count() > 1:
        barrier = multihost.get_barrier_sync_fn()
        assert barrier is not None  # there are others
        barrier(key=f"run-{next(_BARRIERS)}", timeout_ms=_LONGEST * 1000)


def leave_together() -> None:
    """Wait for the other processes, so that none takes another's end for a failure. Nothing can be computed after."""
    wait_for_all()  # longer than the shutdown itself would
    if jax.process_count() > 1:
        jax.distributed.shutdown()


@contextmanager
def failing_together() -> Iterator[None]:
    """What a process alone finds wrong in the block, all of them raise at its end, rather than wait for that one.

    Nothing in the block may wait for other processes.

    Raises:
        InputError: this process's own, or else the first of another's.
    """
    problem: InputError | None = None
    try:
        yield
    except InputError as e:
        problem = e
    if jax.process_count() > 1:
        found = from_each(str(problem) if problem else "")
        if problem is None and any(found):
            process = next(n for n, text in enumerate(found) if text)
            problem = InputError(f"process {process}: {found[process]}")
    if problem is not None:
        raise problem


def everywhere(holds: bool) -> bool:
    """Whether it holds on every process; to be called by all of them."""
    return all(from_each("yes" if holds else "")) if jax.process_count() > 1 else holds


def require_agreement(settings: dict[str, Any]) -> None:
    """Check that every process was told the same, as plain nested data, and stop all of them where one was not.

    Raises:
        InputError: on every process; names the first setting in which one differs from process 0.
    """
    if jax.process_count() == 1:
        return
    everyone = [json.loads(text) for text in from_each(json.dumps(settings, sort_keys=True))]
    for process, theirs in enumerate(everyone):
        for name, (first, other) in changes(everyone[0], theirs).items():
            raise InputError(
                f"the processes do not agree: {name} is {first!r} on process 0, but {other!r} on process {process}; "
                "give all of them the same settings and files"
            )


def changes(before: dict[str, Any], now: dict[str, Any]) -> dict[str, tuple[Any, Any]]:
    """The settings that differ, by name, as they were and as they are."""
    old, new = flatten_dict(before, sep="."), flatten_dict(now, sep=".")
    return {name: (old.get(name), new.get(name)) for name in sorted(old | new) if old.get(name) != new.get(name)}


def from_each(text: str) -> list[str]:
    """Every process's text, on each of them; all must call it."""
    if jax.process_count() == 1:
        return [text]
    data = text.encode()
    longest = int(np.max(multihost_utils.process_allgather(np.asarray(len(data)))))
    padded = np.frombuffer(data.ljust(longest + 1, b"\0"), np.uint8)
    return [bytes(row).rstrip(b"\0").decode() for row in multihost_utils.process_allgather(padded)]


def say(text: str) -> None:
    """Print, on process 0 only."""
    if jax.process_index() == 0:
        print(text, flush=True)


def warn(text: str) -> None:
    """Print a warning on stderr, on process 0 only."""
    if jax.process_index() == 0:
        tqdm.write(f"warning: {text}", file=sys.stderr)
