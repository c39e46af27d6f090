"""The tiny model that ships in this package, on its example: what `python sample.py` does without arguments.

    python sample.py configs/tiny.py

Writes outputs/animation.mp4, 32 frames of 128x128, in about a minute on 2 CPU cores, compilation included (less
when run again). The weights are random until a trained set ships, so the frames are coloured noise: they show that
everything runs, from the photo to the video, not what the method can do.
"""

from stableanimator_jax.sampling.run_config import SampleConfig


def get_config() -> SampleConfig:
    return SampleConfig(checkpoint="embedded", width=128, height=128)
