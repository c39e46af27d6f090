"""A run of `prepare_data.py videos`: from a folder of videos to a dataset, in steps that can be interrupted.

Everything is made in ROOT/.work and moved to its place when it is complete, `dataset.json` last: a folder that has
that file is whole.
"""

import importlib.metadata
import json
import os
import shutil
from collections.abc import Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import suppress
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from stableanimator_jax.commands import called
from stableanimator_jax.config import read_json
from stableanimator_jax.data.prepared import DATASET_FILE
from stableanimator_jax.errors import InputError, as_input_error
from stableanimator_jax.files import replacing, require_utf8
from stableanimator_jax.opencv import require_opencv
from stableanimator_jax.preparation.config import VideosConfig
from stableanimator_jax.preparation.dataset_writer import TRAIN, VALIDATION, split_of, write_dataset
from stableanimator_jax.preparation.perceiving import Perception, model_hashes
from stableanimator_jax.preparation.report import Prepared, write_report
from stableanimator_jax.preparation.sources import Source, content_hash, find_sources
from stableanimator_jax.preparation.staging import StagedClip, StagedVideo, Staging
from stableanimator_jax.preparation.workers import FailedVideo, Outcome, stage_all

_FORMAT = "stableanimator-jax training data"
_WORK, _RUN_FILE = ".work", "run.json"
_CORES_A_WORKER = 4
_PACKAGES = ("av", "opencv-python", "onnxruntime", "insightface", "tensorflow-datasets", "stableanimator-jax")


@dataclass(frozen=True)
class RunResult:
    """What `run` did."""

    clips: int
    dropped: dict[str, int]
    failed: list[FailedVideo]
    notes: list[str] = field(default_factory=list)
    """What is to be told about videos that were prepared now."""
    already_there: bool = False


def run(config: VideosConfig) -> RunResult:
    """Prepare a dataset, or go on with one that was interrupted; one that is finished is left as it is.

    Raises:
        InputError: no input or no videos, models missing or wrong, an output that cannot be written or that holds
            something else, or no clip that is fit.
    """
    if config.input is None:
        raise InputError(f"give the folder of videos: {called('prepare')} videos FOLDER --output ROOT")
    if config.output is None:
        raise InputError("give --output ROOT, the dataset's folder to make")
    if config.beam.runner is not None:
        from stableanimator_jax.preparation.beam_pipeline import require_beam

        require_beam()
    require_opencv()
    sources = find_sources(config.input.expanduser())
    root = config.output.expanduser()
    require_utf8(root, "output")
    if root.absolute() == config.input.expanduser().absolute():
        raise InputError(f"cannot write {root}: it is the input; name a new folder")
    settings = config.settings() | {"validation": config.validation, "models": model_hashes(config.models)}
    with as_input_error(f"cannot write {root}"):
        if (root / DATASET_FILE).is_file():
            return _finished(root, settings, sources)
        Perception(config.models)  # a wrong model is told before any work, and once
        return _make(root, _claim(root, settings), settings, sources, config)


def _make(
    root: Path, work: Path, settings: dict[str, Any], sources: Sequence[Source], config: VideosConfig
) -> RunResult:
    try:
        staged = work / "staged" if config.work is None else config.work.expanduser()
        staging = Staging(staged.absolute(), config.clips, config.filters, settings["models"])
        for left in staging.folder.glob("*.tmp"):  # half-done, by a run that was killed
            shutil.rmtree(left, ignore_errors=True)
        outcomes = _stage(sources, staging, config)
        prepared = _sorted_out(outcomes, settings, config)
        if not prepared.splits:
            shutil.rmtree(work, ignore_errors=True)
            raise InputError(f"no clip of {len(sources)} videos is left: {_why_none(prepared)}")
        _write(root, work, prepared, config)
    finally:
        _remove_if_empty(root, work)
    clips = sum(len(part) for splits in prepared.splits.values() for part in splits.values())
    return RunResult(clips, prepared.reason_counts(), prepared.failed, prepared.notes())


def _stage(sources: Sequence[Source], staging: Staging, config: VideosConfig) -> list[Outcome]:
    if config.beam.runner is not None:
        from stableanimator_jax.preparation.beam_pipeline import stage_by_beam

        return stage_by_beam(sources, staging, config.models, config.beam)
    workers = config.workers or max(1, (os.cpu_count() or 1) // _CORES_A_WORKER)
    return stage_all(sources, staging, config.models, min(workers, len(sources)))


def _claim(root: Path, settings: dict[str, Any]) -> Path:
    """The work folder within the output, whose mark says whose it is."""
    work = root / _WORK
    if root.exists() and not root.is_dir():
        raise InputError(f"cannot write {root}: it is a file; give a folder")
    if (work / _RUN_FILE).is_file():
        if read_json(work / _RUN_FILE) != _plain(settings):
            raise InputError(
                f"{root} holds an unfinished run with other settings: repeat those, name another output, or remove it"
            )
        return work
    if root.exists() and any(path.name != _WORK for path in root.iterdir()):
        raise InputError(f"cannot write {root}: it is not empty and holds no dataset of ours; name a new folder")
    work.mkdir(parents=True, exist_ok=True)
    with replacing(work / _RUN_FILE) as temporary:
        temporary.write_text(json.dumps(settings, indent=1, sort_keys=True), encoding="utf-8")
    return work


def _sorted_out(outcomes: Sequence[Outcome], settings: dict[str, Any], config: VideosConfig) -> Prepared:
    videos: list[StagedVideo] = []
    failed: list[FailedVideo] = []
    same: dict[str, str] = {}
    first: dict[str, str] = {}
    for outcome in outcomes:
        if isinstance(outcome, FailedVideo):
            failed.append(outcome)
        elif outcome.content in first:  # in both splits, or twice as often as others, it would do harm
            same[outcome.name] = first[outcome.content]
        else:
            first[outcome.content] = outcome.name
            videos.append(outcome)
    splits: dict[str, dict[str, list[StagedClip]]] = {}
    for bucket in config.clips.buckets:
        parts: dict[str, list[StagedClip]] = {}
        for split in (TRAIN, VALIDATION):
            of_split = [v for v in videos if split_of(v.name, config.validation) == split]
            if clips := [clip for video in of_split for clip in video.clips if clip.bucket == bucket]:
                parts[split] = clips
        if parts:
            splits[bucket] = parts
    return Prepared(videos, failed, same, splits, settings)


def _write(root: Path, work: Path, prepared: Prepared, config: VideosConfig) -> None:
    made = work / "dataset"
    shutil.rmtree(made, ignore_errors=True)
    made.mkdir()
    for bucket, splits in prepared.splits.items():
        write_dataset(made / bucket, bucket, splits, config.beam)
    write_report(made, prepared)
    described = {
        "format": _FORMAT,
        "settings": prepared.settings,
        "buckets": {b: {s: len(clips) for s, clips in splits.items()} for b, splits in prepared.splits.items()},
        "videos": {video.name: video.content for video in prepared.videos},
        "same": prepared.same,
        "failed": {video.name: video.why for video in prepared.failed},
        "dropped": prepared.reason_counts(),
        "versions": {package: _version(package) for package in _PACKAGES},
    }
    (made / DATASET_FILE).write_text(json.dumps(described, indent=1, sort_keys=True) + "\n", encoding="utf-8")
    for path in sorted(made.iterdir(), key=lambda path: path.name == DATASET_FILE):
        if (target := root / path.name).is_dir():  # moved by a run that was killed between two of these
            shutil.rmtree(target)
        path.replace(target)
    shutil.rmtree(work)


def _finished(root: Path, settings: dict[str, Any], sources: Sequence[Source]) -> RunResult:
    """What there is, if it is what this run would make. Raises `InputError` if not."""
    data = read_json(root / DATASET_FILE)
    if not isinstance(data, dict) or data.get("format") != _FORMAT:
        raise InputError(f"{root / DATASET_FILE} is not what {called('prepare')} writes; name a new folder")
    elsewhere = "name another output, with --work DIR to share what is prepared already"
    if data["settings"] != _plain(settings):
        raise InputError(f"{root} holds a dataset made with other settings; {elsewhere}")
    known: dict[str, str] = {**data["videos"], **data["failed"], **data["same"]}
    changed = sorted(set(known) ^ {source.name for source in sources})
    with ThreadPoolExecutor() as pool:
        readable = [source for source in sources if source.name in data["videos"]]
        hashes = list(pool.map(content_hash, readable))
    changed += [s.name for s, content in zip(readable, hashes, strict=True) if data["videos"][s.name] != content]
    if changed:
        more = f" and {len(changed) - 1} more" if len(changed) > 1 else ""
        raise InputError(f"{root} holds a dataset of other videos: {changed[0]}{more} differs; {elsewhere}")
    shutil.rmtree(root / _WORK, ignore_errors=True)
    clips = sum(count for splits in data["buckets"].values() for count in splits.values())
    failed = [FailedVideo(name, why) for name, why in data["failed"].items()]
    return RunResult(clips, data["dropped"], failed, already_there=True)


def _why_none(prepared: Prepared) -> str:
    parts = [f"{reason} ({count})" for reason, count in prepared.reason_counts().items()]
    if prepared.failed:
        parts.append(
            f"{len(prepared.failed)} could not be read, the first, {prepared.failed[0].name}, because "
            f"{prepared.failed[0].why}"
        )
    return ", ".join(parts) or "they have no frames"


def _remove_if_empty(root: Path, work: Path) -> None:
    """A run that failed before it had anything leaves no folder behind."""
    with suppress(OSError):  # whatever keeps it there, the run's own result is what to tell
        if root.is_dir() and not work.exists() and not any(root.iterdir()):
            root.rmdir()


def _plain(settings: dict[str, Any]) -> dict[str, Any]:
    """As it comes back from JSON."""
    return json.loads(json.dumps(settings))


def _version(package: str) -> str:
    try:
        return importlib.metadata.version(package)
    except importlib.metadata.PackageNotFoundError:
        return "not installed as a package"
