import numpy as np

from stableanimator_jax.preparation.staging import read_clip, write_clip
from tests.data.test_clip_format import record


def test_staged_clips_come_back_as_they_were(tmp_path):
    before = record()
    write_clip(tmp_path / "clip.npz", before)
    after = read_clip(tmp_path / "clip.npz")
    for field, value in vars(before).items():
        assert np.array_equal(getattr(after, field), value), field
        assert type(getattr(after, field)) is type(value)
