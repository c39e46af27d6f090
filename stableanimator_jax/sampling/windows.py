"""Windows: how a video of any length is seen through a UNet of a fixed number of frames."""

from collections.abc import Callable
from dataclasses import dataclass

import numpy as np

from stableanimator_jax.family import Tiling


@dataclass(frozen=True)
class Windows:
    """Windows over a video, all of one length."""

    frames: int
    """Frames to denoise: those of the video, or more where it is filled up to a whole window."""
    indices: np.ndarray
    """`[windows, window]` int32: the frames that each window sees."""
    poses: np.ndarray
    """`[windows, window]` int32: the frames whose poses it is told in their places."""
    weights: np.ndarray
    """`[windows, window]` float32: what a prediction counts in the average."""
    rise: np.ndarray
    """`[windows, window]` float32: how far guidance has risen there, from 0, its least, to 1, its most."""
    noise: np.ndarray
    """`[frames]` int32: which of the draws of unit noise each frame begins from."""

    @property
    def window(self) -> int:
        """Frames of each."""
        return self.indices.shape[1]

    @property
    def draws(self) -> int:
        """Of unit noise, a frame each."""
        return int(self.noise.max()) + 1


def tile(tiling: Tiling, video_frames: int, window: int, overlap: int) -> Windows:
    """The windows of a video of at least one frame, as one of `family.FAMILY` is published to lay them."""
    return _TILINGS[tiling](video_frames, window, overlap)


def plan_windows(video_frames: int, window: int, overlap: int) -> Windows:
    """StableAnimator's and MimicMotion's tiling. Every window begins with frame 0, which all of them share.

    Window k is frame 0 followed by frames s+1 to s+window-1, s = k * (window - overlap), as long as s + window is
    within the video; where the last frame is left over, one more window is frame 0 and the last window - 1 frames.
    The weights are triangular: min(w, 2 - w) with w = (i + 0.5) * 2 / window. Guidance rises over the video, and the
    noise of one window is repeated over it.

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
    weights = np.broadcast_to(np.minimum(w, 2 - w).astype(np.float32), indices.shape)
    rise = np.pad(np.linspace(0, 1, video_frames, dtype=np.float32), (0, frames - video_frames), mode="edge")
    poses = np.minimum(indices, video_frames - 1)
    return Windows(frames, indices, poses, weights, rise[indices], np.arange(frames, dtype=np.int32) % window)


def plan_fitted(video_frames: int, window: int, overlap: int) -> Windows:
    """`plan_windows`, but a video shorter than a window is one of its own length: long windows cost much to fill up."""
    if video_frames > window:
        return plan_windows(video_frames, window, overlap)
    return plan_windows(video_frames, video_frames, 0)


def plan_runs(video_frames: int, window: int, overlap: int) -> Windows:
    """ControlNeXt's tiling: runs of frames, each of which is told the first frame's pose in its first place.

    Starts are multiples of window - overlap below video_frames - overlap; a run past the end is moved back to it. All
    count alike, but for the first places of runs that do not begin the video, which are thrown away. Guidance rises
    over each run, and every frame has noise of its own. A shorter video is one run of its own length. An overlap of 1
    or more sees to it that what is thrown away is known from the run before.
    """
    window = min(window, video_frames)
    starts = range(0, video_frames - overlap, window - overlap) if video_frames > window else (0,)
    first = np.minimum(np.array(starts, np.int32), video_frames - window)
    indices = first[:, None] + np.arange(window, dtype=np.int32)
    poses, weights = indices.copy(), np.ones(indices.shape, np.float32)
    poses[:, 0] = 0
    weights[first > 0, 0] = 0
    rise = np.broadcast_to(np.linspace(0, 1, window, dtype=np.float32), indices.shape)
    return Windows(video_frames, indices, poses, weights, rise, np.arange(video_frames, dtype=np.int32))


def plan_whole(video_frames: int, window: int, overlap: int) -> Windows:
    """SVD's tiling, none: all frames at once, whatever the window."""
    del window, overlap
    return plan_runs(video_frames, video_frames, 0)


_TILINGS: dict[Tiling, Callable[[int, int, int], Windows]] = {
    "filled": plan_windows,
    "fitted": plan_fitted,
    "runs": plan_runs,
    "whole": plan_whole,
}
