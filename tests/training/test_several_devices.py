"""The same run on one device, on a mesh of several, and in several processes; and from one to the other."""

import signal

import pytest

from tests.scripts.test_train import wait_for
from tests.scripts.train_script import finish_together, losses, start_together, train, train_together
from tests.training.drawn_clips import write_drawn_dataset
from tests.training.mini_model import save_mini_model

STEPS = 10


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    return tmp_path_factory.mktemp("devices")


@pytest.fixture(scope="module")
def common(folder):
    write_drawn_dataset(folder / "data", train=8)
    save_mini_model(folder / "mini")
    given = ("--init-from", str(folder / "mini"), "--data.dataset", str(folder / "data"), "--data.batch-size", "8")
    return (*given, "--validation.every", "0", "--checkpoints.every", "1000")


@pytest.fixture(scope="module")
def alone(folder, common):
    """The loss of every step on one device."""
    train(folder, *common, "--output", "alone", "--steps", str(STEPS))
    return losses(folder / "alone")


def mesh(data: int, fsdp: int, frame: int) -> tuple[str, ...]:
    return ("--mesh.data", str(data), "--mesh.fsdp", str(fsdp), "--mesh.frame", str(frame))


@pytest.mark.slow
def test_all_axes_at_once(folder, common, alone):
    train(folder, *common, *mesh(2, 2, 2), "--output", "mesh", "--steps", str(STEPS), devices=8)
    assert losses(folder / "mesh") == pytest.approx(alone, rel=1e-5)


@pytest.mark.slow
@pytest.mark.parametrize("split", [(8, 1, 1), (1, 8, 1), (1, 2, 4), (4, 1, 2), (2, 4, 1)], ids=str)
def test_every_split(folder, common, alone, split):
    output = "-".join(map(str, split))
    train(folder, *common, *mesh(*split), "--output", output, "--steps", str(STEPS), devices=8)
    assert losses(folder / output) == pytest.approx(alone, rel=1e-5)


@pytest.mark.slow
def test_two_processes_until_one_is_told_to_stop_then_one_then_two_again(folder, common, alone):
    """Both stop after the same step. Each goes on from what the others saved, on another mesh."""
    flags = (*common, "--output", "two", "--resume", "--steps", str(STEPS))
    processes = start_together(folder, 2, 2, *flags, *mesh(1, 2, 2))
    wait_for(folder / "two" / "metrics.jsonl", lambda file: file.read_text().strip())
    processes[1].send_signal(signal.SIGTERM)
    said, complaint = finish_together(processes, 130)
    step = int(said.splitlines()[-1].split()[3].rstrip(","))
    assert said.splitlines()[-1].startswith(f"stopped after step {step}, which is saved")
    assert (folder / "two" / "checkpoints" / str(step) / "weights" / "config.json").is_file()
    assert "Traceback" not in complaint
    train(folder, *flags, *mesh(1, 1, 1), "--steps", str(step + 2))
    train_together(folder, 2, 2, *flags, *mesh(1, 2, 2))
    assert losses(folder / "two") == pytest.approx(alone, rel=1e-5)


@pytest.mark.slow
def test_two_processes_of_four_devices_are_one_of_eight(folder, common, alone):
    train_together(folder, 2, 4, *common, *mesh(2, 4, 1), "--output", "twofour", "--steps", str(STEPS))
    assert losses(folder / "twofour") == pytest.approx(alone, rel=1e-5)
