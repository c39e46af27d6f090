"""The measures of the drawn world's study against values known by hand, and what its intervals can tell."""

import numpy as np
import pytest
import scipy.linalg
import scipy.stats

from examples.drawn_world.clips import TEST_SEEDS, draw_clip, draw_moment
from examples.drawn_world.intervals import COMPONENTS, Estimate, draw_pairs, frechet, mean
from examples.drawn_world.metrics import (
    iou,
    label_parts,
    picture_quality,
    pose_fidelity,
    similarity,
    wall_flicker,
)
from examples.drawn_world.pairs import draw_pair, palette, unseen_pairs
from examples.drawn_world.people import make_person
from stableanimator_jax.data.face_track import FaceTrack


@pytest.fixture(scope="module")
def drawn():
    return [draw_pair(pair, frames=4, stride=3, size=64) for pair in unseen_pairs(4)]


def test_pairs_are_always_the_same_and_have_nothing_in_common():
    pairs = unseen_pairs(120)
    assert pairs == unseen_pairs(120)
    assert pairs[:16] == unseen_pairs(16)
    assert {p.person for p in pairs} == set(range(TEST_SEEDS, TEST_SEEDS + 120))
    motions = [p.reference_motion for p in pairs] + [p.driving_motion for p in pairs]
    assert len(set(motions)) == 240
    assert len({p.wall for p in pairs}) == 120
    assert len({p.reference_frame for p in pairs}) > 30


def test_no_training_draws_their_motions_and_walls():
    class Asked:
        """Remembers the largest number that it could have drawn."""

        largest = 0

        def integers(self, high):
            self.largest = max(self.largest, high - 1)
            return 0

    draw_moment(0, asked := Asked(), 1, 16)  # the dataset's own seeds are those of its people
    seeds = [seed for p in unseen_pairs(120) for seed in (p.reference_motion, p.driving_motion, p.wall)]
    assert min(seeds) > max(asked.largest, TEST_SEEDS)


def test_truth_and_reference_are_the_same_person_before_the_same_wall(drawn):
    for found in drawn:
        pair = found.pair
        truth = draw_clip(pair.person, pair.driving_motion, pair.wall, 10, 64)
        np.testing.assert_array_equal(found.truth, truth.frames[::3])
        moments = draw_clip(pair.person, pair.reference_motion, pair.wall, 64, 64)
        np.testing.assert_array_equal(found.reference, moments.frames[pair.reference_frame])
        np.testing.assert_array_equal(found.reference_box, moments.faces.boxes[pair.reference_frame])
        for picture in (found.reference, *found.truth):
            assert (picture == found.wall).all(axis=-1).mean() > 0.2


def test_every_pair_has_poses_and_faces(drawn):
    for found in drawn:
        assert found.poses.shape == found.truth.shape == (4, 64, 64, 3)
        assert found.poses.any(axis=(1, 2, 3)).all()
        assert found.faces.valid.all()
        widths = found.faces.boxes[:, 2] - found.faces.boxes[:, 0]
        assert (widths > 8).all()
        assert found.reference_box[2] - found.reference_box[0] > 8


def test_the_palette_has_light_and_shade():
    person = make_person(TEST_SEEDS)
    colours = palette(person)
    assert colours["skin"][0] == person.skin
    assert sum(colours["skin"][1]) < sum(person.skin)
    assert {person.shirt_colour, person.shirt_second} <= set(colours["shirt"])


def test_similarity_is_the_mean_cosine_over_frames_with_a_face():
    reference = np.array([2.0, 0.0])
    faces = np.array([[5.0, 0.0], [0.0, 1.0], [-1.0, 0.0]])
    assert similarity(faces, reference, np.array([True, True, False])) == pytest.approx(0.5)
    assert similarity(faces, reference, np.array([True, True, True])) == pytest.approx(0.0)


def test_picture_quality_of_a_known_error():
    truth = np.full((3, 16, 16, 3), 100, np.uint8)
    box = np.array([[4, 4, 7, 7]] * 3, np.float32)
    faces = FaceTrack(box, None, np.array([True, True, False]))
    made = truth.copy()
    made[:, 4:8, 4:8] += 10  # the whole face, a sixteenth of the picture
    found = picture_quality(made, truth, faces)
    assert found["l1"] == pytest.approx(10 / 255 / 16)
    assert found["face_psnr"] == pytest.approx(20 * np.log10(25.5))
    assert found["psnr"] == pytest.approx(20 * np.log10(25.5) + 10 * np.log10(16))
    assert found["ssim"] < 1


def test_a_noisier_picture_is_worse_in_everything(drawn):
    random = np.random.default_rng(0)
    noise = random.normal(size=drawn[0].truth.shape)
    found = []
    for strength in (5, 30):
        made = np.clip(drawn[0].truth + strength * noise, 0, 255).astype(np.uint8)
        found.append(picture_quality(made, drawn[0].truth, drawn[0].faces))
    better, worse = found
    assert better["l1"] < worse["l1"]
    assert all(better[name] > worse[name] for name in ("psnr", "ssim", "face_psnr"))


def test_parts_are_told_by_colour():
    wall = np.zeros((4, 4, 3), np.uint8)
    wall[:, 2:] = (0, 0, 250)
    frame = wall.copy()
    frame[0, 0], frame[1, 0], frame[2, 3] = (250, 10, 5), (10, 240, 10), (190, 5, 9)
    frame[3, 3] = (10, 10, 235)  # the wall, not quite
    parts = label_parts(frame[None], {"skin": [(255, 0, 0), (200, 0, 0)], "shirt": [(0, 255, 0)]}, wall)
    assert np.argwhere(parts["skin"][0]).tolist() == [[0, 0], [2, 3]]
    assert np.argwhere(parts["shirt"][0]).tolist() == [[1, 0]]
    assert parts["person"].sum() == 3


def test_iou_of_known_masks():
    a, b = np.zeros((2, 3, 4, 4), bool)
    a[0, :2], b[0, 1:3] = True, True  # two rows each, one in common
    a[1], b[1, 0] = True, True
    assert iou(a, b) == pytest.approx((1 / 3 + 1 / 4 + 1) / 3)  # nothing in the last frame of either
    assert iou(a, a) == 1


def test_the_truth_follows_its_pose_and_another_moment_does_not():
    pair = draw_pair(unseen_pairs(1)[0], frames=8, stride=6, size=64)
    colours = palette(make_person(pair.pair.person))
    found = pose_fidelity(pair.truth, pair.truth, colours, pair.wall)
    assert found["skin_iou"] == found["person_iou"] == 1
    assert found["skin_iou_chance"] < 0.8
    assert found["person_iou_chance"] < 0.95
    moved = pose_fidelity(np.roll(pair.truth, 4, axis=0), pair.truth, colours, pair.wall)
    assert moved["skin_iou"] == pytest.approx(found["skin_iou_chance"])
    assert moved["skin_iou_chance"] == 1


def test_frechet_over_pairs_is_that_of_all_frames_and_of_each_resample():
    random = np.random.default_rng(2)
    true, made = random.normal(size=(2, 7, 5, 4)) + np.array([0, 100])[:, None, None, None]
    drawn = draw_pairs(7, 120)
    found = frechet(true, made, drawn)

    def directly(rows) -> float:
        some = [features[rows].reshape(-1, 4) for features in (true, made)]
        (m, c), (m2, c2) = ((s.mean(axis=0), np.cov(s.T)) for s in some)
        return np.square(m - m2).sum() + np.trace(c + c2 - 2 * np.real(scipy.linalg.sqrtm(c @ c2)))

    assert found.value == pytest.approx(directly(np.arange(7)))
    expected = np.array([directly(rows) for rows in drawn])
    np.testing.assert_allclose(found.resampled, expected - expected.mean() + found.value)
    assert frechet(true, true, drawn).value == pytest.approx(0, abs=1e-9)


def test_frechet_looks_at_the_components_in_which_the_truth_spreads():
    random = np.random.default_rng(6)
    drawn = draw_pairs(9, 100)
    dim = COMPONENTS + 4
    spread = np.array([10.0] * COMPONENTS + [1e-3] * 4)
    rotation = scipy.stats.special_ortho_group.rvs(dim, random_state=0)
    true, made = random.normal(size=(2, 9, 6, dim)) * spread
    here = frechet(true @ rotation, made @ rotation, drawn)
    assert here.value == pytest.approx(frechet(true[..., :COMPONENTS], made[..., :COMPONENTS], drawn).value, rel=1e-3)
    moved = made + 5.0 * (np.arange(dim) == dim - 1)  # where the truth has next to nothing
    assert frechet(true @ rotation, moved @ rotation, drawn).value == pytest.approx(here.value, rel=1e-2)


def test_intervals_cover_the_true_mean_about_as_often_as_they_say():
    random = np.random.default_rng(3)
    drawn = draw_pairs(60, 400)
    covered = 0
    for _ in range(300):
        low, high = mean(random.exponential(size=60), drawn).interval
        covered += low <= 1 <= high
    assert 0.89 < covered / 300 < 0.98


def test_a_small_difference_shows_in_pairs_that_differ_much():
    random = np.random.default_rng(4)
    drawn = draw_pairs(100, 1000)
    difficulty = random.normal(size=100)
    one, other = difficulty + 0.05, difficulty + random.normal(0, 0.1, 100)
    better, worse = mean(one, drawn), mean(other, drawn)
    assert better.overlaps(worse)
    assert (better - worse).verdict == "higher"
    assert (worse - better).verdict == "lower"
    assert (better - worse).value == pytest.approx(np.mean(one - other))


def test_no_difference_is_seldom_one():
    random = np.random.default_rng(5)
    drawn = draw_pairs(60, 400)
    verdicts = []
    for _ in range(200):
        one, other = random.normal(size=(2, 60))
        verdicts.append((mean(one, drawn) - mean(other, drawn)).verdict)
    assert verdicts.count("open") / 200 > 0.88


def test_intervals_that_do_not_overlap():
    spread = np.linspace(-1, 1, 101)
    assert not Estimate(0.0, spread).overlaps(Estimate(3.0, 3 + spread))
    assert Estimate(0.0, spread).overlaps(Estimate(1.0, 1 + spread))


def test_the_wall_flickers_where_nobody_is():
    wall = np.full((4, 4, 3), 100, np.uint8)
    truth = np.stack([wall] * 3)
    truth[0, 0] = truth[2, 1] = 7  # somebody, in another row of the first and of the last frame
    assert wall_flicker(truth, truth, wall) == 0
    made = truth.copy()
    made[1] = 103  # 3 levels up, then down, in the three rows that are empty before and after
    assert wall_flicker(made, truth, wall) == pytest.approx(3)
    made[1, 0] = 250  # a row that counts only from the second frame to the third
    assert wall_flicker(made, truth, wall) == pytest.approx((12 * 3 + 8 * 3 + 4 * 150) / 24)
