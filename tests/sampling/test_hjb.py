"""The face optimisation against the published code, and its own promises."""

from dataclasses import replace

import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest

from stableanimator_jax import diffusion
from stableanimator_jax.data.face_track import FaceTrack
from stableanimator_jax.models.functional import Model
from stableanimator_jax.sampling import hjb
from stableanimator_jax.sampling.face_crop import BoxCrops
from stableanimator_jax.sampling.hjb import lower_chunk, refine, refine_chunk
from tests.golden_data import load
from tests.golden_models import channels_last, reference_model
from tests.sampling.face_case import (
    ITERATIONS,
    LEARNING_RATE,
    VAE_CONFIG,
    aligned,
    boxes,
    identity,
    similarities,
    small_models,
    video,
)


@pytest.fixture(scope="module")
def case():
    return load("hjb_step")


@pytest.fixture(scope="module")
def tiny_models():
    return reference_model("vae"), reference_model("arcface")


@pytest.fixture(scope="module")
def models():
    return small_models()


def run(models, latents, faces, learning_rate=LEARNING_RATE, *, iterations=ITERATIONS, chunk=2, **kwargs):
    return refine(*models, latents, faces, identity(), learning_rate, iterations=iterations, chunk=chunk, **kwargs)


def golden_clean(case):
    sigmas = diffusion.karras_sigmas(int(case["num_steps"]))
    noisy = jnp.asarray(channels_last(case["sample"])[0])
    model_output = jnp.asarray(channels_last(case["model_output"])[0])
    return diffusion.denoised(model_output, noisy, sigmas[int(case["step"])]), noisy, sigmas


def golden_faces(case):
    boxes = case["face_boxes_y0y1x0x1_inclusive"][:, [2, 0, 3, 1]].astype(np.float32)
    return FaceTrack(boxes, None, np.ones(len(boxes), bool))


def test_golden_step(case, tiny_models):
    step, steps = int(case["step"]), int(case["num_steps"])
    clean, noisy, sigmas = golden_clean(case)
    out = refine(
        *tiny_models,
        clean,
        golden_faces(case),
        jnp.asarray(case["reference_embedding"][0]),
        0.1 * (1 - step / steps),
        iterations=int(case["iterations"]),
        chunk=int(case["decode_chunk"]),
    )
    for actual, name in (
        (out.latents, "pred_original_sample"),
        (diffusion.euler_step(out.latents, noisy, sigmas[step], sigmas[step + 1]), "prev_sample"),
    ):
        expected = channels_last(case[name])[0]
        error = np.abs(np.asarray(actual) - expected).mean() / expected.std()
        print(name, error)
        assert error < 1e-3


@pytest.mark.parametrize("step", [0, 10, 20])
def test_similarity_rises_at_every_step(case, tiny_models, step):
    """A random ArcFace will do: any embedding can be approached."""
    reference = jnp.asarray(np.random.default_rng(step).standard_normal(512, np.float32))
    learning_rate = 0.1 * (1 - step / 25)
    out = refine(
        *tiny_models, golden_clean(case)[0], golden_faces(case), reference, learning_rate, iterations=3, chunk=2
    )
    assert out.similarity_after > out.similarity_before + 0.01
    assert out.losses[0] > out.losses[1] > out.losses[2] > 1 - out.similarity_after


def test_similarity_rises_with_aligned_faces(models):
    out = run(models, video(4), aligned(4), crop="aligned")
    assert out.similarity_after > out.similarity_before + 0.1


def optimise_together(vae, arcface, latents, faces, reference, learning_rate, *, iterations, chunk):
    """All frames at once, as published: one loss, every chunk's graph, one Adam. Crops by slicing, one by one."""
    decoder, recogniser = vae.module(), arcface.module()

    def loss(x):
        parts = [decoder.decode(x[None, i : i + chunk] / 0.18215)[0] for i in range(0, len(x), chunk)]
        frames = jnp.clip(jnp.concatenate(parts) / 2 + 0.5, 0, 1)
        distances = []
        for i in np.flatnonzero(faces.valid):
            left, top, right, bottom = faces.boxes[i].astype(int)
            face = frames[i, top : bottom + 1, left : right + 1]
            crop = jax.image.resize(face, (112, 112, 3), "linear", antialias=False)
            embedding = recogniser(2 * crop[None] - 1)[0]
            cosine = embedding @ reference / jnp.linalg.norm(embedding) / jnp.linalg.norm(reference)
            distances.append(jnp.abs(1 - cosine))
        return jnp.stack(distances).mean()

    with jax.numpy_dtype_promotion("standard"):
        adam = optax.adam(learning_rate, b1=0.9, b2=0.999, eps=1e-8)
        state, losses = adam.init(latents), []
        # No optimisation by LLVM: compiling is most of the time here.
        gradient_of = jax.jit(jax.value_and_grad(loss), compiler_options={"xla_backend_optimization_level": 0})
        for _ in range(iterations):
            value, gradient = gradient_of(latents)
            # Adam makes no step along a gradient that was always 0.
            update, state = adam.update(jnp.where(faces.valid[:, None, None, None], gradient, 0), state)
            latents = latents + update
            losses.append(value)
    return latents, np.array(losses)


@pytest.mark.long
@pytest.mark.parametrize("chunk", [2, *(pytest.param(n, marks=pytest.mark.slow) for n in (1, 3, 5))])
def test_chunk_after_chunk_is_all_frames_together(models, chunk):
    """Of 5 frames, one without a face. Chunks of 1 skip it, others decode it with its neighbours."""
    latents, faces = video(5), boxes(5, faceless=(2,))
    out = run(models, latents, faces, chunk=chunk)
    expected, losses = optimise_together(
        *models, latents, faces, identity(), LEARNING_RATE, iterations=ITERATIONS, chunk=chunk
    )
    difference = np.abs(out.latents - expected)
    print(f"chunk {chunk}: latents {difference.mean() / expected.std():.1e}, most {difference.max():.1e}")
    assert difference.mean() < 1e-5 * expected.std()
    np.testing.assert_allclose(out.losses, losses, rtol=1e-5)
    # Without a face nothing moves, not by a bit; with one everything does.
    moved = np.asarray(out.latents != latents).reshape(5, -1)
    np.testing.assert_array_equal(moved.any(1), faces.valid)
    assert moved[faces.valid].mean() > 0.99


def test_no_face_at_all(models):
    latents, calls = video(3), []
    out = run(models, latents, boxes(3, faceless=(0, 1, 2)), on_chunk=lambda *call: calls.append(call))
    np.testing.assert_array_equal(out.latents, latents)
    assert out.losses.shape == (0,)
    assert np.isnan([out.similarity_before, out.similarity_after]).all()
    assert calls == [(3, 3)]


@pytest.mark.long
def test_progress_counts_frames_with_and_without_a_face(models):
    calls = []
    run(models, video(5), boxes(5, faceless=(2, 3)), on_chunk=lambda *call: calls.append(call))
    assert calls == [(2, 5), (5, 5)]  # the chunk between them has no face, and takes no time


def test_similarities_are_those_of_the_latents(models):
    latents, faces = video(4), boxes(4, faceless=(1,))
    out = run(models, latents, faces)
    for x, similarity in ((latents, out.similarity_before), (out.latents, out.similarity_after)):
        cosines = np.concatenate(
            [similarities(*models, x[i : i + 2], BoxCrops(faces.boxes[i : i + 2])) for i in (0, 2)]
        )
        np.testing.assert_allclose(similarity, cosines[faces.valid].mean(), atol=1e-5)


@pytest.mark.parametrize("place", [np.nan, 1e30, [9, 3, 9, 3]])
def test_where_a_faceless_frame_has_its_face_does_not_matter(models, place):
    latents, faces = video(4), boxes(4, faceless=(1,))
    expected = run(models, latents, faces)
    faces.boxes[1] = place
    np.testing.assert_array_equal(run(models, latents, faces).latents, expected.latents)


def test_a_number_that_is_not_finite_is_seen(models):
    """It spoils its own chunk, and the similarity says so."""
    latents = video(4)
    expected = run(models, latents, boxes(4))
    out = run(models, latents.at[1, 3, 3, 0].set(jnp.nan), boxes(4))
    assert np.isnan([*out.losses, out.similarity_before, out.similarity_after]).all()
    np.testing.assert_array_equal(out.latents[2:], expected.latents[2:])


@pytest.mark.long
@pytest.mark.parametrize(("dtype", "least"), [("bfloat16", 0.995), ("float16", 0.998)])
def test_16_bits_come_close(models, dtype, least):
    """The same float32 parameters, computed with in 16 bits between norms with float32 statistics."""
    reduced = [model.computing_in(dtype) for model in models]
    latents, faces = video(4), boxes(4)
    exact = run(models, latents, faces)
    out = run(reduced, latents, faces)
    assert out.latents.dtype == jnp.float32
    moves, exact_moves = (np.asarray(x.latents - latents).ravel() for x in (out, exact))
    agreement = np.corrcoef(moves, exact_moves)[0, 1]
    print(f"{dtype}: {out[2:]}, float32: {exact[2:]}; correlation of the moves {agreement:.4f}")
    np.testing.assert_allclose(out.losses, exact.losses, atol=0.01)
    assert abs(out.similarity_before - exact.similarity_before) < 0.01
    assert abs(out.similarity_after - exact.similarity_after) < 0.02
    assert agreement > least


@pytest.mark.slow
def test_gradients_to_single_pixels_do_not_vanish_in_float16(models, monkeypatch):
    """A face of few pixels' weight, as in a large frame: one of many frames, whose loss is a thousandth."""
    reduced = [model.computing_in("float16") for model in models]

    def moves(models, share: float):
        """Of one iteration, where the mean is over so many more frames."""
        latents = video(4)
        counted = np.float32(4 / share)
        moved, _ = refine_chunk(
            (*models, identity(), np.float32(0.1), counted),
            latents,
            hjb.crops_of(boxes(4), "box"),
            np.ones(4, bool),
            np.zeros(2, np.int32),
            size=latents.shape[1:3],
            iterations=1,
        )
        return np.asarray(moved - latents)

    exact = moves(models, 1e-3)
    agreement = (np.sign(moves(reduced, 1e-3)) == np.sign(exact)).mean()
    monkeypatch.setattr(hjb, "FLOAT16_LOSS_SCALE", 1.0)
    refine_chunk.clear_cache()
    unscaled = (np.sign(moves(reduced, 1e-3)) == np.sign(exact)).mean()
    refine_chunk.clear_cache()
    assert agreement > 0.99 > 0.97 > unscaled


@pytest.mark.parametrize(("faces", "crop"), [(boxes(4), "box"), (aligned(4), "aligned")], ids=["boxes", "aligned"])
def test_a_region_that_covers_the_frame_is_the_frame(models, faces, crop):
    whole, region = (run(models, video(4), faces, crop=crop, margin=margin) for margin in (None, 9.0))
    np.testing.assert_array_equal(region.latents, whole.latents)
    np.testing.assert_array_equal(region.losses, whole.losses)


def test_one_program_for_all_steps_and_videos(models):
    run(models, video(4), boxes(4))
    programs = refine_chunk._cache_size()
    for seed, learning_rate in enumerate((0.1, 0.05, 1e-3)):
        faces = boxes(4 + 2 * seed, faceless=tuple(range(seed)))
        refine(
            *models,
            video(4 + 2 * seed, seed),
            replace(faces, boxes=faces.boxes + np.float32(seed)),
            identity(seed),
            learning_rate,
            iterations=ITERATIONS,
            chunk=2,
        )
    assert refine_chunk._cache_size() == programs


@pytest.mark.long
def test_memory_does_not_grow_with_frames(models, monkeypatch):
    """Every chunk of 4, 16 or 64 frames runs one program, whose memory the compiler tells."""
    calls = []

    def recording(*args, **kwargs):
        calls.append((args, kwargs))
        return refine_chunk(*args, **kwargs)

    expected = lower_chunk(*models, frames=4, latent_size=(8, 8), iterations=1)
    monkeypatch.setattr(hjb, "refine_chunk", recording)
    for frames in (4, 16, 64):
        calls.clear()
        run(models, video(frames)[:, :8, :8], boxes(frames), iterations=1, chunk=4)
        assert len(calls) == frames // 4
        for (_, _, *arrays), static in calls:
            assert [np.shape(a) for a in arrays] == [np.shape(a) for a in calls[0][0][2:]]
            assert static == {"size": (8, 8), "iterations": 1}
        assert refine_chunk.lower(*calls[0][0], **calls[0][1]).as_text() == expected.as_text()
    memory = expected.compile().memory_analysis()
    assert memory is not None
    print(f"any number of frames: {memory.temp_size_in_bytes / 2**20:.0f} MiB of temporaries for a chunk of 4")
    assert memory.temp_size_in_bytes > 0


def test_lowering_needs_no_parameters(models):
    abstract = [Model(m.blueprint.abstract_params(), m.blueprint) for m in models]
    for kwargs in ({}, {"region": (4, 8)}, {"aligned": True}):
        lowered = lower_chunk(*abstract, frames=2, latent_size=(8, 12), iterations=2, **kwargs)
        latents, (losses, _, _) = lowered.out_info
        assert latents.shape == (2, 8, 12, VAE_CONFIG.latent_channels)
        assert losses.shape == (2,)
