"""Drawn people driven by keypoints that were put elsewhere."""

from dataclasses import replace

import numpy as np
import pytest

from examples.drawn_world.misaligned import (
    CASES,
    AlignmentConfig,
    Misalignment,
    alignment,
    joint_error,
    misaligned,
    still_reference,
)
from examples.drawn_world.pairs import unseen_pairs
from stableanimator_jax.perception import similarity

CONFIG = AlignmentConfig(pairs=2, frames=4, resamples=100)


def test_a_known_misalignment_is_what_was_asked_for():
    own = still_reference(unseen_pairs(1, 2000)[0], CONFIG).own
    assert joint_error(misaligned(own, Misalignment()), own) == pytest.approx(0, abs=1e-4)
    assert joint_error(misaligned(own, Misalignment(offset=(0.3, 0.4))), own) == pytest.approx(50, abs=1e-3)
    wide = misaligned(own, Misalignment(aspect=2.0))
    np.testing.assert_allclose(wide.points[..., 0] - own.points[..., 0], 256, atol=1e-3)
    half = misaligned(own, Misalignment(scale=0.5, degrees=90.0))
    spans = [np.ptp(k.points[0, :18], axis=0) for k in (own, half)]
    np.testing.assert_allclose(spans[1], spans[0][::-1] / 2, rtol=1e-4)
    shoulders = misaligned(own, Misalignment(shoulders_only=True))
    assert shoulders.scores[:, 2].all()
    assert not shoulders.scores[:, [3, 4, 8, 100]].any()


@pytest.mark.parametrize("case", ["scale 0.4", "scale 2.5", "offset 0.3", "16:9", "roll 30°"])
def test_a_similarity_takes_it_out(case):
    driver = still_reference(unseen_pairs(1, 2000)[0], CONFIG)
    plain, moved = (
        similarity.align(misaligned(driver.own, how), driver.standing).keypoints for how in (CASES["none"], CASES[case])
    )
    np.testing.assert_allclose(moved.points, plain.points, atol=0.5)  # of 512 pixels


@pytest.mark.slow
def test_the_table(tmp_path, capsys, monkeypatch):
    cases = {name: CASES[name] for name in ("none", "roll 15°")}
    monkeypatch.setattr("examples.drawn_world.misaligned.CASES", cases)
    config = replace(CONFIG, work=tmp_path / "work")
    alignment(replace(config, sampling=replace(config.sampling, steps=1)))
    rows = [line.split("|")[1:-1] for line in capsys.readouterr().out.splitlines() if line]
    assert [row[0].strip() for row in rows] == ["misalignment", "---", *cases]
    errors = [[float(cell.split("%")[0]) for cell in row[1:]] for row in rows[2:]]
    assert errors[0][3] == 0  # off, where nothing is to be taken out
    linear, similar, _, off = errors[1]
    assert similar == errors[0][1] < min(linear, off)
    assert (tmp_path / "work" / "alignment.png").stat().st_size > 1000
    assert (tmp_path / "work" / "alignment.md").read_text().count("\n") == 4
