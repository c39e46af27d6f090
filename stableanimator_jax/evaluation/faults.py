"""Mistakes that a mean hides: videos in other colours, out of step, mirrored, of one colour, or with a frame astray."""

import numpy as np
from jaxtyping import Float32, UInt8

from stableanimator_jax.opencv import cv2

_SIDE = 48
_STEPS = (0, -2, -1, 1, 2)
_MUCH_BETTER = 0.6
"""The difference to the truth falls at least to this share of itself where a mistake is undone."""
_CLOSER = 0.9
"""Of a frame, to that of another moment."""
_LEAST_DIFFERENCE = 2.0
"""Levels; less is a good video, in whatever colours."""
_PLAIN = 1.5
"""Standard deviation, in levels, of a frame of one colour."""


def suspicions(generated: UInt8[np.ndarray, "f h w 3"], truth: UInt8[np.ndarray, "g h2 w2 3"] | None) -> list[str]:
    """What looks like a mistake, in words; [] where nothing does.

    Frames are compared small. Each suspicion is that the video would be far closer to its truth if one thing were
    undone, so that a video which is merely bad gives none.

    Args:
        generated: the frames.
        truth: as many; None, or another number of frames, leaves only what the frames themselves show.
    """
    a = _small(generated)
    plain = np.flatnonzero(_spread(a) < _PLAIN)
    found = [f"{_frames(plain)} of one colour"] if len(plain) else []
    if truth is None or len(truth) != len(generated) or len(plain) == len(a):
        return found
    b = _small(truth)
    apart = _apart(a, b)
    whole = float(apart.mean())
    if whole < _LEAST_DIFFERENCE:
        return found + _out_of_step(a, b, apart)
    undone = {
        "red and blue look swapped (BGR for RGB)": float(_apart(a[..., ::-1], b).mean()),
        "it looks mirrored": float(_apart(a[:, :, ::-1], b).mean()),
        "it looks upside down": float(_apart(a[:, ::-1], b).mean()),
        "it looks inverted (black for white)": float(_apart(255 - a, b).mean()),
    }
    best = min(undone, key=lambda what: undone[what])
    if undone[best] < _MUCH_BETTER * whole:
        return [*found, f"{best}: undone, it would differ from the truth by {undone[best]:.1f} levels, not {whole:.1f}"]
    return found + _out_of_step(a, b, apart)


def _out_of_step(a: np.ndarray, b: np.ndarray, apart: np.ndarray) -> list[str]:
    """Whether frames are those of other moments: all of them by the same step, or single ones."""
    count, middle = len(a), float(np.median(apart))
    if count < 6:
        return []
    by_step = np.full((len(_STEPS), count), np.inf)
    for row, step in zip(by_step, _STEPS, strict=True):
        here = slice(max(0, -step), count - max(0, step))
        there = slice(max(0, step), count - max(0, -step))
        row[here] = _apart(a[here], b[there])
    nearest = by_step.argmin(axis=0)
    closer = by_step.min(axis=0) < _CLOSER * apart
    steps = [_STEPS[k] if is_closer else 0 for k, is_closer in zip(nearest, closer, strict=True)]
    usual = max(_STEPS, key=steps.count)
    if usual and steps.count(usual) >= 0.7 * count:
        early, frames = "early" if usual > 0 else "late", "1 frame" if abs(usual) == 1 else f"{abs(usual)} frames"
        return [
            f"it looks {frames} too {early}: {steps.count(usual)} of {count} frames are nearer to others of the truth"
        ]
    said = []
    for i in np.flatnonzero(apart > 1.5 * middle + 0.5):
        text = f"frame {i} differs from its truth by {apart[i]:.1f} levels, the others by {middle:.1f}"
        said.append(text + (f"; it looks like frame {i + steps[i]} of the truth" if steps[i] else ""))
    return [] if len(said) > max(1, count // 8) else said


def _small(frames: UInt8[np.ndarray, "f h w 3"]) -> Float32[np.ndarray, "f 48 48 3"]:
    small = [cv2.resize(frame, (_SIDE, _SIDE), interpolation=cv2.INTER_AREA) for frame in frames]
    return np.stack(small).astype(np.float32)


def _apart(a: np.ndarray, b: np.ndarray) -> Float32[np.ndarray, "f"]:
    return np.abs(a - b).mean(axis=(1, 2, 3))


def _spread(frames: np.ndarray) -> Float32[np.ndarray, "f"]:
    return frames.std(axis=(1, 2)).max(axis=-1)


def _frames(numbers: np.ndarray) -> str:
    if len(numbers) == 1:
        return f"frame {numbers[0]} is"
    if len(numbers) == numbers[-1] - numbers[0] + 1:
        return f"frames {numbers[0]} to {numbers[-1]} are"
    return f"{len(numbers)} frames, {numbers[0]} the first, are"
