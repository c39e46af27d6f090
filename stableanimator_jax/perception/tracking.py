"""One person through a video: which of the people in each frame it is, and where they are while nobody sees them."""

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from jaxtyping import Bool, Float32, Int

from stableanimator_jax.perception.boxes import areas, overlaps
from stableanimator_jax.perception.dwpose import People

# Arms spread out make a standing person's box three times as wide; a neighbour's box overlaps by less than this.
_LEAST_OVERLAP = 0.2
_POINTS = 134


@dataclass(frozen=True)
class Track:
    """The person who is followed; rows of keypoints as in `People`."""

    points: Float32[np.ndarray, "f 134 2"]
    """(x, y) in pixels; zeros where the frame is left empty."""
    scores: Float32[np.ndarray, "f 134"]
    """Confidence; zeros where the frame is left empty."""
    found: Bool[np.ndarray, " f"]
    """Whether the detector saw the person."""
    interpolated: Bool[np.ndarray, " f"]
    """Whether the keypoints are between those of the frames before and after."""
    gaps: list[tuple[int, int]]
    """First and last frame of each run that is left empty."""
    others: Int[np.ndarray, " f"]
    """How many other people are in each frame."""


def follow(people: Sequence[People], *, max_gap: int = 8, patience: int = 8) -> Track:
    """Follow one person through the people of each frame.

    It is the one with the largest box in the first frame that has anybody, and then whoever's box overlaps most with
    the last one known, by an intersection over union of at least 0.2. When that is nobody for more than `patience`
    frames, the next frame that has anybody gives the largest one in it, who is then followed backwards too, to where
    the last person was lost: so that a scene cut leaves no hole.

    Frames without the person are filled by linear interpolation where they are few and the person was found again
    by overlap, with the smaller of both ends' scores; else they are left empty, as are those before the first and
    after the last frame with the person.

    Args:
        people: of each frame.
        max_gap: the most frames in a row that are filled.
        patience: the most frames in a row without the person before anybody is followed.
    """
    chosen, starts = _choose(people, patience)
    found = chosen >= 0
    points = np.zeros((len(people), _POINTS, 2), np.float32)
    scores = np.zeros((len(people), _POINTS), np.float32)
    for i in np.flatnonzero(found).tolist():
        points[i], scores[i] = people[i].keypoints[chosen[i]], people[i].scores[chosen[i]]

    interpolated = np.zeros(len(people), bool)
    gaps = []
    for first, last in _runs(~found):
        before, after = first - 1, last + 1
        inside = before >= 0 and after < len(people) and not any(before < start <= after for start in starts)
        if inside and last - first < max_gap:
            share = (np.arange(first, after, dtype=np.float32) - before)[:, None, None] / (after - before)
            points[first:after] = points[before] + share * (points[after] - points[before])
            scores[first:after] = np.minimum(scores[before], scores[after])
            interpolated[first:after] = True
        else:
            gaps.append((first, last))
    others = np.array([len(p.boxes) for p in people], np.int64) - found
    return Track(points, scores, found, interpolated, gaps, others)


def _choose(people: Sequence[People], patience: int) -> tuple[Int[np.ndarray, " f"], list[int]]:
    """The person's index in each frame, -1 for none; and the frames in which somebody new begins."""
    chosen = np.full(len(people), -1, np.int64)
    starts: list[int] = []
    last: int | None = None  # the latest frame with the person
    for i, here in enumerate(people):
        if last is not None:
            chosen[i] = _overlapping(_box(people, chosen, last), here)
        if chosen[i] < 0 and len(here.boxes) and (last is None or i - last > patience):
            chosen[i] = np.argmax(areas(here.boxes))
            begin = _follow_back(people, chosen, i, stop=-1 if last is None else last)
            starts.append(begin)
        if chosen[i] >= 0:
            last = i
    return chosen, starts


def _follow_back(people: Sequence[People], chosen: Int[np.ndarray, " f"], i: int, stop: int) -> int:
    """Fill `chosen` before frame `i` and after `stop` while the person is there; the first such frame."""
    while i - 1 > stop:
        index = _overlapping(_box(people, chosen, i), people[i - 1])
        if index < 0:
            break
        i -= 1
        chosen[i] = index
    return i


def _box(people: Sequence[People], chosen: Int[np.ndarray, " f"], i: int) -> Float32[np.ndarray, " 4"]:
    return people[i].boxes[chosen[i]]


def _overlapping(box: Float32[np.ndarray, " 4"], people: People) -> int:
    """The index of whoever overlaps most with a box, or -1."""
    shares = overlaps(box, people.boxes)
    best = int(np.argmax(shares)) if len(shares) else -1
    return best if best >= 0 and shares[best] >= _LEAST_OVERLAP else -1


def _runs(mask: Bool[np.ndarray, " f"]) -> list[tuple[int, int]]:
    """First and last index of each run of True."""
    edges = np.flatnonzero(np.diff(np.concatenate([[False], mask, [False]]).astype(np.int8)))
    return [(int(a), int(b) - 1) for a, b in edges.reshape(-1, 2)]
