"""What a stage of the report measures, and the form of what it finds. Imports neither JAX nor torch."""

from dataclasses import dataclass, replace
from typing import Any

from stableanimator_jax.config import (
    ArcFaceConfig,
    FaceEncoderConfig,
    ImageEncoderConfig,
    PoseNetConfig,
    StableAnimatorConfig,
    UNetConfig,
    VAEConfig,
)

Row = dict[str, Any]
"""One figure: `what` it is, and of these what there is: `seconds` (of each repeat), `flop` (matrix arithmetic of one),
`rate` (the device's own matrix product in the same dtype, FLOP/s), `dtype`, `arguments` and `temporaries` (bytes)."""

HJB_ITERATIONS = 3
"""Of Adam in an optimised step, as published."""

TINY = StableAnimatorConfig(
    unet=UNetConfig(
        block_out_channels=(32, 64),
        num_attention_heads=(2, 2),
        layers_per_block=1,
        cross_attention_dim=64,
        addition_time_embed_dim=32,
        projection_class_embeddings_input_dim=96,
    ),
    vae=VAEConfig(block_out_channels=(32, 32, 32, 32), layers_per_block=1),
    image_encoder=ImageEncoderConfig(
        hidden_size=32,
        intermediate_size=32,
        num_hidden_layers=1,
        num_attention_heads=2,
        patch_size=112,
        projection_dim=64,
    ),
    face_encoder=FaceEncoderConfig(cross_attention_dim=64, image_embedding_dim=64, depth=1),
    pose_net=PoseNetConfig(out_channels=32),
    arcface=ArcFaceConfig(layers=(1, 1, 1, 1), widths=(8, 8, 16, 16)),
)
"""Compiles in seconds on a CPU: shows that the report works, and nothing of the speed."""


@dataclass(frozen=True)
class Case:
    """The size of a video or clip, and how often it is measured."""

    width: int
    height: int
    frames: int = 16
    faces: bool = True
    """False is Stable Video Diffusion without StableAnimator's ID adapter."""
    steps: int = 25
    """Of denoising; or training steps that are timed."""
    repeats: int = 3
    chunk: int = 4
    """Frames decoded at once."""
    tiny: bool = False

    def made_tiny(self) -> "Case":
        return replace(self, width=32, height=32, frames=2, steps=2, repeats=2, chunk=1, tiny=True)

    @property
    def config(self) -> StableAnimatorConfig:
        config = TINY if self.tiny else StableAnimatorConfig()
        return config if self.faces else replace(config, unet=replace(config.unet, id_injection="none"))

    @property
    def latent_size(self) -> tuple[int, int]:
        """Height and width."""
        scale = self.config.vae.downscale
        return self.height // scale, self.width // scale

    @property
    def face_box(self) -> tuple[int, int, int, int]:
        """A square face on a tenth of the frame, in its middle: left, top, right, bottom, inclusive."""
        side = min(self.height, round((0.1 * self.height * self.width) ** 0.5))
        left, top = (self.width - side) // 2, (self.height - side) // 2
        return left, top, left + side - 1, top + side - 1


def timed(what: str, *seconds: float, **more: Any) -> Row:
    """A row of one time, or of those of several repeats."""
    return {"what": what, "seconds": seconds, **more}


def plan(what: str, compiled: Any) -> Row:
    """What one call of JAX's `compiled` takes of memory by its own plan: the compiler's trials are not in it."""
    memory = compiled.memory_analysis()
    return {"what": what, "arguments": memory.argument_size_in_bytes, "temporaries": memory.temp_size_in_bytes}
