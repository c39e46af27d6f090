"""Files that visitors send, found where uploads lie and nowhere else; and words without this machine's paths."""

import json
import os
import re
import shutil
from pathlib import Path
from typing import Any

from stableanimator_jax.errors import InputError


def uploaded(value: Any, what: str, cache: Path) -> list[Path]:
    """The files that a field of the page holds.

    Args:
        value: as the page sent it: None, a file, or a list of them.
        what: the field's name, for errors.
        cache: the folder of uploads; no other file is taken.

    Raises:
        InputError: it is no file that was uploaded, or it is no longer there.
    """
    entries = value if isinstance(value, list) else [] if value is None else [value]
    found = []
    for entry in entries:
        path = entry.get("path") if isinstance(entry, dict) else None
        if not isinstance(path, str) or "\0" in path:
            raise InputError(f"{what} must be an uploaded file")
        place = Path(os.path.realpath(path))
        if not place.is_relative_to(os.path.realpath(cache)):
            raise InputError(f"{what} must be an uploaded file")
        if not place.is_file():
            raise InputError(f"{what} is no longer here: upload it again")
        found.append(place)
    return found


def laid_out(files: list[Path], folder: Path, what: str) -> list[Path]:
    """The same files under their own names in a new folder.

    Raises:
        InputError: two of them have the same name.
    """
    folder.mkdir()
    placed = []
    for file in files:
        place = folder / file.name
        if place.exists():
            raise InputError(f"{what}: there are two files {file.name}")
        try:
            os.link(file, place)
        except OSError:  # on another disk
            shutil.copyfile(file, place)
        placed.append(place)
    return placed


def without_paths(text: str) -> str:
    """A message for a visitor: of this machine's paths the last part is left, of flags their names."""
    text = re.sub(r"(?<![\w.:/])/(?:[^\s/'\"]+/)+(?=[^\s/'\"])", "", text)
    return re.sub(r"(?<!\S)--(?=[a-z])", "", " ".join(text.split()))


def scrub_record(path: Path) -> None:
    """Leave in a record of paths only their last parts: it is to be run again beside the visitor's own files."""
    path.write_text(json.dumps(_scrubbed(json.loads(path.read_text(encoding="utf-8"))), indent=2) + "\n", "utf-8")


def _scrubbed(value: Any) -> Any:
    if isinstance(value, dict):
        return {name: _scrubbed(part) for name, part in value.items()}
    if isinstance(value, list):
        return [_scrubbed(part) for part in value]
    if isinstance(value, str):
        return Path(value).name if value.startswith("/") else without_paths(value)
    return value
