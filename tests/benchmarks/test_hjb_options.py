"""The comparison of the face optimisation's settings, run small, as a user runs it."""

import os
import re
import subprocess
import sys
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[2]


def run(*flags: str) -> subprocess.CompletedProcess[str]:
    environment = os.environ | {
        "JAX_PLATFORMS": "cpu",
        "PYTHONPATH": os.pathsep.join([str(ROOT), str(ROOT / "benchmarks")]),
    }
    command = [sys.executable, str(ROOT / "benchmarks/hjb_options.py"), *flags]
    return subprocess.run(command, env=environment, capture_output=True, text=True, timeout=900)


@pytest.mark.slow
def test_a_row_for_each_setting_and_the_command():
    flags = ("--size", "64", "--frames", "1", "--steps", "2", "--only", "off", "crop-aligned")
    done = run(*flags)
    assert done.returncode == 0, done.stderr
    lines = [line.strip("| ").split(" | ") for line in done.stdout.splitlines() if line.startswith("| ")]
    header, *rows = lines
    assert {len(row) for row in rows} == {len(header)}
    table = {row[0]: dict(zip(header[1:], row[1:], strict=True)) for row in rows}
    assert list(table) == ["published", "off", "crop-aligned"]

    for name in ("published", "crop-aligned"):
        before, after = map(float, table[name]["cosine before and after the last optimised step"].split(", "))
        assert -1 <= before < after <= 1
    assert table["off"]["cosine before and after the last optimised step"] == ""
    columns = ("difference from published, 8-bit levels", "in the faces' boxes", "outside of them")
    assert all(float(table["published"][column]) == 0 for column in columns)
    assert all(float(table["off"][column]) > 0 for column in columns)
    for row in table.values():
        assert -1 <= float(row["of the video's faces, box crop"]) <= 1
        assert re.fullmatch(r"\d+\.\d\d", row["seconds"])
    assert f"Command: python benchmarks/hjb_options.py {' '.join(flags)}" in done.stdout


def test_bad_options_are_refused_in_one_line():
    for flags, message in (
        (("--frames", "33"), "frames must be from 1 to 32, got 33"),
        (("--steps", "0"), "steps must be from 1 to 1000"),
        (("--steps", "5", "--only", "start-10"), "hjb.start is 10, but the last of 5 denoising steps is 4"),
        (("--only", "margin-1"), "there is no setting margin-1; there are published, off"),
    ):
        done = run(*flags)
        assert done.returncode == 2
        assert done.stdout == ""
        assert done.stderr.startswith("error: ")
        assert message in done.stderr
        assert done.stderr.count("\n") == 1
