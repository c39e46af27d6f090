"""Which videos are measured against what: files of the same name in folders, or the rows of a list."""

import csv
import io
from collections.abc import Callable, Iterable
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from stableanimator_jax.config import read_json
from stableanimator_jax.data.images import load_image
from stableanimator_jax.data.keypoint_formats import KEYPOINT_SUFFIXES, holds_keypoints
from stableanimator_jax.data.numbered import IMAGE_SUFFIXES, numbered_images
from stableanimator_jax.data.video import VIDEO_SUFFIXES
from stableanimator_jax.errors import InputError, as_input_error
from stableanimator_jax.files import is_directory, require_file, require_local
from stableanimator_jax.scripts.evaluate.reading import Files
from stableanimator_jax.scripts.evaluate.settings import EvaluateConfig

_VIDEO_SUFFIXES = (*sorted(VIDEO_SUFFIXES), ".webp")
_IMAGE_SUFFIXES = (*IMAGE_SUFFIXES, ".bmp", ".tif", ".tiff", ".heic")
_COLUMNS = ("name", "generated", "truth", "reference", "driving")


@dataclass
class Paired:
    """What was found."""

    videos: list[Files]
    """In the order of their names."""
    failed: dict[str, str] = field(default_factory=dict)
    """Names that cannot be measured, and why."""
    notes: list[str] = field(default_factory=list)
    """What else has to be known."""


def find_pairs(config: EvaluateConfig) -> Paired:
    """Pair by name, or read the list.

    Raises:
        InputError: there is nothing to measure, a folder or the list cannot be used, or two videos have one name.
    """
    if config.pairs is not None:
        found = Paired(read_list(config.pairs))
        for files in found.videos:
            if files.generated is None:
                raise InputError(f"list {config.pairs}: {files.name} has no generated video")
        return found
    if config.generated is None:
        raise InputError("give the videos to measure: --generated DIR, or --pairs LIST, or --checkpoint and --dataset")
    return _by_name(config)


def _by_name(config: EvaluateConfig) -> Paired:
    assert config.generated is not None
    sides: dict[str, dict[str, Path]] = {}
    for role, place, suffixes in (
        ("generated", config.generated, _VIDEO_SUFFIXES),
        ("truth", config.truth, _VIDEO_SUFFIXES),
        ("references", config.references, _IMAGE_SUFFIXES),
        ("driving", config.driving, KEYPOINT_SUFFIXES + _VIDEO_SUFFIXES),
    ):
        if place is not None:
            sides[role] = _entries(place, role, suffixes)
    alone = config.generated if _is_one(config.generated, "generated") else None
    for role, found in sides.items():  # one video with one truth and one reference, whatever they are called
        if alone is not None and len(found) == 1:
            sides[role] = {next(iter(sides["generated"])): next(iter(found.values()))}
    generated = sides["generated"]
    if not generated:
        raise InputError(
            f"--generated {config.generated} holds no video: no {', '.join(_VIDEO_SUFFIXES)}, and no folder of "
            "frame_0.png, …"
        )
    paired = Paired([])
    truth = sides.get("truth")
    if truth is not None and not generated.keys() & truth.keys():
        raise InputError(
            f"no video of --generated {config.generated} has the name of one of --truth {config.truth}: they are "
            f"paired by name, as {next(iter(generated))}; or give --pairs LIST"
        )
    alone_too = {} if truth is None or alone is not None else truth
    for name in sorted(generated.keys() | alone_too.keys()):
        if name not in generated:
            paired.failed[name] = f"no generated video of this name in {config.generated}"
        elif truth is not None and name not in truth:
            paired.failed[name] = f"no true video of this name in {config.truth}"
        else:
            paired.videos.append(
                Files(name, generated[name], *(sides.get(r, {}).get(name) for r in ("truth", "references", "driving")))
            )
    for role in ("references", "driving"):
        if role in sides and (missing := [f.name for f in paired.videos if f.name not in sides[role]]):
            paired.notes.append(f"--{role} {getattr(config, role)} lacks {_shown(missing)}")
    return paired


def _entries(place: Path, role: str, suffixes: tuple[str, ...]) -> dict[str, Path]:
    """Files of these suffixes, and folders, by name."""
    require_local(place)
    if not place.exists():
        raise InputError(f"--{role} {place} does not exist")
    if _is_one(place, role):
        return {place.stem if place.is_file() else place.name: place}
    found: dict[str, Path] = {}
    with as_input_error(f"cannot read --{role} {place}"):
        for path in sorted(place.iterdir()):
            if path.name.startswith("."):
                continue
            is_folder = path.is_dir()
            if not is_folder and path.suffix.lower() not in suffixes:
                continue
            name = path.name if is_folder else _stem(path, suffixes)
            if name in found:
                raise InputError(f"--{role} {place}: {found[name].name} and {path.name} have one name; leave one there")
            found[name] = path
    return found


def _stem(path: Path, suffixes: Iterable[str]) -> str:
    """`a` of `a.mp4`, and of `a.mp4.keypoints.json`, as keypoints beside a video are called."""
    stem = path.stem.removesuffix(".keypoints")
    return Path(stem).stem if stem != path.stem and Path(stem).suffix.lower() in suffixes else stem


def _is_one(place: Path, role: str) -> bool:
    """Whether it is a single video, image or file of keypoints rather than a folder of them."""
    if not place.is_dir():
        return True
    if role == "references":
        return False
    if role == "driving":
        return holds_keypoints(place) or (place / "keypoints.json").is_file()
    return not any(path.suffix.lower() in _VIDEO_SUFFIXES for path in place.iterdir() if path.is_file()) and (
        bool(numbered_images(place, role))
    )


def read_list(path: Path) -> list[Files]:
    """A list of videos, in the order of their names. Raises `InputError`; the message names the row."""
    require_file(path, "list of pairs")
    readers: dict[str, Callable[[Path], list[Any]]] = {".json": _json_rows, ".csv": _csv_rows}
    if path.suffix.lower() not in readers:
        raise InputError(f"list of pairs {path} must be a .json or a .csv")
    rows = readers[path.suffix.lower()](path)
    if not rows:
        raise InputError(f"list of pairs {path} names no video")
    found: dict[str, Files] = {}
    for number, row in enumerate(rows, 1):
        files = _files(row, f"list of pairs {path}, row {number}", path.parent)
        if files.name in found:
            raise InputError(
                f"list of pairs {path}: the name {files.name} is in it twice; give each its own in the column name"
            )
        found[files.name] = files
    return [found[name] for name in sorted(found)]


def _json_rows(path: Path) -> list[Any]:
    rows = read_json(path)
    if not isinstance(rows, list):
        raise InputError(f'list of pairs {path} must be a JSON list of objects such as {{"generated": "a.mp4"}}')
    return rows


def _csv_rows(path: Path) -> list[Any]:
    with as_input_error(f"cannot read list of pairs {path}", UnicodeDecodeError, csv.Error):
        return list(csv.DictReader(io.StringIO(path.read_text(encoding="utf-8-sig"))))


def _files(row: Any, where: str, folder: Path) -> Files:
    if not isinstance(row, dict):
        raise InputError(f"{where}: must be an object with {', '.join(_COLUMNS)}")
    values = {key: value for key, value in row.items() if value not in (None, "")}
    if None in values:  # as a CSV's reader has it
        raise InputError(f"{where}: has more values than there are columns")
    if unknown := [str(key) for key in values if key not in _COLUMNS]:
        raise InputError(f"{where}: unknown column {unknown[0]!r}; there are {', '.join(_COLUMNS)}")
    if any(not isinstance(value, str) for value in values.values()):
        raise InputError(f"{where}: every value must be text")
    paths = {key: folder / value for key, value in values.items() if key != "name"}
    for key, value in values.items():
        if key != "name":
            require_local(value)
    named = next((p for p in (paths.get("generated"), paths.get("truth"), paths.get("reference")) if p), None)
    if named is None:
        raise InputError(f"{where}: names no video")
    name = named.name if is_directory(named) else named.stem
    return Files(values.get("name", name), **paths)


def check_references(videos: Iterable[Files]) -> None:
    """Raise `InputError` where a video that is to be made lacks its photo, or a photo cannot be read."""
    for files in videos:
        if files.reference is None:
            raise InputError(f"{files.name} has no reference, which is to be animated")
        load_image(files.reference, what=f"reference of {files.name},")


def has_pictures(place: Path) -> bool:
    """Whether it is a folder of skeletons."""
    return is_directory(place) and bool(numbered_images(place, "poses"))


def _shown(names: list[str]) -> str:
    return ", ".join(names[:5]) + (f" and {len(names) - 5} more" if len(names) > 5 else "")
