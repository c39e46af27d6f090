"""The report of speed: all of it, run small, on a machine that has little installed; its limits and tables."""

import os
import subprocess
import sys
from importlib.util import find_spec
from pathlib import Path

import pytest

from benchmarks import report
from benchmarks._case import Case
from benchmarks._hjb import MARGIN, region_size

ROOT = Path(__file__).parents[2]

# A machine lent for measuring may not have these; nothing but the comparison with torch needs any of them.
UNNEEDED = (
    *("av", "insightface", "onnx", "onnxruntime", "cv2", "tensorboardX", "tensorflow_datasets", "matplotlib"),
    *("huggingface_hub", "diffusers"),
)

WITHOUT = [package for package in report.TORCH if package == "diffusers" or not find_spec(package)]
NO_DIFFUSERS = f"not measured: {' and '.join(WITHOUT)} not installed"


def run(folder: Path, *flags: str) -> subprocess.CompletedProcess[str]:
    return subprocess.run(
        [sys.executable, "-m", "benchmarks.report", *flags],
        cwd=ROOT,
        env=os.environ | {"JAX_PLATFORMS": "cpu", "PYTHONPATH": os.pathsep.join([str(ROOT), str(folder)])},
        capture_output=True,
        text=True,
        timeout=900,
    )


@pytest.mark.slow
def test_a_tiny_run_measures_everything_that_the_machine_can(tmp_path):
    (tmp_path / "sitecustomize.py").write_text(f"import sys; sys.modules.update(dict.fromkeys({UNNEEDED}))")
    file = tmp_path / "cpu.jsonl"
    done = run(tmp_path, "--tiny", "--out", str(file), "--commit", "abc")
    rows = report.read_rows(file)
    found: dict[str, list[dict]] = {}
    for row in rows:
        found.setdefault(row["stage"], []).append(row)
        assert row["commit"] == "abc"
        assert row["command"] == f"python -m benchmarks.report --tiny --out {file} --commit abc"
        assert "jax" in row["versions"]
    assert list(found) == report.KINDS
    for name in report.KINDS:
        stage = report.STAGES[name]
        errors = [row["error"] for row in found[name] if "error" in row]
        missing = [NO_DIFFUSERS] if stage.needs == report.TORCH else []
        assert errors == missing, done.stderr
    assert done.returncode == 1  # for what was not measured

    # What a time says is the machine's affair; arithmetic and plans are the programs' own.
    hjb_step = "HJB step of 3 iterations, {}, {}"
    for name, whats in {
        "video-512x512": ("guided step", "whole video, 2 frames, 2 steps", "decoding 2 frames"),
        "svd-1024x576": ("guided step",),
        "hjb-512x512": (hjb_step.format("bfloat16", "region"), hjb_step.format("float32", "whole frames")),
        "training-512x512": ("compiling a training step", "training step, encoded clips"),
    }.items():
        by_what = {row["what"]: row for row in found[name]}
        for what in whats:
            assert min(by_what[what]["seconds"]) > 0
        assert any(row.get("flop", 0) > 0 < row["rate"] for row in by_what.values() if "rate" in row)
        assert any(row.get("temporaries", 0) > 0 for row in by_what.values())
        assert all("cpu" in row["machine"] for row in by_what.values())
    for row in found["hjb-512x512"]:
        if "similarity" in row:
            assert row["similarity"][0] < row["similarity"][1]

    table = run(tmp_path, "--table", str(file))
    assert table.returncode == 0
    assert "| HJB, region, 512x512, than whole frames |" in table.stdout
    assert f"| torch-512x512 | {NO_DIFFUSERS} | | | | |" in table.stdout


def test_the_table_says_medians_shares_memory_and_ratios():
    run = {"run": "1", "versions": "jax 1", "commit": "abc", "command": "report", "machine": "1 x H200"}
    step = {"what": "guided step", "seconds": [0.3, 0.1, 0.2], "flop": 5e12, "rate": 100e12, "dtype": "bfloat16"}
    rows = [
        run | {"stage": "video-512x512"} | step,
        run | {"stage": "video-512x512", "what": "its program", "arguments": 3 * 10**9, "temporaries": 10**9},
        run | {"stage": "torch-512x512", "what": "guided step, plain", "seconds": [0.5], "peak": 7 * 10**9},
        run | {"stage": "torch-512x512", "error": "stopped after 240 s"},
        run | {"run": "2", "stage": "torch-512x512", "what": "guided step, compiled", "seconds": [0.1]},
    ]
    first, second = report.tables(rows).split("\n\n1 x H200")
    assert first.splitlines() == [
        "1 x H200; jax 1; commit abc. `report`",
        "",
        "| stage | what | seconds (least to most) | TFLOP | share of the matrix rate | memory |",
        "|---|---|---|---|---|---|",
        "| video-512x512 | guided step, bfloat16 | 0.2 (0.1 to 0.3) | 5 | 25.0% of 100 TFLOP/s |  |",
        "| video-512x512 | its program |  |  |  | 3.00 GB and 1.00 GB of temporaries |",
        "| torch-512x512 | guided step, plain | 0.5 |  |  | peak 7.00 GB |",
        "| torch-512x512 | stopped after 240 s | | | | |",
        "",
        "| by the medians | times as fast |",
        "|---|---|",
        "| guided step, 512x512, than diffusers' plain | 2.50 |",
    ]
    assert "times as fast" not in second  # nothing in that run to compare with


@pytest.mark.parametrize(("case", "side"), [(Case(512, 512), 256), (Case(1024, 576), 384)])
def test_region_mode_decodes_the_face_and_a_margin(case, side):
    assert region_size(case, MARGIN) == (side // 8, side // 8)
    assert region_size(case, None) == case.latent_size


@pytest.fixture
def stages_run(tmp_path, monkeypatch):
    """Let every stage's process be a shell script."""

    def be(script: str) -> None:
        shell = tmp_path / "python"
        shell.write_text(f"#!/bin/sh\n{script}\n")
        shell.chmod(0o755)
        monkeypatch.setattr(sys, "executable", str(shell))

    return be


def test_what_a_stage_measured_before_it_failed_is_kept(stages_run, tmp_path, capsys):
    stages_run("""echo '{"what": "a", "seconds": [1.0]}'; exit 3""")
    file = tmp_path / "rows.jsonl"
    for _ in range(2):  # a second run is added to the first
        assert report.main(["--out", str(file), "--only", "video-512x512"]) == 1
    file.write_text(file.read_text() + '{"cut o')
    rows = report.read_rows(file)
    assert [row.get("what", row.get("error")) for row in rows] == ["a", "failed with exit status 3"] * 2
    assert capsys.readouterr().out.count("| video-512x512 | a | 1 |") == 2


def test_a_stage_is_stopped_at_its_limit_and_none_begins_after_the_runs(stages_run):
    stages_run("sleep 600")
    assert list(report.run_stage("video-512x512", tiny=True, limit=0)) == [{"error": "stopped after 0 s"}]
    (row,) = report.rows_of(["video-512x512"], tiny=True, seconds=0)
    assert row == {"stage": "video-512x512", "error": "not begun: the run's time was over"}


@pytest.mark.parametrize(
    ("flags", "message"),
    [
        (("--only", "video"), "invalid choice: 'video'"),
        (("--minutes", "few"), "invalid float value"),
        (("--table", "/nowhere.jsonl"), "cannot use /nowhere.jsonl: No such file or directory"),
        (("--out", "/nowhere/rows.jsonl"), "cannot use /nowhere/rows.jsonl: No such file or directory"),
    ],
)
def test_bad_flags_are_refused(flags, message, capsys):
    with pytest.raises(SystemExit) as stop:
        report.main(flags)
    out, error = capsys.readouterr()
    assert (stop.value.code, out) == (2, "")
    assert message in error.splitlines()[-1]
