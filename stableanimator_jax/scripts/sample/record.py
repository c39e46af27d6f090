"""The record of a run: what it was given and what it did, as JSON beside its output, enough to run it again."""

import dataclasses
import json
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from stableanimator_jax.commands import called
from stableanimator_jax.config import read_json
from stableanimator_jax.errors import InputError
from stableanimator_jax.provenance import versions
from stableanimator_jax.shipped import EMBEDDED

_FORMAT = "stableanimator-jax sampling run"


@dataclass(frozen=True)
class InputFile:
    """A file, or a directory of files, that a run read."""

    path: str | None
    """Absolute; None is what ships in this package."""
    sha256: str
    """As `sha256_of` computes it."""


@dataclass(frozen=True)
class Record:
    """What `<output>.json` holds."""

    configuration: dict[str, Any]
    """Every setting, the seed among them, as plain data; paths are absolute."""
    inputs: Mapping[str, InputFile]
    """By the name of the setting."""
    versions: dict[str, str]
    """Of Python and the packages that compute."""
    result: dict[str, Any]
    """What the run made, on which device, in how many seconds. Not needed to run it again."""
    hjb: list[dict[str, Any]] = field(default_factory=list)
    """What the face optimisation did at each denoising step that it ran at: the step (from 0), the mean cosine of the
    faces to the reference before and after (null where no frame has a face), and the frames with a face."""


def write_record(path: Path, record: Record) -> None:
    """Write a record as JSON."""
    text = json.dumps({"format": _FORMAT, **dataclasses.asdict(record)}, indent=2, allow_nan=False)
    path.write_text(text + "\n", encoding="utf-8")


def read_record(path: Path) -> Record:
    """Read what `write_record` wrote.

    Raises:
        InputError: the file is missing, not JSON, or not the record of a sampling run.
    """
    data = read_json(path)
    if not isinstance(data, dict) or data.pop("format", None) != _FORMAT:
        raise InputError(f"{path} is not the record of a sampling run ({called('sample')} writes it as OUTPUT.json)")
    try:
        inputs = {name: InputFile(**entry) for name, entry in data.pop("inputs").items()}
        record = Record(inputs=inputs, **data)
    except (TypeError, AttributeError, KeyError) as e:
        raise InputError(f"{path} is damaged: it is not the record that {called('sample')} wrote ({e})") from e
    for name in ("configuration", "versions", "result"):
        if not isinstance(getattr(record, name), dict):
            raise InputError(f"{path} is damaged: its {name} is not an object")
    return record


def as_meant_now(configuration: dict[str, Any]) -> dict[str, Any]:
    """A record's configuration, where it is from before `--poses-fps`, when `--output-fps` said how fast poses are, or
    from when `--align` was a switch."""
    if isinstance(align := configuration.get("align"), bool):
        configuration = configuration | {"align": "linear" if align else "off"}
    poses = (configuration.get("poses"), configuration.get("driving"), configuration.get("checkpoint") == EMBEDDED)
    if "poses_fps" in configuration or "output_fps" not in configuration or not any(poses):
        return configuration
    return configuration | {"poses_fps": configuration["output_fps"], "output_fps": None}


def written_files(path: Path) -> dict[Path, str]:
    """The files that the run with this record left beside it, each with its sha256. Raises as `read_record`."""
    files = read_record(path).result.get("files")
    return {path.parent / name: digest for name, digest in files.items()} if isinstance(files, dict) else {}


def version_changes(then: Mapping[str, str]) -> str:
    """What is of another version here than it was `then`, as "jax 0.10.2 then, 0.11.0 now"; "" for nothing."""
    now = versions()
    return ", ".join(
        f"{name} {version} then, {now[name]} now" for name, version in then.items() if now.get(name, version) != version
    )
