"""The animator as a Python user has it."""

import re

import jax.numpy as jnp
import numpy as np
import pytest

from stableanimator_jax import Animator, InputError, SamplingConfig, StableAnimatorConfig
from stableanimator_jax.data.images import resize
from stableanimator_jax.sampling.pipeline import check_size
from stableanimator_jax.weights.checkpoint import save_checkpoint
from tests.training.mini_model import save_mini_model

FAST = SamplingConfig(steps=1, window=4, overlap=1)


@pytest.fixture(scope="module")
def animator(tmp_path_factory):
    return Animator.load(str(save_mini_model(tmp_path_factory.mktemp("pipeline") / "mini")), dtype="float32")


@pytest.fixture(scope="module")
def reference():
    return np.random.default_rng(0).integers(0, 256, (90, 70, 3), np.uint8)


@pytest.fixture(scope="module")
def poses():
    return np.random.default_rng(1).integers(0, 256, (5, 64, 128, 3), np.uint8)


@pytest.fixture(scope="module")
def video(animator, reference, poses):
    return animator.animate(reference, poses, sampling=FAST)


def test_a_video_of_the_poses_size_and_length(video, poses):
    assert video.shape == poses.shape
    assert video.dtype == np.uint8
    assert video.std() > 0


def test_same_seed_same_video(animator, reference, poses, video):
    np.testing.assert_array_equal(video, animator.animate(reference, poses, sampling=FAST))


def test_another_seed_another_video(animator, reference, poses, video):
    other = SamplingConfig(steps=1, window=4, overlap=1, seed=1)
    assert (video != animator.animate(reference, poses, sampling=other)).mean() > 0.1


def test_the_face_embedding_matters(animator, reference, poses, video):
    embedding = np.random.default_rng(2).standard_normal(512).astype(np.float32)
    other = animator.animate(reference, poses, id_embedding=embedding, sampling=FAST)
    assert (video != other).any()


def test_streamed_chunks_are_the_video(animator, reference, poses, video):
    progress = []
    chunks = list(
        animator.stream(reference, poses, sampling=FAST, on_decode=lambda done, total: progress.append((done, total)))
    )
    assert [len(chunk) for chunk in chunks] == [4, 1]
    assert progress == [(4, 5), (5, 5)]
    np.testing.assert_array_equal(np.concatenate(chunks), video)


@pytest.mark.parametrize(("side", "same"), [(64, True), (224, False)])
def test_clip_sees_a_reference_no_larger_than_the_output_where_that_is_small(animator, reference, side, same):
    """As in training; for larger outputs CLIP's resize begins from the reference's own size, as published."""
    noise, embedding = jnp.zeros((side, side, 3)), np.zeros(512, np.float32)
    large = np.kron(reference[:64, :64], np.ones((4, 4, 1), np.uint8))
    conditions = [
        animator.encode(image, embedding, noise, 0.0) for image in (large, resize(large, side, side, "lanczos"))
    ]
    first, second = (np.asarray(c.image_embedding) for c in conditions)
    assert np.array_equal(first, second) == same
    np.testing.assert_array_equal(*(c.image_latents for c in conditions))


def test_a_saved_checkpoint_gives_the_same_video(animator, reference, poses, video, tmp_path):
    names = ("unet", "pose_net", "vae", "image_encoder", "face_encoder")
    save_checkpoint(tmp_path / "saved", animator.config, {name: getattr(animator, name).params for name in names})
    loaded = Animator.load(str(tmp_path / "saved"), dtype="float32")
    np.testing.assert_array_equal(video, loaded.animate(reference, poses, sampling=FAST))


def test_a_checkpoint_without_a_model_is_refused(animator, tmp_path):
    save_checkpoint(tmp_path / "part", animator.config, {"vae": animator.vae.params})
    with pytest.raises(InputError, match="unet"):
        Animator.load(str(tmp_path / "part"))


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"poses": np.zeros((2, 64, 64, 3), np.float32)}, "poses must be uint8"),
        ({"poses": np.zeros((0, 64, 64, 3), np.uint8)}, "not empty"),
        ({"reference": np.zeros((64, 64), np.uint8)}, "reference must be uint8"),
        ({"poses": np.zeros((2, 64, 100, 3), np.uint8)}, "the nearest is 96x64"),
        ({"id_embedding": np.zeros(511, np.float32)}, r"must be \[512\]"),
        ({"id_embedding": np.full(512, np.nan, np.float32)}, "NaN"),
    ],
)
def test_inputs_that_do_not_fit_are_refused(animator, reference, poses, change, message):
    arguments = {"reference": reference, "poses": poses} | change
    with pytest.raises(InputError, match=message):
        animator.animate(**arguments, sampling=FAST)


@pytest.mark.parametrize(
    ("size", "nearest"), [((500, 512), "512x512"), ((576, 1000), "576x1024"), ((1, 1), "64x64"), ((95, 97), "64x128")]
)
def test_the_nearest_size_that_works_is_named(size, nearest):
    with pytest.raises(InputError, match=re.escape(f"the nearest is {nearest}")):
        check_size(StableAnimatorConfig(), width=size[0], height=size[1])


@pytest.mark.parametrize(
    "wrong",
    [
        {"steps": 0},
        {"window": 1},
        {"overlap": 16},
        {"overlap": 0},
        {"steps": 10**12},
        {"decode_chunk": 0},
        {"rows_at_once": 0},
        {"noise_augmentation": float("nan")},
        {"guidance_min": -1.0},
        {"guidance_max": float("inf")},
        {"seed": -1},
        {"seed": 2**32},
        {"fps": 0},
    ],
)
def test_settings_out_of_range_are_refused(wrong):
    name = next(iter(wrong)).replace("_", "-")
    with pytest.raises(InputError, match=name):
        SamplingConfig(**wrong)
