"""Checkpoints by name: a directory, one on the Hugging Face hub, or `embedded`, the small one in this package."""

from dataclasses import dataclass
from pathlib import Path
from typing import TypeVar

import jax
from flax import nnx
from jax.sharding import Mesh

from stableanimator_jax.config import StableAnimatorConfig
from stableanimator_jax.models.functional import Blueprint, Model
from stableanimator_jax.parallel import replicated
from stableanimator_jax.weights.checkpoint import MODELS, describe, load_params
from stableanimator_jax.weights.hub import is_on_hub, local_directory
from stableanimator_jax.weights.run_folder import checkpoint_path

M = TypeVar("M", bound=nnx.Module)
_FILES = ("config.json", *(f"{model}/*" for model in MODELS))


@dataclass(frozen=True)
class CheckpointSource:
    """Where weights come from."""

    config: StableAnimatorConfig
    path: Path

    def load(self, name: str, blueprint: Blueprint[M], mesh: Mesh | None = None) -> Model[M]:
        """One model, copied to each device of a mesh, or else on JAX's default device.

        Raises:
            InputError: as `checkpoint.load_params`.
        """
        sharding = replicated(mesh)
        placed = jax.tree.map(
            lambda leaf: jax.ShapeDtypeStruct(leaf.shape, leaf.dtype, sharding=sharding), blueprint.abstract_params()
        )
        return Model(load_params(self.path, name, placed), blueprint)


def open_checkpoint(name: str) -> CheckpointSource:
    """Find a checkpoint and read its configuration; weights are not touched.

    Args:
        name: a checkpoint directory, a training run's folder (its last weights), "embedded", or
            `hf://OWNER/REPOSITORY[@REVISION]`, whose files are a checkpoint's and are downloaded first.

    Raises:
        InputError: there is no such directory or repository, or it is not a checkpoint.
    """
    path = local_directory(name, _FILES) if is_on_hub(name) else checkpoint_path(name)
    return CheckpointSource(describe(path).config, path)
