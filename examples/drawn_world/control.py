"""What each control of docs/control.md does to videos of unseen people, one after the other, as a table."""

from collections.abc import Mapping
from dataclasses import dataclass, field, fields, replace
from pathlib import Path
from types import MappingProxyType
from typing import NamedTuple

from examples.drawn_world.intervals import Estimate, draw_pairs, mean
from examples.drawn_world.metrics import METRICS
from examples.drawn_world.pairs import draw_pair
from examples.drawn_world.settings import make_folder
from examples.drawn_world.study import (
    SAMPLING,
    Condition,
    MeasureConfig,
    OneAnimator,
    StudyConfig,
    draw_study,
    load_judges,
    make_videos,
    measure,
    measure_truth,
)
from stableanimator_jax.perception.skeleton import DWPOSE_STYLE, SkeletonStyle
from stableanimator_jax.sampling.config import SamplingConfig, Strength
from stableanimator_jax.shipped import EMBEDDED

_SHOWN = ("csim", "skin_iou", "person_iou", "psnr")


class _Setting(NamedTuple):
    strengths: Mapping[str, Strength] = MappingProxyType({})
    style: SkeletonStyle = DWPOSE_STYLE


_SETTINGS: dict[str, _Setting] = {
    "published": _Setting(),
    **{f"`--pose.strength {s:g}`": _Setting({"pose": Strength(s)}) for s in (0, 0.5, 0.8, 1.2, 1.5)},
    "`--pose.start 0.2`": _Setting({"pose": Strength(start=0.2)}),
    **{f"`--pose.end {s:g}`": _Setting({"pose": Strength(end=s)}) for s in (0.8, 0.4)},
    **{f"`--face.strength {s:g}`": _Setting({"face": Strength(s)}) for s in (0, 0.5, 1.5, 2)},
    **{f"`--image.strength {s:g}`": _Setting({"image": Strength(s)}) for s in (0, 0.5, 1.5)},
    "`--face-keypoints faint`": _Setting(style=SkeletonStyle(face_keypoints="faint")),
    "`--face-keypoints off`": _Setting(style=SkeletonStyle(face_keypoints="off")),
    "`--hands off`": _Setting(style=SkeletonStyle(hands="off")),
}
"""By what is written in the table; the first one is what the others are compared with."""


@dataclass(frozen=True)
class ControlConfig(MeasureConfig):
    """Whose videos, and how they are sampled beside the control."""

    checkpoint: str = EMBEDDED
    """A checkpoint directory, or "embedded" for the one in this package."""
    pairs: int = 8
    """Of an unseen person and an unseen motion."""
    first_pair: int = 2000
    """Its number."""
    sampling: SamplingConfig = field(default_factory=lambda: replace(SAMPLING, steps=5))
    """The first pair is sampled with its seed, each other one with the next."""
    work: Path = Path("outputs/drawn_world/control")
    """Where videos are kept."""


def control(config: ControlConfig) -> None:
    """Make the videos that are not there yet, and print means, and differences to the first row, pair by pair.

    Raises:
        InputError: the checkpoint or a setting cannot be used.
    """
    make_folder(config.work)
    judges, animator_of, pairs = load_judges(config.checkpoint, config), OneAnimator(), draw_study(config)
    _, _, references = measure_truth(judges, pairs)
    drawn = draw_pairs(config.pairs, config.resamples)
    measured = {f.name: getattr(config, f.name) for f in fields(MeasureConfig)}
    first: dict[str, Estimate] = {}
    print("| | " + " | ".join(METRICS[name].title for name in _SHOWN) + " |\n" + "|---" * (len(_SHOWN) + 1) + "|")
    for title, (strengths, style) in _SETTINGS.items():
        styled = pairs
        if style != DWPOSE_STYLE:
            shape = {"frames": config.frames, "stride": config.stride, "size": config.size}
            styled = [draw_pair(pair.pair, **shape, style=style) for pair in pairs]
        settings = StudyConfig(**measured, sampling=replace(config.sampling, **strengths), work=config.work)
        condition = Condition("videos", title, config.checkpoint, 0)
        videos, seconds = make_videos(condition, animator_of, styled, settings)
        scores = measure(judges, pairs, references, videos, seconds, title).scores
        found = {name: mean(scores[name], drawn) for name in _SHOWN}
        cells = [f"{found[name].value:.{METRICS[name].digits}f}" for name in _SHOWN]
        if first:
            for i, name in enumerate(_SHOWN):
                difference, digits = found[name] - first[name], METRICS[name].digits
                text = f"{difference.value:+.{digits}f}"
                cells[i] += f" ({text})" if difference.verdict == "open" else f" (**{text}**)"
        first = first or found
        print(f"| {title} | " + " | ".join(cells) + " |", flush=True)
