"""Whose face the face optimisation finds where no file says it."""

import numpy as np

from stableanimator_jax.data.face_track import Face
from stableanimator_jax.scripts.sample.faces import _face_finder


class Sees:
    """In place of InsightFace: the same faces in every frame."""

    def __init__(self, *faces: Face):
        self.faces = list(faces)

    def detections(self, image: np.ndarray) -> list[Face]:
        return self.faces


def face(x: float, y: float, half: float) -> Face:
    return Face(np.float32([x - half, y - half, x + half, y + half]), np.zeros((5, 2), np.float32), score=0.9)


def test_a_bystanders_larger_face_is_not_optimised():
    """The person walks to the right, past a bystander who stays; in the last frame nobody is to be."""
    skeletons = np.zeros((3, 64, 64, 3), np.uint8)
    skeletons[0, 10:60, 5:20] = skeletons[1, 10:60, 40:55] = 200
    skeletons[2] = 20  # what compression makes of black
    bystander, own, then = face(50, 15, 8), face(12, 14, 5), face(47, 15, 5)
    frame = np.zeros((64, 64, 3), np.uint8)
    assert _face_finder(Sees(bystander, own), skeletons)(frame, 0) is own  # pyright: ignore[reportArgumentType]
    assert _face_finder(Sees(own, then), skeletons)(frame, 1) is then  # pyright: ignore[reportArgumentType]
    assert _face_finder(Sees(bystander), skeletons)(frame, 0) is None  # pyright: ignore[reportArgumentType]
    assert _face_finder(Sees(bystander, own), skeletons)(frame, 2) is None  # pyright: ignore[reportArgumentType]
