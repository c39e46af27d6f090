"""`train.py` as a user runs it, on the smallest model, with its compiled programs shared between runs."""

import json
import os
import socket
import subprocess
import sys
from collections.abc import Sequence
from pathlib import Path

import numpy as np
import orbax.checkpoint as ocp

ROOT = Path(__file__).parents[2]
FLAGS = (
    "--data.batch-size",
    "4",
    "--data.frames",
    "4",
    "--data.stride",
    "1",
    "--optimizer.warmup-steps",
    "2",
    "--optimizer.learning-rate",
    "1e-4",
    "--log-every",
    "1",
)


def start(folder: Path, *flags: str, devices: int = 1) -> subprocess.Popen[str]:
    """The script in `folder`, on `devices` virtual CPU devices."""
    command = [sys.executable, str(ROOT / "train.py"), *FLAGS, *flags]
    environment = os.environ | {
        "JAX_NUM_CPU_DEVICES": str(devices),
        "PYTHONPATH": str(ROOT),
        "PYTHONWARNINGS": "",
    }
    pipe = subprocess.PIPE
    return subprocess.Popen(command, env=environment, cwd=folder, stdout=pipe, stderr=pipe, text=True, errors="replace")


def finish(process: subprocess.Popen[str], status: int = 0) -> tuple[str, str]:
    """What it said on stdout and stderr, once it has ended with `status`."""
    out, err = process.communicate(timeout=500)
    assert process.returncode == status, (process.returncode, out[-2000:], err[-4000:])
    return out, err


def train(folder: Path, *flags: str, devices: int = 1, status: int = 0) -> tuple[str, str]:
    return finish(start(folder, *flags, devices=devices), status)


def train_together(folder: Path, processes: int, devices: int, *flags: str) -> str:
    """The same run in several processes of so many devices each; what the first of them said."""
    return finish_together(start_together(folder, processes, devices, *flags))[0]


def free_port() -> int:
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        return free.getsockname()[1]


def start_together(
    folder: Path, processes: int, devices: int, *flags: str, each: Sequence[Sequence[str]] | None = None
) -> list[subprocess.Popen[str]]:
    """`each` has flags of every process of its own."""
    address = f"127.0.0.1:{free_port()}"
    distributed = ("--distributed.start", "explicit", "--distributed.coordinator", address)
    counted = ("--distributed.processes", str(processes), "--distributed.process")
    own = each or [()] * processes
    return [start(folder, *flags, *distributed, *counted, str(n), *own[n], devices=devices) for n in range(processes)]


def finish_together(processes: list[subprocess.Popen[str]], status: int = 0) -> tuple[str, str]:
    said = [finish(process, status) for process in processes]
    return said[0]


def losses(output: Path) -> dict[int, float]:
    """The loss of every step, by `metrics.jsonl`."""
    lines = [json.loads(line) for line in (output / "metrics.jsonl").read_text().splitlines()]
    return {line["step"]: line["train/loss"] for line in lines if "train/loss" in line}


def saved_state(output: Path, step: int) -> dict[str, np.ndarray]:
    """Every array of a checkpoint's state."""
    with ocp.StandardCheckpointer() as checkpointer:
        path = output / "checkpoints" / str(step) / "state"
        tree = checkpointer.metadata(path).item_metadata.tree
        wanted = {name: ocp.utils.to_shape_dtype_struct(leaf) for name, leaf in tree.items()}
        restored = checkpointer.restore(path, wanted)
    return {name: np.asarray(leaf) for name, leaf in restored.items()}


def assert_same_state(output: Path, other: Path, step: int) -> None:
    """Bit for bit."""
    first, second = saved_state(output, step), saved_state(other, step)
    assert first.keys() == second.keys()
    assert len(first) > 100
    for name, array in first.items():
        np.testing.assert_array_equal(array, second[name], err_msg=name)
