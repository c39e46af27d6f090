"""Unseen people in unseen motions: a reference picture, the poses to animate it by, and the truth."""

import itertools
from dataclasses import dataclass

import numpy as np
from jaxtyping import Float32, UInt8

from examples.drawn_world.canvas import Canvas, background, shade
from examples.drawn_world.clips import TEST_SEEDS, draw_frames, small_skeletons
from examples.drawn_world.people import Colour, Person
from stableanimator_jax.data.face_track import FaceTrack
from stableanimator_jax.perception.skeleton import DWPOSE_STYLE, SkeletonStyle

UNSEEN_SEEDS = 2_000_000_000
"""Where the seeds of motions and walls begin that no training can have drawn: all of its own are smaller."""
_REFERENCE_LENGTH = 64  # frames of the motion that the reference is one of


@dataclass(frozen=True)
class Pair:
    """Seeds of a person, of two motions and a wall."""

    person: int
    reference_motion: int
    reference_frame: int
    """Of that motion; any, as in training: heads may be turned, and hands before the face."""
    driving_motion: int
    wall: int


@dataclass(frozen=True)
class DrawnPair:
    """A pair, drawn."""

    pair: Pair
    reference: UInt8[np.ndarray, "size size 3"]
    reference_box: Float32[np.ndarray, "4"]
    """The face's; left, top, right, bottom in pixels, inclusive."""
    poses: UInt8[np.ndarray, "f size size 3"]
    """Skeletons of the driving motion, as `load_poses` gives them."""
    truth: UInt8[np.ndarray, "f size size 3"]
    """The same person in the driving motion, before the same wall."""
    faces: FaceTrack
    """Of the truth."""
    wall: UInt8[np.ndarray, "size size 3"]
    """Without the person."""


def unseen_pairs(count: int, first: int = 0) -> list[Pair]:
    """`count` pairs from number `first` on: always the same, no two with a person, a motion or a wall in common."""
    return [_pair(number) for number in range(first, first + count)]


def _pair(number: int) -> Pair:
    random = np.random.default_rng([23, number])
    return Pair(
        person=TEST_SEEDS + number,
        reference_motion=UNSEEN_SEEDS + 2 * number,
        reference_frame=int(random.integers(_REFERENCE_LENGTH)),
        driving_motion=UNSEEN_SEEDS + 2 * number + 1,
        wall=UNSEEN_SEEDS + number,
    )


def draw_pair(pair: Pair, *, frames: int, stride: int, size: int, style: SkeletonStyle = DWPOSE_STYLE) -> DrawnPair:
    """Draw a pair.

    Args:
        pair: who, in which motions, where.
        frames: of the driving motion.
        stride: from one of them to the next.
        size: of the pictures in pixels.
        style: of the skeletons.
    """
    moment = range(pair.reference_frame, pair.reference_frame + 1)
    reference = draw_frames(pair.person, pair.reference_motion, pair.wall, moment, size)
    driven = draw_frames(pair.person, pair.driving_motion, pair.wall, range(0, frames * stride, stride), size)
    return DrawnPair(
        pair=pair,
        reference=reference.frames[0],
        reference_box=reference.faces.boxes[0],
        poses=small_skeletons(driven, style),
        truth=driven.frames,
        faces=driven.faces,
        wall=Canvas(size, background(pair.wall)).picture(),
    )


def palette(person: Person) -> dict[str, tuple[Colour, ...]]:
    """The colours of somebody's skin, hair and shirt, in light and in shade."""
    shaded = {
        "skin": ((person.skin, 0.82),),
        "hair": ((person.hair_colour, 0.8),),
        "shirt": ((person.shirt_colour, 0.85), (person.shirt_second, 1.0)),
    }
    return {
        part: tuple(
            dict.fromkeys(itertools.chain.from_iterable((colour, shade(colour, dark)) for colour, dark in some))
        )
        for part, some in shaded.items()
    }
