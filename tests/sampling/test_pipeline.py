"""The animator as a Python user has it."""

import re
from dataclasses import replace
from fnmatch import fnmatch

import huggingface_hub
import jax
import jax.numpy as jnp
import numpy as np
import pytest
from PIL import Image

from stableanimator_jax import Animator, InputError, SamplingConfig, StableAnimatorConfig
from stableanimator_jax.data.images import fit, fit_aspect, resize
from stableanimator_jax.data.poses import Poses
from stableanimator_jax.runtime import compute_dtype
from stableanimator_jax.sampling.decode import decode_frames
from stableanimator_jax.sampling.samplers import euler
from stableanimator_jax.sampling.video_inputs import check_size
from stableanimator_jax.weights.checkpoint import save_checkpoint
from tests.sampling.test_samplers import heun
from tests.training.mini_model import save_mini_model

FAST = SamplingConfig(steps=1, window=4, overlap=1)


@pytest.fixture(scope="module")
def animator(tmp_path_factory):
    return Animator.from_pretrained(str(save_mini_model(tmp_path_factory.mktemp("pipeline") / "mini")), dtype="float32")


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


def test_another_sampler_makes_another_video(animator, reference, poses):
    sampling, calls, steps = replace(FAST, steps=2), [], []
    videos = [
        animator.animate(
            reference,
            poses,
            sampling=sampling,
            sampler=sampler,
            on_denoise=lambda done, total: calls.append((done, total)),
            on_step=lambda step, latents: steps.append((step, latents)),
        )
        for sampler in (heun, euler)
    ]
    assert [step for step, _ in steps] == [0, 1, 0, 1]
    assert all(latents.shape == (5, 8, 16, 4) for _, latents in steps)
    # Heun denoises twice in the first step, whose progress is told once; the last step is Euler's in both.
    assert calls == [(n, 4) for n in (1, 2, 3, 4)] * 2
    assert (videos[0] != videos[1]).mean() > 0.1


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
        animator.encode(image, embedding, noise, FAST) for image in (large, resize(large, side, side, "lanczos"))
    ]
    first, second = (np.asarray(c.image_embedding) for c in conditions)
    assert np.array_equal(first, second) == same
    np.testing.assert_array_equal(*(c.image_latents for c in conditions))


def test_inputs_as_people_have_them(animator, reference, poses, video, tmp_path):
    Image.fromarray(reference).save(tmp_path / "person.png")
    (tmp_path / "poses").mkdir()
    images = [Image.fromarray(pose) for pose in poses]
    for i, pose in enumerate(images):
        pose.save(tmp_path / f"poses/frame_{i}.png")
    for person, movement in (
        (Image.fromarray(reference), Poses(poses, fps=None)),
        (tmp_path / "person.png", tmp_path / "poses"),
        (str(tmp_path / "person.png"), images),
    ):
        np.testing.assert_array_equal(video, animator.animate(person, movement, sampling=FAST))


@pytest.mark.long
@pytest.mark.parametrize("mode", ["crop", "pad"])
def test_inputs_are_fitted_to_the_size_as_the_script_does(animator, reference, poses, mode):
    fitted = np.stack([fit(pose, 64, 64, mode, filter="bicubic") for pose in poses])
    wanted = animator.animate(fit_aspect(reference, 64, 64, mode), fitted, sampling=FAST)
    made = animator.animate(reference, poses, width=64, height=64, fit=mode, sampling=FAST)
    np.testing.assert_array_equal(made, wanted)


def test_keys_and_noise_beside_the_seed(animator, reference, poses, video):
    for key in (jax.random.key(0), jax.random.PRNGKey(0)):
        np.testing.assert_array_equal(video, animator.animate(reference, poses, key=key, sampling=FAST))
    noise = jax.random.normal(jax.random.split(jax.random.key(0))[1], (4, 8, 16, 4))
    np.testing.assert_array_equal(video, animator.animate(reference, poses, noise=noise, sampling=FAST))
    assert (video != animator.animate(reference, poses, noise=-noise, sampling=FAST)).mean() > 0.1


def test_latents_after_each_step(animator, reference, poses):
    seen = []
    sampling = replace(FAST, steps=2)
    made = animator.animate(reference, poses, sampling=sampling, on_step=lambda *now: seen.append(now))
    assert [(step, latents.shape) for step, latents in seen] == [(0, (5, 8, 16, 4)), (1, (5, 8, 16, 4))]
    np.testing.assert_array_equal(made, np.concatenate(list(decode_frames(animator.vae, seen[-1][1], 4))))


def test_a_saved_checkpoint_gives_the_same_video_and_is_not_replaced_unasked(
    animator, reference, poses, video, tmp_path
):
    animator.save_pretrained(tmp_path / "saved")
    loaded = Animator.from_pretrained(tmp_path / "saved", dtype=jnp.float32)
    np.testing.assert_array_equal(video, loaded.animate(reference, poses, sampling=FAST))
    assert loaded.source == animator.source
    with pytest.raises(InputError, match="there is a checkpoint in"):
        loaded.save_pretrained(tmp_path / "saved")
    loaded.save_pretrained(tmp_path / "saved", overwrite=True)
    (tmp_path / "mine").mkdir()
    (tmp_path / "mine/diary.txt").write_text("dear")
    with pytest.raises(InputError, match="will not replace"):
        loaded.save_pretrained(tmp_path / "mine", overwrite=True)
    assert (tmp_path / "mine/diary.txt").read_text() == "dear"


def test_a_checkpoint_on_the_hub(animator, reference, poses, video, tmp_path, monkeypatch):
    """As the hub's cache has it: every file a link to a blob elsewhere."""
    animator.save_pretrained(tmp_path / "blobs")
    asked = []

    def download(repository, *, revision, allow_patterns, ignore_patterns):
        asked.append((repository, revision))
        for blob in (tmp_path / "blobs").rglob("*"):
            name = blob.relative_to(tmp_path / "blobs")
            if blob.is_file() and any(fnmatch(str(name), pattern) for pattern in allow_patterns):
                (tmp_path / "snapshot" / name).parent.mkdir(parents=True, exist_ok=True)
                (tmp_path / "snapshot" / name).symlink_to(blob)
        return str(tmp_path / "snapshot")

    (tmp_path / "blobs/README.md").write_text("# a model card, which no model needs")
    monkeypatch.setattr(huggingface_hub, "snapshot_download", download)
    loaded = Animator.from_pretrained("hf://owner/repo@v1", dtype="float32")
    assert asked == [("owner/repo", "v1")]
    assert not (tmp_path / "snapshot/README.md").exists()
    np.testing.assert_array_equal(video, loaded.animate(reference, poses, sampling=FAST))


def test_an_animator_is_shown_in_one_line_and_compared_by_identity(animator):
    assert re.fullmatch(
        r"Animator\(unet, vae, image_encoder, face_encoder, pose_net: \d+\.\d million parameters, computing in "
        r"float32\)",
        repr(animator),
    )
    assert animator != replace(animator)


def test_what_to_compute_in():
    assert compute_dtype("auto") == "float32"  # on a CPU, where tests run
    assert compute_dtype(jnp.bfloat16) == "bfloat16"
    assert compute_dtype("float16") == "float16"
    for wrong in ("fp16", "int8", jnp.float64, object()):
        with pytest.raises(InputError, match="dtype must be auto, float16, bfloat16 or float32, got "):
            Animator.from_pretrained(dtype=wrong)


def test_frames_are_decoded_in_float16_with_a_unet_that_computes_in_it(animator):
    assert animator.decoder is animator.vae
    for dtype, decodes_in in (("float16", "float16"), ("bfloat16", "float32")):
        decoder = replace(animator, unet=animator.unet.computing_in(dtype)).decoder
        assert decoder.blueprint.precision.compute == decodes_in
        assert decoder.params is animator.vae.params


def test_a_checkpoint_without_a_model_is_refused(animator, tmp_path):
    save_checkpoint(tmp_path / "part", animator.config, {"vae": animator.vae.params})
    with pytest.raises(InputError, match="unet"):
        Animator.from_pretrained(str(tmp_path / "part"))


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"poses": np.zeros((2, 64, 64, 3), np.float32)}, "poses must be uint8"),
        ({"poses": np.zeros((0, 64, 64, 3), np.uint8)}, "not empty"),
        ({"reference": np.zeros((64, 64), np.uint8)}, "reference must be uint8"),
        ({"poses": np.zeros((2, 64, 100, 3), np.uint8)}, "the nearest is 96x64"),
        ({"poses": np.zeros((2, 64, 64, 3), np.uint8), "width": 70, "height": 64}, "the nearest is 64x64"),
        ({"poses": np.zeros((2, 64, 64, 3), np.uint8), "width": 64}, "give both width and height"),
        ({"poses": "nowhere"}, "nowhere"),
        ({"poses": [np.zeros((64, 64, 3), np.uint8), np.zeros((64, 32, 3), np.uint8)]}, "different sizes"),
        ({"poses": None}, "StableAnimator needs poses"),
        ({"reference": None}, "reference must be uint8 .* got NoneType"),
        ({"reference": "nobody.jpg"}, "reference nobody.jpg"),
        ({"key": 0}, "key must be one key"),
        ({"key": jax.random.split(jax.random.key(0))}, "key must be one key"),
        ({"sampler": "euler"}, "sampler must be a function .* got 'euler'"),
        ({"noise": np.zeros((4, 8, 8, 4), np.float32)}, r"must be \[4, 8, 16, 4\]"),
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
        {"schedule": "exponential"},
        {"sampler": "heun"},
        {"guidance_interval": (0.0, float("nan"))},
        {"guidance_interval": (-1.0, 3.0)},
        {"guidance_interval": (0.1, 1.0, 2.0)},
        {"guidance_interval": (60.0, 0.28)},
        {"guidance_interval": (0.28, 60.0), "guidance_min": 1.0, "guidance_max": 1.0},
        {"guidance_interval": (60.0, 600.0), "steps": 1, "schedule": "aligned"},
    ],
)
def test_settings_out_of_range_are_refused(wrong):
    name = next(iter(wrong)).replace("_", "-")
    with pytest.raises(InputError, match=name):
        SamplingConfig(**wrong)
