"""The face optimisation's benchmark, run small, as a user runs it."""

import os
import re
import runpy
import subprocess
import sys
from pathlib import Path
from types import SimpleNamespace

import pytest

ROOT = Path(__file__).parents[2]

# A machine lent for measuring may not have these, and this benchmark needs none of them.
BLOCK_UNNEEDED = "import sys; sys.modules.update(dict.fromkeys(('av', 'insightface', 'diffusers', 'cv2')));"
TINY = ("--config", "tiny", "--frames", "2", "--chunk", "1", "--iterations", "2", "--repeat", "2")


def run(*flags: str, before: str = BLOCK_UNNEEDED) -> subprocess.CompletedProcess[str]:
    code = f"{before} import runpy; runpy.run_path({str(ROOT / 'benchmarks/hjb.py')!r}, run_name='__main__')"
    environment = os.environ | {
        "JAX_PLATFORMS": "cpu",
        "PYTHONPATH": os.pathsep.join([str(ROOT), str(ROOT / "benchmarks")]),
    }
    return subprocess.run(
        [sys.executable, "-c", code, *flags], env=environment, capture_output=True, text=True, timeout=900
    )


def table(done: subprocess.CompletedProcess[str]) -> dict[str, str]:
    assert done.returncode == 0, done.stderr
    lines = [line.strip("| ") for line in done.stdout.splitlines() if line.startswith("| ")]
    return dict(line.split(" | ") for line in lines if line)


def pair(value: str) -> tuple[float, float]:
    before, after = value.split(", ")
    return float(before), float(after)


# What a time says is the machine's affair: none of it is asserted but its form, or that it is lost in noise.
SECONDS = re.compile(r"\d+\.\d{4} s")
NOISE = "less than the noise of its measurement"


def test_tiny_run_prints_both_modes_both_dtypes_and_the_command():
    flags = (*TINY, "--margin", "0.1", "--dtype", "bfloat16")
    done = run(*flags)
    rows = table(done)
    assert SECONDS.fullmatch(rows["a step of 2 iterations (median)"])
    known = rows["an iteration"] != NOISE
    assert not known or SECONDS.fullmatch(rows["an iteration"])
    assert (rows["achieved"].endswith(" TFLOP/s"), rows["share of this device's matrix product"].endswith("%")) == (
        known,
        known,
    )
    assert any(name.startswith("peak memory") for name in rows)
    before, after = pair(rows["similarity before and after"])
    assert after > before

    assert rows["region mode, what it decodes"] == "24x24, 14.1%"
    arithmetic = "matrix arithmetic an iteration (counted from the jaxpr)"
    assert 0 < float(rows[f"region mode, {arithmetic}"].split()[0]) < float(rows[arithmetic].split()[0])
    assert before < float(rows["region mode, similarity after in whole frames"]) < 1
    known = known and rows["region mode, an iteration"] != NOISE
    assert (rows["region mode, times faster"] != NOISE) == known

    exact = pair(rows["float32, similarity before and after"])
    assert abs(before - exact[0]) < 0.01
    assert abs(float(rows["bfloat16's result, similarity as float32 sees it"]) - exact[1]) < 0.01
    assert f"Command: python benchmarks/hjb.py {' '.join(flags)}" in done.stdout


@pytest.fixture
def hjb(monkeypatch) -> SimpleNamespace:
    """The benchmark's own names."""
    monkeypatch.syspath_prepend(str(ROOT / "benchmarks"))
    return SimpleNamespace(**runpy.run_path(str(ROOT / "benchmarks/hjb.py")))


@pytest.mark.parametrize(
    ("longer", "shorter", "expected"),
    [
        ([5.0, 5.1, 5.2], [2.0, 2.1, 2.2], 3.0),
        ([5.0, 5.1, 5.2], [4.9, 5.0, 5.1], None),  # they overlap
        ([2.0, 2.1], [5.0, 5.1], None),  # the shorter is longer
        ([5.0, 9.0], [4.0, 4.0], None),  # another process came in between
        ([5.0, 5.0, 5.0, 5.0, 5.0, 5.0, 99.0], [2.0] * 7, 3.0),  # once only
        ([5.0, 5.0], [5.0, 5.0], None),
    ],
)
def test_a_difference_is_known_where_it_is_above_its_noise(hjb, longer, shorter, expected):
    assert hjb.difference(longer, shorter) == (None if expected is None else pytest.approx(expected))


def test_what_is_lost_in_noise_is_said_instead_of_a_number(hjb):
    known = hjb.Measured(9.0, 3.0, 0.5, 4 * 10**12, 10**9, "a guess", None)
    lost, options = known._replace(iteration_seconds=None), hjb.Options(config="tiny")
    rows = dict(hjb.mode_rows(known, 10e12, options))
    assert (rows["an iteration"], rows["achieved"]) == ("0.5000 s", "8.00 TFLOP/s")
    assert rows["share of this device's matrix product"] == "80.0%"
    assert hjb.times_faster(known, known._replace(iteration_seconds=0.2)) == "2.50"
    noisy = dict(hjb.mode_rows(lost, 10e12, options))
    changed = ("an iteration", "achieved", "share of this device's matrix product")
    assert noisy == rows | dict.fromkeys(changed, NOISE)
    assert hjb.times_faster(known, lost) == hjb.times_faster(lost, known) == NOISE


def test_bad_options_are_refused_in_one_line():
    for flags, message in (
        (("--width", "60"), "the size 60x512 does not work"),
        (("--height", "0"), "the size 512x0 does not work"),
        (("--frames", "0"), "frames must be at least 1"),
        (("--iterations", "1"), "iterations must be at least 2"),
        (("--chunk", "0"), "chunk must be at least 1"),
        (("--repeat", "1"), "repeat must be at least 2"),
        (("--face-share", "0"), "face-share must be above 0 and at most 1"),
        (("--margin", "nan"), "margin must be from 0 to 10"),
        (("--config", "tiny", "--against", "torch"), "--against torch needs"),
    ):
        done = run(*flags)
        assert done.returncode == 2
        assert done.stdout == ""
        assert done.stderr.startswith("error: ")
        assert message in done.stderr
        assert done.stderr.count("\n") == 1
