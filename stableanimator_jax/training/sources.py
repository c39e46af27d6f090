"""The clips that a run trains on and is validated on."""

from collections.abc import Sequence
from pathlib import Path

from stableanimator_jax.commands import called
from stableanimator_jax.config import StableAnimatorConfig
from stableanimator_jax.data.clip_format import bucket_size
from stableanimator_jax.data.clip_source import ClipSource
from stableanimator_jax.data.encoded import EncodedClips, PixelClips
from stableanimator_jax.data.prepared import PreparedClips, read_dataset_file
from stableanimator_jax.data.published_layout import PublishedLayout
from stableanimator_jax.errors import InputError
from stableanimator_jax.sampling.video_inputs import check_size
from stableanimator_jax.training.config import TrainConfig
from stableanimator_jax.weights.fingerprint import fingerprint


def training_clips(config: TrainConfig) -> list[PixelClips]:
    """The buckets to train on, as pixels.

    Raises:
        InputError: there is no data, or something is wrong with it.
    """
    if config.data.dataset is None and not config.data.lists:
        raise InputError(
            f"give what to train on: --data.dataset DIR, which {called('prepare')} makes of videos, "
            "or --data.lists FILE.txt"
        )
    return _clips(config, "train", config.data.lists)


def validation_clips(config: TrainConfig) -> list[PixelClips]:
    """The buckets to validate on, as pixels. Raises as `training_clips`."""
    return _clips(config, "validation", config.validation.lists)


def _clips(config: TrainConfig, split: str, lists: Sequence[Path]) -> list[PixelClips]:
    dataset = config.data.dataset
    if dataset is None:
        named = zip(lists, config.data.sizes, strict=True)
        frames = config.data.loader.frames
        return [PublishedLayout(path, bucket_size(size), config.data.fit, frames=frames) for path, size in named]
    buckets = read_dataset_file(dataset)["buckets"]
    found: list[PixelClips] = [PreparedClips(dataset, split, name) for name, n in buckets.items() if n.get(split, 0)]
    if not found:
        instead = "; prepare it with some, or turn validation off: --validation.every 0" if split != "train" else ""
        raise InputError(f"dataset {dataset} has no clips in the split {split!r}{instead}")
    return found


def sources(clips: Sequence[PixelClips], config: TrainConfig, model: StableAnimatorConfig) -> list[ClipSource]:
    """The same clips as steps take them: pixels, or encoded ahead.

    Raises:
        InputError: clips of a size that the model cannot take; or they are not encoded, or with other models.
    """
    for bucket in clips:
        width, height = bucket.size
        try:
            check_size(model, width=width, height=height)
        except InputError as e:
            raise InputError(f"the training data has clips of {width}x{height}: {e}") from e
    if not config.data.encoded:
        return list(clips)
    vae, image_encoder = (fingerprint(config.init_from, name) for name in ("vae", "image_encoder"))
    strength = config.objective.noise_augmentation
    return [EncodedClips(c, vae=vae, image_encoder=image_encoder, noise_augmentation=strength) for c in clips]
