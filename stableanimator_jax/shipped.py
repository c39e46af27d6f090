"""What ships in this package beside its code: a small checkpoint, called `embedded`, and an example."""

import importlib.resources
from pathlib import Path

from stableanimator_jax.data.files import require_local

EMBEDDED = "embedded"
_ASSETS = Path(str(importlib.resources.files("stableanimator_jax") / "assets"))
EXAMPLE = _ASSETS / "example"


def checkpoint_path(name: str) -> Path:
    """The directory of a checkpoint: the one in this package for the name "embedded", else the one named.

    Raises:
        InputError: it is a URL.
    """
    require_local(name)
    return _ASSETS / "weights" if name == EMBEDDED else Path(name)


def is_shipped(path: Path) -> bool:
    """Whether a file is of this package, wherever that may lie."""
    return path.is_relative_to(_ASSETS)
