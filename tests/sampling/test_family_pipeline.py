"""SVD's relatives as a Python user has them: what each needs, and what comes out."""

from dataclasses import replace

import jax
import numpy as np
import pytest

from stableanimator_jax import Animator, InputError, SamplingConfig
from stableanimator_jax.data.face_track import FaceTrack
from stableanimator_jax.data.images import cover
from stableanimator_jax.family import FAMILY
from stableanimator_jax.sampling.config import HJBConfig
from stableanimator_jax.sampling.face_control import FaceOptimisation
from tests.training.mini_model import save_mini_relative

FAST = {"steps": 2, "window": 4, "overlap": 1, "decode_chunk": 2}
RELATIVES = [kind for kind in FAMILY if kind != "stableanimator"]


@pytest.fixture(scope="module")
def animators(tmp_path_factory):
    place = tmp_path_factory.mktemp("family")
    return {
        kind: Animator.from_pretrained(save_mini_relative(place / kind, kind), dtype="float32", arcface=True)
        for kind in RELATIVES
    }


@pytest.fixture(scope="module")
def reference():
    return np.random.default_rng(0).integers(0, 256, (90, 70, 3), np.uint8)


@pytest.fixture(scope="module")
def poses():
    return np.random.default_rng(1).integers(0, 256, (5, 64, 64, 3), np.uint8)


def fast(kind) -> SamplingConfig:
    return replace(SamplingConfig.published(kind), **FAST)


def given(kind, poses) -> dict:
    """What a kind's video is made from, beside the reference: 5 frames that are denoised."""
    if FAMILY[kind].driver is None:
        return {"frames": 5, "width": 64, "height": 64}
    return {"poses": poses[1:], "reference_pose": poses[0]}


def test_published_settings():
    """FAMILY's table, as the systems are published."""
    mimicmotion, svd, lcm, controlnext = (SamplingConfig.published(kind) for kind in RELATIVES)
    assert SamplingConfig.published("stableanimator") == SamplingConfig()
    assert mimicmotion.added_time_ids == (6, 127, 0)
    assert (mimicmotion.window, mimicmotion.overlap, mimicmotion.guidance_min, mimicmotion.steps) == (72, 6, 2, 25)
    assert svd.added_time_ids == (6, 127, 0.02)
    assert (svd.guidance_min, svd.guidance_max, svd.steps, svd.sampler) == (1, 3, 25, "euler")
    assert lcm.added_time_ids == (6, 80, 0.02)
    assert (lcm.guidance_min, lcm.guidance_max, lcm.steps, lcm.sampler) == (1, 1.2, 4, "lcm")
    assert controlnext.added_time_ids == (6, 128, 0.02)
    assert (controlnext.window, controlnext.overlap, controlnext.guidance_min) == (24, 6, 3)


@pytest.mark.long
@pytest.mark.parametrize("kind", RELATIVES)
def test_each_makes_a_video_which_its_seed_decides(animators, reference, poses, kind):
    video = animators[kind].animate(reference, **given(kind, poses), sampling=fast(kind))
    assert video.shape == (4 if kind == "mimicmotion" else 5, 64, 64, 3)
    assert video.std() > 0
    again = animators[kind].animate(reference, **given(kind, poses), sampling=fast(kind))
    np.testing.assert_array_equal(video, again)
    other = animators[kind].animate(reference, **given(kind, poses), sampling=replace(fast(kind), seed=7))
    assert (video != other).mean() > 0.1


@pytest.mark.slow
@pytest.mark.parametrize("kind", RELATIVES)
@pytest.mark.parametrize("first", [1, 2, 3])
def test_a_stream_may_begin_at_any_frame(animators, reference, poses, kind, first):
    whole = animators[kind].animate(reference, **given(kind, poses), sampling=fast(kind))
    rest = animators[kind].stream(reference, **given(kind, poses), sampling=fast(kind), first_frame=first)
    np.testing.assert_array_equal(np.concatenate(list(rest)), whole[first:])


@pytest.mark.long
def test_without_a_number_it_is_as_long_as_the_weights_were_trained_on(animators, reference):
    video = animators["svd"].animate(reference, width=64, height=64, sampling=fast("svd"))
    assert len(video) == animators["svd"].config.unet.num_frames == 3


@pytest.mark.long
def test_mimicmotion_is_our_sampler_with_its_own_inputs(animators, reference, poses):
    """The same UNet and PoseNet as a StableAnimator without faces, told all that MimicMotion does by itself."""
    mine = animators["mimicmotion"]
    plain = replace(mine, config=replace(mine.config, kind="stableanimator"))
    frames = plain.animate(cover(reference, 64, 64, "crop"), poses[..., ::-1], sampling=fast("mimicmotion"))
    made = mine.animate(reference, poses[1:], reference_pose=poses[0], sampling=fast("mimicmotion"))
    np.testing.assert_array_equal(made, frames[1:])


@pytest.mark.long
@pytest.mark.parametrize("kind", ["mimicmotion", "controlnext"])
def test_poses_and_the_references_own_matter(animators, reference, poses, kind):
    video = animators[kind].animate(reference, **given(kind, poses), sampling=fast(kind))
    for change in ({"poses": poses[:0:-1]}, {"reference_pose": poses[3]}):
        other = animators[kind].animate(reference, **given(kind, poses) | change, sampling=fast(kind))
        assert (video != other).mean() > 0.01


@pytest.mark.slow
@pytest.mark.parametrize("kind", RELATIVES)
def test_the_face_optimisation_works_with_all_of_them(animators, reference, poses, kind):
    """Whoever never knew of faces: the similarity rises in every frame with a face, and the other frames stay."""
    faces = 5 if FAMILY[kind].driver is None else 4
    boxes = np.tile(np.array([8, 8, 55, 55], np.float32), (faces, 1))
    track = FaceTrack(boxes, None, np.ones(faces, bool))
    wanted = np.random.default_rng(3).standard_normal(512).astype(np.float32)
    reports = []
    hjb = FaceOptimisation(HJBConfig(iterations=3), wanted, track)
    video = animators[kind].animate(
        reference, **given(kind, poses), sampling=fast(kind), hjb=hjb, on_optimised=reports.append
    )
    plain = animators[kind].animate(reference, **given(kind, poses), sampling=fast(kind))
    assert reports
    assert all(report.faces == faces and report.similarity_after > report.similarity_before for report in reports)
    assert (video != plain).any()


@pytest.mark.long
def test_animatelcm_draws_new_noise_by_its_key(animators, reference):
    lcm = animators["animatelcm"]
    size = {"width": 64, "height": 64, "frames": 3}
    noise = np.random.default_rng(0).standard_normal((3, 8, 8, 4)).astype(np.float32)

    def made(key: int, steps: int):
        sampling = replace(fast("animatelcm"), steps=steps, noise_augmentation=0.0)
        return lcm.animate(reference, **size, noise=noise, key=jax.random.key(key), sampling=sampling)

    np.testing.assert_array_equal(made(0, 1), made(1, 1))  # a single step draws none
    np.testing.assert_array_equal(made(0, 2), made(0, 2))
    assert (made(0, 2) != made(1, 2)).mean() > 0.1


@pytest.mark.parametrize(
    ("kind", "change", "message"),
    [
        ("svd", {"poses": np.zeros((2, 64, 64, 3), np.uint8)}, "Stable Video Diffusion takes no poses"),
        ("svd", {"width": None, "height": None}, "give width and height"),
        ("svd", {"frames": 0}, "frames must be a whole number from 1 to 1024, got 0"),
        ("svd", {"reference_pose": np.zeros((64, 64, 3), np.uint8)}, "leave out reference_pose"),
        ("animatelcm", {"width": 100}, "the nearest is"),
        ("mimicmotion", {"poses": None}, "MimicMotion needs poses"),
        ("mimicmotion", {"reference_pose": None}, "begins with the reference's own pose: give reference_pose"),
        ("mimicmotion", {"frames": 3}, "frames is for models that take no poses"),
        ("controlnext", {"reference_pose": np.zeros((4, 4), np.uint8)}, "reference pose must be uint8"),
        ("controlnext", {"noise": np.zeros((4, 8, 8, 4), np.float32)}, r"must be \[5, 8, 8, 4\]"),
    ],
)
def test_what_does_not_apply_is_refused(animators, reference, poses, kind, change, message):
    with pytest.raises(InputError, match=message):
        animators[kind].animate(reference, **given(kind, poses) | change, sampling=fast(kind))


@pytest.mark.parametrize(
    ("settings", "message"),
    [
        ({"steps": 41}, "sampler lcm takes at most 40 steps, got 41"),
        ({"schedule": "aligned"}, "sampler lcm has noise levels of its own: leave out schedule aligned"),
    ],
)
def test_settings_that_animatelcm_has_no_use_for_are_refused(settings, message):
    with pytest.raises(InputError, match=message):
        replace(SamplingConfig.published("animatelcm"), **settings)
    with pytest.raises(InputError, match="preset fast is not for AnimateLCM's few steps"):
        SamplingConfig.published("animatelcm").with_preset("fast")
