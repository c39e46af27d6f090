"""The paper's ablations on unseen drawn people, and the same measures of a single checkpoint."""

import dataclasses
import json
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import jax

from examples.drawn_world.ablation_report import plain_table, write_report
from examples.drawn_world.ablation_sheet import draw_sheet
from examples.drawn_world.settings import make_folder
from examples.drawn_world.study import Condition, Study, StudyConfig, judged_by, run_study
from stableanimator_jax.config import IdInjection
from stableanimator_jax.errors import InputError
from stableanimator_jax.files import replacing
from stableanimator_jax.provenance import versions
from stableanimator_jax.shipped import EMBEDDED
from stableanimator_jax.weights.checkpoint import STABLEANIMATOR, describe, require_models
from stableanimator_jax.weights.fingerprint import fingerprint

_COMPONENTS: dict[str, tuple[str, IdInjection, bool]] = {
    "full": ("full", "distribution_aware", True),
    "no_masks": ("no face masks in the loss", "distribution_aware", True),
    "no_refinement": ("no refinement of face tokens", "distribution_aware", False),
    "addition": ("plain addition", "addition", True),
    "no_id": ("no ID tokens", "none", True),
}
"""Title, and what a checkpoint's configuration then says: `unet.id_injection` and `face_encoder.refine`."""


@dataclass(frozen=True)
class AblationConfig(StudyConfig):
    """The paper's ablations."""

    runs: Path = Path("outputs/drawn_world/runs")
    """Has a checkpoint of each training as NAME/checkpoint: full, no_masks, no_refinement, addition, no_id. Those that
    are missing are left out."""
    first_pair: int = 1000
    """Its number: far from those that were looked at while all this was made."""
    second_arcface: Path | None = Path("outputs/drawn_world/second_arcface")
    """A checkpoint with an ArcFace that was trained apart from the one that the models know."""
    hjb_iterations: tuple[int, ...] = (3, 10)
    """Of the face optimisation, for the full model; beside none, with which all else is compared."""
    work: Path = Path("outputs/drawn_world/ablations")
    """Where videos are kept, and all numbers of all pairs as `results.json`."""
    output: Path = Path("docs/ablations.md")
    """The report."""
    sheet: Path = Path("docs/images/drawn_people.png")
    """The first pairs' reference, truth and videos."""
    people: int = 12
    """On the sheet."""

    def __post_init__(self):
        super().__post_init__()
        if self.hjb.adam_iterations:
            raise InputError("the ablation compares numbers of iterations: give --hjb-iterations, not --hjb.iterations")
        if self.people < 1:
            raise InputError(f"--people must be at least 1, got {self.people}")
        for count in self.hjb_iterations:
            dataclasses.replace(self.hjb, iterations=count)  # raises where it cannot be


VIDEOS = "videos"
"""An evaluation's one condition, in its folder and in its `results.json`."""


@dataclass(frozen=True)
class EvaluationConfig(StudyConfig):
    """One checkpoint's measures."""

    checkpoint: str = EMBEDDED
    """A checkpoint directory, or "embedded" for the one in this package."""
    pairs: int = 16
    """Of an unseen person and an unseen motion."""
    work: Path = Path("outputs/drawn_world/evaluation")
    """Where videos are kept, and all numbers of all pairs as `results.json`."""
    resamples: int = 500
    """Of the pairs, for the confidence intervals."""


def ablate(config: AblationConfig) -> None:
    """Make and measure all conditions' videos; write the report, its sheet, and `results.json` into the work folder.

    Raises:
        InputError: there is no checkpoint in `runs`, one is not what its name says, or the settings are wrong.
    """
    conditions = found_conditions(config.runs, config.hjb_iterations)
    if config.second_arcface is not None:
        require_models(config.second_arcface, ["arcface"])
    for folder in (config.work, config.sheet.parent, config.output.parent):
        make_folder(folder)
    study = run_study(conditions, config)
    _write_results(study, config)
    shown = [name for name in ("full", "no_id") if name in study.measured] or [conditions[0].name]
    with replacing(config.sheet) as temporary:
        draw_sheet(study, shown, config.people).save(temporary, format="PNG")
    write_report(study, config, command=f"python -m examples.drawn_world ablate{_flags(config)}")
    print(f"report: {config.output}\nsheet: {config.sheet}\nnumbers: {config.work / 'results.json'}")


def evaluate(config: EvaluationConfig) -> None:
    """Print one checkpoint's measures, with confidence intervals, and write `results.json` into the work folder.

    Raises:
        InputError: the checkpoint or a setting cannot be used.
    """
    condition = Condition(VIDEOS, VIDEOS, config.checkpoint, config.hjb.adam_iterations)
    study = run_study([condition], config)
    _write_results(study, config)
    print(plain_table(study, VIDEOS))


def found_conditions(runs: Path, hjb_iterations: tuple[int, ...]) -> list[Condition]:
    """The conditions whose checkpoints are in a folder; those of the full model first.

    Raises:
        InputError: there is none, one lacks a model or is of another condition, or two differ in more than that: in
            their training steps, or in the models that are not trained.
    """
    found = []
    for name, (title, id_injection, refine) in _COMPONENTS.items():
        place = runs / name / "checkpoint"
        if not place.exists():
            print(f"left out: {title} (there is no {place})")
            continue
        require_models(place, STABLEANIMATOR)
        model = describe(place).config
        says = {"unet.id_injection": model.unet.id_injection, "face_encoder.refine": model.face_encoder.refine}
        for field, wanted in (("unet.id_injection", id_injection), ("face_encoder.refine", refine)):
            if says[field] != wanted:
                raise InputError(f"{place} is not {name}: its {field} is {says[field]}, must be {wanted}")
        found.append(Condition(name, title, str(place), 0))
        if name == "full":
            counts = sorted({count for count in hjb_iterations if count > 0})
            found += [Condition(f"hjb_{n}", f"HJB, {n} iterations", str(place), n) for n in counts]
    _require_comparable(found)
    if not found:
        raise InputError(f"there is no checkpoint in {runs}: it must have some of {', '.join(_COMPONENTS)}/checkpoint")
    return found


def _require_comparable(conditions: list[Condition]) -> None:
    trained: dict[str, str] = {}
    for place in dict.fromkeys(condition.checkpoint for condition in conditions):
        first, step = conditions[0].checkpoint, describe(place).source.get("step")
        if step != (other := describe(first).source.get("step")):
            raise InputError(f"{first} was trained for {other} steps, {place} for {step}: train all for as many")
        for model in ("vae", "image_encoder", "arcface"):
            if fingerprint(place, model) != fingerprint(first, model):
                raise InputError(f"{first} and {place} have different models, {model}: train both from the same ones")
        unet = fingerprint(place, "unet")
        if unet in trained:
            raise InputError(f"{place} and {trained[unet]} have the same UNet: one is a copy of the other")
        trained[unet] = place


def _write_results(study: Study, config: StudyConfig) -> None:
    """All numbers of all pairs."""
    plain: dict[str, Any] = {
        "settings": _plain(dataclasses.asdict(config)),
        "versions": versions(),
        "device": jax.local_devices()[0].device_kind,
        "pairs": [dataclasses.asdict(p.pair) for p in study.pairs],
        "judges": judged_by(next(iter(study.conditions.values())).checkpoint, config),
        "truth": {name: values.tolist() for name, values in study.truth.items()},
        "conditions": {
            name: {
                "checkpoint": study.conditions[name].checkpoint,
                "seconds": measured.seconds.tolist(),
                "frechet": study.estimates[name]["frechet"].value,
                **{metric: values.tolist() for metric, values in measured.scores.items()},
            }
            for name, measured in study.measured.items()
        },
    }
    with replacing(config.work / "results.json") as temporary:
        temporary.write_text(json.dumps(plain, indent=1) + "\n", encoding="utf-8")


def _plain(value: Any) -> Any:
    if isinstance(value, dict):
        return {name: _plain(v) for name, v in value.items()}
    return str(value) if isinstance(value, Path) else value


def _flags(config: AblationConfig) -> str:
    """The settings that are not the defaults; but for folders, which are somewhere else on another machine."""
    default = _flat(dataclasses.asdict(type(config)()))
    changed = {k: v for k, v in _flat(dataclasses.asdict(config)).items() if v != default.get(k)}
    values = {k: " ".join(map(str, v)) if isinstance(v, tuple) else str(v) for k, v in changed.items()}
    return "".join(f" --{name.replace('_', '-')} {value}" for name, value in values.items())


def _flat(settings: dict[str, Any], before: str = "") -> dict[str, Any]:
    flat: dict[str, Any] = {}
    for name, value in settings.items():
        if isinstance(value, dict):
            flat |= _flat(value, f"{before}{name}.")
        elif value is not None and not isinstance(value, Path):
            flat[before + name] = value
    return flat
