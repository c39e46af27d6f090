"""The small model that ships in this package, on drawn people: what `python sample.py` does without arguments.

    python sample.py configs/drawn_people.py

Writes outputs/animation.mp4: the person of the package's example, whom the model never saw, in 32 poses of a movement
that it never saw either, at 64x64; with a contact sheet and a plot of the face optimisation. It takes about a minute on
2 CPU cores, compilation included (less when run again). examples/drawn_world says where the weights come from.
"""

from stableanimator_jax.sampling.config import HJBConfig, SamplingConfig
from stableanimator_jax.scripts.sample.settings import SampleConfig


def get_config() -> SampleConfig:
    return SampleConfig(
        checkpoint="embedded",
        width=64,
        height=64,
        identity="checkpoint",
        # Short windows: it was trained on clips of 2 frames. Little guidance: 3, as published, burns its colours out.
        # Few steps: more do not make it better, and each has the face optimisation.
        sampling=SamplingConfig(steps=15, window=8, overlap=2, guidance_min=1.5, guidance_max=1.5),
        hjb=HJBConfig(iterations="published"),
    )
