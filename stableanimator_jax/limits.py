"""Limits on a dataclass's numbers, beside the fields: `steps: Annotated[int, Between(1, 1000)] = 25`."""

import functools
import math
import typing
from dataclasses import dataclass
from typing import Any

from stableanimator_jax.errors import InputError


@dataclass(frozen=True)
class Between:
    """From `least` to `most`, both included."""

    least: float
    most: float

    def __contains__(self, value: float) -> bool:
        return self.least <= value <= self.most  # which NaN is not, here as below

    def __str__(self) -> str:
        return f"from {self.least} to {self.most}"


@dataclass(frozen=True)
class AtLeast:
    """`least` or more, below `below`; any finite number where that is left out."""

    least: float
    below: float = math.inf

    def __contains__(self, value: float) -> bool:
        return self.least <= value < self.below

    def __str__(self) -> str:
        return f"at least {self.least}" + (f" and below {self.below}" if self.below < math.inf else "")


@dataclass(frozen=True)
class Above:
    """More than `bound`, at most `most`; any finite number where that is left out."""

    bound: float
    most: float = math.inf

    def __contains__(self, value: float) -> bool:
        return self.bound < value <= self.most and value < math.inf

    def __str__(self) -> str:
        return f"above {self.bound}" + (f" and at most {self.most}" if self.most < math.inf else "")


def check_limits(config: Any, part: str = "") -> None:
    """Hold a dataclass's fields against the limits in their hints; of a tuple every number. To be called when made.

    A field that is None, or a word where a word may stand for a number, is passed over.

    Args:
        part: what the settings are called by as a part of others, such as "hjb".

    Raises:
        InputError: a number is outside; the message calls the field as flags do.
    """
    for name, limit in _limits(type(config)).items():
        value = getattr(config, name)
        for number in value if isinstance(value, tuple) else (value,):
            if not (number is None or isinstance(number, str) or number in limit):
                flag = f"{part}.{name}".lstrip(".").replace("_", "-")
                raise InputError(f"{flag} must be {limit}, got {number}")


def limit_of(cls: type, name: str) -> Between | AtLeast | Above:
    """That of one field of a dataclass."""
    return _limits(cls)[name]


@functools.cache
def _limits(cls: type) -> dict[str, Between | AtLeast | Above]:
    hints = typing.get_type_hints(cls, include_extras=True)
    notes = ((name, note) for name, hint in hints.items() for note in getattr(hint, "__metadata__", ()))
    return {name: note for name, note in notes if isinstance(note, Between | AtLeast | Above)}
