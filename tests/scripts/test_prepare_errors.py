"""`prepare_data.py` on bad input: one clear line on stderr, exit status 2, and nothing left behind."""

import json
import os
import re
from pathlib import Path

import numpy as np
import onnx
import pytest

from stableanimator_jax.preparation import run
from stableanimator_jax.preparation.workers import stage_one
from stableanimator_jax.scripts.cli import run_script
from stableanimator_jax.scripts.prepare.command import main
from tests.preparation.training_videos import FLAGS, flags, models, scene, write_frames, write_video


@pytest.fixture(scope="module")
def model_files(tmp_path_factory):
    return models(tmp_path_factory.mktemp("models"))


@pytest.fixture
def place(tmp_path, monkeypatch):
    """A working directory with one good video; videos are staged in this process."""
    monkeypatch.chdir(tmp_path)
    write_video(Path("videos/a.mkv"), scene(17))
    monkeypatch.setattr(
        run, "stage_all", lambda sources, staging, files, _: [stage_one(s, staging, files) for s in sources]
    )
    return tmp_path


def call(*argv: object) -> int:
    return run_script(main, [str(argument) for argument in argv])


def good(model_files) -> list[str]:
    return ["videos", "videos", "--output", "root", *FLAGS, *flags(model_files)]


def tree() -> set[str]:
    return {path.as_posix() for path in Path().rglob("*")}


def made(path: str, text: str = "{}") -> str:
    Path(path).parent.mkdir(parents=True, exist_ok=True)
    Path(path).write_text(text)
    return path


def folder(path: str) -> str:
    Path(path).mkdir()
    return path


def other_model(path: str) -> str:
    value = onnx.helper.make_tensor_value_info("x", onnx.TensorProto.FLOAT, [1])
    out = onnx.helper.make_tensor_value_info("y", onnx.TensorProto.FLOAT, [1])
    graph = onnx.helper.make_graph([onnx.helper.make_node("Identity", ["x"], ["y"])], "g", [value], [out])
    onnx.save(onnx.helper.make_model(graph, opset_imports=[onnx.helper.make_opsetid("", 17)], ir_version=8), path)
    return path


def dwpose(detector: str | None = None, estimator: str | None = "{}") -> str:
    """A folder for --dwpose: another model as the detector unless its text is given, and an estimator of this text."""
    if detector is None:
        other_model(f"{folder('d')}/yolox_l.onnx")
    else:
        made("d/yolox_l.onnx", detector)
    if estimator is not None:
        made("d/dw-ll_ucoco_384.onnx", estimator)
    return "d"


# What is given after a good command line, of which the last of equal flags counts; and what the line says.
BAD = {
    "input missing": (lambda: ["videos", "nowhere", "--output", "root"], r"input nowhere does not exist"),
    "input a file": (lambda: ["videos", made("a.txt"), "--output", "root"], r"input a.txt is not a folder"),
    "input without videos": (lambda: ["videos", folder("empty"), "--output", "root"], r"input empty has no videos"),
    "no input": (lambda: ["videos", "--output", "root"], r"give the folder of videos"),
    "no output": (lambda: ["videos", "videos"], r"give --output ROOT"),
    "output the input": (lambda: ["videos", "videos", "--output", "videos"], r"cannot write videos: it is the input"),
    "output a file": (lambda: ["--output", made("file")], r"cannot write file: it is a file"),
    "output in a file": (lambda: ["--output", made("file") + "/root"], r"cannot write file/root: Not a directory"),
    "output not ours": (
        lambda: ["--output", str(Path(made("mine/thesis.txt")).parent)],
        r"cannot write mine: it is not empty and holds no dataset of ours",
    ),
    "output another's dataset.json": (
        lambda: ["--output", str(Path(made("mine/dataset.json")).parent)],
        r"mine/dataset.json is not what stableanimator prepare writes",
    ),
    "output name too long": (lambda: ["--output", "a" * 300], r"cannot write a+: File name too long"),
    "work folder a file": (lambda: ["--work", made("work")], r"cannot write work folder"),
    "no DWPose": (lambda: ["--dwpose", "nowhere"], r"--dwpose nowhere is not a directory: give .*yolox_l.onnx and"),
    "DWPose a file": (lambda: ["--dwpose", made("yolox_l.onnx")], r"--dwpose yolox_l.onnx is not a directory"),
    "DWPose empty": (lambda: ["--dwpose", folder("d")], r"detector d/yolox_l.onnx does not exist; download .*DWPose"),
    "DWPose in part": (lambda: ["--dwpose", dwpose(estimator=None)], r"d/dw-ll_ucoco_384.onnx does not exist; down"),
    "pose detector empty": (lambda: ["--dwpose", dwpose(detector="")], r"d/yolox_l.onnx is empty"),
    "pose detector no model": (lambda: ["--dwpose", dwpose(detector="{}")], r"yolox_l.onnx does not load as an ONNX"),
    "pose detector another model": (lambda: ["--dwpose", dwpose()], r"yolox_l.onnx .*not the model that is expected"),
    "no InsightFace": (lambda: ["--insightface-root", folder("none")], r"no InsightFace models"),
    "bucket no size": (lambda: ["--buckets", "large"], r"bucket 'large' is no size: give WIDTHxHEIGHT"),
    "bucket odd": (lambda: ["--buckets", "500x500"], r"bucket '500x500' is no size.*multiples of 64"),
    "bucket twice": (lambda: ["--buckets", "64x64", "64x64"], r"one or more different sizes"),
    "clips too short": (lambda: ["--min-frames", "16"], r"min-frames must be at least 17"),
    "clips not splittable": (lambda: ["--max-frames", "30"], r"max-frames must be from twice min-frames \(34\)"),
    "fps": (lambda: ["--fps", "0"], r"fps must be from 1 to 240"),
    "validation": (lambda: ["--validation", "1"], r"validation must be at least 0 and below 1"),
    "workers": (lambda: ["--workers", "0"], r"workers must be from 1"),
    "cut": (lambda: ["--cut", "0"], r"cut must be above 0"),
    "filter": (lambda: ["--filters.face", "2"], r"filters.face must be from 0 to 1"),
    "mistyped flag": (lambda: ["--filters.sharpnes", "2"], r"did you mean --filters.sharpness"),
    "beam options alone": (lambda: ["--beam.options", "a=b"], r"beam.options are given without --beam.runner"),
    "nothing fit": (lambda: ["--filters.sharpness", "1e6"], r"no clip of 1 videos is left: blurred \(1\)"),
    "faces without input": (lambda: ["faces"], r"give the folder"),
    "faces without models": (lambda: ["faces", "videos"], r"give --insightface-root"),
    "faces without frames": (lambda: ["faces", "videos", "--insightface-root", "x"], r"no frame_0.png"),
    "faces input missing": (lambda: ["faces", "nowhere", "--insightface-root", "x"], r"input nowhere does not exist"),
}  # fmt: skip


@pytest.mark.parametrize("case", BAD)
def test_one_line_says_what_is_wrong(place, model_files, capsys, case):
    argv, message = BAD[case]
    argv = argv()
    before = tree()
    whole = argv if argv[0] in ("videos", "faces") else [*good(model_files), *argv]
    assert call(*whole) == 2
    lines = [line for line in capsys.readouterr().err.splitlines() if "video/s]" not in line and line.strip()]
    assert len(lines) == 1
    assert re.search(message, lines[0]), lines[0]
    assert lines[0].startswith("error: ")
    left = tree() - before
    assert not {name for name in left if not name.startswith("root/.work")} - {"root"}, left
    if case != "work folder a file":  # what was done before that is there for the next run
        assert not left


def test_models_that_are_needed_but_not_given_are_named(place, model_files, capsys):
    faces = ["--insightface-root", model_files["insightface_root"]]
    assert call("videos", "videos", "--output", "root", *FLAGS, *faces) == 2
    assert "a.mkv, because it has no poses: give --dwpose DIR" in capsys.readouterr().err
    one = ["--dwpose", model_files["dwpose"]]
    assert call("videos", "videos", "--output", "root", *FLAGS, *one) == 2
    assert "a.mkv, because it has no face masks and embeddings: give --insightface-root DIR" in capsys.readouterr().err


def test_another_runs_dataset_is_not_touched(place, model_files, capsys):
    assert call(*good(model_files)) == 0
    before = {path: path.read_bytes() for path in Path("root").rglob("*") if path.is_file()}
    assert call(*good(model_files), "--filters.face", "0.6") == 2
    assert "root holds a dataset made with other settings; name another output" in capsys.readouterr().err
    write_video(Path("videos/b.mkv"), scene(18))
    assert call(*good(model_files)) == 2
    assert "root holds a dataset of other videos: b.mkv differs" in capsys.readouterr().err
    Path("videos/b.mkv").unlink()
    write_video(Path("videos/a.mkv"), scene(19))
    assert call(*good(model_files)) == 2
    assert "root holds a dataset of other videos: a.mkv differs" in capsys.readouterr().err
    assert {path: path.read_bytes() for path in Path("root").rglob("*") if path.is_file()} == before


def test_an_unfinished_run_goes_on_with_its_own_settings_only(place, model_files, capsys, monkeypatch):
    with monkeypatch.context() as patch:
        patch.setattr(run, "stage_all", lambda *_: (_ for _ in ()).throw(KeyboardInterrupt))
        assert call(*good(model_files)) == 130
    assert "goes on where this one was stopped" in capsys.readouterr().err
    settings = json.loads(Path("root/.work/run.json").read_text())
    assert settings["filters"]["face"] == 0.5
    assert call(*good(model_files), "--filters.face", "0.6") == 2
    assert "root holds an unfinished run with other settings" in capsys.readouterr().err
    assert call(*good(model_files)) == 0


@pytest.mark.skipif(os.geteuid() == 0, reason="root may write anywhere")
def test_an_output_that_cannot_be_written(place, model_files, capsys):
    folder("locked")
    Path("locked").chmod(0o500)
    assert call(*good(model_files), "--output", "locked/root") == 2
    assert "cannot write locked/root: Permission denied" in capsys.readouterr().err


def test_one_bad_folder_does_not_keep_faces_from_the_others(place, model_files, capsys):
    write_frames(Path("data/good/images"), scene(2))
    write_frames(Path("data/gap/images"), scene(3))
    Path("data/gap/images/frame_1.png").unlink()
    write_frames(Path("data/broken/images"), scene(2))
    Path("data/broken/images/frame_1.png").write_bytes(b"no image")
    assert call("faces", "data", "--insightface-root", model_files["insightface_root"]) == 2
    captured = capsys.readouterr()
    (line,) = [line for line in captured.err.splitlines() if line.startswith("error")]
    assert "missing frame_1.png" in line
    assert "broken/images/frame_1.png is not an image" in line
    assert "data/good: faces and embeddings.npy" in captured.out
    assert np.load("data/good/embeddings.npy").shape == (2, 512)
    assert {path.name for path in Path("data/broken").iterdir()} == {"images"}
