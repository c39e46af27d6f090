"""A checkpoint of this project to the files that PyTorch's code and its ecosystem load.

OUTPUT/SVD/             a pipeline in diffusers' layout; its UNet is without the ID adapter, which SVD has not
OUTPUT/Animation/       unet, pose_net, face_encoder and glintr100_torch, and this project's config.json
"""

import json
import sys
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Literal

import numpy as np
from tqdm import tqdm

from stableanimator_jax.config import StableAnimatorConfig
from stableanimator_jax.errors import InputError
from stableanimator_jax.files import replacing_directory, require_room
from stableanimator_jax.weights.checkpoint import describe, stored_params, stream_params
from stableanimator_jax.weights.opening import CheckpointSource, open_checkpoint
from stableanimator_jax.weights.published_configs import svd_configs
from stableanimator_jax.weights.rules import Assignment, Shape, dotted, plan_export
from stableanimator_jax.weights.state_dict_writers import FileFormat, require_writer, write_pth, write_safetensors
from stableanimator_jax.weights.tables import is_id_adapter_key, tables

# Where each model goes. The UNet goes to both places.
_SVD_FILES = {
    "unet": "SVD/unet/diffusion_pytorch_model",
    "vae": "SVD/vae/diffusion_pytorch_model",
    "image_encoder": "SVD/image_encoder/model",
}
_NETWORK_FILES = {
    "unet": "Animation/unet",
    "pose_net": "Animation/pose_net",
    "face_encoder": "Animation/face_encoder",
    "arcface": "Animation/glintr100_torch",
}

_DIFFUSERS_GROUPS = 32  # of AutoencoderKLTemporalDecoder, which has no setting for it

Precision = Literal["float32", "float16"]


def export_weights(
    checkpoint: str,
    output: Path,
    *,
    file_format: FileFormat = "pth",
    dtype: Precision = "float32",
    show_progress: bool = False,
) -> tuple[Path, ...]:
    """Write a checkpoint's models as PyTorch's files, all or nothing.

    A model that PyTorch's code cannot build is left out, with a warning that says why.

    Args:
        checkpoint: a checkpoint directory, or "embedded".
        output: the directory to make; it must not exist, or be empty.
        file_format: of the files in `Animation/`; those in `SVD/` are safetensors always.
        dtype: "float16" for files half as large; those in `SVD/` are then diffusers' variant "fp16". ArcFace, whose
            statistics need not fit into it, stays float32.
        show_progress: bars on stderr.

    Returns:
        the files written.

    Raises:
        InputError: the checkpoint cannot be read, nothing in it can be exported, a value is too large for float16,
            or `output` cannot be written; then nothing is left of it.
    """
    source = open_checkpoint(checkpoint)
    require_writer(file_format)
    models = describe(source.path).models
    if "vae" in models and source.config.vae.norm_num_groups != _DIFFUSERS_GROUPS:
        models = tuple(model for model in models if model != "vae")
        why = (
            f"its VAE has norms of {source.config.vae.norm_num_groups} groups, and the VAE in PyTorch that would read "
            f"it always has {_DIFFUSERS_GROUPS}"
        )
        if not models:
            raise InputError(f"checkpoint {checkpoint} cannot be exported: {why}")
        print(f"warning: the VAE is left out: {why}; what is in SVD/ is no whole pipeline", file=sys.stderr)
    exports = {model: _Export.plan(source, model, "float32" if model == "arcface" else dtype) for model in models}
    variant = ".fp16" if dtype == "float16" else ""
    require_room(output, sum(e.bytes * ((m in _SVD_FILES) + (m in _NETWORK_FILES)) for m, e in exports.items()))
    with replacing_directory(output.resolve(), label=str(output)) as directory:
        if output.exists() and not output.is_dir():
            raise InputError(f"cannot export to {output}: it is a file; name a directory")
        if output.exists() and any(output.iterdir()):
            raise InputError(f"will not export into {output}, which is not empty; choose another --output")
        for model, stem in _SVD_FILES.items():
            if model in models:
                place = _made(directory / f"{stem}{variant}.safetensors")
                exports[model].write(place, "safetensors", id_adapter=False, show_progress=show_progress)
        for model, stem in _NETWORK_FILES.items():
            if model in models:
                place = _made(directory / f"{stem}.{file_format}")
                exports[model].write(place, file_format, id_adapter=True, show_progress=show_progress)
        _write_configs(directory, source.config, models)
        written = sorted(path.relative_to(directory) for path in directory.rglob("*") if path.is_file())
    return tuple(output / path for path in written)


@dataclass(frozen=True)
class _Export:
    """One model on its way out."""

    source: CheckpointSource
    model: str
    dtype: Precision
    assignments: dict[str, Assignment]
    """By dotted parameter name, in the order in which the checkpoint gives them."""
    counters: tuple[str, ...]
    """Keys that torch's batch norms have beside what this project keeps: how many steps they were trained."""

    @classmethod
    def plan(cls, source: CheckpointSource, model: str, dtype: Precision) -> "_Export":
        table = tables(source.config)[model]
        plan = plan_export(table, stored_params(source.path, model))
        means = (a.key.removesuffix("running_mean") for a in plan if a.key.endswith(".running_mean"))
        counters = tuple(f"{m}num_batches_tracked" for m in means)
        return cls(source, model, dtype, {dotted(a.path): a for a in plan}, counters)

    @property
    def bytes(self) -> int:
        return sum(np.dtype(self.dtype).itemsize * int(np.prod(a.source_shape)) for a in self.assignments.values())

    def write(self, path: Path, file_format: FileFormat, *, id_adapter: bool, show_progress: bool) -> None:
        chosen = {n: a for n, a in self.assignments.items() if id_adapter or not is_id_adapter_key(a.key)}
        counter: tuple[Shape, str] = ((), "int64")
        layout = {a.key: (a.source_shape, self.dtype) for a in chosen.values()} | dict.fromkeys(self.counters, counter)
        tensors = self._tensors(chosen)
        title = "/".join(path.parts[-2:])
        with tqdm(tensors, title, len(layout), unit=" tensors", disable=not show_progress) as bar:
            if file_format == "safetensors":
                write_safetensors(path, layout, bar)
            else:
                write_pth(path, bar)

    def _tensors(self, chosen: dict[str, Assignment]) -> Iterator[tuple[str, np.ndarray]]:
        for name, array in stream_params(self.source.path, self.model):
            if name in chosen:
                a = chosen[name]
                whole = np.array(a.transform.inverse(array), np.float32, order="C")
                with np.errstate(over="ignore"):
                    written = whole.astype(self.dtype, copy=False)
                if (np.isinf(written) & np.isfinite(whole)).any():
                    raise InputError(f"{name} of {self.model} has values beyond 65504, float16's largest: give float32")
                yield a.key, written
        for key in self.counters:
            yield key, np.zeros((), np.int64)


def _write_configs(directory: Path, config: StableAnimatorConfig, models: tuple[str, ...]) -> None:
    whole_pipeline = set(_SVD_FILES) <= set(models)
    for name, content in svd_configs(config).items():
        if whole_pipeline or name.split("/")[0] in models:
            _write_json(directory / "SVD" / name, content)
    if set(_NETWORK_FILES) & set(models):
        _write_json(directory / "Animation" / "config.json", config.to_dict())


def _write_json(path: Path, content: object) -> None:
    _made(path).write_text(json.dumps(content, indent=2) + "\n", encoding="utf-8")


def _made(path: Path) -> Path:
    path.parent.mkdir(parents=True, exist_ok=True)
    return path
