"""Stable Video Diffusion XT: a picture comes alive by itself, for 25 frames of 1024x576.

    python sample.py configs/svd.py --reference photo.jpg --output photo.mp4

Needs the published weights, converted to `checkpoints/svd` (docs/family.md). --frames makes it longer or shorter,
--motion-bucket (127; from 1, still, to 255) livelier.
"""

from stableanimator_jax.scripts.sample.settings import SampleConfig, published


def get_config() -> SampleConfig:
    return published("svd", checkpoint="checkpoints/svd", width=1024, height=576)
