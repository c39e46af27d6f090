"""`app.py`'s command line, and what of the page needs no server."""

import importlib.util
import threading
import time
from pathlib import Path

import pytest

from stableanimator_jax.errors import InputError
from stableanimator_jax.interrupts import check_interrupted
from stableanimator_jax.progress import ProgressBars
from stableanimator_jax.scripts.app.command import main
from stableanimator_jax.scripts.app.files import without_paths
from stableanimator_jax.scripts.app.form import Form, run_config
from stableanimator_jax.scripts.app.jobs import Job
from stableanimator_jax.scripts.app.serving import serve
from stableanimator_jax.scripts.app.settings import AppConfig
from stableanimator_jax.scripts.cli import run_script
from tests.app.conftest import UNCLOSED, Served


def test_without_gradio_it_says_what_to_install(monkeypatch, capsys):
    monkeypatch.setattr(importlib.util, "find_spec", lambda name: None)
    assert run_script(main, []) == 2
    said = capsys.readouterr().err
    assert "pip install 'stableanimator-jax[app]'" in said
    assert len(said.splitlines()) == 1


@pytest.mark.parametrize(
    ("flags", "words"),
    [
        (["--port", "0"], "port must be from 1 to 65535"),
        (["--dwpose", "nowhere"], "--dwpose nowhere is not a directory"),
        (["--queue", "0"], "queue must be"),
        (["--checkpoint", "nowhere"], "nowhere"),
    ],
)
def test_what_is_wrong_is_one_line(tmp_path, monkeypatch, capsys, flags, words):
    monkeypatch.chdir(tmp_path)
    assert run_script(main, flags) == 2
    said = capsys.readouterr().err
    assert words in said
    assert len(said.splitlines()) == 1
    assert not list(tmp_path.iterdir())


@UNCLOSED
def test_an_address_that_is_taken(served: Served):
    with pytest.raises(InputError, match="give another --host or --port"):
        serve(AppConfig(port=int(served.address.rstrip("/").rpartition(":")[2])))


@pytest.mark.parametrize(
    ("text", "told"),
    [
        ("photo /tmp/x-1/jobs/tmpab/photo/me at home.png is empty", "photo me at home.png is empty"),
        ("--width and --height must be even", "width and height must be even"),
        ("cannot read '/srv/weights/unet': gone", "cannot read 'unet': gone"),
        ("see https://example.org/a/b, 3/4 of it", "see https://example.org/a/b, 3/4 of it"),
    ],
)
def test_messages_have_no_paths(text: str, told: str):
    assert without_paths(text) == told


def test_a_job_is_watched_and_ended_and_the_next_one_waits_for_it():
    device, begun = threading.Lock(), threading.Event()

    def endless(job: Job) -> None:
        with ProgressBars(shown=False) as bars:
            step = bars.begin("denoising", "call")
            bars.step(2, 9)
            begun.set()
            for done in range(10**6):
                step(done % 4, 4)
                time.sleep(0.01)

    first, second = Job(endless, device), Job(lambda job: 7, device)
    standings = first.standings(every=0.01)
    next(standings)
    assert begun.wait(10)
    waiting = second.standings(every=0.01)
    assert next(waiting).label == "waiting for the device"
    now = next(standings)
    assert (now.label, now.total, now.note) == ("denoising", 4, "step 2 of 9")
    first.cancel()
    with pytest.raises(KeyboardInterrupt):
        list(standings)
    list(waiting)
    assert second.result == 7
    assert not device.locked()
    check_interrupted()  # only the job was


def test_a_job_that_is_cancelled_while_it_waits_does_nothing():
    device = threading.Lock()
    job = Job(lambda job: Path("never").touch(), device)
    with device:
        standings = job.standings(every=0.01)
        next(standings)
        job.cancel()
        with pytest.raises(KeyboardInterrupt):
            list(standings)
    assert not Path("never").exists()


def test_what_nothing_here_can_do_is_said_in_the_pages_words():
    form = Form(Path("a.png"), "example", None, (), 0, "default", 2, 64, 64, "published", "linear", False)
    with pytest.raises(InputError, match="choose off for the face optimisation"):
        run_config(form, AppConfig(), Path("a.mp4"))
