"""The face optimisation's benchmark, run small, as a user runs it."""

import os
import subprocess
import sys
from pathlib import Path

ROOT = Path(__file__).parents[2]

# A machine lent for measuring may not have these, and this benchmark needs none of them.
BLOCK_UNNEEDED = "import sys; sys.modules.update(dict.fromkeys(('av', 'insightface', 'diffusers', 'cv2')));"
TINY = ("--config", "tiny", "--frames", "2", "--chunk", "1", "--iterations", "2", "--repeat", "1")


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


def seconds(value: str) -> float:
    return float(value.removesuffix(" s"))


def test_tiny_run_prints_both_modes_both_dtypes_and_the_command():
    flags = (*TINY, "--margin", "0.1", "--dtype", "bfloat16")
    done = run(*flags)
    rows = table(done)
    assert seconds(rows["a step of 2 iterations (median)"]) > seconds(rows["an iteration"]) > 0
    assert 0 < float(rows["share of this device's matrix product"].removesuffix("%")) < 100
    assert any(name.startswith("peak memory") for name in rows)
    before, after = pair(rows["similarity before and after"])
    assert after > before

    assert rows["region mode, what it decodes"] == "24x24, 14.1%"
    arithmetic = "matrix arithmetic an iteration (counted from the jaxpr)"
    assert 0 < float(rows[f"region mode, {arithmetic}"].split()[0]) < float(rows[arithmetic].split()[0])
    assert before < float(rows["region mode, similarity after in whole frames"]) < 1
    assert float(rows["region mode, times faster"]) > 0

    exact = pair(rows["float32, similarity before and after"])
    assert abs(before - exact[0]) < 0.01
    assert abs(float(rows["bfloat16's result, similarity as float32 sees it"]) - exact[1]) < 0.01
    assert f"Command: python benchmarks/hjb.py {' '.join(flags)}" in done.stdout


def test_bad_options_are_refused_in_one_line():
    for flags, message in (
        (("--width", "60"), "the size 60x512 does not work"),
        (("--height", "0"), "the size 512x0 does not work"),
        (("--frames", "0"), "frames must be at least 1"),
        (("--iterations", "1"), "iterations must be at least 2"),
        (("--chunk", "0"), "chunk must be at least 1"),
        (("--repeat", "0"), "repeat must be at least 1"),
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
