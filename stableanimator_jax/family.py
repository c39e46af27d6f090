"""The systems that Stable Video Diffusion has become, as one table: what each is made of, needs, and is published with.

This is the one place that tells them apart. What is computed is the same for all of them: one UNet, one decoder, one
loop of denoising. A member says which networks go with them, what a video of it is made from, and how its windows lie.
"""

from dataclasses import dataclass, field
from types import MappingProxyType
from typing import Any, Literal

from stableanimator_jax.config import Kind, StableAnimatorConfig

Driver = Literal["pose_net", "control_net"]
Tiling = Literal["filled", "fitted", "runs", "whole"]
"""How windows lie over a video; see `sampling.windows`."""


@dataclass(frozen=True)
class Member:
    """One published system."""

    title: str
    driver: Driver | None
    """The network that poses go through; None where there are none, and the number of frames is asked for."""
    tiling: Tiling
    published: MappingProxyType[str, Any] = field(default_factory=lambda: MappingProxyType({}))
    """Fields of `sampling.config.SamplingConfig` in which it is published otherwise than StableAnimator."""
    takes_face: bool = False
    """Whether a Face Encoder tells its UNet whose face it is. The face optimisation works with all of them."""
    reference_pose_first: bool = False
    """Whether the first pose is the reference's own, so that the first frame is the reference once more."""
    drops_first: bool = False
    """Whether that first frame is then left out of the video."""
    swaps_colours: bool = False
    """Whether skeletons go in with red and blue exchanged."""
    crops_reference: bool = False
    """Whether the image encoder, too, sees the reference cut to the output's size, resized without antialiasing."""
    driving_stride: int = 1
    """It takes every so many-th frame of a driving video."""
    faster_strides: bool = False
    """Whether that number is times as many as 24 frames a second go into the video's."""
    output_fps: float | None = None
    """Frames a second that it is written at, where that is not the driving video's over the stride."""

    @property
    def models(self) -> tuple[str, ...]:
        """Those that make a video."""
        driver = () if self.driver is None else (self.driver,)
        return ("unet", "vae", "image_encoder", *driver, *(("face_encoder",) if self.takes_face else ()))


def _published(**fields: Any) -> MappingProxyType[str, Any]:
    return MappingProxyType(fields)


_SVD = {"guidance_min": 1.0, "guidance_max": 3.0, "overlap": 1, "decode_chunk": 8}

FAMILY: dict[Kind, Member] = {
    "stableanimator": Member("StableAnimator", "pose_net", "filled", takes_face=True),
    "mimicmotion": Member(
        "MimicMotion",
        "pose_net",
        "fitted",
        _published(
            window=72, overlap=6, guidance_min=2.0, guidance_max=2.0, noise_augmentation=0.0, decode_chunk=8, seed=42
        ),
        reference_pose_first=True,
        drops_first=True,
        swaps_colours=True,
        crops_reference=True,
        driving_stride=2,
        faster_strides=True,
        output_fps=15.0,
    ),
    "svd": Member("Stable Video Diffusion", None, "whole", _published(**_SVD)),
    "animatelcm": Member(
        "AnimateLCM-SVD",
        None,
        "whole",
        _published(**_SVD | {"steps": 4, "sampler": "lcm", "guidance_max": 1.2, "motion_bucket": 80, "seed": 42}),
        output_fps=8.0,
    ),
    "controlnext": Member(
        "ControlNeXt-SVD-v2",
        "control_net",
        "runs",
        _published(window=24, overlap=6, motion_bucket=128, decode_chunk=2),
        reference_pose_first=True,
        swaps_colours=True,
        crops_reference=True,
        driving_stride=2,
    ),
}


def member(config: StableAnimatorConfig) -> Member:
    """The one whose weights a checkpoint holds."""
    return FAMILY[config.kind]
