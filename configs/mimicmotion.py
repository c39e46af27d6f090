"""MimicMotion 1.1: 72 frames at once, at 576 wide x 1024 high.

    python sample.py configs/mimicmotion.py --reference me.jpg --driving dance.mp4 --dwpose DWPose --output me.mp4

and, for lying photos, the same with --width 1024 --height 576. Needs the published weights, converted to
`checkpoints/mimicmotion` (docs/family.md). Every second frame of the driving video is taken, or of one with 48 and more
frames a second every fourth; the output plays at 15. Version 1 was trained on 16 frames: --window 16.
"""

from stableanimator_jax.scripts.sample.settings import SampleConfig, published


def get_config() -> SampleConfig:
    return published("mimicmotion", checkpoint="checkpoints/mimicmotion", width=576, height=1024)
