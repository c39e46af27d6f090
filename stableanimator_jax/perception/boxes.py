"""Boxes around people: (left, top, right, bottom) in pixels."""

import numpy as np
from jaxtyping import Float, Int


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
        boxes: any number, also none.
        scores: the higher, the better.
        threshold: intersection over union.

    Returns:
        indices, the best first.
    """
    kept: list[int] = []
    order = np.argsort(-scores, kind="stable")
    while order.size:
        kept.append(int(order[0]))
        order = order[1:][overlaps(boxes[order[0]], boxes[order[1:]]) <= threshold]
    return np.asarray(kept, np.int64)
