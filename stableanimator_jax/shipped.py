"""What ships in this package beside its code: a small checkpoint, called `embedded`, and an example."""

import importlib.resources
from pathlib import Path

from stableanimator_jax.data.files import require_local
from stableanimator_jax.errors import InputError
from stableanimator_jax.weights.run_folder import find_weights

EMBEDDED = "embedded"
_ASSETS = Path(str(importlib.resources.files("stableanimator_jax") / "assets"))
EXAMPLE = _ASSETS / "example"


def checkpoint_path(name: str) -> Path:
    """The directory of a checkpoint: the one in this package for the name "embedded", else the one named.

    Of a training run's folder it is its last weights.

    Raises:
        InputError: it is a URL, or such a folder without weights.
    """
    require_local(name)
    if name == EMBEDDED:
        return _ASSETS / "weights"
    try:
        return find_weights(Path(name))
    except OSError as e:
        raise InputError(f"cannot read checkpoint {name}: {e.strerror}") from e


def is_shipped(path: Path) -> bool:
    """Whether a file is of this package, wherever that may lie."""
    return path.is_relative_to(_ASSETS)
