"""Checkpoints by name: a directory, or the word `embedded` for the tiny default that ships in this package."""

from dataclasses import dataclass
from pathlib import Path

from stableanimator_jax.config import StableAnimatorConfig
from stableanimator_jax.weights.checkpoint import load_config

EMBEDDED = "embedded"


@dataclass(frozen=True)
class CheckpointSource:
    """Where weights come from."""

    config: StableAnimatorConfig
    path: Path | None
    """The checkpoint directory; None where there are no trained weights, and random ones stand in."""


def open_checkpoint(name: str) -> CheckpointSource:
    """Find a checkpoint and read its configuration; weights are not touched.

    Args:
        name: a checkpoint directory, or "embedded".

    Raises:
        InputError: there is no such directory, or it is not a checkpoint.
    """
    if name == EMBEDDED:
        # No trained weights exist yet at a size that could ship.
        return CheckpointSource(StableAnimatorConfig.tiny(), None)
    return CheckpointSource(load_config(Path(name)), Path(name))
