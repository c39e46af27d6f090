"""One video to training clips: decoded once, cut into shots, resized, looked at, judged, encoded.

Memory does not grow with a video's length: a few frames are held as pixels, and those of one clip encoded.
"""

from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass
from itertools import islice
from typing import NamedTuple

import numpy as np
from jaxtyping import Bool, UInt8

from stableanimator_jax.config import EMBEDDING_DIM
from stableanimator_jax.data.clip_format import ClipRecord, bucket_size, decode_images, encode_jpeg, encode_png
from stableanimator_jax.data.face_track import Face, FaceTrack
from stableanimator_jax.data.images import fit
from stableanimator_jax.data.keypoints import POINTS
from stableanimator_jax.opencv import cv2
from stableanimator_jax.perception.person_choice import face_of
from stableanimator_jax.perception.scenes import CutDetector, thumbnail
from stableanimator_jax.perception.skeleton import draw_skeletons
from stableanimator_jax.perception.tracking import Track, follow
from stableanimator_jax.preparation.config import ClipConfig, nearest_bucket
from stableanimator_jax.preparation.filters import (
    TOO_SHORT,
    FilterConfig,
    Measures,
    frame_sharpness,
    judge,
    measure,
    people_mask,
)
from stableanimator_jax.preparation.perceiving import Perceive, Seen
from stableanimator_jax.preparation.sources import OpenSource, Source, SourceFrame, open_source

_BATCH = 16  # frames that are held as pixels and looked at together
_USUAL_FPS = 25.0  # of folders of frames, which do not tell theirs
_BLUE, _GREEN = (0, 0, 255), (0, 255, 0)


@dataclass(frozen=True)
class KeptClip:
    """A clip for the dataset."""

    bucket: str
    record: ClipRecord


@dataclass(frozen=True)
class DroppedClip:
    """A shot, or a part of one, that is left out."""

    first_frame: int
    frames: int
    reasons: list[str]
    measures: Measures | None
    """None where it was too short to be judged."""
    picture: bytes
    """JPEG: the middle frame with boxes of all people (blue) and faces (green) that were found in it."""


class _Frame(NamedTuple):
    number: int
    jpeg: bytes
    pose: bytes | None
    seen: Seen
    sharpness: float
    small: UInt8[np.ndarray, "64 64 3"]


def prepare_video(
    source: Source, clips: ClipConfig, filters: FilterConfig, perceive: Perceive
) -> Iterator[KeptClip | DroppedClip | str]:
    """The clips of one video or published-layout folder, in order, the dropped ones too; first what is to be told.

    `perceive` is asked only for what the source has not got already.

    Raises:
        InputError: the source cannot be read, or what it lacks cannot be found without a model.
    """
    with open_source(source, clips.fps) as opened:
        if opened.fps_note:
            yield opened.fps_note
        bucket = nearest_bucket(opened.width, opened.height, clips.buckets)
        size = bucket_size(bucket)
        track = opened.track and opened.track.fitted((opened.width, opened.height), *size, "crop")
        shots = _shots(_look(opened, size, perceive), clips.cut)
        for frames in _in_lengths(shots, clips.min_frames, clips.max_frames):
            if len(frames) < clips.min_frames:
                yield _dropped(frames, [TOO_SHORT], None)
                continue
            maker = _ClipMaker(source, opened, size, track, frames)
            measures = maker.measures()
            if reasons := judge(measures, filters):
                yield _dropped(frames, reasons, measures)
            else:
                yield KeptClip(bucket, maker.record())


def _look(opened: OpenSource, size: tuple[int, int], perceive: Perceive) -> Iterator[_Frame]:
    """Every frame, resized, looked at and encoded."""
    needs_faces = opened.embeddings is None or opened.track is None
    fitted = (
        SourceFrame(
            fit(frame.image, *size, "crop", filter="lanczos"),
            None if frame.pose is None else fit(frame.pose, *size, "crop", filter="bicubic"),
        )
        for frame in opened.frames
    )
    number = 0
    while batch := list(islice(fitted, _BATCH)):
        images = [frame.image for frame in batch]
        everything = perceive(images, people=not opened.has_poses, faces=needs_faces)
        for frame, seen in zip(batch, everything, strict=True):
            pose = None if frame.pose is None else encode_png(frame.pose)
            jpeg = encode_jpeg(frame.image)
            yield _Frame(number, jpeg, pose, seen, frame_sharpness(frame.image), thumbnail(frame.image))
            number += 1


def _shots(frames: Iterable[_Frame], threshold: float) -> Iterator[tuple[bool, _Frame]]:
    """Each frame with whether it begins a new shot."""
    detector = CutDetector(threshold)
    return ((detector.is_cut(frame.small), frame) for frame in frames)


def _in_lengths(shots: Iterable[tuple[bool, _Frame]], shortest: int, longest: int) -> Iterator[list[_Frame]]:
    """Whole shots, or parts of `longest` frames of long ones; no part is too short unless its shot is."""
    held: list[_Frame] = []
    for is_cut, frame in shots:
        if is_cut:
            yield from _halves(held, longest)
            held = []
        held.append(frame)
        if len(held) == longest + shortest:
            yield held[:longest]
            held = held[longest:]
    if held:
        yield from _halves(held, longest)


def _halves(frames: list[_Frame], longest: int) -> list[list[_Frame]]:
    if len(frames) <= longest:
        return [frames]
    middle = (len(frames) + 1) // 2
    return [frames[:middle], frames[middle:]]


class _ClipMaker:
    """One clip's frames, and what is known about the people in them."""

    def __init__(
        self,
        source: Source,
        opened: OpenSource,
        size: tuple[int, int],
        given: FaceTrack | None,
        frames: Sequence[_Frame],
    ):
        self._source, self._fps, self._size, self._frames = source, opened.fps, size, frames
        self._people = [frame.seen.people for frame in frames if frame.seen.people is not None]
        self._person: Track | None = None if opened.has_poses else follow(self._people, fps=opened.fps or _USUAL_FPS)
        mine = _faces_of(self._person, [frame.seen.faces for frame in frames])
        rows = slice(frames[0].number, frames[-1].number + 1)
        self._faces = FaceTrack.of(mine, size) if given is None else given[rows]
        if opened.embeddings is None:
            self._embeddings = np.stack([_embedding(face) for face in mine])
        else:
            self._embeddings = opened.embeddings[rows]

    def measures(self) -> Measures:
        # Where the masks were given, they say nothing of how many faces there are.
        counts = [max(len(f.seen.faces), int(valid)) for f, valid in zip(self._frames, self._faces.valid, strict=True)]
        return measure(
            track=self._person,
            faces=np.array(counts, np.int64),
            sharpness=np.array([frame.sharpness for frame in self._frames]),
            smalls=np.stack([frame.small for frame in self._frames]),
            people=self._people_masks(),
        )

    def _people_masks(self) -> Bool[np.ndarray, "f 64 64"] | None:
        if self._person is None:
            return None
        return np.stack([people_mask(people.boxes, self._size) for people in self._people])

    def record(self) -> ClipRecord:
        count, first = len(self._frames), self._frames[0].number
        points = np.zeros((count, POINTS, 2), np.float32)
        scores = np.zeros((count, POINTS), np.float32)
        poses = [frame.pose for frame in self._frames if frame.pose is not None]
        if self._person is not None:
            points, scores = self._person.points, self._person.scores
            width, height = self._size
            poses = [
                encode_png(draw_skeletons(p[None] / np.array(self._size), s[None], height, width))
                for p, s in zip(points, scores, strict=True)
            ]
        landmarks = self._faces.landmarks
        return ClipRecord(
            name=f"{self._source.name}-{first:06d}",
            source=self._source.name,
            first_frame=first,
            fps=self._fps,
            frames=[frame.jpeg for frame in self._frames],
            poses=poses,
            points=points,
            scores=scores,
            boxes=self._faces.boxes,
            landmarks=np.zeros((count, 5, 2), np.float32) if landmarks is None else landmarks,
            valid=self._faces.valid,
            embeddings=self._embeddings,
        )


def _faces_of(person: Track | None, faces: Sequence[Sequence[Face]]) -> list[Face | None]:
    """The followed person's face in each frame; the largest one where no person is known.

    One face is that of the one person in view, wherever keypoints may have it.
    """
    if person is None:
        return [next(iter(found), None) for found in faces]
    alone = person.found & (person.others == 0)
    return [
        found[0] if len(found) == 1 and alone[i] else face_of(found, person.points[i], person.scores[i])
        for i, found in enumerate(faces)
    ]


def _embedding(face: Face | None) -> np.ndarray:
    return np.zeros(EMBEDDING_DIM, np.float32) if face is None or face.embedding is None else face.embedding


def _dropped(frames: Sequence[_Frame], reasons: list[str], measures: Measures | None) -> DroppedClip:
    middle = frames[len(frames) // 2]
    picture = decode_images([middle.jpeg])[0]
    people = [] if middle.seen.people is None else middle.seen.people.boxes
    for colour, boxes in ((_BLUE, people), (_GREEN, [face.box for face in middle.seen.faces])):
        for left, top, right, bottom in np.asarray(boxes).reshape(-1, 4).round().astype(int).tolist():
            cv2.rectangle(picture, (left, top), (right, bottom), colour, 2)
    return DroppedClip(frames[0].number, len(frames), reasons, measures, encode_jpeg(picture))
