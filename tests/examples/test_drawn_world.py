"""The drawn people: whom, how they move, what is known of them, and the dataset that is made of them."""

import dataclasses
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from examples.drawn_world.canvas import background
from examples.drawn_world.clips import TEST_SEEDS, TRAIN_SEEDS, VALIDATION_SEEDS, draw_clip, skeletons, small_skeletons
from examples.drawn_world.dataset import DatasetConfig, draw_people, embed_faces, write
from examples.drawn_world.drawing import draw
from examples.drawn_world.model import CONFIG
from examples.drawn_world.motion import make_motion
from examples.drawn_world.people import description, make_person
from stableanimator_jax.data.loader import LoaderConfig, make_loader
from stableanimator_jax.data.poses import load_poses
from stableanimator_jax.data.prepared import PreparedClips
from stableanimator_jax.errors import InputError
from stableanimator_jax.models.catalogue import blueprint
from stableanimator_jax.perception.skeleton import FACE
from stableanimator_jax.weights.checkpoint import save_checkpoint
from stableanimator_jax.weights.opening import open_checkpoint
from tests.random_params import random_params

SIZE = 64


def test_a_seed_is_a_person():
    assert make_person(5) == make_person(5)
    told = np.stack([description(make_person(seed)) for seed in range(300)])
    apart = np.abs(told[:, None] - told[None]).max(-1)
    assert apart[~np.eye(300, dtype=bool)].min() > 0.3  # no two are alike
    assert (told.std(axis=0) > 0.1).all()  # nothing is the same for all
    assert (np.abs(told) <= 1.1).all()


def test_seeds_of_the_splits_are_far_apart():
    assert TRAIN_SEEDS + 500_000 < VALIDATION_SEEDS < VALIDATION_SEEDS + 500_000 < TEST_SEEDS


def test_motion_is_smooth_and_moves():
    motion = make_motion(3)
    for name, most in (("x", 0.04), ("y", 0.02), ("yaw", 0.25), ("pitch", 0.12), ("roll", 0.12), ("upper_arms", 0.4)):
        steps = np.abs(np.diff(getattr(motion, name), axis=0))
        assert len(steps) == 63
        assert 0 < steps.max() < most, name
    assert not np.allclose(motion.yaw, make_motion(4).yaw)


def test_identity_motion_and_wall_are_apart():
    clip = draw_clip(1, 2, 3, 2, SIZE)
    np.testing.assert_array_equal(clip.frames, draw_clip(1, 2, 3, 2, SIZE).frames)
    stranger, elsewhere, still = draw_clip(9, 2, 3, 2, SIZE), draw_clip(1, 2, 8, 2, SIZE), draw_clip(1, 7, 3, 2, SIZE)
    np.testing.assert_array_equal(clip.points, elsewhere.points)  # the wall is no part of the motion
    assert (clip.frames == stranger.frames).all(-1).mean() > 0.25  # nor is whoever moves of the wall
    neck = clip.points[:, 1]
    np.testing.assert_array_equal(neck, stranger.points[:, 1])  # it follows the motion alone
    assert np.abs(neck - still.points[:, 1]).max() > 1
    left, top, right, bottom = clip.faces.boxes[0].astype(int)
    inside = np.s_[0, top:bottom, left:right]
    assert np.abs(clip.frames[inside].astype(int) - stranger.frames[inside]).mean() > 10


@pytest.mark.parametrize("seed", range(4))
def test_keypoints_are_where_things_are(seed: int):
    person, motion = make_person(seed), make_motion(seed)
    drawn = draw(person, motion, 10, 256, seed)
    assert drawn.points.shape == (134, 2)
    assert drawn.scores.shape == (134,)
    visible = drawn.points[drawn.scores > 0.3]
    assert (visible >= 0).all()
    assert (visible < 256).all()
    face = drawn.points[FACE]
    eyes, mouth, chin = face[36:48].mean(0), face[48:68].mean(0), face[8]
    assert eyes[1] < mouth[1] < chin[1]
    # Somewhere around a wrist there is a hand, in the colour of the skin.
    for wrist in (4, 7):
        if drawn.scores[wrist] > 0.3:
            x, y = drawn.points[wrist].astype(int)
            around = drawn.picture[max(0, y - 4) : y + 5, max(0, x - 4) : x + 5].reshape(-1, 3).astype(int)
            assert np.abs(around - np.array(person.skin)).sum(-1).min() < 30


def test_the_wall_is_behind():
    wall = background(12)
    assert wall.shape == (128, 128, 3)
    clip = draw_clip(1, 2, 12, 1, 128)
    same = np.abs(clip.frames[0].astype(int) - wall).max(-1) <= 8
    assert 0.2 < same.mean() < 0.8


def test_skeletons_are_made_small_as_the_program_does(tmp_path: Path):
    clip = draw_clip(1, 2, 3, 2, SIZE)
    for i, image in enumerate(skeletons(clip)):
        Image.fromarray(image).save(tmp_path / f"frame_{i}.png")
    np.testing.assert_array_equal(small_skeletons(clip), load_poses(tmp_path, SIZE, SIZE).frames)
    assert (small_skeletons(clip).max(axis=(1, 2, 3)) > 30).all()


@pytest.fixture(scope="module")
def arcface(tmp_path_factory: pytest.TempPathFactory) -> Path:
    place = tmp_path_factory.mktemp("arcface") / "checkpoint"
    abstract = blueprint(CONFIG, "arcface").abstract_params()
    save_checkpoint(place, CONFIG, {"arcface": random_params(abstract, seed=0)})
    return place


def test_the_dataset_is_what_training_takes(tmp_path: Path, arcface: Path):
    config = DatasetConfig(tmp_path / "dataset", people=2, validation=1, frames=4, workers=1, arcface=str(arcface))
    draw_people(config)[1].file.unlink()  # as if it had been stopped
    with pytest.raises(InputError, match="is of a run with --frames 4, not 5"):
        write(dataclasses.replace(config, frames=5))
    write(config)
    assert [path.name for path in tmp_path.iterdir()] == ["dataset"]  # nothing waits any more
    clips = PreparedClips(config.output, "train", "64x64")
    assert len(clips) == 2
    assert len(PreparedClips(config.output, "validation", "64x64")) == 1
    clip = clips[0]
    truth = draw_clip(TRAIN_SEEDS, TRAIN_SEEDS, TRAIN_SEEDS, 4, SIZE)
    assert np.abs(clip.read_frames([3])[0].astype(int) - truth.frames[3]).mean() < 2  # JPEG
    np.testing.assert_array_equal(clip.read_poses([3])[0], small_skeletons(truth)[3])
    source = open_checkpoint(str(arcface))
    expected = embed_faces(source.load("arcface", blueprint(CONFIG, "arcface")), truth.frames, truth.faces.boxes)
    assert np.corrcoef(clip.embeddings[3], expected[3])[0, 1] > 0.99
    with make_loader([clips], LoaderConfig(batch_size=2, frames=2, stride=1)) as loader:
        batch = next(loader)
    assert batch.images.frames.shape == (2, 2, SIZE, SIZE, 3)
    assert 0 < batch.masks.mean() < 0.5
    with pytest.raises(InputError, match="there already"):
        write(config)


def test_settings_that_cannot_be():
    for wrong, told in (
        ({"size": 100}, "multiples of 64"),
        ({"people": 0}, "--people must be from 1"),
        ({"workers": -1}, "--workers"),
    ):
        with pytest.raises(InputError, match=told):
            DatasetConfig(**wrong)
