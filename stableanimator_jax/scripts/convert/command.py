"""Bring PyTorch's weights in, take ours out, or look into a checkpoint.

    stableanimator convert import --svd DIR --stableanimator DIR --arcface FILE --output CHECKPOINT
    stableanimator convert import --svd hf://stabilityai/stable-video-diffusion-img2vid-xt --output CHECKPOINT
    stableanimator convert import --svd DIR --mimicmotion MimicMotion_1-1.pth --output CHECKPOINT
    stableanimator convert export --checkpoint CHECKPOINT --output DIR
    stableanimator convert inspect CHECKPOINT

`stableanimator convert COMMAND --help` explains a command's flags, docs/weights.md where the files come from.
Exit status: 0 done, 2 something in the input is wrong (one line on stderr says what), 130 interrupted.
"""

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Annotated, Literal, NoReturn, TypeVar

import tyro

from stableanimator_jax.commands import called
from stableanimator_jax.config import StoredDtype
from stableanimator_jax.errors import InputError
from stableanimator_jax.scripts.cli import leave, parse_flags, run_command, run_script

T = TypeVar("T")


@dataclass(frozen=True)
class ImportConfig:
    """PyTorch's files to a checkpoint, of the system that they are of. Any of --svd, --stableanimator and --arcface
    alone will do; MimicMotion, AnimateLCM-SVD and ControlNeXt come with --svd. --arcface goes with all."""

    svd: Annotated[str | None, tyro.conf.arg(metavar="DIR|FILE|hf://OWNER/REPOSITORY")] = None
    """SVD in diffusers' layout: unet/, vae/ and image_encoder/ with config.json and *.safetensors (or *.bin); or the
    one file svd_xt.safetensors. Alone, of 14 or 25 frames, it is SVD, and where training starts: the ID adapter copies
    its attention, PoseNet and Face Encoder are initialised. The others want SVD-XT, of 25 frames."""
    stableanimator: Annotated[str | None, tyro.conf.arg(metavar="DIR|hf://OWNER/REPOSITORY")] = None
    """The folder with unet, pose_net and face_encoder, .pth or .bin (torch opens them) or .safetensors; or with
    unet-30000.pth and so on, as StableAnimator's training leaves them: the last step is taken."""
    mimicmotion: Annotated[str | None, tyro.conf.arg(metavar="FILE|DIR|hf://OWNER/REPOSITORY")] = None
    """MimicMotion_1-1.pth or MimicMotion_1.pth; or a folder with one, or with ComfyUI's
    MimicMotionMergedUnet_1-1-fp16.safetensors and mimic_motion_pose_net.safetensors."""
    animatelcm: Annotated[str | None, tyro.conf.arg(metavar="FILE|DIR|hf://OWNER/REPOSITORY")] = None
    """AnimateLCM-SVD-xt-1.1.safetensors or AnimateLCM-SVD-xt.safetensors, to be given with the SVD-XT that it was made
    from (1.1 or not). With --stableanimator too, what it changed is added to StableAnimator's UNet: an experiment."""
    controlnext: Annotated[str | None, tyro.conf.arg(metavar="DIR|FILE|hf://OWNER/REPOSITORY")] = None
    """The folder with ControlNeXt-SVD-v2's unet.bin and controlnet.bin, or .safetensors. What this UNet lacks is
    SVD's."""
    arcface: Annotated[str | None, tyro.conf.arg(metavar="FILE|DIR|hf://OWNER/REPOSITORY")] = None
    """glintr100.onnx, glintr100_torch.pth, another IResNet of these kinds, or a folder that holds one."""
    output: Annotated[Path | None, tyro.conf.arg(metavar="CHECKPOINT")] = None
    """The checkpoint directory to make."""
    overwrite: bool = False
    """Replace a checkpoint that is there. Anything else stays as it is, and is an error."""
    dtype: StoredDtype = "float32"
    """What kernels and biases are stored in. Norms, scales, the VAE and ArcFace stay float32."""
    seed: int = 0
    """Of what is initialised, with --svd alone."""


@dataclass(frozen=True)
class ExportConfig:
    """A checkpoint to PyTorch's files: SVD/ in diffusers' layout, and what its system is published as: Animation/,
    MimicMotion.pth, AnimateLCM-SVD-xt.safetensors or ControlNeXt/."""

    checkpoint: Annotated[str | None, tyro.conf.arg(metavar="CHECKPOINT|embedded")] = None
    """What to export: a checkpoint directory, or a training run's folder (its last weights)."""
    output: Annotated[Path | None, tyro.conf.arg(metavar="DIR")] = None
    """The directory to make; it must not exist, or be empty."""
    format: Literal["pth", "safetensors"] = "pth"
    """Of the files beside SVD/ (torch writes .pth, and ControlNeXt's .bin); those in it, and AnimateLCM-SVD's, are
    safetensors always."""
    dtype: Literal["float32", "float16"] = "float32"
    """float16 for files half as large; those in SVD/ then have diffusers' names for its variant fp16. ArcFace stays
    float32."""


@dataclass(frozen=True)
class InspectConfig:
    """What is in a checkpoint: models, configurations, parameters, dtypes, sizes, origin, finiteness."""

    checkpoint: Annotated[tyro.conf.Positional[str | None], tyro.conf.arg(metavar="CHECKPOINT|embedded")] = None
    """A checkpoint directory, a training run's folder (its last weights), or the word embedded."""


def main(argv: Sequence[str]) -> None:
    """Run one command. Raises `InputError`."""
    run_command(
        argv,
        {"import": _import, "export": _export, "inspect": _inspect},
        prog=called("convert"),
        description=__doc__ or "",
    )


def _import(flags: Sequence[str]) -> None:
    config = parse_flags(
        flags, ImportConfig(), prog=f"{called('convert')} import", description=ImportConfig.__doc__ or ""
    )
    output = _required(config.output, "--output CHECKPOINT, the directory to make")
    _on_the_cpu()
    from stableanimator_jax.family import member
    from stableanimator_jax.weights.checkpoint import describe
    from stableanimator_jax.weights.importing import import_weights

    models = import_weights(
        output,
        svd=config.svd,
        stableanimator=config.stableanimator,
        mimicmotion=config.mimicmotion,
        animatelcm=config.animatelcm,
        controlnext=config.controlnext,
        arcface=config.arcface,
        dtype=config.dtype,
        seed=config.seed,
        overwrite=config.overwrite,
        show_progress=True,
    )
    print(f"wrote {output}: {', '.join(models)}")
    wanted = member(describe(output).config).models
    if missing := [model for model in wanted if model not in models]:
        users = f"{called('sample')} and {called('train')}"
        print(f"note: {users} also need {', '.join(missing)}: import all parts into one checkpoint")


def _export(flags: Sequence[str]) -> None:
    config = parse_flags(
        flags, ExportConfig(), prog=f"{called('convert')} export", description=ExportConfig.__doc__ or ""
    )
    checkpoint = _required(config.checkpoint, "--checkpoint CHECKPOINT, a directory or the word embedded")
    output = _required(config.output, "--output DIR, the directory to make")
    _on_the_cpu()
    from stableanimator_jax.weights.exporting import export_weights

    for file in export_weights(checkpoint, output, file_format=config.format, dtype=config.dtype, show_progress=True):
        print(f"wrote {file}")


def _inspect(flags: Sequence[str]) -> None:
    config = parse_flags(
        flags, InspectConfig(), prog=f"{called('convert')} inspect", description=InspectConfig.__doc__ or ""
    )
    checkpoint = _required(config.checkpoint, "the checkpoint to inspect, a directory or the word embedded")
    _on_the_cpu()
    from stableanimator_jax.weights.inspecting import inspect_checkpoint

    for report in inspect_checkpoint(checkpoint, show_progress=True):
        print("\n".join(report.lines()))


def _required(value: T | None, what: str) -> T:
    if value is None:
        raise InputError(f"give {what}")
    return value


def _on_the_cpu() -> None:
    from stableanimator_jax.runtime import choose_device

    choose_device("cpu")  # an accelerator has nothing to do here, and may be busy


def script(argv: Sequence[str] | None = None) -> NoReturn:
    """The program `convert_weights.py`, or `stableanimator convert`."""
    leave(run_script(main, argv))
