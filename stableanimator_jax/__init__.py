"""StableAnimator (CVPR 2025) in JAX/Flax: animate the person of a photo along a pose sequence, keeping their face.

from stableanimator_jax import Animator

animator = Animator.from_pretrained("CHECKPOINT")  # or "hf://owner/repository", or "embedded"
video = animator.animate("person.jpg", "poses/", width=512, height=512)  # uint8 [frames, height, width, 3]
"""

from etils import epy

__version__ = "0.1.0"

# Imported when asked for, so that `--help` does not wait for JAX.
with epy.lazy_api_imports(globals()):
    from stableanimator_jax.config import StableAnimatorConfig
    from stableanimator_jax.data.face_track import Face, FaceTrack
    from stableanimator_jax.data.images import fit_aspect, load_image
    from stableanimator_jax.data.keypoints import Keypoints
    from stableanimator_jax.data.poses import Poses, load_poses
    from stableanimator_jax.data.video import open_writer
    from stableanimator_jax.errors import InputError
    from stableanimator_jax.perception.driving_poses import poses_from_video
    from stableanimator_jax.perception.dwpose import DWPose
    from stableanimator_jax.perception.faces import FaceAnalyser
    from stableanimator_jax.perception.keypoint_poses import poses_from_keypoints
    from stableanimator_jax.perception.people import People, PoseEstimator
    from stableanimator_jax.perception.skeleton import SkeletonStyle
    from stableanimator_jax.sampling.background import keep_background, keep_background_by_masks
    from stableanimator_jax.sampling.colours import match_colours
    from stableanimator_jax.sampling.config import HJBConfig, SamplingConfig, Strength
    from stableanimator_jax.sampling.face_control import FaceOptimisation
    from stableanimator_jax.sampling.pipeline import Animator
    from stableanimator_jax.sampling.programs import quick_starts

__all__ = [
    "Animator",
    "DWPose",
    "Face",
    "FaceAnalyser",
    "FaceOptimisation",
    "FaceTrack",
    "HJBConfig",
    "InputError",
    "Keypoints",
    "People",
    "PoseEstimator",
    "Poses",
    "SamplingConfig",
    "SkeletonStyle",
    "StableAnimatorConfig",
    "Strength",
    "fit_aspect",
    "keep_background",
    "keep_background_by_masks",
    "load_image",
    "load_poses",
    "match_colours",
    "open_writer",
    "poses_from_keypoints",
    "poses_from_video",
    "quick_starts",
]
