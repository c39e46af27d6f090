"""The drawn world's dataset, in the format that `prepare_data.py videos` writes: drawn first, then the faces embedded.

Each person is one clip, drawn by worker processes into a file of its own, so that a run can be stopped and goes on.
"""

import dataclasses
import json
import multiprocessing
import shutil
import signal
from dataclasses import dataclass
from pathlib import Path
from typing import NamedTuple

import jax
import numpy as np
from jaxtyping import Float32, UInt8
from tqdm import tqdm

from examples.drawn_world.clips import (
    TRAIN_SEEDS,
    VALIDATION_SEEDS,
    draw_frames,
    lossless_enough_jpeg,
    small_skeletons,
)
from examples.drawn_world.settings import claim, require_counts
from stableanimator_jax.data.clip_format import ClipRecord, bucket_size, decode_images, encode_png
from stableanimator_jax.data.prepared import DATASET_FILE
from stableanimator_jax.errors import InputError
from stableanimator_jax.files import replacing, replacing_directory
from stableanimator_jax.interrupts import check_interrupted
from stableanimator_jax.models.arcface import ArcFace
from stableanimator_jax.models.catalogue import blueprint
from stableanimator_jax.models.functional import Model
from stableanimator_jax.perception.faces import EMBEDDING_DIM
from stableanimator_jax.preparation.dataset_writer import TRAIN, VALIDATION, write_dataset
from stableanimator_jax.preparation.staging import StagedClip, read_clip, write_clip
from stableanimator_jax.sampling.face_crop import crop_boxes
from stableanimator_jax.training.latents import pixels
from stableanimator_jax.weights.checkpoint import require_models
from stableanimator_jax.weights.fingerprint import fingerprint
from stableanimator_jax.weights.opening import open_checkpoint

FPS = 8.0


@dataclass(frozen=True)
class DatasetConfig:
    """The dataset to draw."""

    output: Path = Path("outputs/drawn_world/dataset")
    """Where it goes; drawn clips wait beside it, in OUTPUT.drawn, until all of them are there."""
    people: int = 1400
    """To train on, a clip each."""
    first_person: int = 0
    """The first one's number: others than those of another dataset."""
    validation: int = 64
    """Others, to validate on."""
    frames: int = 64
    """Of a clip."""
    stride: int = 1
    """Frames of the motion from one of them to the next."""
    size: int = 64
    """Of the frames in pixels, a multiple of 64."""
    workers: int = 2
    """Processes that draw."""
    arcface: str = "outputs/drawn_world/arcface"
    """The checkpoint whose ArcFace embeds the faces: a directory, or "embedded"."""

    def __post_init__(self):
        require_counts(self)
        bucket_size(self.bucket)

    @property
    def bucket(self) -> str:
        return f"{self.size}x{self.size}"


class _Task(NamedTuple):
    """A clip to draw."""

    split: str
    file: Path
    seed: int
    frames: int
    stride: int
    size: int


def draw_people(config: DatasetConfig) -> list[_Task]:
    """Draw the clips that are not there yet; gives all of them."""
    folder = _waiting(config)
    claim(folder, _what(config))
    train = TRAIN_SEEDS + config.first_person
    splits = ((TRAIN, train, config.people), (VALIDATION, VALIDATION_SEEDS, config.validation))
    tasks = [
        _Task(split, folder / f"{split}-{i:05}.npz", first + i, config.frames, config.stride, config.size)
        for split, first, count in splits
        for i in range(count)
    ]
    if missing := [task for task in tasks if not task.file.exists()]:
        deaf = signal.signal, (signal.SIGINT, signal.SIG_IGN)  # Ctrl-C is for this process, which ends the others
        with multiprocessing.get_context("spawn").Pool(config.workers, *deaf) as pool:
            for _ in tqdm(pool.imap_unordered(_draw_one, missing), "drawing", len(missing), unit="clip"):
                check_interrupted()
    return tasks


def _what(config: DatasetConfig) -> dict[str, int]:
    """What a clip that is drawn already must have been drawn as."""
    return {name: getattr(config, name) for name in ("first_person", "frames", "stride", "size")}


def _waiting(config: DatasetConfig) -> Path:
    return config.output.with_name(f"{config.output.name}.drawn")


def _draw_one(task: _Task) -> None:
    moments = range(0, task.frames * task.stride, task.stride)
    clip = draw_frames(task.seed, task.seed, task.seed, moments, task.size)
    faces = clip.faces
    assert faces.landmarks is not None  # keypoints give them
    record = ClipRecord(
        name=task.file.stem,
        source=f"{task.file.stem}.mp4",
        first_frame=0,
        fps=FPS,
        frames=[lossless_enough_jpeg(frame) for frame in clip.frames],
        poses=[encode_png(pose) for pose in small_skeletons(clip)],
        points=clip.points,
        scores=clip.scores,
        boxes=faces.boxes,
        landmarks=faces.landmarks,
        valid=faces.valid,
        embeddings=np.zeros((task.frames, EMBEDDING_DIM), np.float32),  # until `write`
    )
    with replacing(task.file) as file:
        write_clip(file, record)


def write(config: DatasetConfig) -> None:
    """Embed the faces of the drawn clips and write the dataset.

    Raises:
        InputError: there is no such checkpoint, the dataset is there already, or cannot be written.
    """
    if config.output.exists():
        raise InputError(f"{config.output} is there already; remove it, or name another --output")
    checkpoint = open_checkpoint(config.arcface)
    require_models(checkpoint.path, ["arcface"])
    arcface = checkpoint.load("arcface", blueprint(checkpoint.config, "arcface"))
    judge = fingerprint(config.arcface, "arcface")
    splits: dict[str, list[StagedClip]] = {TRAIN: [], VALIDATION: []}
    for task in tqdm(draw_people(config), "embedding", unit="clip"):
        check_interrupted()
        embedded = task.file.with_name(f"{task.file.stem}.{judge[:16]}.npz")  # another ArcFace's are others
        if not embedded.exists():
            record = read_clip(task.file)
            found = embed_faces(arcface, decode_images(record.frames), record.boxes) * record.valid[:, None]
            with replacing(embedded) as file:
                write_clip(file, dataclasses.replace(record, embeddings=found))
        splits[task.split].append(StagedClip(embedded, task.file.stem, config.bucket, task.frames))
    drawn = _what(config) | {"arcface": judge}
    counts = {split: len(clips) for split, clips in splits.items()}
    with replacing_directory(config.output) as made:
        write_dataset(made / config.bucket, config.bucket, splits)
        (made / DATASET_FILE).write_text(json.dumps({"buckets": {config.bucket: counts}, "drawn": drawn}, indent=1))
    shutil.rmtree(_waiting(config))
    print(f"{config.output}: " + ", ".join(f"{count} clips in {split}" for split, count in counts.items()))


def embed_faces(
    arcface: Model[ArcFace], frames: UInt8[np.ndarray, "f h w 3"], boxes: Float32[np.ndarray, "f 4"]
) -> Float32[np.ndarray, "f 512"]:
    """Raw embeddings of the faces inside boxes (left, top, right, bottom), cropped as the face optimisation does."""
    return np.asarray(_embed(arcface, frames, boxes))


@jax.jit
def _embed(arcface: Model[ArcFace], frames: jax.Array, boxes: jax.Array) -> jax.Array:
    return arcface.module()(crop_boxes(pixels(frames), boxes))
