"""The published data layout: what is read, and every mistake told when the list is opened."""

import pickle
from itertools import islice
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from stableanimator_jax.data.images import fit
from stableanimator_jax.data.loader import LoaderConfig, make_loader
from stableanimator_jax.data.published_layout import PublishedLayout
from stableanimator_jax.errors import InputError
from tests.data.published_folders import image_of, make_folder, save

SIZE = (24, 16)


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    make_folder(tmp_path / "rec" / "a", 6)
    (tmp_path / "list.txt").write_text("rec/a\n")
    return tmp_path / "rec" / "a"


def opened(folder: Path, size=SIZE, mode="crop", frames=4) -> PublishedLayout:
    return PublishedLayout(folder.parents[1] / "list.txt", size, mode, frames=frames)


def test_frames_at_the_buckets_size_are_the_files(folder):
    clips = opened(folder)
    assert len(clips) == 1
    clip = clips[0]
    assert (clip.name, clip.length, clip.size) == ("rec/a", 6, SIZE)
    np.testing.assert_array_equal(clip.has_face, [False] + [True] * 5)
    found, masks = clip.read([5, 0, 5]), clip.read_masks([5, 0])
    for i, number in enumerate([5, 0]):
        np.testing.assert_array_equal(found.images.frames[0, i], image_of(folder, "images", number))
        np.testing.assert_array_equal(found.poses[0, i], image_of(folder, "poses", number))
        np.testing.assert_array_equal(masks[i], image_of(folder, "faces", number) > 0)
    np.testing.assert_array_equal(found.masks[0], masks[:, ::8, ::8])
    np.testing.assert_array_equal(found.images.reference[0], image_of(folder, "images", 5))
    np.testing.assert_array_equal(found.id_embedding, np.full((1, 512), 5))
    assert (masks.dtype, found.id_embedding.dtype) == (bool, np.float32)


@pytest.mark.parametrize("mode", ["crop", "pad"])
def test_frames_of_another_size_are_fitted(folder, mode):
    clip = opened(folder, (16, 32), mode)[0]
    image, pose = image_of(folder, "images", 2), image_of(folder, "poses", 2)
    np.testing.assert_array_equal(clip.read_frames([2])[0], fit(image, 16, 32, mode, filter="lanczos"))
    np.testing.assert_array_equal(clip.read_poses([2])[0], fit(pose, 16, 32, mode, filter="bicubic"))
    mask = np.repeat(image_of(folder, "faces", 2)[..., None], 3, -1)
    area = fit(mask, 16, 32, mode, filter="bicubic").mean() / 255
    found = clip.read_masks([2])
    assert found.shape == (1, 32, 16)
    assert found.mean() == pytest.approx(area, abs=0.03)


def test_a_mask_grows_by_the_nearest_pixel(folder):
    found = opened(folder, (48, 32))[0].read_masks([1])[0]
    mask = image_of(folder, "faces", 1) > 0
    np.testing.assert_array_equal(found, mask.repeat(2, 0).repeat(2, 1))


def test_a_missing_mask_counts_as_white_all_over_and_so_does_a_white_one(folder):
    (folder / "faces" / "frame_3.png").unlink()
    save(folder / "faces" / "frame_4.png", np.full((16, 24), 255, np.uint8))
    found = opened(folder, (16, 32), "pad")[0].read_masks([2, 3, 4])
    assert found.all(axis=(1, 2)).tolist() == [False, True, True]
    for mask in (folder / "faces").iterdir():
        mask.unlink()
    (folder / "faces").rmdir()
    assert opened(folder)[0].read_masks([0, 5]).all()


def test_numbers_may_begin_anywhere_and_have_zeros(tmp_path):
    make_folder(tmp_path / "rec" / "a", 5, first=9)
    (tmp_path / "rec" / "a" / "images" / "frame_9.png").rename(tmp_path / "rec" / "a" / "images" / "frame_0009.png")
    (tmp_path / "list.txt").write_text("rec/a\n")
    clip = opened(tmp_path / "rec" / "a")[0]
    np.testing.assert_array_equal(clip.read_frames([1])[0], image_of(tmp_path / "rec" / "a", "images", 10))
    np.testing.assert_array_equal(clip.read_masks([1, 0])[1], image_of(tmp_path / "rec" / "a", "faces", 9) > 0)


def test_lists_may_hold_absolute_paths_empty_lines_and_a_byte_order_mark(folder, tmp_path):
    make_folder(tmp_path / "b c", 5)
    (tmp_path / "list.txt").write_text(f"\ufeffrec/a/\r\n\r\n  {tmp_path / 'b c'}\r\n", encoding="utf-8")
    clips = opened(folder)
    assert [clips[i].name for i in range(len(clips))] == ["rec/a/", str(tmp_path / "b c")]


def test_the_loader_trains_on_them(folder, tmp_path):
    make_folder(tmp_path / "b", 9, seed=1)
    (tmp_path / "list.txt").write_text("rec/a\nb\n")
    config = LoaderConfig(batch_size=2, frames=4, stride=2, workers=1)
    with make_loader([opened(folder)], config) as loader:
        found = list(islice(loader, 2))
    assert [sorted(batch.names) for batch in found] == [["b", "rec/a"]] * 2
    assert found[0].images.frames.shape == (2, 4, 16, 24, 3)
    assert (found[0].id_embedding[:, 0] > 0).all()


def test_a_source_pickles_without_its_images(folder):
    clips = opened(folder)
    assert len(pickle.dumps(clips)) < 1000
    np.testing.assert_array_equal(pickle.loads(pickle.dumps(clips))[0].read_frames([1]), clips[0].read_frames([1]))


def drop_image(folder: Path) -> None:
    (folder / "images" / "frame_5.png").unlink()


def drop_images(folder: Path) -> None:
    drop_image(folder)
    for kind in ("images", "poses", "faces"):
        for number in (4, 5):
            (folder / kind / f"frame_{number}.png").unlink(missing_ok=True)


def shift_poses(folder: Path) -> None:
    (folder / "poses" / "frame_0.png").rename(folder / "poses" / "frame_6.png")


def gap(folder: Path) -> None:
    (folder / "images" / "frame_2.png").unlink()


def extra_mask(folder: Path) -> None:
    (folder / "faces" / "frame_5.png").rename(folder / "faces" / "frame_6.png")


def no_embeddings(folder: Path) -> None:
    (folder / "embeddings.npy").unlink()


def few_embeddings(folder: Path) -> None:
    np.save(folder / "embeddings.npy", np.ones((5, 512), np.float32))


def whole_embeddings(folder: Path) -> None:
    np.save(folder / "embeddings.npy", np.ones((6, 512), np.int32))


def broken_embeddings(folder: Path) -> None:
    (folder / "embeddings.npy").write_bytes(b"not one")


def empty_embeddings(folder: Path) -> None:
    (folder / "embeddings.npy").write_bytes(b"")


def pickled_embeddings(folder: Path) -> None:
    np.save(folder / "embeddings.npy", np.array([{}]), allow_pickle=True)


def other_aspect(folder: Path) -> None:
    save(folder / "poses" / "frame_0.png", np.zeros((16, 16, 3), np.uint8))


def broken_image(folder: Path) -> None:
    (folder / "images" / "frame_0.png").write_bytes(b"not an image")


def empty_pose(folder: Path) -> None:
    (folder / "poses" / "frame_0.png").write_bytes(b"")


def no_poses(folder: Path) -> None:
    (folder / "poses").rename(folder / "posen")


@pytest.mark.parametrize(
    ("mistake", "message"),
    [
        (drop_image, r"rec/a has 5 images, but 6 poses"),
        (drop_images, r"rec/a has 4 frames, but 5 are needed; leave it out"),
        (shift_poses, r"images begin with frame_0\.png, but poses with frame_1\.png"),
        (gap, r"images .*: missing frame_2\.png"),
        (extra_mask, r"frame_6\.png belongs to no image: those are frame_0\.png to frame_5\.png"),
        (no_embeddings, r"embeddings\.npy is missing; `stableanimator prepare faces` makes it"),
        (few_embeddings, r"of shape \(5, 512\), but for 6 images it must be \(6, 512\)"),
        (whole_embeddings, r"are not numbers with a fraction"),
        (broken_embeddings, r"embeddings\.npy are not a plain \.npy file"),
        (empty_embeddings, r"embeddings\.npy is empty"),
        (pickled_embeddings, r"embeddings\.npy are not a plain \.npy file"),
        (other_aspect, r"poses/frame_0\.png is 16x16 pixels, but frame_0\.png of .*images is 24x16: another aspect"),
        (broken_image, r"image .*images/frame_0\.png is not an image"),
        (empty_pose, r"image .*poses/frame_0\.png is empty"),
        (no_poses, r"cannot read poses .*poses: No such file"),
    ],
    ids=lambda value: getattr(value, "__name__", ""),
)
def test_a_mistake_shows_when_the_list_is_opened(folder, mistake, message):
    mistake(folder)
    with pytest.raises(InputError, match=message) as error:
        opened(folder)
    assert str(error.value).startswith(f"list of folders {folder.parents[1] / 'list.txt'}: ")
    assert "\n" not in str(error.value)


def test_the_first_few_mistakes_are_told_together(folder, tmp_path):
    (tmp_path / "list.txt").write_text("rec/a\nrec/a/\n" + "".join(f"no/{i}\n" for i in range(6)))
    with pytest.raises(InputError) as error:
        opened(folder)
    told = str(error.value).split(": ", 1)[1].split("; ")
    folders = [f"{tmp_path / 'no' / str(i)} is not a folder" for i in range(4)]
    assert told == ["rec/a/ is in it twice", *folders, "and 2 more folders have problems"]


def test_lists_that_are_none(tmp_path):
    cases = {
        "missing.txt": (None, "does not exist"),
        "empty.txt": (b"", "is empty"),
        "blank.txt": (b" \n\n", "names no folder"),
        "binary.txt": (bytes(range(128, 256)), "not a text file"),
        "null.txt": (b"a\0b\n", "is not a folder"),
    }
    for name, (content, message) in cases.items():
        if content is not None:
            (tmp_path / name).write_bytes(content)
        with pytest.raises(InputError, match=message):
            PublishedLayout(tmp_path / name, SIZE)


def test_what_shows_only_when_read_is_named_too(folder):
    embeddings = np.ones((6, 512), np.float32)
    embeddings[3, 7] = np.nan
    np.save(folder / "embeddings.npy", embeddings)
    with pytest.raises(InputError, match=r"embeddings\.npy has numbers that are not finite"):
        _ = opened(folder)[0].has_face
    np.save(folder / "embeddings.npy", np.zeros_like(embeddings))
    (folder / "images" / "frame_4.png").write_bytes(b"no image")
    with pytest.raises(InputError, match=r"frame .*images/frame_4\.png is not an image"):
        opened(folder)[0].read([3, 4])


def test_deep_embeddings_are_taken_as_float32(folder):
    np.save(folder / "embeddings.npy", np.full((6, 512), 0.1, np.float64))
    assert opened(folder)[0].read([0, 1]).id_embedding.dtype == np.float32


def test_masks_may_be_colour_images(folder):
    Image.open(folder / "faces" / "frame_1.png").convert("RGB").save(folder / "faces" / "frame_1.png")
    np.testing.assert_array_equal(opened(folder)[0].read_masks([1])[0].sum(), 7 * 8)


def cut_off(path: Path) -> None:
    path.write_bytes(path.read_bytes()[: path.stat().st_size // 2])


def end_of_zeros(path: Path) -> None:
    path.write_bytes(path.read_bytes()[:-20] + bytes(20))


def no_header(path: Path) -> None:
    path.write_bytes(b"no image at all")


@pytest.mark.parametrize("damage", [cut_off, end_of_zeros, no_header], ids=lambda value: value.__name__)
@pytest.mark.parametrize("file", ["images/frame_3.png", "poses/frame_5.png", "faces/frame_1.png"])
def test_a_damaged_folder_among_others_is_known_without_decoding(folder, tmp_path, damage, file):
    make_folder(tmp_path / "b", 6, seed=1)
    (tmp_path / "list.txt").write_text("rec/a\nb\n")
    damage(folder / file)
    clips = opened(folder)
    assert list(clips.damaged) == [0]
    assert str(folder / file) in clips.damaged[0]
    with pytest.raises(InputError, match=Path(file).name):
        _ = clips[0]
    assert clips[1].read_frames([0]).shape == (1, 16, 24, 3)
    with make_loader([clips], LoaderConfig(batch_size=2, frames=4, stride=1)) as loader:
        assert next(loader).names == ("b", "b")
        assert loader.left_out == {(0, 0): clips.damaged[0]}
    with pytest.raises(InputError, match=r"1 of 2 clips cannot be read, and --data\.damaged 0 "):
        make_loader([clips], LoaderConfig(batch_size=2, frames=4, damaged=0))


def test_bytes_after_an_images_end_are_no_damage(folder):
    image = folder / "images" / "frame_2.png"
    image.write_bytes(image.read_bytes() + b"a comment of some program")
    assert not opened(folder).damaged


def test_contents_tell_which_folder_is_another(folder, tmp_path):
    make_folder(tmp_path / "b", 6, seed=1)
    (tmp_path / "list.txt").write_text("rec/a\nb\n")
    before = opened(folder).contents()
    assert list(before) == ["rec/a", "b"]
    rows = np.load(tmp_path / "b" / "embeddings.npy")
    np.save(tmp_path / "b" / "embeddings.npy", rows + 1)  # of the same size
    after = opened(folder).contents()
    assert [name for name in before if before[name] != after[name]] == ["b"]
    (tmp_path / "list.txt").write_text("b\nrec/a\n")
    turned = opened(folder).contents()
    assert turned == after
    assert list(turned) == ["b", "rec/a"]
