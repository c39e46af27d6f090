"""SVD as one `.safetensors` file, in the layout that Stability AI publishes it in, in diffusers' names.

    model.diffusion_model.                          the UNet
    conditioner.embedders.0.open_clip.model.visual. CLIP, as OpenCLIP names it
    conditioner.embedders.3.encoder.                the VAE's encoder
    first_stage_model.decoder.                      the VAE's decoder

The file has more: an encoder that is not used for conditioning, CLIP's text tower. Its names are all there is to go by.
"""

import re
from collections.abc import Callable, Iterator
from functools import partial

import numpy as np

from stableanimator_jax.weights.rules import stand_in
from stableanimator_jax.weights.state_dict_files import StateDictFile

_UNET, _CLIP = "model.diffusion_model.", "conditioner.embedders.0.open_clip.model.visual."
_ENCODER, _DECODER = "conditioner.embedders.3.encoder.", "first_stage_model.decoder."
_PER_LEVEL = 3  # layers_per_block + 1: a level's places in the one list that the file's UNet is
_VAE_LEVELS = 4

Change = Callable[[np.ndarray], np.ndarray]


def is_single_file(file: StateDictFile) -> bool:
    """Whether it is a whole model in the published single-file layout (Stable Diffusion's are alike)."""
    return any(key.startswith(_UNET) for key in file)


class SvdPart(StateDictFile):
    """One model of the file. What has no name in it keeps the file's, so that it shows as a key too many.

    `model` is "unet", "vae" or "image_encoder".
    """

    def __init__(self, file: StateDictFile, model: str):
        self._file, self.files = file, file.files
        translate = SVD_PARTS[model]
        self._sources = {name: (key, change) for key in file for name, change in translate(key)}
        self.shapes = {name: change(stand_in(file.shapes[key])).shape for name, (key, change) in self._sources.items()}

    def __getitem__(self, key: str) -> np.ndarray:
        source, change = self._sources[key]
        return change(self._file[source])


def _same(array: np.ndarray) -> np.ndarray:
    return array


def _replaced(text: str, names: dict[str, str]) -> str:
    """With the first of `names` that it begins with changed, at the end of a part of the dotted name."""
    for old, new in names.items():
        if text == old or text.startswith(f"{old}."):
            return new + text[len(old) :]
    return text


_UNET_ENDS = {
    "time_embed.0": "time_embedding.linear_1",
    "time_embed.2": "time_embedding.linear_2",
    "label_emb.0.0": "add_embedding.linear_1",
    "label_emb.0.2": "add_embedding.linear_2",
    "input_blocks.0.0": "conv_in",
    "out.0": "conv_norm_out",
    "out.2": "conv_out",
}
_RES_BLOCK = {
    "in_layers.0": "norm1",
    "in_layers.2": "conv1",
    "emb_layers.1": "time_emb_proj",
    "out_layers.0": "norm2",
    "out_layers.3": "conv2",
    "skip_connection": "conv_shortcut",
    "nin_shortcut": "conv_shortcut",
}
_TRANSFORMER = {
    "time_stack": "temporal_transformer_blocks",
    "time_pos_embed.0": "time_pos_embed.linear_1",
    "time_pos_embed.2": "time_pos_embed.linear_2",
}


def _res_block(name: str) -> str:
    """A spatio-temporal residual block's, of the UNet or of the VAE's decoder."""
    if name.startswith("time_stack."):
        return f"temporal_res_block.{_replaced(name.removeprefix('time_stack.'), _RES_BLOCK)}"
    if name.endswith("mix_factor"):
        return "time_mixer.mix_factor"
    return f"spatial_res_block.{_replaced(name, _RES_BLOCK)}"


def _unet(key: str) -> Iterator[tuple[str, Change]]:
    if not key.startswith(_UNET):
        return
    name = key.removeprefix(_UNET)
    if (renamed := _replaced(name, _UNET_ENDS)) != name:
        yield renamed, _same
    elif match := re.fullmatch(r"middle_block\.([012])\.(.+)", name):
        place, rest = int(match[1]), match[2]
        inner = (
            f"attentions.0.{_replaced(rest, _TRANSFORMER)}"
            if place == 1
            else f"resnets.{place // 2}.{_res_block(rest)}"
        )
        yield f"mid_block.{inner}", _same
    elif match := re.fullmatch(r"(input|output)_blocks\.(\d+)\.(\d)\.(.+)", name):
        down, rest = match[1] == "input", match[4]
        level, place = divmod(int(match[2]) - down, _PER_LEVEL)
        if rest.startswith("op."):
            inner = f"downsamplers.0.conv.{rest.removeprefix('op.')}"
        elif rest.startswith("conv."):
            inner = f"upsamplers.0.{rest}"
        elif match[3] == "0":
            inner = f"resnets.{place}.{_res_block(rest)}"
        else:
            inner = f"attentions.{place}.{_replaced(rest, _TRANSFORMER)}"
        yield f"{'down' if down else 'up'}_blocks.{level}.{inner}", _same
    else:
        yield name, _same


_VAE_ATTENTION = {"norm": "group_norm", "q": "to_q", "k": "to_k", "v": "to_v", "proj_out": "to_out.0"}
_VAE_ENDS = {"norm_out": "conv_norm_out", "conv_out.time_mix_conv": "time_conv_out"}


def _vae(key: str) -> Iterator[tuple[str, Change]]:
    if key.startswith(f"{_ENCODER}encoder."):
        yield from _vae_half("encoder", key.removeprefix(f"{_ENCODER}encoder."))
    elif key.startswith(f"{_ENCODER}quant_conv."):
        yield key.removeprefix(_ENCODER), _same
    elif key.startswith(_DECODER):
        yield from _vae_half("decoder", key.removeprefix(_DECODER))


def _vae_half(half: str, name: str) -> Iterator[tuple[str, Change]]:
    def block(rest: str) -> str:
        return _res_block(rest) if half == "decoder" else _replaced(rest, _RES_BLOCK)

    if match := re.fullmatch(r"mid\.block_([12])\.(.+)", name):
        yield f"{half}.mid_block.resnets.{int(match[1]) - 1}.{block(match[2])}", _same
    elif match := re.fullmatch(r"mid\.attn_1\.(.+)", name):
        yield f"{half}.mid_block.attentions.0.{_replaced(match[1], _VAE_ATTENTION)}", _squeezed
    elif match := re.fullmatch(r"(down|up)\.(\d)\.(?:block\.(\d)|(?:down|up)sample)\.(.+)", name):
        # The decoder's levels are counted from the picture's end.
        level = int(match[2]) if match[1] == "down" else _VAE_LEVELS - 1 - int(match[2])
        inner = f"resnets.{match[3]}.{block(match[4])}" if match[3] else f"{match[1]}samplers.0.{match[4]}"
        yield f"{half}.{match[1]}_blocks.{level}.{inner}", _same
    else:
        yield f"{half}.{_replaced(name, _VAE_ENDS)}", _same


_CLIP_ENDS = {
    "class_embedding": "embeddings.class_embedding",
    "conv1": "embeddings.patch_embedding",
    "positional_embedding": "embeddings.position_embedding.weight",
    "ln_pre": "pre_layrnorm",
    "ln_post": "post_layernorm",
}
_CLIP_LAYER = {
    "ln_1": "layer_norm1",
    "ln_2": "layer_norm2",
    "mlp.c_fc": "mlp.fc1",
    "mlp.c_proj": "mlp.fc2",
    "attn.out_proj": "self_attn.out_proj",
}


def _clip(key: str) -> Iterator[tuple[str, Change]]:
    if not key.startswith(_CLIP):
        return
    name = key.removeprefix(_CLIP)
    if name == "proj":
        yield "visual_projection.weight", np.transpose
    elif match := re.fullmatch(r"transformer\.resblocks\.(\d+)\.attn\.in_proj_(weight|bias)", name):
        for number, part in enumerate(("q_proj", "k_proj", "v_proj")):
            yield f"vision_model.encoder.layers.{match[1]}.self_attn.{part}.{match[2]}", partial(_third, number=number)
    elif match := re.fullmatch(r"transformer\.resblocks\.(\d+)\.(.+)", name):
        yield f"vision_model.encoder.layers.{match[1]}.{_replaced(match[2], _CLIP_LAYER)}", _same
    else:
        yield f"vision_model.{_replaced(name, _CLIP_ENDS)}", _same


SVD_PARTS = {"unet": _unet, "vae": _vae, "image_encoder": _clip}


def _squeezed(array: np.ndarray) -> np.ndarray:
    """The matrix of a linear layer that is written as a convolution of one pixel; biases as they are."""
    return array[..., 0, 0] if array.ndim == 4 else array


def _third(array: np.ndarray, number: int) -> np.ndarray:
    return np.split(array, 3)[number]
