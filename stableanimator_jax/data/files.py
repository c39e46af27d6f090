"""The first check on every input file, so that each reader need only explain what it cannot read."""

from pathlib import Path

from stableanimator_jax.errors import InputError


def require_file(path: Path, what: str) -> None:
    """Raise `InputError` unless `path` is a non-empty file. `what` names it in the message, as in "video"."""
    try:
        if path.is_dir():
            raise InputError(f"{what} {path} is a directory; give a file")
        size = path.stat().st_size
        with path.open("rb"):
            pass
    except FileNotFoundError:
        raise InputError(f"{what} {path} does not exist") from None
    except OSError as e:
        raise InputError(f"cannot read {what} {path}: {e.strerror}") from e
    if size == 0:
        raise InputError(f"{what} {path} is empty (0 bytes)")
