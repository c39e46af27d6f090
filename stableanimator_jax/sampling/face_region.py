"""The part of the frames around the faces that the face optimisation decodes, where it does not decode all of them."""

from typing import NamedTuple

import numpy as np
from jaxtyping import Bool, Int

from stableanimator_jax.sampling.face_crop import Crops

# Sizes are rounded up to this many latent cells: faces that move or grow a little need no new program.
SIZE_STEP = 4


class Regions(NamedTuple):
    """One rectangle of latent cells a chunk, all of one size, so that one program serves every chunk."""

    size: tuple[int, int]
    """Height and width."""
    starts: Int[np.ndarray, "chunks 2"]
    """The first row and column of each."""


def whole_frames(frame: tuple[int, int], chunks: int) -> Regions:
    """Regions that cover frames of `frame` latent cells, for `chunks` chunks."""
    return Regions(frame, np.zeros((chunks, 2), np.int32))


def face_regions(
    crops: Crops,
    valid: Bool[np.ndarray, "f"],
    *,
    chunk: int,
    frame: tuple[int, int],
    downscale: int,
    margin: float,
) -> Regions:
    """Where each chunk's faces are, with a margin.

    A chunk's region holds what the crops of all its frames read, and on every side `margin` times the longer side
    of that, as far as the frame goes. Regions smaller than the largest are filled up around their faces.

    Args:
        crops: of each frame.
        valid: which frames show a face; at least one does.
        chunk: frames in a chunk.
        frame: height and width of the frames in latent cells.
        downscale: pixels per latent cell along an axis.
        margin: 0 or more.
    """
    low, high = (corners[:, ::-1] for corners in crops.extents())  # (y, x), as frames are indexed
    pixels = downscale * np.array(frame)
    low, high = np.clip(low, 0, pixels - 1), np.clip(high, 0, pixels - 1) + 1
    spans = {}
    for i, start in enumerate(range(0, len(valid), chunk)):
        faces = np.flatnonzero(valid[start : start + chunk]) + start
        if len(faces):
            first, end = low[faces].min(0), high[faces].max(0)
            border = margin * (end - first).max()
            first = np.floor((first - border) / downscale)
            end = np.ceil((end + border) / downscale)
            spans[i] = np.clip([first, end], 0, frame).astype(np.int32)
    largest = np.max([end - first for first, end in spans.values()], axis=0)
    size = np.minimum(-(-largest // SIZE_STEP) * SIZE_STEP, frame)
    starts = whole_frames(frame, -(-len(valid) // chunk)).starts
    for i, (first, end) in spans.items():
        starts[i] = np.clip(first - (size - (end - first)) // 2, 0, frame - size)
    return Regions((int(size[0]), int(size[1])), starts)
