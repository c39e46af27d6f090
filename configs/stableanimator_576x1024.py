"""The published model at 576 wide x 1024 high, for upright videos of dancers.

    python sample.py configs/stableanimator_576x1024.py --reference me.jpg --poses skeletons/ --output me.mp4

and, for lying ones, the same with --width 1024 --height 576. Needs the published weights, converted to
`checkpoints/stableanimator` (another place: --checkpoint DIR), and a GPU or TPU. Add --insightface-root DIR for the
identity of the face. 16 frames take about 2.6 PFLOP, two and a half times as many as at 512x512. Where memory is
short: --rows-at-once 1, then --decode-chunk 2.
"""

from stableanimator_jax.scripts.sample.settings import SampleConfig


def get_config() -> SampleConfig:
    return SampleConfig(checkpoint="checkpoints/stableanimator", width=576, height=1024)
