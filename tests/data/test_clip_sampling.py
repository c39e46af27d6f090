"""Which frames of a clip are drawn."""

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from stableanimator_jax.data.clip_sampling import sample_frames, shortest_length
from stableanimator_jax.errors import InputError


@st.composite
def clips(draw):
    frames, stride = draw(st.integers(1, 20)), draw(st.integers(1, 6))
    length = shortest_length(frames) + draw(st.integers(0, 120))
    has_face = np.array(draw(st.lists(st.booleans(), min_size=length, max_size=length)))
    return has_face, frames, stride, draw(st.integers(0, 2**32))


def sample(has_face, frames, stride, seed):
    rng = np.random.default_rng(seed)
    return sample_frames(has_face, frames=frames, stride=stride, rng=rng, name="walk")


@given(clips())
def test_frames_are_strided_or_spread_and_the_reference_is_another_one(clip):
    has_face, frames, stride, _ = clip
    indices, reference = sample(*clip)
    length = len(has_face)
    assert indices.shape == (frames,)
    assert indices.min() >= 0
    assert indices.max() < length
    if length >= (frames - 1) * stride + 1:
        assert (np.diff(indices) == stride).all()
    else:
        assert indices[0] == 0
        assert indices[-1] == length - 1
        steps = np.diff(indices)
        assert steps.min() >= 1
        assert steps.max() - steps.min() <= 1
    assert 0 <= reference < length
    assert reference not in indices
    others = np.setdiff1d(np.arange(length), indices)
    assert has_face[reference] or not has_face[others].any()


@given(clips())
def test_the_same_random_numbers_draw_the_same_frames(clip):
    a, b = sample(*clip), sample(*clip)
    np.testing.assert_array_equal(a.indices, b.indices)
    assert a.reference == b.reference


def test_every_start_and_every_reference_comes_up():
    drawn = [sample(np.ones(8, bool), 3, 2, seed) for seed in range(300)]
    assert {int(d.indices[0]) for d in drawn} == {0, 1, 2, 3}
    assert {d.reference for d in drawn} == set(range(8))


def test_sixteen_frames_of_a_short_video():
    indices, reference = sample(np.ones(17, bool), 16, 4, 0)
    assert {*indices.tolist(), reference} == set(range(17))
    indices, _ = sample(np.ones(31, bool), 16, 4, 0)
    np.testing.assert_array_equal(indices, range(0, 31, 2))
    indices, reference = sample(np.ones(61, bool), 16, 4, 0)
    np.testing.assert_array_equal(indices, range(0, 61, 4))


def test_a_clip_without_room_for_a_reference_is_refused_by_name():
    with pytest.raises(InputError, match="clip walk has 16 frames, but 16 and another one for the reference"):
        sample(np.ones(16, bool), 16, 4, 0)
