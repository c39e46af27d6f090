"""The drawn world's dataset, in the format that `prepare_data.py videos` writes: drawn first, then the faces embedded.

Each person is one clip, drawn by worker processes into a file of its own, so that a run can be stopped and goes on.
"""

import dataclasses
import json
import multiprocessing
import shutil
from dataclasses import dataclass
from pathlib import Path

import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import Float32, UInt8
from tqdm import tqdm

from stableanimator_jax.data.clip_format import ClipRecord, decode_images, encode_png
from stableanimator_jax.errors import InputError
from stableanimator_jax.models.arcface import ArcFace
from stableanimator_jax.perception.faces import EMBEDDING_DIM
from stableanimator_jax.preparation.dataset_writer import TRAIN, VALIDATION, write_dataset
from stableanimator_jax.preparation.staging import StagedClip, read_clip, write_clip
from stableanimator_jax.sampling.face_crop import crop_boxes
from stableanimator_jax.sampling.models import Model
from stableanimator_jax.weights.blueprints import blueprint
from stableanimator_jax.weights.embedded import open_checkpoint
from tools.drawn_world.clips import TRAIN_SEEDS, VALIDATION_SEEDS, draw_clip, lossless_enough_jpeg, small_skeletons

FPS = 8.0


@dataclass(frozen=True)
class DatasetConfig:
    """The dataset to draw."""

    output: Path = Path("outputs/drawn_world/dataset")
    """Where it goes; drawn clips wait beside it, in OUTPUT.drawn, until all of them are there."""
    people: int = 1400
    """To train on, a clip each."""
    validation: int = 64
    """Others, to validate on."""
    frames: int = 64
    """Of a clip."""
    size: int = 64
    """Of the frames in pixels, a multiple of 64."""
    workers: int = 2
    """Processes that draw."""
    arcface: Path = Path("outputs/drawn_world/arcface")
    """The checkpoint whose ArcFace embeds the faces."""


def draw_people(config: DatasetConfig) -> Path:
    """Draw the clips that are not there yet; gives their folder."""
    folder = config.output.with_name(f"{config.output.name}.drawn")
    folder.mkdir(parents=True, exist_ok=True)
    splits = ((TRAIN, TRAIN_SEEDS, config.people), (VALIDATION, VALIDATION_SEEDS, config.validation))
    tasks = [
        (folder / f"{split}-{i:05}.npz", first + i, config) for split, first, count in splits for i in range(count)
    ]
    missing = [task for task in tasks if not task[0].exists()]
    if missing:
        with multiprocessing.get_context("spawn").Pool(config.workers) as pool:
            for _ in tqdm(pool.imap_unordered(_draw_one, missing), "drawing", len(missing), unit="clip"):
                pass
    return folder


def _draw_one(task: tuple[Path, int, DatasetConfig]) -> None:
    file, seed, config = task
    clip = draw_clip(seed, seed, seed, config.frames, config.size)
    faces = clip.faces
    record = ClipRecord(
        name=file.stem,
        source=f"{file.stem}.mp4",
        first_frame=0,
        fps=FPS,
        frames=[lossless_enough_jpeg(frame) for frame in clip.frames],
        poses=[encode_png(pose) for pose in small_skeletons(clip)],
        points=clip.points,
        scores=clip.scores,
        boxes=faces.boxes,
        landmarks=np.zeros((config.frames, 5, 2), np.float32) if faces.landmarks is None else faces.landmarks,
        valid=faces.valid,
        embeddings=np.zeros((config.frames, EMBEDDING_DIM), np.float32),  # until ArcFace is trained
    )
    temporary = file.with_suffix(".tmp.npz")
    write_clip(temporary, record)
    temporary.rename(file)


def write(config: DatasetConfig) -> None:
    """Embed the faces of the drawn clips and write the dataset.

    Raises:
        InputError: clips are missing, there is no such checkpoint, or the dataset is there already.
    """
    if config.output.exists():
        raise InputError(f"{config.output} is there already; remove it, or name another --output")
    drawn = draw_people(config)
    checkpoint = open_checkpoint(str(config.arcface))
    arcface = checkpoint.load("arcface", blueprint(checkpoint.config, "arcface"))
    bucket = f"{config.size}x{config.size}"
    splits: dict[str, list[StagedClip]] = {TRAIN: [], VALIDATION: []}
    for file in tqdm(sorted(drawn.glob("*-?????.npz")), "embedding", unit="clip"):
        record = read_clip(file)
        if not record.embeddings.any():
            embeddings = embed_faces(arcface, decode_images(record.frames), record.boxes)
            record = dataclasses.replace(record, embeddings=embeddings * record.valid[:, None])
            write_clip(file, record)
        splits[file.stem.rpartition("-")[0]].append(StagedClip(file, record.source, bucket, len(record.frames)))
    unfinished = config.output.with_name(f"{config.output.name}.unfinished")
    shutil.rmtree(unfinished, ignore_errors=True)
    unfinished.mkdir()
    write_dataset(unfinished / bucket, bucket, splits)
    counts = {split: len(clips) for split, clips in splits.items()}
    (unfinished / "dataset.json").write_text(json.dumps({"buckets": {bucket: counts}, "drawn": str(config.people)}))
    unfinished.rename(config.output)


def embed_faces(
    arcface: Model[ArcFace], frames: UInt8[np.ndarray, "f h w 3"], boxes: Float32[np.ndarray, "f 4"]
) -> Float32[np.ndarray, "f 512"]:
    """Raw embeddings of the faces inside boxes (left, top, right, bottom), cropped as the face optimisation does."""
    return np.asarray(_embed(arcface, frames, boxes[:, [1, 3, 0, 2]]))


@jax.jit
def _embed(arcface: Model[ArcFace], frames: jax.Array, boxes: jax.Array) -> jax.Array:
    return arcface.module()(crop_boxes(frames.astype(jnp.float32) / 127.5 - 1, boxes))
