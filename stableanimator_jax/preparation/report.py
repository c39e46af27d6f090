"""A report on a prepared dataset for people: what went in, what was left out and why, and pictures of both."""

import json
from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

from stableanimator_jax.data.clip_format import ClipRecord, decode_images, encode_jpeg
from stableanimator_jax.opencv import cv2
from stableanimator_jax.perception.preview import overlay
from stableanimator_jax.preparation.filters import REASONS
from stableanimator_jax.preparation.staging import StagedClip, StagedDrop, StagedVideo, read_clip
from stableanimator_jax.preparation.workers import FailedVideo

_SAMPLES = 12
_DROPS_SHOWN = 3  # of each reason
_GREEN = (0, 255, 0)


@dataclass(frozen=True)
class Prepared:
    """Everything that a run made."""

    videos: list[StagedVideo]
    """Those whose clips are in the dataset, in order."""
    failed: list[FailedVideo]
    same: dict[str, str]
    """Videos left out because their content is that of another one, which is named."""
    splits: dict[str, dict[str, list[StagedClip]]]
    """Clips by bucket and split."""
    settings: dict[str, Any]

    def dropped(self) -> list[tuple[StagedVideo, StagedDrop]]:
        """All clips that were left out, each with its video."""
        return [(video, drop) for video in self.videos for drop in video.dropped]

    def notes(self) -> list[str]:
        """What is to be told about videos, a line each."""
        return [f"{video.name} {note}" for video in self.videos for note in video.notes]

    def reason_counts(self) -> dict[str, int]:
        """How many clips were left out for each reason; one with two reasons counts for both."""
        counts = Counter(reason for _, drop in self.dropped() for reason in drop.reasons)
        return {reason: counts[reason] for reason in REASONS if counts[reason]}


def write_report(folder: Path, prepared: Prepared) -> None:
    """Write `report.md` and its pictures, `images/*.jpg`, into a folder."""
    images = folder / "images"
    images.mkdir()
    parts = [_summary(prepared), _drops(prepared, images), _failures(prepared), _samples(prepared, images)]
    settings = json.dumps(prepared.settings, indent=1, sort_keys=True)
    parts.append(f"## Settings\n\n```json\n{settings}\n```")
    text = "# Prepared training data\n\n" + "\n\n".join(part for part in parts if part) + "\n"
    (folder / "report.md").write_text(text, encoding="utf-8")


def _summary(prepared: Prepared) -> str:
    lines = ["| bucket | split | videos | clips | frames |", "|---|---|---|---|---|"]
    video_of = {clip.name: video.name for video in prepared.videos for clip in video.clips}
    for bucket, splits in prepared.splits.items():
        for split, clips in splits.items():
            videos = len({video_of[clip.name] for clip in clips})
            lines.append(f"| {bucket} | {split} | {videos} | {len(clips)} | {sum(c.frames for c in clips)} |")
    kept = sum(len(video.clips) for video in prepared.videos)
    total = len(prepared.videos) + len(prepared.failed) + len(prepared.same)
    empty = sum(not video.clips for video in prepared.videos)
    return (
        f"Videos that went in: {total}. Without any clip: {empty}. Could not be read: {len(prepared.failed)}. "
        f"There twice: {len(prepared.same)}.\nClips kept: {kept}. Left out: {len(prepared.dropped())}."
        "\n\n" + "\n".join(lines)
    )


def _drops(prepared: Prepared, images: Path) -> str:
    if not prepared.dropped():
        return ""
    text = [
        "## Left out",
        "",
        "A clip with several reasons counts for each. Boxes: people blue, faces green. Limits are --filters.NAME.",
        "",
        "| reason | clips |",
        "|---|---|",
    ]
    text += [f"| {reason} | {count} |" for reason, count in prepared.reason_counts().items()]
    for number, reason in enumerate(prepared.reason_counts()):
        text += ["", f"### {reason}"]
        drops = [(video, drop) for video, drop in prepared.dropped() if reason in drop.reasons]
        for k, (video, drop) in enumerate(_spread(drops, _DROPS_SHOWN)):
            name = f"dropped-{number}-{k}.jpg"
            (images / name).write_bytes(drop.picture.read_bytes())
            text += ["", f"![{_plain(video.name)}](images/{name})", ""]
            text.append(
                f"{_plain(video.name)}, {drop.frames} frames from {drop.first_frame}{_measured(drop, prepared)}"
            )
    return "\n".join(text).rstrip()


def _measured(drop: StagedDrop, prepared: Prepared) -> str:
    if drop.measures is None:
        return f"; --min-frames is {prepared.settings['clips']['min_frames']}"
    limits = prepared.settings["filters"]
    measured = {name: value for name, value in drop.measures.items() if value is not None}
    return ": " + ", ".join(f"{name} {value:.3g} (limit {limits[name]:g})" for name, value in measured.items())


def _failures(prepared: Prepared) -> str:
    text = []
    if prepared.failed:
        text += ["## Could not be read", "", *(f"- {_plain(f.name)}: {_plain(f.why)}" for f in prepared.failed)]
    if prepared.same:
        text += ["", "## There twice", ""]
        text += [f"- {_plain(name)} is the same as {_plain(other)}" for name, other in prepared.same.items()]
    if notes := prepared.notes():
        text += ["", "## To be known", "", *(f"- {_plain(note)}" for note in notes)]
    return "\n".join(text).strip()


def _samples(prepared: Prepared, images: Path) -> str:
    clips = [clip for splits in prepared.splits.values() for part in splits.values() for clip in part]
    text = ["## Samples", "", "The middle frame with its skeleton and the box of the person's face."]
    for k, clip in enumerate(_spread(clips, _SAMPLES)):
        (images / f"sample-{k}.jpg").write_bytes(encode_jpeg(sample_picture(read_clip(clip.file))))
        text += ["", f"![{_plain(clip.name)}](images/sample-{k}.jpg)", "", f"{_plain(clip.name)}, {clip.frames} frames"]
    return "\n".join(text)


def sample_picture(record: ClipRecord) -> np.ndarray:
    """The middle frame of a clip `[h, w, 3]` with what is known about it drawn over it."""
    middle = len(record.frames) // 2
    picture = overlay(decode_images([record.frames[middle]])[0], decode_images([record.poses[middle]])[0])
    if record.valid[middle]:
        left, top, right, bottom = (int(v) for v in record.boxes[middle])
        picture = cv2.rectangle(picture, (left, top), (right, bottom), _GREEN, 2)
    return np.asarray(picture, np.uint8)


def _spread(items: Sequence[Any], most: int) -> list[Any]:
    """Up to `most` of them, evenly from first to last."""
    count = min(len(items), most)
    return [items[i * len(items) // count] for i in range(count)]


def _plain(text: str) -> str:
    """Text in which Markdown sees nothing of its own."""
    return "".join(f"\\{c}" if c in "\\`*_[]<>|#" else c for c in text)
