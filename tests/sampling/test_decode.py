"""Decoding in chunks, in 16 bits where asked."""

import jax.numpy as jnp
import numpy as np
import pytest

from stableanimator_jax.sampling.decode import Overflowed, decode_frames
from tests.golden_data import load
from tests.golden_models import channels_last, reference_model


@pytest.fixture(scope="module")
def vae():
    return reference_model("vae")


@pytest.fixture(scope="module")
def latents(vae):
    return jnp.asarray(channels_last(load("vae")["latent"])) * vae.blueprint.config.scaling_factor


def frames(vae, latents) -> np.ndarray:
    return np.concatenate(list(decode_frames(vae, latents, 2)))


def test_float16_is_within_few_levels(vae, latents):
    half, full = (frames(vae.computing_in(dtype), latents).astype(int) for dtype in ("float16", "float32"))
    difference = np.abs(half - full)
    assert difference.mean() <= 1
    assert np.quantile(difference, 0.999) <= 4
    assert difference.max() > 0


def test_a_chunk_too_large_for_float16_is_decoded_again(vae, latents):
    """It alone: the others stay as float16 makes them."""
    latents = jnp.concatenate([latents[:2], 3e5 * latents[:2]])
    with pytest.warns(Overflowed, match="frames 2 to 3 have numbers too large for float16"):
        half = frames(vae.computing_in("float16"), latents)
    with pytest.warns(Overflowed, match="frames 12 to 13"):  # as the whole video's are counted
        list(decode_frames(vae.computing_in("float16"), latents, 2, first_frame=10))
    np.testing.assert_array_equal(half[2:], frames(vae, latents)[2:])
    np.testing.assert_array_equal(half[:2], frames(vae.computing_in("float16"), latents[:2]))
