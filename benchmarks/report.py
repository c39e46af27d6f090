"""Every figure of speed that this project states, most wanted first, in one run of 13 minutes at most.

    python -m benchmarks.report --out h200.jsonl                        # everything, on the device that JAX finds
    python -m benchmarks.report --out h200.jsonl --only hjb-512x512     # one stage more, into the same file
    python -m benchmarks.report --table h200.jsonl                      # the tables of docs/benchmarks.md
    JAX_PLATFORMS=cpu python -m benchmarks.report --tiny                # the same, small: shows that it works

Each stage runs in a process of its own, which has the device to itself, and is stopped at its time limit. Each figure
is a line of JSON, appended to the file as soon as it is measured, so a run that is cut off keeps what it has.
"""

import argparse
import contextlib
import importlib.metadata
import importlib.util
import json
import os
import platform
import shlex
import signal
import statistics
import subprocess
import sys
import threading
import time
from collections.abc import Generator, Iterator, Sequence
from importlib import import_module
from pathlib import Path
from typing import NamedTuple

from benchmarks._case import Case, Row
from stableanimator_jax.interrupts import interruptible

ROOT = Path(__file__).parents[1]
TORCH = ("torch", "diffusers")
TRAINING = ("tyro", "grain")
PACKAGES = ("jax", "jaxlib", "jax-cuda13-plugin", "flax", "optax", "torch", "diffusers")


class Stage(NamedTuple):
    """One process of the report."""

    module: str
    """Of this folder; its `measure` yields the rows."""
    case: Case
    limit: float
    """Seconds that it may take, with compiling."""
    needs: tuple[str, ...] = ()
    """Packages that the report does without."""


STAGES = {
    "video-512x512": Stage("_sampling", Case(512, 512), 170),
    "video-1024x576": Stage("_sampling", Case(1024, 576), 200),
    "svd-1024x576": Stage("_sampling", Case(1024, 576, frames=25, faces=False), 200),
    "presets-512x512": Stage("_presets", Case(512, 512, repeats=2), 240),
    "torch-512x512": Stage("_torch_unet", Case(512, 512, steps=10), 240, TORCH),
    "hjb-512x512": Stage("_hjb", Case(512, 512), 300),
    "training-512x512": Stage("_training", Case(512, 512, steps=10), 300, TRAINING),
    "torch-1024x576": Stage("_torch_unet", Case(1024, 576, steps=5), 240, TORCH),
    "hjb-1024x576": Stage("_hjb", Case(1024, 576), 300),
    "training-1024x576": Stage("_training", Case(1024, 576, steps=5), 300, TRAINING),
    "torch-hjb-512x512": Stage("_torch_hjb", Case(512, 512), 120, TORCH),
    "torch-training-512x512": Stage("_torch_training", Case(512, 512, steps=10), 120, TORCH),
}
"""The most wanted first."""
KINDS = [name for name in STAGES if not (name.endswith("1024x576") and name.replace("1024x576", "512x512") in STAGES)]
"""Those that differ by more than the size."""

_HJB = "HJB step of 3 iterations, {}, {}"
RATIOS = {
    "guided step, 512x512, than diffusers' plain": (
        ("video-512x512", "guided step"),
        ("torch-512x512", "guided step, plain"),
    ),
    "guided step, 512x512, than diffusers' compiled": (
        ("video-512x512", "guided step"),
        ("torch-512x512", "guided step, compiled"),
    ),
    "guided step, 1024x576, than diffusers' plain": (
        ("video-1024x576", "guided step"),
        ("torch-1024x576", "guided step, plain"),
    ),
    "guided step, 1024x576, than diffusers' compiled": (
        ("video-1024x576", "guided step"),
        ("torch-1024x576", "guided step, compiled"),
    ),
    "--preset fast, 512x512, than published": (
        ("presets-512x512", "whole video, --preset fast"),
        ("presets-512x512", "whole video, --preset published"),
    ),
    "--cache-interval 3, 512x512, than published": (
        ("presets-512x512", "whole video, --cache-interval 3"),
        ("presets-512x512", "whole video, --preset published"),
    ),
    "HJB, region, 512x512, than whole frames": (
        ("hjb-512x512", _HJB.format("bfloat16", "region")),
        ("hjb-512x512", _HJB.format("bfloat16", "whole frames")),
    ),
    "HJB, 512x512, than in torch": (
        ("hjb-512x512", _HJB.format("bfloat16", "whole frames")),
        ("torch-hjb-512x512", _HJB.format("bfloat16", "whole frames")),
    ),
    "training step, 512x512, than diffusers'": (
        ("training-512x512", "training step, encoded clips"),
        ("torch-training-512x512", "training step, encoded clips"),
    ),
}
"""How many times faster one figure is than another, by their medians in one run."""


def run_stage(name: str, *, tiny: bool, limit: float) -> Iterator[Row]:
    """A stage's rows as its process measures them; the last one says what went wrong, where something did."""
    command = [sys.executable, "-m", "benchmarks.report", "--stage", name, *["--tiny"] * tiny]
    late = threading.Event()
    with subprocess.Popen(command, stdout=subprocess.PIPE, text=True, cwd=ROOT, start_new_session=True) as process:

        def stop() -> None:
            with contextlib.suppress(ProcessLookupError):
                os.killpg(process.pid, signal.SIGKILL)  # compilers of torch's are processes of their own

        def stop_late() -> None:
            late.set()
            stop()

        timer = threading.Timer(limit, stop_late)
        timer.start()
        try:
            assert process.stdout is not None
            for line in process.stdout:
                yield json.loads(line)
            status = process.wait()
        finally:
            timer.cancel()
            stop()
    if late.is_set():
        yield {"error": f"stopped after {limit:.0f} s"}
    elif status:
        yield {"error": f"failed with exit status {status}"}


def measure_stage(name: str, *, tiny: bool) -> None:
    """What a stage's process does: print its rows, and nothing else, on stdout."""
    stage = STAGES[name]
    out = os.fdopen(os.dup(1), "w")
    os.dup2(2, 1)  # whatever libraries print goes to stderr
    if stage.needs != TORCH:  # torch's stages leave the device to torch
        from stableanimator_jax.runtime import keep_compiled_programs

        keep_compiled_programs()
    machine = import_module("benchmarks._torch_unet" if stage.needs == TORCH else "benchmarks._device").machine()
    module = import_module(f"benchmarks.{stage.module}")
    for row in module.measure(stage.case.made_tiny() if tiny else stage.case):
        print(json.dumps(row | {"machine": machine}), file=out, flush=True)


def rows_of(names: Sequence[str], *, tiny: bool, seconds: float) -> Generator[Row, None, None]:
    """The rows of stages one after another, none of them running longer than `seconds` from now."""
    end = time.monotonic() + seconds
    for name in names:
        stage = STAGES[name]
        missing = [package for package in stage.needs if importlib.util.find_spec(package) is None]
        left = end - time.monotonic()
        if missing:
            rows: Iterator[Row] = iter([{"error": f"not measured: {' and '.join(missing)} not installed"}])
        elif left <= 0:
            rows = iter([{"error": "not begun: the run's time was over"}])
        else:
            rows = run_stage(name, tiny=tiny, limit=min(stage.limit, left))
        for row in rows:
            yield {"stage": name} | row


def commit() -> str:
    """Of the tree that this file is in; "unknown" where it is no repository."""
    try:
        command = ["git", "describe", "--always", "--dirty", "--exclude=*"]
        done = subprocess.run(command, cwd=ROOT, capture_output=True, text=True)
    except FileNotFoundError:
        return "unknown"
    return done.stdout.strip() or "unknown"


def versions() -> str:
    found = [f"Python {platform.python_version()}"]
    for package in PACKAGES:
        with contextlib.suppress(importlib.metadata.PackageNotFoundError):
            found.append(f"{package} {importlib.metadata.version(package)}")
    return ", ".join(found)


def tables(rows: Sequence[Row]) -> str:
    """Markdown: of each run its figures, and how they compare."""
    runs: dict[str, list[Row]] = {}
    for row in rows:
        runs.setdefault(row["run"], []).append(row)
    return "\n\n".join(map(_run_table, runs.values()))


def _run_table(rows: Sequence[Row]) -> str:
    machine = next((row["machine"] for row in rows if "machine" in row), "unknown")
    lines = [
        f"{machine}; {rows[0]['versions']}; commit {rows[0]['commit']}. `{rows[0]['command']}`",
        "",
        "| stage | what | seconds (least to most) | TFLOP | share of the matrix rate | memory |",
        "|---|---|---|---|---|---|",
        *map(_line, rows),
    ]
    known = {(row["stage"], row["what"]): statistics.median(row["seconds"]) for row in rows if "seconds" in row}
    ratios = [
        f"| {what} | {known[slower] / known[faster]:.2f} |"
        for what, (faster, slower) in RATIOS.items()
        if faster in known and slower in known
    ]
    if ratios:
        lines += ["", "| by the medians | times as fast |", "|---|---|", *ratios]
    return "\n".join(lines)


def _line(row: Row) -> str:
    if "error" in row:
        return f"| {row['stage']} | {row['error']} | | | | |"
    what = row["what"]
    if "dtype" in row and row["dtype"] not in what:
        what += f", {row['dtype']}"
    seconds = share = flop = memory = ""
    if "seconds" in row:
        times = row["seconds"]
        median = statistics.median(times)
        seconds = f"{median:.4g}" + (f" ({min(times):.4g} to {max(times):.4g})" if len(times) > 1 else "")
        if "flop" in row:
            flop = f"{row['flop'] / 1e12:.3g}"
            share = f"{row['flop'] / median / row['rate']:.1%} of {row['rate'] / 1e12:.3g} TFLOP/s"
    if "temporaries" in row:
        memory = f"{row['arguments'] / 1e9:.2f} GB and {row['temporaries'] / 1e9:.2f} GB of temporaries"
    elif "peak" in row:
        memory = f"peak {row['peak'] / 1e9:.2f} GB"
    return f"| {row['stage']} | {what} | {seconds} | {flop} | {share} | {memory} |"


def read_rows(path: Path) -> list[Row]:
    """Of a file that a run wrote; a last line that it was cut off in is left out."""
    lines = path.read_text().splitlines(keepends=True)
    return [json.loads(line) for line in lines if line.endswith("\n") and line.strip()]


def main(argv: Sequence[str]) -> int:
    parser = argparse.ArgumentParser(prog="report.py", description=(__doc__ or "").splitlines()[0])
    parser.add_argument("--out", type=Path, default=Path("report.jsonl"), help="file that rows are appended to")
    parser.add_argument("--only", nargs="+", choices=STAGES, metavar="STAGE", help=f"of {', '.join(STAGES)}")
    parser.add_argument("--tiny", action="store_true", help="tiny models and sizes, for a CPU")
    parser.add_argument("--minutes", type=float, default=13, help="that the whole run may take")
    parser.add_argument("--commit", default=commit(), help="what is measured, where the tree is no repository")
    parser.add_argument("--table", type=Path, metavar="FILE", help="measure nothing: print the tables of such a file")
    parser.add_argument("--stage", choices=STAGES, help=argparse.SUPPRESS)  # what `run_stage` starts
    options = parser.parse_args(argv)
    if options.stage:
        measure_stage(options.stage, tiny=options.tiny)
        return 0
    path = options.table or options.out
    try:
        if options.table:
            print(tables(read_rows(path)))
            return 0
        run = {
            "run": time.strftime("%Y-%m-%dT%H:%M:%SZ", time.gmtime()),
            "command": f"python -m benchmarks.report {shlex.join(argv)}".rstrip(),
            "commit": options.commit,
            "versions": versions(),
        }
        failed = False
        names = options.only or (KINDS if options.tiny else list(STAGES))
        rows = rows_of(names, tiny=options.tiny, seconds=60 * options.minutes)
        with path.open("a") as file, contextlib.closing(rows), interruptible():
            for row in rows:
                failed |= "error" in row
                file.write(json.dumps(run | row) + "\n")
                file.flush()
                print(_line(row), flush=True)
        return int(failed)
    except OSError as e:
        parser.error(f"cannot use {path}: {e.strerror}")
    except KeyboardInterrupt:  # or SIGTERM: the stage's process went with it
        return 130


if __name__ == "__main__":
    raise SystemExit(main(sys.argv[1:]))
