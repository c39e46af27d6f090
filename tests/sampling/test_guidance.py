"""What each branch goes without, and what it counts in the sum."""

import jax.numpy as jnp
import numpy as np

from stableanimator_jax.models.conditioning import Conditioning, Control
from stableanimator_jax.sampling.guidance import (
    CONDITIONAL,
    UNCONDITIONAL,
    branch_shares,
    dropped_at_random,
    unconditional_where,
)


def conditioning(b: int) -> Conditioning:
    rng = np.random.default_rng(0)
    shapes = ((b, 8), (b, 4, 8), (b, 3), (b, 2, 2, 4), (b, 3, 2, 2, 6))
    return Conditioning(*(jnp.asarray(1 + rng.random(shape), jnp.float32) for shape in shapes))


def test_the_unconditional_branch_sees_nothing_but_the_time_ids():
    video = conditioning(1)._replace(added_time_ids=jnp.ones((3, 3)), pose_features=jnp.ones((3, 5, 2, 2, 6)))
    rows = unconditional_where(video, jnp.array([False, True, False]))
    for name, field in rows._asdict().items():
        if field is None:
            assert name in ("control", "face_strength"), name
            continue
        assert len(field) == 3, name
        np.testing.assert_array_equal(field[0], getattr(video, name)[0])
        np.testing.assert_array_equal(field[2], getattr(video, name)[-1])
        assert bool(jnp.any(field[1])) == (name == "added_time_ids"), name


def test_the_unconditional_branch_is_not_controlled():
    features, scale = jnp.ones((3, 2, 5, 3, 6)), jnp.full(3, 0.2)
    rows = unconditional_where(conditioning(3)._replace(control=Control(features, scale)), jnp.array([0, 1, 0], bool))
    assert rows.control is not None
    np.testing.assert_array_equal(rows.control.scale, scale.at[1].set(0))
    np.testing.assert_array_equal(rows.control.features[::2], features[::2])


def test_what_a_model_does_not_have_stays_away():
    svd = conditioning(2)._replace(face_tokens=None, pose_features=None)
    rows = unconditional_where(svd, jnp.array([False, True]))
    assert rows.face_tokens is None
    assert rows.pose_features is None
    assert rows.control is None


def test_training_drops_the_published_share_of_each():
    """Of draws from 0 to 1 at a rate of 0.1: without the image below 0.2, without the latents from 0.1 to 0.3."""
    draws = np.array([0.0, 0.05, 0.15, 0.25, 0.35, 0.95], np.float32)
    whole = conditioning(6)
    kept = dropped_at_random(whole, jnp.asarray(draws), 0.1)
    fields = {name: field for name, field in kept._asdict().items() if field is not None}
    there = {name: [bool(jnp.any(row)) for row in field] for name, field in fields.items()}
    assert there["image_embedding"] == [False, False, False, True, True, True]
    assert there["image_latents"] == [True, True, False, False, True, True]
    for name in ("face_tokens", "added_time_ids", "pose_features"):
        np.testing.assert_array_equal(getattr(kept, name), getattr(whole, name))
    np.testing.assert_array_equal(kept.image_latents[0], whole.image_latents[0])


def test_guidance_goes_on_from_the_unconditional_by_its_scale():
    conditional, unconditional = np.random.default_rng(0).standard_normal((2, 3, 4)).astype(np.float32)
    shares = branch_shares(np.array([[0, 1, 3]], np.float32), 2)
    assert shares.shape == (1, 2, 3)
    out = (shares[0, CONDITIONAL] * conditional.T + shares[0, UNCONDITIONAL] * unconditional.T).T
    np.testing.assert_allclose(out[0], unconditional[0], atol=1e-6)
    np.testing.assert_allclose(out[1], conditional[1], atol=1e-6)
    np.testing.assert_allclose(out[2], 3 * conditional[2] - 2 * unconditional[2], atol=1e-5)


def test_one_branch_is_itself():
    np.testing.assert_array_equal(branch_shares(np.full((2, 3), 7, np.float32), 1), np.ones((2, 1, 3)))
