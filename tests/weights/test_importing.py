"""From published files to a checkpoint: what may vary, what is refused, and that nothing half-written stays."""

import hashlib
import json
import os
import shutil
import subprocess
import sys
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from safetensors.numpy import load_file, save_file

from stableanimator_jax.config import StableAnimatorConfig
from stableanimator_jax.errors import InputError
from stableanimator_jax.weights import importing
from stableanimator_jax.weights.checkpoint import describe, load_params, stored_params, stream_params
from stableanimator_jax.weights.importing import import_weights
from stableanimator_jax.weights.rules import flatten
from stableanimator_jax.weights.tables import tables
from tests.make_stand_ins import make_stand_ins
from tests.weights.state_dicts import export

TINY = StableAnimatorConfig.tiny()
ALL = ("unet", "vae", "image_encoder", "face_encoder", "pose_net", "arcface")
UNET, VAE, CLIP = (
    "SVD/unet/diffusion_pytorch_model.safetensors",
    "SVD/vae/diffusion_pytorch_model.safetensors",
    "SVD/image_encoder/model.safetensors",
)
ARCFACE = "Animation/glintr100_torch.safetensors"


@pytest.fixture(scope="module")
def stand_ins(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The published layout at the tiny size; not to be changed."""
    root = tmp_path_factory.mktemp("stand_ins")
    make_stand_ins(root, tiny=True, file_format="safetensors")
    return root


@pytest.fixture
def files(stand_ins: Path, tmp_path: Path) -> Path:
    """A copy that a test may change. ArcFace, the largest, is left out."""
    return Path(shutil.copytree(stand_ins, tmp_path / "files", ignore=shutil.ignore_patterns("glintr100*")))


def import_all(root: Path, output: Path, **kwargs) -> Path:
    import_weights(output, svd=str(root / "SVD"), stableanimator=str(root / "Animation"), **kwargs)
    return output


def state_dict(checkpoint: Path, model: str) -> dict[str, np.ndarray]:
    return export(tables(describe(checkpoint).config)[model], dict(stream_params(checkpoint, model)))


def assert_holds(checkpoint: Path, model: str, file: Path) -> None:
    found = state_dict(checkpoint, model)
    expected = {k: v for k, v in load_file(file).items() if not k.endswith("num_batches_tracked")}
    assert found.keys() == expected.keys()
    for key, array in expected.items():
        np.testing.assert_array_equal(found[key], array, strict=True)


def rewrite(file: Path, change: Callable[[dict[str, np.ndarray]], object]) -> None:
    tensors = load_file(file)
    change(tensors)
    save_file(tensors, file)


def test_everything(stand_ins: Path, tmp_path: Path):
    checkpoint = import_all(stand_ins, tmp_path / "c", arcface=str(stand_ins / ARCFACE))
    description = describe(checkpoint)
    assert description.models == ALL
    assert description.config == TINY
    for model, file in zip(ALL, ("Animation/unet.safetensors", VAE, CLIP), strict=False):
        assert_holds(checkpoint, model, stand_ins / file)
    for model in ("face_encoder", "pose_net"):
        assert_holds(checkpoint, model, stand_ins / f"Animation/{model}.safetensors")
    assert_holds(checkpoint, "arcface", stand_ins / ARCFACE)
    for model, file in (("vae", VAE), ("arcface", ARCFACE)):
        content = (stand_ins / file).read_bytes()
        assert description.source[model]["files"] == [
            {
                "name": "/".join((stand_ins / file).parts[-3:]),
                "bytes": len(content),
                "sha256": hashlib.sha256(content).hexdigest(),
            }
        ]
    assert [p.name for p in tmp_path.iterdir()] == ["c"]


@pytest.mark.long
def test_svd_alone_is_where_training_starts(files: Path, tmp_path: Path):
    checkpoint = tmp_path / "c"
    assert import_weights(checkpoint, svd=str(files / "SVD")) == ALL[:-1]
    # Sampling from it is SVD: the ID adapter and the Face Encoder know nothing yet.
    assert describe(checkpoint).config.unet == replace(TINY.unet, id_injection="none")
    unet = state_dict(checkpoint, "unet")
    for key, array in load_file(files / UNET).items():
        np.testing.assert_array_equal(unet[key], array, strict=True)
    adapter = [key for key in unet if "processor" in key]
    assert len(adapter) == 2 * 16
    for key in adapter:
        np.testing.assert_array_equal(unet[key], unet[key.replace("processor.id_", "")], strict=True)
    pose_net, face_encoder = state_dict(checkpoint, "pose_net"), state_dict(checkpoint, "face_encoder")
    assert not pose_net["final_proj.weight"].any()
    assert pose_net["scale"] == 2
    spread = pose_net["conv_layers.6.weight"].std()
    assert abs(spread - np.sqrt(2 / (16 * 16))) < 0.1 * spread  # He-normal
    assert not face_encoder["fusion_model.proj_out.weight"].any()
    assert face_encoder["proj.0.weight"].std() > 0.01
    source = describe(checkpoint).source
    assert source["pose_net"] == {"initialised": "as training starts, with seed 0"}
    assert "copy of its to_k and to_v" in source["unet"]["note"]

    import_weights(tmp_path / "again", svd=str(files / "SVD"))
    import_weights(tmp_path / "other", svd=str(files / "SVD"), seed=1)
    key = "conv_layers.6.weight"
    np.testing.assert_array_equal(state_dict(tmp_path / "again", "pose_net")[key], pose_net[key])
    assert (state_dict(tmp_path / "other", "pose_net")[key] != pose_net[key]).any()


def test_arcface_alone(stand_ins: Path, tmp_path: Path):
    assert import_weights(tmp_path / "c", arcface=str(stand_ins)) == ("arcface",)  # found in its Animation/
    assert describe(tmp_path / "c").config.arcface == TINY.arcface
    assert_holds(tmp_path / "c", "arcface", stand_ins / ARCFACE)


def test_the_networks_alone_with_their_configuration(files: Path, tmp_path: Path):
    (files / "Animation" / "config.json").write_text(json.dumps(TINY.to_dict()))
    assert import_weights(tmp_path / "c", stableanimator=str(files)) == ("unet", "face_encoder", "pose_net")
    assert describe(tmp_path / "c").config == TINY


def test_the_networks_alone_must_have_the_published_sizes(files: Path, tmp_path: Path):
    with pytest.raises(InputError, match=r"conv_in.weight is \[32, 8, 3, 3\], the model takes \[320, 8, 3, 3\]"):
        import_weights(tmp_path / "c", stableanimator=str(files))


def test_the_last_step_that_training_left_all_of(files: Path, tmp_path: Path):
    networks = files / "Animation"
    for name in ("unet", "pose_net", "face_encoder"):
        tensors = load_file(networks / f"{name}.safetensors")
        (networks / f"{name}.safetensors").unlink()
        # As torch.compile and DistributedDataParallel leave names, at any depth.
        inner = {
            key.replace("blocks.", "blocks._orig_mod.").replace(".layers.", ".module.layers."): t
            for key, t in tensors.items()
        }
        save_file({f"module.{key}": t for key, t in inner.items()}, networks / f"{name}-30000.safetensors")
        save_file({key: t + 1 for key, t in tensors.items()}, networks / f"{name}-9000.safetensors")
    save_file({"x": np.ones(1)}, networks / "unet-60000.safetensors")
    checkpoint = import_all(files, tmp_path / "c")
    names = [describe(checkpoint).source[m]["files"][0]["name"].split("/")[-1] for m in ("unet", "pose_net")]
    assert names == ["unet-30000.safetensors", "pose_net-30000.safetensors"]
    found = state_dict(checkpoint, "unet")
    for key, array in load_file(networks / "unet-9000.safetensors").items():
        np.testing.assert_allclose(found[key] + 1, array, rtol=1e-6)
    for step in (9000, 30000):
        (networks / f"pose_net-{step}.safetensors").unlink()
    with pytest.raises(InputError, match=r"has no step with all of unet, pose_net, face_encoder .* pose_net: none"):
        import_all(files, tmp_path / "other")


def test_a_git_lfs_pointer_is_named(files: Path, tmp_path: Path):
    (files / NET).write_text("version https://git-lfs.github.com/spec/v1\noid sha256:ab\nsize 12\n")
    with pytest.raises(InputError, match=r"unet.safetensors is only a Git LFS pointer .* `git lfs pull`"):
        import_all(files, tmp_path / "c")


def test_half_precision_and_shards(files: Path, tmp_path: Path):
    vae = load_file(files / VAE)
    half = {key: array.astype(np.float16) for key, array in vae.items()}
    folder = (files / VAE).parent
    (files / VAE).unlink()
    save_file(half, folder / "diffusion_pytorch_model.fp16.safetensors")
    clip, names = load_file(files / CLIP), ("model-00001-of-00002.safetensors", "model-00002-of-00002.safetensors")
    (files / CLIP).unlink()
    keys = list(clip)
    weight_map = {}
    for name, part in zip(names, (keys[:20], keys[20:]), strict=True):
        save_file({key: clip[key] for key in part}, (files / CLIP).parent / name)
        weight_map |= dict.fromkeys(part, name)
    index = (files / CLIP).parent / "model.safetensors.index.json"
    index.write_text(json.dumps({"metadata": {}, "weight_map": weight_map}))

    checkpoint = import_all(files, tmp_path / "c")
    found = state_dict(checkpoint, "vae")
    for key, array in half.items():
        np.testing.assert_array_equal(found[key], array.astype(np.float32), strict=True)
    for key, array in state_dict(checkpoint, "image_encoder").items():
        np.testing.assert_array_equal(array, clip[key], strict=True)
    names = [file["name"].split("/")[-1] for file in describe(checkpoint).source["image_encoder"]["files"]]
    assert names == ["model.safetensors.index.json", *names[1:]]
    assert len(names) == 3


def test_float32_is_preferred_to_float16(files: Path, tmp_path: Path):
    junk = {"x": np.zeros(1, np.float16)}
    save_file(junk, (files / VAE).parent / "diffusion_pytorch_model.fp16.safetensors")
    assert_holds(import_all(files, tmp_path / "c"), "vae", files / VAE)


@pytest.mark.slow
def test_bfloat16_keeps_in_float32_what_computes_in_it(files: Path, tmp_path: Path):
    full = import_all(files, tmp_path / "full")
    reduced = import_all(files, tmp_path / "reduced", dtype="bfloat16")
    for model in ALL[:-1]:
        for name, leaf in stored_params(reduced, model).items():
            kernel_or_bias = name.split(".")[-1] in ("kernel", "bias") and "norm" not in name
            if model == "vae" or name.split(".")[-1] in ("scale", "mix_factor"):
                assert leaf.dtype == jnp.float32, name
            elif kernel_or_bias:
                assert leaf.dtype == jnp.bfloat16, name
        # Nothing is lost that computing in bfloat16 would not lose: both load to the same.
        for (name, one), (_, other) in zip(stream_params(full, model), stream_params(reduced, model), strict=True):
            np.testing.assert_array_equal(one.astype(other.dtype), other, err_msg=name, strict=True)


def test_the_result_is_what_the_loader_takes(files: Path, tmp_path: Path):
    checkpoint = import_all(files, tmp_path / "c")
    abstract = importing.blueprint(TINY, "unet").abstract_params()
    loaded = load_params(checkpoint, "unet", abstract)
    assert jax.tree.map(jnp.shape, loaded) == jax.tree.map(lambda leaf: leaf.shape, abstract)
    assert len(flatten(loaded)) == len(stored_params(checkpoint, "unet"))


def _config(component: str, **changes) -> Callable[[Path], object]:
    def change(root: Path) -> None:
        path = root / "SVD" / component / "config.json"
        path.write_text(json.dumps(json.loads(path.read_text()) | changes))

    return change


def _tensors(file: str, change: Callable[[dict[str, np.ndarray]], object]) -> Callable[[Path], object]:
    return lambda root: rewrite(root / file, change)


def _set(key: str, index, value: float) -> Callable[[dict[str, np.ndarray]], object]:
    def change(tensors: dict[str, np.ndarray]) -> None:
        tensors[key] = tensors[key].copy()
        tensors[key][index] = value

    return change


def _swap(root: Path) -> None:
    one, other = root / "Animation/pose_net.safetensors", root / "Animation/face_encoder.safetensors"
    one.rename(root / "x")
    other.rename(one)
    (root / "x").rename(other)


def _truncate(file: str) -> Callable[[Path], object]:
    return lambda root: (root / file).write_bytes((root / file).read_bytes()[:-1])


POSE, FACE, NET = (f"Animation/{name}.safetensors" for name in ("pose_net", "face_encoder", "unet"))
BAD = {
    "missing key": (
        _tensors(POSE, lambda t: t.pop("scale")),
        r"pose_net.safetensors: .* 1 unfilled\s+unfilled: scale \[1\], from",
    ),
    "extra key": (_tensors(VAE, lambda t: t.update(x=np.ones(1))), r"vae/.*1 unmapped\s+unmapped: x \[1\]: no rule"),
    "wrong shape": (
        _tensors(FACE, lambda t: t.update({"norm.bias": np.ones(3)})),
        r"face_encoder.safetensors: .*1 wrong shape\s+wrong shape: norm.bias is \[3\], the model takes \[64\]",
    ),
    "several at once": (
        lambda root: (
            rewrite(root / POSE, lambda t: (t.pop("scale"), t.update(x=np.ones(1)))),
            rewrite(root / CLIP, lambda t: t.pop("visual_projection.weight")),
        ),
        r"(?s)visual_projection.*; and .*pose_net.safetensors: .*1 unmapped, 1 unfilled",
    ),
    "integers": (_tensors(POSE, lambda t: t.update(scale=np.ones(1, np.int8))), r"scale is int8, not floating point"),
    "NaN": (_tensors(CLIP, _set("visual_projection.weight", (0, 0), np.nan)), r"NaN or infinite, in visual_projection"),
    "several infinite": (
        lambda root: (
            rewrite(root / POSE, _set("scale", 0, np.inf)),
            rewrite(root / POSE, _set("final_proj.bias", 1, -np.inf)),
        ),
        r"pose_net.safetensors has values that are NaN or infinite, in (scale, final_proj|final_proj.bias, scale)",
    ),
    "truncated": (_truncate(NET), r"unet.safetensors is not a safetensors file, or is damaged"),
    "swapped files": (_swap, r"face_encoder.safetensors holds the weights of pose_net, not of face_encoder: were"),
    "SVD's UNet as StableAnimator's": (
        lambda root: shutil.copy(root / UNET, root / NET),
        r"32 unfilled(.|\n)*these weights have no ID adapter, as SVD's own UNet: to start from SVD, give --svd alone",
    ),
    "14 frames": (_config("unet", num_frames=14), r"unet/config.json: num_frames is 14, so this is not SVD-XT"),
    "an image model": (_config("unet", _class_name="UNet2DConditionModel"), r"_class_name is 'UNet2DConditionModel'"),
    "an image VAE": (_config("vae", _class_name="AutoencoderKL"), r"vae/config.json: _class_name is 'AutoencoderKL'"),
    "another size": (_config("vae", layers_per_block=2), r"vae/.* \d+ unfilled"),
    "parts that do not fit": (
        _config("unet", cross_attention_dim=128),
        r"image_encoder.projection_dim is 64, must be 128",
    ),
    "no configuration": (lambda root: (root / "SVD/vae/config.json").unlink(), r"cannot read .*vae/config.json"),
    "no weights": (lambda root: (root / VAE).unlink(), r"SVD/vae has no weights: it must hold diffusion_pytorch_model"),
    "no network": (lambda root: (root / FACE).unlink(), r"has no face_encoder.pth or face_encoder.safetensors"),
    "two of one network": (
        lambda root: (root / FACE).with_suffix(".pth").write_bytes(b"x"),
        r"has both face_encoder.pth and face_encoder.safetensors",
    ),
    "another configuration": (
        lambda root: (root / "Animation/config.json").write_text(json.dumps(StableAnimatorConfig().to_dict())),
        r"Animation/config.json describes another unet than --svd does",
    ),
    "a damaged configuration": (
        lambda root: (root / "Animation/config.json").write_text('{"depth": 3}'),
        r"Animation/config.json: StableAnimatorConfig: unknown field\(s\) depth",
    ),
}  # fmt: skip


@pytest.mark.parametrize("case", BAD)
def test_bad_input_is_named_and_nothing_is_written(case: str, files: Path, tmp_path: Path):
    damage, message = BAD[case]
    damage(files)
    with pytest.raises(InputError, match=message):
        import_all(files, tmp_path / "c")
    assert [p.name for p in tmp_path.iterdir()] == ["files"]


def test_svd_alone_takes_no_adapted_unet(files: Path, tmp_path: Path):
    shutil.copy(files / NET, files / UNET)
    with pytest.raises(InputError, match="so it is not Stable Video Diffusion's own UNet; give it as --stableanimator"):
        import_weights(tmp_path / "c", svd=str(files / "SVD"))


def test_wrong_arcface_files(files: Path, tmp_path: Path):
    with pytest.raises(InputError, match=r"lacks layer1 to layer4 or fc; it holds the weights of pose_net"):
        import_weights(tmp_path / "c", arcface=str(files / POSE))
    with pytest.raises(InputError, match=r"has no glintr100_torch.pth, .* or glintr100.onnx: give the file itself"):
        import_weights(tmp_path / "c", arcface=str(files))
    with pytest.raises(InputError, match=r"nothing.onnx does not exist"):
        import_weights(tmp_path / "c", arcface=str(files / "nothing.onnx"))


def test_nothing_to_import(tmp_path: Path):
    with pytest.raises(InputError, match="give --svd, --stableanimator or --arcface"):
        import_weights(tmp_path / "c")
    with pytest.raises(InputError, match="nowhere does not exist"):
        import_weights(tmp_path / "c", svd=str(tmp_path / "nowhere"))


def test_a_failed_import_leaves_the_old_checkpoint(files: Path, tmp_path: Path):
    checkpoint = import_all(files, tmp_path / "c")
    before = {file: file.read_bytes() for file in sorted(checkpoint.rglob("*")) if file.is_file()}
    rewrite(files / CLIP, _set("visual_projection.weight", (0, 0), np.nan))  # found while writing
    with pytest.raises(InputError, match=r"there is a checkpoint in .* by --overwrite"):
        import_all(files, checkpoint)
    with pytest.raises(InputError, match="NaN"):
        import_all(files, checkpoint, overwrite=True)
    assert {file: file.read_bytes() for file in sorted(checkpoint.rglob("*")) if file.is_file()} == before
    assert sorted(p.name for p in tmp_path.iterdir()) == ["c", "files"]


def test_places_that_cannot_be_written(files: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch):
    with pytest.raises(InputError, match=r"will not replace .*SVD, which is not a whole checkpoint"):
        import_all(files, files / "SVD")
    with pytest.raises(InputError, match=r"cannot write .*deeper: .* is not a directory that can be written"):
        import_all(files, files / UNET / "deeper")
    usage = shutil.disk_usage(tmp_path)._replace(free=10**6)
    monkeypatch.setattr(shutil, "disk_usage", lambda path: usage)
    with pytest.raises(InputError, match=r"c needs up to \d+ MB, but .* has 1 MB free: make room"):
        import_all(files, tmp_path / "c")
    assert [p.name for p in tmp_path.iterdir()] == ["files"]


def _run(code: str, *args: str) -> subprocess.Popen[str]:
    environment = os.environ | {"JAX_PLATFORMS": "cpu", "PYTHONPATH": str(Path(__file__).parents[2])}
    return subprocess.Popen(
        [sys.executable, "-c", code, *args], env=environment, text=True, stdout=subprocess.PIPE, stderr=subprocess.PIPE
    )


FULL_DISK = """
import resource, sys
from pathlib import Path
from stableanimator_jax.errors import InputError
from stableanimator_jax.weights.importing import import_weights
resource.setrlimit(resource.RLIMIT_FSIZE, (10**6, 10**6))
try:
    import_weights(Path(sys.argv[2]), svd=sys.argv[1] + "/SVD", stableanimator=sys.argv[1])
except InputError as e:
    print(e)
"""


@pytest.mark.long
def test_a_disk_that_fills_up(files: Path, tmp_path: Path):
    process = _run(FULL_DISK, str(files), str(tmp_path / "c"))
    out, err = process.communicate(timeout=900)
    assert out.startswith(f"cannot write the checkpoint {tmp_path / 'c'}: "), err
    assert len(out.splitlines()) == 1
    assert err == ""  # Orbax's threads fail by the hundred, each with a traceback
    assert [p.name for p in tmp_path.iterdir()] == ["files"]


@pytest.mark.long
def test_what_a_killed_import_leaves_is_no_checkpoint_and_no_obstacle(files: Path, tmp_path: Path):
    code = (
        "import os, sys\nfrom pathlib import Path\nfrom stableanimator_jax.weights import importing\n"
        "def killed(self, show_progress):\n    os._exit(9)\n    yield\n"
        "importing.FreshWeights.stream = killed\n"  # after the UNet and the rest are written
        "importing.import_weights(Path(sys.argv[2]), svd=sys.argv[1] + '/SVD')\n"
    )
    process = _run(code, str(files), str(tmp_path / "c"))
    process.communicate(timeout=900)
    assert process.returncode == 9
    assert (tmp_path / ".c.unfinished" / "unet").exists()
    assert not (tmp_path / "c").exists()
    with pytest.raises(InputError, match=r"no config.json"):
        describe(tmp_path / ".c.unfinished")
    import_all(files, tmp_path / "c")
    assert sorted(p.name for p in tmp_path.iterdir()) == ["c", "files"]
