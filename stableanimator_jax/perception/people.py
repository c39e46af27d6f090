"""The people in an image, and what finds them: `perception.dwpose.DWPose` and its kind."""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Protocol, runtime_checkable

import numpy as np
from jaxtyping import Float32, UInt8


@dataclass(frozen=True)
class People:
    """The people in one image, the surest first; in pixels of the image, and maybe outside of it."""

    boxes: Float32[np.ndarray, "n 4"]
    """Left, top, right, bottom."""
    keypoints: Float32[np.ndarray, "n 134 2"]
    """(x, y). Rows: 0 to 17 the body in OpenPose's order with the neck, 18 to 23 feet, 24 to 91 the face (iBUG's
    68), 92 to 112 and 113 to 133 the left and the right hand."""
    scores: Float32[np.ndarray, "n 134"]
    """Confidence. DWPose's is of the order of 1 for what is seen, and not bounded by it; the neck's is 1 or 0."""


@runtime_checkable
class PoseEstimator(Protocol):
    """What finds people and their keypoints. Messages call it by the name of its class."""

    def people(self, images: Sequence[UInt8[np.ndarray, "_ _ 3"]]) -> list[People]:
        """The people in each RGB image; where there is nobody, the arrays have no rows."""
        ...
