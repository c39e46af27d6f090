"""How strongly poses, face and image act: 1 is as published, 0 without, and each at its steps and frames alone."""

import re
import sys
from dataclasses import replace

import jax.numpy as jnp
import numpy as np
import pytest
from flax import nnx

from stableanimator_jax import Animator, InputError, SamplingConfig, Strength
from stableanimator_jax.models.conditioning import Control
from stableanimator_jax.models.control_net import with_control
from stableanimator_jax.models.id_adapter import IdCrossAttention
from stableanimator_jax.sampling import deep_cache
from stableanimator_jax.sampling.denoise import denoise
from stableanimator_jax.sampling.denoiser import ControlFeatures, Rows, driven_by, predict
from stableanimator_jax.sampling.samplers import dpmpp_2m
from stableanimator_jax.sampling.strengths import Strengths, check_strengths
from stableanimator_jax.sampling.windows import plan_windows
from tests.golden_models import FLOAT32, reference_model
from tests.sampling.test_denoise import inputs
from tests.sampling.test_samplers import heun
from tests.training.mini_model import MINI, save_mini_model, save_mini_relative
from tests.virtual_devices import run_on_virtual_devices

SAMPLING = SamplingConfig(steps=2, window=4, overlap=1)
FIVE = replace(SAMPLING, steps=5, guidance_min=1, guidance_max=1)
"""One branch, and one row a call that has no neighbours."""


@pytest.fixture(scope="module")
def models():
    return reference_model("unet"), reference_model("pose_net")


@pytest.fixture
def told(monkeypatch):
    """What every call of the UNet is told from now on, with its noise level; it predicts nothing."""
    calls: list[tuple[Rows, float]] = []

    def nothing(unet, rows, sigma):
        calls.append((rows, float(sigma)))
        return jnp.zeros(rows.latents.shape, jnp.float32)

    monkeypatch.setattr(sys.modules[denoise.__module__], "predict", nothing)
    return calls


def conditionings(told, models, sampling, frames=4, **also):
    """One of every call."""
    told.clear()
    denoise(*models, *inputs(frames), sampling, **also)
    return [rows.conditioning for rows, _ in told]


def test_published_strengths_leave_the_fields_and_the_programs_alone(models, told):
    (first, *_) = conditionings(told, models, SAMPLING)
    assert first.face_strength is None
    driving = driven_by(models[1], inputs(4)[1], plan_windows(4, 4, 1))
    same = Strengths(driving, inputs(4)[0], plan_windows(4, 4, 1), SAMPLING)
    fields = same(0, np.float32(700))
    assert fields.keys() == {"pose_features"}
    assert fields["pose_features"] is driving(0, np.float32(700))["pose_features"]


@pytest.mark.long
def test_multiplied_by_one_frames_are_the_published_ones_bit_for_bit(models):
    published = denoise(*models, *inputs(9), SAMPLING)
    ones = denoise(*models, *inputs(9), SAMPLING, pose_strength=np.ones(9, np.float32))
    np.testing.assert_array_equal(ones, published)
    assert SamplingConfig(pose=Strength(1, 0, 1)) == SamplingConfig()


def test_pose_strength_multiplies_the_features_and_zero_leaves_nothing(models, told):
    (whole, *_) = conditionings(told, models, SAMPLING)
    (half, *_) = conditionings(told, models, replace(SAMPLING, pose=Strength(0.5)))
    (none, *_) = conditionings(told, models, replace(SAMPLING, pose=Strength(0)))
    assert jnp.abs(whole.pose_features[0]).max() > 1e-3
    np.testing.assert_array_equal(half.pose_features, whole.pose_features / 2)
    np.testing.assert_array_equal(none.pose_features, jnp.zeros_like(whole.pose_features))
    for told_now in (half, none):
        np.testing.assert_array_equal(told_now.image_embedding, whole.image_embedding)
        np.testing.assert_array_equal(told_now.face_tokens, whole.face_tokens)


def test_image_strength_multiplies_what_cross_attention_sees_and_not_the_face_tokens(models, told):
    condition, *_ = inputs(4)
    for strength in (0.0, 0.5, 2.0):
        (first, *_) = conditionings(told, models, replace(SAMPLING, image=Strength(strength)))
        np.testing.assert_array_equal(first.image_embedding[0], condition.image_embedding[0] * strength)
        np.testing.assert_array_equal(first.image_embedding[1], jnp.zeros(64))  # unconditional
        np.testing.assert_array_equal(first.face_tokens[0], condition.face_tokens[0])


def test_a_face_strength_is_told_of_every_row(models, told):
    found = conditionings(told, models, replace(SAMPLING, face=Strength(0.25)))
    assert all(conditioning.face_strength.tolist() == [0.25, 0.25] for conditioning in found)


@pytest.mark.parametrize("injection", ["distribution_aware", "addition"])
def test_a_face_strength_of_zero_is_the_adapter_without_its_face_branch(injection):
    adapter = IdCrossAttention(32, 16, 2, id_injection=injection, precision=FLOAT32, rngs=nnx.Rngs(0))
    random = np.random.default_rng(0)
    x, image, faces = (
        jnp.asarray(random.standard_normal(s), jnp.float32) for s in ((3, 2, 6, 32), (3, 16), (3, 4, 16))
    )
    published, without = adapter(x, image, faces), adapter(x, image, None)
    np.testing.assert_array_equal(adapter(x, image, faces, jnp.ones(3)), published)
    none, whole, half = adapter(x, image, faces, jnp.float32([0, 1, 0.5]))
    np.testing.assert_allclose(none, jnp.broadcast_to(without[0], none.shape), atol=1e-6)
    np.testing.assert_allclose(whole, published[1], atol=1e-6)
    assert jnp.abs(published - without)[2].max() > 1e-2
    np.testing.assert_allclose(half, (published[2] + without[2]) / 2, atol=1e-6)


@pytest.mark.slow
def test_the_unet_at_a_face_strength_of_zero_is_that_without_face_tokens(models, told):
    (conditioning, *_) = conditionings(told, models, SAMPLING)
    rows, sigma = told[0][0], jnp.float32(2)
    rows = rows._replace(latents=rows.latents / 700)

    def prediction(**fields):
        return predict(models[0], rows._replace(conditioning=conditioning._replace(**fields)), sigma)

    with_faces, without = prediction(), prediction(face_tokens=None)
    none, whole = (prediction(face_strength=jnp.full(2, s, jnp.float32)) for s in (0, 1))
    np.testing.assert_allclose(none, without, atol=2e-5)
    np.testing.assert_allclose(whole, with_faces, atol=2e-5)
    assert jnp.abs(with_faces - without)[0].max() > 1e-3


def test_a_strength_a_frame_acts_on_that_frame_in_every_window(models, told):
    """Nine frames are three windows of four, which overlap; all of them begin with frame 0."""
    strengths = np.float32([0.5, 1, 1, 3, 0, 1, 2, 1, 0.25])
    sampling, plan = replace(SAMPLING, pose=Strength(0.5), rows_at_once=1, guidance_max=1, guidance_min=1), None
    whole = conditionings(told, models, replace(sampling, pose=Strength()), frames=9)
    scaled = conditionings(told, models, sampling, frames=9, pose_strength=strengths)
    plan = plan_windows(9, 4, 1)
    assert plan.poses.tolist() == [[0, 1, 2, 3], [0, 4, 5, 6], [0, 6, 7, 8]]
    for window in range(3):
        by = 0.5 * strengths[plan.poses[window]][:, None, None, None]
        np.testing.assert_array_equal(scaled[window].pose_features[0], whole[window].pose_features[0] * by)


@pytest.mark.parametrize(
    ("strength", "acts"),
    [
        (Strength(2, 0, 1), [2, 2, 2, 2, 2]),
        (Strength(2, 0, 0.8), [2, 2, 2, 2, 0]),
        (Strength(1, 0.2, 0.6), [0, 1, 1, 0, 0]),
        (Strength(0.5, 0.55, 1), [0, 0, 0, 0.5, 0.5]),
    ],
)
@pytest.mark.parametrize("name", ["pose", "face", "image"])
def test_each_acts_at_its_steps_alone(models, told, name, strength, acts):
    assert strength.at_steps(5).tolist() == acts
    whole = conditionings(told, models, FIVE)
    for now, published, by in zip(
        conditionings(told, models, replace(FIVE, **{name: strength})), whole, acts, strict=True
    ):
        assert now.face_strength is None if name != "face" else now.face_strength.tolist() == [by]
        np.testing.assert_array_equal(now.pose_features, published.pose_features * (by if name == "pose" else 1))
        np.testing.assert_array_equal(now.image_embedding, published.image_embedding * (by if name == "image" else 1))


def test_a_sampler_that_denoises_twice_a_step_is_told_by_the_noise_level(models, told):
    sampling = replace(FIVE, face=Strength(1, 0, 0.4))
    found = [c.face_strength.item() for c in conditionings(told, models, sampling, sampler=heun)]
    assert found == [1, 1, 1, 0, 0, 0, 0, 0, 0]  # at levels 0 1, 1 2, 2 3, 3 4, and 4 alone
    assert [c.face_strength.item() for c in conditionings(told, models, sampling, sampler=dpmpp_2m)] == [1, 1, 0, 0, 0]
    between = Strengths(lambda window, sigma: {}, inputs(4)[0], plan_windows(4, 4, 1), sampling)
    levels = sampling.sigmas
    found = [between(0, np.float32(sigma))["face_strength"] for sigma in (levels[0] * 2, levels[1] * 0.99, levels[2])]
    assert found == [1, 1, 0]


def test_a_control_nets_strength_is_multiplied(models):
    """Of all frames one number, as published; or one a frame."""
    driver, plan = reference_model("control_net"), plan_windows(5, 4, 1)
    condition, poses, _ = inputs(5)
    driving, sigma = ControlFeatures(driver, poses, plan), np.float32(3)
    own = driving(1, sigma)["control"]
    sampling = replace(SAMPLING, pose=Strength(0.5))
    assert Strengths(driving, condition, plan, sampling)(1, sigma)["control"].scale == own.scale / 2
    each = Strengths(driving, condition, plan, sampling, np.float32([1, 2, 0, 3, 0.5]))(1, sigma)["control"]
    assert plan.poses[1].tolist() == [0, 2, 3, 4]
    np.testing.assert_allclose(each.scale, own.scale * np.float32([0.5, 0, 1.5, 0.25]))
    np.testing.assert_array_equal(each.features, own.features)


def test_each_frame_of_the_hidden_state_has_its_own_share_of_control():
    random = np.random.default_rng(0)
    hidden, features = (jnp.asarray(random.standard_normal((2, 3, 4, 4, 8)), jnp.float32) for _ in range(2))
    scale = np.float32([[0, 1, 2], [3, 0.5, 0]])
    by_frame = with_control(hidden, Control(features, jnp.asarray(scale)))
    for frame in range(3):
        of_all = with_control(hidden, Control(features, jnp.asarray(scale[:, frame])))
        np.testing.assert_array_equal(by_frame[:, frame], of_all[:, frame])
    np.testing.assert_array_equal(by_frame[0, 0], hidden[0, 0])


def test_with_deep_cache_a_step_where_a_strength_changes_is_whole(models, monkeypatch):
    kept = []

    def keeping(unet, rows, sigma, *, branch):
        kept.append(True)
        return jnp.zeros(rows.latents.shape, jnp.float32), jnp.zeros(1)

    def reusing(unet, rows, sigma, deep, *, branch):
        kept.append(False)
        return jnp.zeros(rows.latents.shape, jnp.float32)

    monkeypatch.setattr(deep_cache, "predict_keeping", keeping)
    monkeypatch.setattr(deep_cache, "predict_reusing", reusing)
    cached, places = replace(FIVE, cache_interval=5), []
    denoise(*models, *inputs(4), cached)
    assert kept == [True, False, False, False, False]
    kept.clear()
    changing = replace(cached, pose=Strength(1, 0, 0.4), image=Strength(0.5, 0.2, 1))
    denoise(*models, *inputs(4), changing, on_unfinished=lambda place: places.append(place.steps))
    assert kept == [True, True, True, False, False]
    assert places == [1, 2]


@pytest.fixture(scope="module")
def animator(tmp_path_factory):
    return Animator.from_pretrained(save_mini_model(tmp_path_factory.mktemp("strengths") / "mini"), dtype="float32")


def animate(animator, **also):
    random = np.random.default_rng(0)
    reference = random.integers(0, 256, (64, 64, 3), np.uint8)
    poses = random.integers(0, 256, (5, 64, 64, 3), np.uint8)
    sampling = replace(SAMPLING, steps=1, **also.pop("strengths", {}))
    return animator.animate(reference, also.pop("poses", poses), sampling=sampling, **also)


@pytest.mark.slow
def test_an_animators_frames(animator):
    published = animate(animator)
    np.testing.assert_array_equal(animate(animator, pose_strength=[1, 1, 1, 1, 1]), published)
    for strengths in ({"pose": Strength(0)}, {"face": Strength(0)}, {"image": Strength(0)}):
        assert (animate(animator, strengths=strengths) != published).any()
    half = animate(animator, strengths={"pose": Strength(0.5)})
    np.testing.assert_array_equal(animate(animator, pose_strength=np.full(5, 0.5)), half)


@pytest.mark.parametrize(
    ("given", "words"),
    [
        ([1, 1], "pose_strength must be one number a pose, 5 of them, got int64 \\[2\\]"),
        (0.5, "5 of them, got float64 \\[\\]"),
        (["1"] * 5, "5 of them, got <U1"),
        ([1, [1, 1], 1, 1, 1], "pose_strength must be one number a pose"),
        ([1, 1, 1, 1, 3.5], "pose_strength must be from 0 to 3, got 3.5"),
        ([1, 1, 1, 1, np.nan], "pose_strength must be from 0 to 3, got nan"),
    ],
)
def test_pose_strengths_that_cannot_be(animator, given, words):
    with pytest.raises(InputError, match=words):
        animate(animator, pose_strength=given)


@pytest.mark.parametrize("name", ["pose", "face", "image"])
@pytest.mark.parametrize(
    ("strength", "words"),
    [
        (Strength(-0.1), "{}.strength must be from 0 to 3, got -0.1"),
        (Strength(3.1), "{}.strength must be from 0 to 3, got 3.1"),
        (Strength(float("nan")), "{}.strength must be from 0 to 3, got nan"),
        (Strength(1, -1, 1), "{}.start must be from 0 to 1, got -1"),
        (Strength(1, 0, 1.5), "{}.end must be from 0 to 1, got 1.5"),
        (Strength(1, 0.5, 0.5), "{}.start 0.5 to {}.end 0.5 holds none of the 25 steps"),
        (Strength(1, 0.8, 0.2), "{}.start 0.8 to {}.end 0.2 holds none of the 25 steps"),
    ],
)
def test_strengths_that_cannot_be(name, strength, words):
    with pytest.raises(InputError, match=words.format(name, name)):
        SamplingConfig(**{name: strength})


@pytest.mark.parametrize(
    ("kind", "settings", "of_frames", "words"),
    [
        ("svd", {"pose": Strength(0.5)}, False, "Stable Video Diffusion takes no poses: leave out pose.strength, pose"),
        ("svd", {}, True, "Stable Video Diffusion takes no poses: leave out pose_strength"),
        (
            "animatelcm",
            {"face": Strength(1, 0.5)},
            False,
            "(AnimateLCM-SVD) have no ID adapter: leave out face.strength",
        ),
        (
            "mimicmotion",
            {"face": Strength(0)},
            False,
            "(MimicMotion) have no ID adapter: leave out face.strength, face",
        ),
    ],
)
def test_what_weights_are_not_told_is_refused(kind, settings, of_frames, words):
    config = replace(MINI, kind=kind, unet=replace(MINI.unet, id_injection="none"))
    with pytest.raises(InputError, match=re.escape(words)):
        check_strengths(config, SamplingConfig(**settings), of_frames=of_frames)
    check_strengths(config, SamplingConfig(image=Strength(0.5)))
    check_strengths(MINI, SamplingConfig(**settings), of_frames=of_frames)
    with pytest.raises(InputError, match="have no ID adapter"):  # an ablation's weights
        check_strengths(replace(config, kind="stableanimator"), SamplingConfig(face=Strength(2)))


@pytest.mark.long
def test_an_image_strength_of_a_model_without_poses(tmp_path):
    svd = Animator.from_pretrained(save_mini_relative(tmp_path / "svd", "svd"), dtype="float32")
    size = {"poses": None, "width": 64, "height": 64, "frames": 2}
    published, half = (animate(svd, **size, strengths={"image": Strength(s)}) for s in (1, 0.5))
    assert (published != half).any()
    with pytest.raises(InputError, match="takes no poses: leave out pose_strength"):
        animate(svd, **size, pose_strength=[1, 1])


@pytest.mark.long
def test_the_references_own_pose_has_the_strength_of_the_first(tmp_path):
    random = np.random.default_rng(0)
    controlnext = Animator.from_pretrained(save_mini_relative(tmp_path / "controlnext", "controlnext"))
    poses = random.integers(0, 256, (5, 64, 64, 3), np.uint8)
    mine = {"poses": poses[1:], "reference_pose": poses[0]}
    each = animate(controlnext, **mine, pose_strength=[0.5] * 4)
    np.testing.assert_array_equal(each, animate(controlnext, **mine, strengths={"pose": Strength(0.5)}))
    assert (each != animate(controlnext, **mine)).any()


@pytest.mark.slow
def test_several_devices_make_the_video_of_one():
    run_on_virtual_devices(
        4,
        """
        import jax, numpy as np
        from dataclasses import replace
        from stableanimator_jax.parallel import make_mesh, replicated
        from stableanimator_jax.sampling.config import Strength
        from stableanimator_jax.sampling.denoise import denoise
        from tests.golden_models import reference_model
        from tests.sampling.test_denoise import SAMPLING, inputs

        models = reference_model("unet"), reference_model("pose_net")
        some = {"pose": Strength(0.5, 0, 0.5), "face": Strength(2), "image": Strength(0.5, 0.5)}
        for cached in ({}, {"cache_interval": 2}):
            sampling = replace(SAMPLING, steps=4, **some, **cached)
            each = np.linspace(0, 2, 9, dtype=np.float32)
            alone = denoise(*models, *inputs(9), sampling, pose_strength=each)
            for mesh in (make_mesh(), make_mesh(frame=2)):
                spread = jax.device_put(models, replicated(mesh))
                apart = denoise(
                    *spread, *inputs(9), replace(sampling, rows_at_once=4), pose_strength=each, mesh=mesh
                )
                np.testing.assert_allclose(np.asarray(apart), np.asarray(alone), atol=5e-4)
        """,
    )
