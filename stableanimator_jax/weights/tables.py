"""Every model's rule table: how the published PyTorch checkpoints name and lay out what our models hold.

Names follow PyTorch's but for the leaves (`kernel` for linear layers and convolutions, `scale` for norms) and for
wrappers that only PyTorch needs. Every table is checked against the published checkpoints' full lists of keys.
"""

import re
from collections.abc import Iterator, Mapping
from typing import TypeVar

from stableanimator_jax.config import StableAnimatorConfig
from stableanimator_jax.weights.rules import (
    CONV2D,
    IDENTITY,
    LINEAR,
    TEMPORAL_CONV,
    Ignore,
    Rule,
    Table,
    Transform,
    WeightsError,
)

T = TypeVar("T")


def layer(source: str, target: str, transform: Transform, leaf: str, bias: bool) -> list[Rule]:
    rules = [Rule(f"{source}.weight", f"{target}.{leaf}", transform)]
    return [*rules, Rule(f"{source}.bias", f"{target}.bias")] if bias else rules


def _linear(source: str, target: str | None = None, *, bias: bool = True) -> list[Rule]:
    return layer(source, target or source, LINEAR, "kernel", bias)


def _conv(source: str, target: str | None = None, *, bias: bool = True) -> list[Rule]:
    return layer(source, target or source, CONV2D, "kernel", bias)


def _temporal_conv(source: str) -> list[Rule]:
    return layer(source, source, TEMPORAL_CONV, "kernel", True)


def _norm(source: str, target: str | None = None) -> list[Rule]:
    return layer(source, target or source, IDENTITY, "scale", True)


def batch_norm(source: str, target: str | None = None) -> list[Rule | Ignore]:
    return [
        *_norm(source, target),
        Rule(f"{source}.running_mean", f"{target or source}.mean"),
        Rule(f"{source}.running_var", f"{target or source}.var"),
        Ignore(f"{source}.num_batches_tracked", "counts training steps; the statistics are fixed here"),
    ]


# What the UNet and the VAE's decoder have in common.
_SPATIO_TEMPORAL_RES_BLOCK = (
    *_norm("{block}.{part:spatial_res_block|temporal_res_block}.{layer:norm1|norm2}"),
    *_conv("{block}.spatial_res_block.{layer:conv1|conv2|conv_shortcut}"),
    *_temporal_conv("{block}.temporal_res_block.{layer:conv1|conv2}"),
    Rule("{block}.time_mixer.mix_factor", "{block}.time_mixer.mix_factor"),
)
_DOWNSAMPLERS = _conv("{block}.downsamplers.0.conv", "{block}.downsampler.conv")
_UPSAMPLERS = _conv("{block}.upsamplers.0.conv", "{block}.upsampler.conv")

UNET = Table(
    "unet",
    (
        *_conv("{layer:conv_in|conv_out}"),
        *_linear("{embedding:time_embedding|add_embedding}.{layer:linear_1|linear_2}"),
        *_norm("conv_norm_out"),
        *_SPATIO_TEMPORAL_RES_BLOCK,
        *_linear("{block}.{part:spatial_res_block|temporal_res_block}.time_emb_proj"),
        *_DOWNSAMPLERS,
        *_UPSAMPLERS,
        *_norm("{level}.attentions.{i}.norm"),
        *_linear("{level}.attentions.{i}.{layer:proj_in|proj_out}"),
        *_linear("{level}.attentions.{i}.time_pos_embed.{layer:linear_1|linear_2}"),
        *_norm("{transformer}.{blocks:transformer_blocks|temporal_transformer_blocks}.{j}.{layer:norm1|norm2|norm3}"),
        *_norm("{transformer}.temporal_transformer_blocks.{j}.norm_in"),
        *_linear("{block}.{attention:attn1|attn2}.{layer:to_q|to_k|to_v}", bias=False),
        *_linear("{block}.{attention:attn1|attn2}.to_out.0", "{block}.{attention}.to_out"),
        *_linear("{block}.attn2.processor.{layer:id_to_k|id_to_v}", "{block}.attn2.{layer}", bias=False),
        *_linear("{block}.{feed_forward:ff|ff_in}.net.0.proj", "{block}.{feed_forward}.proj"),
        *_linear("{block}.{feed_forward:ff|ff_in}.net.2", "{block}.{feed_forward}.out"),
    ),
)

VAE = Table(
    "vae",
    (
        *_conv("{half:encoder|decoder}.{layer:conv_in|conv_out}"),
        *_norm("{half:encoder|decoder}.conv_norm_out"),
        *_norm("encoder.{level}.resnets.{i}.{layer:norm1|norm2}"),
        *_conv("encoder.{level}.resnets.{i}.{layer:conv1|conv2|conv_shortcut}"),
        *_SPATIO_TEMPORAL_RES_BLOCK,
        *_DOWNSAMPLERS,
        *_UPSAMPLERS,
        *_norm("{half:encoder|decoder}.mid_block.attentions.0.group_norm"),
        *_linear("{half:encoder|decoder}.mid_block.attentions.0.{layer:to_q|to_k|to_v}"),
        *_linear("{half:encoder|decoder}.mid_block.attentions.0.to_out.0", "{half}.mid_block.attentions.0.to_out"),
        *_temporal_conv("decoder.time_conv_out"),
        *_conv("quant_conv"),
    ),
)

IMAGE_ENCODER = Table(
    "image_encoder",
    (
        Rule("vision_model.embeddings.class_embedding", "embeddings.class_embedding"),
        *_conv("vision_model.embeddings.patch_embedding", "embeddings.patch_embedding", bias=False),
        Rule("vision_model.embeddings.position_embedding.weight", "embeddings.position_embedding"),
        Ignore("vision_model.embeddings.position_ids", "counts 0, 1, 2 ...: holds no weights"),
        *_norm("vision_model.pre_layrnorm", "pre_layernorm"),  # the checkpoint's own spelling
        *_linear(
            "vision_model.encoder.layers.{i}.self_attn.{layer:q_proj|k_proj|v_proj|out_proj}",
            "encoder.layers.{i}.self_attn.{layer}",
        ),
        *_linear("vision_model.encoder.layers.{i}.mlp.{layer:fc1|fc2}", "encoder.layers.{i}.mlp.{layer}"),
        *_norm("vision_model.encoder.layers.{i}.{layer:layer_norm1|layer_norm2}", "encoder.layers.{i}.{layer}"),
        *_norm("vision_model.post_layernorm", "post_layernorm"),
        *_linear("visual_projection", bias=False),
    ),
)

_ID_PROJECTION = (
    *_linear("proj.0", "proj_in"),
    *_linear("proj.2", "proj_out"),
    *_norm("norm"),
)
FACE_ENCODER = Table(
    "face_encoder",
    (
        *_ID_PROJECTION,
        *_linear("fusion_model.{layer:proj_in|proj_out}", "fusion.{layer}"),
        *_norm("fusion_model.norm_out", "fusion.norm_out"),
        *_norm("fusion_model.layers.{i}.0.{layer:norm1|norm2}", "fusion.layers.{i}.attention.{layer}"),
        *_linear(
            "fusion_model.layers.{i}.0.{layer:to_q|to_kv|to_out}", "fusion.layers.{i}.attention.{layer}", bias=False
        ),
        *_norm("fusion_model.layers.{i}.1.0", "fusion.layers.{i}.feed_forward.norm"),
        *_linear("fusion_model.layers.{i}.1.1", "fusion.layers.{i}.feed_forward.linear_1", bias=False),
        *_linear("fusion_model.layers.{i}.1.3", "fusion.layers.{i}.feed_forward.linear_2", bias=False),
    ),
)
FACE_ENCODER_UNREFINED = Table(
    "face_encoder",
    (*_ID_PROJECTION, Ignore("fusion_model.{layer}", "this model does not refine the face tokens (refine = False)")),
)

POSE_NET = Table(
    "pose_net",
    (
        # SiLU has no parameters but takes every other number in the published Sequential.
        *(rule for n in range(8) for rule in _conv(f"conv_layers.{2 * n}", f"conv_layers.{n}")),
        *_conv("final_proj"),
        Rule("scale", "scale"),
    ),
)

CONTROL_NET = Table(
    "control_net",
    (
        *_linear("time_embedding.{layer:linear_1|linear_2}"),
        # The published Sequentials number what has no parameters too: every third of `embedding`, and mid_convs.0.1.
        *(rule for n in range(3) for rule in _conv(f"embedding.{3 * n}", f"embedding.{n}.conv")),
        *(rule for n in range(3) for rule in _norm(f"embedding.{3 * n + 1}", f"embedding.{n}.norm")),
        *_norm("down_res.{i}.{layer:norm1|norm2}"),
        *_conv("down_res.{i}.{layer:conv1|conv2|conv_shortcut}"),
        *_linear("down_res.{i}.time_emb_proj"),
        *_conv("down_sample.{i}.conv"),
        *_conv("mid_convs.0.0", "mid.conv1"),
        *_norm("mid_convs.0.2", "mid.norm1"),
        *_conv("mid_convs.0.3", "mid.conv2"),
        *_norm("mid_convs.0.4", "mid.norm2"),
        *_conv("mid_convs.1", "proj_out"),
    ),
)

# The embedding layer sees the 7x7 features flattened: channels first in PyTorch, last here.
FLATTENED_LINEAR = Transform("FLATTENED_LINEAR", "o (c h w)", "(h w c) o", sizes=(("h", 7), ("w", 7)))

ARCFACE = Table(
    "arcface",
    (
        *_conv("conv1", bias=False),
        *batch_norm("{layer:bn1|bn2}"),
        Rule("prelu.weight", "prelu.slope"),
        *_conv("{stage:layer1|layer2|layer3|layer4}.{i}.{layer:conv1|conv2}", bias=False),
        *batch_norm("{stage:layer1|layer2|layer3|layer4}.{i}.{layer:bn1|bn2|bn3}"),
        Rule("{block}.prelu.weight", "{block}.prelu.slope"),
        *_conv("{block}.downsample.0", "{block}.downsample.conv", bias=False),
        *batch_norm("{block}.downsample.1", "{block}.downsample.bn"),
        *layer("fc", "fc", FLATTENED_LINEAR, "kernel", True),
        *batch_norm("features"),
    ),
)


def tables(config: StableAnimatorConfig) -> dict[str, Table]:
    """The rule table of every model, by the model's name in `config`."""
    face_encoder = FACE_ENCODER if config.face_encoder.refine else FACE_ENCODER_UNREFINED
    every = (UNET, VAE, IMAGE_ENCODER, face_encoder, POSE_NET, CONTROL_NET, ARCFACE)
    return {table.model: table for table in every}


class _WithIdAdapter(Mapping[str, T]):
    def __init__(self, base: Mapping[str, T], copies: Mapping[str, str]):
        self._base = base
        self._copies = copies

    def __getitem__(self, key: str) -> T:
        return self._base[self._copies.get(key, key)]

    def __iter__(self) -> Iterator[str]:
        yield from self._base
        yield from self._copies

    def __len__(self) -> int:
        return len(self._base) + len(self._copies)


def add_id_adapter(state_dict: Mapping[str, T]) -> Mapping[str, T]:
    """SVD's own UNet with the ID adapter's keys, which start as copies of SVD's `to_k` and `to_v` (paper section 3.2).

    Takes a state dict or a mapping of its shapes; the values are fetched from it when asked for, never here.

    Raises:
        WeightsError: the state dict has an ID adapter already.
    """
    adapted = sorted(filter(is_id_adapter_key, state_dict))
    if adapted:
        raise WeightsError("unet", {"unexpected": [f"{key}: these weights have an ID adapter" for key in adapted]})
    spatial = (match for key in state_dict if (match := _SPATIAL_CROSS_ATTENTION.fullmatch(key)))
    return _WithIdAdapter(state_dict, {f"{m['attention']}.processor.id_{m['layer']}.weight": m[0] for m in spatial})


def is_id_adapter_key(key: str) -> bool:
    """Whether a UNet's state-dict key is of the ID adapter, and so not in SVD."""
    return _ID_KEY.fullmatch(key) is not None


_SPATIAL_CROSS_ATTENTION = re.compile(
    r"(?P<attention>.+\.transformer_blocks\.\d+\.attn2)\.(?P<layer>to_k|to_v)\.weight"
)
_ID_KEY = re.compile(r".+\.processor\.id_to_[kv]\.weight")
