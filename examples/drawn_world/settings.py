"""What the recipe's settings have in common: counts are counts, and a run goes on with what it began with."""

import dataclasses
import json
import math
from pathlib import Path
from typing import Any

from stableanimator_jax.config import read_json
from stableanimator_jax.errors import InputError, reason_of
from stableanimator_jax.files import replacing


def require_counts(config: Any) -> None:
    """Raise `InputError` unless whole numbers are 1 or more (seeds and numbers to begin at 0), others not below 0."""
    for field in dataclasses.fields(config):
        value, flag = getattr(config, field.name), "--" + field.name.replace("_", "-")
        if type(value) is int:
            least, most = (0 if field.name in ("seed", "first_person", "first_pair") else 1), 2**32 - 1
            if not least <= value <= most:
                raise InputError(f"{flag} must be from {least} to {most}, got {value}")
        elif type(value) is float and not 0 <= value < math.inf:  # which NaN is not
            raise InputError(f"{flag} must be 0 or more, got {value}")


def make_folder(folder: Path) -> None:
    """Make it, unless it is there. Raises `InputError`."""
    try:
        folder.mkdir(parents=True, exist_ok=True)
    except OSError as e:
        raise InputError(f"cannot write {folder}: {reason_of(e)}") from e


def claim(folder: Path, settings: dict[str, Any]) -> None:
    """Keep a run's settings in its folder, or find that they are the ones kept there.

    Raises:
        InputError: the folder is another run's, or cannot be written.
    """
    file = folder / "settings.json"
    make_folder(folder)
    if not file.exists():
        with replacing(file) as temporary:
            temporary.write_text(json.dumps(settings, indent=1) + "\n", encoding="utf-8")
        return
    before = read_json(file)
    changed = [name for name, value in settings.items() if before.get(name) != value]
    if changed:
        told = ", ".join(f"--{n.replace('_', '-')} {before.get(n)}, not {settings[n]}" for n in changed)
        raise InputError(f"{folder} is of a run with {told}: give the same, another --output, or remove that folder")
