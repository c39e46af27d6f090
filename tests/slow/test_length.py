"""Memory of videos from 50 to 2,000 frames: host and device are one here, so all of it shows in the process's size.

pytest -n 0 -m slow -s tests/slow/test_length.py
"""

import os
import subprocess
import sys
from pathlib import Path

import pytest

from tests.training.mini_model import save_mini_model

pytestmark = pytest.mark.slow

LENGTHS = (50, 500, 2000)
MEASURE = """
import resource, sys
import numpy as np
from stableanimator_jax import Animator, SamplingConfig

frames = int(sys.argv[2])
animator = Animator.from_pretrained(sys.argv[1])
poses = np.random.default_rng(0).integers(0, 256, (frames, 64, 64, 3), np.uint8)
sampling = SamplingConfig(steps=2, window=16, overlap=4, sampler="dpmpp_2m")
kept = []
chunks = animator.stream(poses[0], poses, sampling=sampling, on_unfinished=kept.append)
made = sum(len(chunk) for chunk in chunks)
held = kept[-1].latents.nbytes + kept[-1].clean.nbytes + poses.nbytes
print(made, held, resource.getrusage(resource.RUSAGE_SELF).ru_maxrss)
"""


def test_memory_grows_by_poses_and_latents_alone(tmp_path):
    save_mini_model(tmp_path / "mini")
    environment = os.environ | {"JAX_PLATFORMS": "cpu", "PYTHONPATH": str(Path(__file__).parents[2])}
    peaks, held = {}, {}
    for frames in LENGTHS:
        command = [sys.executable, "-c", MEASURE, str(tmp_path / "mini"), str(frames)]
        done = subprocess.run(command, env=environment, capture_output=True, text=True, timeout=3600)
        assert done.returncode == 0, done.stderr
        made, held[frames], peak = map(int, done.stdout.split())
        assert made == frames
        peaks[frames] = peak * 1024
        print(
            f"\n{frames} frames of 64x64: {peaks[frames] / 1e6:.0f} MB, poses and latents {held[frames] / 1e6:.1f} MB"
        )
    grown, accounted = peaks[2000] - peaks[50], held[2000] - held[50]
    assert grown < 4 * accounted + 64e6  # copies of them while they are worked on, and what allocators keep
