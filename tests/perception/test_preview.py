import numpy as np
import pytest

from stableanimator_jax.perception.preview import overlay


def test_seen_over_everything():
    skeleton = np.zeros((4, 6, 3), np.uint8)
    skeleton[1, 2], skeleton[2, 2] = (255, 0, 0), (0, 153, 0)
    for level in (0, 128, 255):
        frame = np.full((4, 6, 3), level, np.uint8)
        result = overlay(frame, skeleton)
        assert result.dtype == np.uint8
        np.testing.assert_array_equal(result[1, 2], (255, 0, 0))
        np.testing.assert_allclose(result[2, 2], np.array([0.4, 0.4, 0.4]) * level + (0, 153, 0), atol=0.5)
        untouched = np.ones((4, 6), bool)
        untouched[1:3, 2] = False
        np.testing.assert_array_equal(result[untouched], frame[untouched])


@pytest.mark.mistyped
def test_sizes_must_agree():
    with pytest.raises(ValueError, match=r"\(4, 6, 3\) does not fit a frame of shape \(6, 4, 3\)"):
        overlay(np.zeros((6, 4, 3), np.uint8), np.zeros((4, 6, 3), np.uint8))
