"""Evaluations of the same pairs beside each other: a table of paired differences, and a picture of a few people."""

import json
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import numpy as np
from PIL import Image

from examples.drawn_world.ablation_report import difference_cell
from examples.drawn_world.ablation_sheet import draw_sheet
from examples.drawn_world.ablations import VIDEOS, EvaluationConfig
from examples.drawn_world.intervals import draw_pairs, mean
from examples.drawn_world.metrics import METRICS
from examples.drawn_world.pairs import draw_pair, unseen_pairs
from examples.drawn_world.study import Condition, Measured, Study, make_videos
from stableanimator_jax.config import from_dict
from stableanimator_jax.errors import InputError
from stableanimator_jax.files import replacing
from stableanimator_jax.sampling.pipeline import Animator

_SAME = ("pairs", "first_pair", "frames", "stride", "size")


@dataclass(frozen=True)
class CompareConfig:
    """What is compared."""

    work: tuple[Path, ...] = ()
    """Folders that `evaluate --work` left, of the same pairs. The others are compared with the first."""
    people: int = 4
    """On the picture: the first ones."""
    picture: Path | None = None
    """A PNG to write."""
    resamples: int = 2000
    """Of the pairs, for the confidence intervals."""

    def __post_init__(self):
        if self.people < 1 or self.resamples < 100:
            raise InputError("--people must be at least 1, --resamples at least 100")


def compare(config: CompareConfig) -> None:
    """Print the table, and write the picture."""
    if len(config.work) < 2:
        raise InputError("--work needs two folders or more")
    results = {folder.name: _read(folder) for folder in config.work}
    judges = {name: judges for name, (_, _, judges) in results.items()}
    if len(results) < len(config.work):
        raise InputError("--work has two folders of one name, which the table could not tell apart")
    scores = {name: measured for name, (_, measured, _) in results.items()}
    measures = [metric for metric in METRICS if not metric.endswith("_chance")]  # those are no measures of quality
    shown = [metric for metric in measures if all(isinstance(score.get(metric), list) for score in scores.values())]
    first, *others = results
    for name in others:
        ours, theirs = (vars(results[which][0]) for which in (name, first))
        if different := [key for key in _SAME if ours[key] != theirs[key]]:
            raise InputError(f"{name} and {first} differ in --{different[0].replace('_', '-')}")
        if different := [m for m in shown if judges[name].get(m) != judges[first].get(m)]:
            raise InputError(f"{METRICS[different[0]].title} of {name} and of {first} is by different networks")
    drawn = draw_pairs(results[first][0].pairs, config.resamples)
    print(f"| less {first} | " + " | ".join(METRICS[metric].title for metric in shown) + " |")
    print("|---" * (len(shown) + 1) + "|")
    for name in others:
        cells = []
        for metric in shown:
            ours, theirs = (mean(np.array(scores[which][metric]), drawn) for which in (name, first))
            cells.append(difference_cell(ours - theirs, METRICS[metric].digits))
        print(f"| {name} | " + " | ".join(cells) + " |")
    if config.picture is not None:
        with replacing(config.picture) as temporary:
            draw_people(config, [settings for settings, _, _ in results.values()]).save(temporary, format="PNG")


def draw_people(config: CompareConfig, evaluations: Sequence[EvaluationConfig]) -> Image.Image:
    """References, true frames, and what each evaluation made of them, from the videos that it kept."""
    first = evaluations[0]
    pairs = [
        draw_pair(pair, frames=first.frames, stride=first.stride, size=first.size)
        for pair in unseen_pairs(min(config.people, first.pairs), first.first_pair)
    ]
    measured = {}
    for folder, settings in zip(config.work, evaluations, strict=True):
        condition = Condition(VIDEOS, folder.name, settings.checkpoint, settings.hjb.adam_iterations)
        videos, seconds = make_videos(condition, _no_animator, pairs, replace(settings, work=folder))
        measured[folder.name] = Measured({}, np.zeros(0, np.float32), videos, seconds)
    conditions = {name: Condition(name, name, first.checkpoint, 0) for name in measured}
    return draw_sheet(Study(pairs, conditions, measured, {}, {}), list(measured), len(pairs))


def _no_animator(checkpoint: str) -> Animator:
    raise InputError(f"videos of {checkpoint} are not among the files any more: run `evaluate` again")


def _read(folder: Path) -> tuple[EvaluationConfig, Mapping[str, Any], Mapping[str, str]]:
    """What an evaluation was told, its scores of every pair, and the judges of those."""
    paths = {"work": str(folder), "second_arcface": None, "glasses": None}  # wherever they were
    try:
        result = json.loads((folder / "results.json").read_text())
        settings, measured, judges = result["settings"] | paths, result["conditions"][VIDEOS], dict(result["judges"])
    except (OSError, ValueError, KeyError, TypeError) as e:
        raise InputError(f"{folder} holds no results.json as `evaluate --work` writes it ({e}): run that again") from e
    told = from_dict(EvaluationConfig, settings, f"{folder}/results.json")
    if short := [name for name, scores in measured.items() if isinstance(scores, list) and len(scores) != told.pairs]:
        raise InputError(
            f"{folder}/results.json has not one {short[0]} for each of {told.pairs} pairs: run `evaluate` again"
        )
    return told, measured, judges
