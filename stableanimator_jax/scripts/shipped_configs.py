"""The config files that come with the package, by their names."""

import ast
import difflib
from pathlib import Path

from stableanimator_jax.errors import InputError
from stableanimator_jax.shipped import CONFIGS


def shipped_configs() -> dict[str, Path]:
    """All of them, whatever command they are for: name to file."""
    return {path.stem: path for path in sorted(CONFIGS.glob("[!_]*.py"))}


def config_path(name: str) -> Path:
    """The file that a first argument means: a path that ends in `.py`, or else the name of one that comes with us.

    Raises:
        InputError: there is none of that name; the nearest ones are named.
    """
    if name.endswith(".py"):
        return Path(name)
    configs = shipped_configs()
    if name not in configs:
        near = difflib.get_close_matches(name, configs)
        meant = f"did you mean {' or '.join(near)}?" if near else "give a CONFIG.py, or a name of --list-configs"
        raise InputError(f"there is no config {name}; {meant}")
    return configs[name]


def first_line(path: Path) -> str:
    """What a config file says of itself."""
    return (ast.get_docstring(ast.parse(path.read_text(encoding="utf-8"))) or "").partition("\n")[0]
