"""Whether images given as poses look like DWPose's thin skeletons, the only ones that PoseNet knows."""

import math
import sys
from collections.abc import Iterable, Iterator

import numpy as np
from jaxtyping import UInt8
from numpy.lib.stride_tricks import sliding_window_view

_LEAST_BLACK = 0.75  # thin skeletons leave 0.98 of an image black, thick ones 0.87, photos 0.2
_LEAST_SIDE = 256  # below, a thick line is a pixel wide too
_WIDE = 0.0085  # of the short side: twice as wide as a limb of DWPose's, 8 pixels of 2160
_MOST_WIDE = 0.4  # share of the coloured light in lines this wide: thin ones have up to 0.03, thick ones from 0.6
_HAND_DISC = 9 / 2160  # a finger joint's diameter: pure blue, and pure red where the channels are exchanged
_LEAST_DISCS = 5


def watched(images: Iterable[UInt8[np.ndarray, "h w 3"]], label: str) -> Iterator[UInt8[np.ndarray, "h w 3"]]:
    """Pass images on; when all have passed, say on stderr in one line what is wrong with them as poses.

    Images 0, 1, 2, 4, 8, … are looked at; those without anybody do not count. Thick lines and exchanged channels show
    from a short side of 256 pixels, the channels by the hands alone, whose joints are blue.

    Args:
        images: as they are stored, before they are made smaller.
        label: names them in the warning, as in "poses skeletons/".
    """
    looks = []
    for i, image in enumerate(images):
        if i & (i - 1) == 0 and image.max() >= 64:
            looks.append(_look(image))
        yield image
    if looks and (complaint := _complaint(*np.mean(looks, axis=0))):
        print(f"warning: {label} {complaint}", file=sys.stderr)


def _complaint(black: float, wide: float, red: float, blue: float) -> str | None:
    if black < _LEAST_BLACK:
        return (
            f"do not look like skeletons: only {black:.0%} of the pixels are black; for an ordinary video of a person "
            "use --driving"
        )
    if wide > _MOST_WIDE:
        return (
            "have thick lines, as other programs draw skeletons; PoseNet knows DWPose's thin ones (8 pixels where the "
            "short side has 2160), so expect poor frames: draw them anew by --driving with --save-poses"
        )
    if red >= _LEAST_DISCS and red > 3 * blue:
        return "seem to have red and blue exchanged (the hands' joints are red, not blue): exchange them back"
    return None


def _look(image: UInt8[np.ndarray, "h w 3"]) -> tuple[float, float, float, float]:
    """Shares of black pixels and of light in wide lines; areas of pure red and blue in finger joints."""
    side = min(image.shape[:2])
    bright, dark = image.max(axis=-1), image.min(axis=-1)
    black = float((bright < 32).mean())
    if side < _LEAST_SIDE:
        return black, 0.0, 0.0, 0.0
    red, green, blue = (image[..., i].astype(np.int32) for i in range(3))
    pure_red, pure_blue = 4 * np.maximum(green, blue) < red, 4 * np.maximum(red, green) < blue
    # Without the face, which is white, and the hands: far away each of them is one blot.
    limbs = np.where((2 * dark.astype(int) < bright) & (bright >= 40) & ~pure_red & ~pure_blue, bright, np.uint8(0))
    width = max(3, round(_WIDE * side))
    wide = float(_opened(limbs, width).sum(dtype=np.int64) / max(1, limbs.sum(dtype=np.int64)))
    disc = math.pi / 4 * (_HAND_DISC * side) ** 2
    full = bright > 165  # limbs have 0.6 of 255
    return black, wide, float((full & pure_red).sum() / disc), float((full & pure_blue).sum() / disc)


def _opened(image: UInt8[np.ndarray, "h w"], width: int) -> UInt8[np.ndarray, "h w"]:
    """What squares of `width` pixels fit into. Without OpenCV, so that poses can be read where it cannot be loaded."""
    for axis in (0, 1):
        image = sliding_window_view(image, width, axis=axis).min(axis=-1)
    image = np.pad(image, width - 1)
    for axis in (0, 1):
        image = sliding_window_view(image, width, axis=axis).max(axis=-1)
    return image
