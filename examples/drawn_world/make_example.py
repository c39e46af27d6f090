"""Make the example that ships in the package: a drawn person's picture, a pose sequence, and where the face is.

    python -m examples.drawn_world.make_example [DIRECTORY]

The person, the movement and the wall behind are of the drawn world, by a seed that is none of those that the weights in
the package were trained on. The same files come out every time.
"""

import sys
from pathlib import Path

import numpy as np
from jaxtyping import UInt8
from PIL import Image

from examples.drawn_world.canvas import SUPERSAMPLED
from examples.drawn_world.clips import SKELETON_SIDE, TEST_SEEDS, DrawnClip, draw_clip, skeletons
from examples.drawn_world.drawing import draw
from examples.drawn_world.motion import make_motion
from examples.drawn_world.people import make_person
from stableanimator_jax.data.face_track import FaceTrack, save_face_boxes
from stableanimator_jax.opencv import cv2
from stableanimator_jax.shipped import EXAMPLE

SEED = TEST_SEEDS + 16
SIZE = 64
"""Of the pictures that the model knows. Where faces are is in whole pixels of these, as in training."""
MOTION = 64
"""Frames of the movement; the first half of them are the poses."""
FRAMES = 32
REFERENCE = 56
"""The frame of the movement that the picture shows: face on, and none of the poses."""


def drawn() -> DrawnClip:
    """The whole movement, as the model would see it."""
    return draw_clip(SEED, SEED, SEED, MOTION, SIZE)


def picture() -> UInt8[np.ndarray, "side side 3"]:
    """The drawing that the reference frame is made of by making it small.

    A larger one would have finer lines, in which ArcFace sees a somewhat different person.
    """
    side = SUPERSAMPLED * SIZE
    return draw(make_person(SEED), make_motion(SEED, MOTION), REFERENCE, side, SEED, supersampled=1).picture


def main(directory: Path) -> None:
    """Write the example into a directory; files that are there are replaced."""
    poses = directory / "poses"
    poses.mkdir(parents=True, exist_ok=True)
    reference = picture()
    Image.fromarray(reference).save(directory / "reference.png", optimize=True)
    clip = drawn()
    for i, image in enumerate(skeletons(clip)[:FRAMES]):
        # Unfiltered rows: thin lines on black compress a fifth better so.
        png = [cv2.IMWRITE_PNG_FILTER, cv2.IMWRITE_PNG_FILTER_NONE, cv2.IMWRITE_PNG_COMPRESSION, 9]
        cv2.imwrite(str(poses / f"frame_{i}.png"), cv2.cvtColor(image, cv2.COLOR_RGB2BGR), png)
    track, portrait = faces(clip, SKELETON_SIDE), faces(clip, len(reference))
    save_face_boxes(
        directory / "face_boxes.json",
        track=track[:FRAMES],
        size=(SKELETON_SIDE, SKELETON_SIDE),
        reference=portrait.faces()[REFERENCE],
    )


def faces(clip: DrawnClip, side: int) -> FaceTrack:
    """Where the faces are, in pixels of larger pictures."""
    track = clip.faces.fitted((SIZE, SIZE), side, side, "crop")
    assert track.landmarks is not None
    return FaceTrack(track.boxes, np.round(track.landmarks, 1), track.valid)


if __name__ == "__main__":
    main(Path(sys.argv[1]) if len(sys.argv) > 1 else EXAMPLE)
