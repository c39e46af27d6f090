"""One person through a video: which of the people in each frame it is, and where they are while nobody sees them."""

import math
from collections.abc import Callable, Collection, Sequence
from dataclasses import dataclass
from typing import NamedTuple

import numpy as np
from jaxtyping import Bool, Float32, Int
from scipy.optimize import linear_sum_assignment

from stableanimator_jax.data.keypoints import POINTS
from stableanimator_jax.perception.boxes import centres, overlaps
from stableanimator_jax.perception.people import People
from stableanimator_jax.perception.person_choice import largest

# Arms spread out make a standing person's box three times as wide, and overlap the old one by more than this.
_LEAST_OVERLAP = 0.2
# Who does not overlap with where they were may have moved so far, in their own heights: the middle of the box by
# limbs, and all of it by running or a panning camera.
_REACH, _REACH_A_SECOND = 0.5, 4.0
_MOST_GROWTH = 2.0  # of the height at once, where boxes do not overlap
_LONGEST_STRIDE = 0.5  # seconds for which somebody unseen is supposed to move on, and reach farther
_STEADINESS = 0.1  # seconds over which velocities are averaged
_STANDING_STILL = 0.1  # heights: what it costs to have stopped, so that two who cross are told apart by their motion
_MEMORY = 2.0  # seconds after which others who are not seen are forgotten
_SAME_PLACE = 0.5  # overlap with somebody's last box by which what looks like a scene cut is none
_USUAL = 0.25  # heights: farther apart than this, it hardly matters how far


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
    scenes: list[int]
    """First frames, after the very first, in which the person was chosen anew: at a scene cut, or among several."""


def follow(
    people: Sequence[People],
    *,
    fps: float,
    choose: Callable[[Float32[np.ndarray, "n 4"]], int] = largest,
    cuts: Collection[int] = (),
    max_gap: float = 1 / 3,
) -> Track:
    """Follow one person through the people of each frame.

    Everybody in view is followed from frame to frame, so that nobody is taken for somebody else who is known: people
    and boxes are paired so that all together are nearest to where their motion takes them, and nearest in height.
    A pair must overlap by 0.2 (intersection over union), or be of a like height and no farther apart than somebody
    can move in the time between.

    The person is chosen in the first frame that has anybody, and again wherever somebody is in view and nobody there
    is known: after a scene cut, or when the only person in view is suddenly elsewhere. Who leaves while others who are
    known stay is gone until they come back to near where they were last.

    Frames without the person are filled by linear interpolation where they are few and the person was not chosen
    anew, with the smaller of both ends' scores; else they are left empty, as are those before the first and after the
    last frame with the person.

    Args:
        people: of each frame.
        fps: frames a second, by which motion is judged the same at any rate.
        choose: takes the boxes of everybody in view, one or more, and gives the index of the one to follow.
        cuts: first frames of scenes; those in which anybody is still at their place do not count.
        max_gap: the longest time that is filled, in seconds; one frame at least, unless it is 0.
    """
    chosen, starts, scenes = _choose(people, fps, choose, cuts)
    found = chosen >= 0
    points = np.zeros((len(people), POINTS, 2), np.float32)
    scores = np.zeros((len(people), POINTS), np.float32)
    for i in np.flatnonzero(found).tolist():
        points[i], scores[i] = people[i].keypoints[chosen[i]], people[i].scores[chosen[i]]

    most_filled = 0 if max_gap == 0 else max(1, math.floor(max_gap * fps + 1e-6))
    interpolated = np.zeros(len(people), bool)
    gaps = []
    for first, last in _runs(~found):
        before, after = first - 1, last + 1
        inside = before >= 0 and after < len(people) and not any(before < start <= after for start in starts)
        if inside and after - first <= most_filled:
            share = (np.arange(first, after, dtype=np.float32) - before)[:, None, None] / (after - before)
            points[first:after] = points[before] + share * (points[after] - points[before])
            scores[first:after] = np.minimum(scores[before], scores[after])
            interpolated[first:after] = True
        else:
            gaps.append((first, last))
    others = np.array([len(p.boxes) for p in people], np.int64) - found
    return Track(points, scores, found, interpolated, gaps, others, scenes)


class _Known(NamedTuple):
    """Somebody as they were last seen."""

    box: Float32[np.ndarray, " 4"]
    velocity: Float32[np.ndarray, " 2"]
    """Pixels a second."""
    time: float
    """Seconds."""
    followed: bool

    def moved_to(self, box: Float32[np.ndarray, " 4"], time: float) -> "_Known":
        elapsed = time - self.time
        now = (centres(box[None]) - centres(self.box[None]))[0] / elapsed
        velocity = self.velocity + (1 - math.exp(-elapsed / _STEADINESS)) * (now - self.velocity)
        return _Known(box, velocity, time, self.followed)

    def costs(self, boxes: Float32[np.ndarray, "n 4"], time: float) -> Float32[np.ndarray, " n"]:
        """How far from what is expected each box is, from 0 to 1, where it is not them.

        The sum over people is to be least, and a far pair costs little less than none: so nobody gives up their own
        box for another's sake.
        """
        elapsed = min(time - self.time, _LONGEST_STRIDE)
        moved = self.box + np.tile(self.velocity * elapsed, 2)
        height, heights = (np.maximum(b[:, 3] - b[:, 1], 1) for b in (self.box[None], boxes))
        on, still = (np.linalg.norm(centres(boxes) - centres(b[None]), axis=1) / height for b in (moved, self.box))
        growth = np.abs(np.log(heights / height))
        overlap = np.maximum(overlaps(moved, boxes), overlaps(self.box, boxes))
        in_reach = np.minimum(on, still) <= _REACH + _REACH_A_SECOND * elapsed
        possible = (overlap >= _LEAST_OVERLAP) | (in_reach & (growth <= math.log(_MOST_GROWTH)))
        far = np.minimum(on, still + _STANDING_STILL) + growth
        return np.where(possible, far / (far + _USUAL), 1)


def _choose(
    people: Sequence[People], fps: float, choose: Callable[[Float32[np.ndarray, "n 4"]], int], cuts: Collection[int]
) -> tuple[Int[np.ndarray, " f"], list[int], list[int]]:
    """The person's index in each frame, -1 for none; and the frames in which they are chosen, and scenes begin."""
    chosen = np.full(len(people), -1, np.int64)
    starts: list[int] = []
    scenes: list[int] = []
    known: list[_Known] = []
    cut = False  # since the person was chosen
    for i, here in enumerate(people):
        boxes, time = here.boxes, i / fps
        known = [k for k in known if k.followed or time - k.time <= _MEMORY]
        if i in cuts and not any((overlaps(k.box, boxes) >= _SAME_PLACE).any() for k in known):
            known, cut = [], True
        pairs = _pair(known, boxes, time)
        if len(boxes) and not pairs:
            chosen[i] = choose(boxes)
            if starts and (cut or len(boxes) > 1):
                scenes.append(i)
            starts.append(i)
            known, cut = [], False
        for person, box in pairs.items():
            known[person] = known[person].moved_to(boxes[box], time)
            if known[person].followed:
                chosen[i] = box
        new = set(range(len(boxes))) - set(pairs.values())
        known += [_Known(boxes[k], np.zeros(2, np.float32), time, k == chosen[i]) for k in sorted(new)]
    return chosen, starts, scenes


def _pair(known: Sequence[_Known], boxes: Float32[np.ndarray, "n 4"], time: float) -> dict[int, int]:
    """Whose box is which: indices of `boxes` by those of `known`."""
    if not known or not len(boxes):
        return {}
    costs = np.stack([person.costs(boxes, time) for person in known])
    pairs = zip(*linear_sum_assignment(costs), strict=True)
    return {int(person): int(box) for person, box in pairs if costs[person, box] < 1}


def _runs(mask: Bool[np.ndarray, " f"]) -> list[tuple[int, int]]:
    """First and last index of each run of True."""
    edges = np.flatnonzero(np.diff(np.concatenate([[False], mask, [False]]).astype(np.int8)))
    return [(int(a), int(b) - 1) for a, b in edges.reshape(-1, 2)]
