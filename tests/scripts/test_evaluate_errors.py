"""What cannot be evaluated is said in one line, and the exit status is 2."""

import json

import pytest

from stableanimator_jax.evaluation.protocol import PROTOCOLS
from stableanimator_jax.scripts.evaluate import tools
from stableanimator_jax.scripts.evaluate.report import FORMAT
from stableanimator_jax.scripts.evaluate.settings import WeightFiles
from tests.scripts.evaluate_script import call, save, save_all, video


@pytest.fixture
def here(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    save_all(tmp_path, 1)
    return tmp_path


@pytest.mark.parametrize(
    ("flags", "said"),
    [
        ([], "give the videos to measure: --generated DIR, or --pairs LIST"),
        (["--generated=nowhere"], "nowhere does not exist"),
        (["--generated=empty"], "holds no video"),
        (["--generated=generated", "--truth=elsewhere"], "paired by name"),
        (["--generated=generated", "--output=file.txt"], "is a file; name a directory"),
        (["--generated=generated", "--output=full"], "has other things in it"),
        (["--generated=generated", "--output=generated/r"], "lies in"),
        (["--generated=generated", "--shard=3/2"], "--shard is I/N with I from 1 to N"),
        (["--generated=generated", "--protocol=mine"], "invalid choice"),
        (["--generated=generated", "--batch=0"], "batch must be from 1"),
        (
            ["--generated=generated", "--i3d=no.pt"],
            "no.pt does not exist; FVD takes I3D's weights: get rgb_imagenet.pt",
        ),
        (["--generated=generated", "--inception=file.txt"], "file.txt"),
        (["--generated=generated", "--lpips-alex=file.txt"], "give both --lpips-alex and --lpips-alex-heads"),
        (["--generated=generated", "--recogniser=file.txt"], "--recogniser needs --insightface-root DIR"),
        (["--generated=generated", "--dwpose=empty"], "yolox_l.onnx"),
        (["--generated=generated", "--pairs=list.json"], "give --pairs or --generated, not both"),
        (["--pairs=file.txt"], "must be a .json or a .csv"),
        (["--pairs=list.json"], "row 1: unknown column 'made'"),
        (["--pairs=twice.json"], "the name a is in it twice"),
        (["--pairs=nothing.json"], "names no video"),
        (["--pairs=more.csv"], "row 1: has more values than there are columns"),
        (["--checkpoint=embedded"], "--checkpoint needs --dataset"),
        (["--dataset=empty"], "--dataset is for --checkpoint"),
        (["--checkpoint=embedded", "--dataset=empty"], "there is no dataset.json"),
        (["--checkpoint=embedded", "--dataset=nowhere.csv"], "does not exist"),
        (["--checkpoint=nowhere", "--dataset=empty"], "nowhere"),
        (["merge"], "give the results of the shards"),
        (["merge", "empty"], "holds no evaluation"),
        (["merge", "empty", "--output=file.txt"], "file.txt is there already"),
        (["compare", "empty"], "give two results or more"),
        (["compare", "empty", "full"], "holds no result"),
        (["compare", "list.json", "list.json"], "is not the result of an evaluation"),
        (["compare", "damaged.json", "damaged.json"], "damaged.json is damaged"),
    ],
)
def test_one_line_says_it(here, capsys, flags, said):
    (here / "empty").mkdir()
    (here / "full").mkdir()
    (here / "full" / "thesis.txt").write_text("do not overwrite")
    (here / "file.txt").write_text("text")
    save(here / "elsewhere" / "other", video(0)[:2])
    (here / "list.json").write_text(json.dumps([{"made": "a.mp4"}]))
    (here / "twice.json").write_text(json.dumps([{"generated": "a.mp4"}, {"generated": "b/a.mp4"}]))
    (here / "nothing.json").write_text("[]")
    (here / "more.csv").write_text("generated,truth\na.mp4,b.mp4,c.mp4\n")
    damaged = {"format": FORMAT, "summary": {}, "settings": {}, "videos": [{"name": "a", "scores": {}}]}
    (here / "damaged.json").write_text(json.dumps(damaged))
    assert call(*flags) == 2
    err = capsys.readouterr().err.splitlines()
    assert [line for line in err if line.startswith("error: ")] == err[-1:]
    assert said in err[-1]
    assert not (here / "outputs" / "evaluation" / "result.json").exists()


def test_nothing_measured_is_an_error(here, capsys):
    (here / "bad").mkdir()
    (here / "bad" / "v0.mp4").write_bytes(b"no video" * 99)
    assert call("--generated=bad", "--truth=truth") == 2
    assert "none of 1 videos could be measured: v0: " in capsys.readouterr().err


def test_networks_are_opened_by_their_flags(monkeypatch, tmp_path):
    asked = []

    class Network:
        def __init__(self, **sha256):
            self.sha256 = sha256

    monkeypatch.setattr(tools.loading, "load_i3d", lambda path, eps: asked.append((path, eps)) or Network(i3d="a"))
    monkeypatch.setattr(tools.loading, "load_lpips", lambda net, *paths: Network(**{net: "b", f"{net}_heads": "c"}))
    files = WeightFiles(i3d=tmp_path / "i", lpips_vgg=tmp_path / "v", lpips_vgg_heads=tmp_path / "h")
    opened = tools.open_tools(files, PROTOCOLS["disco"], 2, None)
    assert asked == [(tmp_path / "i", 1e-3)]
    assert opened.tools.weights == {"lpips_vgg": "b", "lpips_vgg_heads": "c", "i3d": "a"}
    assert [line.split(":")[0] for line in opened.missing] == [
        "FID takes Inception's weights",
        "FID-VID takes the 3D ResNet-50's weights",
        "CSIM takes a face recogniser, --recogniser FILE.onnx, and a face detector, --insightface-root DIR",
        "pose errors take DWPose, --dwpose DIR",
    ]
    assert "give --inception FILE" in opened.missing[0]
    other = tools.open_tools(WeightFiles(i3d=tmp_path / "i", i3d_eps=1e-5), PROTOCOLS["standard"], 2, None)
    assert other.tools.weights["i3d"] == "eps 1e-05, a"  # of one file, but not to be compared
    assert "give --lpips-alex FILE and --lpips-alex-heads FILE" in other.missing[0]


def test_a_recogniser_that_conditions_is_told(monkeypatch, tmp_path):
    class Recogniser:
        network = staticmethod(lambda faces: faces.reshape(len(faces), -1)[:, :512])

    file = tmp_path / "r.onnx"
    file.write_bytes(b"weights")
    monkeypatch.setattr(tools, "onnx_recogniser", lambda path, detector, channels: Recogniser())
    monkeypatch.setattr(tools, "FaceAnalyser", lambda root: None)
    monkeypatch.setattr(tools, "model_folder", lambda root, name: tmp_path)
    files = WeightFiles(recogniser=file, insightface_root=tmp_path)

    def warnings(conditioning):
        return tools.open_tools(files, PROTOCOLS["standard"], 2, conditioning).warnings

    assert not warnings(None)
    assert not warnings(lambda faces: faces.reshape(len(faces), -1)[:, 512:1024])
    assert warnings(lambda faces: 2 * Recogniser.network(faces))[0].startswith("CSIM is circular")
