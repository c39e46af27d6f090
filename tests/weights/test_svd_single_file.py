"""SVD as the one file that it is published as too: the same checkpoint comes out as of the folders."""

import re
from pathlib import Path

import numpy as np
import pytest
from safetensors.numpy import load_file, save_file

from stableanimator_jax.config import StableAnimatorConfig
from stableanimator_jax.errors import InputError
from stableanimator_jax.weights import published_files
from stableanimator_jax.weights.checkpoint import describe, stream_params
from stableanimator_jax.weights.importing import import_weights
from stableanimator_jax.weights.svd_single_file import SvdPart
from tests.make_stand_ins import make_stand_ins

TINY = StableAnimatorConfig.tiny()
UNET, CLIP = "model.diffusion_model.", "conditioner.embedders.0.open_clip.model.visual."
RES_BLOCK = {
    "norm1": "in_layers.0", "conv1": "in_layers.2", "time_emb_proj": "emb_layers.1", "norm2": "out_layers.0",
    "conv2": "out_layers.3", "conv_shortcut": "skip_connection",
}  # fmt: skip


def pairs(names: str) -> dict[str, str]:
    """Names in the file, each with its name in diffusers' folders on the next line."""
    words = names.split()
    return dict(zip(words[::2], words[1::2], strict=True))


KNOWN = pairs("""
model.diffusion_model.time_embed.2.bias
    time_embedding.linear_2.bias
model.diffusion_model.label_emb.0.0.weight
    add_embedding.linear_1.weight
model.diffusion_model.input_blocks.0.0.weight
    conv_in.weight
model.diffusion_model.input_blocks.1.0.in_layers.2.weight
    down_blocks.0.resnets.0.spatial_res_block.conv1.weight
model.diffusion_model.input_blocks.3.0.op.bias
    down_blocks.0.downsamplers.0.conv.bias
model.diffusion_model.input_blocks.5.0.time_stack.emb_layers.1.bias
    down_blocks.1.resnets.1.temporal_res_block.time_emb_proj.bias
model.diffusion_model.input_blocks.4.0.skip_connection.weight
    down_blocks.1.resnets.0.spatial_res_block.conv_shortcut.weight
model.diffusion_model.input_blocks.8.1.time_stack.0.attn2.to_out.0.weight
    down_blocks.2.attentions.1.temporal_transformer_blocks.0.attn2.to_out.0.weight
model.diffusion_model.input_blocks.1.1.time_pos_embed.2.bias
    down_blocks.0.attentions.0.time_pos_embed.linear_2.bias
model.diffusion_model.middle_block.1.transformer_blocks.0.ff.net.0.proj.weight
    mid_block.attentions.0.transformer_blocks.0.ff.net.0.proj.weight
model.diffusion_model.middle_block.2.time_mixer.mix_factor
    mid_block.resnets.1.time_mixer.mix_factor
model.diffusion_model.output_blocks.0.0.out_layers.0.weight
    up_blocks.0.resnets.0.spatial_res_block.norm2.weight
model.diffusion_model.output_blocks.2.1.conv.weight
    up_blocks.0.upsamplers.0.conv.weight
model.diffusion_model.output_blocks.5.2.conv.weight
    up_blocks.1.upsamplers.0.conv.weight
model.diffusion_model.output_blocks.11.1.time_mixer.mix_factor
    up_blocks.3.attentions.2.time_mixer.mix_factor
model.diffusion_model.out.2.bias
    conv_out.bias
""")
VAE_KNOWN = pairs("""
conditioner.embedders.3.encoder.encoder.down.1.block.0.nin_shortcut.weight
    encoder.down_blocks.1.resnets.0.conv_shortcut.weight
conditioner.embedders.3.encoder.encoder.down.0.downsample.conv.bias
    encoder.down_blocks.0.downsamplers.0.conv.bias
conditioner.embedders.3.encoder.encoder.norm_out.weight
    encoder.conv_norm_out.weight
conditioner.embedders.3.encoder.quant_conv.bias
    quant_conv.bias
first_stage_model.decoder.mid.block_2.time_stack.in_layers.2.bias
    decoder.mid_block.resnets.1.temporal_res_block.conv1.bias
first_stage_model.decoder.mid.block_1.mix_factor
    decoder.mid_block.resnets.0.time_mixer.mix_factor
first_stage_model.decoder.mid.attn_1.proj_out.bias
    decoder.mid_block.attentions.0.to_out.0.bias
first_stage_model.decoder.up.3.block.0.norm1.weight
    decoder.up_blocks.0.resnets.0.spatial_res_block.norm1.weight
first_stage_model.decoder.up.1.upsample.conv.weight
    decoder.up_blocks.2.upsamplers.0.conv.weight
first_stage_model.decoder.conv_out.weight
    decoder.conv_out.weight
first_stage_model.decoder.conv_out.time_mix_conv.weight
    decoder.time_conv_out.weight
""")


class Named(dict[str, None]):
    """A file of nothing but names."""

    files = ()

    @property
    def shapes(self):
        return dict.fromkeys(self, (1, 1, 1, 1))


@pytest.mark.parametrize(("model", "known"), [("unet", KNOWN), ("vae", VAE_KNOWN)])
def test_known_names(model: str, known: dict[str, str]):
    assert list(SvdPart(Named.fromkeys(known), model)) == list(known.values())  # pyright: ignore[reportArgumentType]


def res_block(rest: str, names: dict[str, str]) -> str:
    kind, _, rest = rest.partition(".")
    layer, _, end = rest.partition(".")
    if kind == "time_mixer":
        return "time_mixer.mix_factor"
    return f"{'time_stack.' * (kind == 'temporal_res_block')}{(RES_BLOCK if kind[0] == 't' else names)[layer]}.{end}"


def transformer(rest: str) -> str:
    rest = rest.replace("temporal_transformer_blocks", "time_stack")
    return rest.replace("time_pos_embed.linear_1", "time_pos_embed.0").replace(
        "time_pos_embed.linear_2", "time_pos_embed.2"
    )


def unet_name(key: str) -> str:
    ends = {
        "time_embedding.linear_1": "time_embed.0", "time_embedding.linear_2": "time_embed.2",
        "add_embedding.linear_1": "label_emb.0.0", "add_embedding.linear_2": "label_emb.0.2",
        "conv_in": "input_blocks.0.0", "conv_norm_out": "out.0", "conv_out": "out.2",
    }  # fmt: skip
    stem, _, end = key.rpartition(".")
    if stem in ends:
        return f"{ends[stem]}.{end}"
    if key.startswith("mid_block."):
        _, kind, number, rest = key.split(".", 3)
        inner = transformer(rest) if kind == "attentions" else res_block(rest, RES_BLOCK)
        return f"middle_block.{1 if kind == 'attentions' else 2 * int(number)}.{inner}"
    side, level, kind, number, rest = key.split(".", 4)
    if kind == "downsamplers":
        return f"input_blocks.{3 * int(level) + 3}.0.op.{end}"
    if kind == "upsamplers":  # after the attention, which the lowest level has not
        return f"output_blocks.{3 * int(level) + 2}.{1 if level == '0' else 2}.conv.{end}"
    place = 3 * int(level) + int(number) + (side == "down_blocks")
    inner = f"1.{transformer(rest)}" if kind == "attentions" else f"0.{res_block(rest, RES_BLOCK)}"
    return f"{'input' if side == 'down_blocks' else 'output'}_blocks.{place}.{inner}"


def vae_name(key: str) -> str:
    if key.startswith("quant_conv"):
        return f"conditioner.embedders.3.encoder.{key}"
    half, rest = key.split(".", 1)
    same = {name: name for name in ("norm1", "norm2", "conv1", "conv2")} | {"conv_shortcut": "nin_shortcut"}
    rest = rest.replace("conv_norm_out", "norm_out").replace("time_conv_out", "conv_out.time_mix_conv")
    if match := re.fullmatch(r"(mid_block|(?:down|up)_blocks\.\d)\.resnets\.(\d)\.(.+)", rest):
        place, number, inner = match[1], int(match[2]), match[3]
        inner = (
            res_block(inner, same) if half == "decoder" else ".".join((same[inner.split(".")[0]], inner.split(".")[1]))
        )
        inner = inner.replace("time_mixer.", "")
        if place == "mid_block":
            rest = f"mid.block_{number + 1}.{inner}"
        else:
            level = int(place[-1])
            rest = f"{place[:-9] or 'up'}.{level if half == 'encoder' else 3 - level}.block.{number}.{inner}"
    elif match := re.fullmatch(r"mid_block\.attentions\.0\.(.+)\.(\w+)", rest):
        names = {"group_norm": "norm", "to_q": "q", "to_k": "k", "to_v": "v", "to_out.0": "proj_out"}
        rest = f"mid.attn_1.{names[match[1]]}.{match[2]}"
    elif match := re.fullmatch(r"(down|up)_blocks\.(\d)\.\w+samplers\.0\.(.+)", rest):
        rest = f"{match[1]}.{int(match[2]) if match[1] == 'down' else 3 - int(match[2])}.{match[1]}sample.{match[3]}"
    return f"{'conditioner.embedders.3.encoder.encoder' if half == 'encoder' else 'first_stage_model.decoder'}.{rest}"


def clip_tensors(tensors: dict[str, np.ndarray]) -> dict[str, np.ndarray]:
    """As OpenCLIP holds them: queries, keys and values are one matrix, the projection multiplies from the right."""
    made = {}
    ends = {
        "vision_model.embeddings.class_embedding": "class_embedding",
        "vision_model.embeddings.patch_embedding.weight": "conv1.weight",
        "vision_model.embeddings.position_embedding.weight": "positional_embedding",
    }
    for key, array in tensors.items():
        if key == "visual_projection.weight":
            made["proj"] = np.ascontiguousarray(array.T)
        elif "q_proj" in key:
            three = [tensors[key.replace("q_proj", name)] for name in ("q_proj", "k_proj", "v_proj")]
            name = key.replace("vision_model.encoder.layers", "transformer.resblocks").replace(
                "self_attn.q_proj.", "attn.in_proj_"
            )
            made[name] = np.concatenate(three)
        elif "k_proj" not in key and "v_proj" not in key:
            name = ends.get(key, key.removeprefix("vision_model."))
            for old, new in (
                ("encoder.layers", "transformer.resblocks"), ("self_attn", "attn"), ("layer_norm", "ln_"),
                ("mlp.fc1", "mlp.c_fc"), ("mlp.fc2", "mlp.c_proj"),
                ("pre_layrnorm", "ln_pre"), ("post_layernorm", "ln_post"),
            ):  # fmt: skip
                name = name.replace(old, new)
            made[name] = array
    return {CLIP + name: array for name, array in made.items()}


def whole_file(svd: Path, file: Path) -> Path:
    """The folders as one file, with what the published one has besides."""
    unet = load_file(svd / "unet/diffusion_pytorch_model.safetensors")
    tensors = {UNET + unet_name(key): array for key, array in unet.items()}
    for key, array in load_file(svd / "vae/diffusion_pytorch_model.safetensors").items():
        linear = ".attentions.0.to_" in key and key.endswith("weight")
        tensors[vae_name(key)] = array[..., None, None] if linear else array
    tensors |= clip_tensors(load_file(svd / "image_encoder/model.safetensors"))
    unused = ("first_stage_model.encoder.conv_in.weight", "conditioner.embedders.0.open_clip.model.logit_scale")
    save_file(tensors | dict.fromkeys(unused, np.zeros(1)), file)
    return file


@pytest.mark.slow
def test_one_file_is_as_good_as_the_folders(tmp_path: Path, monkeypatch: pytest.MonkeyPatch):
    monkeypatch.setattr(published_files, "_XT", TINY)
    make_stand_ins(tmp_path / "files", tiny=True, file_format="safetensors")
    (tmp_path / "one").mkdir()
    file = whole_file(tmp_path / "files/SVD", tmp_path / "one/svd_xt_1_1.safetensors")
    import_weights(tmp_path / "folders", svd=str(tmp_path / "files"))
    import_weights(tmp_path / "file", svd=str(file))
    assert describe(tmp_path / "file").config == describe(tmp_path / "folders").config
    for model in ("unet", "vae", "image_encoder"):
        found, expected = (
            dict(stream_params(tmp_path / "file", model)),
            dict(stream_params(tmp_path / "folders", model)),
        )
        assert found.keys() == expected.keys()
        for name, array in expected.items():
            np.testing.assert_array_equal(found[name], array, err_msg=f"{model} {name}", strict=True)
    assert published_files.find_svd(str(tmp_path / "one"), with_unet=False).weights == {
        "vae": file,
        "image_encoder": file,
    }

    short = file.rename(tmp_path / "one/svd.safetensors")
    assert published_files.find_svd(str(tmp_path / "one"), with_unet=True).unet_config.num_frames == 14
    no_name = short.rename(tmp_path / "one/svd_mine.safetensors")
    with pytest.raises(InputError, match=r"svd_mine.safetensors: one file does not say how many frames .* svd.safet"):
        import_weights(tmp_path / "c", svd=str(tmp_path / "one"))
    tensors = {key: array for key, array in load_file(no_name).items() if "first_stage_model" not in key}
    tensors["first_stage_model.decoder.conv_out.weight"] = np.zeros((3, 32, 3, 3), np.float32)
    save_file(tensors, tmp_path / "svd_image_decoder.safetensors")
    with pytest.raises(
        InputError, match=r"svd_image_decoder.safetensors has a decoder of single images .* give svd.sa"
    ):
        import_weights(tmp_path / "c", svd=str(tmp_path / "svd_image_decoder.safetensors"))
