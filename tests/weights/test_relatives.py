"""SVD's relatives from their published files to checkpoints and back, and what is refused."""

import json
import shutil
from collections.abc import Callable, Mapping
from dataclasses import replace
from pathlib import Path

import jax
import numpy as np
import pytest
from safetensors.numpy import load_file, save_file

from stableanimator_jax.config import Kind, StableAnimatorConfig
from stableanimator_jax.errors import InputError
from stableanimator_jax.models.catalogue import blueprint
from stableanimator_jax.training.config import ModelConfig
from stableanimator_jax.training.state import model_config
from stableanimator_jax.weights.checkpoint import describe, stream_params
from stableanimator_jax.weights.exporting import export_weights
from stableanimator_jax.weights.importing import import_weights
from stableanimator_jax.weights.rules import by_name, plan_export
from stableanimator_jax.weights.state_dict_files import StateDictFile
from stableanimator_jax.weights.state_dict_views import split
from stableanimator_jax.weights.tables import is_id_adapter_key, tables
from tests.golden_data import ReferenceWeights, load, manifest
from tests.make_stand_ins import make_relative, make_stand_ins, make_svd, tiny_config
from tests.relatives import GOLDEN, golden_checkpoint
from tests.weights.state_dicts import convert, export

ARCFACE = "Animation/glintr100_torch.safetensors"
RELATIVES: tuple[Kind, ...] = ("mimicmotion", "animatelcm", "controlnext")
MODELS: dict[Kind, tuple[str, ...]] = {
    "mimicmotion": ("unet", "vae", "image_encoder", "pose_net"),
    "svd": ("unet", "vae", "image_encoder", "face_encoder", "pose_net"),
    "animatelcm": ("unet", "vae", "image_encoder"),
    "controlnext": ("unet", "vae", "image_encoder", "control_net"),
}
VALUES = {"control_net": "controlnext."}  # how the golden cases' weights are named, where not as our models


@pytest.fixture(scope="module")
def stand_ins(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Everything at the tiny size; not to be changed."""
    root = tmp_path_factory.mktemp("stand_ins")
    make_stand_ins(root, tiny=True, file_format="safetensors", relatives=RELATIVES)
    return root


@pytest.fixture
def files(stand_ins: Path, tmp_path: Path) -> Path:
    """A copy that a test may change, without ArcFace."""
    return Path(shutil.copytree(stand_ins, tmp_path / "files", ignore=shutil.ignore_patterns("glintr100*")))


def svd_of(root: Path, kind: Kind) -> Path:
    return root / ("SVD_controlnext" if kind == "controlnext" else "SVD")


def import_relative(root: Path, kind: Kind, output: Path, **kwargs: str) -> Path:
    given = {kind: str(root / kind)} if kind in RELATIVES else {}
    import_weights(output, svd=str(svd_of(root, kind)), **(given | kwargs))
    return output


def state_dict(checkpoint: Path, model: str) -> dict[str, np.ndarray]:
    return export(tables(describe(checkpoint).config)[model], dict(stream_params(checkpoint, model)))


def assert_same(found: Mapping[str, np.ndarray], expected: Mapping[str, np.ndarray]) -> None:
    assert found.keys() == expected.keys()
    for key, array in expected.items():
        np.testing.assert_array_equal(found[key], array, err_msg=key, strict=True)


def of_svd(unet: Mapping[str, np.ndarray]) -> dict[str, np.ndarray]:
    return {key: array for key, array in unet.items() if not is_id_adapter_key(key)}


class OnlyShapes(StateDictFile):
    """A manifest as a file."""

    def __init__(self, name: str):
        self.files, self.shapes = (Path(name),), dict(manifest(name))

    def __getitem__(self, key: str) -> np.ndarray:
        raise AssertionError(f"{key} is read")


def test_mimicmotions_published_keys_are_those_of_both_models():
    unet, pose_net = split(OnlyShapes("mimicmotion"), ("unet.", "pose_net."))
    assert (unet.shapes, pose_net.shapes) == (manifest("svd_unet"), manifest("pose_net"))
    assert len(unet) + len(pose_net) == len(manifest("mimicmotion")) == 1428 + 19


@pytest.mark.long
@pytest.mark.parametrize("name", ["svd_pipeline"])  # the others by what their samplers make of them
def test_the_golden_weights_come_through_import(name: str, tmp_path: Path):
    checkpoint, kind = golden_checkpoint(name, tmp_path), GOLDEN[name]
    description = describe(checkpoint)
    config = description.config
    assert config == replace(tiny_config(kind), arcface=StableAnimatorConfig().arcface)
    assert description.models == MODELS[kind]
    for model in set(MODELS[kind]) - ({"face_encoder", "pose_net"} if kind == "svd" else set()):
        abstract = blueprint(config, model).abstract_params()
        shapes = {a.key: a.source_shape for a in plan_export(tables(config)[model], abstract)}
        reference = ReferenceWeights(shapes, VALUES.get(model, f"{model}."))
        expected = by_name(convert(tables(config)[model], reference, abstract))
        found = dict(stream_params(checkpoint, model))
        if model == "unet":  # the adapter, which is switched off, is a copy of to_k and to_v
            expected |= {n: expected[n.replace(".id_to_", ".to_")] for n in expected if ".id_to_" in n}
        assert_same(found, expected)


def test_the_golden_cases_configurations_are_those_of_the_stand_ins():
    for name, kind in GOLDEN.items():
        case, config = load(name), tiny_config(kind)
        assert case["image_latents"].shape[-3] == config.vae.latent_channels
        if "config" in case:
            given = json.loads(str(case["config"]))
            for model in ("unet", "vae", "image_encoder"):
                ours = getattr(config, model)
                assert {f: getattr(ours, f) for f in given[model]} == {
                    f: tuple(v) if isinstance(v, list) else v for f, v in given[model].items()
                }


@pytest.mark.slow
@pytest.mark.parametrize("kind", ["mimicmotion", "controlnext", "svd", "animatelcm"])
def test_files_go_in_and_come_out_bit_for_bit(kind: Kind, stand_ins: Path, tmp_path: Path):
    checkpoint = import_relative(stand_ins, kind, tmp_path / "c", arcface=str(stand_ins / ARCFACE))
    assert describe(checkpoint).models == (*MODELS[kind], "arcface")
    out = tmp_path / "out"
    written = export_weights(str(checkpoint), out, file_format="safetensors")
    own = {
        "mimicmotion": {"MimicMotion.safetensors": "mimicmotion/MimicMotion_1-1.safetensors"},
        "svd": {},
        "animatelcm": {"AnimateLCM-SVD-xt.safetensors": "animatelcm/AnimateLCM-SVD-xt.safetensors"},
        "controlnext": {f"ControlNeXt/{n}.safetensors": f"controlnext/{n}.safetensors" for n in ("unet", "controlnet")},
    }[kind]
    given = svd_of(stand_ins, kind)
    svd = {f"SVD/{p.relative_to(given)}": p for p in given.rglob("*") if p.is_file()}
    expected = svd | {name: stand_ins / file for name, file in own.items()}
    expected["glintr100_torch.safetensors"] = stand_ins / ARCFACE
    assert {path.relative_to(out).as_posix() for path in written} == set(expected)
    for name, file in expected.items():
        if name.endswith(".json"):
            assert json.loads((out / name).read_text()) == json.loads(file.read_text())
        elif not (name.startswith("SVD/unet/") and kind != "svd"):
            assert_same(load_file(out / name), load_file(file))
    assert_same(load_file(out / "SVD/unet/diffusion_pytorch_model.safetensors"), of_svd(state_dict(checkpoint, "unet")))

    again = {} if kind == "svd" else {kind: str(out)}
    import_weights(tmp_path / "again", svd=str(out), arcface=str(out), **again)
    assert describe(tmp_path / "again").config == describe(checkpoint).config
    for model in describe(checkpoint).models:
        assert_same(dict(stream_params(tmp_path / "again", model)), dict(stream_params(checkpoint, model)))


@pytest.mark.parity
@pytest.mark.parametrize("kind", ["mimicmotion", pytest.param("controlnext", marks=pytest.mark.slow)])
def test_torchs_files_go_in_and_come_out_bit_for_bit(kind: Kind, tmp_path: Path):
    torch = pytest.importorskip("torch")
    config = tiny_config(kind)
    make_svd(tmp_path / "SVD", config)
    make_relative(tmp_path / "own", kind, config, values="own.")
    import_weights(tmp_path / "c", svd=str(tmp_path / "SVD"), **{kind: str(tmp_path / "own")})
    export_weights(str(tmp_path / "c"), tmp_path / "out")
    pairs = {
        "mimicmotion": {"MimicMotion.pth": "MimicMotion_1-1.pth"},
        "controlnext": {"ControlNeXt/unet.bin": "unet.bin", "ControlNeXt/controlnet.bin": "controlnet.bin"},
    }[kind]
    for written, file in pairs.items():
        found, expected = (
            torch.load(p, weights_only=True) for p in (tmp_path / "out" / written, tmp_path / "own" / file)
        )
        assert found.keys() == expected.keys()
        assert all(torch.equal(found[key], tensor) for key, tensor in expected.items())


@pytest.mark.long
def test_svd_of_14_frames(files: Path, tmp_path: Path):
    config_file = files / "SVD/unet/config.json"
    config_file.write_text(json.dumps(json.loads(config_file.read_text()) | {"num_frames": 14}))
    checkpoint = import_relative(files, "svd", tmp_path / "c")
    config = describe(checkpoint).config
    assert (config.kind, config.unet.num_frames, config.unet.id_injection) == ("svd", 14, "none")
    export_weights(str(checkpoint), tmp_path / "out", file_format="safetensors")
    assert json.loads((tmp_path / "out/SVD/unet/config.json").read_text())["num_frames"] == 14
    assert not (tmp_path / "out/Animation").exists()
    # What is trained from it is StableAnimator.
    trained = model_config(config, ModelConfig())
    assert (trained.kind, trained.unet.id_injection) == ("stableanimator", "distribution_aware")
    for kind, title in (("mimicmotion", "MimicMotion"), ("animatelcm", "AnimateLCM-SVD")):
        with pytest.raises(InputError, match=rf"num_frames is 14, so this is not SVD-XT: {title} is built on the 25-"):
            import_relative(files, kind, tmp_path / "d")


@pytest.mark.long
def test_comfyuis_pair_of_mimicmotion(files: Path, tmp_path: Path):
    whole = load_file(files / "mimicmotion/MimicMotion_1-1.safetensors")
    pair = tmp_path / "pair"
    pair.mkdir()
    parts = {}
    for prefix, name in (("unet.", "MimicMotionMergedUnet_1-1-fp16"), ("pose_net.", "mimic_motion_pose_net")):
        parts[prefix] = {k.removeprefix(prefix): a.astype(np.float16) for k, a in whole.items() if k.startswith(prefix)}
        save_file(parts[prefix], pair / f"{name}.safetensors")
    for name in (pair, pair / "MimicMotionMergedUnet_1-1-fp16.safetensors"):
        checkpoint = tmp_path / f"from_{name.name}"
        import_weights(checkpoint, svd=str(files / "SVD"), mimicmotion=str(name))
        assert describe(checkpoint).config.kind == "mimicmotion"
        for model, prefix in (("unet", "unet."), ("pose_net", "pose_net.")):
            found = of_svd(state_dict(checkpoint, model))
            assert_same(found, {key: array.astype(np.float32) for key, array in parts[prefix].items()})
    (pair / "mimic_motion_pose_net.safetensors").unlink()
    with pytest.raises(InputError, match=r"1-1-fp16.safetensors needs one mimic_motion_pose_net\*.* there is none"):
        import_weights(tmp_path / "d", svd=str(files / "SVD"), mimicmotion=str(pair))


@pytest.mark.slow
def test_controlnexts_unet_may_be_a_part_of_one(files: Path, tmp_path: Path):
    place = files / "controlnext/unet.safetensors"
    whole = load_file(place)
    part = {key: array for key, array in whole.items() if ".attn1." in key}
    save_file({f"unet.{key}": array for key, array in part.items()}, place)  # as DeepSpeed leaves names
    checkpoint = import_relative(files, "controlnext", tmp_path / "c")
    svd = load_file(files / "SVD_controlnext/unet/diffusion_pytorch_model.safetensors")
    assert 0 < len(part) < len(svd)
    assert_same(of_svd(state_dict(checkpoint, "unet")), svd | part)
    names = [file["name"].split("/")[-1] for file in describe(checkpoint).source["unet"]["files"]]
    assert names == ["unet.safetensors", "diffusion_pytorch_model.safetensors"]

    control_net = load_file(files / "controlnext/controlnet.safetensors")
    both = {f"unet.{k}": a for k, a in whole.items()} | {f"controlnext.{k}": a for k, a in control_net.items()}
    save_file(both, tmp_path / "both.safetensors")
    import_relative(files, "controlnext", tmp_path / "both", controlnext=str(tmp_path / "both.safetensors"))
    assert_same(of_svd(state_dict(tmp_path / "both", "unet")), whole)
    assert_same(state_dict(tmp_path / "both", "control_net"), control_net)
    assert [f["name"].split("/")[-1] for f in describe(tmp_path / "both").source["unet"]["files"]] == [
        "both.safetensors"
    ]


@pytest.mark.long
def test_animatelcms_change_added_to_stableanimator_is_an_experiment(files: Path, tmp_path: Path):
    # StableAnimator's UNet is to be another than SVD's, as its temporal layers are where somebody trained them.
    own = load_file(files / "Animation/unet.safetensors")
    own["conv_in.weight"] = own["conv_in.weight"] * np.float32(1.5)
    save_file(own, files / "Animation/unet.safetensors")
    checkpoint = import_relative(files, "animatelcm", tmp_path / "c", stableanimator=str(files / "Animation"))
    description = describe(checkpoint)
    assert (description.config.kind, description.config.unet.id_injection) == ("stableanimator", "distribution_aware")
    assert description.models == ("unet", "vae", "image_encoder", "face_encoder", "pose_net")
    assert "an experiment, no published model" in description.source["unet"]["note"]
    assert len(description.source["unet"]["files"]) == 3
    svd = load_file(files / "SVD/unet/diffusion_pytorch_model.safetensors")
    lcm = load_file(files / "animatelcm/AnimateLCM-SVD-xt.safetensors")
    assert_same(state_dict(checkpoint, "unet"), {k: a + (lcm[k] - svd[k]) if k in svd else a for k, a in own.items()})
    lcm.pop("conv_in.bias")
    save_file(lcm | {"x": np.ones(1, np.float32)}, files / "animatelcm/AnimateLCM-SVD-xt.safetensors")
    with pytest.raises(InputError) as caught:
        import_relative(files, "animatelcm", tmp_path / "d", stableanimator=str(files / "Animation"))
    assert "unmapped: x of AnimateLCM-SVD-xt.safetensors: unet.safetensors has no such key" in str(caught.value)
    assert "unfilled: conv_in.bias, which AnimateLCM-SVD-xt.safetensors lacks" in str(caught.value)


def rewrite(file: Path, change: Callable[[dict[str, np.ndarray]], object]) -> None:
    tensors = load_file(file)
    change(tensors)
    save_file(tensors, file)


MIMICMOTION, LCM = "mimicmotion/MimicMotion_1-1.safetensors", "animatelcm/AnimateLCM-SVD-xt.safetensors"
ONE = np.ones(1, np.float32)
BAD: dict[str, tuple[Kind, str, Callable[[dict[str, np.ndarray]], object], str]] = {
    "missing": (
        "mimicmotion", MIMICMOTION, lambda t: (t.pop("unet.conv_in.bias"), t.pop("pose_net.scale")),
        r"(?s)1 unfilled\s+unfilled: conv_in.bias .*; and .*1 unfilled\s+unfilled: scale \[1\], from scale",
    ),
    "foreign in a model": ("mimicmotion", MIMICMOTION, lambda t: t.update({"unet.x": ONE}), r"unmapped: x \[1\]: no"),
    "foreign beside them": (
        "mimicmotion", MIMICMOTION, lambda t: t.update(x=ONE), r"1-1.safetensors has keys that begin with none of unet"
    ),
    "missing of AnimateLCM": ("animatelcm", LCM, lambda t: t.pop("conv_in.bias"), r"unfilled: conv_in.bias \[32\]"),
    "an adapter": (
        "animatelcm", LCM, lambda t: t.update({"mid_block.attentions.0.attn2.processor.id_to_k.weight": ONE}),
        r"has an ID adapter, so it is not AnimateLCM-SVD's own UNet; give it as --stableanimator",
    ),
    "foreign in a UNet over SVD's": (
        "controlnext", "controlnext/unet.safetensors", lambda t: t.update(x=ONE), r"unmapped: x \[1\]: no rule"
    ),
    "missing of a control net": (
        "controlnext", "controlnext/controlnet.safetensors", lambda t: t.pop("mid_convs.1.bias"),
        r"controlnet.safetensors: .* 1 unfilled\s+unfilled: .*, from mid_convs.1.bias",
    ),
    "ControlNeXt v1": (
        "controlnext", "controlnext/controlnet.safetensors", lambda t: t.update(scale=ONE),
        r"is of the older ControlNeXt-SVD \(v1\), whose control net has a third stage, .* give the files of",
    ),
}  # fmt: skip


@pytest.mark.parametrize("case", BAD)
def test_bad_files_are_named_and_nothing_is_written(case: str, files: Path, tmp_path: Path):
    kind, file, change, message = BAD[case]
    rewrite(files / file, change)
    with pytest.raises(InputError, match=message):
        import_relative(files, kind, tmp_path / "c")
    assert [p.name for p in tmp_path.iterdir()] == ["files"]


COMBINATIONS = {
    "two at once": (
        {"svd": "SVD", "mimicmotion": "mimicmotion", "animatelcm": "animatelcm"},
        "give one of --mimicmotion and --animatelcm: a checkpoint holds the weights of one system",
    ),
    "without SVD": ({"controlnext": "controlnext"}, "--controlnext needs --svd too: ControlNeXt-SVD-v2 has its VAE"),
    "without SVD, with StableAnimator": (
        {"stableanimator": "Animation", "animatelcm": "animatelcm"}, "--animatelcm needs --svd too"
    ),
    "StableAnimator and MimicMotion": (
        {"svd": "SVD", "stableanimator": "Animation", "mimicmotion": "mimicmotion"},
        r"give --mimicmotion or --stableanimator: .* \(only --animatelcm goes with --stableanimator\)",
    ),
    "MimicMotion's file as StableAnimator's": (
        {"svd": "SVD", "stableanimator": MIMICMOTION},
        r"1-1.safetensors has MimicMotion's files: give it as --mimicmotion, not as --stableanimator",
    ),
    "ControlNeXt's folder as StableAnimator's": (
        {"svd": "SVD", "stableanimator": "controlnext"}, r"give it as --controlnext, not as --stableanimator"
    ),
    "AnimateLCM's file as SVD's": ({"svd": LCM}, r"give it as --animatelcm, not as --svd"),
    "AnimateLCM's file as MimicMotion's": ({"svd": "SVD", "mimicmotion": LCM}, "as --animatelcm, not as --mimicmotion"),
    "nothing of MimicMotion there": (
        {"svd": "SVD", "mimicmotion": "SVD"}, r"SVD has no MimicMotion_1-1.pth, and not .* give the file itself"
    ),
    "nothing of AnimateLCM there": ({"svd": "SVD", "animatelcm": "SVD"}, r"has neither AnimateLCM-SVD-xt-1.1.safetens"),
    "nothing of ControlNeXt there": ({"svd": "SVD", "controlnext": "SVD"}, "has not both unet.bin and controlnet.bin"),
    "no such place": ({"svd": "SVD", "mimicmotion": "nowhere.pth"}, "nowhere.pth does not exist"),
    "an SVD that is too narrow": (
        {"svd": "SVD", "controlnext": "controlnext"}, "control_net.out_channels is 320, must be 32"
    ),
}  # fmt: skip


@pytest.mark.parametrize("case", COMBINATIONS)
def test_what_does_not_go_together_is_told_in_one_line(case: str, stand_ins: Path, tmp_path: Path):
    given, message = COMBINATIONS[case]
    with pytest.raises(InputError, match=message) as caught:
        import_weights(tmp_path / "c", **{flag: str(stand_ins / name) for flag, name in given.items()})
    assert len(str(caught.value).splitlines()) == 1
    assert not (tmp_path / "c").exists()


def test_a_checkpoint_with_nothing_published_of_its_system_is_not_exported(tmp_path: Path):
    from stableanimator_jax.weights.checkpoint import save_checkpoint

    config = tiny_config("svd")
    zeros = jax.tree.map(lambda leaf: np.zeros(leaf.shape, leaf.dtype), blueprint(config, "pose_net").abstract_params())
    save_checkpoint(tmp_path / "c", config, {"pose_net": zeros})
    with pytest.raises(InputError, match=r"of Stable Video Diffusion it has none of the models .* only pose_net"):
        export_weights(str(tmp_path / "c"), tmp_path / "out", file_format="safetensors")
    assert not (tmp_path / "out").exists()
