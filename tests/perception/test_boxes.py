import numpy as np

from stableanimator_jax.perception.boxes import areas, best_of_each, overlaps

SQUARE = np.array([0, 0, 10, 10], np.float32)


def test_overlaps():
    others = np.array([[0, 0, 10, 10], [5, 0, 15, 10], [10, 0, 20, 10], [2, 2, 4, 7], [30, 30, 40, 40]], np.float32)
    np.testing.assert_allclose(overlaps(SQUARE, others), [1, 1 / 3, 0, 0.1, 0], rtol=1e-6)
    assert overlaps(SQUARE, others[:0]).shape == (0,)


def test_boxes_without_area():
    flat = np.array([[3, 3, 3, 9], [9, 3, 3, 9]], np.float32)
    np.testing.assert_array_equal(areas(flat), [0, 0])
    np.testing.assert_array_equal(overlaps(flat[0], flat), [0, 0])


def test_best_of_each():
    """Of three in a chain the middle one goes, and the last stays, which only the middle one overlapped."""
    boxes = SQUARE + np.array([[4, 0, 4, 0], [0, 0, 0, 0], [8, 0, 8, 0], [50, 0, 50, 0]], np.float32)
    scores = np.array([0.6, 0.9, 0.5, 0.95])
    np.testing.assert_array_equal(best_of_each(boxes, scores, 0.4), [3, 1, 2])
    np.testing.assert_array_equal(best_of_each(boxes, scores, 0.43), [3, 1, 0, 2])
    assert best_of_each(boxes[:0], scores[:0], 0.4).shape == (0,)
