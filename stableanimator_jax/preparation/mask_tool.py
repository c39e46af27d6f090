"""Face masks and embeddings for folders of frames, as the published training data has them."""

import os
from collections.abc import Iterator
from contextlib import nullcontext
from dataclasses import dataclass
from pathlib import Path

import numpy as np
from PIL import Image
from tqdm import tqdm

from stableanimator_jax.commands import called
from stableanimator_jax.config import EMBEDDING_DIM
from stableanimator_jax.data.face_track import Face
from stableanimator_jax.data.images import load_image
from stableanimator_jax.data.numbered import numbered_frames
from stableanimator_jax.errors import InputError
from stableanimator_jax.files import is_directory, replacing, replacing_directory
from stableanimator_jax.perception.faces import FaceAnalyser
from stableanimator_jax.preparation.config import FacesConfig

MASKS, EMBEDDINGS = "faces", "embeddings.npy"


@dataclass(frozen=True)
class MaskedFolder:
    """What became of one folder."""

    folder: Path
    frames: int
    with_face: int
    written: list[str]
    """"faces", "embeddings.npy", both or none."""
    why: str | None = None
    """Why it could not be done."""


def mask_folders(config: FacesConfig) -> list[MaskedFolder]:
    """Write `faces/frame_i.png` and `embeddings.npy` for every folder that lacks them.

    A mask is black with the box of every face filled white, or white all over where there is no face, as in the
    published data. `embeddings.npy` is `[frames, 512]`: ArcFace's raw embedding of the largest face, zeros where
    there is none. What cannot be read is told in its place.

    Raises:
        InputError: no input, no frames in it, or models that are missing or wrong.
    """
    if config.input is None:
        raise InputError(f"give the folder: {called('prepare')} faces FOLDER --insightface-root DIR")
    if config.insightface_root is None:
        raise InputError("give --insightface-root DIR, the folder with InsightFace's models")
    folders = list(_folders(config.input.expanduser()))
    analyser = FaceAnalyser(config.insightface_root, config.insightface_name)
    results = []
    for folder, images in tqdm(folders, desc="faces", unit="folder", disable=len(folders) < 2):
        try:
            results.append(_mask_folder(folder, images, analyser, config.overwrite))
        except InputError as e:
            results.append(MaskedFolder(folder, 0, 0, [], str(e)))
    return results


def mask(faces: list[Face], width: int, height: int) -> np.ndarray:
    """uint8 `[h, w]`, 255 inside the faces' boxes; all 255 where there is none inside of the image."""
    image = np.zeros((height, width), np.uint8)
    for face in faces:
        left, top, right, bottom = np.maximum(np.round(face.box).astype(int), 0)
        image[top : bottom + 1, left : right + 1] = 255
    return image if image.any() else np.full_like(image, 255)


def _folders(root: Path) -> Iterator[tuple[Path, Path]]:
    """Each folder that gets masks, and the one in it (or itself) that has the frames."""
    if not is_directory(root):
        raise InputError(f"input {root} is not a folder" if root.exists() else f"input {root} does not exist")
    found = False
    for place, folders, _ in os.walk(root):
        if "images" in folders:
            found = True
            yield Path(place), Path(place) / "images"
        folders[:] = sorted(f for f in folders if f not in ("images", "poses", "faces") and not f.startswith("."))
    if not found:
        numbered_frames(root, "frames")  # says what is missing
        yield root, root


def _mask_folder(folder: Path, images: Path, analyser: FaceAnalyser, overwrite: bool) -> MaskedFolder:
    masks, embeddings = folder / MASKS, folder / EMBEDDINGS
    wanted = [path.name for path in (masks, embeddings) if overwrite or not path.exists()]
    files = list(numbered_frames(images, "frames").values())
    ours = {f"{path.stem}.png" for path in files}
    if MASKS in wanted and masks.is_dir() and (others := {p.name for p in masks.iterdir()} - ours):
        raise InputError(f"will not replace {masks}: {min(others)} in it is no frame's mask; move it away")
    if not wanted:
        return MaskedFolder(folder, len(files), 0, [])
    rows = np.zeros((len(files), EMBEDDING_DIM), np.float32)
    label = f"into {folder}"
    with replacing_directory(masks, overwrite=overwrite, label=label) if MASKS in wanted else nullcontext() as made:
        for i, path in enumerate(tqdm(files, desc=folder.name, unit="frame", leave=False)):
            frame = load_image(path, what="frame")
            found = analyser.detections(frame)
            if made is not None:
                Image.fromarray(mask(found, frame.shape[1], frame.shape[0])).save(made / f"{path.stem}.png")
            if found:
                rows[i] = analyser.identify(frame, found[0]).embedding
        if EMBEDDINGS in wanted:
            with replacing(embeddings) as file, file.open("wb") as stream:
                np.save(stream, rows)
    return MaskedFolder(folder, len(files), int(rows.any(axis=1).sum()), wanted)
