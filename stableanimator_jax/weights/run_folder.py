"""A training run's folder where a checkpoint is wanted: its last weights are meant.

RUN/checkpoints/STEP/weights is a checkpoint; RUN, RUN/checkpoints and RUN/checkpoints/STEP all lead to one.
"""

from pathlib import Path

from stableanimator_jax.errors import InputError, as_input_error
from stableanimator_jax.files import require_local
from stableanimator_jax.shipped import EMBEDDED, EMBEDDED_WEIGHTS

CHECKPOINTS, WEIGHTS, _MARK = "checkpoints", "weights", "config.json"


def find_weights(path: Path) -> Path:
    """The checkpoint that a path means: the last weights of a training run's folder, anything else itself.

    Raises:
        InputError: the folder is a training run's that has saved no weights.
        OSError: it cannot be looked into.
    """
    if (path / WEIGHTS / _MARK).is_file():  # RUN/checkpoints/STEP
        return path / WEIGHTS
    inside = path if path.name == CHECKPOINTS else path / CHECKPOINTS
    if not inside.is_dir():
        return path
    # Orbax renames a step's folder to its number when it is whole.
    steps = [int(f.name) for f in inside.iterdir() if f.name.isdecimal() and (f / WEIGHTS / _MARK).is_file()]
    if not steps:
        raise InputError(f"{path} is the folder of a training run that has saved no weights yet")
    return inside / str(max(steps)) / WEIGHTS


def checkpoint_path(name: str) -> Path:
    """The directory of a checkpoint: the one in this package for the name "embedded", else the one named.

    Of a training run's folder it is its last weights.

    Raises:
        InputError: it is a URL, or such a folder without weights.
    """
    require_local(name)
    if name == EMBEDDED:
        return EMBEDDED_WEIGHTS
    with as_input_error(f"cannot read checkpoint {name}"):
        return find_weights(Path(name))
