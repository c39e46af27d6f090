"""State dicts as torch writes them, wrapped and not; nothing in them is ever run."""

import json
import pickle
import zipfile
from collections import OrderedDict
from pathlib import Path
from typing import Any

import ml_dtypes
import numpy as np
import pytest

from stableanimator_jax.errors import InputError
from stableanimator_jax.weights import state_dict_files
from stableanimator_jax.weights.state_dict_files import open_state_dict
from stableanimator_jax.weights.state_dict_writers import write_pth

torch = pytest.importorskip("torch")
pytestmark = pytest.mark.parity


def state_dict() -> dict[str, Any]:
    torch.manual_seed(0)
    return {
        "a.weight": torch.randn(4, 3),
        "a.bias": torch.randn(4, dtype=torch.float16),
        "b.weight": torch.randn(3, 4, dtype=torch.bfloat16).T,  # not contiguous
        "steps": torch.tensor(5),
    }


def assert_right(path: Path) -> None:
    opened, expected = open_state_dict(path), state_dict()
    assert set(opened) == set(expected)
    assert opened.shapes == {key: tuple(tensor.shape) for key, tensor in expected.items()}
    for key, tensor in expected.items():
        found = opened[key]
        assert found.dtype == (ml_dtypes.bfloat16 if tensor.dtype == torch.bfloat16 else tensor.numpy().dtype)
        exact = tensor.to(torch.float64).numpy()
        np.testing.assert_array_equal(found.astype(np.float64), exact, strict=True)


def prefixed(prefix: str) -> dict[str, Any]:
    return {prefix + key: tensor for key, tensor in state_dict().items()}


@pytest.mark.parametrize(
    "wrap",
    [
        dict,
        OrderedDict,
        lambda sd: {key: torch.nn.Parameter(t, requires_grad=t.is_floating_point()) for key, t in sd.items()},
        lambda _: prefixed("module."),
        lambda _: prefixed("_orig_mod."),
        lambda _: prefixed("module._orig_mod."),
        lambda sd: {"state_dict": sd, "epoch": 3, "optimizer": {"state": {0: {"exp_avg": torch.ones(3)}}}},
        lambda sd: {"model": sd, "args": {"lr": 1e-5}, "loss": [1.0]},
        lambda _: {"model": {"state_dict": prefixed("module.")}},
        lambda _: {key.replace(".", "._orig_mod."): tensor for key, tensor in state_dict().items()},
        lambda _: prefixed("module.module._fsdp_wrapped_module."),
    ],
)
def test_wrappers_and_prefixes_come_off(wrap, tmp_path: Path):
    torch.save(wrap(state_dict()), tmp_path / "x.pth")
    assert_right(tmp_path / "x.pth")


def test_one_of_several_models_by_its_name(tmp_path: Path):
    others = {"pose_net": {"x": torch.ones(1)}, "unet": prefixed("module."), "step": 30000}
    for name in ("x.pth", "x.bin"):
        torch.save(others, tmp_path / name)
        assert set(open_state_dict(tmp_path / name, "unet")) == set(state_dict())
        assert open_state_dict(tmp_path / name, "pose_net").shapes == {"x": (1,)}


def test_shards_of_bin_files(tmp_path: Path):
    first, second = dict(list(state_dict().items())[:2]), dict(list(state_dict().items())[2:])
    torch.save(first, tmp_path / "1.bin")
    torch.save(second, tmp_path / "2.bin")
    index = {"weight_map": dict.fromkeys(first, "1.bin") | dict.fromkeys(second, "2.bin")}
    (tmp_path / "pytorch_model.bin.index.json").write_text(json.dumps(index))
    assert_right(tmp_path / "pytorch_model.bin.index.json")


def test_files_from_before_torch_1_6(tmp_path: Path):
    torch.save(state_dict(), tmp_path / "x.pth", _use_new_zipfile_serialization=False)
    assert_right(tmp_path / "x.pth")


def test_a_file_is_opened_anew_after_so_many_bytes(tmp_path: Path, monkeypatch: pytest.MonkeyPatch):
    monkeypatch.setattr(state_dict_files, "_REOPEN_AFTER", 10)
    torch.save(state_dict(), tmp_path / "x.pth")
    assert_right(tmp_path / "x.pth")


def test_what_we_write_torch_loads(tmp_path: Path):
    arrays = {"w": np.arange(6, dtype=np.float32).reshape(2, 3), "n": np.zeros((), np.int64)}
    write_pth(tmp_path / "x.pth", arrays.items())
    loaded = torch.load(tmp_path / "x.pth", weights_only=True)
    assert loaded["w"].dtype == torch.float32
    assert loaded["n"].shape == ()
    np.testing.assert_array_equal(loaded["w"].numpy(), arrays["w"])


class Trap:
    """Leaves a file behind when it is unpickled."""

    def __init__(self, path: Path):
        self.path = path

    def __reduce__(self):
        return (Path.touch, (self.path,))


@pytest.mark.parametrize("legacy", [False, True], ids=["zip", "legacy"])
def test_nothing_in_a_file_is_run(legacy: bool, tmp_path: Path):
    path, sprung = tmp_path / "x.pth", tmp_path / "sprung"
    torch.save(state_dict() | {"x": Trap(sprung)}, path, _use_new_zipfile_serialization=not legacy)
    with pytest.raises(InputError, match=r"x.pth holds Python objects beside tensors, and is not opened"):
        open_state_dict(path)
    assert not sprung.exists()


def test_nothing_in_a_plain_pickle_is_run(tmp_path: Path):
    path, sprung = tmp_path / "x.pth", tmp_path / "sprung"
    path.write_bytes(pickle.dumps(Trap(sprung)))
    with pytest.raises(InputError, match=r"x.pth"):
        open_state_dict(path)
    assert not sprung.exists()


def _zip(path: Path) -> None:
    with zipfile.ZipFile(path, "w") as archive:
        archive.writestr("holiday.jpg", "x")


@pytest.mark.parametrize(
    ("make", "message"),
    [
        (lambda path: path.write_bytes(b"hello"), "not a file that torch.save wrote, or is damaged"),
        (_zip, "not a file that torch.save wrote, or is damaged"),
        (lambda path: torch.save([torch.ones(2)], path), "not a dictionary of tensors: it holds a list"),
        (lambda path: torch.save({}, path), "not a dictionary of tensors: it is empty"),
        (lambda path: torch.save(state_dict() | {"epoch": 3}, path), "not a dictionary of tensors: 'epoch' is a int"),
        (lambda path: torch.save({"state_dict": {"a": 1}}, path), "x.pth, state_dict is not a dictionary of tensors"),
        (lambda path: torch.save({"a": torch.eye(2).to_sparse()}, path), "'a' is a sparse tensor"),
        (
            lambda path: torch.save({"state_dict": state_dict(), "model": state_dict()}, path),
            "holds several state dicts, state_dict and model: save the one wanted alone",
        ),
    ],
)
def test_other_files_are_refused_in_one_line(make, message: str, tmp_path: Path):
    make(tmp_path / "x.pth")
    with pytest.raises(InputError, match=message) as caught:
        open_state_dict(tmp_path / "x.pth")
    assert len(str(caught.value).splitlines()) == 1


@pytest.mark.parametrize("share", [0.3, 0.9, 0.999])
def test_a_truncated_file_is_refused(share: float, tmp_path: Path):
    path = tmp_path / "x.pth"
    torch.save(state_dict(), path)
    path.write_bytes(path.read_bytes()[: int(share * path.stat().st_size)])
    with pytest.raises(InputError, match=r"not a file that torch.save wrote, or is damaged") as caught:
        open_state_dict(path)
    assert len(str(caught.value).splitlines()) == 1
