"""One video by two processes of `sample.py`, each with four devices: that of one process, or one line says why not."""

import json
import signal
import subprocess
import time

import numpy as np
import pytest

from tests.scripts.sample_script import QUICK, photo, pixels, poses, start
from tests.scripts.train_script import free_port
from tests.training.mini_model import save_mini_model

pytestmark = pytest.mark.slow
FRAMES = 7


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    return tmp_path_factory.mktemp("processes")


@pytest.fixture(scope="module")
def flags(folder):
    boxes = {"width": 64, "height": 64, "frames": [None if i == 2 else {"box": [8, 8, 55, 55]} for i in range(FRAMES)]}
    (folder / "boxes.json").write_text(json.dumps(boxes))
    np.save(folder / "face.npy", np.ones(512, np.float32))
    return [
        "--reference", photo(folder / "photo.png"), "--poses", poses(folder / "poses", FRAMES),
        "--checkpoint", save_mini_model(folder / "checkpoint"), *QUICK, "--decode-chunk=2", "--keep-every=0",
    ]  # fmt: skip


def begin(folder, *flags, each=((), ())) -> list[subprocess.Popen[str]]:
    """Two processes with the same flags, and each with some of its own."""
    port = free_port()
    together = ["--distributed.start", "explicit", "--distributed.coordinator", f"127.0.0.1:{port}"]
    own = [["--distributed.processes", 2, "--distributed.process", n, *each[n]] for n in range(2)]
    return [start(*flags, *together, *mine, cwd=folder, JAX_NUM_CPU_DEVICES="4") for mine in own]


def end(processes, *, seconds: float = 300) -> list[tuple[int, str, str]]:
    try:
        said = [process.communicate(timeout=seconds) for process in processes]
    finally:
        for process in processes:
            process.kill()
    return [(process.returncode, out, err) for process, (out, err) in zip(processes, said, strict=True)]


def alone(folder, *flags) -> None:
    process = start(*flags, cwd=folder)
    _, err = process.communicate(timeout=300)
    assert process.returncode == 0, err


def test_the_video_is_that_of_one(folder, flags):
    alone(folder, *flags, "--output", "one")
    (first, out, err), (second, silent, nothing) = end(begin(folder, *flags, "--output", "two"))
    assert (first, second) == (0, 0), err + nothing
    assert "device: 8 x cpu" in out
    assert "8 devices: 4 rows at once, each row's frames over 2" in out
    assert "wrote " in out
    assert not {word for word in ("device", "wrote", "denoising") if word in silent + nothing}
    one, two = (pixels(folder / name).astype(int) for name in ("one", "two"))
    assert two.shape == (FRAMES, 64, 64, 3)
    assert np.abs(one - two).max() <= 1
    assert np.abs(one - two).mean() < 0.01
    record = json.loads((folder / "two.json").read_text())
    assert record["result"]["devices"] == {"rows": 4, "frames": 2}
    assert record["configuration"]["distributed"]["start"] == "off"  # it can be repeated on one


def test_in_16_bits(folder, flags):
    """Whose frames are looked through for numbers that are too large, by every process those of its own."""
    assert [status for status, _, _ in end(begin(folder, *flags, "--dtype=float16", "--output", "half"))] == [0, 0]
    assert pixels(folder / "half").shape == (FRAMES, 64, 64, 3)


def test_with_the_face_optimisation(folder, flags):
    optimised = [flag for flag in flags if not str(flag).startswith("--hjb")]
    optimised += ["--hjb.iterations=2", "--hjb.chunk=2", "--face-boxes", "boxes.json", "--face-embedding", "face.npy"]
    alone(folder, *optimised, "--output", "faces-one")
    assert [status for status, _, _ in end(begin(folder, *optimised, "--output", "faces-two"))] == [0, 0]
    one, two = (pixels(folder / name).astype(int) for name in ("faces-one", "faces-two"))
    # Adam moves by the sign of a gradient, which rounding decides where the gradient is nothing.
    assert np.abs(one - two).mean() < 0.5
    reports = [json.loads((folder / f"faces-{name}.json").read_text())["hjb"] for name in ("one", "two")]
    for a, b in zip(*reports, strict=True):
        assert b["similarity_after"] == pytest.approx(a["similarity_after"], abs=1e-4)


@pytest.mark.parametrize("victim", [0, 1])
def test_the_end_of_one_ends_both_with_one_line_and_both_go_on_from_there(folder, flags, victim):
    name = f"killed-{victim}"
    more = [*flags, "--steps=12", "--output", name]
    kept = folder / f".{name}.unfinished" / "latents.npz"
    processes = begin(folder, *more)
    deadline = time.monotonic() + 300
    while not kept.exists() and processes[0].poll() is None and time.monotonic() < deadline:
        time.sleep(0.05)
    processes[victim].kill()
    ended = end(processes)
    assert ended[victim][0] == -signal.SIGKILL
    status, _, err = ended[1 - victim]
    assert status not in (0, -signal.SIGKILL)
    assert err.splitlines()[-1].startswith("error: another process of this run ended, or cannot be reached")
    assert "Traceback" not in err
    assert "***" not in err  # a trace of the C++ stack
    assert not (folder / name).exists()
    assert kept.exists()

    (first, out, err), (second, _, _) = end(begin(folder, *more, "--resume"))
    assert (first, second) == (0, 0), err
    assert "going on after step" in out
    alone(folder, *more[:-1], f"straight-{victim}")
    made = [pixels(folder / directory).astype(int) for directory in (name, f"straight-{victim}")]
    assert np.abs(made[0] - made[1]).mean() < 0.1


def test_what_one_was_told_otherwise_or_cannot_read_both_say(folder, flags):
    for status, _, err in end(begin(folder, *flags, "--output", "not", each=[["--seed=0"], ["--seed=1"]])):
        assert status == 2
        assert "the processes do not agree: sampling.seed is 0 on process 0, but 1 on process 1" in err.splitlines()[-1]
    np.save(folder / "other.npy", np.full(512, 2, np.float32))
    own = [["--dtype=float32", "--face-embedding=face.npy"], ["--dtype=float32", "--face-embedding=other.npy"]]
    for status, _, err in end(begin(folder, *flags, "--output", "not", each=own)):
        assert status == 2
        assert "the processes do not agree: " in err.splitlines()[-1]
        assert "face_embedding" in err or "identity" in err
    for status, _, err in end(begin(folder, *flags, "--poses", "nowhere", "--output", "not")):
        assert status == 2
        assert "nowhere does not exist" in err.splitlines()[-1]
    assert not list(folder.glob("not*"))
