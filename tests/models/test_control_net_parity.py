"""Adaptive average pooling against torch's, where sizes divide, where cells overlap, and where it enlarges."""

import jax.numpy as jnp
import numpy as np
import pytest

from stableanimator_jax.models.control_net import adaptive_average_pool

torch = pytest.importorskip("torch")
pytestmark = pytest.mark.parity


@pytest.mark.parametrize(
    ("size_in", "size_out"),
    [
        ((127, 71), (64, 36)),
        ((15, 7), (8, 4)),
        ((16, 8), (8, 4)),
        ((9, 12), (5, 7)),
        ((3, 5), (7, 5)),
        ((10, 1), (1, 3)),
    ],
)
def test_equals_torch(size_in, size_out):
    x = np.random.default_rng(0).standard_normal((2, 3, *size_in, 4)).astype(np.float32)
    expected = torch.nn.functional.adaptive_avg_pool2d(
        torch.from_numpy(x.reshape(6, *size_in, 4)).movedim(-1, 1), size_out
    )
    out = adaptive_average_pool(jnp.asarray(x), size_out)
    np.testing.assert_allclose(out, expected.movedim(1, -1).numpy().reshape(2, 3, *size_out, 4), atol=1e-6)
