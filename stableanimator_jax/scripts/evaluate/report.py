"""What an evaluation leaves: result.json with everything, a table for spreadsheets, one for people, and a page."""

import csv
import io
import json
import math
from datetime import UTC, datetime
from pathlib import Path
from typing import Any, NamedTuple

from stableanimator_jax.config import read_json
from stableanimator_jax.errors import InputError, printable
from stableanimator_jax.evaluation.measures import METRICS, Measured
from stableanimator_jax.evaluation.protocol import protocol_named
from stableanimator_jax.evaluation.summary import Summary, summarise
from stableanimator_jax.files import replacing
from stableanimator_jax.provenance import versions
from stableanimator_jax.scripts.evaluate.page import page
from stableanimator_jax.scripts.evaluate.tables import Report, grouped_notes, outliers, table
from stableanimator_jax.scripts.evaluate.work import Found

FORMAT = "stableanimator-jax evaluation"


def write_results(report: Report, output: Path, worst: int) -> list[str]:
    """Write the files; gives what to print: the table, and what stands out."""
    found = report.found
    protocol = protocol_named(report.protocol)
    summary = summarise(found.videos, found.totals, protocol, weights=report.evaluation.weights, decoder=report.decoder)
    odd = outliers(found.videos)
    output.mkdir(parents=True, exist_ok=True)
    texts = {
        "result.json": _json(report, summary, odd),
        "result.csv": printable(_csv(found)),
        "result.md": printable(_markdown(report, summary, odd)),
        "report.html": printable(page(report, summary, odd, worst)),
    }
    for name, text in texts.items():
        with replacing(output / name) as path:
            path.write_text(text, encoding="utf-8", errors="backslashreplace")  # as JSON has what is no UTF-8
    said = [f"{printable(name)}: {text}" for name, texts in found.suspicions.items() for text in texts]
    return [
        *table(summary),
        *[f"stands out: {line}" for line in said[:10]],
        *[f"stands out: {line}" for line in odd[:10]],
    ]


class Result(NamedTuple):
    """What is read of a result."""

    summary: Summary
    videos: dict[str, Measured]
    """By name, without curves and features."""
    settings: dict[str, Any]
    """What else changes what is measured."""


def read_result(place: Path) -> Result:
    """Raises `InputError` where it is none."""
    path = place / "result.json" if place.is_dir() else place
    if not path.is_file():
        raise InputError(f"{place} holds no result: there is no {path.name}; an evaluation writes it when it ends")
    data = read_json(path)
    if not isinstance(data, dict) or data.get("format") != FORMAT:
        raise InputError(f"{path} is not the result of an evaluation")
    try:
        videos = {
            video["name"]: Measured.of_plain({k: v for k, v in video.items() if k != "suspicions"} | {"frames": {}})
            for video in data["videos"]
        }
        return Result(Summary.of_plain(data["summary"]), videos, dict(data["settings"]))
    except (InputError, KeyError, TypeError, ValueError, AttributeError) as e:
        raise InputError(f"{path} is damaged: {e}") from e


def _json(report: Report, summary: Summary, odd: list[str]) -> str:
    found = report.found
    videos = [
        {key: value for key, value in video.plain().items() if key != "frames"}
        | {"suspicions": found.suspicions.get(video.name, [])}
        for video in found.videos
    ]
    data = {
        "format": FORMAT,
        "finished": datetime.now(UTC).isoformat(timespec="seconds"),
        "command": report.command,
        "shard": report.shard,
        "versions": versions(),
        "summary": summary.plain(),
        "sampled": report.evaluation.sampled,
        "settings": report.evaluation.settings,
        "failed": found.failed,
        "notes": found.notes,
        "outliers": odd,
        "videos": videos,
    }
    return json.dumps(_finite(data), indent=1, allow_nan=False, ensure_ascii=False) + "\n"


def _finite(data: Any) -> Any:
    """JSON has no NaN: null."""
    if isinstance(data, dict):
        return {key: _finite(value) for key, value in data.items()}
    if isinstance(data, list | tuple):
        return [_finite(value) for value in data]
    return None if isinstance(data, float) and not math.isfinite(data) else data


def _csv(found: Found) -> str:
    names = [name for name in METRICS if any(name in video.scores for video in found.videos)]
    file = io.StringIO()
    writer = csv.writer(file, lineterminator="\n")
    writer.writerow(["name", "frames", "width", "height", *names, "suspicions", "failed"])
    for video in found.videos:
        scores = ["" if (v := video.scores.get(name)) is None else f"{v:.8g}" for name in names]
        said = "; ".join(found.suspicions.get(video.name, []))
        writer.writerow([video.name, video.length, *video.size, *scores, said, ""])
    for name, reason in found.failed.items():
        writer.writerow([name, *[""] * (len(names) + 4), reason])
    return file.getvalue()


def _markdown(report: Report, summary: Summary, odd: list[str]) -> str:
    found = report.found
    frames = sum(summary.frames.values())
    parts = [
        f"# Evaluation by the protocol {summary.protocol}",
        f"{len(found.videos)} videos, {frames} frames"
        + (f"; {len(found.failed)} could not be measured" if found.failed else "")
        + (f"; shard {report.shard}" if report.shard != "1/1" else "")
        + ".",
        "\n".join(table(summary)),
        "Values in brackets are no headline: the last column says why. Truth: what the true videos get themselves; "
        "baseline: what needs no animation, a still picture or another person's face.",
    ]
    suspicions = [f"{name}: {text}" for name, texts in found.suspicions.items() for text in texts]
    for title, lines in (
        ("What stands out", [*suspicions, *odd]),
        ("Not measured", [f"{name}: {reason}" for name, reason in found.failed.items()]),
        ("Notes", grouped_notes(found)),
        ("Protocol", [f"{title}: {words}" for title, words in summary.choices.items()]),
        ("Weights (SHA-256)", [f"{name}: {digest}" for name, digest in summary.weights.items()] or ["none"]),
        ("Made by", [f"decoder: {summary.decoder}", f"command: {' '.join(report.command)}"]),
    ):
        if lines:
            parts.append(f"## {title}\n\n" + "\n".join(f"- {line}" for line in lines))
    return "\n\n".join(parts) + "\n"
