"""Published weight files to networks: every name and shape is accounted for, or nothing is loaded."""

import warnings
import zipfile
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import jax.numpy as jnp
import numpy as np
from flax import nnx

from stableanimator_jax.errors import InputError, first_line
from stableanimator_jax.evaluation.networks import tables
from stableanimator_jax.evaluation.networks.i3d import I3D, I3DConfig
from stableanimator_jax.evaluation.networks.inception import Inception, InceptionConfig
from stableanimator_jax.evaluation.networks.lpips import Backbone, Lpips, LpipsConfig
from stableanimator_jax.evaluation.networks.network import Network
from stableanimator_jax.evaluation.networks.published import FILES
from stableanimator_jax.evaluation.networks.resnet_3d import ResNet3D, ResNet3DConfig
from stableanimator_jax.models.functional import Blueprint, Model
from stableanimator_jax.models.layers import Precision
from stableanimator_jax.provenance import sha256_of
from stableanimator_jax.weights.rules import Table, WeightsError, plan_import, stream, unflatten
from stableanimator_jax.weights.state_dict_files import StateDictFile, open_state_dict


def load_i3d(path: Path, eps: float = 1e-3) -> Network:
    """I3D, for FVD, from a state dict under pytorch-i3d's names: `.pt`, `.pth`, `.safetensors`, or TorchScript.

    Args:
        eps: of the batch norms, which no file says: 1e-3 as published, 1e-5 as VideoGPT and cd-fvd compute.

    Raises:
        InputError: there is no such file, with a line on where to get it; it cannot be read; or it holds other weights.
    """
    return _load(f"I3D, eps {eps:g}", I3D, I3DConfig(eps), tables.I3D, {"i3d": path})


def load_inception(path: Path) -> Network:
    """FID's Inception, from a state dict under pytorch-fid's names. Raises as `load_i3d`."""
    return _load("FID's Inception", Inception, InceptionConfig(), tables.INCEPTION, {"inception": path})


def load_resnet_3d(path: Path) -> Network:
    """FID-VID's 3D ResNet-50, from a state dict under the names of its publisher. Raises as `load_i3d`."""
    return _load("3D ResNet-50", ResNet3D, ResNet3DConfig(), tables.RESNET_3D, {"resnet_3d": path})


def load_lpips(backbone: Backbone, path: Path, heads: Path) -> Network:
    """LPIPS 0.1, from torchvision's VGG-16 or AlexNet and LPIPS's own weights for it. Raises as `load_i3d`."""
    files = {backbone: path, f"{backbone}_heads": heads}
    return _load(f"LPIPS 0.1, {backbone}", Lpips, LpipsConfig(backbone), tables.LPIPS[backbone], files)


def _load(name: str, kind: type[nnx.Module], config: Any, table: Table, files: Mapping[str, Path]) -> Network:
    for role, path in files.items():
        FILES[role].require(path)
    opened = [_open(path) for path in files.values()]
    blueprint = Blueprint(kind, config, Precision())
    where = " and ".join(map(str, files.values()))
    state_dict = _merged(opened, where)
    try:
        plan = plan_import(
            table, {key: file.shapes[key] for key, file in state_dict.items()}, blueprint.abstract_params()
        )
        found = dict(stream(table, plan, {a.key: state_dict[a.key][a.key] for a in plan}))
    except WeightsError as e:
        raise InputError(f"{where}: {e}") from e
    keys = {a.path: a.key for a in plan}
    if bad := [keys[path] for path, array in found.items() if not np.isfinite(array).all()]:
        raise InputError(f"{where} has values that are NaN or infinite, in {', '.join(bad[:20])}")
    params = unflatten({path: jnp.asarray(array) for path, array in found.items()})
    return Network(name, Model(params, blueprint), {role: sha256_of([path]) for role, path in files.items()})


def _merged(opened: list[StateDictFile], where: str) -> dict[str, StateDictFile]:
    """Which file has each key."""
    merged: dict[str, StateDictFile] = {}
    for file in opened:
        if twice := sorted(merged.keys() & file.keys()):
            raise InputError(f"{where} both have {twice[0]}: give two files that hold different weights")
        merged |= dict.fromkeys(file, file)
    return merged


def _open(path: Path) -> StateDictFile:
    return TorchScriptFile(path) if _is_torchscript(path) else open_state_dict(path)


def _is_torchscript(path: Path) -> bool:
    """Whether it is a program with its weights, rather than weights alone: only that has code in it."""
    if not zipfile.is_zipfile(path):
        return False
    with zipfile.ZipFile(path) as archive:
        return any("/code/" in name for name in archive.namelist())


class TorchScriptFile(StateDictFile):
    """The weights of a program that `torch.jit.save` wrote; the program is not run."""

    def __init__(self, path: Path):
        try:
            import torch
        except ImportError as e:
            raise InputError(
                f"{path} is a TorchScript program, opened by torch, which is not installed: `pip install torch` (its "
                "CPU build will do), or give a .safetensors file"
            ) from e
        try:
            with warnings.catch_warnings():
                warnings.simplefilter("ignore")  # torch.jit is to be replaced
                tensors = torch.jit.load(path, map_location="cpu").state_dict()
        except Exception as e:  # RuntimeError and others on damaged files
            raise InputError(f"{path} is a TorchScript program that torch cannot load ({first_line(e)})") from e
        if not tensors:
            raise InputError(f"{path} is a frozen TorchScript program, whose weights have no names: give a state dict")
        self.files = (path,)
        self._tensors = {key: tensor.numpy() for key, tensor in tensors.items()}
        self.shapes = {key: tensor.shape for key, tensor in self._tensors.items()}

    def __getitem__(self, key: str) -> np.ndarray:
        return self._tensors[key]
