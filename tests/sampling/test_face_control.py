"""The face optimisation as part of denoising: which steps, whose face, where it is, and what it reports."""

from dataclasses import replace

import jax
import numpy as np
import pytest

from stableanimator_jax import Animator, InputError, SamplingConfig
from stableanimator_jax.data.face_track import Face, FaceTrack
from stableanimator_jax.sampling import face_control
from stableanimator_jax.sampling.config import HJBConfig
from stableanimator_jax.sampling.face_control import FaceControl, FaceOptimisation, embed_face
from stableanimator_jax.sampling.face_crop import ARCFACE_LANDMARKS
from stableanimator_jax.sampling.hjb import Refinement, refine_chunk
from tests.training.mini_model import save_mini_model

BOX = np.array([12, 10, 44, 50], np.float32)
LANDMARKS = ARCFACE_LANDMARKS / 112 * 36 + 10
FRAMES = 3


@pytest.fixture(scope="module")
def checkpoint(tmp_path_factory):
    return str(save_mini_model(tmp_path_factory.mktemp("face_control") / "mini"))


@pytest.fixture(scope="module")
def animator(checkpoint):
    return Animator.from_pretrained(checkpoint, dtype="float32", arcface=True)


@pytest.fixture(scope="module")
def photo():
    return np.random.default_rng(0).integers(0, 256, (80, 60, 3), np.uint8)


@pytest.fixture(scope="module")
def reference(animator, photo):
    return animator.embed_face(photo, Face(BOX))


@pytest.fixture
def clean():
    """Of one device for good, as what comes out of the denoiser."""
    latents = np.random.default_rng(1).standard_normal((FRAMES, 8, 8, 4)).astype(np.float32)
    return jax.device_put(latents, jax.devices()[0])


def track(*valid: bool, landmarks: bool = True) -> FaceTrack:
    keep = np.array(valid)
    boxes = np.where(keep[:, None], BOX, 0).astype(np.float32)
    points = np.where(keep[:, None, None], LANDMARKS, 0).astype(np.float32)
    return FaceTrack(boxes, points if landmarks else None, keep)


ALL = track(True, True, True)


def control(animator, reference, config, faces=ALL, steps=25, **kwargs) -> FaceControl:
    return FaceControl(
        animator.vae, animator.arcface, FaceOptimisation(config, reference, faces), steps, decode_chunk=2, **kwargs
    )


def test_published_steps_and_learning_rates(animator, reference, clean, monkeypatch):
    rates = []

    def refine(vae, arcface, latents, faces, reference, learning_rate, *, iterations, **_):
        assert iterations == 3
        rates.append(learning_rate)
        return Refinement(latents, np.zeros(3, np.float32), 0.1, 0.2)

    monkeypatch.setattr(face_control, "refine", refine)
    reports = []
    act = control(animator, reference, HJBConfig(iterations="published"), on_step=reports.append)
    for step in range(25):
        act(step, clean)
    assert [report.step for report in reports] == list(range(21))
    np.testing.assert_allclose(rates, 0.1 * (1 - np.arange(21) / 25))


def test_a_number_too_large_for_float16_is_told(animator, reference, clean, monkeypatch):
    lost = Refinement(clean, np.array([0.5, np.inf, np.nan], np.float32), 0.1, np.nan)
    monkeypatch.setattr(face_control, "refine", lambda *_, **__: lost)
    act = control(animator, reference, HJBConfig(iterations=3, dtype="float16"))
    with pytest.raises(
        InputError, match=r"step 5 met a number that is too large for float16: try --hjb.dtype bfloat16"
    ):
        act(4, clean)
    assert control(animator, reference, HJBConfig(iterations=3, dtype="bfloat16"))(4, clean) is clean


@pytest.mark.parametrize(
    ("config", "steps", "optimised"),
    [
        (HJBConfig(iterations=1), 25, range(21)),
        (HJBConfig(iterations=1), 10, range(8)),
        (HJBConfig(iterations=1), 1, range(1)),
        (HJBConfig(iterations=1, start=3, end=3), 4, range(3, 4)),
        (HJBConfig(iterations=1, start=2, end=9, every=3), 25, range(2, 10, 3)),
        (HJBConfig(iterations=1, last=3), 10, range(5, 8)),
        (HJBConfig(iterations=1, last=3), 2, range(1)),
        (HJBConfig(iterations=1, start=2, end=9, every=3, last=2), 25, range(5, 10, 3)),
    ],
)
def test_steps(config, steps, optimised):
    assert config.optimised_steps(steps) == optimised


@pytest.mark.parametrize(
    ("kwargs", "steps", "message"),
    [
        ({"end": 25}, 25, "hjb.end is 25, but the last of 25 denoising steps is 24"),
        ({"start": 30}, 25, "hjb.start is 30, but the last of 25 denoising steps is 24"),
        ({"start": 22}, 25, "hjb.start is 22, but the last step optimised of 25 is 20; give --hjb.end too"),
    ],
)
def test_steps_out_of_range(kwargs, steps, message):
    with pytest.raises(InputError, match=f"^{message}$"):
        HJBConfig(iterations=1, **kwargs).optimised_steps(steps)


@pytest.mark.parametrize("name", ["published", "paper"])
def test_presets(name):
    assert HJBConfig(iterations=name).adam_iterations == {"published": 3, "paper": 10}[name]


@pytest.mark.parametrize(
    "kwargs",
    [
        {"iterations": -1},
        {"iterations": "many"},
        {"iterations": 1001},
        {"start": -1},
        {"start": 5, "end": 4},
        {"every": 0},
        {"learning_rate": float("nan")},
        {"learning_rate": -0.1},
        {"chunk": 0},
        {"margin": -0.1},
    ],
)
def test_settings_out_of_range(kwargs):
    with pytest.raises(InputError, match=r"^hjb\."):
        HJBConfig(**kwargs)


@pytest.mark.slow
def test_it_reports_what_it_did(animator, reference, clean):
    reports, chunks = [], []
    faces = track(True, False, True)
    act = control(
        animator,
        reference,
        HJBConfig(iterations=1, chunk=2),
        faces,
        on_step=reports.append,
        on_chunk=lambda *done: chunks.append(done),
    )
    refined = act(4, clean)
    (report,) = reports
    assert (report.step, report.faces) == (4, 2)
    assert report.similarity_after > report.similarity_before
    assert chunks == [(2, 3), (3, 3)]
    np.testing.assert_array_equal(refined[1], clean[1])
    assert (np.asarray(refined[0]) != np.asarray(clean[0])).any()


@pytest.mark.long
def test_a_run_compiles_one_program(animator, reference, clean):
    before = refine_chunk._cache_size()
    act = control(animator, reference, HJBConfig(iterations=3, chunk=1), track(True))
    clean = clean[:1]
    for step in range(25):
        clean = act(step, clean)
    assert refine_chunk._cache_size() == before + 1


def test_other_steps_are_left_alone(animator, reference, clean):
    act = control(animator, reference, HJBConfig(iterations=1, start=3, end=7, every=2))
    for step in (0, 4, 8):
        assert act(step, clean) is clean
    assert (act(5, clean) != clean).any()


def test_off(animator, reference, clean):
    assert control(animator, reference, HJBConfig())(0, clean) is clean


def test_faces_found_in_predicted_frames_are_those_at_the_same_places(animator, reference, clean):
    """A detector that always answers the same gives what the places as data give, but for frames without a face."""
    seen = []

    def find(frame, number):
        assert number == len(seen)
        seen.append(frame)
        return None if len(seen) == 2 else Face(BOX + np.float32(0.2), LANDMARKS, score=0.9)

    config = HJBConfig(iterations=1)
    found = control(animator, reference, config, find)(0, clean)
    given = control(animator, reference, config, track(True, False, True))(0, clean)
    np.testing.assert_array_equal(found, given)
    assert [frame.shape for frame in seen] == [(64, 64, 3)] * FRAMES
    assert all(frame.dtype == np.uint8 for frame in seen)


def test_detected_boxes_are_cut_to_the_frame(animator, reference, clean):
    config = HJBConfig(iterations=1)
    wide = control(animator, reference, config, lambda *_: Face(np.float32([-9, 8, 80, 40]), LANDMARKS, score=1.0))
    boxes = np.tile(np.float32([0, 8, 63, 40]), (FRAMES, 1))
    cut = control(animator, reference, config, replace(ALL, boxes=boxes))
    np.testing.assert_array_equal(wide(0, clean), cut(0, clean))


def test_no_face_in_any_predicted_frame(animator, reference, clean):
    reports = []
    outside = Face(np.float32([70, 0, 90, 20]), LANDMARKS, score=1.0)
    for find in (lambda *_: None, lambda *_: outside):
        act = control(animator, reference, HJBConfig(iterations=1), find, on_step=reports.append)
        np.testing.assert_array_equal(act(0, clean), clean)
    assert [report.faces for report in reports] == [0, 0]
    assert np.isnan([report.similarity_before for report in reports]).all()


@pytest.mark.long
def test_aligned_faces(animator, photo, clean):
    reference = animator.embed_face(photo, Face(BOX, LANDMARKS), "aligned")
    assert np.abs(reference - animator.embed_face(photo, Face(BOX))).max() > 0
    reports = []
    act = control(animator, reference, HJBConfig(iterations=1, crop="aligned"), on_step=reports.append)
    act(0, clean)
    assert reports[0].similarity_after > reports[0].similarity_before


def test_what_cannot_be(animator, photo, reference, clean):
    with pytest.raises(InputError, match="aligned needs the faces' landmarks"):
        FaceOptimisation(HJBConfig(iterations=1, crop="aligned"), reference, track(True, landmarks=False))
    with pytest.raises(InputError, match="finite and not all zeros"):
        FaceOptimisation(HJBConfig(iterations=1), np.zeros(512, np.float32), ALL)
    with pytest.raises(InputError, match="aligned needs the landmarks of the reference"):
        embed_face(animator.arcface, photo, Face(BOX), "aligned")
    with pytest.raises(InputError, match="known of 2 frames, but the video has 3"):
        control(animator, reference, HJBConfig(iterations=1), track(True, True))(0, clean)


def test_in_the_sampler(animator, photo, reference):
    """A short video, whose window is filled up with frames that are nobody's."""
    poses = np.random.default_rng(2).integers(0, 256, (FRAMES, 64, 64, 3), np.uint8)
    sampling = SamplingConfig(steps=2, window=4, overlap=1)
    reports = []
    optimisation = FaceOptimisation(HJBConfig(iterations=1, end=1), reference, ALL)
    plain = animator.animate(photo, poses, sampling=sampling)
    video = animator.animate(photo, poses, sampling=sampling, hjb=optimisation, on_optimised=reports.append)
    assert [report.step for report in reports] == [0, 1]
    assert all(report.similarity_after > report.similarity_before for report in reports)
    assert video.shape == plain.shape
    assert (video != plain).any()


def test_the_sampler_without_arcface(photo, reference, checkpoint):
    poses = np.zeros((FRAMES, 64, 64, 3), np.uint8)
    animator = Animator.from_pretrained(checkpoint, dtype="float32")
    with pytest.raises(InputError, match="arcface=True"):
        animator.animate(photo, poses, hjb=FaceOptimisation(HJBConfig(iterations=1), reference, ALL))
