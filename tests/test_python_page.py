"""Every block of docs/python.md, run as it stands, one after the other."""

import re
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from stableanimator_jax.data.images import resize
from stableanimator_jax.data.video import read_frames
from stableanimator_jax.shipped import EXAMPLE
from tests.data.clips import encode
from tests.data.keypoint_files import controlnet_frames, dance, written
from tests.perception.standin_models import CELL
from tests.perception.standin_models import write_models as write_face_models
from tests.perception.standin_poses import draw_person, write_models

PAGE = Path(__file__).parents[1] / "docs/python.md"


@pytest.mark.slow
def test_every_block_of_the_page_runs(tmp_path, monkeypatch, capsys):
    """The models of DWPose and InsightFace are stand-ins, which see a person and a face where they are drawn."""
    monkeypatch.chdir(tmp_path)
    picture = resize(np.array(Image.open(EXAMPLE / "reference.png").convert("RGB")), 8 * CELL, 8 * CELL, "lanczos")
    draw_person(picture, (80, 64, 176, 240))
    picture[CELL : 2 * CELL, 3 * CELL : 4 * CELL] = [255, 0, 0]
    Image.fromarray(picture).save("person.png")
    Path("poses").mkdir()
    for i in range(4):
        Path(f"poses/frame_{i}.png").symlink_to(EXAMPLE / f"poses/frame_{i}.png")
    frames = [np.zeros((120, 160, 3), np.uint8) for _ in range(5)]
    for i, frame in enumerate(frames):
        draw_person(frame, (40 + 4 * i, 30, 80 + 4 * i, 100))
    encode(Path("dance.mov"), frames, codec="png", rate=8, pixels="rgb24")
    written(Path("dance.json"), controlnet_frames(dance(4, 64, 64)))
    write_models(Path("models/DWPose"))
    write_face_models(Path("models/antelopev2"))

    names = {}
    blocks = re.findall(r"```python\n(.*?)```", PAGE.read_text(encoding="utf-8"), re.DOTALL)
    for number, block in enumerate(blocks):
        exec(compile(block, f"block {number} of {PAGE.name}", "exec"), names)
    out = capsys.readouterr().out

    assert names["video"].shape == (4, 64, 64, 3)
    assert names["poses"].frames.any(axis=(1, 2, 3)).all()
    assert names["poses"].fps == 8
    assert names["drawn"].frames.any(axis=(1, 2, 3)).all()
    assert names["face"] is not None
    assert len(names["norms"]) == 2
    before, after = names["reports"][-1].similarity_before, names["reports"][-1].similarity_after
    assert -1 <= before <= 1
    assert -1 <= after <= 1
    assert repr(names["again"]).removesuffix("float32)").startswith("Animator(unet, vae, ")
    assert "width and height must be multiples of 16; the nearest is 96x64" in out
    with read_frames(Path("animation.mp4")) as (_, film):
        assert len(list(film)) == 4
