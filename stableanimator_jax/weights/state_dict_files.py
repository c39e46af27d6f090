"""PyTorch state dicts on disk as mappings of NumPy arrays that read a tensor each time it is asked for.

`.safetensors` files are opened by safetensors; `.pth` and `.bin` files by torch, which runs nothing that is in them
(`weights_only=True`); several of one kind may lie behind an index. Both libraries map the file into memory, and pages
once read count as this process's; so a file is opened anew after every half GiB, which gives them back.
"""

import importlib.util
import pickle
import re
import warnings
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import ml_dtypes
import numpy as np

from stableanimator_jax.config import read_json
from stableanimator_jax.errors import InputError, first_line
from stableanimator_jax.files import require_file
from stableanimator_jax.weights.rules import Shape

_REOPEN_AFTER = 2**29
_WRAPPERS = ("state_dict", "model_state_dict", "model", "module")
_PREFIX = "module."  # left by DistributedDataParallel
# Left by torch.compile, FSDP and activation checkpointing, at any depth; and the same "module" further inside.
_INNER = re.compile(r"(?<![^.])(_orig_mod|_fsdp_wrapped_module|_checkpoint_wrapped_module)\.|(?<=\.)module\.")


class StateDictFile(Mapping[str, np.ndarray]):
    """Tensors by state-dict key.

    Attributes:
        files: every file that the tensors are read from.
        shapes: every tensor's shape, known without reading it.
    """

    files: tuple[Path, ...]
    shapes: dict[str, Shape]

    def __iter__(self) -> Iterator[str]:
        return iter(self.shapes)

    def __len__(self) -> int:
        return len(self.shapes)


def open_state_dict(path: Path, model: str | None = None) -> StateDictFile:
    """Open a `.pth`, `.bin` or `.safetensors` file, or the `.json` index of several of them.

    Of a dictionary that holds several models under their names, as "unet", `model` is the one wanted.

    Raises:
        InputError: the file cannot be read, is damaged, is no dictionary of tensors, or needs torch, which is missing.
    """
    require_file(path, "weights file")
    if path.suffix == ".json":
        return _index(path)
    if path.suffix == ".safetensors":
        return SafetensorsFile(path)
    if path.suffix in (".pth", ".pt", ".bin"):
        return PthFile(path, model)
    raise InputError(f"weights file {path} has an unknown suffix: give a .safetensors, .pth or .bin file")


class SafetensorsFile(StateDictFile):
    """One `.safetensors` file. As a shard its keys are the index's, so that prefixes stay."""

    def __init__(self, path: Path, *, is_shard: bool = False):
        self._path = path
        self.files = (path,)
        self._open()
        with _explained(path):
            keys = list(self._file.keys())
            self._key = dict(zip(keys if is_shard else _without_prefixes(keys), keys, strict=True))
            self.shapes = {name: tuple(self._file.get_slice(key).get_shape()) for name, key in self._key.items()}

    def _open(self) -> None:
        from safetensors import safe_open

        with _explained(self._path):
            self._file: Any = safe_open(self._path, framework="np")
        self._read = 0

    def __getitem__(self, key: str) -> np.ndarray:
        stored = self._key[key]
        if self._read > _REOPEN_AFTER:
            self._open()
        with _explained(self._path):
            array = self._file.get_tensor(stored)
        self._read += array.nbytes
        return array


class ShardedFiles(StateDictFile):
    """Several files behind an index, of different keys."""

    def __init__(self, index: Path, shards: list[StateDictFile]):
        self._shard = {key: shard for shard in shards for key in shard}
        self.files = (index, *(file for shard in shards for file in shard.files))
        self.shapes = {key: shard.shapes[key] for key, shard in self._shard.items()}

    def __getitem__(self, key: str) -> np.ndarray:
        return self._shard[key][key]


def _index(path: Path) -> ShardedFiles:
    data = read_json(path)
    weight_map = data.get("weight_map") if isinstance(data, dict) else None
    if not isinstance(weight_map, dict) or not all(isinstance(name, str) for name in weight_map.values()):
        raise InputError(f"{path} is not an index of weights files: it has no weight_map of keys to file names")
    names = sorted(set(weight_map.values()))
    for name in names:
        if Path(name).name != name:
            raise InputError(f"{path} names the file {name!r}, which is not beside it")
        if not (path.parent / name).is_file():
            raise InputError(f"{path} names {name}, which is missing: copy or download it")
        require_file(path.parent / name, "weights file")
    shards = [_shard(path.parent / name) for name in names]
    problems = []
    for name, shard in zip(names, shards, strict=True):
        meant = {key for key, file in weight_map.items() if file == name}
        problems += [f"{name} lacks {key}" for key in sorted(meant - set(shard))]
        problems += [f"{name} has {key}, which is not listed for it" for key in sorted(set(shard) - meant)]
    if problems:
        more = f"; and {len(problems) - 20} more" if len(problems) > 20 else ""
        raise InputError(f"{path} does not fit its files: {'; '.join(problems[:20])}{more}")
    return ShardedFiles(path, shards)


def _shard(path: Path) -> StateDictFile:
    return PthFile(path, is_shard=True) if path.suffix == ".bin" else SafetensorsFile(path, is_shard=True)


class PthFile(StateDictFile):
    """One file written by `torch.save`: a state dict, or a dictionary that holds one beside other things.

    As a shard its keys are the index's, as those of `SafetensorsFile`.
    """

    def __init__(self, path: Path, model: str | None = None, *, is_shard: bool = False):
        if importlib.util.find_spec("torch") is None:
            raise InputError(
                f"{path}: {path.suffix} files are opened by torch, which is not installed: `pip install torch` (its "
                "CPU build will do), or give a .safetensors file"
            )
        self._path, self._model, self._is_shard = path, model, is_shard
        self.files = (path,)
        self._open()
        self.shapes = {key: tuple(tensor.shape) for key, tensor in self._tensors.items()}

    def _open(self) -> None:
        tensors = _state_dict(_torch_load(self._path), str(self._path), self._model)
        if not self._is_shard:
            tensors = dict(zip(_without_prefixes(list(tensors)), tensors.values(), strict=True))
        self._tensors = tensors
        self._read = 0

    def __getitem__(self, key: str) -> np.ndarray:
        import torch

        if self._read > _REOPEN_AFTER:
            self._tensors = {}
            self._open()
        tensor = self._tensors[key].detach()
        self._read += tensor.nbytes
        if tensor.dtype == torch.bfloat16:  # NumPy has no bfloat16 of its own
            return tensor.contiguous().view(torch.uint16).numpy().view(ml_dtypes.bfloat16)
        return tensor.numpy()


def _torch_load(path: Path) -> Any:
    import torch

    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")  # torch's about storage classes of old files
            # Files from before torch 1.6 are not zip archives and cannot be mapped.
            with path.open("rb") as file:
                is_zip = file.read(4) == b"PK\x03\x04"
            return torch.load(path, map_location="cpu", weights_only=True, mmap=is_zip)
    except pickle.UnpicklingError as e:
        if "weights_only" in str(e) or "Unsupported" in str(e):
            raise InputError(
                f"{path} holds Python objects beside tensors, and is not opened, because they could run any code: "
                "save it anew as a dictionary of tensors alone"
            ) from e
        raise InputError(f"{path} is not a file that torch.save wrote, or is damaged: copy it again") from e
    except Exception as e:  # torch raises RuntimeError, EOFError, KeyError, AssertionError ... on damaged files
        raise InputError(f"{path} is not a file that torch.save wrote, or is damaged ({first_line(e)})") from e


def _state_dict(data: Any, where: str, model: str | None) -> dict[str, Any]:
    """The state dict in what a file holds, without wrappers; prefixes are still there."""
    import torch

    if not isinstance(data, dict):
        raise InputError(f"{where} is not a dictionary of tensors: it holds a {type(data).__name__}")
    if model is not None and isinstance(data.get(model), dict):
        return _state_dict(data[model], f"{where}, {model}", model)
    if wrappers := [name for name in _WRAPPERS if isinstance(data.get(name), dict)]:
        if len(wrappers) > 1:
            raise InputError(f"{where} holds several state dicts, {' and '.join(wrappers)}: save the one wanted alone")
        return _state_dict(data[wrappers[0]], f"{where}, {wrappers[0]}", model)
    if not data:
        raise InputError(f"{where} is not a dictionary of tensors: it is empty")
    for key, value in data.items():
        if not isinstance(key, str) or not isinstance(value, torch.Tensor) or value.layout != torch.strided:
            kind = "a sparse tensor" if isinstance(value, torch.Tensor) else f"a {type(value).__name__}"
            raise InputError(f"{where} is not a dictionary of tensors: {key!r:.80} is {kind}")
    return data


def _without_prefixes(keys: list[str]) -> list[str]:
    """Keys without the names of PyTorch's wrappers; as they are where two would come to be the same."""
    plain = [_INNER.sub("", key) for key in keys]
    if plain and all(key.startswith(_PREFIX) for key in plain):
        return _without_prefixes([key.removeprefix(_PREFIX) for key in plain])
    return plain if len(set(plain)) == len(plain) else keys


@contextmanager
def _explained(path: Path) -> Iterator[None]:
    from safetensors import SafetensorError

    try:
        yield
    except (SafetensorError, OSError, ValueError, TypeError) as e:
        raise InputError(
            f"{path} is not a safetensors file, or is damaged ({first_line(e)}): copy or download it again"
        ) from e
