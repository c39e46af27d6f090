"""`evaluate.py` on small videos: what it writes, faults that have to show, going on, shards, comparing."""

import csv
import json
import os
import re
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from stableanimator_jax.data.keypoints import POINTS, Keypoints, save_keypoints
from stableanimator_jax.data.video import open_writer
from stableanimator_jax.scripts.evaluate import run
from tests.scripts.evaluate_script import FRAMES, SIDE, call, networks, noisy, save, save_all, video

__all__ = ["networks"]


@pytest.fixture(autouse=True)
def _quick_pages(monkeypatch):
    """Drawing is most of the time; test_evaluate_report.py looks at it."""
    monkeypatch.setattr("stableanimator_jax.scripts.evaluate.page.as_uri", lambda figure: "data:image/svg+xml;base64,")


def result(folder: Path) -> dict:
    return json.loads((folder / "result.json").read_text())


def values(folder: Path) -> dict[str, float]:
    return {name: metric["value"] for name, metric in result(folder)["summary"]["metrics"].items()}


def test_folders_are_paired_by_name_and_measured_without_any_network(tmp_path, capsys):
    generated, truth = save_all(tmp_path, 3)
    for i, (name, fps) in enumerate([("a.mp4", 8), ("b.gif", 10)]):
        with open_writer(generated / name, SIDE, SIDE, fps) as file:
            for frame in video(10 + i):
                file.write(frame)
        save(truth / name[0], video(10 + i))
    (generated / "a.mp4.json").write_text("{}")
    assert call("--generated", generated, "--truth", truth, "--output", tmp_path / "r") == 0
    out = capsys.readouterr().out
    for file in ("pytorch-i3d", "pytorch-fid", "3D-ResNets", "PerceptualSimilarity", "insightface", "DWPose"):
        assert re.search(rf"not measured: .*{file}", out), file
    found = result(tmp_path / "r")
    assert found["summary"]["protocol"] == "standard"
    assert found["summary"]["choices"]["windows"].startswith("16 frames")
    assert found["summary"]["frames"] == {"a": FRAMES, "b": FRAMES, **{f"v{i}": FRAMES for i in range(3)}}
    assert {tuple(size) for size in found["summary"]["sizes"].values()} == {(SIDE, SIDE)}
    assert "PyAV" in found["summary"]["decoder"]
    assert "--generated" in found["command"]
    assert {"jax", "av", "numpy"} <= found["versions"].keys()
    assert {"l1", "psnr", "ssim", "flicker"} <= found["summary"]["metrics"].keys()
    assert not found["failed"]
    with (tmp_path / "r" / "result.csv").open() as file:
        rows = list(csv.DictReader(file))
    assert [row["name"] for row in rows] == ["a", "b", "v0", "v1", "v2"]
    assert float(rows[2]["psnr"]) == pytest.approx(found["videos"][2]["scores"]["psnr"], rel=1e-6)
    text = (tmp_path / "r" / "result.md").read_text()
    assert "| PSNR, dB ↑ |" in text
    assert "## Protocol" in text
    notes = text.split("## Notes")[1].split("##")[0]
    assert [notes.count(what) for what in ("FVD takes", "I3D", "CSIM takes", "DWPose")] == [1, 1, 1, 2]  # each once
    assert not any(video["notes"] for video in found["videos"])


def test_an_interrupted_run_goes_on(tmp_path, networks, monkeypatch, capsys):
    generated, truth = save_all(tmp_path, 4)
    flags = ["--generated", generated, "--truth", truth, "--output", tmp_path / "r"]
    measure, seen = run.measure, []

    def interrupted(pair, *rest):
        if len(seen) == 2:
            raise KeyboardInterrupt
        seen.append(pair.name)
        return measure(pair, *rest)

    monkeypatch.setattr(run, "measure", interrupted)
    assert call(*flags) == 130
    assert capsys.readouterr().err.endswith("interrupted: the same command goes on by --resume\n")
    assert call(*flags) == 2
    assert "has an evaluation already: go on with it by --resume" in capsys.readouterr().err

    monkeypatch.setattr(run, "measure", lambda pair, *rest: seen.append(pair.name) or measure(pair, *rest))
    for file in (generated / "v0").iterdir():
        Image.fromarray(video(9)[0]).save(file)  # another video than before
    for other, said in (("--protocol=disco", "(protocol)"), ("--shard=1/2", "(shard)")):
        assert call(*flags, "--resume", other) == 2
        assert said in capsys.readouterr().err
    networks["i3d"] = "9" * 64
    assert call(*flags, "--resume") == 2
    assert "begun with other settings (weights: i3d)" in capsys.readouterr().err
    networks["i3d"] = "1" * 64
    assert call(*flags, "--resume") == 0
    assert seen == ["v0", "v1", "v0", "v2", "v3"]
    kept = next((tmp_path / "r" / "work").glob("v2-*.npz"))
    kept.write_bytes(kept.read_bytes()[:99])  # as a disk that was full leaves it
    assert call(*flags, "--resume") == 0
    assert seen[5:] == ["v2"]
    whole = tmp_path / "whole"
    assert call(*flags[:-1], whole) == 0
    assert values(whole) == values(tmp_path / "r")
    assert "fvd" in values(whole)


def test_one_bad_video_stops_no_other(tmp_path, capsys):
    generated, truth = save_all(tmp_path, 2)
    (generated / "bad.mp4").write_bytes(b"nothing like a video" * 50)
    save(truth / "bad", video(0))
    save(generated / "short", video(0)[:-1])
    save(truth / "short", video(0))
    save(generated / "alone", video(0))
    save(truth / "missing", video(0))
    assert call("--generated", generated, "--truth", truth, "--output", tmp_path / "r") == 2
    error = capsys.readouterr().err.splitlines()[-1]
    assert error.startswith("error: 4 of 6 videos could not be measured; ")
    assert "; and 1 more" in error
    found = result(tmp_path / "r")
    assert [video["name"] for video in found["videos"]] == ["v0", "v1"]
    assert f"has {FRAMES - 1} frames, the truth {FRAMES}" in found["failed"]["short"]
    assert "bad.mp4" in found["failed"]["bad"]
    assert found["failed"]["alone"].startswith("no true video of this name")
    assert found["failed"]["missing"].startswith("no generated video of this name")
    assert found["failed"]["short"] in (tmp_path / "r" / "report.html").read_text()
    # Mended, the same command measures what is missing.
    Image.fromarray(video(0)[-1]).save(generated / "short" / f"frame_{FRAMES - 1}.png")
    save(truth / "alone", video(0))
    (generated / "bad.mp4").unlink()
    (truth / "missing").rename(tmp_path / "gone")
    (truth / "bad").rename(tmp_path / "gone too")
    capsys.readouterr()
    assert call("--generated", generated, "--truth", truth, "--output", tmp_path / "r", "--resume") == 0
    assert [video["name"] for video in result(tmp_path / "r")["videos"]] == ["alone", "short", "v0", "v1"]
    assert "2 of 4 videos are measured already" in capsys.readouterr().out


def test_shards_together_are_the_whole(tmp_path, networks, capsys):
    generated, truth = save_all(tmp_path, 4)
    flags = ["--generated", generated, "--truth", truth, "--reference-frame=first"]
    assert call(*flags, "--output", tmp_path / "whole") == 0
    for i in (1, 2):
        assert call(*flags, "--output", tmp_path / f"part{i}", "--shard", f"{i}/2") == 0
    assert call("merge", tmp_path / "part2", tmp_path / "part1", "--output", tmp_path / "r") == 0
    both = [result(tmp_path / name) for name in ("whole", "r")]
    assert both[0]["summary"] == both[1]["summary"]
    assert both[0]["videos"] == both[1]["videos"]
    assert both[0]["notes"] == both[1]["notes"] == ["pose errors take DWPose"]
    assert {"fid", "fid_vid", "fvd", "kvd", "csim_reference"} <= both[0]["summary"]["metrics"].keys()
    assert len(result(tmp_path / "part1")["videos"]) == 2
    capsys.readouterr()
    assert call("merge", tmp_path / "part1", "--output", tmp_path / "r2") == 2
    assert "2 of 4 videos are in none of the results, v1 the first" in capsys.readouterr().err
    networks["inception"] = "7" * 64
    assert call(*flags, "--output", tmp_path / "other", "--shard=2/2") == 0
    assert call("merge", tmp_path / "part1", tmp_path / "other", "--output", tmp_path / "r2") == 2
    assert "of another evaluation than" in capsys.readouterr().err
    assert call(*flags, "--output", tmp_path / "none", "--shard=9/9") == 0
    assert "there is nothing to do" in capsys.readouterr().out


def test_results_beside_each_other(tmp_path, capsys):
    generated, truth = save_all(tmp_path, 6)
    worse = {i: noisy(noisy(video(i), 50 + i), i) for i in range(6)}
    save_all(tmp_path / "other", 6, generated=worse)
    for name, folder in (("a", generated), ("b", tmp_path / "other" / "generated")):
        assert call("--generated", folder, "--truth", truth, "--output", tmp_path / name) == 0
    flags = ["--generated", generated, "--truth", truth, "--protocol=disco", "--output", tmp_path / "c"]
    assert call(*flags) == 0
    capsys.readouterr()
    assert call("compare", tmp_path / "a", tmp_path / "b" / "result.json", "--output", tmp_path / "t.md") == 0
    out = capsys.readouterr().out
    assert out == (tmp_path / "t.md").read_text()
    (line,) = [line for line in out.split("Less a")[1].splitlines() if line.startswith("| PSNR")]
    assert re.fullmatch(r"\| PSNR, dB ↑ \| \*\*-\d\.\d\d \[-\d\.\d\d, -\d\.\d\d\]\*\* \|", line)
    assert call("compare", tmp_path / "a", tmp_path / "c") == 2
    assert "their protocols are standard and disco" in capsys.readouterr().err
    flags = ["--generated", generated / "v0", "--truth", truth / "v0", "--reference-frame=first"]
    assert call(*flags, "--output", tmp_path / "d") == 0
    read = json.loads((tmp_path / "d" / "result.json").read_text().replace('"v0"', '"another"'))
    (tmp_path / "d" / "result.json").write_text(json.dumps(read))
    assert call("compare", tmp_path / "a", tmp_path / "d") == 0
    said = capsys.readouterr()
    assert "They have no video in common." in said.out
    assert "a and d differ in settings (reference frame: none and first)" in said.err


@pytest.mark.parametrize("suffix", [".json", ".csv"])
def test_a_list_names_the_videos(tmp_path, networks, suffix):
    save_all(tmp_path, 2)
    Image.fromarray(video(0)[0]).save(tmp_path / "me.png")
    points = np.zeros((FRAMES, POINTS, 2), np.float32)
    save_keypoints(tmp_path / "k.json", Keypoints(points, np.ones((FRAMES, POINTS), np.float32), SIDE, SIDE, 8.0))
    rows = [
        {"name": "one", "generated": "generated/v0", "truth": "truth/v0", "reference": "me.png", "driving": "k.json"},
        {"name": "", "generated": "generated/v1", "truth": "", "reference": "me.png", "driving": ""},
    ]
    listed = tmp_path / f"list{suffix}"
    with listed.open("w", newline="") as file:
        if suffix == ".json":
            json.dump(rows, file)
        else:
            writer = csv.DictWriter(file, list(rows[0]))
            writer.writeheader()
            writer.writerows(rows)
    assert call("--pairs", listed, "--output", tmp_path / "r") == 0
    one, two = result(tmp_path / "r")["videos"]
    assert (one["name"], two["name"]) == ("one", "v1")
    assert {"csim_reference", "csim_truth", "psnr"} <= one["scores"].keys()
    assert "csim_reference" in two["scores"]
    assert "psnr" not in two["scores"]
    assert "no truth" in two["notes"][0]


def test_one_video_needs_no_names(tmp_path):
    a, b = save(tmp_path / "a", noisy(video(0), 0)), save(tmp_path / "b", video(0))
    assert call("--generated", a, "--truth", b, "--output", tmp_path / "r", "--protocol=disco") == 0
    assert [v["name"] for v in result(tmp_path / "r")["videos"]] == ["a"]
    assert {"l1", "psnr_legacy"} <= values(tmp_path / "r").keys()
    save(tmp_path / "truths" / "a", video(0))
    save(tmp_path / "truths" / "b", video(1))  # is not asked for
    assert call("--generated", a, "--truth", tmp_path / "truths", "--output", tmp_path / "r2") == 0
    assert [v["name"] for v in result(tmp_path / "r2")["videos"]] == ["a"]


def test_names_may_be_anything(tmp_path):
    names = ["v1.2", "v1.3", "日本語 $x$ <b>&", os.fsdecode(b"\xd6l")]
    for i, name in enumerate(names):
        save(tmp_path / "made" / name, noisy(video(i), i)[:8])
        save(tmp_path / "truth" / name, video(i)[:8])
    assert call("--generated", tmp_path / "made", "--truth", tmp_path / "truth", "--output", tmp_path / "r") == 0
    assert sorted(v["name"] for v in result(tmp_path / "r")["videos"]) == sorted(names)
    assert call("compare", tmp_path / "r", tmp_path / "r") == 0
    rows = [{"generated": f"made/{name}", "truth": f"truth/{name}"} for name in names[:2]]
    (tmp_path / "list.json").write_text(json.dumps(rows))
    assert call("--pairs", tmp_path / "list.json", "--output", tmp_path / "listed") == 0
    assert [v["name"] for v in result(tmp_path / "listed")["videos"]] == names[:2]
