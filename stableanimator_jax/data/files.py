"""The first check on every input file, so that each reader need only explain what it cannot read."""

import os
from pathlib import Path

from stableanimator_jax.errors import InputError


def require_file(path: Path, what: str) -> None:
    """Raise `InputError` unless `path` is a non-empty file. `what` names it in the message, as in "video"."""
    try:
        if path.is_dir():
            raise InputError(f"{what} {path} is a directory; give a file")
        size = path.stat().st_size
        if not path.is_file():
            raise InputError(f"{what} {path} is a pipe or a device; give a file, because it is read more than once")
        with path.open("rb"):
            pass
    except FileNotFoundError:
        raise InputError(f"{what} {path} does not exist") from None
    except OSError as e:
        raise InputError(f"cannot read {what} {path}: {e.strerror}") from e
    if size == 0:
        raise InputError(f"{what} {path} is empty (0 bytes)")


def is_directory(path: Path) -> bool:
    """Whether `path` is a directory. A path that the system refuses to look at, as one too long, is none."""
    try:
        return path.is_dir()
    except OSError:
        return False


def real_path(path: Path) -> Path:
    """`path` absolute, without links; unlike `Path.resolve`, a loop of links is no error here, but left as it is."""
    return Path(os.path.realpath(path))
