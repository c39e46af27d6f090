"""Model configurations: frozen dataclasses, validated when made, read from and written to plain dicts.

Every default is the published StableAnimator (SVD-XT 1.1 sizes). Field names are those of the
`config.json` files of diffusers and transformers wherever such a file has the field.
"""

import contextlib
import dataclasses
import json
import os
import sys
import types
import typing
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Literal, TypeVar

from stableanimator_jax.errors import InputError, as_input_error
from stableanimator_jax.files import LFS_POINTER, is_lfs_pointer

T = TypeVar("T")
EMBEDDING_DIM = 512
"""Numbers in an ArcFace embedding, wherever one is kept in a file."""
IdInjection = Literal["distribution_aware", "addition", "none"]
Kind = Literal["stableanimator", "mimicmotion", "svd", "animatelcm", "controlnext"]
"""Which published system the weights of a checkpoint are of; `family.FAMILY` says what each is made of and needs."""
Device = Literal["auto", "cpu", "gpu", "tpu"]
Dtype = Literal["float32", "bfloat16", "float16"]
DtypeChoice = Literal["auto", "float16", "bfloat16", "float32"]
"""What `runtime.compute_dtype` makes a `Dtype` of."""
StoredDtype = Literal["float32", "bfloat16"]
"""Of weights in a checkpoint; and of models that gradients pass through, which small ones do not in float16."""


def _require(condition: bool, message: str) -> None:
    if not condition:
        raise InputError(message)


_MOST = 2**16
_MOST_LAYERS = {"layers_per_block": 16, "num_hidden_layers": 256, "depth": 256, "layers": 1024}
"""More than any published model has; of many more, a slip in a file, a model would take minutes to lay out."""
_MOST_LEVELS = 8


def _require_sizes(config: Any) -> None:
    """Every whole number in a model's configuration is a size or a count, of 1 or more, and no absurd one."""
    label = type(config).__name__
    for field_ in dataclasses.fields(config):
        value, most = getattr(config, field_.name), _MOST_LAYERS.get(field_.name, _MOST)
        numbers = value if isinstance(value, tuple) else (value,)
        _require(
            len(numbers) <= _MOST_LEVELS,
            f"{label}: {field_.name} has {len(numbers)} levels, the most are {_MOST_LEVELS}",
        )
        for number in numbers:
            if isinstance(number, int) and not isinstance(number, bool):
                _require(1 <= number <= most, f"{label}: {field_.name} must be from 1 to {most}, got {number}")


@dataclass(frozen=True)
class UNetConfig:
    """SVD's spatio-temporal UNet with StableAnimator's ID adapter.

    Every level but the last has spatio-temporal attention, as in SVD.
    """

    in_channels: int = 8
    out_channels: int = 4
    block_out_channels: tuple[int, ...] = (320, 640, 1280, 1280)
    num_attention_heads: tuple[int, ...] = (5, 10, 20, 20)
    """Heads per level; the head size is the level's channels over its heads."""
    layers_per_block: int = 2
    cross_attention_dim: int = 1024
    addition_time_embed_dim: int = 256
    projection_class_embeddings_input_dim: int = 768
    id_injection: IdInjection = "distribution_aware"
    """How face tokens enter: the paper's distribution-aware alignment, plain addition (IP-Adapter), or not at all."""
    num_frames: int = 25
    """Of the clips that it was trained on, as diffusers' configurations say: what plain SVD makes unless told
    otherwise. The layers take any number."""

    def __post_init__(self):
        _require_sizes(self)
        _require(
            len(self.block_out_channels) == len(self.num_attention_heads) >= 2,
            f"the UNet needs one head count a level, for at least 2 levels: block_out_channels "
            f"{self.block_out_channels}, num_attention_heads {self.num_attention_heads}",
        )
        for channels, heads in zip(self.block_out_channels, self.num_attention_heads, strict=True):
            _require(channels % 32 == 0, f"UNet level of {channels} channels: GroupNorm needs a multiple of 32")
            _require(channels % heads == 0, f"UNet level of {channels} channels cannot be split into {heads} heads")
        _require(
            self.projection_class_embeddings_input_dim == 3 * self.addition_time_embed_dim,
            "the UNet takes 3 added time ids (fps, motion bucket, noise augmentation): "
            f"projection_class_embeddings_input_dim must be 3 x {self.addition_time_embed_dim}, "
            f"got {self.projection_class_embeddings_input_dim}",
        )
        _require(
            self.id_injection in typing.get_args(IdInjection),
            f"id_injection must be one of {typing.get_args(IdInjection)}, got {self.id_injection!r}",
        )

    @property
    def takes_faces(self) -> bool:
        """Whether face tokens make a difference. SVD's own weights take none."""
        return self.id_injection != "none"

    @property
    def downscale(self) -> int:
        """Latent height and width must be multiples of this for every level to halve exactly."""
        return 2 ** (len(self.block_out_channels) - 1)

    @property
    def skip_connections(self) -> int:
        """How many lead from the way down to the way up, the first convolution's among them."""
        return len(self.block_out_channels) * (self.layers_per_block + 1)


@dataclass(frozen=True)
class VAEConfig:
    """SVD's temporal VAE: an image encoder and a spatio-temporal decoder."""

    in_channels: int = 3
    out_channels: int = 3
    latent_channels: int = 4
    block_out_channels: tuple[int, ...] = (128, 256, 512, 512)
    layers_per_block: int = 2
    norm_num_groups: int = 32
    """Of every GroupNorm. Fewer suit a narrow VAE, whose groups would have one channel each."""
    scaling_factor: float = 0.18215

    def __post_init__(self):
        _require_sizes(self)
        for channels in self.block_out_channels:
            _require(
                channels % self.norm_num_groups == 0,
                f"VAE level of {channels} channels: GroupNorm needs a multiple of {self.norm_num_groups}",
            )
        _require(self.scaling_factor > 0, f"VAE scaling_factor must be positive, got {self.scaling_factor}")

    @property
    def downscale(self) -> int:
        """Pixels per latent along height and width."""
        return 2 ** (len(self.block_out_channels) - 1)


@dataclass(frozen=True)
class ImageEncoderConfig:
    """CLIP vision tower with projection (ViT-H/14 by default)."""

    hidden_size: int = 1280
    intermediate_size: int = 5120
    num_hidden_layers: int = 32
    num_attention_heads: int = 16
    image_size: int = 224
    patch_size: int = 14
    projection_dim: int = 1024
    hidden_act: Literal["gelu", "quick_gelu"] = "gelu"
    layer_norm_eps: float = 1e-5

    def __post_init__(self):
        _require_sizes(self)
        _require(
            self.hidden_size % self.num_attention_heads == 0,
            f"CLIP hidden_size {self.hidden_size} cannot be split into {self.num_attention_heads} heads",
        )
        _require(
            self.image_size % self.patch_size == 0,
            f"CLIP image_size {self.image_size} is not a multiple of patch_size {self.patch_size}",
        )
        _require(
            self.hidden_act in ("gelu", "quick_gelu"),
            f"CLIP hidden_act must be 'gelu' or 'quick_gelu', got {self.hidden_act!r}",
        )


@dataclass(frozen=True)
class FaceEncoderConfig:
    """StableAnimator's global content-aware Face Encoder (paper section 3.2)."""

    cross_attention_dim: int = 1024
    id_embedding_dim: int = 512
    image_embedding_dim: int = 1024
    num_tokens: int = 4
    depth: int = 4
    head_dim: int = 64
    refine: bool = True
    """Refine the ID tokens with the image embedding. Off is the paper's ablation: projected ArcFace only."""

    def __post_init__(self):
        _require_sizes(self)
        _require(
            self.cross_attention_dim % self.head_dim == 0,
            f"face encoder dimension {self.cross_attention_dim} is not a multiple of its head size {self.head_dim}",
        )


@dataclass(frozen=True)
class PoseNetConfig:
    """StableAnimator's PoseNet: skeleton images to features at the UNet's `conv_in` output."""

    out_channels: int = 320

    def __post_init__(self):
        _require_sizes(self)


@dataclass(frozen=True)
class ControlNetConfig:
    """ControlNeXt's control net: skeleton images to features that enter the UNet behind its first down block."""

    out_channels: int = 320
    strength: float = 0.2
    """What the features, given the hidden state's mean and spread, are multiplied by before they are added to it."""

    def __post_init__(self):
        _require(self.strength > 0, f"control net strength must be positive, got {self.strength}")
        _require_sizes(self)


@dataclass(frozen=True)
class ArcFaceConfig:
    """ArcFace's IResNet: (2, 2, 2, 2) is IResNet-18, (3, 4, 6, 3) 34, (3, 4, 14, 3) 50, (3, 13, 30, 3) 100."""

    layers: tuple[int, ...] = (3, 13, 30, 3)
    widths: tuple[int, ...] = (64, 128, 256, 512)
    embedding_dim: int = 512

    def __post_init__(self):
        _require_sizes(self)
        _require(
            len(self.layers) == len(self.widths) == 4,
            f"IResNet needs 4 stages: layers {self.layers}, widths {self.widths}",
        )


@dataclass(frozen=True)
class StableAnimatorConfig:
    """Everything StableAnimator, or a relative of it, is made of. The parts must fit each other; this checks that."""

    kind: Kind = "stableanimator"
    """Whose weights these are, and so which of the models there are."""
    unet: UNetConfig = field(default_factory=UNetConfig)
    vae: VAEConfig = field(default_factory=VAEConfig)
    image_encoder: ImageEncoderConfig = field(default_factory=ImageEncoderConfig)
    face_encoder: FaceEncoderConfig = field(default_factory=FaceEncoderConfig)
    pose_net: PoseNetConfig = field(default_factory=PoseNetConfig)
    control_net: ControlNetConfig = field(default_factory=ControlNetConfig)
    """Of the kind "controlnext" alone."""
    arcface: ArcFaceConfig = field(default_factory=ArcFaceConfig)

    def __post_init__(self):
        _require(self.kind in typing.get_args(Kind), f"kind must be one of {typing.get_args(Kind)}, got {self.kind!r}")
        width, context = self.unet.block_out_channels[0], self.unet.cross_attention_dim
        for name, found, wanted in (
            ("pose_net.out_channels", self.pose_net.out_channels, width),
            ("image_encoder.projection_dim", self.image_encoder.projection_dim, context),
            ("face_encoder.cross_attention_dim", self.face_encoder.cross_attention_dim, context),
            ("face_encoder.image_embedding_dim", self.face_encoder.image_embedding_dim, context),
            ("face_encoder.id_embedding_dim", self.face_encoder.id_embedding_dim, self.arcface.embedding_dim),
            ("unet.out_channels", self.unet.out_channels, self.vae.latent_channels),
            *(
                [("control_net.out_channels", self.control_net.out_channels, width)]
                if self.kind == "controlnext"
                else []
            ),
            ("unet.in_channels", self.unet.in_channels, 2 * self.vae.latent_channels),
        ):
            _require(found == wanted, f"the models do not fit each other: {name} is {found}, must be {wanted}")
        _require(
            self.vae.downscale == 8,
            f"PoseNet halves three times, so the VAE must too: it has {len(self.vae.block_out_channels)} levels, not 4",
        )

    @property
    def size_multiple(self) -> int:
        """Output height and width must be multiples of this many pixels."""
        return self.vae.downscale * self.unet.downscale

    @classmethod
    def tiny(cls) -> "StableAnimatorConfig":
        """A few million parameters in all: runs on a laptop CPU in seconds."""
        return cls(
            unet=UNetConfig(
                block_out_channels=(32, 64, 64, 64),
                num_attention_heads=(2, 4, 4, 4),
                cross_attention_dim=64,
                addition_time_embed_dim=32,
                projection_class_embeddings_input_dim=96,
            ),
            vae=VAEConfig(block_out_channels=(32, 32, 64, 64), layers_per_block=1),
            image_encoder=ImageEncoderConfig(
                hidden_size=64,
                intermediate_size=128,
                num_hidden_layers=3,
                num_attention_heads=4,
                patch_size=56,
                projection_dim=64,
            ),
            face_encoder=FaceEncoderConfig(cross_attention_dim=64, image_embedding_dim=64),
            pose_net=PoseNetConfig(out_channels=32),
            arcface=ArcFaceConfig(layers=(1, 2, 2, 1), widths=(16, 32, 64, 128)),
        )

    @classmethod
    def from_dict(cls, data: dict[str, Any]) -> "StableAnimatorConfig":
        """The inverse of `to_dict`. Raises `InputError` for an unknown, missing-typed or ill-fitting field."""
        return from_dict(cls, data)

    def to_dict(self) -> dict[str, Any]:
        return dataclasses.asdict(self)


def checked(config: T) -> T:
    """A (nested) dataclass that Python code made, with its fields checked against their types as `from_dict` does."""
    return from_dict(type(config), config)


def from_dict(cls: type[T], data: Any, where: str = "") -> T:
    """Build the (nested) dataclass `cls` from plain data as read from JSON.

    Raises:
        InputError: a field is unknown or has a value of another type; the message names it.
    """
    label = where or cls.__name__
    if isinstance(data, cls):
        data = vars(data)
    _require(isinstance(data, dict), f"{label}: expected an object with fields, got {data!r}")
    hints = typing.get_type_hints(cls)
    fields = {f.name for f in dataclasses.fields(cls)}  # pyright: ignore[reportArgumentType]
    unknown = sorted(set(data) - fields)
    _require(not unknown, f"{label}: unknown field(s) {', '.join(unknown)}; known: {', '.join(sorted(fields))}")
    return cls(**{k: _convert(hints[k], v, f"{where}.{k}" if where else k) for k, v in data.items()})


def _convert(hint: Any, value: Any, where: str) -> Any:
    origin, args = typing.get_origin(hint), typing.get_args(hint)
    if dataclasses.is_dataclass(hint):
        return from_dict(typing.cast(type, hint), value, where)
    if origin is tuple:
        _require(isinstance(value, list | tuple), f"{where}: expected a list, got {value!r}")
        return tuple(_convert(args[0], v, where) for v in value)
    if origin is Literal:
        _require(value in args, f"{where}: expected one of {args}, got {value!r}")
        return value
    if origin in (typing.Union, types.UnionType):
        if value is None and type(None) in args:
            return None
        alternatives = [a for a in args if a is not type(None)]
        for alternative in alternatives[:-1]:
            with contextlib.suppress(InputError):
                return _convert(alternative, value, where)
        return _convert(alternatives[-1], value, where)
    if hint is Path:
        _require(isinstance(value, str | Path), f"{where}: expected a path, got {value!r}")
        return Path(_convert(str, str(value), where))
    if hint is float:
        _require(type(value) in (int, float), f"{where}: expected float, got {value!r}")
        _require(abs(value) <= sys.float_info.max, f"{where}: expected a finite number that a float can hold")
        return float(value)
    _require(type(value) is hint, f"{where}: expected {hint.__name__}, got {value!r}")
    if hint is str:
        _require(_nameable(value), f"{where}: {value!r} has a character that no name of a file can have")
    return value


def _nameable(text: str) -> bool:
    try:
        return b"\0" not in os.fsencode(text)
    except UnicodeEncodeError:
        return False


def read_json(path: Path) -> Any:
    """Parse a JSON file. Raises `InputError` when it is missing, unreadable or not JSON."""
    with as_input_error(f"cannot read {path}"):
        if is_lfs_pointer(path):
            raise InputError(f"{path} is {LFS_POINTER}")
        text = path.read_bytes()
    try:
        return json.loads(text.decode())
    except (ValueError, RecursionError) as e:  # also nested too deep, or with thousands of digits
        raise InputError(f"{path} is not a JSON file: {e}") from e
