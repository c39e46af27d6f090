"""Finetune the small model that ships in this package, on a laptop CPU, with a few more drawn people.

    python -m examples.drawn_world dataset --arcface embedded --people 32 --validation 4 --output outputs/tiny/dataset
    python train.py configs/train_tiny.py --data.dataset outputs/tiny/dataset --output outputs/tiny/run

The first draws them, the second shows all that training leaves: checkpoints, curves, videos of people held out.
Compiling takes a minute on 2 cores, then a step half a second. What
`prepare_data.py videos --buckets 64x64` makes, with clips of at least 9 frames, can be trained on in the same way.
What comes out is sampled like any other weights:

    python sample.py configs/drawn_people.py --checkpoint outputs/tiny/run/checkpoints/200/weights \
        --reference PICTURE --poses POSES --face-boxes BOXES.json
"""

from stableanimator_jax.data.loader import LoaderConfig
from stableanimator_jax.training.checkpoints import CheckpointConfig
from stableanimator_jax.training.config import (
    DataConfig,
    OptimizerConfig,
    TrainableConfig,
    TrainConfig,
    ValidationConfig,
)


def get_config() -> TrainConfig:
    return TrainConfig(
        init_from="embedded",
        steps=200,
        remat=False,
        data=DataConfig(loader=LoaderConfig(batch_size=4, frames=8, stride=1)),
        trainable=TrainableConfig(unet="all"),
        optimizer=OptimizerConfig(learning_rate=1e-4, warmup_steps=20),
        checkpoints=CheckpointConfig(every=100),
        validation=ValidationConfig(every=100, clips=4, steps=10, guidance=1.5),
    )
