"""What a result says, in words and rows: for the terminal, the Markdown table and the page alike."""

import math
from dataclasses import dataclass

import numpy as np

from stableanimator_jax.evaluation.measures import METRICS, Measured
from stableanimator_jax.evaluation.summary import Estimate, Summary
from stableanimator_jax.scripts.evaluate.work import Evaluation, Found


@dataclass(frozen=True)
class Report:
    """All that a result says."""

    protocol: str
    evaluation: Evaluation
    found: Found
    decoder: str
    command: list[str]
    shard: str


def outliers(videos: list[Measured]) -> list[str]:
    """Videos that are far worse in some measure than the others; of fewer than 5 nobody can tell."""
    said: dict[str, list[str]] = {}
    for name, metric in METRICS.items():
        having = [video for video in videos if np.isfinite(video.scores.get(name, np.nan))]
        if metric.higher_is_better is None or len(having) < 5:
            continue
        values = np.array([video.scores[name] for video in having])
        worse = -values if metric.higher_is_better else values
        middle = float(np.median(worse))
        spread = 1.4826 * float(np.median(np.abs(worse - middle)))
        for i in np.flatnonzero(worse > middle + max(5 * spread, 1e-9 + 0.2 * abs(middle))):
            usual = -middle if metric.higher_is_better else middle
            text = f"{metric.title} {values[i]:.{metric.digits}f} (median {usual:.{metric.digits}f})"
            said.setdefault(having[i].name, []).append(text)
    return [f"{name}: far worse than the others in {', '.join(texts)}" for name, texts in said.items()]


def table(summary: Summary) -> list[str]:
    """The metrics as a Markdown table."""
    lines = [
        "| metric | value | 95 % interval | videos | clips | truth | baseline | |",
        "|---|---|---|---|---|---|---|---|",
    ]
    for name, estimate in summary.metrics.items():
        cells = [METRICS[name].title + arrow(name), *row(name, estimate)]
        lines.append(f"| {' | '.join(cells)} |")
    return lines


def row(name: str, estimate: Estimate) -> list[str]:
    """Value, interval, videos, clips, truth, baseline and remarks, as text."""
    digits = METRICS[name].digits

    def shown(value: float | None) -> str:
        return (
            "" if value is None or not math.isfinite(value) else f"{value:z.{digits}f}"
        )  # a distance of nothing may be -1e-9

    value, interval = shown(estimate.value), estimate.interval
    clips = "" if estimate.clips is None else str(estimate.clips)
    if estimate.effective is not None:
        clips += f" (worth {estimate.effective:.0f})"
    remarks = [] if estimate.headline else [estimate.reason]
    if estimate.bias is not None:
        remarks.append(f"bias about {shown(estimate.bias)}")
    if estimate.extrapolated is not None:
        remarks.append(f"with endlessly many videos about {shown(estimate.extrapolated)}")
    return [
        f"({value})" if value and not estimate.headline else value,
        "" if interval is None else f"{shown(interval.low) or '-∞'} to {shown(interval.high) or '∞'}",
        str(estimate.videos),
        clips,
        shown(estimate.truth),
        shown(estimate.baseline),
        "; ".join(remarks),
    ]


def arrow(name: str) -> str:
    """Which way is better."""
    return {True: " ↑", False: " ↓", None: ""}[METRICS[name].higher_is_better]


def grouped_notes(found: Found) -> list[str]:
    """What has to be known, each thing once with the number of videos that it is true of."""
    counts: dict[str, list[str]] = {}
    for video in found.videos:
        for note in video.notes:
            counts.setdefault(note, []).append(video.name)
    total = len(found.videos)
    said = [
        note
        if len(names) == total
        else f"{note} ({', '.join(names[:3])}{f' and {len(names) - 3} more' if len(names) > 3 else ''})"
        for note, names in counts.items()
    ]
    return [*found.notes, *said]
