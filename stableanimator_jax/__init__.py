"""StableAnimator (CVPR 2025) in JAX/Flax: animate the person of a photo along a pose sequence, keeping their face.

from stableanimator_jax import Animator, fit_aspect, load_image, load_poses

animator = Animator.load("path/to/checkpoint")
poses = load_poses("path/to/poses", width=512, height=512).frames
person = fit_aspect(load_image("person.jpg"), 512, 512, "crop")
video = animator.animate(person, poses)  # uint8 [frames, height, width, 3]
"""

from importlib import import_module
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from stableanimator_jax.config import StableAnimatorConfig as StableAnimatorConfig
    from stableanimator_jax.data.images import fit_aspect as fit_aspect
    from stableanimator_jax.data.images import load_image as load_image
    from stableanimator_jax.data.poses import load_poses as load_poses
    from stableanimator_jax.data.video import open_writer as open_writer
    from stableanimator_jax.errors import InputError as InputError
    from stableanimator_jax.sampling.config import SamplingConfig as SamplingConfig
    from stableanimator_jax.sampling.pipeline import Animator as Animator

# Imported when asked for, so that `sample.py --help` does not wait for JAX.
_EXPORTS = {
    "Animator": "sampling.pipeline",
    "InputError": "errors",
    "SamplingConfig": "sampling.config",
    "StableAnimatorConfig": "config",
    "fit_aspect": "data.images",
    "load_image": "data.images",
    "load_poses": "data.poses",
    "open_writer": "data.video",
}
__all__ = [
    "Animator",
    "InputError",
    "SamplingConfig",
    "StableAnimatorConfig",
    "fit_aspect",
    "load_image",
    "load_poses",
    "open_writer",
]


def __getattr__(name: str) -> Any:
    if name not in _EXPORTS:
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    return getattr(import_module(f"{__name__}.{_EXPORTS[name]}"), name)


def __dir__() -> list[str]:
    return __all__
