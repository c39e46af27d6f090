"""`sample.py` on good input: what it makes of it, and that a record makes it again."""

import hashlib
import json
import os
import re
import shutil
import subprocess
import sys
from dataclasses import replace

import jax
import numpy as np
import pytest
from PIL import Image

from stableanimator_jax.data.video import read_frames
from stableanimator_jax.sampling.pipeline import Animator
from stableanimator_jax.scripts.sample import run
from stableanimator_jax.scripts.sample.settings import DRAWN_PEOPLE, SampleConfig
from stableanimator_jax.weights.checkpoint import save_checkpoint
from tests.perception.standin_models import CELL, write_models
from tests.scripts.sample_script import QUICK, ROOT, call, photo, pixels, poses, start, tree
from tests.training.mini_model import MINI, mini_params, save_mini_model

FRAMES = 5


@pytest.fixture(scope="module")
def inputs(tmp_path_factory):
    """Flags for a quick run; one checkpoint for all, so that it is compiled for once."""
    directory = tmp_path_factory.mktemp("inputs")
    return [
        "--reference", photo(directory / "photo.png"), "--poses", poses(directory / "poses", FRAMES),
        "--checkpoint", save_mini_model(directory / "checkpoint"), *QUICK,
    ]  # fmt: skip


@pytest.fixture(scope="module")
def made(inputs, tmp_path_factory):
    """A directory of frames that the script made, with what lies beside it."""
    output = tmp_path_factory.mktemp("made") / "frames"
    assert call(*inputs, "--output", output, "--seed", 3) == 0
    return output


def sidecars(output, suffix):
    return output.with_name(output.name + suffix)


def record_of(output):
    return json.loads(sidecars(output, ".json").read_text())


def test_frames_sheet_and_record(made, inputs):
    assert tree(made.parent) == {
        "frames", *(f"frames/frame_{i}.png" for i in range(FRAMES)), "frames.json", "frames.contact_sheet.png",
    }  # fmt: skip
    assert pixels(made).shape == (FRAMES, 64, 64, 3)
    assert pixels(made).std() > 5

    record = record_of(made)
    reference, pose_directory = inputs[1], inputs[3]
    assert record["configuration"]["sampling"]["seed"] == 3
    assert record["configuration"]["dtype"] == "float32"  # what "auto" became
    assert record["inputs"]["reference"] == {
        "path": str(reference),
        "sha256": hashlib.sha256(reference.read_bytes()).hexdigest(),
    }
    listing = "".join(
        f"{hashlib.sha256((pose_directory / f'frame_{i}.png').read_bytes()).hexdigest()}  frame_{i}.png\n"
        for i in range(FRAMES)
    )
    assert record["inputs"]["poses"]["sha256"] == hashlib.sha256(listing.encode()).hexdigest()
    assert {"python", "jax", "flax"} <= set(record["versions"])
    assert record["result"]["frames"] == FRAMES
    assert record["inputs"]["checkpoint"]["path"] == str(inputs[5])
    assert set(record["result"]["seconds"]) == {"load", "denoise", "decode"}
    assert all(isinstance(seconds, float) for seconds in record["result"]["seconds"].values())
    with Image.open(sidecars(made, ".contact_sheet.png")) as sheet:
        assert sheet.width > 5 * 256


def test_says_what_it_does(inputs, tmp_path, capsys):
    assert call(*inputs, "--output", tmp_path / "a.gif") == 0
    said = capsys.readouterr()
    assert "identity: none (no --insightface-root or --face-embedding)" in said.out
    assert f"weights: {inputs[5]}\n" in said.out
    assert re.search(
        rf"\nwrote {tmp_path}/a\.gif .*: 5 frames of 64x64 sampled in [\d.]+ s, [\d.]+ frames per second; "
        r"[\d.]+ s in all\n$",
        said.out,
    )
    assert re.search(r"denoising: 100%.* 4/4 .*step 2 of 2", said.err)  # 2 windows, 2 steps
    assert re.search(r"decoding: 100%.* 5/5 ", said.err)


@pytest.mark.long
def test_svd_alone_in_a_runs_folder(inputs, made, tmp_path, capsys):
    """Without ID adapter and Face Encoder; of a training run's folder it is the last weights."""
    svd = replace(MINI, unet=replace(MINI.unet, id_injection="none"))
    params = {name: mini_params(name) for name in ("unet", "vae", "image_encoder", "pose_net")}
    weights = tmp_path / "run" / "checkpoints" / "3" / "weights"
    save_checkpoint(weights, svd, params)
    flags = [*inputs, "--seed", 3, "--checkpoint", tmp_path / "run"]
    assert call(*flags, "--output", tmp_path / "one") == 0
    assert "identity: none (these weights have no ID adapter)" in capsys.readouterr().out
    assert record_of(tmp_path / "one")["configuration"]["checkpoint"] == str(weights)
    np.save(tmp_path / "face.npy", np.full(512, 0.5, np.float32))
    assert call(*flags, "--output", tmp_path / "other", "--face-embedding", tmp_path / "face.npy") == 0
    assert "warning: these weights have no ID adapter" in capsys.readouterr().err
    np.testing.assert_array_equal(pixels(tmp_path / "one"), pixels(tmp_path / "other"))
    assert (pixels(tmp_path / "one") != pixels(made)).any()  # whose face tokens, of no face, make a difference


def test_what_is_there_is_replaced_only_where_asked_and_ours(inputs, tmp_path, capsys, monkeypatch):
    monkeypatch.chdir(tmp_path)

    def contents():
        return {path: path.read_bytes() for path in tmp_path.rglob("*") if path.is_file()}

    def refused(wanted, *flags):
        before = contents()
        assert call(*inputs, *flags) == 2
        assert re.search(wanted, capsys.readouterr().err)
        assert contents() == before

    assert call(*inputs) == 0  # outputs/animation.mp4, which is ours to replace
    first = contents()
    assert call(*inputs, "--seed", 9) == 0
    assert contents().keys() == first.keys()
    assert contents()[tmp_path / "outputs/animation.mp4"] != first[tmp_path / "outputs/animation.mp4"]

    assert call(*inputs, "--output", "a.gif") == 0
    refused(r"a.gif is there, from an earlier run: name another --output, or .* by --overwrite", "--output", "a.gif")
    assert call(*inputs, "--output", "a.gif", "--overwrite", "--seed", 9) == 0
    assert record_of(tmp_path / "a.gif")["configuration"]["overwrite"] is False

    (tmp_path / "a.gif").write_bytes(b"edited by hand")
    refused(
        r"will not replace .*a.gif, which no run of stableanimator sample left there",
        "--output",
        "a.gif",
        "--overwrite",
    )
    (tmp_path / "outputs/animation.mp4.contact_sheet.png").write_bytes(b"mine")
    refused(r"will not replace .*contact_sheet.png")
    (tmp_path / "b.mp4.json").write_text("{}")
    refused(r"will not replace .*b.mp4.json", "--output", "b.mp4", "--overwrite")


@pytest.mark.parametrize("name", ["a.mp4", "a.gif", "a.webp", "new/folder/a.MP4"])
def test_kinds_of_output(inputs, made, tmp_path, name):
    output = tmp_path / name
    assert call(*inputs, "--output", output, "--seed", 3, "--output-fps", 12.5) == 0
    if name.endswith("webp"):  # FFmpeg cannot read animated ones
        with Image.open(output) as animation:
            assert (animation.n_frames, animation.size) == (FRAMES, (64, 64))
    else:
        with read_frames(output) as (info, frames):
            frames = np.stack(list(frames)).astype(float)
        assert info.fps == pytest.approx(12.5)
        assert frames.shape == (FRAMES, 64, 64, 3)
        assert np.corrcoef(frames.ravel(), pixels(made).ravel())[0, 1] > 0.9
    assert {p.name for p in output.parent.iterdir()} == {
        output.name, output.name + ".json", output.name + ".contact_sheet.png",
    }  # fmt: skip
    again = tmp_path / f"again{output.suffix}"
    assert call("--from-json", f"{output}.json", "--output", again) == 0
    assert again.read_bytes() == output.read_bytes()


def test_a_gif_that_is_too_fast_is_told_before_anything_is_computed(inputs, tmp_path, capsys, monkeypatch):
    fast = [*inputs, "--output", tmp_path / "a.gif", "--output-fps", 100]
    warning = f"warning: {tmp_path}/a.gif gets only 50 of every 100 frames: players slow a faster .gif down; "
    assert call(*fast) == 0
    assert capsys.readouterr().err.count(warning) == 1
    with Image.open(tmp_path / "a.gif") as animation:
        assert (animation.n_frames, animation.info["duration"]) == (3, 20)  # of 5 frames
    monkeypatch.setattr(Animator, "from_pretrained", lambda *_, **__: 1 / 0)
    with pytest.raises(ZeroDivisionError):
        call(*fast, "--overwrite")
    assert warning in capsys.readouterr().err


def test_a_directory_named_by_the_date(inputs, made, tmp_path):
    assert call(*inputs, "--seed", 3, "--output", tmp_path / "2026.11.27") == 0
    np.testing.assert_array_equal(pixels(tmp_path / "2026.11.27"), pixels(made))
    assert (tmp_path / "2026.11.27.json").is_file()


def test_record_makes_the_same_frames(made, tmp_path, capsys):
    assert call("--from-json", f"{made}.json", "--output", tmp_path / "again") == 0
    np.testing.assert_array_equal(pixels(tmp_path / "again"), pixels(made))
    assert "note:" not in capsys.readouterr().out
    first, second = record_of(made), record_of(tmp_path / "again")
    assert second["inputs"] == first["inputs"]
    assert second["configuration"] == first["configuration"] | {"output": str(tmp_path / "again")}


def test_flags_override_a_record(made, tmp_path):
    assert call(f"--from-json={made}.json", "--output", tmp_path / "other", "--seed", 4) == 0
    assert record_of(tmp_path / "other")["configuration"]["sampling"]["seed"] == 4
    assert np.abs(pixels(tmp_path / "other").astype(int) - pixels(made)).mean() > 1


def test_record_of_other_versions_is_told(made, tmp_path, capsys):
    record = record_of(made)
    record["versions"]["jax"] = "0.0.1"
    old = tmp_path / "old.json"
    old.write_text(json.dumps(record))
    assert call("--from-json", old, "--output", tmp_path / "again") == 0
    assert "note: jax 0.0.1 then" in capsys.readouterr().out


@pytest.mark.long
@pytest.mark.parametrize("changed", ["reference", "poses"])
@pytest.mark.parametrize("how", ["changed", "gone"])
def test_record_with_inputs_not_as_they_were(inputs, tmp_path, capsys, changed, how):
    photo_copy, poses_copy = tmp_path / "photo.png", tmp_path / "poses"
    shutil.copy(inputs[1], photo_copy)
    shutil.copytree(inputs[3], poses_copy)
    given = ["--reference", photo_copy, "--poses", poses_copy]
    assert call(*inputs, *given, "--output", tmp_path / "a.gif") == 0
    replay = ["--from-json", tmp_path / "a.gif.json", "--output", tmp_path / "b.gif"]
    if changed == "reference":
        if how == "gone":
            photo_copy.unlink()
        else:
            photo(photo_copy, (81, 96))
    elif how == "gone":
        shutil.rmtree(poses_copy)
    else:
        shutil.copy(poses_copy / "frame_0.png", poses_copy / "frame_1.png")
    before = tree(tmp_path)
    capsys.readouterr()

    assert call(*replay) == 2
    error = capsys.readouterr().err
    assert error.count("\n") == 1
    assert f"--{changed}" in error
    assert ("has changed since" if how == "changed" else "no longer there") in error
    assert tree(tmp_path) == before

    # Another one, given on purpose, will do.
    assert call(*replay, *inputs[:4]) == 0


@pytest.mark.parametrize("kind", ["animated.gif", "rgba.png", "sixteen-bit.png", "rotated.jpg"])
def test_unusual_references(inputs, tmp_path, kind):
    """Handled, not refused; that each is read rightly is `tests/data/test_images.py`'s."""
    with Image.open(inputs[1]) as picture:
        picture.load()
    path = tmp_path / kind
    if kind == "animated.gif":
        picture.save(path, save_all=True, append_images=[picture.rotate(90)])
    elif kind == "rgba.png":
        picture.putalpha(128)
        picture.save(path)
    elif kind == "sixteen-bit.png":
        Image.fromarray(np.asarray(picture.convert("L")).astype(np.uint16) * 257).save(path)
    else:
        exif = Image.Exif()
        exif[0x0112] = 6
        picture.save(path, exif=exif)
    assert call(*inputs, "--reference", path, "--output", tmp_path / "a.gif") == 0


def test_poses_from_a_video_give_the_output_its_speed(inputs, tmp_path):
    from tests.data.clips import clip, encode

    video = encode(tmp_path / "poses.mp4", clip(3))  # 10 frames a second
    assert call(*inputs, "--poses", video, "--output", tmp_path / "a.mp4", "--fit", "pad") == 0
    with read_frames(tmp_path / "a.mp4") as (info, frames):
        assert len(list(frames)) == 3
        assert info.fps == pytest.approx(10)


def test_size_of_the_poses(inputs, made, tmp_path):
    without_size = [*inputs[:6], *QUICK[2:]]
    assert call(*without_size, "--seed", 3, "--output", tmp_path / "frames") == 0
    np.testing.assert_array_equal(pixels(tmp_path / "frames"), pixels(made))


def test_identity(inputs, made, tmp_path, capsys):
    """By InsightFace, none where it finds no face, and the same embedding from a file; it changes the video."""
    write_models(tmp_path / "models" / "antelopev2")
    picture = np.full((640, 640, 3), (40, 60, 90), np.uint8)
    Image.fromarray(picture).save(tmp_path / "nobody.png")
    picture[160:192, 256 : 256 + CELL] = (255, 0, 0)
    Image.fromarray(picture).save(tmp_path / "somebody.png")
    seen = [*inputs, "--insightface-root", tmp_path, "--reference"]

    assert call(*seen, tmp_path / "nobody.png", "--output", tmp_path / "nobody") == 0
    said = capsys.readouterr().out
    assert f"identity: none: InsightFace finds no face of the person in {tmp_path}/nobody.png" in said
    assert call(*seen, tmp_path / "somebody.png", "--output", tmp_path / "somebody") == 0
    assert f"identity: the face around 272,176 in {tmp_path}/somebody.png" in capsys.readouterr().out
    assert set(record_of(tmp_path / "somebody")["inputs"]) == {
        "reference", "poses", "checkpoint", "insightface_root",
    }  # fmt: skip

    embedding = np.random.default_rng(0).standard_normal(512).astype(np.float32)
    np.save(tmp_path / "face.npy", embedding)
    assert call(*inputs, "--seed", 3, "--face-embedding", tmp_path / "face.npy", "--output", tmp_path / "given") == 0
    assert f"identity: the embedding in {tmp_path}/face.npy" in capsys.readouterr().out
    assert (pixels(tmp_path / "given") != pixels(made)).any()


@pytest.mark.parametrize(
    ("flags", "expected"),
    [
        ([], DRAWN_PEOPLE),
        (["--checkpoint", "embedded"], DRAWN_PEOPLE),
        (["--checkpoint=somewhere"], SampleConfig(checkpoint="somewhere")),
    ],
)
def test_the_settings_that_a_run_begins_from(monkeypatch, flags, expected):
    """Those that the weights were trained for."""
    given = []
    monkeypatch.setattr(run, "run", given.append)
    assert call(*flags) == 0
    assert given == [expected.absolute()]


@pytest.mark.parametrize("flags", [["--preset", "fast", "--seed", "3"], ["--seed", "3", "--preset=fast"]])
def test_a_preset_and_flags_over_it(monkeypatch, flags):
    given = []
    monkeypatch.setattr(run, "run", given.append)
    assert call(*flags) == 0
    assert call(*flags, "--steps", 12, "--sampler", "dpmpp_2m", "--guidance-interval", 0, 9, "--cache-interval", 2) == 0
    fast, changed = (config.sampling for config in given)
    assert fast == replace(DRAWN_PEOPLE.sampling, seed=3).with_preset("fast")
    assert changed == replace(fast, steps=12, sampler="dpmpp_2m", guidance_interval=(0.0, 9.0), cache_interval=2)


def test_help_does_not_wait_for_jax():
    code = "import sys; sys.argv[1:] = ['--help']; import contextlib, sample\n"
    code += "with contextlib.suppress(SystemExit): sample.script()\n"
    code += "assert 'jax' not in sys.modules"
    done = subprocess.run([sys.executable, "-c", code], cwd=ROOT, capture_output=True, text=True, timeout=900)
    assert done.returncode == 0, done.stderr
    assert "--identity {insightface,checkpoint}" in done.stdout


COUNTED = """
import collections, sys, jax
from stableanimator_jax.scripts.cli import run_script
from stableanimator_jax.scripts.sample.command import main

events = collections.Counter()
jax.monitoring.register_event_listener(lambda event, **_: events.update([event]))
assert run_script(main, sys.argv[1:]) == 0
print({name: events["/jax/compilation_cache/" + name] for name in ("cache_hits", "cache_misses")})
"""


@pytest.mark.slow
def test_from_a_clean_directory_and_once_more(tmp_path):
    """No inputs named, outputs where the README says, compiled programs kept for the next run."""
    settings = {"JAX_COMPILATION_CACHE_DIR": "", "JAX_PERSISTENT_CACHE_MIN_COMPILE_TIME_SECS": "0"}  # as by default
    process = start("--steps", 1, cwd=tmp_path, **settings)
    out, err = process.communicate(timeout=900)
    assert process.returncode == 0, err
    assert "reference: the example in this package" in out
    assert "weights: the small ones in this package" in out
    assert "identity: the reference's face, its box from the example in this package" in out
    assert "32 of 32 frames with a face" in out
    record = record_of(tmp_path / "outputs" / "animation.mp4")
    assert {name: file["path"] for name, file in record["inputs"].items()} == {
        "reference": None, "poses": None, "checkpoint": None,
    }  # fmt: skip
    assert len(record["hjb"]) == 1
    assert {path.name for path in (tmp_path / "outputs").iterdir()} == {
        "animation.mp4", "animation.mp4.contact_sheet.png", "animation.mp4.hjb.png", "animation.mp4.json",
    }  # fmt: skip
    assert any((tmp_path / ".cache" / "stableanimator_jax").iterdir())
    with read_frames(tmp_path / "outputs" / "animation.mp4") as (info, frames):
        assert len(list(frames)) == 32
        assert (info.width, info.height, info.fps) == (64, 64, pytest.approx(7))

    assert "compiling: the first time for this size" in err
    environment = {"JAX_PLATFORMS": "cpu", "PYTHONPATH": str(ROOT), **settings}
    again = subprocess.run(
        [sys.executable, "-c", COUNTED, "--steps", "1", "--output", "again.mp4"],
        env=os.environ | environment | {"XDG_CACHE_HOME": str(tmp_path / ".cache")},
        cwd=tmp_path, capture_output=True, text=True, timeout=900,
    )  # fmt: skip
    assert again.returncode == 0, again.stderr
    assert "compiling" not in again.stderr
    hits, misses = map(int, re.findall(r"\d+", again.stdout.splitlines()[-1]))
    assert hits > 10  # the many small programs, which JAX keeps
    assert misses == 0
    assert (tmp_path / "again.mp4").read_bytes() == (tmp_path / "outputs" / "animation.mp4").read_bytes()


@pytest.mark.slow
def test_warmed_up_it_compiles_no_large_program(inputs, tmp_path, capsys):
    """The face optimisation too, though no face can be found before there are frames."""
    write_models(tmp_path / "models" / "standin")
    flags = [flag for flag in inputs if flag != "--no-compilation-cache"]
    flags += [
        "--hjb.iterations=1",
        "--insightface-root",
        tmp_path / "models" / "standin",
        "--output",
        tmp_path / "out.mp4",
    ]
    before = jax.config.values["jax_compilation_cache_dir"]
    jax.config.update("jax_compilation_cache_dir", str(tmp_path / "cache"))
    try:
        assert call(*flags, "--warm-up") == 0
        told = capsys.readouterr()
        assert re.search(r"compiled \d+ programs for 64x64 in .*; nothing was animated", told.out)
        assert "compiling: the first time for this size" in told.err
        assert len(list((tmp_path / "cache" / "programs").rglob("refine_chunk-*"))) == 2  # four frames, and the last
        assert not (tmp_path / "out.mp4").exists()
        assert call(*flags) == 0
        assert "compiling" not in capsys.readouterr().err
        assert (tmp_path / "out.mp4").exists()
    finally:
        jax.config.update("jax_compilation_cache_dir", before)
    assert call(*inputs, "--warm-up") == 2
    assert "--warm-up is of no use with --no-compilation-cache" in capsys.readouterr().err


@pytest.mark.slow
def test_two_devices_make_the_video_of_one(tmp_path):
    """Within a level, face optimisation and decoding included; where one is asked for, nothing is said of devices."""
    videos = {}
    for name, flags in {"two": (), "one": ("--devices", 1)}.items():
        process = start("--steps", 1, "--output", f"{name}.mp4", *flags, cwd=tmp_path, JAX_NUM_CPU_DEVICES="2")
        out, err = process.communicate(timeout=900)
        assert process.returncode == 0, err
        assert ("2 devices: 2 rows at once; a step 2.0 times as fast" in out) == (name == "two")
        with read_frames(tmp_path / f"{name}.mp4") as (_, frames):
            videos[name] = np.stack([frame.astype(int) for frame in frames])
    assert len(videos["two"]) == 32
    assert np.abs(videos["two"] - videos["one"]).mean() < 1
    assert record_of(tmp_path / "two.mp4")["result"]["devices"] == {"rows": 2, "frames": 1}


@pytest.mark.slow
def test_without_arguments(tmp_path):
    process = start(cwd=tmp_path)
    _, err = process.communicate(timeout=600)
    assert process.returncode == 0, err
    with read_frames(tmp_path / "outputs" / "animation.mp4") as (info, _):
        assert (info.width, info.height) == (64, 64)
