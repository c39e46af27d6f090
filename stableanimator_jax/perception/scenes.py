"""Scene cuts: where one shot of a video ends and another begins."""

import numpy as np
from jaxtyping import UInt8

from stableanimator_jax.opencv import cv2

THUMBNAIL = 64
"""Side of the small images that shots and clips are judged by: noise and compression are averaged away in them."""

_RECENT = 8  # frames whose mean change a cut is compared with


def thumbnail(frame: UInt8[np.ndarray, "h w 3"]) -> UInt8[np.ndarray, "64 64 3"]:
    """The whole frame as a small RGB square."""
    return cv2.resize(frame, (THUMBNAIL, THUMBNAIL), interpolation=cv2.INTER_AREA).astype(np.uint8, copy=False)


class CutDetector:
    """Tells, frame by frame, whether a frame begins a new shot.

    A frame does where it differs from the one before by at least `threshold` grey levels (0 to 255; the mean over
    all pixels and channels of the small image), and by at least three times as much as frames of this shot did
    lately: fast motion changes every frame, a cut one.
    """

    def __init__(self, threshold: float = 25.0):
        self._threshold = threshold
        self.change = 0.0
        """How much the latest frame differed from the one before it."""
        self._last: np.ndarray | None = None
        self._changes: list[float] = []

    def is_cut(self, small: UInt8[np.ndarray, "64 64 3"]) -> bool:
        """Take the next frame, as `thumbnail` gives it. The first frame of all is no cut."""
        current = small.astype(np.float32)
        if self._last is None:
            self._last = current
            return False
        change = self.change = float(np.abs(current - self._last).mean())
        self._last = current
        usual = float(np.mean(self._changes)) if self._changes else 0.0
        cut = change >= max(self._threshold, 3 * usual)
        # A cut begins a new shot's history and counts in it: what then goes on changing as much is motion.
        self._changes = [change] if cut else [*self._changes[1 - _RECENT :], change]
        return cut
