"""Write stand-ins for the published files: their layout, names, shapes and dtypes, with made-up values.

    python -m tests.make_stand_ins --output DIR                 the published sizes: 17 GB, some minutes
    python -m tests.make_stand_ins --output DIR --size tiny     the tiny configuration: megabytes, seconds

`DIR/SVD` and `DIR/Animation` are then what convert_weights.py takes. Every value is a function of its name
(tests/golden/reference_weights.py).
"""

import json
import sys
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Annotated, Literal

import tyro

from stableanimator_jax.config import StableAnimatorConfig
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


@dataclass(frozen=True)
class StandInConfig:
    """What to write, and where."""

    output: Annotated[Path | None, tyro.conf.arg(metavar="DIR")] = None
    """The directory to make."""
    size: Literal["published", "tiny"] = "published"
    """Of the models."""
    format: FileFormat = "pth"
    """Of the files in Animation/."""


def main(argv: Sequence[str]) -> None:
    """Parse the command line and write. Raises `InputError`."""
    config = parse_flags(argv, StandInConfig(), prog="make_stand_ins", description=__doc__ or "")
    if config.output is None:
        raise InputError("give --output DIR, the directory to make")
    make_stand_ins(config.output, tiny=config.size == "tiny", file_format=config.format)


def make_stand_ins(output: Path, *, tiny: bool, file_format: FileFormat = "pth") -> None:
    """Write `SVD/` and `Animation/` into `output`."""
    require_writer(file_format)
    config = StableAnimatorConfig.tiny() if tiny else StableAnimatorConfig()

    def shapes(model: str, name: str) -> Mapping[str, Shape]:
        if not tiny:
            return manifest(name)
        plan = plan_export(tables(config)[model], blueprint(config, model).abstract_params())
        keys = {a.key: a.source_shape for a in plan if name != "svd_unet" or not is_id_adapter_key(a.key)}
        counters = {k.replace("running_mean", "num_batches_tracked"): () for k in keys if k.endswith(".running_mean")}
        return keys | counters

    for place, (model, name) in _SVD.items():
        weights = ReferenceWeights(shapes(model, name), f"{model}.")
        _write(output / "SVD" / f"{place}.safetensors", weights)
    for place, (model, name) in _NETWORKS.items():
        weights = ReferenceWeights(shapes(model, name), f"{model}.")
        _write(output / "Animation" / f"{place}.{file_format}", weights)
    for place, content in svd_configs(config).items():
        path = output / "SVD" / place
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text(json.dumps(content, indent=2) + "\n", encoding="utf-8")


def _write(path: Path, weights: ReferenceWeights) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    if path.suffix == ".pth":
        write_pth(path, weights.items())
        return
    layout = {k: (s, "int64" if k.endswith("num_batches_tracked") else "float32") for k, s in weights.shapes.items()}
    write_safetensors(path, layout, weights.items())


if __name__ == "__main__":
    sys.exit(run_script(main))
