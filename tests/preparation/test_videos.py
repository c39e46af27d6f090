"""One video to clips, with stand-in models that really run."""

from dataclasses import replace

import numpy as np
import pytest
from PIL import Image

from stableanimator_jax.data.clip_format import bucket_size, decode_images
from stableanimator_jax.data.face_track import Face
from stableanimator_jax.errors import InputError
from stableanimator_jax.perception.people import People
from stableanimator_jax.perception.tracking import Track
from stableanimator_jax.preparation import filters
from stableanimator_jax.preparation.config import ClipConfig, ModelFiles, nearest_bucket
from stableanimator_jax.preparation.filters import FilterConfig
from stableanimator_jax.preparation.perceiving import Perception, Seen
from stableanimator_jax.preparation.sources import Source
from stableanimator_jax.preparation.videos import DroppedClip, KeptClip, _faces_of, prepare_video
from tests.data.clips import encode
from tests.perception.standin_poses import SHARES
from tests.preparation.training_videos import SIZE, models, scene, write_frames, write_video

CLIPS = ClipConfig(buckets=("192x192",), min_frames=17, max_frames=40)
SHARP = FilterConfig(sharpness=300.0)  # the stand-in person alone is sharper than the default asks for


@pytest.fixture(scope="module")
def perceive(tmp_path_factory):
    return Perception(ModelFiles(**models(tmp_path_factory.mktemp("models"))))


def sees_nothing(frames, *, people, faces):
    return [Seen(People(np.zeros((0, 4)), np.zeros((0, 134, 2)), np.zeros((0, 134)))) for _ in frames]


def prepare(path, perceive, clips=CLIPS, config=SHARP):
    return list(prepare_video(Source("here/" + path.name, path), clips, config, perceive))


def one(path, perceive, **settings):
    (clip,) = prepare(path, perceive, **settings)
    return clip


def test_a_good_video_is_one_clip_with_all_that_is_in_it(tmp_path, perceive):
    frames = list(scene(20))
    clip = one(write_video(tmp_path / "a.mkv", iter(frames)), perceive)
    assert isinstance(clip, KeptClip)
    record = clip.record
    assert (clip.bucket, record.name, record.source) == ("192x192", "here/a.mkv-000000", "here/a.mkv")
    assert record.fps == 12
    assert np.abs(decode_images(record.frames).astype(int) - np.stack(frames)).mean() < 6
    # The face: where the red cell is.
    assert record.valid.all()
    middle = (record.boxes[:, :2] + record.boxes[:, 2:]) / 2
    assert np.abs(middle - [139.2, 14.4]).max() < 2
    assert (record.boxes == np.round(record.boxes)).all()
    assert record.boxes.min() >= 0
    assert record.embeddings.any(axis=1).all()
    # The nose's keypoint, which is COCO's first, moves with the person; the skeleton is drawn from it.
    left = 20 + np.array([round(abs(i % 24 - 12)) for i in range(20)])
    expected = np.stack([left + 60 * SHARES[0, 0], np.full(20, 50 + 120 * SHARES[0, 1])], axis=1)
    assert np.abs(record.points[:, 0] - expected).max() < 1.5
    drawn = decode_images(record.poses)
    assert drawn.shape == (20, SIZE, SIZE, 3)
    assert all(pose.any() for pose in drawn)


@pytest.mark.parametrize(
    ("reason", "changes"),
    [
        (filters.NO_PERSON, {"person": False}),
        (filters.NO_FACE, {"face": False}),
        (filters.SEVERAL_PEOPLE, {"second": True}),
        (filters.LITTLE_MOTION, {"step": 0}),
        (filters.BLURRED, {"sharp": False}),
        (filters.MOVING_BACKGROUND, {"pan": 4}),
    ],
)
def test_every_filter_drops_what_it_is_for(tmp_path, perceive, reason, changes):
    clip = one(write_video(tmp_path / "a.mkv", scene(17, **changes)), perceive)
    assert isinstance(clip, DroppedClip)
    assert clip.reasons == [reason]
    assert (clip.first_frame, clip.frames) == (0, 17)
    assert decode_images([clip.picture]).shape == (1, SIZE, SIZE, 3)


def test_the_picture_of_a_dropped_clip_shows_who_was_found(tmp_path, perceive):
    clip = one(write_video(tmp_path / "a.mkv", scene(20, second=True)), perceive)
    assert isinstance(clip, DroppedClip)
    (picture,) = decode_images([clip.picture]).astype(int)
    for left in (22, 120):  # of each person, whose left side is blue, and green at its lower end
        assert np.abs(picture[120:150, left - 2 : left + 3] - [0, 0, 255]).max(axis=-1).min() < 60
    green = np.abs(picture - [0, 255, 0]).max(axis=-1) < 90
    assert green[:50, 100:].any()


def test_a_video_that_is_too_short_is_dropped(tmp_path, perceive):
    clip = one(write_video(tmp_path / "a.mkv", scene(16)), perceive)
    assert isinstance(clip, DroppedClip)
    assert clip.reasons == [filters.TOO_SHORT]


def test_shots_are_cut_apart_and_short_ones_dropped(tmp_path, perceive):
    def frames():
        yield from scene(18)
        yield from scene(5, shade=100, seed=1, person=False)
        yield from scene(17, seed=2)

    clips = prepare(write_video(tmp_path / "a.mkv", frames()), perceive)
    assert [type(clip) for clip in clips] == [KeptClip, DroppedClip, KeptClip]
    first, _, last = clips
    assert isinstance(first, KeptClip)
    assert isinstance(last, KeptClip)
    assert (len(first.record.frames), len(last.record.frames)) == (18, 17)
    assert (last.record.first_frame, last.record.name) == (23, "here/a.mkv-000023")


@pytest.mark.parametrize(("frames", "lengths"), [(40, [40]), (41, [21, 20]), (57, [40, 17]), (100, [40, 40, 20])])
def test_long_shots_are_split_without_a_part_that_is_too_short(tmp_path, frames, lengths):
    still = FilterConfig(person=0, face=0, sharpness=0, motion=0)
    source = write_video(tmp_path / "a.mkv", scene(frames, person=False, face=False))
    clips = prepare(source, sees_nothing, config=still)
    assert [len(clip.record.frames) for clip in clips] == lengths
    assert [clip.record.first_frame for clip in clips] == np.cumsum([0, *lengths[:-1]]).tolist()


def test_a_frame_rate_that_is_not_stated_is_measured_and_told(tmp_path):
    times = [36, 73, 105, 141, 172, 207, 240, 272]  # as a browser records: nothing but milliseconds
    path = encode(tmp_path / "a.mkv", list(scene(8, step=0)), rate=1000, times=[0, *times[:-1]])
    note, clip = prepare(path, sees_nothing)
    assert isinstance(note, str)
    assert "by the times of its frames it has about 29" in note
    assert isinstance(clip, DroppedClip)
    assert clip.frames == 8
    (clip,) = prepare(path, sees_nothing, replace(CLIPS, fps=10.0))
    assert isinstance(clip, DroppedClip)
    assert clip.frames == 3


def test_buckets_are_chosen_by_aspect():
    buckets = ("512x512", "576x1024")
    sizes = {(1920, 1080): 0, (640, 640): 0, (1080, 1920): 1, (600, 800): 0, (600, 850): 1, (100, 9000): 1}
    assert {size: buckets.index(nearest_bucket(*size, buckets)) for size in sizes} == sizes
    assert bucket_size("576x1024") == (576, 1024)


def test_a_wide_video_is_cropped_to_its_middle(tmp_path, perceive):
    wide = np.zeros((64, 192, 3), np.uint8)
    wide[:, 64:128] = 200
    folder = write_frames(tmp_path / "clip" / "images", iter([wide] * 17)).parent
    off = FilterConfig(person=0, face=0, sharpness=0, motion=0)
    clip = one(folder, perceive, clips=ClipConfig(buckets=("64x64",), min_frames=17, max_frames=40), config=off)
    assert isinstance(clip, KeptClip)
    assert decode_images(clip.record.frames).min() > 190


def test_what_a_published_layout_folder_has_is_kept(tmp_path):
    folder = write_frames(tmp_path / "clip" / "images", scene(17), first=3).parent
    poses = [np.full((SIZE, SIZE, 3), i, np.uint8) for i in range(17)]
    write_frames(folder / "poses", iter(poses), first=3)
    mask = np.zeros((SIZE, SIZE, 3), np.uint8)
    mask[10:31, 50:101] = 255
    mask[100:105, 5:9] = 255  # a smaller face
    write_frames(folder / "faces", iter([mask] * 16), first=3)  # the last image has none
    embeddings = np.random.default_rng(0).normal(size=(17, 512)).astype(np.float32)
    np.save(folder / "embeddings.npy", embeddings)

    clip = one(folder, Perception(ModelFiles()))  # no model is needed
    assert isinstance(clip, KeptClip)
    record = clip.record
    assert np.array_equal(decode_images(record.poses), np.stack(poses))
    assert np.array_equal(record.embeddings, embeddings)
    assert record.boxes[0].tolist() == [50, 10, 100, 30]
    assert record.valid.tolist() == [True] * 16 + [False]
    assert not record.points.any()
    assert record.fps == 0


def test_what_a_folder_lacks_is_found(tmp_path, perceive):
    folder = write_frames(tmp_path / "clip" / "images", scene(17)).parent
    from_images = one(folder, perceive)
    from_video = one(write_video(tmp_path / "a.mkv", scene(17)), perceive)
    assert isinstance(from_images, KeptClip)
    assert isinstance(from_video, KeptClip)
    assert np.array_equal(from_images.record.points, from_video.record.points)
    assert list(from_images.record.frames) == list(from_video.record.frames)
    with pytest.raises(InputError, match="give --dwpose DIR"):
        one(folder, Perception(ModelFiles()))


def test_frame_rates_can_be_changed(tmp_path, perceive):
    clips = ClipConfig(buckets=("192x192",), fps=6, min_frames=17, max_frames=40)
    clip = one(write_video(tmp_path / "a.mkv", scene(36), fps=12), perceive, clips=clips)
    assert isinstance(clip, KeptClip)
    assert (clip.record.fps, len(clip.record.frames)) == (6, 18)


def change_size(folder):
    Image.fromarray(np.zeros((20, 30, 3), np.uint8)).save(folder / "images" / "frame_2.png")


def few_poses(folder):
    write_frames(folder / "poses", scene(3))


def large_masks(folder):
    write_frames(folder / "faces", iter([np.zeros((300, 300, 3), np.uint8)]))


def bad_embeddings(folder):
    np.save(folder / "embeddings.npy", np.zeros((4, 512), np.float32))


def no_embeddings(folder):
    (folder / "embeddings.npy").write_bytes(b"hello")


@pytest.mark.parametrize(
    ("spoil", "message"),
    [
        (change_size, "image .*frame_2.png is 30x20 pixels, but frame_0.png of the images is 192x192"),
        (few_poses, "there are 3, but 17 images"),
        (large_masks, "face mask .*frame_0.png is 300x300 pixels, but the images are 192x192"),
        (bad_embeddings, r"must be \[17, 512\] finite numbers, not float32 \[4, 512\]"),
        (no_embeddings, "cannot be read as a plain .npy file"),
    ],
)
def test_a_folder_whose_parts_do_not_fit_is_refused(tmp_path, perceive, spoil, message):
    folder = write_frames(tmp_path / "clip" / "images", scene(17)).parent
    spoil(folder)
    with pytest.raises(InputError, match=message) as error:
        one(folder, perceive)
    assert "\n" not in str(error.value)


def test_the_face_is_the_followed_persons():
    """A passer-by's face, larger and nearer, counts as another's; one face of one person is theirs in any case."""
    points, scores = np.zeros((3, 134, 2), np.float32), np.full((3, 134), 0.9, np.float32)
    points[:, 24:92] = [100, 50] + 20 * np.random.default_rng(0).uniform(-1, 1, (68, 2))
    seen, unsure = np.ones(3, bool), np.zeros(3, bool)
    track = Track(points, scores, seen, unsure, [], np.array([1, 1, 0]), [])
    kps = np.zeros((5, 2), np.float32)
    own = Face(np.float32([85, 35, 115, 65]), kps, score=0.9)
    other = Face(np.float32([200, 30, 260, 90]), kps, score=0.9)
    assert _faces_of(track, [[other, own], [other], [other]]) == [own, None, other]
    assert _faces_of(None, [[other, own], [], [own]]) == [other, None, own]
