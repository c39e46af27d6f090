"""The ablations' report: tables, and of each of the paper's claims whether it holds, all out of the numbers."""

import os
import textwrap
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

import jax

from examples.drawn_world.intervals import COMPONENTS, Estimate, Verdict
from examples.drawn_world.metrics import METRICS
from examples.drawn_world.study import Study, StudyConfig
from stableanimator_jax.files import replacing
from stableanimator_jax.provenance import versions
from stableanimator_jax.weights.checkpoint import describe

if TYPE_CHECKING:
    from examples.drawn_world.ablations import AblationConfig

Estimates = Mapping[str, Mapping[str, Estimate]]

_INTRODUCTION = """\
# Ablations

What each part of StableAnimator is good for, asked where a small machine can answer: in the
drawn world (`examples/drawn_world`), with models that were trained on drawn people. This file is written by

```bash
{command}
```

out of the checkpoints whose training is described there; tables and verdicts change with the numbers. Videos are kept
in its `--work` folder, so a run that was stopped goes on; all pairs' numbers are there in `results.json`.

There are {pairs} pairs, each of a person and a motion that nobody trained on. The reference is a frame of the person in
another motion before the same wall. Besides, the model is given the driving motion's skeletons, drawn from keypoints as
a user's are, and ArcFace's embedding of the reference's face; the face optimisation also where the true frames' faces
are. The truth is the same person drawn in the driving motion. Videos have {frames} frames of {size}x{size}, {apart};
{steps} steps, windows of {window} frames, guidance {guidance}. A pair's noise is the same under every condition.

- **CSIM**: the cosine of the embeddings of a made face, cut out by the truth's box, and of the reference's. The model
  is told the first ArcFace's, and the face optimisation climbs it; the **second ArcFace** was trained apart.
- **PSNR**, **SSIM**, **L1** (of values from 0 to 1) against the truth, as the evaluator's `standard` protocol has
  them; PSNR inside the face's box too.
- **Fréchet distance** of Gaussians fitted, as for FID, to the embeddings of all frames by the model's image encoder, in
  the first {components} principal components of the true ones'.
- **Flicker of the wall**: the mean change from one frame to the next, in levels of 255, where neither of the two true
  frames shows the person. The truth has none.
- **IoU** of the skin and of the whole person in made and true frames, where each pixel is what it is nearest to in
  colour: skin, hair, shirt, or the wall there. Beside it, by chance: with the same person's truth half the video later.

In brackets are 95 % confidence intervals, by {resamples} bootstrap resamples of the pairs. They say what other people
and motions would change, and not what another training would, with other seeds: there is one of each condition."""

_RULE = """\
The paper has each part to keep the face. Whether it makes videos better as well is asked beside that.

A claim holds where the 95 % interval of the paired difference lies on its side of zero, and the opposite where it lies
on the other side; else these pairs cannot tell the two apart. Faces are judged by CSIM (by the second ArcFace where
there is one), videos by SSIM. Each is one of a dozen questions: of those with no effect at all, one in forty would
seem to hold. The Fréchet distance decides nothing: of so few people it is too large, and not equally for all."""

_WORDS: dict[Verdict, str] = {
    "higher": "holds here",
    "lower": "the opposite holds here",
    "open": "the two cannot be told apart",
}


@dataclass(frozen=True)
class Claim:
    """That one condition is better than another."""

    says: str
    better: str
    worse: str
    metric: str
    """`face` for CSIM by the best judge that there is."""


_COMPONENT_CLAIMS = tuple(
    Claim(f"{part} {what}", "full", other, metric)
    for part, other in (
        ("Weighting the loss inside the face masks", "no_masks"),
        ("Refining the face tokens by the reference's content", "no_refinement"),
        ("Aligning the face's features in distribution, against plain addition,", "addition"),
        ("Telling the model the face by ID tokens at all", "no_id"),
    )
    for what, metric in (("makes faces more like the reference's", "face"), ("makes videos better", "ssim"))
)


def claims(names: Iterable[str]) -> list[Claim]:
    """The paper's claims that these conditions can decide."""
    there = list(names)
    hjb = [name for name in there if name.startswith("hjb_")]
    optimised = [
        Claim(f"The face optimisation, {name.removeprefix('hjb_')} iterations, {what}", name, "full", metric)
        for name in hjb
        for what, metric in (("makes faces more like the reference's", "face"), ("makes videos better", "ssim"))
    ]
    return [c for c in (*_COMPONENT_CLAIMS, *optimised) if c.better in there and c.worse in there]


def verdict(claim: Claim, estimates: Estimates) -> tuple[Verdict, str]:
    """What the numbers say about a claim: "higher" where it holds, and a sentence."""
    metric = claim.metric
    if metric == "face":
        metric = "csim_second" if "csim_second" in estimates[claim.better] else "csim"
    shown = METRICS[metric]
    title, higher_is_better, digits = shown.title, shown.higher_is_better, shown.digits
    one, other = estimates[claim.better][metric], estimates[claim.worse][metric]
    difference = one - other
    found = (difference if higher_is_better else other - one).verdict
    numbers = f"{one.value:.{digits}f} against {other.value:.{digits}f}, a difference of {_signed(difference, digits)}"
    return found, f"{claim.says}: **{_WORDS[found]}**. {title} is {numbers}."


def write_report(study: Study, config: "AblationConfig", command: str) -> None:
    """Write `config.output`, Markdown."""
    names = list(study.measured)
    components, optimised = [n for n in names if not n.startswith("hjb_")], [n for n in names if n.startswith("hjb_")]
    if optimised:
        optimised = ["full", *optimised]
    sections = [
        _introduction(study, config, command),
        _section("Components", _components_text(), study, components),
        _section("Face optimisation", _optimisation_text(config), study, optimised) if optimised else "",
        _claims_section(study),
        _judges_section(study),
        _sheet_section(study, config),
        _machine_section(study),
    ]
    with replacing(config.output) as temporary:
        temporary.write_text("\n\n".join(part for part in sections if part) + "\n", encoding="utf-8")


def plain_table(study: Study, name: str) -> str:
    """One condition's measures, a line each, for a terminal."""
    found = study.estimates[name]
    lines = [
        f"{METRICS[metric].title:28} {_cell(found[metric], METRICS[metric].digits)}"
        for metric in METRICS
        if metric in found
    ]
    for metric in ("csim", "csim_second", "glasses"):
        if metric in study.truth:
            chance, truth = (_cell(study.estimates["truth"][f"{metric}{end}"], 3) for end in ("_chance", ""))
            lines += [f"{METRICS[metric].title}: the truth's own {truth}, somebody else's {chance}"]
    return "\n".join([*lines, f"seconds a video, median: {_median(study.measured[name].seconds):.1f}"])


def table(estimates: Estimates, titles: Mapping[str, str]) -> str:
    """Metrics by conditions, in Markdown, with intervals; then the paired differences to `full`, if that is there. What
    was not measured of a condition stays empty."""
    names = list(titles)
    metrics = [metric for metric in METRICS if any(metric in estimates[name] for name in names)]
    head = [_row(["", *titles.values()]), _row(["---"] * (len(names) + 1))]
    rows = [
        _row(
            [METRICS[m].title, *(_cell(estimates[n][m], METRICS[m].digits) if m in estimates[n] else "" for n in names)]
        )
        for m in metrics
    ]
    others = [name for name in names if name != "full"]
    if "full" not in titles or not others:
        return "\n".join(head + rows)
    quality = [metric for metric in metrics if not metric.endswith("_chance") and metric != "frechet"]
    against = [_row(["less full", *(titles[n] for n in others)]), _row(["---"] * (len(others) + 1))]
    against += [
        _row(
            [
                METRICS[m].title,
                *(difference_cell(estimates[n][m] - estimates["full"][m], METRICS[m].digits) for n in others),
            ]
        )
        for m in quality
    ]
    note = "The same less the full model, pair by pair; in bold where the interval leaves zero out:"
    return "\n".join([*head, *rows, "", note, "", *against])


def _introduction(study: Study, config: StudyConfig, command: str) -> str:
    sampling = config.sampling
    guidance = sorted({sampling.guidance_min, sampling.guidance_max})
    return _INTRODUCTION.format(
        command=command,
        pairs=len(study.pairs),
        frames=config.frames,
        size=config.size,
        apart="one after the other" if config.stride == 1 else f"every {_ordinal(config.stride)} of the motion",
        steps=sampling.steps,
        window=sampling.window,
        components=COMPONENTS,
        guidance=" to ".join(f"{scale:g}" for scale in guidance),
        resamples=config.resamples,
    )


def _components_text() -> str:
    return _wrapped(
        "Each condition is a training of its own. All begin from the UNet and PoseNet of a first run, which was of the "
        "full model, with a Face Encoder and ID adapters' keys and values that know nothing. So a condition has to "
        "unlearn what it leaves out: where the UNet has not, that favours the full model, and of what face masks do it "
        "shows only the last part. None of these uses the face optimisation (HJB 0 iterations)."
    )


def _optimisation_text(config: StudyConfig) -> str:
    steps = config.sampling.steps
    optimised = len(config.hjb.optimised_steps(steps))
    return f"The full model with the face optimisation, at {optimised} of {steps} denoising steps."


def _section(title: str, text: str, study: Study, names: Sequence[str]) -> str:
    titles = {n: "full, HJB 0" if n == "full" else study.conditions[n].title for n in names}
    return f"## {title}\n\n{text}\n\n{table(study.estimates, titles)}"


def _claims_section(study: Study) -> str:
    lines = [f"- {verdict(claim, study.estimates)[1]}" for claim in claims(study.measured)]
    if not lines:
        return ""
    return "## The paper's claims\n\n" + _RULE + "\n\n" + "\n".join(lines)


def _judges_section(study: Study) -> str:
    """What the figures would be at best and by chance."""
    lines, cosines = [], [metric for metric in ("csim", "csim_second") if metric in study.truth]
    for metric in cosines:
        truth, chance = (_cell(study.estimates["truth"][f"{metric}{end}"], 3) for end in ("", "_chance"))
        lines.append(
            f"{METRICS[metric].title} of the true frames to the reference: {truth}; of somebody else's: {chance}."
        )
    first = "full" if "full" in study.measured else next(iter(study.measured))
    found = study.estimates[first]
    for part in ("skin", "person"):
        right, chance = found[f"{part}_iou"], found[f"{part}_iou_chance"]
        follows = "they follow the poses" if (right - chance).verdict == "higher" else "no better than chance"
        lines.append(
            f"IoU of the {part} in frames by {study.conditions[first].title}: {right.value:.3f}, by chance "
            f"{chance.value:.3f}, a difference of {_signed(right - chance, 3)}: {follows}."
        )
    if {"full", "no_id"} <= set(study.measured):
        for metric in cosines:
            one, other = study.estimates["full"][metric], study.estimates["no_id"][metric]
            touch = "overlap" if one.overlaps(other) else "do not overlap"
            lines.append(
                f"{METRICS[metric].title} with all parts and without ID tokens: {_cell(one, 3)} and {_cell(other, 3)}; "
                f"the intervals {touch}."
            )
    return "## Best and chance\n\n" + "\n".join(f"- {line}" for line in lines)


def _sheet_section(study: Study, config: "AblationConfig") -> str:
    people = min(config.people, len(study.pairs))
    place = Path(os.path.relpath(config.sheet, config.output.parent)).as_posix()
    picture = f"![{people} unseen people: reference, truth, made frames]({place})"
    return f"## By eye\n\nThe first {people} pairs, whatever became of them.\n\n{picture}"


def _machine_section(study: Study) -> str:
    device = jax.local_devices()[0]
    steps = []
    for name, condition in study.conditions.items():
        source: dict[str, Any] = describe(condition.checkpoint).source
        if not name.startswith("hjb_") and "step" in source:
            steps.append(f"{condition.title} {source['step']}")
    trained = f" Training steps after the first run's: {', '.join(steps)}." if steps else ""
    found = ", ".join(f"{name} {version}" for name, version in versions().items() if version != "not installed")
    cores = f"{device.device_kind} ({device.platform}), {os.cpu_count()} CPU cores, float32"
    return "## Made with\n\n" + _wrapped(f"{cores}; {found}.{trained}")


def _ordinal(number: int) -> str:
    return {2: "second", 3: "third"}.get(number, f"{number}th")


def _wrapped(text: str) -> str:
    return textwrap.fill(text, 120, break_on_hyphens=False)


def _cell(estimate: Estimate, digits: int) -> str:
    low, high = estimate.interval
    return f"{estimate.value:.{digits}f} [{low:.{digits}f}, {high:.{digits}f}]"


def _signed(difference: Estimate, digits: int) -> str:
    low, high = difference.interval
    return f"{difference.value:+.{digits}f} [{low:+.{digits}f}, {high:+.{digits}f}]"


def difference_cell(difference: Estimate, digits: int) -> str:
    text = _signed(difference, digits)
    return text if difference.verdict == "open" else f"**{text}**"


def _row(cells: Sequence[str]) -> str:
    return f"| {' | '.join(cells)} |"


def _median(values: Any) -> float:
    ordered = sorted(values)
    return float(ordered[len(ordered) // 2])
