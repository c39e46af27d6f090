"""Files of keypoints as each tool documents them, written by the names of the joints."""

import json
from collections.abc import Sequence
from pathlib import Path

import numpy as np

from stableanimator_jax.data.keypoints import Keypoints

# OpenPose's orders: doc/02_output.md of its repository, and POSE_COCO_BODY_PARTS there.
BODY_18 = [
    "Nose", "Neck", "RShoulder", "RElbow", "RWrist", "LShoulder", "LElbow", "LWrist", "RHip", "RKnee", "RAnkle", "LHip",
    "LKnee", "LAnkle", "REye", "LEye", "REar", "LEar",
]  # fmt: skip
FEET = ["LBigToe", "LSmallToe", "LHeel", "RBigToe", "RSmallToe", "RHeel"]
BODY_25 = [*BODY_18[:8], "MidHip", *BODY_18[8:], *FEET]
# COCO-WholeBody's: its annotations' categories, as MMPose's coco_wholebody.py has them.
COCO = [
    "Nose", "LEye", "REye", "LEar", "REar", "LShoulder", "RShoulder", "LElbow", "RElbow", "LWrist", "RWrist", "LHip",
    "RHip", "LKnee", "RKnee", "LAnkle", "RAnkle",
]  # fmt: skip
OURS = [*BODY_18, *FEET]


def dance(frames: int = 3, width: int = 512, height: int = 256, seed: int = 0) -> Keypoints:
    """Somebody who has every joint; places and scores with few digits, so that each way to write them is exact."""
    rng = np.random.default_rng(seed)
    place = rng.integers(1, [width - 1, height - 1], (frames, 134, 2))
    scores = np.round(rng.uniform(0.4, 1, (frames, 134)) * 64) / 64
    points = place.astype(np.float32)
    # The neck as COCO-WholeBody's tools make it.
    points[:, 1] = (points[:, 2] + points[:, 5]) / 2
    scores[:, 1] = 1
    return Keypoints(points, scores.astype(np.float32), width, height, None)


def rows(keypoints: Keypoints) -> np.ndarray:
    return np.concatenate([keypoints.points, keypoints.scores[..., None]], axis=-1)


def person(row: np.ndarray, body: Sequence[str] = BODY_18) -> dict:
    """A person of OpenPose's; its face has the pupils besides."""
    named = dict(zip(OURS, row.tolist(), strict=False)) | {"MidHip": [7.0, 7.0, 0.5]}
    return {
        "person_id": [-1],
        "pose_keypoints_2d": [number for name in body for number in named[name]],
        "face_keypoints_2d": [*row[24:92].ravel().tolist(), 5.0, 5.0, 0.5, 6.0, 6.0, 0.5],
        "hand_left_keypoints_2d": row[92:113].ravel().tolist(),
        "hand_right_keypoints_2d": row[113:].ravel().tolist(),
        "pose_keypoints_3d": [],
    }


def openpose_folder(folder: Path, keypoints: Keypoints, body: Sequence[str] = BODY_18, **canvas: int) -> Path:
    """As `openpose.bin --write_json FOLDER --face --hand` leaves it."""
    folder.mkdir()
    for i, row in enumerate(rows(keypoints)):
        frame = {"version": 1.3, "people": [person(row, body)]} | canvas
        (folder / f"dance_{i:012}_keypoints.json").write_text(json.dumps(frame))
    return folder


def controlnet_frames(keypoints: Keypoints, *, shares: bool = False) -> list[dict]:
    """ComfyUI's POSE_KEYPOINT. Old tools write shares of the picture, new ones pixels; what is not found is null."""
    scale = np.array([keypoints.width, keypoints.height, 1] if shares else [1, 1, 1])
    return [
        {
            "people": [person(row / scale) | {"hand_left_keypoints_2d": None}],
            "canvas_width": keypoints.width,
            "canvas_height": keypoints.height,
        }
        for row in rows(keypoints).astype(np.float64)
    ]


def wholebody(keypoints: Keypoints) -> np.ndarray:
    """`[f, 133, 3]` in COCO-WholeBody's order."""
    named = dict(zip(OURS, np.moveaxis(rows(keypoints), 1, 0), strict=False))
    body = np.stack([named[name] for name in [*COCO, *FEET]], axis=1)
    return np.concatenate([body, rows(keypoints)[:, 24:]], axis=1)


def written(path: Path, data: object) -> Path:
    """As the suffix says: JSON, .npy, or .npz of a dictionary."""
    if path.suffix.lower() == ".json":
        path.write_text(data if isinstance(data, str) else json.dumps(data))
    elif path.suffix == ".npy":
        np.save(path, data)  # pyright: ignore[reportArgumentType]
    else:
        assert isinstance(data, dict)
        np.savez(path, **data)
    return path
