"""Models in the layout of `weights.checkpoint` as one item of a larger Orbax checkpoint, saved in the background.

Orbax renames the whole checkpoint into place once all its items are written, so this one appears or vanishes with the
others; and `config.json`, without which it is no checkpoint of its own, comes last.
"""

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any

import orbax.checkpoint as ocp
from etils import epath

from stableanimator_jax.config import StableAnimatorConfig
from stableanimator_jax.weights.checkpoint import Parameters, cut, make_description, write_description


class ModelsHandler(ocp.AsyncCheckpointHandler):
    """Writes `SaveModels`. What it has written is read by `weights.checkpoint`, not by Orbax."""

    def __init__(self):
        self._arrays = ocp.StandardCheckpointHandler()
        self._parts: list[str] = []
        self._description: dict[str, Any] = {}

    async def async_save(self, directory: epath.Path, args: "SaveModels") -> list[Any]:
        """Copy everything to this host, and begin to write it; called by every process."""
        self._description = make_description(args.config, args.source)
        self._parts, begun = [], []
        for model, parameters in args.models.items():
            for name, arrays in cut(parameters):
                self._parts.append(f"{model}/{name}")
                part = directory / model / name
                part.mkdir(parents=True, exist_ok=True)  # by all, rather than wait for the one who would
                begun += await self._arrays.async_save(part, args=ocp.args.StandardSave(arrays)) or []
        return begun

    def finalize(self, directory: epath.Path) -> None:
        """Called by the first process, once all have written everything."""
        for part in self._parts:
            self._arrays.finalize(directory / part)
        write_description(directory, self._description)

    def save(self, directory: epath.Path, args: "SaveModels") -> None:
        raise NotImplementedError("Orbax saves through async_save, whether it waits for the end or not")

    def restore(self, directory: epath.Path, args: Any = None) -> None:
        raise NotImplementedError("read it with weights.checkpoint")

    def close(self) -> None:
        self._arrays.close()


@ocp.args.register_with_handler(ModelsHandler, for_save=True)
@dataclass
class SaveModels(ocp.args.CheckpointArgs):
    """Models to save as one item of a checkpoint; what `weights.checkpoint.save_checkpoint` takes."""

    config: StableAnimatorConfig
    """The configuration of all models, of those that are not saved too."""
    models: Mapping[str, Parameters]
    """By model name, its parameters as a nested dict, or as pairs of path and array that are made one after the other.
    Arrays may be spread over several processes."""
    source: Mapping[str, Any] = field(default_factory=dict)
    """Anything worth keeping about the weights' origin, as JSON takes it."""
