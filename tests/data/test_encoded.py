"""Encoded clips give the batches that pixels give, and are refused where they are not what training wants."""

import pickle
import shutil
from dataclasses import replace
from itertools import islice
from pathlib import Path

import jax
import numpy as np
import pytest

from stableanimator_jax.data.clips import Clips, Moments, Pixels, joined
from stableanimator_jax.data.device_batches import DeviceBatches
from stableanimator_jax.data.encoded import ENCODED_FILE, EncodedClips, clip_files, encoded_folder, write_encoding
from stableanimator_jax.data.loader import LoaderConfig, make_loader
from stableanimator_jax.data.published_layout import PublishedClip, PublishedLayout
from stableanimator_jax.errors import InputError
from tests.data.encoded_clips import ENCODING, embedding, moments, opened, write_encoded
from tests.data.published_folders import make_folder

CONFIG = LoaderConfig(seed=3, batch_size=2, frames=4, stride=2)


@pytest.fixture(scope="module")
def made(tmp_path_factory) -> Path:
    """Two lists of folders: three clips, and two of another size."""
    root = tmp_path_factory.mktemp("data")
    for i in range(5):
        make_folder(root / f"{i}", 10 + i, size=(24, 16) if i < 3 else (16, 32), seed=i)
    (root / "wide.txt").write_text("0\n1\n2\n")
    (root / "tall.txt").write_text("3\n4\n")
    for clips in sources(root):
        write_encoded(clips)
    return root


def sources(root: Path) -> list[PublishedLayout]:
    return [
        PublishedLayout(root / "wide.txt", (24, 16), frames=4),
        PublishedLayout(root / "tall.txt", (16, 32), frames=4),
    ]


def encoded(root: Path) -> list[EncodedClips]:
    return [opened(clips) for clips in sources(root)]


@pytest.fixture
def copy(made, tmp_path) -> Path:
    return Path(shutil.copytree(made, tmp_path / "data"))


def require_same(found: Clips[np.ndarray], wanted: Clips[np.ndarray]) -> None:
    """The same frames of the same clips."""
    images, shown = found.images, wanted.images
    assert isinstance(images, Moments)
    assert isinstance(shown, Pixels)
    assert found.names == wanted.names
    np.testing.assert_array_equal(images.frames, moments(shown.frames))
    np.testing.assert_array_equal(images.reference, moments(shown.reference) + 1)
    np.testing.assert_array_equal(images.image_embedding, embedding(shown.reference))
    for name in ("poses", "masks", "id_embedding"):
        np.testing.assert_array_equal(getattr(found, name), getattr(wanted, name))
    assert [x.dtype for x in jax.tree.leaves((images, found.masks))] == [np.float16, np.float16, np.float32, bool]


@pytest.mark.parametrize("workers", [0, 1])
def test_batches_are_those_of_the_pixels(made, workers):
    config = replace(CONFIG, workers=workers)
    with make_loader(sources(made), CONFIG) as pixels, make_loader(encoded(made), config) as loader:
        for found, wanted in islice(zip(loader, pixels, strict=True), 7):
            require_same(found, wanted)


def test_pixels_are_not_decoded(made, monkeypatch):
    monkeypatch.setattr(PublishedClip, "read_frames", lambda *_: pytest.fail("decoded"))
    with make_loader(encoded(made), CONFIG) as loader:
        next(loader)


def test_a_state_of_pixels_is_one_of_encoded_clips_on_any_number_of_hosts(made):
    pixels = make_loader(sources(made), CONFIG)
    pixels.seek(3)
    found = []
    for host in range(2):
        with make_loader(encoded(made), CONFIG, host=host, hosts=2) as loader:
            loader.restore(pixels.state())
            found.append(next(loader))
    require_same(joined(found), pixels.batch_at(3))


def test_they_go_to_the_devices(made):
    loader = make_loader(encoded(made), CONFIG)
    wanted = loader.batch_at(0)
    with DeviceBatches(loader, None) as batches:
        placed = next(batches)
    assert isinstance(placed.images, Moments)
    for x, y in zip(*map(jax.tree.leaves, (placed, wanted.arrays)), strict=True):
        assert isinstance(x, jax.Array)
        assert x.dtype == y.dtype
        np.testing.assert_array_equal(x, y)


def test_chosen_frames_in_any_order(made):
    source = encoded(made)[0]
    clip = pickle.loads(pickle.dumps(source))[1]
    assert (clip.name, clip.length, clip.size, len(source)) == ("1", 11, (24, 16), 3)
    for indices in ([9, 2, 2], [2, 2, 9]):
        require_same(clip.read(indices), sources(made)[0][1].read(indices))
    np.testing.assert_array_equal(clip.has_face, np.arange(11) > 0)


def test_encoded_clips_are_not_mirrored(made):
    with pytest.raises(InputError, match="cannot be mirrored"):
        make_loader(encoded(made), replace(CONFIG, horizontal_flip=True))


def first_file(root: Path) -> Path:
    clips = sources(root)[0]
    return encoded_folder(clips) / clip_files(clips)[0]


def another_encoding(root: Path, **changes) -> None:
    write_encoding(root / "wide.encoded" / ENCODED_FILE, replace(ENCODING, **changes), {})


def text(root: Path, text: str) -> None:
    (root / "wide.encoded" / ENCODED_FILE).write_text(text)


REFUSED = {
    "not encoded": (lambda root: shutil.rmtree(root / "wide.encoded"), "there are no encoded clips in .*wide.encoded"),
    "no manifest": (lambda root: (root / "wide.encoded" / ENCODED_FILE).unlink(), "there are no encoded clips"),
    "VAE": (lambda root: another_encoding(root, vae="x"), "were made with another VAE, not with what training uses"),
    "CLIP": (lambda root: another_encoding(root, image_encoder="x"), "were made with another CLIP image encoder"),
    "noise": (lambda root: another_encoding(root, noise_augmentation=0.1), "were made with noise augmentation 0.1,"),
    "half-made": (lambda root: first_file(root).unlink(), "1 of 3 clips are not encoded in .*, or have changed since"),
    "a changed frame": (lambda root: make_folder(root / "1", 11, size=(48, 32)), "1 of 3 clips are not encoded"),
    "another list": (lambda root: (root / "wide.txt").write_text("0\n1\n3\n"), "1 of 3 clips are not encoded"),
    "not JSON": (lambda root: text(root, "{"), "is not a JSON file"),
    "another file": (lambda root: text(root, "{}"), "is not what stableanimator prepare encode writes"),
    "a damaged one": (
        lambda root: text(root, '{"format": "stableanimator-jax encoded clips", "version": 1, "encoding": {}}'),
        "is damaged: .* remove that folder",
    ),
    "newer": (
        lambda root: text(root, '{"format": "stableanimator-jax encoded clips", "version": 2}'),
        "have format version 2, this program reads 1",
    ),
}


@pytest.mark.parametrize("case", REFUSED)
def test_what_is_refused_at_once(copy, case):
    change, message = REFUSED[case]
    change(copy)
    with pytest.raises(InputError, match=message) as error:
        encoded(copy)
    assert "\n" not in str(error.value)


@pytest.mark.parametrize(
    ("change", "message"),
    [
        (lambda file: file.write_bytes(file.read_bytes()[:-1]), "encoded clip 0: cannot read .*remove that file"),
        (lambda file: file.write_bytes(b""), "encoded clip 0: cannot read "),
        (lambda file: np.save(file, np.zeros(10, ENCODING.record((32, 16)))), "does not hold its 10 frames"),
        (lambda file: np.save(file, np.zeros(9, ENCODING.record((24, 16)))), "does not hold its 10 frames"),
    ],
)
def test_a_damaged_file_is_named(copy, change, message):
    change(first_file(copy))
    with pytest.raises(InputError, match=message):
        encoded(copy)[0][0].read([0, 1])
