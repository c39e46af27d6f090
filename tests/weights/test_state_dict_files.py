"""State dicts in safetensors files: read lazily, and every damage told in one line."""

import json
from pathlib import Path

import ml_dtypes
import numpy as np
import pytest
from safetensors.numpy import save_file

from stableanimator_jax.errors import InputError
from stableanimator_jax.weights import state_dict_files
from stableanimator_jax.weights.state_dict_files import open_state_dict
from stableanimator_jax.weights.state_dict_writers import write_safetensors


def tensors() -> dict[str, np.ndarray]:
    rng = np.random.default_rng(0)
    return {
        "a.weight": rng.standard_normal((4, 3), np.float32),
        "a.bias": rng.standard_normal(4).astype(np.float16),
        "b.weight": rng.standard_normal((2, 2)).astype(ml_dtypes.bfloat16),
        "scalar": np.array(7, np.int64),
    }


def assert_same(found, expected: dict[str, np.ndarray]) -> None:
    assert set(found) == set(expected)
    assert len(found) == len(expected)
    assert found.shapes == {key: array.shape for key, array in expected.items()}
    for key, array in expected.items():
        np.testing.assert_array_equal(found[key], array, strict=True)


def test_one_file(tmp_path: Path):
    save_file(tensors(), tmp_path / "x.safetensors")
    opened = open_state_dict(tmp_path / "x.safetensors")
    assert opened.files == (tmp_path / "x.safetensors",)
    assert_same(opened, tensors())
    with pytest.raises(KeyError):
        opened["c"]


@pytest.mark.parametrize("prefix", ["module.", "_orig_mod.", "module._orig_mod."])
def test_prefixes_come_off_where_every_key_has_them(prefix: str, tmp_path: Path):
    save_file({prefix + key: array for key, array in tensors().items()}, tmp_path / "x.safetensors")
    assert_same(open_state_dict(tmp_path / "x.safetensors"), tensors())
    mixed = {"module.a": np.ones(1, np.float32), "b": np.ones(2, np.float32)}
    save_file(mixed, tmp_path / "x.safetensors")
    assert_same(open_state_dict(tmp_path / "x.safetensors"), mixed)


def test_a_file_is_opened_anew_after_so_many_bytes(tmp_path: Path, monkeypatch: pytest.MonkeyPatch):
    monkeypatch.setattr(state_dict_files, "_REOPEN_AFTER", 10)
    save_file(tensors(), tmp_path / "x.safetensors")
    opened = open_state_dict(tmp_path / "x.safetensors")
    opens = []
    reopen = opened._open  # pyright: ignore[reportAttributeAccessIssue]
    monkeypatch.setattr(opened, "_open", lambda: (opens.append(1), reopen()))
    assert_same(opened, tensors())
    assert opens


def shard(folder: Path) -> Path:
    """The tensors over two files and their index."""
    every = tensors()
    first = {key: every.pop(key) for key in ("a.weight", "scalar")}
    index = {"metadata": {"total_size": 1}, "weight_map": {}}
    for name, part in (("x-00001-of-00002.safetensors", first), ("x-00002-of-00002.safetensors", every)):
        save_file(part, folder / name)
        index["weight_map"] |= dict.fromkeys(part, name)
    path = folder / "x.safetensors.index.json"
    path.write_text(json.dumps(index))
    return path


def test_several_files_behind_an_index(tmp_path: Path):
    opened = open_state_dict(shard(tmp_path))
    assert [file.name for file in opened.files] == [
        "x.safetensors.index.json",
        "x-00001-of-00002.safetensors",
        "x-00002-of-00002.safetensors",
    ]
    assert_same(opened, tensors())


def _edit_index(change):
    def edit(path: Path) -> None:
        data = json.loads(path.read_text())
        change(data["weight_map"])
        path.write_text(json.dumps(data))

    return edit


@pytest.mark.parametrize(
    ("damage", "message"),
    [
        (lambda path: path.write_text("{}"), "is not an index of weights files: it has no weight_map"),
        (lambda path: path.write_text("{"), "is not a JSON file"),
        (lambda path: (path.parent / "x-00002-of-00002.safetensors").unlink(), "which is missing: copy or download it"),
        (_edit_index(lambda m: m.update(a="../secret")), "names the file '../secret', which is not beside it"),
        (
            _edit_index(lambda m: (m.pop("a.bias"), m.update(more="x-00001-of-00002.safetensors"))),
            "x-00001-of-00002.safetensors lacks more; x-00002-of-00002.safetensors has a.bias, which is not listed",
        ),
    ],
)
def test_an_index_that_does_not_fit_is_refused(damage, message: str, tmp_path: Path):
    path = shard(tmp_path)
    damage(path)
    with pytest.raises(InputError, match=message) as caught:
        open_state_dict(path)
    assert len(str(caught.value).splitlines()) == 1


@pytest.mark.parametrize("keep", [0, 3, 8, 50, -1])
def test_a_truncated_file_is_refused(keep: int, tmp_path: Path):
    path = tmp_path / "x.safetensors"
    save_file(tensors(), path)
    path.write_bytes(path.read_bytes()[:keep])
    with pytest.raises(InputError, match=r"x.safetensors is (empty|not a safetensors file, or is damaged)") as caught:
        open_state_dict(path)
    assert len(str(caught.value).splitlines()) == 1


def test_unknown_files_are_refused(tmp_path: Path):
    (tmp_path / "x.ckpt").write_bytes(b"x")
    with pytest.raises(InputError, match="unknown suffix"):
        open_state_dict(tmp_path / "x.ckpt")
    with pytest.raises(InputError, match=r"x.safetensors does not exist"):
        open_state_dict(tmp_path / "x.safetensors")


def test_without_torch_a_pth_file_says_what_to_install(tmp_path: Path, monkeypatch: pytest.MonkeyPatch):
    (tmp_path / "x.pth").write_bytes(b"x")
    monkeypatch.setattr("importlib.util.find_spec", lambda name: None)
    with pytest.raises(InputError, match=r"x.pth: .* torch, which is not installed: `pip install torch`"):
        open_state_dict(tmp_path / "x.pth")


def test_our_writer_writes_what_safetensors_reads(tmp_path: Path):
    written = {key: array for key, array in tensors().items() if array.dtype.name in ("float32", "int64")}
    layout = {key: (array.shape, array.dtype.name) for key, array in written.items()}
    write_safetensors(tmp_path / "x.safetensors", layout, written.items())
    assert_same(open_state_dict(tmp_path / "x.safetensors"), written)


def test_our_writer_takes_exactly_what_was_announced(tmp_path: Path):
    layout = {"a": ((2,), "float32"), "b": ((), "float32")}
    a, b = ("a", np.zeros(2, np.float32)), ("b", np.zeros((), np.float32))
    for given, message in (([a], "b is missing"), ([b, a], "b .* comes where a"), ([("a", b[1])], r"a \(\)")):
        with pytest.raises(ValueError, match=message):
            write_safetensors(tmp_path / "x.safetensors", layout, given)
