"""A sequence of frames at another rate: which of them is shown when, and how far on its way to the next one."""

import math
from collections.abc import Collection, Iterable, Iterator
from dataclasses import dataclass
from typing import TypeVar

import numpy as np
from jaxtyping import Float, Int

from stableanimator_jax.data.frame_rate import HIGHEST_FPS, LOWEST_FPS, exact_rate
from stableanimator_jax.errors import InputError

_T = TypeVar("_T")


@dataclass(frozen=True, eq=False)
class Timing:
    """The moments of an output's frames, in frames of what it is made from."""

    count: int
    """Frames of what it is made from."""
    frame: Int[np.ndarray, "n"]
    """The one that is shown at each moment, from 0."""
    share: Float[np.ndarray, "n"]
    """Of the way to the next frame, in [0, 1); 0 where nothing is to be interpolated."""

    @property
    def unchanged(self) -> bool:
        """Whether every frame comes once, as it is."""
        return len(self.frame) == self.count and not self.share.any()


def checked_rates(fps: float | None, wanted: float | None) -> tuple[float, float] | None:
    """Both rates, the second by default the first; None where neither is known. Raises `InputError` for no rate."""
    for rate in (fps, wanted):
        if rate is not None and not LOWEST_FPS <= rate <= HIGHEST_FPS:  # NaN fails too
            raise InputError(f"frames a second must lie between {LOWEST_FPS} and {HIGHEST_FPS}, got {rate:g}")
    return None if fps is None else (fps, wanted or fps)


def at_rate(count: int, fps: float, wanted: float, cuts: Collection[int] = ()) -> Timing:
    """Bring frames of one rate to another, in the same time.

    Output frame k shows what there is at `k / wanted` seconds, as long as a frame is shown then. At a lower rate frames
    are left out; at a higher one moments lie between frames, but for those behind the last frame and before a cut, at
    which the frame before stays.

    Args:
        count: frames that there are.
        fps: their rate.
        wanted: the output's rate.
        cuts: frames that begin a new scene.
    """
    step = exact_rate(fps) / exact_rate(wanted)
    positions = [k * step for k in range(math.ceil(count / step))]
    frame = np.array([math.floor(position) for position in positions], np.int64)
    share = np.array([float(position % 1) for position in positions])
    held = np.isin(frame + 1, [*cuts, count])
    return Timing(count, frame, np.where(held | (step >= 1), 0.0, share))


def shown_at(frames: Iterable[_T], shown: Int[np.ndarray, "n"]) -> Iterator[_T]:
    """Of frames that come one by one, those with these numbers, which may repeat and must not go back.

    Raises:
        ValueError: there are fewer.
    """
    moments = iter(shown.tolist())
    wanted = next(moments, None)
    for number, frame in enumerate(frames):
        while number == wanted:
            yield frame
            wanted = next(moments, None)
        if wanted is None:
            return
    raise ValueError(f"there is no frame {wanted}")
