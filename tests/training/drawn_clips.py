"""A small prepared dataset of drawn people: a coloured face and body that move, with their poses and face boxes."""

import json
from pathlib import Path

import cv2
import numpy as np

from stableanimator_jax.data.clip_format import ClipRecord, encode_jpeg, encode_png
from stableanimator_jax.preparation.dataset_writer import TRAIN, VALIDATION, write_dataset
from stableanimator_jax.preparation.staging import StagedClip, write_clip

SIZE = 64
BUCKET = f"{SIZE}x{SIZE}"


def drawn_record(number: int, frames: int, faces: bool = True) -> ClipRecord:
    """One person, of the colours that `number` gives, who goes to and fro."""
    random = np.random.default_rng(number)
    skin, shirt, wall = (tuple(int(c) for c in random.integers(40, 250, 3)) for _ in range(3))
    pictures, poses, boxes = [], [], []
    for i in range(frames):
        x, y = SIZE // 2 + round(14 * np.sin(0.9 * i + number)), 20 + round(4 * np.cos(0.7 * i))
        picture = np.full((SIZE, SIZE, 3), wall, np.uint8)
        pose = np.zeros_like(picture)
        cv2.rectangle(picture, (x - 12, y + 8), (x + 12, SIZE), shirt, -1)
        cv2.circle(picture, (x, y), 10, skin, -1)
        cv2.circle(picture, (x - 4, y - 2), 2, (20, 20, 20), -1)
        cv2.circle(picture, (x + 4, y - 2), 2, (20, 20, 20), -1)
        cv2.line(pose, (x, y), (x, SIZE), (255, 85, 0), 3)
        cv2.circle(pose, (x, y), 4, (255, 0, 0), -1)
        pictures.append(encode_jpeg(picture))
        poses.append(encode_png(pose))
        boxes.append([x - 10, y - 10, x + 10, y + 10])
    return ClipRecord(
        name=f"person {number}",
        source=f"{number}.mp4",
        first_frame=0,
        fps=8.0,
        frames=pictures,
        poses=poses,
        points=np.zeros((frames, 134, 2), np.float32),
        scores=np.zeros((frames, 134), np.float32),
        boxes=np.asarray(boxes, np.float32),
        valid=np.full(frames, faces),
        landmarks=np.zeros((frames, 5, 2), np.float32),
        embeddings=np.tile(random.standard_normal(512).astype(np.float32), (frames, 1)),
    )


def write_drawn_dataset(
    root: Path, *, train: int = 4, validation: int = 2, frames: int = 12, same: bool = False
) -> Path:
    """A dataset of so many people, as `prepare_data.py` leaves it; `same` validates on those that are trained on."""
    root.mkdir()
    numbers = {TRAIN: range(train), VALIDATION: range(validation) if same else range(train, train + validation)}
    splits: dict[str, list[StagedClip]] = {}
    for split, people in numbers.items():
        splits[split] = []
        for number in people:
            record = drawn_record(number, frames)
            file = root / f"{split}{number}.npz"
            write_clip(file, record)
            splits[split].append(StagedClip(file, record.source, BUCKET, frames))
    write_dataset(root / BUCKET, BUCKET, splits)
    for file in root.glob("*.npz"):
        file.unlink()
    (root / "dataset.json").write_text(json.dumps({"buckets": {BUCKET: {k: len(v) for k, v in splits.items()}}}))
    return root
