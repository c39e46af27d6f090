"""The models that a run leaves for inference: what it trained, and all else bit for bit as it was in --init-from."""

from collections.abc import Iterator, Mapping
from typing import Any

import jax
import jax.numpy as jnp

from stableanimator_jax.errors import InputError
from stableanimator_jax.hosts import everywhere, warn
from stableanimator_jax.models.functional import Blueprint
from stableanimator_jax.training.config import TrainableConfig
from stableanimator_jax.training.trainable import Params, changed
from stableanimator_jax.weights.checkpoint import describe, stored_params, stream_arrays
from stableanimator_jax.weights.opening import CheckpointSource
from stableanimator_jax.weights.rules import Path, dotted, flatten


class Export:
    """Puts models together for checkpoints. Frozen parameters that are held rounded are read again from `source`, which
    training began from: one part of its checkpoint at a time, into the shards that training has, so that neither
    devices nor hosts keep a second copy.
    """

    def __init__(
        self,
        source: CheckpointSource,
        blueprints: Mapping[str, Blueprint[Any]],
        frozen: Params,
        trainable: TrainableConfig,
    ):
        self._source, self._frozen, self._trainable = source, frozen, trainable
        self._paths = {
            model: {dotted(path): path for path in flatten(made_from.abstract_params())}
            for model, made_from in blueprints.items()
        }
        self._description = describe(source.path)
        # By model, shape and dtype in the source of what cannot be had from what is held.
        self._dtypes: dict[str, dict[str, Any]] = {}
        self._rounded: dict[str, dict[str, jax.ShapeDtypeStruct]] = {}
        for model, held in frozen.items():
            stored = stored_params(source.path, model) if held else {}
            self._dtypes[model] = {name: stored[name].dtype for name in held}
            self._rounded[model] = {
                name: jax.ShapeDtypeStruct(leaf.shape, stored[name].dtype, sharding=leaf.sharding)
                for name, leaf in held.items()
                if leaf.dtype not in (stored[name].dtype, jnp.float32)  # which holds what is stored exactly
            }

    def models(self, trained: Params) -> dict[str, Iterator[tuple[Path, jax.Array]]]:
        """Every model's parameters, made one after the other; to be called and used up by all processes together.

        Trained ones are float32, and so are those that low-rank changes were added to; the others as in the source.
        Where that is no longer what it was, a warning says so, and what is held is given instead: a long run is not
        lost for it.
        """
        exact = not any(self._rounded.values()) or everywhere(self._source_is_as_it_was())
        if not exact:
            warn(
                f"{self._source.path} is not as it was when the run began: what is not trained is saved as the run "
                "holds it, rounded to the dtype that it computes in"
            )
        return {model: self._parameters(model, trained.get(model, {}), exact=exact) for model in self._paths}

    def _parameters(self, model: str, own: dict[str, jax.Array], *, exact: bool) -> Iterator[tuple[Path, jax.Array]]:
        paths, held = self._paths[model], self._frozen[model]
        again = self._rounded[model] if exact else {}
        if again:
            for name, array in stream_arrays(self._source.path, model, again):
                yield paths[name], changed(array, own, name, self._trainable)
        for name, path in paths.items():
            if name in own:
                yield path, own[name]
            elif name not in again:
                dtype = held[name].dtype if name in self._rounded[model] else self._dtypes[model][name]
                yield path, changed(held[name].astype(dtype), own, name, self._trainable)

    def _source_is_as_it_was(self) -> bool:
        try:
            return describe(self._source.path) == self._description
        except InputError:
            return False
