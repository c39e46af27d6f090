"""Decoding the faces' region alone: where regions are, and that the face optimisation keeps to them."""

from dataclasses import replace

import jax.numpy as jnp
import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from stableanimator_jax.sampling.face_crop import AlignedCrops, BoxCrops, crops_of
from stableanimator_jax.sampling.face_region import face_regions
from stableanimator_jax.sampling.hjb import refine, refine_chunk
from tests.sampling.face_case import (
    CELLS,
    DOWNSCALE,
    ITERATIONS,
    LEARNING_RATE,
    aligned,
    boxes,
    identity,
    similarities,
    small_models,
    video,
)

FRAME = (CELLS, CELLS)


@pytest.fixture(scope="module")
def models():
    return small_models()


def run(models, latents, faces, **kwargs):
    return refine(*models, latents, faces, identity(), LEARNING_RATE, iterations=ITERATIONS, chunk=2, **kwargs)


def regions_of(crops, valid, margin, chunk=2):
    return face_regions(crops, valid, chunk=chunk, frame=FRAME, downscale=DOWNSCALE, margin=margin)


def test_a_margin_is_measured_on_the_longer_side():
    """12 x 9 pixels with half of 12 around them, in cells of 8 pixels."""
    box = np.array([[203, 100, 211, 111]], np.float32)
    # Rows 94 to 117 are cells 11 to 14, columns 197 to 217 are cells 24 to 27.
    size, starts = face_regions(BoxCrops(box), np.array([True]), chunk=1, frame=(72, 128), downscale=8, margin=0.5)
    assert size == (4, 4)
    np.testing.assert_array_equal(starts, [[11, 24]])


def test_one_size_for_all_chunks_the_largest_centred_in_it():
    boxes = np.array([[80, 80, 95, 95], [80, 80, 135, 159], [560, 0, 575, 7]], np.float32)
    size, starts = face_regions(BoxCrops(boxes), np.ones(3, bool), chunk=1, frame=(72, 72), downscale=8, margin=0)
    assert size == (12, 8)  # 10 x 7 cells in whole fours
    # Cells (10..11, 10..11), (10..19, 10..16), (0, 70..71), the last moved in from the corner.
    np.testing.assert_array_equal(starts, [[5, 7], [9, 10], [0, 64]])


def test_a_region_is_no_larger_than_the_frame():
    box = np.array([[-40, 0, 900, 60]], np.float32)
    size, starts = face_regions(BoxCrops(box), np.array([True]), chunk=1, frame=(9, 11), downscale=8, margin=3)
    assert size == (9, 11)
    np.testing.assert_array_equal(starts, [[0, 0]])


def test_frames_without_a_face_do_not_count():
    faces = boxes(4, faceless=(1, 2, 3))
    faces.boxes[1:] = [[0, 0, 31, 31]] * 3
    assert regions_of(BoxCrops(faces.boxes), faces.valid, 0).size == (8, 8)


edge = st.integers(-10, 2 * CELLS + 9)


@settings(max_examples=60, deadline=None)
@given(
    corners=st.lists(st.tuples(edge, edge, edge, edge), min_size=3, max_size=3),
    margin=st.sampled_from([0.0, 0.3, 2.0]),
)
def test_crops_from_the_region_are_crops_from_the_frame(corners, margin):
    """Also of boxes that reach beyond the frame. A pixel off would be 1e-2 off."""
    boxes = np.array([np.sort(np.reshape(c, (2, 2)), axis=0).ravel() for c in corners], np.float32)
    check_crops(BoxCrops(boxes), margin, 1e-5)  # sums of other lengths


@settings(max_examples=60, deadline=None)
@given(numbers=st.lists(st.tuples(*[st.floats(-0.3, 0.3)] * 4, *[st.floats(-10, 40)] * 2), min_size=3, max_size=3))
def test_aligned_crops_from_the_region_are_those_from_the_frame(numbers):
    transforms = np.array([[[a, b, x], [c, d, y]] for a, b, c, d, x, y in numbers], np.float32)
    check_crops(AlignedCrops(transforms), 0, 2e-4)  # coordinates are rounded elsewhere


def check_crops(crops, margin, tolerance):
    # A smooth image: each pixel differs from its neighbours, and rounded coordinates make little of it.
    rows, columns = np.mgrid[: DOWNSCALE * CELLS, : DOWNSCALE * CELLS].astype(np.float32)
    frames = jnp.asarray(np.stack([1 + rows, 100 - columns, rows * columns / 8], -1)[None].repeat(3, 0) / 100)
    (height, width), starts = regions_of(crops, np.ones(3, bool), margin, chunk=3)
    y, x = corner = DOWNSCALE * starts[0]
    region = frames[:, y : y + DOWNSCALE * height, x : x + DOWNSCALE * width]
    seen = crops.seen_from(corner[::-1]).cut(region)
    np.testing.assert_allclose(seen, crops.cut(frames), rtol=0, atol=tolerance)


@pytest.mark.long
@pytest.mark.parametrize(
    ("faces", "crop"),
    [
        pytest.param(boxes(4), "box", marks=pytest.mark.slow, id="boxes"),
        pytest.param(aligned(4), "aligned", id="aligned"),
    ],
)
def test_only_the_region_moves_and_the_face_in_it_is_found(models, faces, crop):
    latents = video(4)
    faces = replace(faces, valid=np.array([True, True, False, True]))
    (height, width), starts = regions_of(crops_of(faces, crop), faces.valid, 0.0)
    assert (height, width) != FRAME
    out = run(models, latents, faces, crop=crop, margin=0.0)
    inside = np.zeros((4, *FRAME), bool)
    before, after = [], []
    for i, (y, x) in zip((0, 2), starts, strict=True):
        inside[i : i + 2, y : y + height, x : x + width] = faces.valid[i : i + 2, None, None]
        (numbers,) = crops_of(faces[i : i + 2], crop)
        offset = [x, y, x, y] if crop == "box" else [[0, 0, x], [0, 0, y]]
        here = np.float32(numbers - np.array(offset) * DOWNSCALE)
        for z, cosines in ((latents, before), (out.latents, after)):
            window = z[i : i + 2, y : y + height, x : x + width]
            cosines.append(similarities(*models, window, BoxCrops(here) if crop == "box" else AlignedCrops(here)))
    np.testing.assert_array_equal((out.latents != latents).any(-1), inside)
    np.testing.assert_allclose(out.similarity_before, np.concatenate(before)[faces.valid].mean(), atol=1e-5)
    np.testing.assert_allclose(out.similarity_after, np.concatenate(after)[faces.valid].mean(), atol=1e-5)
    assert out.similarity_after > out.similarity_before + 0.1


@pytest.mark.slow
def test_one_program_wherever_the_faces_are(models):
    faces = boxes(8)
    run(models, video(8), faces, margin=0.0)
    programs = refine_chunk._cache_size()
    for shift in (-5, 3, 7):
        run(models, video(8), replace(faces, boxes=faces.boxes + np.float32(shift)), margin=0.0)
    assert refine_chunk._cache_size() == programs
