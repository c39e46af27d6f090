"""What true frames lose by the VAE alone, and telling faces with glasses from those without."""

import dataclasses

import numpy as np
import pytest

from examples.drawn_world.clips import TEST_SEEDS
from examples.drawn_world.glasses import GlassesTraining, has_glasses, load_glasses, share_right, train
from examples.drawn_world.limits import LimitsConfig, limits
from examples.drawn_world.people import make_person
from stableanimator_jax.data.face_track import FaceTrack
from stableanimator_jax.errors import InputError


def test_glasses_are_right_where_they_are_as_in_truth():
    people = range(TEST_SEEDS, TEST_SEEDS + 30)
    assert {has_glasses(person) for person in people} == {True, False}
    frames = np.zeros((4, 8, 8, 3), np.uint8)
    faces = FaceTrack(np.zeros((4, 4), np.float32), None, np.array([True, True, True, False]))
    for person in people:
        found = share_right(lambda frames, boxes: np.array([True, False, False, True]), frames, faces, person)
        assert found == pytest.approx(1 / 3 if make_person(person).glasses != "none" else 2 / 3)


def test_what_is_no_classifier(tmp_path):
    with pytest.raises(InputError, match=r"cannot read .*glasses.npz, which `glasses` makes"):
        load_glasses(tmp_path)
    np.save(tmp_path / "array.npy", np.zeros(3))
    np.savez(tmp_path / "arrays.npz", a=np.zeros(300))
    array, arrays = ((tmp_path / name).read_bytes() for name in ("array.npy", "arrays.npz"))
    for content in (b"something", b"", array, arrays, arrays[:200]):
        (tmp_path / "glasses.npz").write_bytes(content)
        with pytest.raises(InputError, match="something else"):
            load_glasses(tmp_path)
    with pytest.raises(InputError, match="is there already"):
        train(GlassesTraining(output=tmp_path))


def test_chunks_have_frames():
    with pytest.raises(InputError, match="--decode-chunk must be at least 1, got 0"):
        LimitsConfig(decode_chunk=0)


@pytest.mark.slow
def test_the_limits_of_the_weights_in_the_package(tmp_path, capsys):
    config = GlassesTraining(output=tmp_path / "glasses", steps=2, batch=4, people=4, tests=4)
    train(config)
    assert "of 4 people it never saw" in capsys.readouterr().out
    limits(LimitsConfig(pairs=2, frames=5, glasses=config.output, resamples=100))
    rows = {}
    for line in capsys.readouterr().out.splitlines():
        name, truth, vae = (cell.strip() for cell in line.strip("|").split("|"))
        rows[name] = [cell.split(" ")[0] for cell in (truth, vae)]
    csim, through_vae = map(float, rows["CSIM"])
    assert 0.8 < through_vae < csim + 0.02 < 1
    assert 27 < float(rows["PSNR, dB"][1]) < 35
    assert rows["PSNR, dB"][0] == ""
    assert float(rows["IoU of the person"][1]) > 0.9
    assert 0 < float(rows["Flicker of the wall, levels"][1]) < 2
    assert all(0 <= float(share) <= 1 for share in rows["Glasses as in truth"])
    with pytest.raises(InputError, match="--pairs must be at least 2"):
        dataclasses.replace(LimitsConfig(), pairs=1)
