"""What ships in this package beside its code: a small checkpoint, called `embedded`, and an example."""

import importlib.resources
from pathlib import Path

EMBEDDED = "embedded"
_ASSETS = Path(str(importlib.resources.files("stableanimator_jax") / "assets"))
EXAMPLE = _ASSETS / "example"
EMBEDDED_WEIGHTS = _ASSETS / "weights"


def is_shipped(path: Path) -> bool:
    """Whether a file is of this package, wherever that may lie."""
    return path.is_relative_to(_ASSETS)
