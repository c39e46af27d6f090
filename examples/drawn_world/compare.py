"""Evaluations of the same pairs beside each other: a table of paired differences, and a picture of a few people."""

import json
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from PIL import Image

from examples.drawn_world.ablation_sheet import draw_sheet
from examples.drawn_world.intervals import draw_pairs, mean
from examples.drawn_world.pairs import draw_pair, unseen_pairs
from examples.drawn_world.study import Condition, Measured, Study
from stableanimator_jax.errors import InputError
from stableanimator_jax.files import replacing

METRICS = {"csim": "CSIM", "csim_second": "CSIM, second ArcFace", "psnr": "PSNR, dB", "ssim": "SSIM"}
_SAME = ("pairs", "first_pair", "frames", "stride", "size", "checkpoint")


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
    first, *others = results
    for name in others:
        if different := [key for key in _SAME if results[name]["settings"][key] != results[first]["settings"][key]]:
            raise InputError(f"{name} and {first} differ in --{different[0].replace('_', '-')}")
    drawn = draw_pairs(len(results[first]["pairs"]), config.resamples)
    scores = {name: result["conditions"]["videos"] for name, result in results.items()}
    shown = [metric for metric in METRICS if all(metric in score for score in scores.values())]
    print(f"| less {first} | " + " | ".join(METRICS[metric] for metric in shown) + " |")
    print("|---" * (len(shown) + 1) + "|")
    for name in others:
        cells = []
        for metric in shown:
            ours, theirs = (mean(np.array(scores[which][metric]), drawn) for which in (name, first))
            difference = ours - theirs
            low, high = difference.interval
            text = f"{difference.value:+.3f} [{low:+.3f}, {high:+.3f}]"
            cells.append(text if difference.verdict == "open" else f"**{text}**")
        print(f"| {name} | " + " | ".join(cells) + " |")
    if config.picture is not None:
        with replacing(config.picture) as temporary:
            draw_people(results, config).save(temporary, format="PNG")


def draw_people(results: Mapping[str, Any], config: CompareConfig) -> Image.Image:
    """References, true frames, and what each evaluation made of them."""
    settings = next(iter(results.values()))["settings"]
    pairs = [
        draw_pair(pair, frames=settings["frames"], stride=settings["stride"], size=settings["size"])
        for pair in unseen_pairs(min(config.people, settings["pairs"]), settings["first_pair"])
    ]
    measured = {}
    for folder in config.work:
        videos = []
        for number in range(len(pairs)):
            newest = max((folder / "videos").glob(f"{number:04}-*.png"), key=lambda file: file.stat().st_mtime)
            with Image.open(newest) as strip:
                videos.append(np.stack(np.split(np.asarray(strip), strip.width // settings["size"], axis=1)))
        measured[folder.name] = Measured({}, np.zeros(0, np.float32), np.stack(videos), np.zeros(0))
    conditions = {name: Condition(name, name, "", 0) for name in measured}
    return draw_sheet(Study(pairs, conditions, measured, {}, {}), list(measured), len(pairs))


def _read(folder: Path) -> dict[str, Any]:
    try:
        return json.loads((folder / "results.json").read_text())
    except (OSError, json.JSONDecodeError) as e:
        raise InputError(f"{folder} holds no results.json of `evaluate --work`: {e}") from e
