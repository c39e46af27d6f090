"""Finetune the published model on 512x512 clips, on one GPU or any number of devices.

    python train.py configs/train_512.py --data.dataset DATASET --output RUN

Needs the published weights, converted to `checkpoints/stableanimator` (another place: --init-from DIR), and what
`prepare_data.py videos` makes with `--buckets 512x512`. One clip of 16 frames a step and a device: on more devices give
a batch that they divide, such as `--data.batch-size 8`. docs/training.md says how to read the curves, and what memory
it takes.
"""

from stableanimator_jax.data.loader import LoaderConfig
from stableanimator_jax.training.config import DataConfig, OptimizerConfig, TrainConfig


def get_config() -> TrainConfig:
    return TrainConfig(
        init_from="checkpoints/stableanimator",
        steps=20_000,
        data=DataConfig(loader=LoaderConfig(batch_size=1, workers=4)),
        optimizer=OptimizerConfig(learning_rate=1e-5, warmup_steps=500),
    )
