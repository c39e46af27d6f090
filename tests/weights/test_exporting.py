"""From a checkpoint to published files and back: the same bits, the same names."""

import dataclasses
import json
import os
import shutil
from pathlib import Path

import jax
import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from safetensors.numpy import load_file, save_file

from stableanimator_jax.config import (
    ArcFaceConfig,
    Dtype,
    FaceEncoderConfig,
    ImageEncoderConfig,
    PoseNetConfig,
    StableAnimatorConfig,
    UNetConfig,
    VAEConfig,
)
from stableanimator_jax.errors import InputError
from stableanimator_jax.models.catalogue import blueprint
from stableanimator_jax.weights.checkpoint import describe, save_checkpoint, stream_params
from stableanimator_jax.weights.exporting import export_weights
from stableanimator_jax.weights.importing import import_weights
from stableanimator_jax.weights.published_configs import read_published_config
from stableanimator_jax.weights.state_dict_files import StateDictFile
from stableanimator_jax.weights.wider_vae import Narrowed, vae_shapes, wider
from tests.make_stand_ins import make_stand_ins

TINY = StableAnimatorConfig.tiny()
ALL = ("unet", "vae", "image_encoder", "face_encoder", "pose_net", "arcface")


def random_checkpoint(
    path: Path, config: StableAnimatorConfig, seed: int, models=ALL, dtype: Dtype = "float32"
) -> Path:
    rng = np.random.default_rng(seed)

    def params(model: str):
        abstract = blueprint(config, model, dtype).abstract_params()
        return jax.tree.map(lambda leaf: rng.standard_normal(leaf.shape, np.float32).astype(leaf.dtype), abstract)

    save_checkpoint(path, config, {model: params(model) for model in models})
    return path


def assert_same_weights(one: Path, other: Path) -> None:
    assert describe(one).models == describe(other).models
    for model in describe(one).models:
        found, expected = dict(stream_params(one, model)), dict(stream_params(other, model))
        assert found.keys() == expected.keys()
        for name, array in expected.items():
            np.testing.assert_array_equal(found[name], array, err_msg=f"{model} {name}", strict=True)


def test_files_go_in_and_come_out_bit_for_bit(tmp_path: Path):
    files, exported = tmp_path / "files", tmp_path / "exported"
    make_stand_ins(files, tiny=True, file_format="safetensors")
    import_weights(tmp_path / "c", svd=str(files / "SVD"), stableanimator=str(files / "Animation"), arcface=str(files))
    written = export_weights(str(tmp_path / "c"), exported, file_format="safetensors")
    assert set(written) == {path for path in exported.rglob("*") if path.is_file()}
    given = {path.relative_to(files) for path in files.rglob("*") if path.is_file()}
    assert {path.relative_to(exported) for path in written} == given | {Path("Animation/config.json")}
    for path in given:
        if path.suffix == ".json":
            assert json.loads((exported / path).read_text()) == json.loads((files / path).read_text())
            continue
        found, expected = load_file(exported / path), load_file(files / path)
        assert found.keys() == expected.keys()
        for key, array in expected.items():
            np.testing.assert_array_equal(found[key], array, err_msg=f"{path} {key}", strict=True)
    assert sorted(p.name for p in tmp_path.iterdir()) == ["c", "exported", "files"]


width = st.sampled_from([32, 64])


@st.composite
def configurations(draw: st.DrawFn) -> StableAnimatorConfig:
    widths = tuple(draw(st.lists(width, min_size=2, max_size=3)))
    context, latent = draw(st.sampled_from([64, 128])), draw(st.integers(3, 4))
    return StableAnimatorConfig(
        unet=UNetConfig(
            in_channels=2 * latent,
            out_channels=latent,
            block_out_channels=widths,
            num_attention_heads=tuple(draw(st.sampled_from([1, 2, 4])) for _ in widths),
            layers_per_block=draw(st.integers(1, 2)),
            cross_attention_dim=context,
            addition_time_embed_dim=8,
            projection_class_embeddings_input_dim=24,
            id_injection=draw(st.sampled_from(["distribution_aware", "addition"])),
        ),
        vae=VAEConfig(
            block_out_channels=tuple(draw(width) for _ in range(4)),
            layers_per_block=draw(st.integers(1, 2)),
            latent_channels=latent,
            norm_num_groups=draw(st.sampled_from([32, 8])),
            scaling_factor=draw(st.sampled_from([0.18215, 0.5])),
        ),
        image_encoder=ImageEncoderConfig(
            hidden_size=draw(width),
            intermediate_size=40,
            num_hidden_layers=draw(st.integers(1, 3)),
            num_attention_heads=draw(st.sampled_from([1, 4])),
            image_size=28,
            patch_size=draw(st.sampled_from([7, 14])),
            projection_dim=context,
            hidden_act=draw(st.sampled_from(["gelu", "quick_gelu"])),
        ),
        face_encoder=FaceEncoderConfig(
            cross_attention_dim=context,
            image_embedding_dim=context,
            id_embedding_dim=16,
            num_tokens=draw(st.integers(1, 4)),
            depth=draw(st.integers(1, 3)),
            refine=draw(st.booleans()),
        ),
        pose_net=PoseNetConfig(widths[0]),
        arcface=ArcFaceConfig(
            layers=tuple(draw(st.integers(1, 2)) for _ in range(4)),
            widths=tuple(draw(st.sampled_from([4, 6])) for _ in range(4)),
            embedding_dim=16,
        ),
    )


@pytest.mark.slow
def test_a_checkpoint_of_any_configuration_survives_export_and_import(tmp_path_factory: pytest.TempPathFactory):
    @settings(max_examples=4, deadline=None, derandomize=True, database=None)
    @given(config=configurations(), seed=st.integers(0, 2**32 - 1))
    def check(config: StableAnimatorConfig, seed: int):
        place = tmp_path_factory.mktemp("any")
        before = random_checkpoint(place / "before", config, seed)
        export_weights(str(before), place / "files", file_format="safetensors")
        root = str(place / "files")
        import_weights(place / "after", svd=root, stableanimator=root, arcface=root)
        assert describe(place / "after").config == config
        assert_same_weights(place / "after", before)

    check()


def test_bfloat16_is_widened(tmp_path: Path):
    checkpoint = random_checkpoint(tmp_path / "c", TINY, 0, ("pose_net",), "bfloat16")
    (_, file) = export_weights(str(checkpoint), tmp_path / "out", file_format="safetensors")
    stored = dict(stream_params(checkpoint, "pose_net"))
    assert stored["final_proj.bias"].dtype.name == "bfloat16"
    found = load_file(file)["final_proj.bias"]
    np.testing.assert_array_equal(found, stored["final_proj.bias"].astype(np.float32), strict=True)


def test_a_part_alone(tmp_path: Path):
    checkpoint = random_checkpoint(tmp_path / "c", TINY, 0, ("vae", "pose_net"))
    export_weights(str(checkpoint), tmp_path / "out", file_format="safetensors")
    written = sorted(p.relative_to(tmp_path / "out").as_posix() for p in (tmp_path / "out").rglob("*") if p.is_file())
    assert written == [
        "Animation/config.json",
        "Animation/pose_net.safetensors",
        "SVD/vae/config.json",
        "SVD/vae/diffusion_pytorch_model.safetensors",
    ]
    assert read_published_config(tmp_path / "out/SVD/vae/config.json", VAEConfig) == TINY.vae


def test_places_that_cannot_be_written(tmp_path: Path, monkeypatch: pytest.MonkeyPatch):
    checkpoint = random_checkpoint(tmp_path / "c", TINY, 0, ("pose_net",))
    (tmp_path / "file").write_text("x")
    for output, message in (
        (tmp_path / "file", "cannot export to .*file: it is a file; name a directory"),
        (tmp_path / "file" / "deeper", "cannot write .*deeper: .* is not a directory that can be written"),
        (checkpoint, "will not export into .*c, which is not empty; choose another --output"),
    ):
        with pytest.raises(InputError, match=message):
            export_weights(str(checkpoint), output, file_format="safetensors")
    usage = shutil.disk_usage(tmp_path)._replace(free=10**5)
    monkeypatch.setattr(shutil, "disk_usage", lambda path: usage)
    with pytest.raises(InputError, match=r"out needs up to 1 MB, but .* has 0 MB free: make room"):
        export_weights(str(checkpoint), tmp_path / "out", file_format="safetensors")
    assert sorted(p.name for p in tmp_path.iterdir()) == ["c", "file"]


def test_a_failed_export_leaves_nothing(tmp_path: Path, monkeypatch: pytest.MonkeyPatch):
    checkpoint = random_checkpoint(tmp_path / "c", TINY, 0, ("vae", "pose_net"))

    def full(*_args) -> None:
        raise OSError(28, os.strerror(28))

    monkeypatch.setattr("stableanimator_jax.weights.exporting._write_json", full)
    with pytest.raises(InputError, match=r"cannot write .*out: No space left on device"):
        export_weights(str(checkpoint), tmp_path / "out", file_format="safetensors")
    assert [p.name for p in tmp_path.iterdir()] == ["c"]


def test_without_torch_there_is_another_format(tmp_path: Path, monkeypatch: pytest.MonkeyPatch):
    checkpoint = random_checkpoint(tmp_path / "c", TINY, 0, ("pose_net",))
    monkeypatch.setattr("importlib.util.find_spec", lambda name: None)
    with pytest.raises(InputError, match="not installed: `pip install torch`, or give --format safetensors"):
        export_weights(str(checkpoint), tmp_path / "out")


FEW_GROUPS = dataclasses.replace(
    TINY, vae=VAEConfig(block_out_channels=(8, 8, 16, 16), layers_per_block=1, norm_num_groups=8)
)


def test_a_vae_of_fewer_groups_goes_out_as_a_wider_one_and_comes_back(tmp_path: Path):
    checkpoint = random_checkpoint(tmp_path / "c", FEW_GROUPS, 0)
    export_weights(str(checkpoint), tmp_path / "out", file_format="safetensors")
    wide = read_published_config(tmp_path / "out/SVD/vae/config.json", VAEConfig)
    assert wide == dataclasses.replace(FEW_GROUPS.vae, block_out_channels=(32, 32, 64, 64), norm_num_groups=32)
    both = {"svd": str(tmp_path / "out/SVD"), "stableanimator": str(tmp_path / "out/Animation")}
    import_weights(tmp_path / "again", **both, arcface=both["stableanimator"])
    assert describe(tmp_path / "again").config == FEW_GROUPS
    assert_same_weights(tmp_path / "again", checkpoint)
    # Without this project's config.json it is the VAE that PyTorch has.
    import_weights(tmp_path / "alone", svd=both["svd"])
    assert describe(tmp_path / "alone").config.vae == wide


def test_a_wider_vae_that_was_trained_on_is_not_cut(tmp_path: Path):
    random_checkpoint(tmp_path / "c", FEW_GROUPS, 0)
    export_weights(str(tmp_path / "c"), tmp_path / "out", file_format="safetensors")
    file = tmp_path / "out/SVD/vae/diffusion_pytorch_model.safetensors"
    tensors = load_file(file)
    tensors["encoder.conv_in.weight"][-1, 0, 1, 1] = 0.5
    save_file(tensors, file)
    both = {"svd": str(tmp_path / "out/SVD"), "stableanimator": str(tmp_path / "out/Animation")}
    with pytest.raises(
        InputError, match=r"encoder\.conv_in\.weight is not zero where .* of SVD/vae/config\.json there"
    ):
        import_weights(tmp_path / "again", **both)
    assert not (tmp_path / "again").exists()
    # As it says:
    described = json.loads((tmp_path / "out/Animation/config.json").read_text())
    described["vae"] |= {"block_out_channels": [32, 32, 64, 64], "norm_num_groups": 32}
    (tmp_path / "out/Animation/config.json").write_text(json.dumps(described))
    import_weights(tmp_path / "again", **both)
    assert describe(tmp_path / "again").config.vae.norm_num_groups == 32
    described["vae"] |= {"block_out_channels": [64, 64, 64, 64], "norm_num_groups": 64}
    (tmp_path / "out/Animation/config.json").write_text(json.dumps(described))
    with pytest.raises(InputError, match=r"Animation/config\.json describes another vae"):
        import_weights(tmp_path / "other", **both)


def test_numbers_of_a_quantised_checkpoint_stay_integers():
    class File(StateDictFile):
        files = (Path("some.safetensors"),)
        shapes = vae_shapes(dataclasses.replace(FEW_GROUPS, vae=wider(FEW_GROUPS.vae)))

        def __getitem__(self, key: str) -> np.ndarray:
            array = np.zeros(self.shapes[key], np.int8)
            array[0] = 7
            return array

    key = "encoder.mid_block.attentions.0.to_q.bias"
    narrowed = Narrowed(File(), FEW_GROUPS)[key]
    assert (narrowed.shape, narrowed.dtype, narrowed[0]) == ((16,), np.int8, 7)


def test_a_vae_that_pytorch_cannot_build(tmp_path: Path):
    vae = VAEConfig(block_out_channels=(64, 64, 64, 64), layers_per_block=1, norm_num_groups=64)
    random_checkpoint(tmp_path / "c", dataclasses.replace(TINY, vae=vae), 0, models=("vae",))
    with pytest.raises(InputError, match="norms of 64 groups"):
        export_weights(str(tmp_path / "c"), tmp_path / "out", file_format="safetensors")
    assert not (tmp_path / "out").exists()


@pytest.mark.long
def test_half_precision_is_diffusers_variant(tmp_path: Path):
    checkpoint = random_checkpoint(tmp_path / "c", TINY, 0, ("unet", "vae", "pose_net", "arcface"))
    export_weights(str(checkpoint), tmp_path / "out", file_format="safetensors", dtype="float16")
    stored = dict(stream_params(checkpoint, "vae"))
    found = load_file(tmp_path / "out/SVD/vae/diffusion_pytorch_model.fp16.safetensors")
    assert {array.dtype.name for array in found.values()} == {"float16"}
    expected = stored["encoder.conv_in.bias"].astype(np.float16)
    np.testing.assert_array_equal(found["encoder.conv_in.bias"], expected, strict=True)
    assert load_file(tmp_path / "out/Animation/pose_net.safetensors")["scale"].dtype == np.float16
    arcface = load_file(tmp_path / "out/Animation/glintr100_torch.safetensors")
    assert {array.dtype.name for array in arcface.values()} == {"float32", "int64"}

    save_checkpoint(tmp_path / "large", TINY, {"pose_net": {"scale": np.full(1, 1e5, np.float32)}})
    with pytest.raises(InputError, match="scale of pose_net has values beyond 65504, float16's largest: give float32"):
        export_weights(str(tmp_path / "large"), tmp_path / "other", file_format="safetensors", dtype="float16")
    assert not (tmp_path / "other").exists()
