"""The small model that ships in this package, on drawn people: what sampling does without arguments.

    python sample.py configs/drawn_people.py

Writes outputs/animation.mp4: the person of the package's example, whom the model never saw, in 32 poses of a movement
that it never saw either, at 64x64; with a contact sheet and a plot of the face optimisation. It takes about a minute on
2 CPU cores, compilation included (less when run again). examples/drawn_world says where the weights come from.
"""

from stableanimator_jax.scripts.sample.settings import DRAWN_PEOPLE, SampleConfig


def get_config() -> SampleConfig:
    return DRAWN_PEOPLE
