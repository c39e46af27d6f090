"""The record of a run: what it was given and what it did, as JSON beside its output, enough to run it again."""

import dataclasses
import hashlib
import importlib.metadata
import json
import os
import platform
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from stableanimator_jax.config import read_json
from stableanimator_jax.errors import InputError

_FORMAT = "stableanimator-jax sampling run"
_PACKAGES = (
    "stableanimator-jax",
    "jax",
    "jaxlib",
    "flax",
    "orbax-checkpoint",
    "numpy",
    "pillow",
    "av",
    "insightface",
    "onnxruntime",
    "opencv-python",
)


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
        raise InputError(f"{path} is not the record of a sampling run (sample.py writes it as OUTPUT.json)")
    try:
        inputs = {name: InputFile(**entry) for name, entry in data.pop("inputs").items()}
        record = Record(inputs=inputs, **data)
    except (TypeError, AttributeError, KeyError) as e:
        raise InputError(f"{path} is damaged: it is not the record that sample.py wrote ({e})") from e
    for name in ("configuration", "versions", "result"):
        if not isinstance(getattr(record, name), dict):
            raise InputError(f"{path} is damaged: its {name} is not an object")
    return record


def written_files(path: Path) -> dict[Path, str]:
    """The files that the run with this record left beside it, each with its sha256. Raises as `read_record`."""
    files = read_record(path).result.get("files")
    return {path.parent / name: digest for name, digest in files.items()} if isinstance(files, dict) else {}


def sha256_of(files: Sequence[Path], directory: Path | None = None) -> str:
    """SHA-256 of one file's bytes (as `sha256sum` prints it), or of a directory's listing of them.

    Args:
        files: the files, in an order that does not change.
        directory: where `files` lie; the listing then has each one's relative name and sha256.

    Raises:
        InputError: a file cannot be read.
    """
    try:
        digests = [_file_sha256(file) for file in files]
    except OSError as e:
        raise InputError(f"cannot read {e.filename}: {e.strerror}") from e
    if directory is None:
        (digest,) = digests
        return digest
    lines = (f"{d}  {f.relative_to(directory).as_posix()}\n" for f, d in zip(files, digests, strict=True))
    return hashlib.sha256(os.fsencode("".join(lines))).hexdigest()


def _file_sha256(path: Path) -> str:
    with path.open("rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()


def versions() -> dict[str, str]:
    """Versions of Python and of the packages whose results go into a video."""
    found = {"python": platform.python_version()}
    for name in _PACKAGES:
        try:
            found[name] = importlib.metadata.version(name)
        except importlib.metadata.PackageNotFoundError:  # run from a source tree
            found[name] = "not installed"
    return found


def version_changes(record: Record) -> str:
    """What is of another version here than it was for `record`, as "jax 0.10.2 then, 0.11.0 now"; "" for nothing."""
    now = versions()
    return ", ".join(
        f"{name} {then} then, {now[name]} now" for name, then in record.versions.items() if now.get(name, then) != then
    )
