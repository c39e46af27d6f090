"""How strongly poses, face and image act: the settings, as what the UNet is told at each noise level.

What has the published strength at every step is left alone, so that programs and frames are the published ones.
"""

from typing import Any

import jax
import numpy as np
from jaxtyping import Array, Float, Float32

from stableanimator_jax.config import StableAnimatorConfig
from stableanimator_jax.errors import InputError
from stableanimator_jax.family import member
from stableanimator_jax.limits import limit_of
from stableanimator_jax.models.conditioning import Conditioning
from stableanimator_jax.sampling.config import PUBLISHED_STRENGTH, SamplingConfig, Strength
from stableanimator_jax.sampling.denoiser import Driving
from stableanimator_jax.sampling.windows import Windows


def check_strengths(config: StableAnimatorConfig, sampling: SamplingConfig, *, of_frames: bool = False) -> None:
    """Raise `InputError` where a strength is of something that these weights are not told.

    `of_frames` says whether poses have a strength a frame besides.
    """
    kind = member(config)
    changed = {name for name, strength in sampling.strengths.items() if strength != PUBLISHED_STRENGTH}
    if kind.driver is None and ("pose" in changed or of_frames):
        name = "pose_strength" if of_frames else "pose.strength, pose.start and pose.end"
        raise InputError(f"{kind.title} takes no poses: leave out {name}")
    if "face" in changed and not (kind.takes_face and config.unet.takes_faces):
        raise InputError(
            f"these weights ({kind.title}) have no ID adapter: leave out face.strength, face.start and face.end"
        )


def frame_strengths(given: Any, poses: int) -> Float32[np.ndarray, "f"]:
    """One strength a pose, checked.

    Raises:
        InputError: they are not as many, or outside of what `Strength.strength` may be.
    """
    limit = limit_of(Strength, "strength")
    try:
        strengths = np.asarray(given)
    except ValueError as e:  # lists of several lengths
        raise InputError(f"pose_strength must be one number a pose: {e}") from e
    if strengths.shape != (poses,) or strengths.dtype.kind not in "fiu":
        got = f"{strengths.dtype} {list(strengths.shape)}"
        raise InputError(
            f"pose_strength must be one number a pose, {poses} of them, got {got}; one for all is "
            "SamplingConfig(pose=Strength(...))"
        )
    if wrong := [number for number in strengths.tolist() if number not in limit]:
        raise InputError(f"pose_strength must be {limit}, got {wrong[0]}")
    return strengths.astype(np.float32)


class Strengths:
    """The `Driving` by another one, with what the strengths at a noise level change.

    Args:
        driving: the poses of each window.
        condition: of the video, as one row without poses.
        plan: the windows.
        sampling: has the strengths, the steps and their noise levels.
        of_frames: of the poses of the video's frames, besides; None for 1.
    """

    def __init__(
        self,
        driving: Driving,
        condition: Conditioning,
        plan: Windows,
        sampling: SamplingConfig,
        of_frames: Float32[np.ndarray, "f"] | None = None,
    ):
        self.driving, self.condition, self.plan, self.of_frames = driving, condition, plan, of_frames
        self.levels = sampling.sigmas[:-1]
        self.strengths = {
            name: strength.at_steps(sampling.steps)
            for name, strength in sampling.strengths.items()
            if strength != PUBLISHED_STRENGTH
        }

    def changes_after(self, step: int) -> bool:
        """Whether anything has another strength in the next step, if there is one."""
        return any((of_steps[step : step + 2] != of_steps[step]).any() for of_steps in self.strengths.values())

    def __call__(self, window: int, sigma: Float[np.floating, ""]) -> dict[str, Any]:
        """Those fields of `Conditioning` that are of a window, or not as in the video's condition."""
        # A sampler may denoise between two levels, which is within the step that begins at the higher one.
        step = max(0, int(np.count_nonzero(self.levels >= sigma)) - 1)
        now = {name: of_steps[step] for name, of_steps in self.strengths.items()}
        fields = dict(self.driving(window, sigma))
        if "pose" in now or self.of_frames is not None:
            by = now.get("pose", np.float32(1))
            by = by if self.of_frames is None else by * self.of_frames[self.plan.poses[window]]
            if "control" in fields:  # its features' own statistics do not matter: the UNet multiplies last
                fields["control"] = fields["control"]._replace(scale=fields["control"].scale * by)
            else:
                fields["pose_features"] = _times(fields["pose_features"], by)
        if "face" in now:
            fields["face_strength"] = now["face"]
        if "image" in now:
            fields["image_embedding"] = _times(self.condition.image_embedding[0], now["image"])
        return fields


@jax.jit
def _times(x: Float[Array, "..."], by: Float[Array, "..."]) -> Float[Array, "..."]:
    """Along the first axes, in the first one's dtype."""
    return x * by.astype(x.dtype).reshape(*by.shape, *(1,) * (x.ndim - by.ndim))
