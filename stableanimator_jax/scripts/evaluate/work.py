"""What is kept of an evaluation while it runs: of each video its measures, its features and a picture.

From it an interrupted run goes on, and the results of several runs are put together. Only one video's features are in
memory at a time.
"""

import contextlib
import hashlib
import json
import re
import zipfile
from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np

from stableanimator_jax.config import read_json
from stableanimator_jax.errors import InputError, as_input_error
from stableanimator_jax.evaluation.measures import Measured
from stableanimator_jax.evaluation.totals import Totals
from stableanimator_jax.files import replacing
from stableanimator_jax.locking import alone_in

_FORMAT = "stableanimator-jax evaluation, work"
_NAME = "evaluation.json"


@dataclass(frozen=True)
class Evaluation:
    """What all videos of one evaluation share. Another one's measures cannot stand beside them."""

    protocol: dict[str, str]
    """Its choices, in words."""
    weights: dict[str, str]
    """SHA-256 by network."""
    sampled: dict[str, Any] | None
    """Checkpoint, dataset and settings of videos that are made here; None of those that were there."""
    settings: dict[str, Any]
    """What else changes what is measured."""

    def differences(self, other: "Evaluation") -> list[str]:
        """What differs, by name."""
        if self.protocol["protocol"] != other.protocol["protocol"]:
            return ["protocol"]
        names = []
        for part in ("protocol", "weights", "sampled", "settings"):
            ours, theirs = getattr(self, part) or {}, getattr(other, part) or {}
            names += [f"{part}: {k}" for k in sorted({*ours, *theirs}) if ours.get(k) != theirs.get(k)]
        return names


@dataclass
class Found:
    """What an evaluation found, of all its videos."""

    videos: list[Measured] = field(default_factory=list)
    """In the order of their names, without features."""
    totals: Totals = field(default_factory=Totals)
    failed: dict[str, str] = field(default_factory=dict)
    """Names of those that could not be measured, and why."""
    suspicions: dict[str, list[str]] = field(default_factory=dict)
    """What looks like a mistake in a video, by its name."""
    pictures: dict[str, Path] = field(default_factory=dict)
    """By name."""
    notes: list[str] = field(default_factory=list)


class Work:
    """The folder `work` in a result's."""

    def __init__(self, folder: Path):
        self.folder = folder

    @contextlib.contextmanager
    def begun(self, evaluation: Evaluation, shard: str, *, resume: bool) -> Iterator[None]:
        """Within the block no other run is in it.

        Raises:
            InputError: another run is; something is there and `resume` is not; or it is of another evaluation.
        """
        with alone_in(self.folder):
            if (self.folder / _NAME).is_file():
                if not resume:
                    raise InputError(
                        f"{self.folder.parent} has an evaluation already: go on with it by --resume, or name another "
                        "--output"
                    )
                then, shard_then, *_ = self.read()
                differing = evaluation.differences(then) + ["shard"] * (shard != shard_then)
                if differing:
                    raise InputError(
                        f"--resume: {self.folder.parent} was begun with other settings ({', '.join(differing[:5])}): "
                        "make them so, or name another --output"
                    )
            self._write(_NAME, {"format": _FORMAT, "shard": shard, **vars(evaluation)})
            yield

    def expect(self, names: Iterable[str], notes: list[str]) -> None:
        """Note which videos the evaluation is of, those of other shards too, and what has to be known of all."""
        evaluation, shard, *_ = self.read()
        data = {"format": _FORMAT, "shard": shard, **vars(evaluation), "names": sorted(names), "notes": notes}
        self._write(_NAME, data)

    def read(self) -> tuple[Evaluation, str, list[str], list[str]]:
        """The evaluation, its shard, all its videos' names, and notes. Raises `InputError` where there is none."""
        path = self.folder / _NAME
        if not path.is_file():
            raise InputError(f"{self.folder.parent} holds no evaluation: there is no work/{_NAME} in it")
        data = read_json(path)
        try:
            if data["format"] != _FORMAT:
                raise KeyError(data["format"])
            parts = {name: data[name] for name in ("protocol", "weights", "sampled", "settings")}
            return Evaluation(**parts), str(data["shard"]), list(data.get("names", [])), list(data.get("notes", []))
        except (KeyError, TypeError) as e:
            raise InputError(f"{path} is not what an evaluation writes") from e

    def has(self, name: str, state: Mapping[str, Any]) -> bool:
        """Whether a video was measured as it is now."""
        try:
            record = self._record(name)
        except InputError:
            return False  # damaged: measured anew
        if record is None or record.get("state") != json.loads(json.dumps(state)) or "failed" in record:
            return False
        return zipfile.is_zipfile(self.folder / f"{safe_name(name)}.npz")  # else damaged too

    def keep(
        self, measured: Measured, state: Mapping[str, Any], suspicions: list[str], picture: bytes | None = None
    ) -> None:
        """Keep what was measured of a video; the record last, by which it counts."""
        stem = safe_name(measured.name)
        with (
            as_input_error(f"cannot write {self.folder}"),
            replacing(self.folder / f"{stem}.npz") as path,
            path.open("wb") as file,
        ):
            np.savez(file, allow_pickle=False, **measured.features)
        if picture is not None:
            with replacing(self.folder / f"{stem}.jpg") as path:
                path.write_bytes(picture)
        record = {"name": measured.name, "state": state, "measured": measured.plain(), "suspicions": suspicions}
        self._write(f"{stem}.json", record)

    def fail(self, name: str, state: Mapping[str, Any], reason: str) -> None:
        """Keep why a video could not be measured; it is tried again by the next run."""
        self._write(f"{safe_name(name)}.json", {"name": name, "state": state, "failed": reason})

    def add_to(self, found: Found, name: str, number: int) -> bool:
        """Add what is kept of a video; False where nothing is. Raises `InputError` where that is damaged.

        Args:
            found: what is added to.
            name: the video's.
            number: in the sorted list of all videos.
        """
        record = self._record(name)
        if record is None:
            return False
        if "failed" in record:
            found.failed[name] = record["failed"]
            return True
        path = self.folder / f"{safe_name(name)}.npz"
        with as_input_error(f"cannot read {path}", ValueError, EOFError, zipfile.BadZipFile), np.load(path) as file:
            found.totals.add(number, dict(file))
        found.videos.append(Measured.of_plain(record["measured"]))
        if record["suspicions"]:
            found.suspicions[name] = record["suspicions"]
        if (picture := path.with_suffix(".jpg")).is_file():
            found.pictures[name] = picture
        return True

    def _record(self, name: str) -> dict[str, Any] | None:
        path = self.folder / f"{safe_name(name)}.json"
        if not path.is_file():
            return None
        record = read_json(path)
        if not isinstance(record, dict) or not {"failed", "measured"} & record.keys():
            raise InputError(f"{path} is not what an evaluation writes")
        return record

    def _write(self, name: str, data: Any) -> None:
        with replacing(self.folder / name) as path:
            path.write_text(json.dumps(data, indent=1, allow_nan=False) + "\n", encoding="utf-8")


def safe_name(name: str) -> str:
    """A file's name for a video's, unlike that of any other video."""
    plain = re.sub(r"[^A-Za-z0-9._-]+", "_", name)[:60].strip(".") or "video"
    return f"{plain}-{hashlib.sha256(name.encode('utf-8', 'surrogateescape')).hexdigest()[:8]}"
