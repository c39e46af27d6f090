import numpy as np
import pytest


@pytest.fixture
def gradient():
    """An RGB picture in which every pixel differs from its neighbours: [40, 60, 3]."""
    y, x = np.mgrid[:40, :60]
    return np.stack([4 * x, 6 * y, 255 - 4 * x], axis=-1).astype(np.uint8)
