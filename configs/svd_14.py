"""Stable Video Diffusion, the model of 14 frames, at 1024x576.

    python sample.py configs/svd_14.py --reference photo.jpg --output photo.mp4

Needs the published weights, converted to `checkpoints/svd_14` (docs/family.md): they say how many frames they make.
"""

from stableanimator_jax.scripts.sample.settings import SampleConfig, published


def get_config() -> SampleConfig:
    return published("svd", checkpoint="checkpoints/svd_14", width=1024, height=576)
