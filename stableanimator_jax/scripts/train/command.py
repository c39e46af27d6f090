"""Train or finetune StableAnimator, on one device or on many.

    stableanimator train train_tiny --data.dataset DIR              a small model, on a laptop
    stableanimator train train_512 --data.dataset DIR --output RUN  the published training, on a GPU
    stableanimator train CONFIG ... --resume                        go on where the run in --output stopped

CONFIG is a Python file, or the name of one that comes with the package; --list-configs names them.
docs/training.md has recipes for GPUs and TPU pods. Exit status: 0 done, 2 something in the input is wrong (one line on
stderr says what), 130 interrupted: what was done is saved.
"""

from collections.abc import Sequence
from typing import NoReturn

from stableanimator_jax.commands import called
from stableanimator_jax.scripts.cli import leave, parse, run_script
from stableanimator_jax.training.config import TrainConfig


def main(argv: Sequence[str]) -> None:
    """Parse the command line and train. Raises `InputError`."""
    config = parse(argv, TrainConfig(), prog=called("train"), description=__doc__ or "")

    from stableanimator_jax.scripts.train.run import run  # slow to import, and not for --help

    run(config)


def script(argv: Sequence[str] | None = None) -> NoReturn:
    """The program `train.py`, or `stableanimator train`."""
    status = run_script(main, argv)
    leave(status, at_once=status != 0)
