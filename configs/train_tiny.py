"""The tiny model that ships in this package, trained from random weights on a laptop CPU.

    python train.py configs/train_tiny.py --data.dataset DATASET --output outputs/tiny

DATASET is what `prepare_data.py videos` makes, with clips of at least 9 frames in a small bucket, such as
`--buckets 64x64`. Compiling takes two minutes on 2 cores, then a step half a second. Shows that everything
runs, from data to checkpoints, curves and videos; VAE and CLIP are random and stay so, so the videos are
coloured noise. What comes out is sampled like any other weights:

    python sample.py --checkpoint outputs/tiny/checkpoints/1000/weights --reference PHOTO --poses POSES \
        --width 64 --height 64
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
        steps=1000,
        data=DataConfig(loader=LoaderConfig(batch_size=4, frames=8, stride=1)),
        trainable=TrainableConfig(unet="all"),
        optimizer=OptimizerConfig(learning_rate=1e-3, warmup_steps=20),
        checkpoints=CheckpointConfig(every=200),
        validation=ValidationConfig(every=200, clips=4, steps=5),
    )
