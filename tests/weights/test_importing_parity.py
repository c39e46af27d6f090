"""The published `.pth` files, wrapped as trainers leave them, in and out again."""

from pathlib import Path

import pytest

from stableanimator_jax.errors import InputError
from stableanimator_jax.weights.exporting import export_weights
from stableanimator_jax.weights.importing import import_weights
from tests.make_stand_ins import make_stand_ins

torch = pytest.importorskip("torch")
pytestmark = pytest.mark.parity


def load(path: Path) -> dict:
    return torch.load(path, weights_only=True)


def test_pth_files_go_in_and_come_out_bit_for_bit(tmp_path: Path):
    files = tmp_path / "files"
    make_stand_ins(files, tiny=True)
    given = {path.name: load(path) for path in (files / "Animation").iterdir()}
    assert sorted(given) == ["face_encoder.pth", "glintr100_torch.pth", "pose_net.pth", "unet.pth"]
    # As distributed training with an optimiser leaves one of them.
    wrapped = {"model": {f"module.{k}": v for k, v in given["unet.pth"].items()}, "optimizer": {"lr": 1e-5}, "step": 7}
    torch.save(wrapped, files / "Animation/unet.pth")
    import_weights(tmp_path / "c", svd=str(files / "SVD"), stableanimator=str(files), arcface=str(files))
    export_weights(str(tmp_path / "c"), tmp_path / "out")
    for name, expected in given.items():
        found = load(tmp_path / "out/Animation" / name)
        assert found.keys() == expected.keys()
        for key, tensor in expected.items():
            assert found[key].dtype == tensor.dtype
            assert torch.equal(found[key], tensor), key


def test_a_pth_file_with_objects_is_refused(tmp_path: Path):
    make_stand_ins(tmp_path / "files", tiny=True)
    path = tmp_path / "files/Animation/pose_net.pth"
    torch.save(load(path) | {"config": Path("somewhere")}, path)
    with pytest.raises(InputError, match=r"pose_net.pth holds Python objects beside tensors"):
        import_weights(tmp_path / "c", stableanimator=str(tmp_path / "files"))
    assert [p.name for p in tmp_path.iterdir()] == ["files"]
