import math
from dataclasses import dataclass
from typing import Annotated, Literal

import pytest

from stableanimator_jax.errors import InputError
from stableanimator_jax.limits import Above, AtLeast, Between, check_limits


@dataclass(frozen=True)
class Settings:
    frames_ahead: Annotated[int, Between(1, 4)] = 1
    rate: Annotated[float, AtLeast(0, below=1)] = 0.0
    weight: Annotated[float, AtLeast(0)] = 0.0
    cut: Annotated[float | None, Above(0, 255)] = None
    shares: Annotated[tuple[float, ...], Above(0)] = (1.0,)
    rounds: Annotated[int | Literal["paper"], AtLeast(1)] = "paper"
    free: int = -7

    def __post_init__(self):
        check_limits(self, "part")


@pytest.mark.parametrize(
    "inside",
    [{"frames_ahead": 1}, {"frames_ahead": 4}, {"rate": 0.999}, {"weight": 1e300}, {"cut": 255}, {"shares": ()}],
)
def test_bounds_are_taken(inside):
    Settings(**inside)


@pytest.mark.parametrize(
    ("outside", "message"),
    [
        ({"frames_ahead": 0}, "part.frames-ahead must be from 1 to 4, got 0"),
        ({"frames_ahead": 5}, "part.frames-ahead must be from 1 to 4, got 5"),
        ({"frames_ahead": math.nan}, "part.frames-ahead must be from 1 to 4, got nan"),
        ({"rate": -0.1}, "part.rate must be at least 0 and below 1, got -0.1"),
        ({"rate": 1.0}, "part.rate must be at least 0 and below 1, got 1.0"),
        ({"weight": math.inf}, "part.weight must be at least 0, got inf"),
        ({"weight": math.nan}, "part.weight must be at least 0, got nan"),
        ({"cut": 0}, "part.cut must be above 0 and at most 255, got 0"),
        ({"cut": 256}, "part.cut must be above 0 and at most 255, got 256"),
        ({"shares": (1.0, 0.0)}, "part.shares must be above 0, got 0.0"),
        ({"shares": (math.inf,)}, "part.shares must be above 0, got inf"),
        ({"rounds": 0}, "part.rounds must be at least 1, got 0"),
    ],
)
def test_what_is_outside_is_refused(outside, message):
    with pytest.raises(InputError) as refused:
        Settings(**outside)
    assert str(refused.value) == message
