"""The weights with the lowest validation loss of a run, kept beside its checkpoints."""

import math
from pathlib import Path

from stableanimator_jax.weights.checkpoint import describe, require_replaceable, save_checkpoint
from stableanimator_jax.weights.checkpoint_item import SaveModels

BEST = "best"
LOSS = "validation_loss"


class Best:
    """OUTPUT/best, a checkpoint for inference whose `source` has the loss.

    Args:
        output: the run's directory, on a file system that all processes share.
        resumed: whether the run goes on; else what is there is an earlier run's, and is replaced.

    Raises:
        InputError: something else is there.
    """

    def __init__(self, output: Path, *, resumed: bool):
        self.place = output / BEST
        self.loss = math.inf
        require_replaceable(self.place, overwrite=True)
        if resumed and self.place.exists():
            self.loss = float(describe(self.place).source.get(LOSS, math.inf))

    def keep(self, loss: float, weights: SaveModels) -> None:
        """Keep these models instead of those before. By all processes together. Raises `InputError`."""
        source = {**weights.source, LOSS: loss}
        save_checkpoint(self.place, weights.config, weights.models, source, overwrite=True)
        self.loss = loss
