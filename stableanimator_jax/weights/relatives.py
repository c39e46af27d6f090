"""Where the published files of SVD's relatives are: what each has instead of SVD's UNet, and beside it.

MimicMotion:    MimicMotion_1-1.pth (unet. and pose_net. in one); or MimicMotionMergedUnet_1-1-fp16.safetensors and
                mimic_motion_pose_net.safetensors, as ComfyUI's users have it
AnimateLCM-SVD: AnimateLCM-SVD-xt-1.1.safetensors or AnimateLCM-SVD-xt.safetensors, a UNet alone
ControlNeXt:    unet.bin and controlnet.bin, in ControlNeXt-SVD/v2/ on the hub; or in half precision
                controlnext-svd_v2-unet-fp16.safetensors and controlnext-svd_v2-controlnet-fp16.safetensors;
                or both in one file, unet. and controlnext., as DeepSpeed leaves them
"""

from collections.abc import Callable, Iterable
from dataclasses import dataclass
from pathlib import Path

from stableanimator_jax.config import Kind
from stableanimator_jax.errors import InputError, as_input_error
from stableanimator_jax.family import FAMILY
from stableanimator_jax.weights.hub import is_on_hub, local_directory
from stableanimator_jax.weights.state_dict_files import StateDictFile, open_state_dict
from stableanimator_jax.weights.state_dict_views import Overlaid, Shifted, split, without_prefix

_MIMICMOTION = tuple(
    f"{stem}.{suffix}"
    for stem in ("MimicMotion_1-1", "MimicMotion_1", "MimicMotion")
    for suffix in ("pth", "safetensors")
)
_MERGED_UNET, _MERGED_POSE_NET = "MimicMotionMergedUnet_1-*.safetensors", "mimic_motion_pose_net*.safetensors"
_ANIMATELCM = ("AnimateLCM-SVD-xt-1.1.safetensors", "AnimateLCM-SVD-xt.safetensors")
_CONTROLNEXT = (
    *(tuple(f"{name}.{suffix}" for name in ("unet", "controlnet")) for suffix in ("bin", "safetensors", "pth")),
    ("controlnext-svd_v2-unet-fp16.safetensors", "controlnext-svd_v2-controlnet-fp16.safetensors"),
)
_CONTROLNEXT_FOLDERS = ("", "v2/", "ControlNeXt-SVD/v2/", "ControlNeXt/")
_OTHERS = ("unet", "SVD", "svd*.safetensors", "Animation", "pose_net.*", "face_encoder.*")
"""What folders of SVD and of StableAnimator have in them, whatever else may lie there."""

Found = dict[str, StateDictFile]
"""State dicts by the model's name."""


@dataclass(frozen=True)
class Relative:
    """How a system is put together from its files and SVD's."""

    find: Callable[[str], Found]
    """Opens what the flag of its name names. Raises `InputError`."""
    names: tuple[str, ...]
    """Patterns of its files' names, by which they are known where they are given as something else's."""
    over_svd: bool = False
    """Whether its UNet may be a part of one, laid over SVD's."""
    onto_stableanimator: bool = False
    """Whether what it changed in SVD's UNet may be added to StableAnimator's."""


def _find_mimicmotion(name: str) -> Found:
    if (file := _local_file(name)) is None:
        if merged := _merged(local_directory(name, [_MERGED_UNET, _MERGED_POSE_NET])):
            return merged
        file = _first(name, _MIMICMOTION)
    elif file.match(_MERGED_UNET):
        return _pair(file)
    if file is None:
        raise InputError(
            f"{name} has no {_MIMICMOTION[0]}, and not {_MERGED_UNET} and {_MERGED_POSE_NET} either: give the file "
            "itself"
        )
    unet, pose_net = split(open_state_dict(file), ("unet.", "pose_net."))
    return {"unet": unet, "pose_net": pose_net}


def _merged(root: Path) -> Found | None:
    """The last version that ComfyUI's users have in a folder, which has no file of both models."""
    unets = sorted(root.glob(_MERGED_UNET))
    return _pair(unets[-1]) if unets and not any((root / name).exists() for name in _MIMICMOTION) else None


def _pair(unet: Path) -> Found:
    pose_nets = sorted(unet.parent.glob(_MERGED_POSE_NET))
    if len(pose_nets) != 1:
        there = " and ".join(path.name for path in pose_nets) or "none"
        raise InputError(f"{unet} needs one {_MERGED_POSE_NET} beside it, there is {there}")
    return {"unet": open_state_dict(unet), "pose_net": open_state_dict(pose_nets[0])}


def _find_animatelcm(name: str) -> Found:
    file = _local_file(name) or _first(name, _ANIMATELCM)
    if file is None:
        raise InputError(f"{name} has neither {' nor '.join(_ANIMATELCM)}: give the file itself")
    return {"unet": without_prefix(open_state_dict(file, "unet"), "unet.")}


def _find_controlnext(name: str) -> Found:
    if (file := _local_file(name)) is not None:
        unet, control_net = split(open_state_dict(file), ("unet.", "controlnext."))
        return _controlnext(unet, control_net)
    pairs = [tuple(folder + file for file in pair) for folder in _CONTROLNEXT_FOLDERS for pair in _CONTROLNEXT]
    root = local_directory(name, [file for pair in pairs for file in pair])
    whole = [pair for pair in pairs if all((root / file).exists() for file in pair)]
    if not whole:
        raise InputError(f"{name} has not both {' and '.join(_CONTROLNEXT[0])}, nor as .safetensors: download them")
    unet, control_net = (open_state_dict(root / file) for file in whole[0])
    return _controlnext(without_prefix(unet, "unet."), without_prefix(control_net, "controlnext."))


def _controlnext(unet: StateDictFile, control_net: StateDictFile) -> Found:
    if "scale" in control_net.shapes or any(key.startswith("down_res.2.") for key in control_net):
        raise InputError(
            f"{control_net.files[0]} is of the older ControlNeXt-SVD (v1), whose control net has a third stage, 1280 "
            "outputs and a scale, which is another design: give the files of ControlNeXt-SVD-v2, in ControlNeXt-SVD/v2/"
        )
    return {"unet": unet, "control_net": control_net}


RELATIVES: dict[Kind, Relative] = {
    "mimicmotion": Relative(_find_mimicmotion, (*_MIMICMOTION, _MERGED_UNET, _MERGED_POSE_NET)),
    "animatelcm": Relative(_find_animatelcm, ("AnimateLCM-SVD*.safetensors",), onto_stableanimator=True),
    "controlnext": Relative(_find_controlnext, ("controlnet.*", "controlnext-svd*.safetensors"), over_svd=True),
}
"""Those whose files come beside SVD's. The flag that names them is called as the kind."""

EXPERIMENT = "an experiment, no published model: StableAnimator's UNet + (AnimateLCM-SVD's - SVD's), tensor by tensor"


def combined(svd: str | None, stableanimator: str | None, given: dict[Kind, str]) -> Kind:
    """What the parts that are given make.

    Raises:
        InputError: they do not go together, or one is given by another's flag.
    """
    if len(given) > 1:
        raise InputError(f"give one of {_flags(given)}: a checkpoint holds the weights of one system")
    for kind in given:
        if svd is None:
            raise InputError(
                f"--{kind} needs --svd too: {FAMILY[kind].title} has its VAE, its image encoder and its configurations "
                "from Stable Video Diffusion"
            )
        if stableanimator is not None and not RELATIVES[kind].onto_stableanimator:
            raise InputError(
                f"give --{kind} or --stableanimator: a checkpoint holds the weights of one system (only "
                f"{_flags(k for k, r in RELATIVES.items() if r.onto_stableanimator)} goes with --stableanimator)"
            )
    for flag, name in (("svd", svd), ("stableanimator", stableanimator), *given.items()):
        if name is not None and (kind := _known_by_name(name)) not in (None, flag):
            raise InputError(f"{name} has {FAMILY[kind].title}'s files: give it as --{kind}, not as --{flag}")
    if svd is None or stableanimator is not None:
        return "stableanimator"
    return next(iter(given)) if given else "svd"


def takes_svd_unet(relative: Kind | None, *, with_networks: bool) -> bool:
    """Whether SVD's UNet is needed: on its own, under one that may lack tensors, or to see what became of it."""
    if relative is None:
        return not with_networks
    return with_networks or RELATIVES[relative].over_svd


def put_together(relative: Kind | None, svd: Found, networks: Found, found: Found) -> Found:
    """Every model's state dict: a relative's takes the place of StableAnimator's, and that of SVD's.

    Raises:
        InputError: UNets that are to be added and taken from each other have not the same keys and shapes.
    """
    whole = svd | networks | found
    if relative and networks:
        whole["unet"] = Shifted(networks["unet"], after=found["unet"], before=svd["unet"])
    elif relative and RELATIVES[relative].over_svd:
        whole["unet"] = Overlaid(svd["unet"], found["unet"])
    return whole


def _flags(kinds: Iterable[Kind]) -> str:
    return " and ".join(f"--{kind}" for kind in kinds)


def _known_by_name(name: str) -> Kind | None:
    """Whose files a path on disk leads to, by their names; None where that is unsure, as with several."""
    if is_on_hub(name):
        return None
    path = Path(name)
    with as_input_error(f"cannot read {name}"):
        if not path.exists() or any(there for pattern in _OTHERS for there in path.glob(pattern)):
            return None
        files = [path] if path.is_file() else [file for file in path.iterdir() if file.is_file()]
    kinds: list[Kind] = [k for k, r in RELATIVES.items() if any(file.match(p) for file in files for p in r.names)]
    return kinds[0] if len(kinds) == 1 else None


def _local_file(name: str) -> Path | None:
    return Path(name) if not is_on_hub(name) and Path(name).is_file() else None


def _first(name: str, files: Iterable[str]) -> Path | None:
    """The first that there is; of a repository no other is downloaded."""
    for file in files:
        if (place := local_directory(name, [file]) / file).exists():
            return place
    return None
