"""Write stand-ins for the published files: their layout, names, shapes and dtypes, with made-up values.

    python -m tests.make_stand_ins --output DIR                 the published sizes: 17 GB, some minutes
    python -m tests.make_stand_ins --output DIR --size tiny     the tiny configuration: megabytes, seconds
    python -m tests.make_stand_ins --output DIR --relatives     with what SVD's relatives are published as, too

`DIR/SVD` and `DIR/Animation` are then what convert_weights.py takes. Every value is a function of its name
(tests/golden/reference_weights.py).
"""

import json
import sys
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Annotated, Literal

import numpy as np
import tyro

from stableanimator_jax.config import Kind, PoseNetConfig, StableAnimatorConfig
from stableanimator_jax.errors import InputError
from stableanimator_jax.models.catalogue import blueprint
from stableanimator_jax.scripts.cli import parse_flags, run_script
from stableanimator_jax.weights.published_configs import svd_configs
from stableanimator_jax.weights.rules import Shape, plan_export
from stableanimator_jax.weights.state_dict_writers import FileFormat, require_writer, write_pth, write_safetensors
from stableanimator_jax.weights.tables import is_id_adapter_key, tables
from tests.golden_data import ReferenceWeights, manifest

# File, manifest, prefix of the values' names. SVD's UNet and StableAnimator's are alike where both have a key.
_SVD = {
    "unet/diffusion_pytorch_model": ("unet", "svd_unet"),
    "vae/diffusion_pytorch_model": ("vae", "svd_vae"),
    "image_encoder/model": ("image_encoder", "svd_image_encoder"),
}
_NETWORKS = {
    "unet": ("unet", "stableanimator_unet"),
    "pose_net": ("pose_net", "pose_net"),
    "face_encoder": ("face_encoder", "face_encoder"),
    "glintr100_torch": ("arcface", "arcface_r100"),
}

# By file: its models, each with its prefix there, the prefix of its values' names, and a manifest.
_RELATIVES: dict[Kind, dict[str, dict[str, tuple[str, str, str]]]] = {
    "mimicmotion": {
        "MimicMotion_1-1.pth": {
            "unet": ("unet.", "unet.", "svd_unet"),
            "pose_net": ("pose_net.", "pose_net.", "pose_net"),
        }
    },
    "animatelcm": {"AnimateLCM-SVD-xt.safetensors": {"unet": ("", "unet.", "svd_unet")}},
    "controlnext": {
        "unet.bin": {"unet": ("", "unet.", "svd_unet")},
        "controlnet.bin": {"control_net": ("", "controlnext.", "controlnext")},
    },
}


@dataclass(frozen=True)
class StandInConfig:
    """What to write, and where."""

    output: Annotated[Path | None, tyro.conf.arg(metavar="DIR")] = None
    """The directory to make."""
    size: Literal["published", "tiny"] = "published"
    """Of the models."""
    format: FileFormat = "pth"
    """Of the files in Animation/, and of the relatives'."""
    relatives: bool = False
    """Write mimicmotion/, animatelcm/ and controlnext/ too, what these are published as beside SVD. The tiny
    controlnext/ goes with SVD_controlnext/, whose UNet begins with the 320 channels that its control net ends with."""


def main(argv: Sequence[str]) -> None:
    """Parse the command line and write. Raises `InputError`."""
    config = parse_flags(argv, StandInConfig(), prog="make_stand_ins", description=__doc__ or "")
    if config.output is None:
        raise InputError("give --output DIR, the directory to make")
    relatives = tuple(_RELATIVES) if config.relatives else ()
    make_stand_ins(config.output, tiny=config.size == "tiny", file_format=config.format, relatives=relatives)


def make_stand_ins(
    output: Path, *, tiny: bool, file_format: FileFormat = "pth", relatives: Sequence[Kind] = ()
) -> None:
    """Write `SVD/` and `Animation/` into `output`, and what the relatives are published as."""
    require_writer(file_format)
    config = StableAnimatorConfig.tiny() if tiny else StableAnimatorConfig()
    make_svd(output / "SVD", config, published=not tiny)
    for place, (model, name) in _NETWORKS.items():
        weights = ReferenceWeights(_shapes(config, model, name, published=not tiny), f"{model}.")
        _write(output / "Animation" / f"{place}.{file_format}", weights)
    for kind in relatives:
        own = config if not tiny else tiny_config(kind)
        if own.unet != config.unet:
            make_svd(output / f"SVD_{kind}", own)
        make_relative(output / kind, kind, own, file_format=file_format, values=f"{kind}.", published=not tiny)


def tiny_config(kind: Kind) -> StableAnimatorConfig:
    """The tiny configuration; with a UNet that begins with as many channels as a control net, of one size, ends."""
    tiny = StableAnimatorConfig.tiny()
    unet = replace(tiny.unet, id_injection="none" if kind != "stableanimator" else tiny.unet.id_injection)
    if kind != "controlnext":
        return replace(tiny, kind=kind, unet=unet)
    unet = replace(unet, block_out_channels=(320, 64, 64, 64), num_attention_heads=(5, 4, 4, 4))
    return replace(tiny, kind=kind, unet=unet, pose_net=PoseNetConfig(320))


def make_svd(folder: Path, config: StableAnimatorConfig, *, unet: str = "unet.", published: bool = False) -> None:
    """Write SVD in diffusers' layout; `unet` begins the names of its UNet's values."""
    for place, (model, name) in _SVD.items():
        values = unet if model == "unet" else f"{model}."
        weights = ReferenceWeights(_shapes(config, model, name, published=published), values)
        _write(folder / f"{place}.safetensors", weights)
    for place, content in svd_configs(config).items():
        path = folder / place
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text(json.dumps(content, indent=2) + "\n", encoding="utf-8")


def make_relative(
    folder: Path,
    kind: Kind,
    config: StableAnimatorConfig,
    *,
    file_format: FileFormat = "pth",
    values: str = "",
    published: bool = False,
) -> None:
    """Write the files that a relative is published as, beside SVD's; `values` begins the names of their values."""
    for place, parts in _RELATIVES[kind].items():
        named = Path(place)
        suffix = named.suffix if file_format == "pth" else ".safetensors"
        every: dict[str, np.ndarray] = {}
        for model, (prefix, name, manifest_name) in parts.items():
            shapes = _shapes(config, model, manifest_name, published=published)
            every |= {f"{prefix}{key}": array for key, array in ReferenceWeights(shapes, f"{values}{name}").items()}
        _write(folder / named.with_suffix(suffix), every)


def _shapes(config: StableAnimatorConfig, model: str, name: str, *, published: bool) -> Mapping[str, Shape]:
    if published:
        return manifest(name)
    plan = plan_export(tables(config)[model], blueprint(config, model).abstract_params())
    keys = {a.key: a.source_shape for a in plan if name != "svd_unet" or not is_id_adapter_key(a.key)}
    counters = {k.replace("running_mean", "num_batches_tracked"): () for k in keys if k.endswith(".running_mean")}
    return keys | counters


def _write(path: Path, weights: Mapping[str, np.ndarray]) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    if path.suffix != ".safetensors":
        write_pth(path, weights.items())
        return
    shapes = weights.shapes if isinstance(weights, ReferenceWeights) else {k: w.shape for k, w in weights.items()}
    layout = {k: (s, "int64" if k.endswith("num_batches_tracked") else "float32") for k, s in shapes.items()}
    write_safetensors(path, layout, weights.items())


if __name__ == "__main__":
    sys.exit(run_script(main))
