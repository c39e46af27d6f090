"""What is in a checkpoint, told for people."""

import json
from collections import Counter
from collections.abc import Iterator, Mapping
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

import numpy as np
from tqdm import tqdm

from stableanimator_jax.weights.checkpoint import describe, stored_params, stream_params
from stableanimator_jax.weights.opening import open_checkpoint
from stableanimator_jax.weights.run_folder import CHECKPOINTS, WEIGHTS

_SHOWN = 5


@dataclass(frozen=True)
class ModelReport:
    """One model of a checkpoint."""

    model: str
    config: dict[str, Any]
    parameters: int
    dtypes: dict[str, int]
    """How many parameters are stored in each dtype."""
    bytes_on_disk: int
    not_finite: tuple[str, ...]
    """The names of those with a NaN or an infinite value."""
    origin: Any
    """Where it came from, as its `config.json` has it, or which training run; None where nothing says."""

    def lines(self) -> Iterator[str]:
        dtypes = ", ".join(f"{count:,} in {dtype}" for dtype, count in sorted(self.dtypes.items()))
        disk = self.bytes_on_disk / 1e6
        yield f"{self.model}: {self.parameters:,} parameters ({dtypes}), {disk:,.1f} MB on disk"
        if self.not_finite:
            more = f" and {len(self.not_finite) - _SHOWN} more" if len(self.not_finite) > _SHOWN else ""
            yield f"  NOT FINITE: {', '.join(self.not_finite[:_SHOWN])}{more}"
        else:
            yield "  every value is finite"
        yield f"  configuration: {json.dumps(self.config)}"
        yield from (f"  {line}" for line in _origin_lines(self.origin))


def inspect_checkpoint(checkpoint: str, *, show_progress: bool = False) -> tuple[ModelReport, ...]:
    """Read a whole checkpoint, few parameters at a time, and report on each model in it; `show_progress` on stderr.

    Raises:
        InputError: it is no checkpoint, or is damaged.
    """
    source = open_checkpoint(checkpoint)
    description = describe(source.path)
    reports = []
    for model in description.models:
        tensors, count = stream_params(source.path, model), len(stored_params(source.path, model))
        dtypes: Counter[str] = Counter()
        not_finite = []
        for name, array in tqdm(tensors, model, count, unit=" tensors", disable=not show_progress, leave=False):
            dtypes[array.dtype.name] += array.size
            if not np.isfinite(array).all():
                not_finite.append(name)
        reports.append(
            ModelReport(
                model=model,
                config=asdict(getattr(source.config, model)),
                parameters=dtypes.total(),
                dtypes=dict(dtypes),
                bytes_on_disk=sum(size for file, size in description.files.items() if file.split("/")[0] == model),
                not_finite=tuple(not_finite),
                origin=description.source.get(model) or _training(description.source, source.path),
            )
        )
    return tuple(reports)


def _training(source: Mapping[str, Any], place: Path) -> str | None:
    """Which step of which training run the weights are, for a checkpoint that one left."""
    if "step" not in source:
        return None
    run = source.get("run")
    if run is None and (weights := place.absolute()).match(f"{CHECKPOINTS}/{source['step']}/{WEIGHTS}"):
        run = weights.parents[2]
    words = [f"step {source['step']} of the training run {run}" if run else f"step {source['step']} of a training run"]
    words += ["running mean"] * bool(source.get("ema"))
    words += [f"begun from {source['trained_from']}"] if "trained_from" in source else []
    return ", ".join(words)


def _origin_lines(origin: Any) -> Iterator[str]:
    if isinstance(origin, dict) and isinstance(files := origin.get("files"), list):
        for file in files:
            yield f"from {file['name']}, {file['bytes']:,} bytes, sha256 {file['sha256']}"
        if "note" in origin:
            yield f"({origin['note']})"
    elif origin is None:
        yield "origin not recorded"
    else:
        yield f"origin: {origin if isinstance(origin, str) else json.dumps(origin)}"
