"""The table of what each control does: every row is made as it says, and compared with the first, pair by pair."""

import numpy as np

from examples.drawn_world import control, study
from examples.drawn_world.study import Measured
from stableanimator_jax.sampling.config import PUBLISHED_STRENGTH, Strength


class _Painter:
    """An animator whose frames are as bright as the strengths, and which keeps what it is given."""

    def __init__(self):
        self.given = []

    def __call__(self, checkpoint):
        return self

    def embed_face(self, *_):
        return np.ones(512, np.float32)

    def animate(self, reference, poses, *, sampling, **_):
        self.given.append((sampling, poses))
        grey = round(40 * sampling.pose.strength * sampling.face.strength * sampling.image.strength)
        return np.full((len(poses), *reference.shape), grey, np.uint8)


def test_each_row_is_made_as_it_says(tmp_path, monkeypatch, capsys):
    painter = _Painter()

    def measured(judges, pairs, references, videos, seconds, title):
        scores = dict.fromkeys(("csim", "skin_iou", "person_iou", "psnr"), videos.mean((1, 2, 3, 4)) / 40)
        return Measured(scores, np.zeros(0, np.float32), videos, seconds)

    monkeypatch.setattr(study, "fingerprint", lambda checkpoint, model: model)
    monkeypatch.setattr(control, "OneAnimator", lambda: painter)
    monkeypatch.setattr(control, "load_judges", lambda *_: None)
    monkeypatch.setattr(control, "measure_truth", lambda *_: ({}, None, {}))
    monkeypatch.setattr(control, "measure", measured)
    control.control(control.ControlConfig(pairs=2, frames=2, size=32, resamples=100, work=tmp_path / "control"))

    header, _, first, *others = capsys.readouterr().out.splitlines()
    assert header == "| | CSIM | IoU of the skin | IoU of the person | PSNR, dB |"
    assert first == "| published | 1.000 | 1.000 | 1.000 | 1.00 |"
    rows = {row.split(" | ")[0].strip("| `"): row for row in others}
    assert len(rows) == len(control._SETTINGS) - 1
    assert rows["--pose.strength 0.5"].startswith("| `--pose.strength 0.5` | 0.500 (**-0.500**) |")
    assert rows["--hands off"].startswith("| `--hands off` | 1.000 (+0.000) |")

    made = dict(zip(control._SETTINGS, zip(painter.given[::2], painter.given[1::2], strict=True), strict=True))
    (published, poses), (next_one, _) = made["published"]
    assert {published.pose, published.face, published.image} == {PUBLISHED_STRENGTH}
    assert next_one.seed == published.seed + 1
    assert made["`--pose.end 0.8`"][0][0].pose == Strength(1, 0, 0.8)
    assert made["`--face.strength 2`"][1][0].face == Strength(2)
    np.testing.assert_array_equal(made["`--image.strength 0`"][0][1], poses)
    for style in ("`--face-keypoints faint`", "`--face-keypoints off`", "`--hands off`"):
        assert (made[style][0][1] != poses).any()
