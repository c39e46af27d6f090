"""Whether something large can be written, asked before anything is read for it."""

import os
import shutil
from pathlib import Path

from stableanimator_jax.errors import InputError


def require_room(output: Path, needed: int) -> None:
    """Check that `output` can be made and that its disk has `needed` bytes left.

    Raises:
        InputError: the nearest directory that exists cannot be written, or is on a disk that is too full.
    """
    place = output.resolve().parent
    while not place.exists():
        place = place.parent
    if not place.is_dir() or not os.access(place, os.W_OK | os.X_OK):
        raise InputError(f"cannot write {output}: {place} is not a directory that can be written; choose another")
    free = shutil.disk_usage(place).free
    if free < needed:
        raise InputError(
            f"{output} needs up to {needed / 1e6:,.0f} MB, but {place} has {free / 1e6:,.0f} MB free: make room, or "
            "choose another --output"
        )
