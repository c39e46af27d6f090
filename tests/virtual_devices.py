"""Run a few lines of Python on several virtual CPU devices, in a process of their own."""

import os
import subprocess
import sys
import textwrap
from pathlib import Path


def run_on_virtual_devices(count: int, code: str) -> str:
    """Run `code` where JAX sees `count` CPU devices, and return what it printed. Fails with its error output.

    The number of devices is settled when JAX starts, so the test's own process cannot have another one.
    """
    environment = os.environ | {
        "JAX_PLATFORMS": "cpu",
        "JAX_NUM_CPU_DEVICES": str(count),
        "PYTHONPATH": str(Path(__file__).parents[1]),
    }
    command = [sys.executable, "-W", "error", "-c", textwrap.dedent(code)]
    done = subprocess.run(command, env=environment, capture_output=True, text=True, timeout=600)
    assert done.returncode == 0, done.stderr[-4000:]
    return done.stdout
