"""`train.py` on bad input: one clear line on stderr, exit status 2, and nothing lost or half-written."""

import json
import os
import re
import shutil
import socket
import subprocess
import sys
from pathlib import Path

import pytest
from etils import epath

from stableanimator_jax.errors import InputError
from stableanimator_jax.locking import alone_in
from stableanimator_jax.scripts.cli import run_script
from stableanimator_jax.scripts.train import run
from stableanimator_jax.scripts.train.command import main
from tests.data.published_folders import make_folder
from tests.scripts.train_script import FLAGS, ROOT, finish, start, start_together
from tests.training import drawn_clips
from tests.training.drawn_clips import write_drawn_dataset
from tests.training.mini_model import save_mini_model

OUTPUT = ("--output", "out")
DRAWN = drawn_clips.drawn_record


@pytest.fixture(scope="module")
def given(tmp_path_factory):
    folder = tmp_path_factory.mktemp("given")
    write_drawn_dataset(folder / "data", train=2, validation=1, frames=6)
    save_mini_model(folder / "mini")
    return folder


@pytest.fixture(autouse=True)
def place(given, tmp_path, monkeypatch):
    """A working directory with the data and the weights; nothing may get as far as training."""
    monkeypatch.chdir(tmp_path)
    for name in ("data", "mini"):
        shutil.copytree(given / name, name)
    monkeypatch.setattr(run, "_train", lambda *_: pytest.fail("it began to train"))
    return tmp_path


def call(*argv: object) -> int:
    flags = ["--init-from", "mini", "--data.dataset", "data", *FLAGS, "--no-compilation-cache"]
    return run_script(main, [*flags, *map(str, argv)])


def error(capsys, *argv: object) -> str:
    assert call(*argv) == 2
    complaint = capsys.readouterr().err
    assert complaint.startswith("error: ")
    assert complaint.count("\n") == 1
    return complaint.removeprefix("error: ").strip()


@pytest.mark.parametrize(
    ("flags", "message"),
    [
        (["--optimizer.learning-rat", "1"], "did you mean --optimizer.learning-rate"),
        (["--trainable.unet", "attention"], "--trainable.unet"),
        (["--optimizer.beta2", "1"], "optimizer.beta2 must be at least 0 and below 1, got 1.0"),
        (["--optimizer.learning-rate", "nan"], "learning-rate must be at least 0, got nan"),
        (["--objective.dropout", "0.5"], "at most 1/3"),
        (["--steps", "0"], "steps must be at least 1, got 0"),
        (["--checkpoints.every", "0"], "checkpoints.every must be at least 1"),
        (["--mesh.fsdp", "3"], "fsdp 3"),
        (["--mesh.data", "2"], "takes 2 devices: there are 1"),
        (["--optimizer.learning-rate", "inf"], "learning-rate must be at least 0, got inf"),
        (["--optimizer.accumulate", "3"], "make --data.batch-size a multiple of 3, such as 3"),
        (["--data.frames", "6"], " has 6 frames, but 6 and another one for the reference are needed"),
        (["--init-from", "nowhere"], "nowhere does not exist"),
        (["--data.dataset", "nowhere"], "nowhere holds no prepared dataset"),
        (["--data.lists", "a.txt", "--data.sizes", "64x64"], "not both"),
        (["--distributed.start", "explicit"], "needs --distributed.coordinator"),
        (["--distributed.process", "1"], "not --distributed.start explicit"),
        (
            [
                "--distributed.start",
                "explicit",
                "--distributed.coordinator",
                "host",
                "--distributed.processes",
                "2",
                "--distributed.process",
                "1",
            ],
            "distributed.coordinator must be HOST:PORT, such as 10.0.0.1:1234, got host",
        ),
        (["--data.encoded"], "there are no encoded clips in"),
        (["--resume-step", "3"], "has no checkpoint of step 3; it has none"),
        (["--output", "data/dataset.json"], "dataset.json"),
        (["--output", "/proc/out"], "/proc/out"),
        (["--device", "tpu"], "--device tpu"),
        (["--wandb.mode", "sometimes"], "--wandb.mode"),
        (["--output", "gs://bucket/run"], "a URL; checkpoints alone can go to a bucket: --checkpoint-directory gs://"),
        (["--checkpoint-directory", "gs://bucket/run"], "pip install 'etils[epath-gcs]'"),
        (["--checkpoint-directory", "ftp://host/run"], "cannot write checkpoints to ftp://host/run: give a folder, or"),
        (["--init-from", "gs://bucket/mini"], "gs://bucket/mini is a URL"),
        (["--data.dataset", "s3://bucket/data"], "s3://bucket/data is a URL"),
        (["--trainable.lora-rank", "1000000"], "trainable.lora-rank must be from 1 to 4096, got 1000000"),
        (["--distributed.wait", "0"], "distributed.wait must be at least 1"),
    ],
    ids=lambda value: " ".join(value) if isinstance(value, list) else "",
)
def test_settings(capsys, flags, message):
    assert message in error(capsys, *OUTPUT, *flags)
    assert not list(Path("out").glob("checkpoints/[0-9]*"))


def test_no_data(capsys):
    status = run_script(main, ["--init-from", "mini", *OUTPUT])
    assert (status, capsys.readouterr().err.count("\n")) == (2, 1)


def test_a_dataset_without_validation(capsys):
    text = json.loads(Path("data/dataset.json").read_text())
    del text["buckets"]["64x64"]["validation"]
    Path("data/dataset.json").write_text(json.dumps(text))
    assert "--validation.every 0" in error(capsys, *OUTPUT)


def test_folders_of_another_size_or_without_embeddings(capsys):
    make_folder(Path("a"), 8, size=(72, 72))
    Path("a.txt").write_text("a\n")
    lists = ["--data.lists", "a.txt", "--validation.every", "0", "--init-from", "mini", *FLAGS, *OUTPUT]
    assert run_script(main, [*lists, "--data.sizes", "72x72"]) == 2
    assert "72x72" in capsys.readouterr().err
    Path("a/embeddings.npy").unlink()
    assert run_script(main, [*lists, "--data.sizes", "64x64"]) == 2
    assert re.search(r"embeddings\.npy is missing; `stableanimator prepare faces` makes it", capsys.readouterr().err)


def test_half_a_checkpoint_to_begin_from(capsys):
    part = next(path for path in Path("mini/unet").rglob("*") if path.is_file() and path.stat().st_size > 100)
    part.write_bytes(part.read_bytes()[:50])
    assert "is damaged" in error(capsys, *OUTPUT)
    Path("mini/config.json").unlink()
    assert "no config.json" in error(capsys, *OUTPUT)


@pytest.mark.long
def test_a_checkpoint_without_a_vae(capsys):
    save_mini_model(Path("part"), models=("unet", "image_encoder"))
    assert "has no vae, from which training must begin" in error(capsys, *OUTPUT, "--init-from", "part")


def save_once(made, state, done, batches, loader, checkpoints, *_):
    """A run of one step that computes nothing."""
    checkpoints.save(done + 1, state, batches.state(), run._weights(made, state, done + 1))


@pytest.mark.slow
def test_another_runs_directory(capsys, monkeypatch):
    monkeypatch.setattr(run, "_train", save_once)
    assert call(*OUTPUT, "--validation.every", "0") == 0
    before = {path: path.stat().st_mtime_ns for path in Path("out/checkpoints").rglob("*")}
    assert "holds a run's checkpoints already (step 1): go on with it by --resume" in error(capsys, *OUTPUT)
    assert "begun with --trainable.unet attentions and cannot go on with all" in error(
        capsys, *OUTPUT, "--resume", "--trainable.unet", "all"
    )
    assert "begun with --optimizer.kind adamw and cannot go on with muon" in error(
        capsys, *OUTPUT, "--resume", "--optimizer.kind", "muon"
    )
    scale = next(
        path for path in Path("out/checkpoints/1/state").rglob("*") if path.is_file() and path.stat().st_size > 500
    )
    whole = scale.read_bytes()
    scale.write_bytes(whole[:100])
    assert re.search(r"cannot read the checkpoint of step 1.*delete", error(capsys, *OUTPUT, "--resume"))
    scale.write_bytes(whole)
    assert {path: path.stat().st_mtime_ns for path in Path("out/checkpoints").rglob("*") if path != scale} == {
        path: time for path, time in before.items() if path != scale
    }


@pytest.mark.long
def test_settings_that_a_run_cannot_change(capsys, monkeypatch):
    monkeypatch.setattr(run, "_train", save_once)
    apart = ("--checkpoint-directory", "elsewhere", "--validation.every", "0", *OUTPUT)
    assert call(*apart) == 0
    assert "--optimizer.ema-decay 0.0 and cannot go on" in error(
        capsys, *apart, "--resume", "--optimizer.ema-decay", "0.9"
    )
    assert call(*apart, "--resume", "--optimizer.clip-norm", "0") == 0
    Path("out/config.json").unlink()
    assert "config.json is missing" in error(capsys, *apart, "--resume")


@pytest.mark.long
def test_other_weights_than_the_run_began_from(capsys, monkeypatch, given):
    monkeypatch.setattr(run, "_train", save_once)
    assert call(*OUTPUT, "--validation.every", "0") == 0
    save_mini_model(Path("other"), seed=9)
    message = error(capsys, *OUTPUT, "--resume", "--init-from", "other", "--validation.every", "0")
    assert "are others: give those by --init-from" in message


@pytest.mark.long
def test_a_run_begun_by_an_older_version_goes_on_with_a_warning(capsys, monkeypatch):
    monkeypatch.setattr(run, "_train", save_once)
    assert call(*OUTPUT, "--validation.every", "0") == 0
    settings = Path("out/config.json")
    before = json.loads(settings.read_text())
    settings.write_text(json.dumps({"settings": before["settings"], "frozen_weights": "0123"}))
    capsys.readouterr()
    assert call(*OUTPUT, "--resume", "--validation.every", "0") == 0
    assert "warning: " in (warned := capsys.readouterr().err)
    assert "is of an older version of this program" in warned
    assert json.loads(settings.read_text())["frozen_digest"] == before["frozen_digest"]


def test_a_bucket_that_is_not_there(capsys, monkeypatch):
    """gcsfs's errors are not `OSError`s; and no directory is made, because it would make the bucket for it."""

    class HttpError(Exception):
        pass

    def refuse(self, *_, **__):
        raise HttpError("The specified bucket does not exist., 404\nmore")

    fail = lambda *_, **__: pytest.fail("a bucket was made")  # noqa: E731
    monkeypatch.setattr(type(epath.Path("gs://bucket")), "write_text", refuse)
    monkeypatch.setattr(type(epath.Path("gs://bucket")), "mkdir", fail)
    message = error(capsys, *OUTPUT, "--checkpoint-directory", "gs://buket/run")
    assert message.startswith(
        "cannot write to gs://buket/run/checkpoints: The specified bucket does not exist., 404; is"
    )


def test_two_runs_in_one_directory(capsys):
    """Whichever way they share it; a run that was killed leaves its file, and no lock."""
    with alone_in(Path("out")):
        assert f"another run is writing to {Path('out').absolute()} (process " in error(capsys, *OUTPUT)
        shared = ("--output", "other", "--checkpoint-directory", "out")
        assert "another run is writing to" in error(capsys, *shared)
        assert not Path("out/checkpoints").exists()
    killed = subprocess.Popen(
        [sys.executable, "-c", HOLD], stdout=subprocess.PIPE, env=os.environ | {"PYTHONPATH": str(ROOT)}
    )
    assert killed.stdout is not None
    killed.stdout.readline()
    with pytest.raises(InputError, match=f"process {killed.pid} on "), alone_in(Path("out")):
        pass
    killed.kill()
    killed.communicate()
    with alone_in(Path("out")):
        pass


HOLD = """
import pathlib, time
from stableanimator_jax.locking import alone_in
with alone_in(pathlib.Path("out")):
    print("held", flush=True)
    time.sleep(600)
"""


@pytest.mark.parametrize("process", ["0", "1"])
def test_a_process_whose_others_do_not_come(given, process):
    address = ("--distributed.start", "explicit", "--distributed.coordinator", "127.0.0.1:1")
    if process == "0":
        with socket.socket() as free:
            free.bind(("127.0.0.1", 0))
            address = (*address[:3], f"127.0.0.1:{free.getsockname()[1]}")
    alone = ("--distributed.processes", "2", "--distributed.process", process, "--distributed.wait", "2")
    _, complaint = finish(start(given, *address, *alone), 2)
    waiting, problem = complaint.splitlines()
    whom = "1 more of 2 processes" + (", of them process 0" if process == "1" else "") + f" at {address[3]}"
    assert waiting == f"waiting for {whom}, for 2 s"
    assert problem.startswith(f"error: waited 2 s in vain for {whom}: start every process of the run")


def test_slurm_where_there_is_none(given):
    _, complaint = finish(start(given, "--distributed.start", "slurm"), 2)
    assert complaint.splitlines()[-1] == "error: --distributed.start slurm does not work here: SLURM_JOB_ID is not set"


def test_processes_that_fail_end_all(given):
    """Also where only some of them have something to complain of: here the one without a device in the mesh."""
    given_both = ("--init-from", str(given / "mini"), "--data.dataset", str(given / "data"), "--output", "out")
    for process in start_together(given, 2, 1, *given_both, "--mesh.data", "1"):
        _, complaint = finish(process, 2)
        assert "error: the mesh has 1 devices of 2" in complaint


def test_processes_that_were_told_different_things(given):
    given_both = ("--init-from", str(given / "mini"), "--data.dataset", str(given / "data"), "--output", "out")
    processes = start_together(given, 2, 1, *given_both, each=[["--seed", "1"], ["--seed", "2"]])
    for process in processes:
        _, complaint = finish(process, 2)
        assert "training:" not in complaint
        assert "error: the processes do not agree: seed is 1 on process 0, but 2 on process 1" in complaint


@pytest.mark.slow
def test_other_data_than_the_run_had(capsys, monkeypatch):
    """As many clips of the same sizes, which only their content tells; then the same by name and with consent."""
    monkeypatch.setattr(run, "_train", save_once)
    without = ("--validation.every", "0", *OUTPUT)
    assert call(*without) == 0
    shutil.rmtree("data")
    monkeypatch.setattr(drawn_clips, "drawn_record", lambda number, *rest: DRAWN(number + 1000, *rest))
    write_drawn_dataset(Path("data"), train=2, validation=1, frames=6)
    complaint = error(capsys, *without, "--resume")
    assert complaint.startswith("the training data is not what this run had: not as before: 64x64/clips-train")
    assert "--data.changed" in complaint
    assert call(*without, "--resume", "--data.changed") == 0
    assert "note: the training data is not what this run had: not as before" in capsys.readouterr().out
    assert call(*without, "--resume") == 0
    assert "is not what" not in capsys.readouterr().out


@pytest.mark.slow
def test_other_folders_and_another_batch_than_the_run_had(capsys, monkeypatch):
    monkeypatch.setattr(run, "_train", save_once)
    for name in "abc":
        make_folder(Path(name), 8, size=(64, 64), seed=ord(name))
    lists = ["--init-from", "mini", *FLAGS, *OUTPUT, "--validation.every", "0", "--no-compilation-cache"]
    lists += ["--data.lists", "list.txt", "--data.sizes", "64x64"]

    def begun(names: str, *more: str) -> int:
        Path("list.txt").write_text("\n".join(names) + "\n")
        return run_script(main, [*lists, *more])

    assert begun("abc") == 0
    assert begun("ca", "--resume") == 2
    complaint = capsys.readouterr().err
    assert "clips [3] -> [2]; gone: b, in another order. Bring it back" in complaint
    assert begun("abc", "--resume", "--data.batch-size", "2") == 2
    assert "batch_size 4 -> 2. Bring" in capsys.readouterr().err
    assert begun("ca", "--resume", "--data.batch-size", "2", "--data.changed") == 0
    assert "gone: b, in another order. From step " in capsys.readouterr().out
