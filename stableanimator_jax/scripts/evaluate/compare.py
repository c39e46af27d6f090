"""Results beside each other, and whether they differ: by the videos that both have, pair by pair."""

import sys
from pathlib import Path

import numpy as np

from stableanimator_jax.commands import called
from stableanimator_jax.errors import InputError
from stableanimator_jax.evaluation.measures import METRICS, Measured
from stableanimator_jax.evaluation.protocol import protocol_named
from stableanimator_jax.evaluation.statistics import mean_interval
from stableanimator_jax.evaluation.summary import merge_tables, require_comparable
from stableanimator_jax.files import replacing
from stableanimator_jax.scripts.evaluate.report import Result, read_result
from stableanimator_jax.scripts.evaluate.settings import CompareConfig
from stableanimator_jax.scripts.evaluate.tables import arrow, row

Videos = dict[str, Measured]


def compare(config: CompareConfig) -> None:
    """Print the tables, and write them where that is asked for.

    Raises:
        InputError: fewer than two results, or such as cannot stand in one table.
    """
    if len(config.results) < 2:
        raise InputError(f"give two results or more: {called('evaluate')} compare RESULT RESULT")
    names = _names(config.results)
    read = {name: read_result(place) for name, place in zip(names, config.results, strict=True)}
    summaries = {name: result.summary for name, result in read.items()}
    first, *others = names
    for note in [*require_comparable(summaries), *_other_settings(read, first)]:
        print(f"warning: {note}", file=sys.stderr)
    tables = merge_tables(summaries)
    lines = [
        f"Protocol {summaries[first].protocol}; 95 % intervals over videos.",
        "",
        f"| metric | {' | '.join(names)} |",
        "|---" * (len(names) + 1) + "|",
    ]
    for metric, estimates in tables.items():
        cells = []
        for name in names:
            value, interval, *_ = row(metric, estimates[name]) if name in estimates else ("", "")
            cells.append(f"{value} [{interval}]" if interval else value)
        lines.append(f"| {METRICS[metric].title}{arrow(metric)} | {' | '.join(cells)} |")
    frames = protocol_named(summaries[first].protocol).mean_over == "frames"
    lines += ["", f"Less {first}, over the videos that both have; bold where the interval leaves out 0:", ""]
    differences = []
    for metric in tables:
        cells = [_difference(metric, read[other].videos, read[first].videos, by_frames=frames) for other in others]
        if any(cells):
            differences.append(f"| {METRICS[metric].title}{arrow(metric)} | {' | '.join(cells)} |")
    head = [f"| metric | {' | '.join(others)} |", "|---" * (len(others) + 1) + "|"]
    lines += [*head, *differences] if differences else ["They have no video in common."]
    print("\n".join(lines))
    if config.output is not None:
        with replacing(config.output) as path:
            path.write_text("\n".join(lines) + "\n", encoding="utf-8")


def _other_settings(read: dict[str, Result], first: str) -> list[str]:
    """Warnings of results that were measured by other settings, such as another frame for the reference."""
    ours = read[first].settings
    notes = []
    for name, (_, _, theirs) in read.items():
        if differing := [k for k in sorted({*ours, *theirs}) if ours.get(k) != theirs.get(k)]:
            said = ", ".join(f"{k}: {ours.get(k)} and {theirs.get(k)}" for k in differing)
            notes.append(f"{first} and {name} differ in settings ({said}): compare with care")
    return notes


def _names(results: tuple[Path, ...]) -> list[str]:
    """As short as tells them apart."""
    folders = [place.parent if place.name == "result.json" else place for place in results]
    short = [folder.name for folder in folders]
    return short if len(set(short)) == len(short) else [str(place) for place in results]


def _difference(metric: str, ours: Videos, theirs: Videos, *, by_frames: bool) -> str:
    """The mean of the videos' differences with its interval; "" where no video has both."""
    both = [
        name
        for name in sorted(ours.keys() & theirs.keys())
        if all(videos[name].scores.get(metric) is not None for videos in (ours, theirs))
    ]
    if not both:
        return ""
    values = np.array([ours[name].scores[metric] - theirs[name].scores[metric] for name in both])
    weights = np.array([ours[name].length if by_frames else 1 for name in both], np.float64)
    digits = METRICS[metric].digits
    text = f"{values @ weights / weights.sum():+.{digits}f}"
    interval = mean_interval(values, weights)
    if interval is None or not np.isfinite(interval).all():
        return f"{text} ({len(both)} video{'s' * (len(both) > 1)})"
    text += f" [{interval.low:+.{digits}f}, {interval.high:+.{digits}f}]"
    return f"**{text}**" if interval.low > 0 or interval.high < 0 else text
