"""Clips of drawn people, whole: what the data preparation would find in videos of them."""

from dataclasses import dataclass

import numpy as np
from jaxtyping import Float32, UInt8

from examples.drawn_world.drawing import draw
from examples.drawn_world.motion import make_motion
from examples.drawn_world.people import make_person
from stableanimator_jax.data.face_track import FaceTrack
from stableanimator_jax.data.images import fit
from stableanimator_jax.opencv import cv2
from stableanimator_jax.perception.face_points import track_from_keypoints
from stableanimator_jax.perception.skeleton import DWPOSE_STYLE, SkeletonStyle, draw_skeletons

TRAIN_SEEDS, VALIDATION_SEEDS, TEST_SEEDS = 0, 1_000_000, 2_000_000
"""Where the seeds of the people (with their motions and walls) of each split begin."""
_MOST_SEEDS = 1_000_000_000  # of the motions and walls that training draws
_MOTION = 64  # frames of each of these motions
SKELETON_SIDE = 512
"""Of the pictures that skeletons are drawn as, before they are made as small as the frames."""


@dataclass(frozen=True)
class DrawnClip:
    """One person in one motion before one wall."""

    frames: UInt8[np.ndarray, "f size size 3"]
    points: Float32[np.ndarray, "f 134 2"]
    """In pixels of the frames."""
    scores: Float32[np.ndarray, "f 134"]

    @property
    def faces(self) -> FaceTrack:
        """Boxes and landmarks, as the program finds them from keypoints."""
        size = self.frames.shape[1]
        return track_from_keypoints(self.points, self.scores).fitted((size, size), size, size, "crop")


def draw_frames(person: int, motion: int, wall: int, moments: range, size: int) -> DrawnClip:
    """Draw some frames of a movement.

    Args:
        person, motion, wall: seeds.
        moments: which frames of the motion.
        size: of the frames in pixels.
    """
    who, how = make_person(person), make_motion(motion, moments.stop)
    drawn = [draw(who, how, moment, size, wall) for moment in moments]
    return DrawnClip(*(np.stack(part) for part in zip(*drawn, strict=True)))


def draw_clip(person: int, motion: int, wall: int, frames: int, size: int) -> DrawnClip:
    """The first so many frames of a movement; arguments as for `draw_frames`."""
    return draw_frames(person, motion, wall, range(frames), size)


def draw_moment(person: int, random: np.random.Generator, frames: int, size: int) -> DrawnClip:
    """A few consecutive frames of somebody in some motion before some wall.

    Args:
        person: seed.
        random: chooses the motion, the moment and the wall.
        frames: how many.
        size: of the frames in pixels.
    """
    motion = int(random.integers(_MOST_SEEDS))
    first, wall = int(random.integers(_MOTION - frames + 1)), int(random.integers(_MOST_SEEDS))
    return draw_frames(person, motion, wall, range(first, first + frames), size)


def skeletons(
    clip: DrawnClip, side: int = SKELETON_SIDE, style: SkeletonStyle = DWPOSE_STYLE
) -> UInt8[np.ndarray, "f side side 3"]:
    """The clip's keypoints drawn."""
    size = clip.frames.shape[1]
    pairs = zip(clip.points, clip.scores, strict=True)
    return np.stack([draw_skeletons(p[None] / size, s[None], side, side, style) for p, s in pairs])


def small_skeletons(clip: DrawnClip, style: SkeletonStyle = DWPOSE_STYLE) -> UInt8[np.ndarray, "f size size 3"]:
    """Skeletons of the frames' size, made small exactly as `load_poses` does it."""
    size = clip.frames.shape[1]
    large = skeletons(clip, style=style)
    return np.stack([fit(image, size, size, "crop", filter="bicubic", fill=(0, 0, 0)) for image in large])


def lossless_enough_jpeg(image: UInt8[np.ndarray, "h w 3"]) -> bytes:
    """JPEG with colours at full resolution: an eye is two pixels wide, and halved colours would lose it."""
    options = [
        cv2.IMWRITE_JPEG_QUALITY,
        98,
        cv2.IMWRITE_JPEG_SAMPLING_FACTOR,
        cv2.IMWRITE_JPEG_SAMPLING_FACTOR_444,
    ]
    done, data = cv2.imencode(".jpg", cv2.cvtColor(image, cv2.COLOR_RGB2BGR), options)
    assert done
    return data.tobytes()
