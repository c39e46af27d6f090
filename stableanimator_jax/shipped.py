"""What ships in this package beside its code: a small checkpoint, called `embedded`, an example, and config files."""

import importlib.resources
from pathlib import Path

EMBEDDED = "embedded"
_PACKAGE = Path(str(importlib.resources.files("stableanimator_jax")))
_ASSETS = _PACKAGE / "assets"
EXAMPLE = _ASSETS / "example"
EMBEDDED_WEIGHTS = _ASSETS / "weights"
# In the repository they lie at the top, where people look for them; setup.py puts them into the wheel.
CONFIGS = next((p for p in [_PACKAGE / "configs"] if p.is_dir()), _PACKAGE.parent / "configs")


def is_shipped(path: Path) -> bool:
    """Whether a file is of this package, wherever that may lie."""
    return path.is_relative_to(_ASSETS)
