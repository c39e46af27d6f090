"""The on-disk layout: what is saved comes back, in the dtype and sharding asked for; everything else is an error."""

import json
import os
import shutil
import socket
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from stableanimator_jax.config import StableAnimatorConfig
from stableanimator_jax.errors import InputError
from stableanimator_jax.weights.checkpoint import (
    MODELS,
    describe,
    load_params,
    require_models,
    save_checkpoint,
    stored_params,
    stream_params,
)

CONFIG = StableAnimatorConfig.tiny()


def parameters() -> dict:
    rng = np.random.default_rng(0)
    return {
        "conv_layers": {
            0: {"kernel": rng.standard_normal((3, 3, 3, 16), np.float32), "bias": np.zeros(16, np.float32)},
            1: {"kernel": rng.standard_normal((3, 3, 16, 16), np.float32), "bias": np.ones(16, np.float32)},
        },
        "scale": np.full(1, 2, np.float32),
    }


def like(params: dict, dtype: jnp.dtype | None = None) -> dict:
    return jax.tree.map(lambda array: jax.ShapeDtypeStruct(array.shape, dtype or array.dtype), params)


@pytest.fixture
def checkpoint(tmp_path: Path) -> Path:
    path = tmp_path / "checkpoint"
    save_checkpoint(path, CONFIG, {"pose_net": parameters()}, source={"from": "a test", "step": 3})
    return path


def assert_trees_equal(actual: dict, expected: dict) -> None:
    assert jax.tree.structure(actual) == jax.tree.structure(expected)
    for one, other in zip(jax.tree.leaves(actual), jax.tree.leaves(expected), strict=True):
        np.testing.assert_array_equal(np.asarray(one), np.asarray(other), strict=True)


def test_what_is_saved_comes_back(checkpoint: Path):
    loaded = load_params(checkpoint, "pose_net", like(parameters()))
    assert_trees_equal(loaded, parameters())
    assert all(isinstance(leaf, jax.Array) for leaf in jax.tree.leaves(loaded))
    description = describe(checkpoint)
    assert description.config == CONFIG
    assert description.models == ("pose_net",)
    assert description.source == {"from": "a test", "step": 3}


def test_a_checkpoint_does_not_tell_where_it_was_made(checkpoint: Path, tmp_path: Path):
    files = [path for path in checkpoint.rglob("*") if path.is_file()]
    assert any(path.name == "commit_success.txt" for path in files)  # else Orbax may not take it
    for path in files:
        assert str(tmp_path).encode() not in path.read_bytes(), path


def test_jax_arrays_of_any_float_are_saved_as_they_are(tmp_path: Path):
    params = {"a": jnp.arange(5, dtype=jnp.bfloat16), "b": {0: jnp.float32(3)}}
    save_checkpoint(tmp_path / "c", CONFIG, {"unet": params, "vae": {"x": jnp.ones((2, 3))}})
    assert describe(tmp_path / "c").models == ("unet", "vae")
    assert_trees_equal(load_params(tmp_path / "c", "unet", like(params)), params)


def test_each_parameter_loads_in_the_dtype_asked_for(checkpoint: Path):
    params = parameters()
    wanted = jax.tree.map_with_path(
        lambda path, array: jax.ShapeDtypeStruct(
            array.shape, jnp.bfloat16 if path[-1].key == "kernel" else jnp.float32
        ),
        params,
    )
    expected = jax.tree.map(lambda array, leaf: array.astype(leaf.dtype), params, wanted)
    assert_trees_equal(load_params(checkpoint, "pose_net", wanted), expected)


def test_nothing_is_left_beside_a_checkpoint(checkpoint: Path):
    assert [p.name for p in checkpoint.parent.iterdir()] == ["checkpoint"]


def test_a_checkpoint_is_replaced_whole(checkpoint: Path):
    save_checkpoint(checkpoint, CONFIG, {"vae": {"x": np.ones(2, np.float32)}}, overwrite=True)
    assert describe(checkpoint).models == ("vae",)
    assert not (checkpoint / "pose_net").exists()
    assert [p.name for p in checkpoint.parent.iterdir()] == ["checkpoint"]


def test_a_checkpoint_stays_unless_it_is_to_be_replaced(checkpoint: Path):
    with pytest.raises(InputError, match=r"there is a checkpoint in .*: choose another place, .* by --overwrite"):
        save_checkpoint(checkpoint, CONFIG, {"vae": {"x": np.ones(2, np.float32)}})
    (checkpoint / "notes").mkdir()
    (checkpoint / "notes" / "mine.txt").write_text("precious")
    with pytest.raises(InputError, match=r"will not replace .*: notes/mine.txt in it is not of the checkpoint"):
        save_checkpoint(checkpoint, CONFIG, {"vae": {"x": np.ones(2, np.float32)}}, overwrite=True)
    assert (checkpoint / "notes" / "mine.txt").read_text() == "precious"
    assert_trees_equal(load_params(checkpoint, "pose_net", like(parameters())), parameters())


def test_a_name_that_is_no_utf8_is_said_before_anything_is_read(checkpoint: Path):
    place = checkpoint.with_name("\udcd6")
    checkpoint.rename(place)
    for use in (lambda: describe(place), lambda: save_checkpoint(place / "new", CONFIG, {"pose_net": parameters()})):
        with pytest.raises(InputError, match=r"checkpoint .*\\xd6.*: the name is no UTF-8"):
            use()
    assert sorted(file.name for file in place.iterdir()) == ["config.json", "pose_net"]


def test_a_runs_folder_is_its_last_weights_and_never_replaced(checkpoint: Path, tmp_path: Path):
    run = tmp_path / "run"
    (run / "checkpoints" / "12.orbax-checkpoint-tmp-0" / "weights").mkdir(parents=True)
    with pytest.raises(InputError, match="run is the folder of a training run that has saved no weights yet"):
        describe(run)
    for step in (2, 10, 9):
        save_checkpoint(run / f"checkpoints/{step}/weights", CONFIG, {"pose_net": parameters()}, {"step": step})
    for place, step in ((run, 10), (run / "checkpoints", 10), (run / "checkpoints/9", 9)):
        assert describe(place).source == {"step": step}
        assert_trees_equal(load_params(place, "pose_net", like(parameters())), parameters())
        assert len(dict(stream_params(place, "pose_net"))) == len(stored_params(place, "pose_net"))
        with pytest.raises(InputError, match="will not replace"):
            save_checkpoint(place, CONFIG, {"pose_net": parameters()}, overwrite=True)


def test_what_a_crash_left_behind_is_no_obstacle(checkpoint: Path):
    for name in (".checkpoint.unfinished", ".checkpoint.replaced"):
        (checkpoint.parent / name / "unet").mkdir(parents=True)
    save_checkpoint(checkpoint, CONFIG, {"pose_net": parameters()}, overwrite=True)
    assert_trees_equal(load_params(checkpoint, "pose_net", like(parameters())), parameters())
    assert [p.name for p in checkpoint.parent.iterdir()] == ["checkpoint"]


def test_an_empty_directory_is_filled(tmp_path: Path):
    (tmp_path / "empty").mkdir()
    save_checkpoint(tmp_path / "empty", CONFIG, {"pose_net": parameters()})
    assert describe(tmp_path / "empty").models == ("pose_net",)


def test_other_peoples_directories_are_not_replaced(tmp_path: Path):
    (tmp_path / "photos").mkdir()
    (tmp_path / "photos" / "me.png").write_bytes(b"precious")
    with pytest.raises(InputError, match=r"will not replace .*photos"):
        save_checkpoint(tmp_path / "photos", CONFIG, {"pose_net": parameters()})
    assert (tmp_path / "photos" / "me.png").read_bytes() == b"precious"
    with pytest.raises(InputError, match="it is a file"):
        save_checkpoint(tmp_path / "photos" / "me.png", CONFIG, {"pose_net": parameters()})
    with pytest.raises(InputError, match="cannot write the checkpoint"):
        save_checkpoint(tmp_path / "photos" / "me.png" / "deeper", CONFIG, {"pose_net": parameters()})


def test_models_must_be_known(tmp_path: Path):
    with pytest.raises(ValueError, match="must hold some of"):
        save_checkpoint(tmp_path / "c", CONFIG, {"u_net": parameters()})
    with pytest.raises(ValueError, match="must hold some of"):
        save_checkpoint(tmp_path / "c", CONFIG, {})


def test_a_failed_save_leaves_the_old_checkpoint_and_nothing_else(checkpoint: Path):
    script = f"""
import resource, numpy as np
from stableanimator_jax.config import StableAnimatorConfig
from stableanimator_jax.errors import InputError
from stableanimator_jax.weights.checkpoint import save_checkpoint
resource.setrlimit(resource.RLIMIT_FSIZE, (100_000, 100_000))
noise = np.random.default_rng(0).standard_normal((500, 500))
try:
    save_checkpoint({str(checkpoint)!r}, StableAnimatorConfig.tiny(), {{"vae": {{"x": noise}}}}, overwrite=True)
except InputError as e:
    print(e)
"""
    result = run([script])[0]
    assert result.stdout.startswith(f"cannot write the checkpoint {checkpoint}: ")
    assert len(result.stdout.splitlines()) == 1
    assert result.stderr == ""
    assert_trees_equal(load_params(checkpoint, "pose_net", like(parameters())), parameters())
    assert [p.name for p in checkpoint.parent.iterdir()] == ["checkpoint"]


def _truncate_largest(path: Path) -> None:
    largest = max((p for p in (path / "pose_net").rglob("*") if p.is_file()), key=lambda p: p.stat().st_size)
    largest.write_bytes(largest.read_bytes()[:-1])


def _edit(**changes) -> Callable[[Path], None]:
    def edit(path: Path) -> None:
        file = path / "config.json"
        file.write_text(json.dumps(json.loads(file.read_text()) | changes))

    return edit


@pytest.mark.parametrize(
    ("damage", "message"),
    [
        (shutil.rmtree, "does not exist"),
        (lambda path: (shutil.rmtree(path), path.write_text("x")), "is not a directory"),
        (lambda path: (shutil.rmtree(path), path.mkdir()), "is not a checkpoint: it has no config.json"),
        (lambda path: (path / "config.json").unlink(), "incomplete: it has pose_net but no config.json"),
        (_edit(files={"a" * 300: 1}), "cannot read checkpoint .*too long"),
        (_edit(files={"a\0": 1}), "incomplete: a.* is missing"),
        (_edit(config={"pose_net": {"out_channels": 0}}), "PoseNetConfig: out_channels must be"),
        (lambda path: (path / "config.json").write_text("{"), "config.json is not a JSON file"),
        (lambda path: (path / "config.json").write_text("[]"), "is not a checkpoint of this project"),
        (_edit(format="diffusers"), "is not a checkpoint of this project"),
        (_edit(version=2), "has format version 2, this program reads 1: update it"),
        (_edit(source=None), "config.json is damaged"),
        (_edit(config={"unet": {"depth": 3}}), r"config.json: unet: unknown field\(s\) depth"),
        (lambda path: shutil.rmtree(path / "pose_net"), "is incomplete: pose_net/.* is missing; copy or convert it"),
        (_truncate_largest, r"is damaged: pose_net/.* has \d+ bytes, not \d+; copy or convert it"),
    ],
)
def test_damage_is_told_in_one_line(checkpoint: Path, damage: Callable[[Path], object], message: str, capfd):
    damage(checkpoint)
    for read in (describe, lambda path: load_params(path, "pose_net", like(parameters()))):
        with pytest.raises(InputError, match=message) as caught:
            read(checkpoint)
        assert len(str(caught.value).splitlines()) == 1
    assert capfd.readouterr() == ("", "")


def test_links_in_a_loop(tmp_path: Path):
    (tmp_path / "loop").symlink_to("loop")
    with pytest.raises(InputError, match=r"checkpoint .*loop"):
        describe(tmp_path / "loop")


def test_a_checkpoint_without_models(checkpoint: Path):
    _edit(files={})(checkpoint)
    with pytest.raises(InputError, match="has no unet, vae; it has no models at all"):
        require_models(checkpoint, ["unet", "vae"])


def test_an_absent_model_is_named(checkpoint: Path):
    with pytest.raises(InputError, match=r"checkpoint .* has no unet; it has pose_net"):
        load_params(checkpoint, "unet", like(parameters()))


@pytest.mark.parametrize(
    ("change", "message"),
    [
        (
            lambda tree: tree["conv_layers"][1].update(kernel=np.zeros((3, 3, 16, 8))),
            r"its conv_layers.1.kernel is \[3, 3, 16, 16\], not \[3, 3, 16, 8\]",
        ),
        (lambda tree: tree["conv_layers"].update({2: {"bias": np.zeros(1)}}), "it has no conv_layers.2.bias"),
        (lambda tree: tree.pop("scale"), "its scale has no place here"),
    ],
)
def test_parameters_of_another_configuration_are_refused(checkpoint: Path, change: Callable, message: str):
    wanted = parameters()
    change(wanted)
    with pytest.raises(InputError, match="pose_net of checkpoint .* is of another configuration: " + message):
        load_params(checkpoint, "pose_net", like(wanted))


def test_saving_and_loading_are_silent(checkpoint: Path, capfd):
    save_checkpoint(checkpoint, CONFIG, {"pose_net": parameters()}, overwrite=True)
    load_params(checkpoint, "pose_net", like(parameters()))
    assert capfd.readouterr() == ("", "")


def test_models_are_the_configurations_parts():
    assert MODELS == ("unet", "vae", "image_encoder", "face_encoder", "pose_net", "control_net", "arcface")


# Several devices, several processes: jax fixes their number when it starts, so these run on their own.
PREAMBLE = """
import sys, warnings
warnings.simplefilter("error")
import jax, jax.numpy as jnp, numpy as np
from jax.sharding import AxisType, NamedSharding, PartitionSpec
from stableanimator_jax.config import StableAnimatorConfig
from stableanimator_jax.weights.checkpoint import load_params, save_checkpoint

values = np.arange(8 * 24, dtype=np.float32).reshape(8, 24)
def mesh():
    return jax.make_mesh((jax.device_count(),), ("data",), axis_types=(AxisType.Auto,))
def wanted(spec, dtype):
    return {"w": {0: jax.ShapeDtypeStruct((8, 24), dtype, sharding=NamedSharding(mesh(), spec))}}
"""

EIGHT_DEVICES = """
jax.config.update("jax_num_cpu_devices", 8)
path = sys.argv[1]
save_checkpoint(path, StableAnimatorConfig.tiny(), {"unet": {"w": {0: values}}})
P = PartitionSpec
for spec, shard in ((P("data"), (1, 24)), (P(None, "data"), (8, 3)), (P(), (8, 24))):
    for dtype in (jnp.float32, jnp.bfloat16):
        loaded = load_params(path, "unet", wanted(spec, dtype))["w"][0]
        assert loaded.sharding == NamedSharding(mesh(), spec) and loaded.dtype == dtype
        assert [s.data.shape for s in loaded.addressable_shards] == [shard] * 8
        np.testing.assert_array_equal(np.asarray(loaded), values.astype(dtype))
    # Saved from shards, loaded whole.
    save_checkpoint(path, StableAnimatorConfig.tiny(), {"unet": {"w": {0: loaded}}}, overwrite=True)
    one = load_params(path, "unet", {"w": {0: jax.ShapeDtypeStruct((8, 24), jnp.float32)}})["w"][0]
    assert one.sharding == jax.sharding.SingleDeviceSharding(jax.devices()[0])
    np.testing.assert_array_equal(np.asarray(one), values)
"""

TWO_PROCESSES = """
path, address, index = sys.argv[1], sys.argv[2], int(sys.argv[3])
jax.config.update("jax_num_cpu_devices", 4)
jax.distributed.initialize(address, 2, index)
sharding = NamedSharding(mesh(), PartitionSpec("data"))
sharded = jax.make_array_from_callback(values.shape, sharding, lambda at: values[at])
models = {"unet": {"w": {0: sharded}}, "vae": {"x": np.ones(3)}}
for again in (False, True):  # the second one replaces the first
    save_checkpoint(path, StableAnimatorConfig.tiny(), models, overwrite=again)
loaded = load_params(path, "unet", wanted(PartitionSpec(None, "data"), jnp.bfloat16))["w"][0]
assert jax.device_count() == 8 and len(loaded.addressable_shards) == 4
for shard in loaded.addressable_shards:
    np.testing.assert_array_equal(np.asarray(shard.data), values.astype(jnp.bfloat16)[shard.index])
"""


def run(scripts: list[str], *args: str) -> list[subprocess.CompletedProcess[str]]:
    """Run the scripts side by side, each with the arguments and its own number, until all have ended."""
    root = str(Path(__file__).parents[2])
    processes = [
        subprocess.Popen(
            [sys.executable, "-c", script, *args, str(i)],
            env=os.environ | {"PYTHONPATH": root, "JAX_PLATFORMS": "cpu"},
            stdout=subprocess.PIPE,
            stderr=subprocess.PIPE,
            text=True,
        )
        for i, script in enumerate(scripts)
    ]
    try:
        ends = [process.communicate(timeout=900) for process in processes]
    finally:
        for process in processes:
            process.kill()
    return [subprocess.CompletedProcess(p.args, p.returncode, *end) for p, end in zip(processes, ends, strict=True)]


def test_loading_onto_eight_devices(tmp_path: Path):
    result = run([PREAMBLE + EIGHT_DEVICES], str(tmp_path / "c"))[0]
    assert (result.returncode, result.stdout, result.stderr) == (0, "", "")


def test_two_processes_save_and_load_one_checkpoint(tmp_path: Path):
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        address = f"127.0.0.1:{probe.getsockname()[1]}"
    results = run([PREAMBLE + TWO_PROCESSES] * 2, str(tmp_path / "c"), address)
    assert [r.returncode for r in results] == [0, 0], results[0].stderr + results[1].stderr
    loaded = load_params(tmp_path / "c", "unet", {"w": {0: jax.ShapeDtypeStruct((8, 24), jnp.float32)}})
    np.testing.assert_array_equal(loaded["w"][0], np.arange(8 * 24, dtype=np.float32).reshape(8, 24))
    assert describe(tmp_path / "c").models == ("unet", "vae")
    assert [p.name for p in tmp_path.iterdir()] == ["c"]


def test_large_models_are_cut_into_parts(tmp_path: Path, monkeypatch: pytest.MonkeyPatch):
    monkeypatch.setattr("stableanimator_jax.weights.checkpoint._PART_BYTES", 5000)
    params = parameters()  # of 1728, 64, 9216, 64 and 4 bytes
    save_checkpoint(tmp_path / "c", CONFIG, {"pose_net": params, "vae": {"x": np.ones(3, np.float32)}})
    assert sorted(p.name for p in (tmp_path / "c" / "pose_net").iterdir()) == ["part_000", "part_001", "part_002"]
    assert_trees_equal(load_params(tmp_path / "c", "pose_net", like(params)), params)
    flat = {"conv_layers.0.bias", "conv_layers.0.kernel", "conv_layers.1.bias", "conv_layers.1.kernel", "scale"}
    assert set(stored_params(tmp_path / "c", "pose_net")) == flat
    wanted = params | {"conv_layers": params["conv_layers"] | {1: {"kernel": np.zeros(2), "bias": np.ones(16)}}}
    with pytest.raises(InputError, match=r"its conv_layers.1.kernel is \[3, 3, 16, 16\], not \[2\]"):
        load_params(tmp_path / "c", "pose_net", like(wanted))


def test_parameters_stream_in_and_out_one_after_the_other(tmp_path: Path, monkeypatch: pytest.MonkeyPatch):
    monkeypatch.setattr("stableanimator_jax.weights.checkpoint._PART_BYTES", 100)
    values = {name: np.full((5, 4), i, np.float32) for i, name in enumerate("abcde")}
    save_checkpoint(tmp_path / "c", CONFIG, {"unet": ((("w", name), array) for name, array in values.items())})
    streamed = list(stream_params(tmp_path / "c", "unet"))
    assert [name for name, _ in streamed] == list(stored_params(tmp_path / "c", "unet"))
    assert {name for name, _ in streamed} == {f"w.{name}" for name in values}
    for name, array in streamed:
        np.testing.assert_array_equal(array, values[name.removeprefix("w.")], strict=True)


def test_what_goes_wrong_while_parameters_are_made_goes_through(checkpoint: Path):
    def stops():
        yield ("x",), np.ones(2, np.float32)
        raise InputError("the file is damaged")

    with pytest.raises(InputError, match=r"^the file is damaged$"):
        save_checkpoint(checkpoint, CONFIG, {"vae": stops()}, overwrite=True)
    assert_trees_equal(load_params(checkpoint, "pose_net", like(parameters())), parameters())
    assert [p.name for p in checkpoint.parent.iterdir()] == ["checkpoint"]


@pytest.mark.parametrize("read", [stored_params, lambda path, model: list(stream_params(path, model))])
def test_an_absent_model_cannot_be_streamed(checkpoint: Path, read: Callable):
    with pytest.raises(InputError, match=r"checkpoint .* has no unet; it has pose_net"):
        read(checkpoint, "unet")
