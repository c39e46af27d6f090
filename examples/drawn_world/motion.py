"""How drawn people move: smooth sequences of a few angles, by a seed."""

from dataclasses import dataclass

import numpy as np


@dataclass(frozen=True)
class Motion:
    """Of every frame; arrays of one length. Angles in radians, places in frame heights."""

    x: np.ndarray
    """Of the neck."""
    y: np.ndarray
    lean: np.ndarray
    yaw: np.ndarray
    """Of the head: positive looks to the picture's right."""
    pitch: np.ndarray
    """Positive looks down."""
    roll: np.ndarray
    upper_arms: np.ndarray
    """[frames, 2] (picture's left, right), from hanging down, outwards."""
    forearms: np.ndarray
    """[frames, 2], from the upper arm's direction, upwards."""
    mouth: np.ndarray
    """How far open, 0 to 1."""
    blink: np.ndarray
    """How far shut, 0 to 1."""


def _wander(r: np.random.Generator, frames: int, low: float, high: float, slowest: float = 90, fastest: float = 24):
    """A sum of three slow sines, between two bounds."""
    t = np.arange(frames)
    total = np.zeros(frames)
    for _ in range(3):
        total += r.uniform(0.3, 1) * np.sin(2 * np.pi * (t / r.uniform(fastest, slowest) + r.random()))
    return low + (high - low) * (0.5 + 0.5 * np.tanh(total))


def make_motion(seed: int, frames: int = 64) -> Motion:
    """The same seed, the same movement, of whoever makes it."""
    r = np.random.Generator(np.random.PCG64([11, seed]))
    blink = np.zeros(frames)
    for start in range(int(r.integers(8, 30)), frames, int(r.integers(24, 48))):
        blink[start : start + 3] = (0.6, 1, 0.5)[: len(blink[start : start + 3])]
    return Motion(
        x=_wander(r, frames, 0.40, 0.60),
        y=_wander(r, frames, 0.56, 0.66),
        lean=_wander(r, frames, -0.15, 0.15),
        yaw=_wander(r, frames, -0.7, 0.7),
        pitch=_wander(r, frames, -0.22, 0.28),
        roll=_wander(r, frames, -0.22, 0.22),
        upper_arms=np.stack([_wander(r, frames, 0.1, 1.9), _wander(r, frames, 0.1, 1.9)], axis=1),
        forearms=np.stack([_wander(r, frames, 0.1, 2.2), _wander(r, frames, 0.1, 2.2)], axis=1),
        mouth=np.clip(_wander(r, frames, -0.6, 0.8, fastest=10, slowest=30), 0, 1),
        blink=blink,
    )
