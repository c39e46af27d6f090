"""The preparation by Apache Beam's local runner with several processes."""

import os
import subprocess
import sys
from importlib.util import find_spec
from pathlib import Path

import pytest

from stableanimator_jax.data.prepared import read_dataset_file
from stableanimator_jax.preparation.config import BeamConfig
from stableanimator_jax.scripts.cli import run_script
from stableanimator_jax.scripts.prepare.command import main
from tests.preparation.training_videos import FLAGS, flags, models, scene, tree_bytes, write_video

ROOT = Path(__file__).parents[2]
HAS_BEAM = find_spec("apache_beam") is not None


@pytest.mark.skipif(HAS_BEAM, reason="Apache Beam is installed")
def test_without_beam_one_line_says_what_to_install(tmp_path, capsys):
    write_video(tmp_path / "videos" / "a.mkv", scene(17))
    argv = ["videos", str(tmp_path / "videos"), "--output", str(tmp_path / "root"), "--beam.runner", "DirectRunner"]
    assert run_script(main, argv) == 2
    assert "pip install 'stableanimator-jax[beam]'" in capsys.readouterr().err
    assert not (tmp_path / "root").exists()


@pytest.mark.skipif(not HAS_BEAM, reason="needs the [beam] extra")
def test_options_are_beams():
    from stableanimator_jax.preparation.beam_pipeline import beam_options

    options = beam_options(BeamConfig("DirectRunner", ("direct_num_workers=3", "--streaming")))
    given = options.get_all_options()
    assert (given["direct_num_workers"], given["streaming"]) == (3, True)


@pytest.mark.skipif(not HAS_BEAM, reason="needs the [beam] extra")
def test_many_processes_of_beam_make_what_one_machine_makes(tmp_path):
    videos = tmp_path / "videos"
    write_video(videos / "a.mkv", scene(18))
    write_video(videos / "b.mkv", scene(41, seed=1))
    write_video(videos / "no face.mkv", scene(17, face=False))
    (videos / "bad.mp4").write_bytes(b"nothing like a video" * 50)
    files = models(tmp_path / "models")

    def prepare(root: Path, *more: str) -> None:
        argv = [sys.executable, ROOT / "prepare_data.py", "videos", videos, "--output", root, *FLAGS, *flags(files)]
        environment = {**os.environ, "PYTHONPATH": str(ROOT)}
        done = subprocess.run([*map(str, argv), *more], capture_output=True, text=True, env=environment)
        assert done.returncode == 0, done.stderr

    prepare(tmp_path / "plain")
    options = ["direct_running_mode=multi_processing", "direct_num_workers=2"]
    prepare(tmp_path / "beam", "--beam.runner", "DirectRunner", "--beam.options", *options)

    plain, beam = tmp_path / "plain", tmp_path / "beam"
    assert read_dataset_file(beam) == read_dataset_file(plain)
    assert tree_bytes(beam) == tree_bytes(plain)
    assert read_dataset_file(plain)["failed"].keys() == {"bad.mp4"}
