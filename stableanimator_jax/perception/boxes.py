"""Boxes around people: (left, top, right, bottom) in pixels."""

import numpy as np
from jaxtyping import Float, Int

from stableanimator_jax.opencv import cv2


def areas(boxes: Float[np.ndarray, "n 4"]) -> Float[np.ndarray, " n"]:
    """In square pixels; 0 for a box that is turned inside out."""
    return np.prod(np.maximum(boxes[:, 2:] - boxes[:, :2], 0), axis=1)


def centres(boxes: Float[np.ndarray, "n 4"]) -> Float[np.ndarray, "n 2"]:
    """(x, y) of each box's middle."""
    return (boxes[:, :2] + boxes[:, 2:]) / 2


def overlaps(box: Float[np.ndarray, " 4"], boxes: Float[np.ndarray, "n 4"]) -> Float[np.ndarray, " n"]:
    """Intersection over union of one box with each of many, in [0, 1]."""
    shared = np.concatenate([np.maximum(box[:2], boxes[:, :2]), np.minimum(box[2:], boxes[:, 2:])], axis=1)
    intersection = areas(shared)
    union = areas(box[None]) + areas(boxes) - intersection
    return intersection / np.maximum(union, np.finfo(np.float32).tiny)


def best_of_each(
    boxes: Float[np.ndarray, "n 4"], scores: Float[np.ndarray, " n"], threshold: float
) -> Int[np.ndarray, " m"]:
    """Non-maximum suppression: the indices of the boxes that no better one overlaps by more than `threshold`.

    Args:
        boxes: any number, also none, each with some area.
        scores: above 0; the higher, the better.
        threshold: intersection over union.

    Returns:
        indices, the best first.
    """
    corner_and_size = np.concatenate([boxes[:, :2], boxes[:, 2:] - boxes[:, :2]], axis=1)
    return np.asarray(cv2.dnn.NMSBoxes(corner_and_size.tolist(), scores.tolist(), 0, threshold), np.int64)
