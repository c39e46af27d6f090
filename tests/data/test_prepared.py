import json
import pickle
import subprocess
import sys

import numpy as np
import pytest

from stableanimator_jax.data.clip_format import decode_images
from stableanimator_jax.data.clip_source import Clip, ClipSource
from stableanimator_jax.data.prepared import PreparedClips
from stableanimator_jax.errors import InputError
from stableanimator_jax.preparation.dataset_writer import TRAIN, VALIDATION, write_dataset
from stableanimator_jax.preparation.staging import StagedClip, write_clip
from tests.data.test_clip_format import record
from tests.preparation.training_videos import tree_bytes

BUCKET = "64x128"


def staged(folder, count, offset=0):
    clips = []
    for i in range(offset, offset + count):
        fields = {**vars(record(frames=5, seed=i)), "name": f"video {i}"}
        file = folder / f"{i}.npz"
        write_clip(file, type(record())(**fields))
        clips.append(StagedClip(file, f"video {i}", BUCKET, 5))
    return clips


@pytest.fixture(scope="module")
def dataset(tmp_path_factory):
    folder = tmp_path_factory.mktemp("dataset")
    splits = {TRAIN: staged(folder, 4), VALIDATION: staged(folder, 1, 4)}
    root = folder / "root"
    root.mkdir()
    write_dataset(root / BUCKET, BUCKET, splits)
    (root / "dataset.json").write_text(json.dumps({"buckets": {BUCKET: {TRAIN: 4, VALIDATION: 1}}}))
    return root


def test_every_clip_is_there_once_by_random_access(dataset):
    source: ClipSource = PreparedClips(dataset, TRAIN, BUCKET)
    names = [source[i].name for i in (3, 0, 2, 1)]
    assert sorted(names) == [f"video {i}" for i in range(4)]
    assert len(PreparedClips(dataset, VALIDATION, BUCKET)) == 1
    for i in (-1, 4):
        with pytest.raises(IndexError):
            source[i]


def test_chosen_frames_are_decoded_with_skeletons_masks_and_embeddings(dataset):
    source = PreparedClips(dataset, TRAIN, BUCKET)
    clip: Clip = source[0]
    number = int(clip.name.split()[1])
    truth = record(frames=5, seed=number)
    truth.boxes[:] = [[3, 5, 10, 20]] * 5
    assert (clip.length, clip.size) == (5, (64, 128))
    assert clip.has_face.tolist() == [True] * 5
    source[0].record.boxes[:] = 0  # a record of its own
    clip = source[0]
    clip.record.boxes[:] = truth.boxes  # type: ignore[attr-defined]  # PreparedClip's
    chosen = clip.read([4, 1, 1])
    frames, poses = (decode_images([images[i] for i in (4, 1, 1)]) for images in (truth.frames, truth.poses))
    assert frames.shape == poses.shape == (3, 128, 64, 3)
    assert np.array_equal(chosen.images.frames[0], frames[:2])
    assert np.array_equal(chosen.images.reference[0], frames[2])
    assert np.array_equal(chosen.poses[0], poses[:2])
    assert np.array_equal(chosen.id_embedding, truth.embeddings[[1]])
    inside = np.zeros((128, 64), bool)
    inside[5:21, 3:11] = True
    masks = clip.read_masks([4, 1])
    assert np.array_equal(masks[0], inside)
    assert masks[1].all()  # no face: all ones
    assert np.array_equal(chosen.masks[0], masks[:, ::8, ::8])


def test_a_source_is_small_to_pickle_and_opens_again(dataset):
    source = PreparedClips(dataset, TRAIN, BUCKET)
    first = source[0].name
    data = pickle.dumps(source)
    assert len(data) < 2000
    assert pickle.loads(data)[0].name == first


def test_the_same_clips_give_the_same_bytes(dataset, tmp_path):
    splits = {TRAIN: staged(tmp_path, 4)[::-1], VALIDATION: staged(tmp_path, 1, 4)}
    write_dataset(tmp_path / BUCKET, BUCKET, splits)
    assert tree_bytes(tmp_path / BUCKET) == tree_bytes(dataset / BUCKET)


def test_training_needs_no_tensorflow(dataset):
    code = f"""
import sys, pathlib
from stableanimator_jax.data.prepared import PreparedClips
clip = PreparedClips(pathlib.Path({str(dataset)!r}), "train", "{BUCKET}")[1]
print(clip.read_frames([0]).shape, "tensorflow" in sys.modules)
"""
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True)
    assert done.stdout.strip() == "(1, 128, 64, 3) False", done.stderr


@pytest.mark.parametrize(
    ("split", "bucket", "message"),
    [("test", BUCKET, "no clips in the split 'test'"), (TRAIN, "512x512", f"no bucket 512x512, only {BUCKET}")],
)
def test_what_is_not_there_is_told(dataset, split, bucket, message):
    with pytest.raises(InputError, match=message):
        PreparedClips(dataset, split, bucket)


def test_a_folder_without_a_dataset_is_told(tmp_path):
    with pytest.raises(InputError, match=r"holds no prepared dataset: there is no dataset\.json"):
        PreparedClips(tmp_path, TRAIN, BUCKET)


def test_a_damaged_dataset_is_told(dataset, tmp_path):
    import shutil

    copy = tmp_path / "copy"
    shutil.copytree(dataset, copy)
    (shard,) = (copy / BUCKET).glob("*train*")
    shard.write_bytes(shard.read_bytes()[: shard.stat().st_size // 2])
    with pytest.raises(InputError, match="clip 0 cannot be read"):
        PreparedClips(copy, TRAIN, BUCKET)[0]
    shard.write_text("version https://git-lfs.github.com/spec/v1\noid sha256:ab\nsize 12\n")
    with pytest.raises(InputError, match=r"train.* is only a Git LFS pointer to the file: run `git lfs pull`"):
        PreparedClips(copy, TRAIN, BUCKET)
    shutil.rmtree(copy / BUCKET)
    with pytest.raises(InputError, match=r"cannot read dataset .*: No such file or directory"):
        PreparedClips(copy, TRAIN, BUCKET)
