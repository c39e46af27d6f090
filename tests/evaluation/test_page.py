"""The block of docs/evaluation.md runs as it stands."""

import re
from pathlib import Path

import pytest

from tests.evaluation.drawn_videos import noisy, video

PAGE = Path(__file__).parents[2] / "docs/evaluation.md"


def test_the_pages_python(capsys):
    (block,) = re.findall(r"```python\n(.*?)```", PAGE.read_text(encoding="utf-8"), flags=re.DOTALL)
    truths = [video(seed, frames=16, height=24, width=24) for seed in (0, 1)]
    names = {"videos": [(f"v{i}", noisy(truth, i), truth, truth[0]) for i, truth in enumerate(truths)]}
    exec(compile(block, PAGE.name, "exec"), names)
    assert names["summary"].metrics["psnr"].value == pytest.approx(36, abs=1)
    assert "videos=2" in capsys.readouterr().out
