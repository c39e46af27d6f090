"""The published model at 512x512, the size of most of its training.

    python sample.py configs/stableanimator_512.py --reference me.jpg --poses skeletons/ --output me.mp4

Needs the published weights, converted to `checkpoints/stableanimator` (another place: --checkpoint DIR), and a GPU or
TPU. Expect the person of me.jpg in the poses of skeletons/, a square MP4 at 7 frames a second; photo and poses are cut
to a square (--fit pad: padded). Add --insightface-root DIR for the identity of the face. 16 frames are one window of
the UNet and 25 guided steps, about 1 PFLOP; longer videos take windows that overlap by 4 frames. Where memory is
short: --rows-at-once 1, then --decode-chunk 2.
"""

from stableanimator_jax.scripts.sample.settings import SampleConfig


def get_config() -> SampleConfig:
    return SampleConfig(checkpoint="checkpoints/stableanimator", width=512, height=512)
