"""Checkpoints of training: what is saved comes back, whole or not at all, wherever it is read."""

import json
import os
import shutil
import socket
import subprocess
import sys
import textwrap
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest

from stableanimator_jax.errors import InputError
from stableanimator_jax.models.catalogue import blueprint
from stableanimator_jax.sampling.pipeline import Animator
from stableanimator_jax.training.checkpoints import CheckpointConfig, Checkpoints
from stableanimator_jax.weights.checkpoint import STABLEANIMATOR, describe, load_params, stored_params, stream_params
from tests.random_params import random_params
from tests.training.checkpoint_states import CONFIG, abstract, data_state, require_equal, train_state, weights
from tests.virtual_devices import run_on_virtual_devices

ROOT = Path(__file__).parents[2]


def save(checkpoints: Checkpoints, *steps: int) -> None:
    for step in steps:
        checkpoints.save(step, train_state(step), data_state(step), weights(step))


@pytest.fixture
def run(tmp_path: Path) -> Path:
    """The output directory of a run with checkpoints of steps 1 and 2."""
    with Checkpoints(tmp_path / "run") as checkpoints:
        save(checkpoints, 1, 2)
    return tmp_path / "run"


@pytest.mark.parametrize("asynchronous", [True, False])
def test_what_is_saved_comes_back(tmp_path: Path, asynchronous: bool, capfd: pytest.CaptureFixture[str]):
    config = CheckpointConfig(asynchronous=asynchronous)
    with Checkpoints(tmp_path, config) as checkpoints:
        assert not checkpoints.steps()
        save(checkpoints, 3)
    with Checkpoints(tmp_path, config) as checkpoints:
        assert checkpoints.steps() == [3]
        step, state, loader = checkpoints.restore(abstract(train_state(3)))
    assert (step, loader) == (3, data_state(3))
    require_equal(state, train_state(3))
    assert isinstance(state["opt_state"][1][0], optax.ScaleByAdamState)
    assert capfd.readouterr() == ("", "")


def test_arrays_come_back_in_the_dtype_asked_for(run: Path):
    wanted = abstract(train_state(2))
    wanted["params"]["unet"] = jax.tree.map(
        lambda leaf: jax.ShapeDtypeStruct(leaf.shape, jnp.bfloat16), wanted["params"]["unet"]
    )
    with Checkpoints(run) as checkpoints:
        _, state, _ = checkpoints.restore(wanted)
    expected = train_state(2)
    expected["params"]["unet"] = jax.tree.map(lambda leaf: leaf.astype(jnp.bfloat16), expected["params"]["unet"])
    require_equal(state, expected)


def test_the_newest_are_kept_and_some_for_good(tmp_path: Path):
    with Checkpoints(tmp_path, CheckpointConfig(keep=2, keep_every=3)) as checkpoints:
        save(checkpoints, *range(1, 8))
        assert checkpoints.steps() == [3, 6, 7]
    assert sorted(path.name for path in (tmp_path / "checkpoints").iterdir()) == ["3", "6", "7"]
    # Those that a later run takes over are counted too.
    with Checkpoints(tmp_path, CheckpointConfig(keep=1, keep_every=3)) as checkpoints:
        checkpoints.restore(abstract(train_state(7)))
        save(checkpoints, 8)
        assert checkpoints.steps() == [3, 6, 8]


def test_checkpoints_are_due_every_so_many_steps(tmp_path: Path):
    with Checkpoints(tmp_path, CheckpointConfig(every=5)) as checkpoints:
        assert [step for step in range(1, 16) if checkpoints.due(step)] == [5, 10, 15]


def test_settings_are_checked():
    with pytest.raises(InputError, match=r"checkpoints\.every must be at least 1, got 0"):
        CheckpointConfig(every=0)
    with pytest.raises(InputError, match=r"checkpoints\.keep must be at least 1, got 0"):
        CheckpointConfig(keep=0)


def test_what_happens_to_the_arrays_afterwards_does_not_matter(tmp_path: Path):
    step = jax.jit(lambda state: jax.tree.map(lambda x: x + jnp.ones((), x.dtype), state), donate_argnums=0)
    state, on_host = train_state(1), np.zeros(1000, np.float32)
    expected = jax.tree.map(np.array, state)
    item = weights(1)
    item.models["vae"] = {"x": on_host}
    with Checkpoints(tmp_path) as checkpoints:
        checkpoints.save(1, state, b"", item)
        on_host[:] = 9
        for _ in range(3):
            state = step(state)
        jax.block_until_ready(state)
        require_equal(checkpoints.restore(abstract(state))[1], expected)
    (_, stored), *_ = stream_params(tmp_path / "checkpoints/1/weights", "vae")
    np.testing.assert_array_equal(stored, 0)


def test_a_step_is_saved_once(run: Path):
    with Checkpoints(run) as checkpoints:
        checkpoints.restore(abstract(train_state(2)))
        files = sorted((run / "checkpoints/2").rglob("*"))
        save(checkpoints, 2)  # by a stop at once
        assert sorted((run / "checkpoints/2").rglob("*")) == files


def test_nothing_is_saved_over_an_interrupted_save(run: Path, monkeypatch: pytest.MonkeyPatch):
    def interrupt(*_: object, **__: object) -> None:
        raise KeyboardInterrupt

    with Checkpoints(run) as checkpoints:
        checkpoints.restore(abstract(train_state(2)))
        with monkeypatch.context() as patch:
            patch.setattr("orbax.checkpoint.AsyncCheckpointer.save", interrupt)
            with pytest.raises(KeyboardInterrupt):
                save(checkpoints, 3)
        with pytest.raises(RuntimeError, match="failed or was interrupted"):
            save(checkpoints, 3)
        assert checkpoints.steps() == [1, 2]
    with Checkpoints(run) as checkpoints:
        checkpoints.restore(abstract(train_state(2)))
        save(checkpoints, 3)
        require_equal(checkpoints.restore(abstract(train_state(3)))[1], train_state(3))


def test_going_on_from_an_earlier_step_leaves_the_later_ones(tmp_path: Path):
    with Checkpoints(tmp_path, CheckpointConfig(keep=9)) as checkpoints:
        save(checkpoints, 1, 3, 4, 6)
    with Checkpoints(tmp_path, CheckpointConfig(keep=9)) as checkpoints:
        step, state, _ = checkpoints.restore(abstract(train_state(1)), 3)
        assert step == 3
        require_equal(state, train_state(3))
        assert checkpoints.steps() == [1, 3, 4, 6]
        save(checkpoints, 5, 7)
        assert checkpoints.steps() == [1, 3, 5, 7]


def test_checkpoints_of_another_run_are_not_touched(run: Path):
    with Checkpoints(run) as checkpoints:
        with pytest.raises(InputError, match=r"has checkpoints, of step 1, 2, that this run did not go on from"):
            save(checkpoints, 5)
        assert checkpoints.steps() == [1, 2]


def test_the_weights_are_a_checkpoint_of_their_own(tmp_path: Path, monkeypatch: pytest.MonkeyPatch):
    monkeypatch.setattr("stableanimator_jax.weights.checkpoint._PART_BYTES", 600)
    with Checkpoints(tmp_path) as checkpoints:
        save(checkpoints, 4)
    place = tmp_path / "checkpoints/4/weights"
    described = describe(place)
    assert (described.config, described.models, described.source) == (CONFIG, ("unet",), {"step": 4})
    assert len(list((place / "unet").iterdir())) > 1
    params = weights(4).models["unet"]
    assert set(stored_params(place, "unet")) == {"conv_in.kernel", "blocks.0.kernel", "blocks.0.bias"}
    require_equal(load_params(place, "unet", abstract(params)), params)


def test_a_video_can_be_made_from_the_weights(tmp_path: Path):
    models = {name: random_params(blueprint(CONFIG, name).abstract_params(), 1) for name in STABLEANIMATOR}
    item = weights(1)
    item.models.update(models)
    with Checkpoints(tmp_path) as checkpoints:
        checkpoints.save(1, train_state(1), b"", item)
    animator = Animator.from_pretrained(str(tmp_path / "checkpoints/1/weights"), dtype="float32")
    assert animator.config == CONFIG
    require_equal(animator.unet.params, models["unet"])


def _truncate(step: Path) -> None:
    largest = max((p for p in (step / "state").rglob("*") if p.is_file()), key=lambda p: p.stat().st_size)
    largest.write_bytes(largest.read_bytes()[:-1])


def _overwrite_with_zeros(step: Path) -> None:
    """Damage that sizes do not show, so that Orbax meets it."""
    for file in (p for p in (step / "state").glob("**/d/*") if p.is_file()):
        file.write_bytes(bytes(file.stat().st_size))


@pytest.mark.parametrize(
    ("damaged", "message"),
    [
        (_truncate, r"it is damaged: state/\S+ has \d+ bytes, not \d+"),
        (lambda step: (step / "state/manifest.ocdbt").unlink(), "it is incomplete: state/manifest.ocdbt is missing"),
        (lambda step: shutil.rmtree(step / "state"), "No such file or directory: .*files.json"),
        (lambda step: (step / "state/files.json").write_text("{"), "Expecting property name"),
        (_overwrite_with_zeros, "."),
        (lambda step: (step / "data/metadata").write_text('{"step'), "Unterminated string"),
        (lambda step: shutil.rmtree(step / "data"), "data"),
        (lambda step: (step / "data/metadata").write_text(json.dumps({"step": 1, "loader": ""})), "it is of step 1"),
        (lambda step: (shutil.rmtree(step), step.mkdir()), "No such file or directory"),
    ],
)
def test_damage_is_told_in_one_line(run: Path, damaged: Callable, message: str, capfd: pytest.CaptureFixture[str]):
    damaged(run / "checkpoints/2")
    with Checkpoints(run) as checkpoints:
        with pytest.raises(InputError, match=rf"cannot read the checkpoint of step 2: .*{message}") as caught:
            checkpoints.restore(abstract(train_state(2)))
        assert str(caught.value).endswith(
            f"; go on from another with --resume-step (1), or delete {run / 'checkpoints/2'}"
        )
        assert len(str(caught.value).splitlines()) == 1
        require_equal(checkpoints.restore(abstract(train_state(1)), 1)[1], train_state(1))
    assert capfd.readouterr() == ("", "")


@pytest.mark.parametrize(
    ("change", "message"),
    [
        (lambda s: s["params"]["unet"].pop("blocks.0.kernel"), "its params.unet.blocks.0.kernel has no place here"),
        (lambda s: s["params"].update(vae={"x": jnp.zeros(2)}), "it has no params.vae.x"),
        (
            lambda s: s["params"]["unet"].update({"blocks.0.bias": jnp.zeros(5)}),
            r"its params.unet.blocks.0.bias is \[32\], not \[5\]",
        ),
        (lambda s: s.update(ema=s["params"]), "it has no ema.face_encoder.scale"),
        (
            lambda s: s.update(opt_state=optax.sgd(1e-3, 0.9).init(s["params"])),
            "it has no opt_state.0.trace.face_encoder.scale",
        ),
    ],
)
def test_a_state_of_other_settings_is_refused(run: Path, change: Callable, message: str):
    state = train_state(2)
    change(state)
    with (
        Checkpoints(run) as checkpoints,
        pytest.raises(
            InputError, match=rf"^the state in \S*/checkpoints/2 is of another configuration: {message}.*; go on with"
        ),
    ):
        checkpoints.restore(abstract(state))


def test_a_step_that_is_not_there(run: Path, tmp_path: Path):
    with Checkpoints(run) as checkpoints, pytest.raises(InputError, match=r"no checkpoint of step 7; it has 1, 2$"):
        checkpoints.restore(abstract(train_state(2)), 7)
    with Checkpoints(tmp_path / "new") as checkpoints, pytest.raises(InputError, match=r"no checkpoint to go on from"):
        checkpoints.restore(abstract(train_state(2)))


def test_places_that_cannot_be_written_to(tmp_path: Path):
    (tmp_path / "file").write_text("x")
    for place in (tmp_path / "file", tmp_path / "file/deeper", tmp_path / "a\0", Path("/proc/nowhere")):
        with pytest.raises(InputError, match=r"^cannot write to .*checkpoints: .*; name another output") as caught:
            Checkpoints(place)
        assert len(str(caught.value).splitlines()) == 1
    (tmp_path / "run").mkdir()
    (tmp_path / "run/checkpoints").write_text("x")
    with pytest.raises(InputError, match=r"^cannot write to .*/run/checkpoints: File exists; name another output"):
        Checkpoints(tmp_path / "run")
    assert sorted(path.name for path in tmp_path.iterdir()) == ["file", "run"]


def test_a_full_disk_is_told_in_one_line(tmp_path: Path):
    code = f"""
        import resource
        from stableanimator_jax.errors import InputError
        from stableanimator_jax.training.checkpoints import CheckpointConfig, Checkpoints
        from tests.training.checkpoint_states import abstract, data_state, require_equal, train_state, weights

        for asynchronous in (True, False):
            checkpoints = Checkpoints({str(tmp_path)!r}, CheckpointConfig(asynchronous=asynchronous))
            if not checkpoints.steps():
                checkpoints.save(1, train_state(1), b"", weights(1))
            else:
                checkpoints.restore(abstract(train_state(1)))
            checkpoints.wait()
            resource.setrlimit(resource.RLIMIT_FSIZE, (3_000, resource.RLIM_INFINITY))
            try:
                checkpoints.save(2, train_state(2), b"", weights(2))
                checkpoints.wait()
            except InputError as e:
                print(e)
            resource.setrlimit(resource.RLIMIT_FSIZE, (resource.RLIM_INFINITY, resource.RLIM_INFINITY))
            assert checkpoints.steps() == [1]
            require_equal(checkpoints.restore(abstract(train_state(1)))[1], train_state(1))
            checkpoints.close()
        """
    printed, errors = _run(code)
    lines = printed.splitlines()
    assert len(lines) == 2
    assert all(line.startswith(f"cannot write the checkpoint {tmp_path / 'checkpoints/2'}: ") for line in lines)
    assert errors == ""
    with Checkpoints(tmp_path) as checkpoints:
        checkpoints.restore(abstract(train_state(1)))
        save(checkpoints, 2)
    assert sorted(path.name for path in (tmp_path / "checkpoints").iterdir()) == ["1", "2"]


def _run(code: str) -> tuple[str, str]:
    environment = os.environ | {"JAX_PLATFORMS": "cpu", "PYTHONPATH": str(ROOT)}
    command = [sys.executable, "-c", textwrap.dedent(code)]
    done = subprocess.run(command, env=environment, capture_output=True, text=True, timeout=900)
    assert done.returncode == 0, done.stderr[-4000:]
    return done.stdout, done.stderr


@pytest.mark.long
def test_a_process_killed_at_any_moment_leaves_whole_checkpoints_only(tmp_path: Path):
    printed, errors = _run(f"from tests.training.killed_saves import main; main({str(tmp_path)!r}, kills=8)")
    assert errors == ""
    latest = [int(line) for line in printed.splitlines()]
    assert len(latest) == 8
    assert latest == sorted(latest)
    assert latest[-1] > latest[0] > 0
    with Checkpoints(tmp_path, CheckpointConfig(keep=1)) as checkpoints:
        checkpoints.restore(abstract(train_state(1)))
        save(checkpoints, latest[-1] + 1)
    assert [path.name for path in (tmp_path / "checkpoints").iterdir()] == [str(latest[-1] + 1)]


def test_two_processes_and_one_read_what_the_other_saved(tmp_path: Path):
    with Checkpoints(tmp_path) as checkpoints:
        save(checkpoints, 1)
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        address = f"127.0.0.1:{probe.getsockname()[1]}"

    def process(number: int) -> None:
        code = f"from tests.training.two_processes import main; main({str(tmp_path)!r}, {address!r}, {number})"
        run_on_virtual_devices(2, code)

    with ThreadPoolExecutor() as pool:
        list(pool.map(process, range(2)))
    with Checkpoints(tmp_path) as checkpoints:
        assert checkpoints.steps() == [3, 4]
        step, state, loader = checkpoints.restore(abstract(train_state(4)))
    assert (step, loader) == (4, data_state(4))
    require_equal(state, train_state(4))
    for step in (3, 4):
        params = weights(step).models["unet"]
        require_equal(load_params(tmp_path / f"checkpoints/{step}/weights", "unet", abstract(params)), params)
