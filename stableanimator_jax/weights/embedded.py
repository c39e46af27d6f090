"""Checkpoints by name: a directory, or the word `embedded` for the tiny default that ships in this package."""

from dataclasses import dataclass
from pathlib import Path
from typing import TypeVar

import jax
from flax import nnx
from jax.sharding import Mesh

from stableanimator_jax.config import StableAnimatorConfig
from stableanimator_jax.parallel import replicated
from stableanimator_jax.sampling.models import Blueprint, Model, random_params
from stableanimator_jax.weights.checkpoint import load_config, load_params

EMBEDDED = "embedded"

M = TypeVar("M", bound=nnx.Module)


@dataclass(frozen=True)
class CheckpointSource:
    """Where weights come from."""

    config: StableAnimatorConfig
    path: Path | None
    """The checkpoint directory; None where there are no trained weights, and random ones stand in."""

    def load(self, name: str, blueprint: Blueprint[M], mesh: Mesh | None = None) -> Model[M]:
        """One model, copied to each device of a mesh, or else on JAX's default device.

        Raises:
            InputError: as `checkpoint.load_params`.
        """
        abstract, sharding = blueprint.abstract_params(), replicated(mesh)
        if self.path is None:
            return Model(jax.device_put(random_params(abstract, seed=0), sharding), blueprint)
        placed = jax.tree.map(lambda leaf: jax.ShapeDtypeStruct(leaf.shape, leaf.dtype, sharding=sharding), abstract)
        return Model(load_params(self.path, name, placed), blueprint)


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
