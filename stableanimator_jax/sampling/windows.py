"""Overlapping windows: how a video of any length is seen through a UNet of a fixed number of frames."""

from dataclasses import dataclass

import numpy as np


@dataclass(frozen=True)
class Windows:
    """Windows over a video. Every window begins with frame 0, which all of them share."""

    frames: int
    """Frames to denoise: those of the video, or one whole window where the video is shorter."""
    indices: np.ndarray
    """`[windows, window]` int32: the frames that each window sees."""
    weights: np.ndarray
    """`[window]` float32: what a prediction counts in the average, by its position in the window."""


def plan_windows(video_frames: int, window: int, overlap: int) -> Windows:
    """The published tiling, for a video of at least one frame.

    Window k is frame 0 followed by frames s+1 to s+window-1, s = k * (window - overlap), as long as s + window is
    within the video; where the last frame is left over, one more window is frame 0 and the last window - 1 frames.
    The weights are triangular: min(w, 2 - w) with w = (i + 0.5) * 2 / window.

    A video shorter than a window (where the published code stops) is planned as one whole window, so that the
    UNet sees as many frames as it was trained on and is compiled for one shape only; the frames beyond the video
    are to be dropped in the end.
    """
    frames = max(video_frames, window)
    stride = window - overlap
    starts = list(range(0, frames - window + 1, stride))
    if starts[-1] + window < frames:
        starts.append(frames - window)
    indices = np.array([[0, *range(s + 1, s + window)] for s in starts], np.int32)
    w = (np.arange(window) + 0.5) * 2 / window
    return Windows(frames, indices, np.minimum(w, 2 - w).astype(np.float32))
