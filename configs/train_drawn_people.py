"""StableAnimator, small, on drawn people of 64x64 pixels.

    python train.py configs/train_drawn_people.py

Takes half an hour on 2 cores, 1.5 seconds a step. examples/drawn_world/README.md says how the data and the weights
that it begins from are made, and what came of it. The train_ablations.sh beside it goes on from there with the same
settings: to the weights that ship in this package, and to those of the paper's ablations.
"""

from pathlib import Path

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
    world = Path("outputs/drawn_world")
    return TrainConfig(
        init_from=str(world / "base"),
        output=world / "run",
        steps=1200,
        remat=False,
        # Two frames of many people rather than many of few: that teaches most in the time.
        data=DataConfig(dataset=world / "dataset", loader=LoaderConfig(batch_size=48, frames=2, stride=1)),
        trainable=TrainableConfig(unet="all"),
        optimizer=OptimizerConfig(
            kind="muon", learning_rate=2e-3, schedule="cosine", warmup_steps=50, weight_decay=0.0, ema_decay=0.998
        ),
        checkpoints=CheckpointConfig(every=200),
        validation=ValidationConfig(every=200, clips=16, videos=0),
    )
