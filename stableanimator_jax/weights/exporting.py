"""A checkpoint of this project to the files that PyTorch's code and its ecosystem load.

OUTPUT/SVD/             a pipeline in diffusers' layout; its UNet is without the ID adapter, which SVD has not

and by the checkpoint's kind

OUTPUT/Animation/       StableAnimator: unet, pose_net, face_encoder, glintr100_torch, this project's config.json
OUTPUT/MimicMotion.pth  MimicMotion: UNet and PoseNet
OUTPUT/AnimateLCM-SVD-xt.safetensors  AnimateLCM-SVD: UNet
OUTPUT/ControlNeXt/     ControlNeXt: unet and controlnet
OUTPUT/glintr100_torch  of all but StableAnimator: ArcFace, where the checkpoint has it
"""

import json
from collections.abc import Collection, Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from itertools import chain
from pathlib import Path
from typing import Literal, NamedTuple

import numpy as np
from tqdm import tqdm

from stableanimator_jax.config import Kind, StableAnimatorConfig
from stableanimator_jax.errors import InputError
from stableanimator_jax.family import FAMILY
from stableanimator_jax.files import replacing_directory, require_room
from stableanimator_jax.weights.checkpoint import describe, stored_params, stream_params
from stableanimator_jax.weights.opening import CheckpointSource, open_checkpoint
from stableanimator_jax.weights.published_configs import svd_configs
from stableanimator_jax.weights.rules import Assignment, Shape, dotted, plan_export
from stableanimator_jax.weights.state_dict_writers import FileFormat, require_writer, write_pth, write_safetensors
from stableanimator_jax.weights.tables import is_id_adapter_key, tables
from stableanimator_jax.weights.wider_vae import DIFFUSERS_GROUPS, vae_shapes, widen, wider


@dataclass(frozen=True)
class _File:
    """A file to write."""

    stem: str
    """Its path in the output, without suffix."""
    prefixes: Mapping[str, str]
    """The models in it, each with what its keys begin with there."""
    suffix: str = "pth"
    """As it is published. A `.safetensors` file is one whatever format is asked for."""
    id_adapter: bool = False
    """Whether the UNet's goes along."""

    def held(self, models: Collection[str]) -> dict[str, str]:
        """Those of its models that there are."""
        return {model: prefix for model, prefix in self.prefixes.items() if model in models}

    def name(self, file_format: FileFormat, variant: str) -> str:
        end = self.suffix if file_format == "pth" else file_format
        return f"{self.stem}{variant if self in _SVD else ''}.{end}"


_SVD = tuple(
    _File(f"SVD/{model}/{stem}", {model: ""}, "safetensors")
    for model, stem in (
        ("unet", "diffusion_pytorch_model"),
        ("vae", "diffusion_pytorch_model"),
        ("image_encoder", "model"),
    )
)
_ANIMATION = "Animation"
_ARCFACE = _File("glintr100_torch", {"arcface": ""})
_OWN: dict[Kind, tuple[_File, ...]] = {
    "stableanimator": (
        _File(f"{_ANIMATION}/unet", {"unet": ""}, id_adapter=True),
        _File(f"{_ANIMATION}/pose_net", {"pose_net": ""}),
        _File(f"{_ANIMATION}/face_encoder", {"face_encoder": ""}),
        _File(f"{_ANIMATION}/glintr100_torch", {"arcface": ""}),
    ),
    "mimicmotion": (_File("MimicMotion", {"unet": "unet.", "pose_net": "pose_net."}), _ARCFACE),
    "svd": (_ARCFACE,),
    "animatelcm": (_File("AnimateLCM-SVD-xt", {"unet": ""}, "safetensors"), _ARCFACE),
    "controlnext": (
        _File("ControlNeXt/unet", {"unet": ""}, "bin"),
        _File("ControlNeXt/controlnet", {"control_net": ""}, "bin"),
        _ARCFACE,
    ),
}
"""What each system is published as beside SVD's folder. The UNet goes to both places."""

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

    A VAE with fewer groups than PyTorch's class always has is written as the wider one that computes the same.

    Args:
        checkpoint: a checkpoint directory, or "embedded".
        output: the directory to make; it must not exist, or be empty.
        file_format: of the files beside `SVD/`; those in it, and AnimateLCM-SVD's, are safetensors always.
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
    as_published = source.config
    if "vae" in models:
        as_published = replace(source.config, vae=wider(source.config.vae))
        if (groups := as_published.vae.norm_num_groups) != DIFFUSERS_GROUPS:
            raise InputError(
                f"checkpoint {checkpoint} cannot be exported: its VAE has norms of {groups} groups, and the VAE in "
                f"PyTorch that would read it always has {DIFFUSERS_GROUPS}"
            )
    files = [(file, held) for file in (*_SVD, *_OWN[source.config.kind]) if (held := file.held(models))]
    if not files:
        raise InputError(
            f"checkpoint {checkpoint} cannot be exported: of {FAMILY[source.config.kind].title} it has none of the "
            f"models that are published, only {', '.join(models)}"
        )
    exported = {model for _, held in files for model in held}
    plans = {model: _Export.plan(source, model, "float32" if model == "arcface" else dtype) for model in exported}
    if as_published != source.config:
        plans["vae"] = replace(plans["vae"], shapes=vae_shapes(as_published))
    variant = ".fp16" if dtype == "float16" else ""
    require_room(output, sum(plans[model].bytes for _, held in files for model in held))
    with replacing_directory(output.resolve(), label=str(output)) as directory:
        if output.exists() and not output.is_dir():
            raise InputError(f"cannot export to {output}: it is a file; name a directory")
        if output.exists() and any(output.iterdir()):
            raise InputError(f"will not export into {output}, which is not empty; choose another --output")
        for file, held in files:
            parts = [plans[model].part(prefix, id_adapter=file.id_adapter) for model, prefix in held.items()]
            _write(_made(directory / file.name(file_format, variant)), parts, show_progress)
        _write_configs(directory, source.config, as_published, models)
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
    shapes: dict[str, Shape]
    """That are written, by key: larger than the parameters' own where PyTorch's code must have the model wider."""
    counters: tuple[str, ...]
    """Keys that torch's batch norms have beside what this project keeps: how many steps they were trained."""

    @classmethod
    def plan(cls, source: CheckpointSource, model: str, dtype: Precision) -> "_Export":
        table = tables(source.config)[model]
        plan = plan_export(table, stored_params(source.path, model))
        means = (a.key.removesuffix("running_mean") for a in plan if a.key.endswith(".running_mean"))
        counters = tuple(f"{m}num_batches_tracked" for m in means)
        shapes = {a.key: a.source_shape for a in plan}
        return cls(source, model, dtype, {dotted(a.path): a for a in plan}, shapes, counters)

    @property
    def bytes(self) -> int:
        return sum(np.dtype(self.dtype).itemsize * int(np.prod(shape)) for shape in self.shapes.values())

    def part(self, prefix: str, *, id_adapter: bool) -> "_Part":
        """Its tensors as a file takes them, under a prefix."""
        chosen = {n: a for n, a in self.assignments.items() if id_adapter or not is_id_adapter_key(a.key)}
        counter: tuple[Shape, str] = ((), "int64")
        layout = {a.key: (self.shapes[a.key], self.dtype) for a in chosen.values()} | dict.fromkeys(
            self.counters, counter
        )
        tensors = ((prefix + key, array) for key, array in self._tensors(chosen))
        return _Part({prefix + key: place for key, place in layout.items()}, tensors)

    def _tensors(self, chosen: dict[str, Assignment]) -> Iterator[tuple[str, np.ndarray]]:
        for name, array in stream_params(self.source.path, self.model):
            if name in chosen:
                a = chosen[name]
                whole = np.array(a.transform.inverse(array), np.float32, order="C")
                if whole.shape != self.shapes[a.key]:
                    whole = widen(a.key, whole, self.shapes[a.key])
                with np.errstate(over="ignore"):
                    written = whole.astype(self.dtype, copy=False)
                if (np.isinf(written) & np.isfinite(whole)).any():
                    raise InputError(f"{name} of {self.model} has values beyond 65504, float16's largest: give float32")
                yield a.key, written
        for key in self.counters:
            yield key, np.zeros((), np.int64)


class _Part(NamedTuple):
    """One model in a file: every tensor's shape and dtype, and the tensors in that order."""

    layout: dict[str, tuple[Shape, str]]
    tensors: Iterator[tuple[str, np.ndarray]]


def _write(path: Path, parts: Sequence[_Part], show_progress: bool) -> None:
    layout = {key: place for part in parts for key, place in part.layout.items()}
    tensors = chain.from_iterable(part.tensors for part in parts)
    title = "/".join(path.parts[-2:])
    with tqdm(tensors, title, len(layout), unit=" tensors", disable=not show_progress) as bar:
        if path.suffix == ".safetensors":
            write_safetensors(path, layout, bar)
        else:
            write_pth(path, bar)


def _write_configs(
    directory: Path, config: StableAnimatorConfig, as_published: StableAnimatorConfig, models: tuple[str, ...]
) -> None:
    whole_pipeline = {"unet", "vae", "image_encoder"} <= set(models)
    for name, content in svd_configs(as_published).items():
        if whole_pipeline or name.split("/")[0] in models:
            _write_json(directory / "SVD" / name, content)
    if (directory / _ANIMATION).exists():
        _write_json(directory / _ANIMATION / "config.json", config.to_dict())


def _write_json(path: Path, content: object) -> None:
    _made(path).write_text(json.dumps(content, indent=2) + "\n", encoding="utf-8")


def _made(path: Path) -> Path:
    path.parent.mkdir(parents=True, exist_ok=True)
    return path
