"""Measure how good animated videos are, by a named protocol, with intervals.

    stableanimator evaluate --generated DIR --truth DIR [--references DIR] [--driving DIR] --output RESULT_DIR
    stableanimator evaluate --pairs LIST.csv --protocol disco --output RESULT_DIR --i3d rgb_imagenet.pt
    stableanimator evaluate --checkpoint DIR --dataset DATASET --output RESULT_DIR
    stableanimator evaluate merge RESULT_DIR RESULT_DIR --output RESULT_DIR
    stableanimator evaluate compare RESULT_DIR RESULT_DIR

Leaves RESULT_DIR/report.html to look at, result.md, result.csv with every video, and result.json with everything. An
interrupted run goes on by --resume. `merge` puts the results of --shard I/N together; `compare` puts results of one
protocol beside each other. docs/evaluation.md says what is measured, how, and where the networks' weights come from.
Exit status: 0 done, 2 something in the input is wrong (one line on stderr says what; of single videos after the result
of the others was written), 130 interrupted.
"""

import dataclasses
from collections.abc import Sequence
from pathlib import Path
from typing import Any, NoReturn, TypeVar

from stableanimator_jax.commands import called
from stableanimator_jax.files import absolute_path
from stableanimator_jax.scripts.cli import config_file, flag_value, leave, parse_flags, run_script
from stableanimator_jax.scripts.evaluate.settings import CompareConfig, EvaluateConfig, MergeConfig, Samples
from stableanimator_jax.scripts.sample.settings import DRAWN_PEOPLE, kind_of, published
from stableanimator_jax.shipped import EMBEDDED

T = TypeVar("T")


def main(argv: Sequence[str]) -> None:
    """Parse the command line and run. Raises `InputError`."""
    if argv and argv[0] in ("merge", "compare"):
        (_merge if argv[0] == "merge" else _compare)(argv[1:])
        return
    checkpoint = flag_value(argv, "--checkpoint")
    sample = DRAWN_PEOPLE if checkpoint in (None, EMBEDDED) else published(kind_of(checkpoint))
    samples = Samples(sampling=sample.sampling, hjb=dataclasses.replace(sample.hjb, iterations=0))
    config, flags = config_file(argv, EvaluateConfig(samples=samples))
    config = parse_flags(flags, config, prog=called("evaluate"), description=__doc__ or "")

    from stableanimator_jax.scripts.evaluate.run import run  # OpenCV, JAX and others: slow, and not for --help

    try:
        run(_absolute(config), _command(argv))
    except KeyboardInterrupt as e:
        raise KeyboardInterrupt("interrupted: the same command goes on by --resume") from e


def _merge(argv: Sequence[str]) -> None:
    config = parse_flags(argv, MergeConfig(), prog=f"{called('evaluate')} merge", description=MergeConfig.__doc__ or "")
    from stableanimator_jax.scripts.evaluate.run import merge

    merge(_absolute(config), _command(["merge", *argv]))


def _compare(argv: Sequence[str]) -> None:
    config = parse_flags(
        argv, CompareConfig(), prog=f"{called('evaluate')} compare", description=CompareConfig.__doc__ or ""
    )
    from stableanimator_jax.scripts.evaluate.compare import compare

    compare(config)


def _command(argv: Sequence[str]) -> list[str]:
    return [*called("evaluate").split(), *argv]


def _absolute(config: T) -> T:
    """With every path absolute."""
    changes: dict[str, Any] = {}
    for field in dataclasses.fields(config):  # pyright: ignore[reportArgumentType]
        value = getattr(config, field.name)
        if isinstance(value, Path):
            changes[field.name] = absolute_path(value)
        elif isinstance(value, tuple):
            changes[field.name] = tuple(absolute_path(v) if isinstance(v, Path) else v for v in value)
    return dataclasses.replace(config, **changes)  # pyright: ignore[reportArgumentType, reportReturnType]


def script(argv: Sequence[str] | None = None) -> NoReturn:
    """The program `evaluate.py`, or `stableanimator evaluate`."""
    leave(run_script(main, argv))
