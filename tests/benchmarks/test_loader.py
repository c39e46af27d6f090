"""The loader's benchmark, run small, as a user runs it."""

import os
import re
import subprocess
import sys
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[2]


def run(*flags: str) -> subprocess.CompletedProcess[str]:
    command = [sys.executable, str(ROOT / "benchmarks/loader.py"), *flags]
    environment = os.environ | {"JAX_PLATFORMS": "cpu", "PYTHONPATH": str(ROOT)}
    return subprocess.run(command, env=environment, capture_output=True, text=True, timeout=600)


@pytest.mark.long
@pytest.mark.parametrize("layout", ["prepared", "published", "published --encoded"])
def test_small_run_prints_its_tables_and_the_command(layout):
    flags = f"--layout {layout} --side 64 --length 20 --videos 2 --clips 4 --workers 1"
    done = run(*flags.split())
    assert done.returncode == 0, done.stderr
    assert done.stderr == ""  # nothing is left in shared memory, which Python would tell of
    rows = dict(re.findall(r"^\| (\S.*?) \| (.+?) \|$", done.stdout, re.MULTILINE))
    for name in ("clips a second", "clips a second of CPU time", "1"):
        assert re.fullmatch(r"\d+\.\d\d", rows[name])
    parts = ("decoding and fitting", "finding and opening", "choosing, stacking")
    assert sum(int(rows[part].removesuffix("%")) for part in parts) == pytest.approx(100, abs=2)
    assert f"Command: python benchmarks/loader.py {flags}" in done.stdout


def test_bad_options_are_refused_in_one_line():
    done = run("--length", "16")
    assert (done.returncode, done.stdout) == (2, "")
    assert done.stderr.startswith("error: ")
    assert done.stderr.count("\n") == 1
