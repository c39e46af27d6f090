"""Shapes in frame heights, drawn large and made small, so that edges are smooth and small details survive."""

import numpy as np

from examples.drawn_world.people import Colour
from stableanimator_jax.opencv import cv2

SUPERSAMPLED = 4
_SHIFT = 4  # bits below the point in OpenCV's coordinates


def shade(colour: Colour, factor: float) -> Colour:
    """A colour made darker (below 1) or lighter."""
    r, g, b = (int(np.clip(c * factor, 0, 255)) for c in colour)
    return r, g, b


def ellipse(x: float, y: float, a: float, b: float, start: float = 0, end: float = 360, n: int = 24) -> np.ndarray:
    """Points [n, 2] on an ellipse around (x, y) with half-axes a and b, from one angle in degrees to another."""
    t = np.radians(np.linspace(start, end, n))
    return np.column_stack([x + a * np.cos(t), y + b * np.sin(t)])


class Canvas:
    """A square picture in the making.

    Args:
        size: of the picture in pixels.
        background: uint8 [h, w, 3], any size.
        supersampled: how many times as large it is drawn.
    """

    def __init__(self, size: int, background: np.ndarray, supersampled: int = SUPERSAMPLED):
        self.size, self.scale = size, size * supersampled
        self.image = cv2.resize(background, (self.scale, self.scale), interpolation=cv2.INTER_LINEAR)

    def fill(self, points: np.ndarray, colour: Colour) -> None:
        """A polygon."""
        cv2.fillPoly(self.image, [self._pixels(points)], colour, cv2.LINE_AA, _SHIFT)

    def line(self, points: np.ndarray, colour: Colour, width: float, closed: bool = False) -> None:
        """Straight pieces from point to point."""
        thickness = max(1, round(width * self.scale))
        cv2.polylines(self.image, [self._pixels(points)], closed, colour, thickness, cv2.LINE_AA, _SHIFT)

    def disc(self, centre: np.ndarray, radius: float, colour: Colour) -> None:
        """A filled circle."""
        x, y = self._pixels(centre).tolist()
        r = max(1, round(radius * self.scale * 2**_SHIFT))
        cv2.circle(self.image, (x, y), r, colour, -1, cv2.LINE_AA, _SHIFT)

    def picture(self) -> np.ndarray:
        """uint8 [size, size, 3]."""
        return cv2.resize(self.image, (self.size, self.size), interpolation=cv2.INTER_AREA)

    def _pixels(self, points: np.ndarray) -> np.ndarray:
        return np.round(np.asarray(points, np.float64) * self.scale * 2**_SHIFT).astype(np.int32)


def background(seed: int) -> np.ndarray:
    """A wall with a few plain things on it, uint8 [128, 128, 3]."""
    r = np.random.Generator(np.random.PCG64([13, seed]))
    size = 128
    top, bottom = r.integers(60, 230, (2, 3))
    ramp = np.linspace(0, 1, size)[:, None, None]
    image = (top * (1 - ramp) + bottom * ramp) * np.ones((1, size, 1))
    for _ in range(int(r.integers(1, 4))):
        x, y = r.integers(0, size, 2)
        w, h = r.integers(size // 8, size // 2, 2)
        image[y : y + h, x : x + w] = image[y : y + h, x : x + w] * 0.6 + r.integers(40, 240, 3) * 0.4
    return image.astype(np.uint8)
