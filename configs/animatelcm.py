"""AnimateLCM-SVD: Stable Video Diffusion XT in 4 steps instead of 25, at 1024x576.

    python sample.py configs/animatelcm.py --reference photo.jpg --output photo.mp4

Needs the published weights, converted to `checkpoints/animatelcm` (docs/family.md). From 1 to 8 --steps are of use.
"""

from stableanimator_jax.scripts.sample.settings import SampleConfig, published


def get_config() -> SampleConfig:
    return published("animatelcm", checkpoint="checkpoints/animatelcm", width=1024, height=576)
