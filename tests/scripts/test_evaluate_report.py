"""The page of an evaluation: planted faults show on it, and it needs nothing else."""

import json
from html.parser import HTMLParser

import numpy as np

from tests.scripts.evaluate_script import call, networks, noisy, save_all, video

__all__ = ["networks"]


class Page(HTMLParser):
    """What is in a page: its pictures, and whether all tags are closed."""

    def __init__(self, text: str):
        super().__init__()
        self.images, self.open, self.words = [], [], ""
        self.feed(text)

    def handle_starttag(self, tag, attrs):
        if tag == "img":
            self.images.append(dict(attrs))
        elif tag not in ("meta", "br"):
            self.open.append(tag)

    def handle_endtag(self, tag):
        assert self.open.pop() == tag

    def handle_data(self, data):
        self.words += data


def test_faults_are_seen(tmp_path, networks, capsys):
    truths = [video(i) for i in range(6)]
    shifted = noisy(truths[4], 4)
    shifted[9] = shifted[11]
    faults = {1: np.zeros_like(truths[1]), 2: noisy(truths[2], 2)[..., ::-1], 4: shifted}
    generated, truth = save_all(tmp_path, 6, generated=faults)
    assert call("--generated", generated, "--truth", truth, "--reference-frame=first", "--output", tmp_path / "r") == 0
    assert "stands out: v1: frames 0 to 17 are of one colour" in capsys.readouterr().out
    found = json.loads((tmp_path / "r" / "result.json").read_text())
    said = {video["name"]: " ".join(video["suspicions"]) for video in found["videos"]}
    assert "red and blue look swapped" in said["v2"]
    assert "frame 9" in said["v4"]
    assert "frame 11 of the truth" in said["v4"]
    assert not said["v0"] + said["v3"] + said["v5"]
    assert any(line.startswith("v1: far worse") and "Frames with a face" in line for line in found["outliers"])
    page = Page((tmp_path / "r" / "report.html").read_text())
    assert not page.open
    for text in [*said.values(), *found["outliers"]]:
        assert text in page.words
    assert all(image["alt"] and image["src"].startswith("data:") for image in page.images)
    pictures = [image["alt"] for image in page.images if "jpeg" in image["src"]]
    assert pictures[0].startswith("v1: ")
    assert {alt[:2] for alt in pictures} >= {"v1", "v2", "v4"}
    plots = " ".join(image["alt"] for image in page.images if "svg" in image["src"])
    for title in ("PSNR, dB of each video", "CSIM to the reference of each video", "SSIM along the frames"):
        assert title in plots
    for shown in ("FVD ↓", "KVD ↓", "FID-VID ↓", "only 6 independent clips", "SHA-256 1111", "evaluate --generated"):
        assert shown in page.words
