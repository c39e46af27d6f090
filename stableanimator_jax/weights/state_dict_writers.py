"""State dicts to `.safetensors` and `.pth` files."""

import importlib.util
import json
from collections.abc import Iterable, Mapping
from pathlib import Path
from typing import Literal

import numpy as np

from stableanimator_jax.errors import InputError, first_line
from stableanimator_jax.weights.rules import Shape

FileFormat = Literal["pth", "safetensors"]
_DTYPES = {"float32": "F32", "float16": "F16", "int64": "I64"}


def require_writer(file_format: FileFormat) -> None:
    """Raise `InputError` where `.pth` is wanted and torch, which writes it, is not installed."""
    if file_format == "pth" and importlib.util.find_spec("torch") is None:
        raise InputError(
            ".pth files are written by torch, which is not installed: `pip install torch`, or give --format safetensors"
        )


def write_safetensors(
    path: Path, layout: Mapping[str, tuple[Shape, str]], tensors: Iterable[tuple[str, np.ndarray]]
) -> None:
    """Write tensors one after the other, so that only one need be in memory.

    safetensors' own writer takes all of them at once, and copies them all. The format is a length, a JSON header with
    each tensor's place, and the tensors' bytes.

    Args:
        path: the file to make.
        layout: each tensor's shape and dtype ("float32", "float16" or "int64") by key, in the order of `tensors`.
        tensors: keys and C-contiguous arrays.
    """
    header: dict[str, object] = {"__metadata__": {"format": "pt"}}  # transformers asks for it
    end = 0
    for key, (shape, dtype) in layout.items():
        begin, end = end, end + int(np.prod(shape)) * np.dtype(dtype).itemsize
        header[key] = {"dtype": _DTYPES[dtype], "shape": list(shape), "data_offsets": [begin, end]}
    text = json.dumps(header, separators=(",", ":")).encode()
    text += b" " * (-len(text) % 8)  # tensors begin at a multiple of 8 bytes, as safetensors' own writer has it
    keys = iter(layout.items())
    with path.open("wb") as file:
        file.write(len(text).to_bytes(8, "little") + text)
        for key, array in tensors:
            expected, (shape, dtype) = next(keys)
            if (key, array.shape, array.dtype.name) != (expected, tuple(shape), dtype):
                raise ValueError(
                    f"{key} {array.shape} {array.dtype} comes where {expected} {shape} {dtype} has its place"
                )
            file.write(np.ascontiguousarray(array).data)
        if (left := next(keys, None)) is not None:
            raise ValueError(f"{left[0]} is missing")


def write_pth(path: Path, tensors: Iterable[tuple[str, np.ndarray]]) -> None:
    """Write tensors by `torch.save`, which needs all of them in memory.

    Raises:
        OSError: the file cannot be written, as on a full disk.
    """
    import torch

    state_dict = {key: torch.from_numpy(array) for key, array in tensors}
    try:
        torch.save(state_dict, path)
    except RuntimeError as e:  # torch's own writer reports a full disk so
        raise OSError(0, first_line(e)) from e
