"""The published training: from Stable Video Diffusion, 512x512 and 576x1024 clips mixed, 4 a step.

    python train.py configs/train_published.py --data.dataset DATASET --output RUN --mesh.fsdp 4

Needs Stable Video Diffusion XT, converted to `checkpoints/svd` (another place: --init-from DIR): PoseNet and Face
Encoder begin anew. DATASET is what `prepare_data.py videos` makes with its default buckets. Learning rate, warm-up,
weight decay, dropout, mask weight and trained layers are those of the published code, on 4 devices as there.
"""

from stableanimator_jax.data.loader import LoaderConfig
from stableanimator_jax.training.config import DataConfig, OptimizerConfig, TrainableConfig, TrainConfig


def get_config() -> TrainConfig:
    return TrainConfig(
        init_from="checkpoints/svd",
        steps=100_000,
        data=DataConfig(loader=LoaderConfig(batch_size=4, workers=4)),
        trainable=TrainableConfig(unet="attentions"),
        optimizer=OptimizerConfig(learning_rate=1e-5, warmup_steps=500, weight_decay=1e-2),
    )
