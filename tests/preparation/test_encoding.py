"""`prepare_data.py encode` on tiny models: what is kept is what training's step would compute itself."""

import functools
import json
import re
import shutil
from pathlib import Path

import jax
import numpy as np
import pytest

from stableanimator_jax.config import StableAnimatorConfig
from stableanimator_jax.data.clips import Clips, Moments, Pixels
from stableanimator_jax.data.device_batches import DeviceBatches
from stableanimator_jax.data.encoded import EncodedClips, clip_files, encoded_folder
from stableanimator_jax.data.loader import LoaderConfig, make_loader
from stableanimator_jax.data.prepared import PreparedClips
from stableanimator_jax.data.published_layout import PublishedLayout
from stableanimator_jax.errors import InputError
from stableanimator_jax.models.catalogue import blueprint
from stableanimator_jax.preparation import encoding
from stableanimator_jax.preparation.dataset_writer import TRAIN, VALIDATION, write_dataset
from stableanimator_jax.preparation.staging import StagedClip, write_clip
from stableanimator_jax.scripts.cli import run_script
from stableanimator_jax.scripts.prepare.command import main
from stableanimator_jax.training.latents import EncodingNoise, encode, sample
from stableanimator_jax.weights.checkpoint import save_checkpoint
from stableanimator_jax.weights.fingerprint import fingerprint
from stableanimator_jax.weights.opening import open_checkpoint
from tests.data.published_folders import make_folder
from tests.data.test_clip_format import record
from tests.random_params import random_params

FRAMES = 5
LAYOUT = {"64x64": {TRAIN: 2, VALIDATION: 1}, "64x128": {TRAIN: 1}}
WITH = ["--checkpoint", "embedded", "--batch", "4", "--no-compilation-cache"]


@pytest.fixture(scope="module")
def plain(tmp_path_factory) -> Path:
    """A dataset of two buckets, and a list of two published folders, not encoded."""
    root = tmp_path_factory.mktemp("plain")
    work = root / "work"
    work.mkdir()
    number = 0
    for bucket, splits in LAYOUT.items():
        staged: dict[str, list[StagedClip]] = {}
        for split, count in splits.items():
            for _ in range(count):
                size = (64, 64) if bucket == "64x64" else (64, 128)
                fields = {**vars(record(frames=FRAMES, size=size, seed=number)), "name": f"video {number}"}
                file = work / f"{number}.npz"
                write_clip(file, type(record())(**fields))
                staged.setdefault(split, []).append(StagedClip(file, f"video {number}", bucket, FRAMES))
                number += 1
        (root / "data").mkdir(exist_ok=True)
        write_dataset(root / "data" / bucket, bucket, staged)
    (root / "data" / "dataset.json").write_text(json.dumps({"buckets": LAYOUT}))
    shutil.rmtree(work)
    make_folder(root / "a", 3, size=(64, 64))
    make_folder(root / "b", 6, size=(80, 70), seed=1)
    (root / "rec.txt").write_text("a\nb\n")
    return root


def call(*argv: object) -> int:
    return run_script(main, [str(argument) for argument in argv])


@pytest.fixture(scope="module")
def encoded(plain, tmp_path_factory) -> Path:
    root = Path(shutil.copytree(plain, tmp_path_factory.mktemp("encoded") / "root"))
    assert call("encode", root / "data", *WITH) == 0
    assert call("encode", root / "rec.txt", "--size", "64x64", *WITH) == 0
    return root


@pytest.fixture
def place(plain, tmp_path, monkeypatch) -> Path:
    """A working directory with the same, not encoded."""
    shutil.copytree(plain, tmp_path, dirs_exist_ok=True)
    monkeypatch.chdir(tmp_path)
    return tmp_path


@pytest.fixture(scope="module")
def made_by() -> dict[str, str]:
    return {model: fingerprint("embedded", model) for model in ("vae", "image_encoder")}


def sources(root: Path) -> list[PreparedClips | PublishedLayout]:
    prepared = [PreparedClips(root / "data", split, bucket) for bucket, splits in LAYOUT.items() for split in splits]
    return [*prepared, PublishedLayout(root / "rec.txt", (64, 64), frames=2)]


def files(folder: Path) -> dict[str, bytes]:
    return {path.name: path.read_bytes() for path in folder.iterdir()}


@pytest.mark.slow
def test_training_on_them_is_training_on_pixels(encoded, made_by):
    """What the step makes of encoded clips is what it makes of their pixels, with the same noise."""
    source = open_checkpoint("embedded")
    vae, clip = (source.load(name, blueprint(source.config, name)).module() for name in ("vae", "image_encoder"))
    from_pixels, draw = jax.jit(functools.partial(encode, vae, clip)), jax.jit(functools.partial(sample, vae))
    rng, channels = np.random.default_rng(0), source.config.vae.latent_channels
    seen = set()
    for clips in (sources(encoded)[0], sources(encoded)[3]):
        config = LoaderConfig(frames=2, stride=1)
        pixel_loader, loader = make_loader([clips], config), make_loader([EncodedClips(clips, **made_by)], config)
        with DeviceBatches(pixel_loader, None) as pixels, DeviceBatches(loader, None) as ahead:
            for step in range(4):
                batch, kept = next(pixels), next(ahead)
                assert isinstance(batch.images, Pixels)
                assert isinstance(kept.images, Moments)
                name, reference = frame_of(clips, pixel_loader.batch_at(step))
                seen.add((name, reference))
                key = jax.random.fold_in(jax.random.key(0), np.uint32(int(name[:8], 16)))
                augmentation = jax.random.normal(jax.random.fold_in(key, reference), (1, 64, 64, 3))
                shapes = ((1, 2, 8, 8, channels), (1, 8, 8, channels))
                noise = EncodingNoise(*(rng.standard_normal(s, np.float32) for s in shapes), augmentation)
                moments = (kept.images, from_pixels(batch.images, 0.02 * augmentation))
                found, wanted = ((*draw(some, noise), some.image_embedding) for some in moments)
                # Half a unit in float16's last place of mean and log-variance, this one times the noise, which is up
                # to 4; and float32's own rounding.
                for x, y, tolerance in zip(found, wanted, (1e-3, 1e-3, 1e-4), strict=True):
                    assert np.abs(y).max() > 0.1
                    np.testing.assert_allclose(x, y, rtol=0, atol=tolerance * float(np.abs(y).max()))
                for field in ("poses", "masks", "id_embedding"):
                    np.testing.assert_array_equal(getattr(kept, field), getattr(batch, field))
    assert len(seen) > 4


def frame_of(clips, batch: Clips[np.ndarray]) -> tuple[str, int]:
    """The file and the frame that a batch's reference is, by its pixels."""
    names = [clips[i].name for i in range(len(clips))]
    index = names.index(batch.names[0])
    frames = clips[index].read_frames(range(clips[index].length))
    (number,) = np.flatnonzero((frames == batch.images.reference[0]).all(axis=(1, 2, 3)))
    return clip_files(clips)[index], int(number)


def test_a_references_noise_is_seen(encoded, made_by):
    """Else the test above would hold without any."""
    for clips in sources(encoded):
        for index in range(len(clips)):
            clip = EncodedClips(clips, **made_by)[index]
            for frame in range(clip.length):
                kept = clip.read([frame, frame]).images
                assert np.abs(kept.frames[0, 0] - kept.reference[0]).max() > 1e-3


def test_interrupted_and_run_again_is_as_undisturbed(place, encoded, made_by, monkeypatch, capfd):
    calls = []
    write = encoding._write

    def interrupted(file, frames, name):
        if len(calls) == 2:
            raise KeyboardInterrupt
        calls.append(name)
        write(file, frames, name)

    monkeypatch.setattr(encoding, "_write", interrupted)
    assert call("encode", "data", *WITH) == 130
    assert "note: the same command goes on where this one was stopped" in capfd.readouterr().err
    half = files(place / "data/encoded")
    assert len(half) == 3
    with pytest.raises(InputError, match="1 of 1 clips are not encoded"):
        EncodedClips(sources(place)[2], **made_by)
    (place / "data/encoded/.killed.npy-0.tmp").write_text("half a clip")
    monkeypatch.setattr(encoding, "_write", lambda *args: (calls.append(args[2]), write(*args)))
    assert call("encode", "data", *WITH) == 0
    out = capfd.readouterr().out
    assert "4 clips (2 of them now" in out
    assert sorted(calls) == [f"video {i}" for i in range(4)]
    assert files(place / "data/encoded") == files(encoded / "data/encoded")
    assert call("encode", "data", *WITH) == 0
    assert len(calls) == 4
    assert "is there already: 4 clips" in capfd.readouterr().out


def test_a_longer_list_has_only_its_new_folders_encoded(place, encoded, capfd):
    (place / "rec.txt").write_text("b\n")
    assert call("encode", "rec.txt", "--size", "64x64", *WITH) == 0
    assert "1 clip (1 of them now" in capfd.readouterr().out
    (place / "rec.txt").write_text("a\nb\n")
    assert call("encode", "rec.txt", "--size", "64x64", *WITH) == 0
    assert "2 clips (1 of them now" in capfd.readouterr().out
    assert files(place / "rec.encoded") == files(encoded / "rec.encoded")


@pytest.fixture(scope="module")
def other_checkpoint(tmp_path_factory) -> Path:
    config = StableAnimatorConfig.tiny()
    models = {m: random_params(blueprint(config, m).abstract_params(), seed=0) for m in ("vae", "image_encoder")}
    models["vae"]["quant_conv"]["bias"][0] = np.nan
    path = tmp_path_factory.mktemp("other") / "checkpoint"
    save_checkpoint(path, config, models)
    return path


def test_weights_that_give_no_numbers_are_told_and_leave_no_clip(place, other_checkpoint, capfd):
    assert call("encode", "data", *WITH, "--checkpoint", other_checkpoint) == 2
    assert "clip video 0: moments of frame 0 is not finite" in capfd.readouterr().err
    assert [path.name for path in Path("data/encoded").iterdir()] == ["encoded.json"]


def test_encoded_clips_of_another_checkpoint_are_refused(encoded, other_checkpoint, capfd):
    for flags, message in (
        (("--checkpoint", other_checkpoint), "with another VAE: use the same, or remove it"),
        (("--seed", "1"), "with another --seed"),
        (("--noise-augmentation", "0.1"), "with another --noise-augmentation"),
        (("--dtype", "bfloat16"), "with another --dtype"),
    ):
        assert call("encode", encoded / "data", *WITH, *flags) == 2
        err = capfd.readouterr().err
        assert message in err
        assert err.count("\n") == 1
    with pytest.raises(InputError, match="made with another VAE"):
        EncodedClips(sources(encoded)[0], vae=fingerprint(str(other_checkpoint), "vae"), image_encoder="")


BAD = {
    "no data": ([], "give the data: stableanimator prepare encode DATASET --checkpoint DIR"),
    "no checkpoint": (["data"], "give --checkpoint DIR"),
    "data missing": (["nowhere", *WITH], "data nowhere does not exist"),
    "a name too long": (["x" * 300, *WITH], "cannot read data xxx"),
    "a folder that holds none": (["a", *WITH], "a holds no prepared dataset"),
    "list without a size": (["rec.txt", *WITH], "give the --size WIDTHxHEIGHT"),
    "a bad size": (["rec.txt", *WITH, "--size", "60x60"], "'60x60' is no size"),
    "a dataset's size": (["data", *WITH, "--size", "64x64"], "leave out '64x64'"),
    "a batch of none": (["data", *WITH, "--batch", "0"], "batch must be from 1 to 4096, got 0"),
    "noise": (["data", *WITH, "--noise-augmentation", "-1"], "noise-augmentation must be from 0 to 10"),
    "seed": (["data", *WITH, "--seed", "-1"], "seed must be from 0"),
    "checkpoint missing": (["data", "--checkpoint", "nowhere"], "nowhere does not exist"),
    "no checkpoint there": (["data", "--checkpoint", "a"], "is not a checkpoint"),
    "device": (["data", *WITH, "--device", "tpu"], "--device tpu"),
    "something else there": (["taken", *WITH], "it is not empty and holds no encoded clips of ours"),
    "a file there": (["blocked", *WITH], "cannot write blocked/encoded"),
}


@pytest.mark.parametrize("case", BAD)
def test_bad_input_is_told_in_one_line(place, case, capfd):
    argv, message = BAD[case]
    if case == "something else there":
        shutil.copytree("data", "taken")
        Path("taken/encoded").mkdir()
        Path("taken/encoded/diary.txt").write_text("mine")
    if case == "a file there":
        shutil.copytree("data", "blocked")
        Path("blocked/encoded").write_text("mine")
    before = sorted(Path().rglob("*"))
    assert call("encode", *argv) == 2
    err = capfd.readouterr().err
    assert message in err
    assert err.startswith("error: ")
    assert err.count("\n") == 1
    assert sorted(Path().rglob("*")) == before


def test_a_damaged_clip_is_named(place, capfd):
    image = place / "b/images/frame_4.png"
    image.write_bytes(image.read_bytes()[:200])
    assert call("encode", "rec.txt", "--size", "64x64", *WITH) == 2
    assert "frame_4.png" in capfd.readouterr().err
    clips = PublishedLayout(place / "rec.txt", (64, 64), frames=2)
    assert {path.name for path in encoded_folder(clips).iterdir()} == {"encoded.json", clip_files(clips)[0]}


def spoil(image: Path) -> None:
    """Damage in the middle, which neither header nor end shows."""
    data = image.read_bytes()
    begin = data.index(b"IDAT") + 4
    image.write_bytes(data[:begin] + b"\xff" * 40 + data[begin + 40 :])


def test_a_clip_damaged_within_is_left_out_by_encoding_and_training(place, made_by, capfd):
    spoil(place / "b/images/frame_4.png")
    assert call("encode", "rec.txt", "--size", "64x64", *WITH) == 2
    said = capfd.readouterr()
    assert "2 clips (1 of them now" in said.out
    assert re.search(r"error: 1 of 2 clips cannot be read and are left out; .*frame_4\.png", said.err)
    clips = EncodedClips(PublishedLayout(place / "rec.txt", (64, 64), frames=2), **made_by)
    assert list(clips.damaged) == [1]
    assert "frame_4.png" in clips.damaged[1]
    with make_loader([clips], LoaderConfig(batch_size=2, frames=2, stride=1)) as loader:
        assert next(loader).names == ("a", "a")
    assert call("encode", "rec.txt", "--size", "64x64", *WITH) == 2  # it is tried again
