"""What a visitor filled in: checked, made settings of a run, and filled in again from a run's record.

Nothing of it is trusted: whoever can send requests can send any value.
"""

import dataclasses
import math
import zipfile
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, get_args

from stableanimator_jax.data.images import automatic_size, image_size
from stableanimator_jax.data.keypoint_formats import holds_keypoints, read_keypoint_file
from stableanimator_jax.data.numbered import IMAGE_SUFFIXES
from stableanimator_jax.data.poses import pose_files, pose_size
from stableanimator_jax.data.resampling import read_driving
from stableanimator_jax.errors import InputError, as_input_error
from stableanimator_jax.family import FAMILY
from stableanimator_jax.files import is_directory
from stableanimator_jax.perception.alignment import Align
from stableanimator_jax.sampling.config import PRESETS, SamplingConfig
from stableanimator_jax.scripts.app.settings import AppConfig
from stableanimator_jax.scripts.sample.settings import DRAWN_PEOPLE, SampleConfig, kind_of, published
from stableanimator_jax.shipped import EMBEDDED

AS_THE_WEIGHTS = "default"
"""The preset that leaves the settings as they are for these weights."""
FACES = {"off": 0, "published": "published", "paper": "paper"}
"""Iterations of the face optimisation."""
MOST_STEPS = 100
_MOST_UNPACKED = 10**9


@dataclass(frozen=True)
class Form:
    """The page's fields."""

    photo: Path | None
    """None for the example's."""
    movement: str
    """"example", "driving" or "poses"."""
    driving: Path | None
    poses: tuple[Path, ...]
    seed: int
    preset: str
    steps: int
    width: int | None
    """None, and so the height, for a size that suits."""
    height: int | None
    faces: str
    align: Align
    sound: bool


SETTINGS = ("seed", "preset", "steps", "width", "height", "faces", "align", "sound")
"""The fields that are no files, in the page's order."""


def base_config(app: AppConfig) -> SampleConfig:
    """A run with the page's weights, before a visitor says anything."""
    own = app.checkpoint == EMBEDDED
    base = DRAWN_PEOPLE if own else published(kind_of(app.checkpoint), checkpoint=app.checkpoint)
    return dataclasses.replace(
        base, insightface_root=app.insightface_root, dtype=app.dtype, device=app.device, overwrite=True
    )


def takes_poses(app: AppConfig) -> bool:
    """Whether the page's weights do, or move the picture by themselves."""
    return app.checkpoint == EMBEDDED or FAMILY[kind_of(app.checkpoint)].driver is not None


def movements(app: AppConfig) -> list[tuple[str, str]]:
    """The ways to say how a person moves, each as its label and its value."""
    every = [("Example poses", "example"), ("Driving video", "driving"), ("Poses or keypoints", "poses")]
    missing = {"example"} if app.checkpoint != EMBEDDED else set()
    if app.dwpose is None:
        missing.add("driving")
    return [(label, value) for label, value in every if value not in missing] if takes_poses(app) else []


def settings_from(values: Sequence[Any], app: AppConfig) -> dict[str, Any]:
    """The fields of `SETTINGS`, as they came from the page.

    Raises:
        InputError: a value is of another kind, or outside of what may be asked for.
    """
    seed, preset, steps, width, height, faces, align, sound = values
    sizes = [None if side in (None, "", 0) else whole(side, f"the {name}", 16, app.max_side)
             for name, side in (("width", width), ("height", height))]  # fmt: skip
    if (sizes[0] is None) != (sizes[1] is None):
        raise InputError("give both width and height, or neither")
    if not isinstance(sound, bool):
        raise InputError("sound must be on or off")
    return {
        "seed": whole(seed, "the seed", 0, 2**32 - 1),
        "preset": one_of(preset, "the preset", (AS_THE_WEIGHTS, *PRESETS)),
        "steps": whole(steps, "the number of steps", 1, MOST_STEPS),
        "width": sizes[0],
        "height": sizes[1],
        "faces": one_of(faces, "the face optimisation", tuple(FACES)),
        "align": one_of(align, "the alignment", get_args(Align)),
        "sound": sound,
    }


def whole(value: Any, what: str, least: int, most: int) -> int:
    """A whole number from `least` to `most`. Raises `InputError` for anything else."""
    number = isinstance(value, int | float) and not isinstance(value, bool)
    if not number or not math.isfinite(value) or value != int(value) or not least <= value <= most:
        raise InputError(f"{what} must be a whole number from {least} to {most}")
    return int(value)


def one_of(value: Any, what: str, choices: Sequence[str]) -> str:
    """One of some words. Raises `InputError` for anything else."""
    if not isinstance(value, str) or value not in choices:
        raise InputError(f"{what} must be one of {', '.join(choices)}")
    return value


def run_config(form: Form, app: AppConfig, output: Path) -> SampleConfig:
    """The run that a form asks for.

    Args:
        form: whose files lie where the run may read them.
        app: the page's settings.
        output: the video to make.

    Raises:
        InputError: a file is missing or unusable, or more is asked for than visitors may.
    """
    base = base_config(app)
    if form.faces != "off" and form.photo is not None and app.insightface_root is None:
        raise InputError("nothing here finds the face in a photo of yours: choose off for the face optimisation")
    sampling, hjb = base.sampling, dataclasses.replace(base.hjb, iterations=FACES[form.faces])
    if form.preset != AS_THE_WEIGHTS:
        sampling = sampling.with_preset(form.preset)  # pyright: ignore[reportArgumentType] (one of them)
    sampling = dataclasses.replace(sampling, steps=form.steps, seed=form.seed)
    moves = _movement(form, app) if takes_poses(app) else {}
    width, height = _size(form, base, moves.get("poses"))
    if max(width, height) > app.max_side:
        raise InputError(
            f"the video would be of {width}x{height} pixels, but at most {app.max_side} a side are made here: give a "
            "smaller width and height"
        )
    return dataclasses.replace(
        base, reference=form.photo, width=width, height=height, sampling=sampling, hjb=hjb, output=output, **moves
    )


def _movement(form: Form, app: AppConfig) -> dict[str, Any]:
    """The settings that say how the person moves."""
    if form.movement not in [value for _, value in movements(app)]:
        raise InputError("choose how the person is to move")
    if form.movement == "driving":
        if form.driving is None:
            raise InputError("give a driving video, or choose another way to say how the person is to move")
        chosen = {"driving": form.driving, "dwpose": app.dwpose, "driving_max_frames": app.max_frames}
        return chosen | {"align": form.align, "sound": form.sound}
    if form.movement == "example":
        return {}
    if not form.poses:
        raise InputError("give poses or keypoints, or choose another way to say how the person is to move")
    poses = form.poses[0] if len(form.poses) == 1 and not _is_picture(form.poses[0]) else form.poses[0].parent
    _require_few(poses, app.max_frames)
    return {"poses": poses}


def _is_picture(path: Path) -> bool:
    return path.suffix.lower() in set(IMAGE_SUFFIXES) - {".webp"}  # of which one alone is a video


def _require_few(poses: Path, most: int) -> None:
    """Raise `InputError` where there are more than may be, before anything is kept in memory."""
    if poses.suffix.lower() == ".npz":
        _require_small(poses)
    if holds_keypoints(poses):
        count = len(read_keypoint_file(poses).frames)
    elif is_directory(poses):
        count = len(pose_files(poses))
    else:
        with read_driving(poses, max_frames=most + 1, what="poses") as (_, frames):
            count = sum(1 for _ in frames)
    if count > most:
        raise InputError(f"there are more than {most} poses, the most for a video here: give fewer")


def _require_small(archive: Path) -> None:
    """Raise `InputError` where a few bytes of an archive stand for very many."""
    with as_input_error("the poses are not a plain .npz file", zipfile.BadZipFile), zipfile.ZipFile(archive) as file:
        unpacked = sum(part.file_size for part in file.infolist())
    if unpacked > _MOST_UNPACKED:
        raise InputError("the poses' .npz holds more than 1 GB: give fewer")


def _size(form: Form, base: SampleConfig, poses: Path | None) -> tuple[int, int]:
    """The output's, in numbers: what follows from files must not be larger than may be."""
    if form.width is not None and form.height is not None:
        return form.width, form.height
    if base.width is not None and base.height is not None:
        return base.width, base.height
    if poses is not None:
        return pose_size(poses)
    assert form.photo is not None  # the example has a size
    return automatic_size(*image_size(form.photo, what="photo"))


def settings_of(configuration: dict[str, Any], app: AppConfig) -> tuple[dict[str, Any], list[str]]:
    """What of a record's configuration the page has fields for, and the names of what else differs from here.

    Only numbers and choices are taken; no path.

    Raises:
        InputError: a value cannot be used here.
    """
    base = base_config(app)
    sampling, hjb = configuration.get("sampling"), configuration.get("hjb")
    if not isinstance(sampling, dict) or not isinstance(hjb, dict):
        raise InputError("the record is damaged: it has no settings")
    like = {name: tuple(value) if isinstance(value, list) else value for name, value in sampling.items()}
    presets = (name for name, preset in PRESETS.items() if _has(like, vars(preset) | {"steps": like.get("steps")}))
    preset = AS_THE_WEIGHTS if _has(like, _parts(base.sampling)) else next(presets, AS_THE_WEIGHTS)
    iterations = hjb.get("iterations")
    faces = next((name for name, value in FACES.items() if value == iterations), "published")
    align, sound = configuration.get("align", base.align), configuration.get("sound", False)
    values = [like.get("seed"), preset, like.get("steps"), configuration.get("width"), configuration.get("height")]
    settings = settings_from([*values, faces, align, sound], app)
    chosen = base.sampling if preset == AS_THE_WEIGHTS else base.sampling.with_preset(preset)  # pyright: ignore
    plain = SampleConfig(sampling=chosen).to_dict()["sampling"] | {"seed": like.get("seed"), "steps": like.get("steps")}
    others = sorted(name for name, value in plain.items() if sampling.get(name, value) != value)
    return settings, others


def _parts(sampling: SamplingConfig) -> dict[str, Any]:
    """Those fields that presets set, but the steps."""
    return {name: getattr(sampling, name) for name in vars(PRESETS["published"]) if name != "steps"}


def _has(these: dict[str, Any], wanted: dict[str, Any]) -> bool:
    return all(these.get(name) == value for name, value in wanted.items())
