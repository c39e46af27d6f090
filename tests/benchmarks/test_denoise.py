"""The denoising benchmark, run small, as a user runs it."""

import os
import re
import subprocess
import sys
from pathlib import Path

ROOT = Path(__file__).parents[2]

# A machine lent for measuring may not have these; a benchmark of the sampler needs none of them.
BLOCK_UNNEEDED = "import sys; sys.modules.update(dict.fromkeys(('av', 'insightface', 'diffusers', 'cv2')));"


def run(*flags: str) -> subprocess.CompletedProcess[str]:
    code = (
        f"{BLOCK_UNNEEDED} import runpy; runpy.run_path({str(ROOT / 'benchmarks/denoise.py')!r}, run_name='__main__')"
    )
    environment = os.environ | {
        "JAX_PLATFORMS": "cpu",
        "PYTHONPATH": os.pathsep.join([str(ROOT), str(ROOT / "benchmarks")]),
    }
    return subprocess.run(
        [sys.executable, "-c", code, *flags], env=environment, capture_output=True, text=True, timeout=600
    )


def test_tiny_run_prints_its_table_and_the_command():
    done = run("--config", "tiny", "--frames", "4", "--window", "4", "--steps", "2")
    assert done.returncode == 0, done.stderr
    table = [line.strip("| ") for line in done.stdout.splitlines() if line.startswith("| ")]
    rows = dict(line.split(" | ") for line in table if line)
    # What a time says is the machine's affair; only its form is asserted.
    assert re.fullmatch(r"\d+\.\d{4} s", rows["a guided step (median)"])
    assert re.fullmatch(r"\d+\.\d{3} s", rows["decoding 4 frames in chunks of 4"])
    assert re.fullmatch(r"\d+\.\d s", rows["first denoising of one step, compiled"])
    assert rows["UNet calls a step"] == "1"
    assert re.fullmatch(r"\d+\.\d%", rows["share of it"])
    assert any(name.startswith("peak memory") for name in rows)
    assert "Command: python benchmarks/denoise.py --config tiny --frames 4 --window 4 --steps 2" in done.stdout


def test_bad_options_are_refused_in_one_line():
    for flags, message in (
        (("--width", "60"), "the output size 60x512 does not work"),
        (("--height", "0"), "the output size 512x0 does not work"),
        (("--window", "1"), "window must be from 2 to 1024"),
        (("--rows-at-once", "0"), "rows-at-once must be from 1 to 1024"),
        (("--steps", "0"), "steps must be at least 1"),
        (("--config", "tiny", "--against", "torch"), "--against torch needs"),
    ):
        done = run(*flags)
        assert done.returncode == 2
        assert done.stdout == ""
        assert done.stderr.startswith("error: ")
        assert message in done.stderr
        assert done.stderr.count("\n") == 1
