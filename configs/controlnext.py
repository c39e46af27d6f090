"""ControlNeXt-SVD-v2: a person in the poses of a video, in windows of 24 frames of 576 wide x 1024 high.

    python sample.py configs/controlnext.py --reference me.jpg --driving dance.mp4 --dwpose DWPose --output me.mp4

Needs the published weights, converted to `checkpoints/controlnext` (docs/family.md). Every second frame of the driving
video is taken. The output's first frame is the person of the photo in their own pose.
"""

from stableanimator_jax.scripts.sample.settings import SampleConfig, published


def get_config() -> SampleConfig:
    return published("controlnext", checkpoint="checkpoints/controlnext", width=576, height=1024)
