"""Each video's clips on disk until the dataset is written: whole or not at all, found again by content and settings.

A staged video is a folder, named by a hash of all that decides what is in it: `result.json`, and for each clip
`clip-N.npz`, for each dropped one `dropped-N.jpg`. It is written under another name and renamed when done, so a run
that is killed leaves nothing that looks finished, and the next one goes on after what is.
"""

import dataclasses
import hashlib
import json
import shutil
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

from stableanimator_jax.config import read_json
from stableanimator_jax.data.clip_format import FIELDS, ClipRecord
from stableanimator_jax.errors import InputError, reason_of
from stableanimator_jax.files import neighbour
from stableanimator_jax.preparation.config import ClipConfig
from stableanimator_jax.preparation.filters import FilterConfig
from stableanimator_jax.preparation.perceiving import Perceive
from stableanimator_jax.preparation.sources import Source, content_hash
from stableanimator_jax.preparation.videos import KeptClip, prepare_video

_VERSION = 3  # of what is staged; a change in the code that changes clips must raise it
_IMAGES = ("frames", "poses")


class StagingError(InputError):
    """The work folder cannot be written to: no other video can be staged either."""


@dataclass(frozen=True)
class StagedClip:
    """A clip that is kept."""

    file: Path
    """Of its record; see `read_clip`."""
    name: str
    bucket: str
    frames: int


@dataclass(frozen=True)
class StagedDrop:
    """A clip that is left out."""

    picture: Path
    first_frame: int
    frames: int
    reasons: list[str]
    measures: dict[str, float | None] | None


@dataclass(frozen=True)
class StagedVideo:
    """What became of one video."""

    place: Path
    """Its folder."""
    name: str
    content: str
    """SHA-256 of what was read."""
    clips: list[StagedClip]
    dropped: list[StagedDrop]
    notes: list[str]
    """What is to be told about it."""


@dataclass(frozen=True)
class Staging:
    """Where and how videos are staged; small and picklable, for worker processes."""

    folder: Path
    clips: ClipConfig
    filters: FilterConfig
    models: dict[str, str]
    """Hashes of the model files."""

    def settings_hash(self) -> str:
        """Of all settings that decide which clips a video gives."""
        settings = {
            "version": _VERSION,
            "clips": dataclasses.asdict(self.clips),
            "filters": dataclasses.asdict(self.filters),
            "models": self.models,
        }
        return hashlib.sha256(json.dumps(settings, sort_keys=True).encode()).hexdigest()

    def stage(self, source: Source, perceive: Perceive) -> StagedVideo:
        """Prepare a video, unless it is staged already.

        Raises:
            InputError: as `prepare_video`.
            StagingError: the work folder cannot be written to.
        """
        content = content_hash(source)
        key = hashlib.sha256(f"{self.settings_hash()}\n{source.name}\n{content}".encode()).hexdigest()[:32]
        place = self.folder / key
        if not place.exists():
            temporary = neighbour(place)
            try:
                temporary.mkdir(parents=True)
                result = self._prepare(source, content, perceive, temporary)
                (temporary / "result.json").write_text(json.dumps(result, indent=1, sort_keys=True), encoding="utf-8")
                _put_in_place(temporary, place)
            except OSError as e:
                raise StagingError(f"cannot write work folder {self.folder}: {reason_of(e)}") from e
            finally:
                shutil.rmtree(temporary, ignore_errors=True)
        return read_staged(place)

    def _prepare(self, source: Source, content: str, perceive: Perceive, folder: Path) -> dict[str, Any]:
        kept: list[dict[str, Any]] = []
        dropped: list[dict[str, Any]] = []
        notes: list[str] = []
        for clip in prepare_video(source, self.clips, self.filters, perceive):
            if isinstance(clip, str):
                notes.append(clip)
            elif isinstance(clip, KeptClip):
                file, record = f"clip-{len(kept)}.npz", clip.record
                write_clip(folder / file, record)
                kept.append({"file": file, "name": record.name, "bucket": clip.bucket, "frames": len(record.frames)})
            else:
                file = f"dropped-{len(dropped)}.jpg"
                (folder / file).write_bytes(clip.picture)
                dropped.append(dataclasses.asdict(clip) | {"picture": file})
        return {"name": source.name, "content": content, "clips": kept, "dropped": dropped, "notes": notes}


def _put_in_place(temporary: Path, place: Path) -> None:
    try:
        temporary.rename(place)
    except OSError:
        if not place.exists():  # where it does, another worker was faster with the same video
            raise


def read_staged(place: Path) -> StagedVideo:
    """What a staged video's folder holds."""
    result = read_json(place / "result.json")
    return StagedVideo(
        place=place,
        name=result["name"],
        content=result["content"],
        clips=[StagedClip(**{**entry, "file": place / entry["file"]}) for entry in result["clips"]],
        dropped=[StagedDrop(**{**entry, "picture": place / entry["picture"]}) for entry in result["dropped"]],
        notes=result["notes"],
    )


def write_clip(file: Path, record: ClipRecord) -> None:
    """Keep a record as an `.npz` file.

    Images of different lengths go one after the other into one array, with another of where each ends.
    """
    arrays: dict[str, Any] = {name: getattr(record, name) for name in FIELDS if name not in _IMAGES}
    for name in _IMAGES:
        images = getattr(record, name)
        arrays[name] = np.frombuffer(b"".join(images), np.uint8)
        arrays[f"{name}_ends"] = np.cumsum([len(image) for image in images])
    with file.open("wb") as stream:  # or NumPy would give the file another name
        np.savez(stream, **arrays)


def read_clip(file: Path) -> ClipRecord:
    """A staged clip's record."""
    with np.load(file, allow_pickle=False) as arrays:
        fields: dict[str, Any] = {name: arrays[name] for name in FIELDS}
        for name in _IMAGES:
            fields[name] = [image.tobytes() for image in np.split(fields[name], arrays[f"{name}_ends"][:-1])]
    plain = {name: fields[name].item() for name in ("name", "source", "first_frame", "fps")}
    return ClipRecord(**{**fields, **plain})
