"""A video's colours brought to its reference's, by one change for all frames (Reinhard et al. 2001, in CIE Lab)."""

from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from itertools import chain, islice

import numpy as np
from jaxtyping import Float, Float32, UInt8

from stableanimator_jax.errors import InputError
from stableanimator_jax.opencv import cv2

FIRST = 16
"""Frames of the beginning by which a video's colours are judged, so that it can be written as it comes."""
_FLAT = 0.1  # of Lab's units: a channel of one value has no spread to scale
_NOTHING = 1e-3  # of Lab's units, which no pixel shows


@dataclass(frozen=True, eq=False)
class ColourMatch:
    """A linear change of each channel of CIE Lab."""

    scale: Float[np.ndarray, "3"]
    shift: Float[np.ndarray, "3"]
    """Added after scaling; L is from 0 to 100, a and b about from -128 to 127."""

    @classmethod
    def between(
        cls, frames: Iterable[UInt8[np.ndarray, "h w 3"]], reference: UInt8[np.ndarray, "h2 w2 3"]
    ) -> "ColourMatch":
        """What gives the pixels of all these frames the reference's mean and standard deviation, channel by channel.

        Where the frames have one value in a channel, only the mean is changed.
        """
        mean, deviation = _statistics(frames)
        wanted, spread = _statistics([reference])
        scale = np.where(deviation > _FLAT, spread / np.maximum(deviation, _FLAT), 1.0)
        return cls(scale, wanted - scale * mean)

    def __call__(self, frame: UInt8[np.ndarray, "h w 3"]) -> UInt8[np.ndarray, "h w 3"]:
        """The frame in the other colours; those that no screen shows are cut to what it does."""
        if np.abs(self.scale - 1).max() * 100 < _NOTHING and np.abs(self.shift).max() < _NOTHING:
            return frame
        changed = _to_lab(frame) * self.scale.astype(np.float32) + self.shift.astype(np.float32)
        return np.rint(np.clip(cv2.cvtColor(changed, cv2.COLOR_Lab2RGB), 0, 1) * 255).astype(np.uint8)


def match_colours(
    frames: Iterable[UInt8[np.ndarray, "h w 3"]], reference: UInt8[np.ndarray, "h2 w2 3"]
) -> Iterator[UInt8[np.ndarray, "h w 3"]]:
    """Frames in the reference's colours, one by one.

    The change is found from the first 16 frames, or all where there are fewer, and is the same for every frame, so that
    nothing flickers, and no more than these are held at once.

    Args:
        frames: of a video, 8-bit RGB.
        reference: 8-bit RGB, of the frames' aspect.

    Raises:
        InputError: the reference is not 8-bit RGB.
    """
    if reference.dtype != np.uint8 or reference.ndim != 3 or reference.shape[-1] != 3 or not reference.size:
        raise InputError(f"the reference must be uint8 RGB [height, width, 3], got {list(reference.shape)}")
    return _matched(iter(frames), reference)


def _matched(
    frames: Iterator[UInt8[np.ndarray, "h w 3"]], reference: UInt8[np.ndarray, "h2 w2 3"]
) -> Iterator[UInt8[np.ndarray, "h w 3"]]:
    first = list(islice(frames, FIRST))
    if first:
        match = ColourMatch.between(first, reference)
        yield from map(match, chain(first, frames))


def _to_lab(image: UInt8[np.ndarray, "h w 3"]) -> Float32[np.ndarray, "h w 3"]:
    return cv2.cvtColor(image.astype(np.float32) / 255, cv2.COLOR_RGB2Lab).astype(np.float32, copy=False)


def _statistics(
    images: Iterable[UInt8[np.ndarray, "h w 3"]],
) -> tuple[Float[np.ndarray, "3"], Float[np.ndarray, "3"]]:
    """Mean and standard deviation of each channel, over images of one size."""
    pixels = [_to_lab(image).reshape(-1, 3).astype(np.float64) for image in images]
    means = np.stack([values.mean(axis=0) for values in pixels])
    squares = np.stack([values.var(axis=0) for values in pixels]) + means**2
    mean = means.mean(axis=0)
    return mean, np.sqrt(np.maximum(squares.mean(axis=0) - mean**2, 0))
