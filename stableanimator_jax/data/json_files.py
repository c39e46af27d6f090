"""JSON files of numbers: read with every check, so that a mistake in one is told by its place, and written."""

from collections.abc import Collection
from pathlib import Path
from typing import Any

import numpy as np
from jaxtyping import Float32

from stableanimator_jax.config import read_json
from stableanimator_jax.errors import InputError
from stableanimator_jax.files import require_file

_LARGEST = 1e6  # far beyond any pixel; more is a mistake, and float32 would soon miss whole numbers


def read_object(path: Path, what: str) -> dict[str, Any]:
    """Read a JSON file that holds an object. `what` names it in errors. Raises `InputError` if it does not."""
    require_file(path, what)
    data = read_json(path)
    if not isinstance(data, dict):
        raise InputError(f"{what} {path}: expected a JSON object, {{…}}, not {_shown(data)}")
    return data


def require_keys(data: Any, where: str, required: Collection[str], optional: Collection[str] = ()) -> None:
    """Raise `InputError`, which begins with `where`, unless `data` is an object with these keys and no others."""
    if not isinstance(data, dict):
        raise InputError(f"{where}: expected an object with {_listed(required)}, not {_shown(data)}")
    if missing := [key for key in required if key not in data]:
        raise InputError(f"{where}: there is no {_listed(missing)}")
    if unknown := [key for key in data if key not in required and key not in optional]:
        raise InputError(f"{where}: unknown key {_listed(unknown)}; it may have {_listed([*required, *optional])}")


def require_list(value: Any, where: str) -> list[Any]:
    """The value itself, if it is a list, else `InputError`."""
    if not isinstance(value, list):
        raise InputError(f"{where}: expected a list, […], not {_shown(value)}")
    return value


def read_size(data: dict[str, Any], where: str) -> tuple[int, int]:
    """`width` and `height` in pixels. Raises `InputError` unless both are whole numbers from 1 up."""
    for key in ("width", "height"):
        value = data.get(key)
        if type(value) is not int or not 1 <= value <= _LARGEST:
            raise InputError(f"{where}: {key} must be a whole number of pixels, at least 1, not {_shown(value)}")
    return data["width"], data["height"]


def read_numbers(value: Any, shape: tuple[int, ...], where: str) -> Float32[np.ndarray, "..."]:
    """Nested lists of finite numbers as an array of this shape, else `InputError`."""

    def check(part: Any, sizes: tuple[int, ...]) -> None:
        if not sizes:
            if type(part) not in (int, float) or not abs(part) <= _LARGEST:  # written so that NaN fails too
                raise InputError(f"{where}: expected a number of at most {_LARGEST:,.0f} each, not {_shown(part)}")
        elif not isinstance(part, list) or len(part) != sizes[0]:
            count = f"{len(part)} in one of its lists" if isinstance(part, list) else _shown(part)
            raise InputError(f"{where}: expected {' lists of '.join(str(n) for n in shape)} numbers, got {count}")
        else:
            for p in part:
                check(p, sizes[1:])

    check(value, shape)
    return np.array(value, np.float32)


def plain_numbers(array: np.ndarray | np.floating) -> Any:
    """An array of float32 as nested lists for JSON: the shortest digits that give the same float32 again."""
    if array.ndim:
        return [plain_numbers(part) for part in np.asarray(array)]
    number = float(str(np.float32(array)))
    return int(number) if number.is_integer() else number


def _listed(keys: Collection[str]) -> str:
    return ", ".join(f'"{key[:40]}"' for key in list(keys)[:5])


def _shown(value: Any) -> str:
    """A value in words, short whatever it is."""
    if isinstance(value, dict):
        return "an object"
    if isinstance(value, list):
        return f"a list of {len(value)}"
    if value is None or isinstance(value, bool):
        return {None: "null", True: "true", False: "false"}[value]
    if isinstance(value, int) and abs(value) > 10**30:  # Python refuses to print the very longest
        return "a number of many digits"
    return repr(value)[:40]
