"""`sample.py` on bad input: one clear line on stderr, exit status 2, and nothing left behind."""

import json
import os
import pickle
import re
import subprocess
import sys
from dataclasses import replace
from pathlib import Path

import jax
import numpy as np
import pytest

from stableanimator_jax.errors import InputError
from stableanimator_jax.sampling.pipeline import Animator
from stableanimator_jax.scripts.sample import movement, run
from stableanimator_jax.weights.checkpoint import STABLEANIMATOR, save_checkpoint
from tests.data.clips import clip, encode
from tests.scripts.sample_script import QUICK, ROOT, call, photo, poses, start, tree
from tests.training.mini_model import MINI, mini_params, save_mini_model


@pytest.fixture
def place(tmp_path, monkeypatch):
    """A working directory with a good photo and good poses."""
    monkeypatch.chdir(tmp_path)
    photo(Path("photo.jpg"))
    poses(Path("poses"), 3)
    return tmp_path


def bytes_file(name: str, data: bytes) -> str:
    Path(name).write_bytes(data)
    return name


def truncated(name: str, source: Path | str) -> str:
    data = Path(source).read_bytes()
    return bytes_file(name, data[: len(data) // 2])


def changed_poses(change) -> str:
    change(poses(Path("bad"), 3))
    return "bad"


def video() -> Path:
    return encode(Path("video.mp4"), clip(8))


def embedding(array) -> str:
    np.save("face.npy", array)
    return "face.npy"


def config_file(text: str) -> str:
    Path("config.py").write_text(text)
    return "config.py"


def json_file(value: object) -> str:
    Path("run.json").write_text(json.dumps(value))
    return "run.json"


RECORD = {"format": "stableanimator-jax sampling run", "configuration": {}, "inputs": {}, "versions": {}, "result": {}}

# What is given beside a good photo and good poses (a later flag overrides), and what the line says.
BAD = {
    "reference missing": (lambda: ["--reference", "nobody.jpg"], r"reference image .*nobody.jpg does not exist"),
    "reference empty": (lambda: ["--reference", bytes_file("a.jpg", b"")], r"a.jpg is empty"),
    "reference no image": (lambda: ["--reference", bytes_file("a.jpg", b"hello")], r"a.jpg is not an image"),
    "reference truncated": (lambda: ["--reference", truncated("a.jpg", "photo.jpg")], r"a.jpg.*damaged"),
    "reference name too long": (lambda: ["--reference", "a" * 300], r"cannot read reference image .*too long"),
    "reference loop": (
        lambda: ["--reference", (Path("a.jpg").symlink_to("a.jpg"), "a.jpg")[1]],
        r"cannot read reference image .*a.jpg: Too many levels of symbolic links",
    ),
    "reference a pipe": (
        lambda: ["--reference", (os.mkfifo("a.jpg"), "a.jpg")[1]],
        r"a.jpg is a pipe or a device",
    ),
    "reference absurdly narrow": (
        lambda: ["--reference", photo(Path("a.png"), (60000, 1)), "--fit", "pad"],
        r"reference image .*a.png: an image of 60000x1 pixels would be 60000x60000 when padded",
    ),
    "reference directory": (lambda: ["--reference", "poses"], r"poses is a directory"),
    "poses missing": (lambda: ["--poses", "nothing"], r"poses .*nothing does not exist"),
    "poses name too long": (lambda: ["--poses", "a" * 300], r"cannot read poses .*too long"),
    "poses absurdly narrow": (
        lambda: ["--poses", changed_poses(lambda d: [photo(d / f"frame_{i}.png", (1, 60000)) for i in range(3)]),
                 "--fit", "pad"],
        r"pose 0: an image of 1x60000",
    ),
    "poses none": (lambda: ["--poses", changed_poses(lambda d: [f.unlink() for f in d.iterdir()])], r"no frame_0.png"),
    "poses gap": (lambda: ["--poses", changed_poses(lambda d: (d / "frame_1.png").unlink())], r"missing frame_1.png"),
    "poses mixed": (lambda: ["--poses", changed_poses(lambda d: photo(d / "frame_2.png"))], r"frame_2.png is 80x96"),
    "poses damaged": (
        lambda: ["--poses", changed_poses(lambda d: truncated(str(d / "frame_1.png"), d / "frame_1.png"))],
        r"frame_1.png.*damaged",
    ),
    "poses no video": (lambda: ["--poses", bytes_file("a.mp4", b"hello" * 99)], r"a.mp4 is not a video"),
    "poses video truncated": (lambda: ["--poses", truncated("a.mp4", video())], r"a.mp4.*cut short"),
    "size not a multiple": (lambda: ["--width", 100, "--height", 64], r"multiples of 16; the nearest is 96x64"),
    "size negative": (lambda: ["--width", -64, "--height", 64], r"multiples of 16"),
    "size absurd": (lambda: ["--width", 64 * 10**15, "--height", 64], r"at most 16384 pixels"),
    "size half given": (lambda: ["--from-json", json_file(RECORD), "--width", 64], r"both --width and --height"),
    "checkpoint missing": (lambda: ["--checkpoint", "weights"], r"checkpoint .*weights does not exist"),
    "checkpoint name too long": (lambda: ["--checkpoint", "a" * 300], r"cannot read checkpoint .*too long"),
    "checkpoint no checkpoint": (lambda: ["--checkpoint", "poses"], r"poses is not a checkpoint"),
    "output loop": (
        lambda: ["--output", (Path("a.mp4").symlink_to("a.mp4"), "a.mp4")[1] + "/b.mp4"],
        r"cannot write .*a.mp4",
    ),
    "output suffix": (lambda: ["--output", "a.mov"], r"a.mov: the suffix .mov is not one of .* without a dot"),
    "output wider than its kind of file": (
        lambda: ["--output", "a.webp", "--width", 16384, "--height", 16],
        r"a.webp: a .webp holds at most 16383 pixels a side, not 16384x16; give a smaller size",
    ),
    "output not empty": (lambda: ["--output", "poses"], r"poses: it is an input too"),
    "output name too long": (lambda: ["--output", "a" * 300 + ".mp4"], r"cannot write .*too long"),
    "output name too long with what follows": (lambda: ["--output", "a" * 240 + ".mp4"], r"cannot write .*too long"),
    "output here": (lambda: ["--output", "."], r"it is the current directory"),
    "output nameless": (lambda: ["--output", ""], r"it is the current directory"),
    "output above": (lambda: ["--output", "new/../.."], r"it is the current directory or holds an input"),
    "output above, with a name": (lambda: ["--output", Path("..").resolve()], r"current directory or holds an input"),
    "output below a file": (lambda: ["--output", "photo.jpg/a.mp4"], r"cannot write .*photo.jpg/a.mp4"),
    "output is an input": (lambda: ["--poses", video(), "--output", "video.mp4"], r"video.mp4: it is an input too"),
    "sheet is an input": (
        lambda: ["--reference", photo(Path("a.mp4.contact_sheet.png")), "--output", "new/../a.mp4"],
        r"a.mp4.contact_sheet.png: it is an input too",
    ),
    "sheet is an input by another path": (
        lambda: ["--reference", Path("poses/..") / photo(Path("a.mp4.contact_sheet.png")), "--output", "a.mp4"],
        r"a.mp4.contact_sheet.png: it is an input too",
    ),
    "record is an input by a link": (
        lambda: ["--reference", (Path("l").symlink_to("a.mp4.json"), photo(Path("a.png")).rename("a.mp4.json"), "l")[2],
                 "--output", "a.mp4"],
        r"a.mp4.json: it is an input too",
    ),
    "old plot a directory": (
        lambda: ["--output", (Path("a.mp4.hjb.png").mkdir(), "a.mp4")[1]],
        r"cannot write .*a.mp4.hjb.png: it is a directory",
    ),
    "sheet a directory": (
        lambda: ["--output", (Path("a.mp4.json").mkdir(), "a.mp4")[1]],
        r"cannot write .*a.mp4.json: it is a directory",
    ),
    "embedding missing": (lambda: ["--face-embedding", "face.npy"], r"face.npy does not exist"),
    "embedding shape": (lambda: ["--face-embedding", embedding(np.zeros(128))], r"face.npy has shape \[128\]"),
    "embedding not finite": (lambda: ["--face-embedding", embedding(np.full(512, np.nan))], r"not finite"),
    "embedding pickled": (
        lambda: ["--face-embedding", bytes_file("face.npy", pickle.dumps([1.0] * 512))],
        r"face.npy is not a plain .npy file",
    ),
    "identity twice": (
        lambda: ["--face-embedding", embedding(np.zeros(512)), "--insightface-root", "."],
        r"not both",
    ),
    "insightface without models": (lambda: ["--insightface-root", "poses"], r"no InsightFace models"),
    "flag unknown": (lambda: ["--step", 3], r"unrecognized options: --step, 3; did you mean --steps\?"),
    "flag without value": (lambda: ["--seed"], r"missing value for argument '--seed'"),
    "value of another type": (lambda: ["--steps", "many"], r"--steps: invalid literal.*'many'"),
    "value no choice": (lambda: ["--fit", "stretch"], r"invalid choice 'stretch'.*'crop', 'pad'"),
    "steps": (lambda: ["--steps", 0], r"steps must be from 1 to 1000, got 0"),
    "window": (lambda: ["--window", 1], r"window must be from 2 to 1024"),
    "overlap": (lambda: ["--overlap", 4], r"overlap must be smaller than the window"),
    "guidance": (lambda: ["--guidance-max", "nan"], r"guidance-max must be from 0 to 1000, got nan"),
    "schedule": (lambda: ["--schedule", "kerras"], r"invalid choice 'kerras'.*'karras', 'aligned'"),
    "sampler": (lambda: ["--sampler", "heun"], r"invalid choice 'heun'.*'euler', 'dpmpp_2m'"),
    "preset": (lambda: ["--preset", "quick"], r"preset must be one of published, balanced, fast, got 'quick'"),
    "guidance interval of one": (lambda: ["--guidance-interval", "3"], r"guidance-interval"),
    "guidance interval of none": (
        lambda: ["--preset", "fast", "--guidance-interval", 60, 600],
        r"guidance-interval 60 600 holds none of the 2 noise levels, which fall from 700 to 1.789\n",
    ),
    "devices that are not there": (lambda: ["--devices", 9], r"devices must be all, or from 1 to the 1 that JAX finds"),
    "frames on no device": (lambda: ["--frame-devices", 2], r"frame-devices must divide the window .*, got 2"),
    "cache branch of no use": (lambda: ["--cache-branch", 1], r"cache-branch 1 has no use .*: give cache-interval too"),
    "cache branch too deep": (
        lambda: ["--cache-interval", 2, "--cache-branch", 3],
        r"cache-branch must be from 0 to 2 for this UNet, got 3",
    ),
    "preset without guidance": (
        lambda: ["--preset", "fast", "--guidance-min", 1, "--guidance-max", 1],
        r"guidance-interval has no use without guidance .*: make it 0 1000",
    ),
    "output fps": (lambda: ["--output-fps", "0"], r"output-fps must be from 0.01 to 1000, got 0.0"),
    "record missing": (lambda: ["--from-json", "run.json"], r"cannot read run.json"),
    "record no JSON": (lambda: ["--from-json", bytes_file("run.json", b"{")], r"run.json is not a JSON file"),
    "record nested too deep": (
        lambda: ["--from-json", bytes_file("run.json", b"[" * 100000 + b"]" * 100000)],
        r"run.json is not",
    ),
    "record of an endless number": (
        lambda: ["--from-json", bytes_file("run.json", b"[" + b"9" * 5000 + b"]")],
        r"run.json is not a JSON file",
    ),
    "record of a number too large": (
        lambda: ["--from-json", json_file(RECORD | {"configuration": {"output_fps": 10**400}})],
        r"run.json: output_fps: expected a finite number",
    ),
    "record of an impossible path": (
        lambda: ["--from-json", json_file(RECORD | {"configuration": {"poses": "a\0b"}})],
        r"run.json: poses: 'a\\x00b' has a character",
    ),
    "record of an impossible checkpoint": (
        lambda: ["--from-json", json_file(RECORD | {"configuration": {"checkpoint": "a\ud800"}})],
        r"run.json: checkpoint: 'a\\ud800' has a character",
    ),
    "record of something else": (lambda: ["--from-json", json_file({"a": 1})], r"not the record of a sampling run"),
    "record damaged": (lambda: ["--from-json", json_file(RECORD | {"inputs": 3})], r"run.json is damaged"),
    "record of unknown settings": (
        lambda: ["--from-json", json_file(RECORD | {"configuration": {"stepps": 3}})],
        r"run.json: .*unknown field\(s\) stepps",
    ),
}  # fmt: skip


@pytest.mark.parametrize("case", BAD)
def test_bad_input(place, capsys, case):
    given, wanted = BAD[case]
    flags = given()
    before = tree(place)
    good = [] if "--from-json" in flags else ["--reference", "photo.jpg", "--poses", "poses", *QUICK]
    output = [] if "--output" in flags else ["--output", "out/a.mp4"]
    assert call(*good, *output, *flags) == 2
    assert_one_line(capsys.readouterr(), wanted)
    assert tree(place) == before


@pytest.mark.parametrize(
    ("text", "wanted"),
    [
        (None, r"config file config.py does not exist"),
        ("config = 3", r"config.py has no get_config\(\)"),
        ("def get_config(: pass", r"config.py cannot be loaded: SyntaxError"),
        ("import nothing_of_this_name", r"config.py cannot be loaded: ModuleNotFoundError"),
        ("raise SystemExit(3)", r"config.py cannot be loaded: SystemExit: 3"),
        ("def get_config(): raise SystemExit(3)", r"get_config\(\) failed: SystemExit: 3"),
        (
            "from stableanimator_jax.scripts.sample.settings import SampleConfig\n"
            "def get_config(): return SampleConfig(sampling=3)",
            r"config file config.py: sampling: expected an object with fields, got 3",
        ),
        (
            "from stableanimator_jax.scripts.sample.settings import SampleConfig\n"
            "def get_config(): return SampleConfig(reference=3)",
            r"config file config.py: reference: expected a path, got 3",
        ),
        ("def get_config(): return 1 / 0", r"get_config\(\) failed: ZeroDivisionError"),
        ("def get_config(): return {'steps': 3}", r"gives is of type dict, not SampleConfig"),
        (
            "from stableanimator_jax import SamplingConfig\ndef get_config(): return SamplingConfig(steps=0)",
            r"config file config.py: steps must be from 1",
        ),
    ],
)
def test_bad_config_file(place, capsys, text, wanted):
    if text is not None:
        config_file(text)
    before = tree(place)
    assert call("config.py", "--output", "a.mp4") == 2
    assert_one_line(capsys.readouterr(), wanted)
    assert tree(place) == before


def test_config_file_and_record(place, capsys):
    name = config_file("from stableanimator_jax.scripts.sample.settings import SampleConfig as get_config")
    assert call(name, "--from-json", "run.json") == 2
    assert_one_line(capsys.readouterr(), r"not both")


@pytest.mark.parametrize("missing", ["reference", "poses"])
def test_only_the_embedded_model_has_an_example(place, capsys, missing):
    given = {"reference": "photo.jpg", "poses": "poses"}
    del given[missing]
    save_mini_model(Path("weights"))
    assert call("--checkpoint", "weights", *(x for k, v in given.items() for x in (f"--{k}", v))) == 2
    assert_one_line(capsys.readouterr(), f"--{missing}")


def test_checkpoints(place, capsys):
    """Of another configuration; with a NaN in it; and the size that follows from the poses."""

    params = {name: mini_params(name) for name in STABLEANIMATOR}
    params["unet"]["conv_in"]["kernel"][:] = np.nan
    save_checkpoint(Path("weights"), MINI, params)
    good = ["--reference", "photo.jpg", "--poses", "poses", "--checkpoint", "weights", "--output", "out/a.mp4"]
    before = tree(place)

    assert call(*good, *QUICK) == 2
    said = capsys.readouterr().err
    assert said.splitlines()[-1].startswith("error: the latents are no longer finite after step 1 of 2")
    assert "Traceback" not in said
    assert tree(place) == before

    poses(Path("odd"), 2, size=100)
    assert call(*good, "--poses", "odd") == 2
    assert_one_line(capsys.readouterr(), r"100x100 does not work.*nearest is 96x96")

    description = json.loads(Path("weights/config.json").read_text())
    description["config"]["face_encoder"]["depth"] = 3
    Path("weights/config.json").write_text(json.dumps(description))
    before = tree(place)
    assert call(*good, *QUICK) == 2
    assert_one_line(capsys.readouterr(), r"face_encoder of checkpoint .*weights is of another configuration")
    assert tree(place) == before


def test_checkpoint_without_the_models_for_sampling(place, capsys):
    save_mini_model(Path("weights"), ("pose_net",))
    good = ["--reference", "photo.jpg", "--poses", "poses", "--output", "weights2/a.mp4", *QUICK]
    assert call(*good, "--checkpoint", "weights") == 2
    said = capsys.readouterr()
    assert said.out == ""  # nothing was begun
    assert_one_line(said, r"weights has no unet, vae, image_encoder, face_encoder; it has pose_net")

    before = tree(place)
    assert call(*good, "--checkpoint", "weights", "--output", "weights/config") == 2  # would be its config.json
    assert_one_line(capsys.readouterr(), r"it is inside the checkpoint")
    assert tree(place) == before


def test_poses_too_fast(place, capsys, monkeypatch):
    load = movement.load_poses
    monkeypatch.setattr(movement, "load_poses", lambda *given: replace(load(*given), fps=2000.0))
    black = encode(
        Path("video.mp4"), [np.zeros_like(frame) for frame in clip(8)]
    )  # nobody in it looks unlike a skeleton
    assert call("--poses", black, *QUICK) == 2
    assert_one_line(capsys.readouterr(), r"video.mp4 play at 2000 frames a second.*--output-fps")


def test_an_input_that_cannot_be_hashed_leaves_no_video(place, capsys, monkeypatch):
    def fail(config):
        raise InputError("cannot read photo.jpg")

    monkeypatch.setattr(Animator, "stream", lambda *_, **__: iter([np.zeros((2, 64, 64, 3), np.uint8)]))
    monkeypatch.setattr(run, "hash_inputs", fail)
    before = tree(place)
    assert call("--output", "out/a", *QUICK) == 2
    assert capsys.readouterr().err.splitlines()[-1] == "error: cannot read photo.jpg"
    assert tree(place) == before


def test_out_of_memory_is_explained(place, capsys, monkeypatch):
    def stream(*_, **__):
        raise jax.errors.JaxRuntimeError("RESOURCE_EXHAUSTED: Out of memory while trying to allocate 9 bytes.")
        yield

    monkeypatch.setattr(Animator, "stream", stream)
    before = tree(place)
    assert call("--output", "out/a.mp4", *QUICK) == 2
    assert capsys.readouterr().err.splitlines()[-1].startswith("error: the device has too little memory")
    assert tree(place) == before


def test_a_bug_keeps_its_traceback(place, monkeypatch):
    monkeypatch.setattr(Animator, "stream", lambda *_, **__: 1 / 0)
    before = tree(place)
    with pytest.raises(ZeroDivisionError):
        call("--output", "out/a.mp4", *QUICK)
    assert tree(place) == before


def test_no_such_device(tmp_path):
    process = start("--device", "tpu", "--output", "out/a.mp4", cwd=tmp_path)
    _, err = process.communicate(timeout=900)
    assert process.returncode == 2
    assert err.count("\n") == 1
    assert err.startswith("error: ")
    assert "--device tpu" in err
    assert tree(tmp_path) == set()


def test_ctrl_c(place, capsys, monkeypatch):
    def stream(*_, **__):
        yield np.zeros((2, 64, 64, 3), np.uint8)
        raise KeyboardInterrupt

    monkeypatch.setattr(Animator, "stream", stream)
    before = tree(place)
    assert call("--output", "out/a", *QUICK) == 130
    assert capsys.readouterr().err.splitlines()[-1] == "interrupted: nothing half-written is left"
    assert tree(place) == before


def test_terminated(tmp_path):
    """By a job manager, in the middle of denoising: not even the directory is left."""
    process = start("--no-compilation-cache", "--steps", 500, cwd=tmp_path)
    assert process.stderr is not None
    said = ""
    while "denoising" not in said and (character := process.stderr.read(1)):
        said += character
    process.terminate()
    _, err = process.communicate(timeout=900)
    assert process.returncode == 130, said + err
    assert err.splitlines()[-1].startswith("interrupted")
    assert "Traceback" not in err
    assert tree(tmp_path) == set()


def test_reader_of_the_output_goes_away(tmp_path):
    command = f"{sys.executable} {ROOT / 'sample.py'} --help | true; echo ${{PIPESTATUS[0]}}"
    done = subprocess.run(["bash", "-c", command], capture_output=True, text=True, timeout=900, check=True)
    assert done.stderr == ""
    assert done.stdout in ("141\n", "0\n")  # whether help fits into the pipe before its end is closed


def assert_one_line(said, wanted: str) -> None:
    """One line on stderr, and nothing was computed."""
    assert said.err.startswith("error: ")
    assert said.err.count("\n") == 1
    assert said.err.endswith("\n")
    assert "denoising" not in said.err
    assert re.search(wanted, said.err), said.err
