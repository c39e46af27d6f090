"""State dicts made of others without reading them: a part of one, one laid over another, one moved by a difference."""

from collections.abc import Sequence

import jax.numpy as jnp
import numpy as np

from stableanimator_jax.errors import InputError
from stableanimator_jax.weights.rules import WeightsError
from stableanimator_jax.weights.state_dict_files import StateDictFile
from stableanimator_jax.weights.tables import is_id_adapter_key

_SHOWN = 5


class Part(StateDictFile):
    """The tensors whose keys begin with a prefix, under what follows it."""

    def __init__(self, file: StateDictFile, prefix: str):
        self._file, self._prefix = file, prefix
        self.files = file.files
        self.shapes = {key.removeprefix(prefix): s for key, s in file.shapes.items() if key.startswith(prefix)}

    def __getitem__(self, key: str) -> np.ndarray:
        return self._file[self._prefix + key]


def split(file: StateDictFile, prefixes: Sequence[str]) -> list[StateDictFile]:
    """The parts of a file that holds several models, each under its prefix.

    Raises:
        InputError: a key begins with none of them, so that the file is of something else.
    """
    if foreign := [key for key in file if not key.startswith(tuple(prefixes))]:
        more = f" and {len(foreign) - _SHOWN} more" if len(foreign) > _SHOWN else ""
        raise InputError(
            f"{file.files[0]} has keys that begin with none of {', '.join(prefixes)}: {', '.join(foreign[:_SHOWN])}"
            f"{more}"
        )
    return [Part(file, prefix) for prefix in prefixes]


def without_prefix(file: StateDictFile, prefix: str) -> StateDictFile:
    """The file without a prefix that all of its keys have, as some trainers leave one; else as it is."""
    return Part(file, prefix) if all(key.startswith(prefix) for key in file) else file


class Overlaid(StateDictFile):
    """`over`'s tensors, and `base`'s where it has none. What `over` alone has shows as keys too many."""

    def __init__(self, base: StateDictFile, over: StateDictFile):
        self._base, self._over = base, over
        whole = over.shapes.keys() >= base.shapes.keys()
        self.files = over.files if whole else (*over.files, *base.files)
        self.shapes = base.shapes | over.shapes

    def __getitem__(self, key: str) -> np.ndarray:
        return self._over[key] if key in self._over.shapes else self._base[key]


class Shifted(StateDictFile):
    """`base` plus what became of another model in training, `after` less `before`, in float32.

    The ID adapter, which the others have not, is `base`'s.

    Raises:
        WeightsError: but for the ID adapter the three have not the same keys and shapes; all differences are told.
    """

    def __init__(self, base: StateDictFile, *, after: StateDictFile, before: StateDictFile):
        self._base, self._after, self._before = base, after, before
        self.files = (*base.files, *after.files, *before.files)
        self.shapes = base.shapes
        common = {key: shape for key, shape in base.shapes.items() if not is_id_adapter_key(key)}
        problems: dict[str, list[str]] = {"unmapped": [], "unfilled": [], "wrong shape": []}
        for other in (after, before):
            name = other.files[0].name
            for key, shape in other.shapes.items():
                if key not in common:
                    problems["unmapped"].append(f"{key} of {name}: {base.files[0].name} has no such key")
                elif shape != common[key]:
                    problems["wrong shape"].append(
                        f"{key} of {name} is {list(shape)}, of {base.files[0].name} {list(common[key])}"
                    )
            problems["unfilled"] += [f"{key}, which {name} lacks" for key in common if key not in other.shapes]
        if any(problems.values()):
            raise WeightsError("unet", problems)

    def __getitem__(self, key: str) -> np.ndarray:
        if key not in self._after.shapes:
            return self._base[key]
        arrays = [file[key] for file in (self._base, self._after, self._before)]
        for array in arrays:
            if not jnp.issubdtype(array.dtype, jnp.floating):
                return array  # as it is, to be refused by whoever reads it
        base, after, before = (array.astype(np.float32) for array in arrays)
        return base + (after - before)
