"""The gallery shows everybody in every motion, in its place."""

import numpy as np
import pytest
from PIL import Image

from examples.drawn_world.gallery import GalleryConfig, arranged, draw_everybody, gallery
from examples.drawn_world.study import Condition
from stableanimator_jax.errors import InputError


def test_everybody_makes_the_same_motions():
    pairs = draw_everybody(GalleryConfig(people=3, motions=2, frames=2))
    assert len({p.pair.person for p in pairs}) == 3
    assert [p.pair.driving_motion for p in pairs[:2]] * 3 == [p.pair.driving_motion for p in pairs]
    assert (pairs[0].poses != pairs[1].poses).any()


def test_pictures_are_in_their_places():
    references = np.arange(3, dtype=np.uint8)[:, None, None, None] + np.zeros((3, 8, 8, 3), np.uint8)
    videos = np.zeros((3, 2, 4, 8, 8, 3), np.uint8) + 100
    videos[:, 1, 3] = 200
    frames = arranged(references, videos, columns=2)
    assert frames.shape == (4, 2 * 10 - 2, 2 * 34 - 6, 3)
    assert (frames[:, :8, :8] == 0).all()
    assert (frames[:, :8, 34:42] == 1).all()
    assert (frames[:, 10:, :8] == 2).all()
    assert (frames[:3, :8, 20:28] == 100).all()
    assert (frames[3, :8, 20:28] == 200).all()
    assert (frames[:, 10:, 34:] == 255).all()  # there is no fourth


def test_the_picture_moves(tmp_path, monkeypatch, capsys):
    def made(condition: Condition, animator_of, pairs, config):
        assert condition.iterations > 0
        return np.stack([pair.truth for pair in pairs]), np.zeros(len(pairs))

    monkeypatch.setattr("examples.drawn_world.gallery.make_videos", made)
    picture = tmp_path / "gallery.gif"
    gallery(GalleryConfig(people=2, motions=1, frames=3, columns=1, scale=1, picture=picture))
    assert str(picture) in capsys.readouterr().out
    with Image.open(picture) as shown:
        assert (getattr(shown, "n_frames", 1), shown.size) == (3, (130, 130))


def test_a_picture_that_cannot_be_is_refused_before_anything_is_made(tmp_path, monkeypatch):
    monkeypatch.setattr("examples.drawn_world.gallery.draw_everybody", lambda config: pytest.fail("it drew"))
    with pytest.raises(InputError, match=r"gallery\.png"):
        gallery(GalleryConfig(picture=tmp_path / "gallery.png"))
    with pytest.raises(InputError, match="at most 16383 pixels a side"):
        gallery(GalleryConfig(picture=tmp_path / "gallery.webp", scale=50))
    with pytest.raises(InputError, match="--size must be at least 16"):
        gallery(GalleryConfig(picture=tmp_path / "gallery.webp", size=8, first_pair=0))
