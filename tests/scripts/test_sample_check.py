"""`sample.py --check`: what it says and leaves, and that it computes and replaces nothing."""

import re
from pathlib import Path

import numpy as np
import pytest

from stableanimator_jax.config import StableAnimatorConfig
from stableanimator_jax.data.video import read_frames
from stableanimator_jax.models.flops import matmul_flops
from stableanimator_jax.sampling.config import HJBConfig, SamplingConfig
from stableanimator_jax.sampling.denoiser import predict
from stableanimator_jax.sampling.forecast import array, forecast, step_arguments
from tests.scripts.sample_script import QUICK, call, photo, poses, tree
from tests.training.mini_model import save_mini_model, save_mini_relative


@pytest.fixture
def place(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    save_mini_model(tmp_path / "mini")
    photo(tmp_path / "photo.png")
    poses(tmp_path / "poses", 5)
    return tmp_path


def check(*flags: object, output: str = "out.mp4") -> int:
    given = ["--checkpoint", "mini", "--reference", "photo.png", "--poses", "poses", *QUICK]
    return call(*given, "--check", "--output", output, *flags)


def test_page_and_video(place, capsys):
    before = tree(place)
    assert check() == 0
    said = capsys.readouterr().out
    assert "output: 5 frames of 64x64, 7 a second" in said
    assert re.search(r"predicted time: about \d", said)
    assert "nothing was animated" in said
    assert tree(place) - before == {"out.mp4.check.html", "out.mp4.check.mp4"}
    with read_frames(Path("out.mp4.check.mp4")) as (info, frames):
        assert (info.width, info.height, len(list(frames))) == (64, 64, 5)
    page = Path("out.mp4.check.html").read_text()
    assert page.count("data:image/png;base64,") == 1 + 5
    assert "5 frames of 64x64" in page
    assert 'src="out.mp4.check.mp4"' in page

    # Again, over its own; then what it says of a run, the run does.
    assert check("--driving-max-frames", 3) == 2
    assert check("--steps", 3) == 0
    assert check("--steps", 3, "--no-check") == 0
    assert {"out.mp4", "out.mp4.json", "out.mp4.check.html"} <= tree(place)


def test_warnings_are_on_the_page_and_pages_are_escaped(place, capsys):
    np.save("face.npy", np.ones(512, np.float32))
    (place / "a<b>").mkdir()
    save_mini_relative(place / "svd", "svd")
    given = ["--checkpoint", "svd", "--reference", "photo.png", *QUICK, "--check", "--face-embedding", "face.npy"]
    assert call(*given, "--output", "a<b>/out.mp4") == 0
    page = Path("a<b>/out.mp4.check.html").read_text()
    assert '<p class="warning">these weights have no ID adapter: no face is given to them</p>' in page
    assert "none: these weights take none" in page
    assert not Path("a<b>/out.mp4.check.mp4").exists()
    assert "warning: these weights" in capsys.readouterr().err  # and where it always is


@pytest.mark.parametrize("name", ["out.mp4.check.html", "out.mp4.check.mp4"])
def test_nothing_of_others_is_replaced(place, capsys, name):
    (place / name).write_text("mine")
    assert check() == 2
    assert f"will not replace {place / name}, which no --check left there" in capsys.readouterr().err
    assert (place / name).read_text() == "mine"


def test_where_poses_cannot_be_kept_is_said_before_they_are_found(place, capsys):
    (place / "kept").mkdir()
    (place / "kept/mine.txt").write_text("mine")
    given = ["--checkpoint", "mini", "--reference", "photo.png", *QUICK, "--driving", "no.mp4", "--dwpose", "dwpose"]
    assert call(*given, "--check", "--save-poses", "kept", "--output", "out.mp4") == 2
    assert "kept" in capsys.readouterr().err
    assert tree(place / "kept") == {"mine.txt"}


def test_what_goes_with_it(place, capsys):
    assert check("--warm-up", "--compilation-cache") == 2
    assert "--check computes nothing: leave out --warm-up" in capsys.readouterr().err
    before = tree(place)
    assert check("--reference", "nobody.png") == 2
    assert tree(place) == before


@pytest.mark.long
def test_a_forecast_counts_what_the_programs_do():
    """Of windows, branches and steps: 9 frames in windows of 4 that overlap by 1 are 3 windows."""
    config, sampling = StableAnimatorConfig.tiny(), SamplingConfig(steps=5, window=4, overlap=1)
    step = matmul_flops(predict, *step_arguments(config, 4, 64, 64, "float32", array))

    def ahead(**changes):
        settings = SamplingConfig(**vars(sampling) | changes)
        return forecast(config, 9, 64, 64, settings, HJBConfig(), "float32")

    assert ahead().denoise_flop == pytest.approx(5 * 3 * step, rel=1e-6)
    assert ahead(guidance_min=1.0, guidance_max=1.0).denoise_flop == pytest.approx(5 * 3 * step / 2, rel=1e-6)
    assert ahead().optimise_flop == 0
    optimised = forecast(config, 9, 64, 64, sampling, HJBConfig(iterations=2), "float32")
    assert optimised.optimise_flop == pytest.approx(3 * optimised.decode_flop * 2 * 4)
    assert optimised.seconds(1e12) == pytest.approx(optimised.flop / 0.5e12)
