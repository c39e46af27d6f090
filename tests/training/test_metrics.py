"""What a run logs: read back from its files, after resuming, on a full disk, and by a stand-in for W&B."""

import json
import resource
import struct
import sys
from types import SimpleNamespace
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from tensorboardX.proto import event_pb2

from stableanimator_jax.errors import InputError
from stableanimator_jax.training.metrics import MetricsWriter, WandbConfig


def json_lines(directory):
    return [json.loads(line) for line in (directory / "metrics.jsonl").read_text().splitlines()]


def tensorboard_events(directory):
    """What TensorBoard shows, as {name: [(step, value or image size)]}: a start hides what was of later steps."""
    messages: Any = event_pb2
    shown: dict[str, list[tuple[int, Any]]] = {}
    for path in sorted((directory / "tensorboard").iterdir()):
        data = path.read_bytes()
        while data:
            (length,) = struct.unpack("<Q", data[:8])
            event, data = messages.Event.FromString(data[12 : 12 + length]), data[16 + length :]
            if event.session_log.status == messages.SessionLog.START:
                shown = {name: [p for p in points if p[0] < event.step] for name, points in shown.items()}
            for value in event.summary.value:
                number = round(value.simple_value, 6)
                shown.setdefault(value.tag, []).append(
                    (event.step, (value.image.height, value.image.width) if value.HasField("image") else number)
                )
    return shown


def test_scalars_and_pictures_are_on_disk_when_the_call_returns(tmp_path):
    with MetricsWriter(tmp_path / "a" / "run") as metrics:
        metrics.write(1, {"loss": jnp.float32(0.5), "band/low": np.float64(2)})
        metrics.write(2, {"loss": float("nan")})
        metrics.image(2, "samples/first", np.zeros((24, 40, 3), np.uint8))
        run = tmp_path / "a" / "run"
        assert json_lines(run) == [{"step": 1, "loss": 0.5, "band/low": 2.0}, {"step": 2, "loss": None}]
        events = tensorboard_events(run)
    assert events["band/low"] == [(1, 2.0)]
    assert events["loss"][0] == (1, 0.5)
    assert np.isnan(events["loss"][1][1])
    assert events["samples/first"] == [(2, (24, 40))]


def test_after_resuming_no_point_appears_twice(tmp_path):
    def run(steps, **kwargs):
        with MetricsWriter(tmp_path, **kwargs) as metrics:
            for step in steps:
                metrics.write(step, {"loss": step + len(kwargs) / 10})

    run(range(1, 6))
    with (tmp_path / "metrics.jsonl").open("a") as file:
        file.write('{"step": 6, "lo')  # killed while it wrote
    run(range(4, 8), resumed=3)
    wanted = [(step, step + 0.1 * (step > 3)) for step in range(1, 8)]
    assert [(line["step"], line["loss"]) for line in json_lines(tmp_path)] == wanted
    assert tensorboard_events(tmp_path)["loss"] == wanted
    run([0, 1])  # anew
    assert tensorboard_events(tmp_path)["loss"] == [(line["step"], line["loss"]) for line in json_lines(tmp_path)]
    assert len(json_lines(tmp_path)) == 2


def test_only_process_0_writes(tmp_path, monkeypatch):
    monkeypatch.setattr(jax, "process_index", lambda: 1)
    with MetricsWriter(tmp_path, wandb=WandbConfig("online")) as metrics:
        metrics.write(1, {"loss": 1.0})
        metrics.image(1, "a", np.zeros((8, 8, 3), np.uint8))
    assert not list(tmp_path.iterdir())


def test_what_cannot_be_written_is_said_at_once(tmp_path):
    (tmp_path / "file").touch()
    with pytest.raises(InputError, match=r"^cannot write .*/file: File exists$"):
        MetricsWriter(tmp_path / "file")
    with MetricsWriter(tmp_path / "run") as metrics:
        with pytest.raises(ValueError, match=r"picture a is float64 \(8, 8, 3\), expected uint8"):
            metrics.image(1, "a", np.zeros((8, 8, 3)))
        limits = resource.getrlimit(resource.RLIMIT_FSIZE)
        resource.setrlimit(resource.RLIMIT_FSIZE, (64, limits[1]))  # as a full disk, but for the reason
        try:
            for call in (
                lambda: metrics.write(1, {f"value_{i}": float(i) for i in range(10)}),
                lambda: metrics.image(1, "a", np.zeros((8, 8, 3), np.uint8)),
            ):
                with pytest.raises(InputError, match=r"^cannot write .*/(metrics.jsonl|events.*): File too large$"):
                    call()
            metrics.close()  # quietly: it was said
        finally:
            resource.setrlimit(resource.RLIMIT_FSIZE, limits)


class Wandb(SimpleNamespace):
    """As much of the module as is used; remembers what it was told."""

    def __init__(self, error=None):
        self.Image = lambda picture: ("image", picture.shape)
        self.runs, self.error = [], error

    def init(self, **settings):
        if self.error is not None:
            raise self.error
        self.runs.append(
            SimpleNamespace(
                settings=settings,
                logged=(logged := []),
                log=lambda values, step: logged.append((step, values)),
                finish=lambda: logged.append("finished"),
            )
        )
        return self.runs[-1]


def test_weights_and_biases_by_choice(tmp_path, monkeypatch):
    monkeypatch.setitem(sys.modules, "wandb", wandb := Wandb())
    for resumed in (None, 1, None):
        with MetricsWriter(
            tmp_path, resumed=resumed, wandb=WandbConfig("offline", project="p"), settings={"width": 64}
        ) as metrics:
            metrics.write(2, {"loss": 0.5})
            metrics.image(2, "a", np.zeros((8, 9, 3), np.uint8))
    first, second, anew = wandb.runs
    assert first.logged == [(2, {"loss": 0.5}), (2, {"a": ("image", (8, 9, 3))}), "finished"]
    assert first.settings["config"] == {"width": 64}
    assert (first.settings["mode"], first.settings["project"]) == ("offline", "p")
    assert first.settings["name"] == tmp_path.name
    assert first.settings["id"] == second.settings["id"] != anew.settings["id"]
    with MetricsWriter(tmp_path, wandb=WandbConfig()):
        assert len(wandb.runs) == 3  # off by default


def test_weights_and_biases_missing_or_refusing(tmp_path, monkeypatch):
    monkeypatch.setitem(sys.modules, "wandb", None)  # as if it were not installed
    with pytest.raises(InputError, match=r"install the \[wandb\] extra"):
        MetricsWriter(tmp_path, wandb=WandbConfig("online"))
    monkeypatch.setitem(sys.modules, "wandb", Wandb(RuntimeError("no API key")))
    with pytest.raises(InputError, match="does not start: no API key; run `wandb login`"):
        MetricsWriter(tmp_path, wandb=WandbConfig("online"))
