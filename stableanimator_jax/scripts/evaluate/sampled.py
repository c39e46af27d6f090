"""Videos that a checkpoint makes of a dataset, each kept as PNGs: what is measured is exactly what was made."""

import hashlib
import json
import shutil
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any, Protocol

import jax.numpy as jnp
import numpy as np
from jaxtyping import UInt8

from stableanimator_jax.config import StableAnimatorConfig, read_json
from stableanimator_jax.data.face_track import FaceTrack
from stableanimator_jax.data.keypoint_formats import holds_keypoints
from stableanimator_jax.data.keypoints import Keypoints, save_keypoints
from stableanimator_jax.data.prepared import PreparedClips, read_dataset_file
from stableanimator_jax.data.video import open_writer
from stableanimator_jax.errors import InputError
from stableanimator_jax.evaluation.measures import VideoPair
from stableanimator_jax.family import member
from stableanimator_jax.files import is_directory, replacing
from stableanimator_jax.models.catalogue import blueprint, sampling_models
from stableanimator_jax.progress import Stopwatch
from stableanimator_jax.provenance import sha256_of
from stableanimator_jax.sampling.pipeline import Animator
from stableanimator_jax.sampling.video_inputs import fitted_reference
from stableanimator_jax.scripts.evaluate.pairs import check_references, read_list
from stableanimator_jax.scripts.evaluate.reading import (
    Files,
    ReferenceFrame,
    frame_of,
    read_pair,
    read_video,
    state_of,
)
from stableanimator_jax.scripts.evaluate.settings import EvaluateConfig
from stableanimator_jax.scripts.evaluate.tools import Embedder
from stableanimator_jax.scripts.evaluate.work import safe_name
from stableanimator_jax.scripts.sample.animating import animated
from stableanimator_jax.scripts.sample.faces import FaceInputs
from stableanimator_jax.scripts.sample.finishing import Finishing
from stableanimator_jax.scripts.sample.inputs import Identity, Inputs, read_inputs
from stableanimator_jax.scripts.sample.settings import SampleConfig
from stableanimator_jax.scripts.sample.unfinished import Begun
from stableanimator_jax.weights.checkpoint import describe, require_models
from stableanimator_jax.weights.opening import CheckpointSource, open_checkpoint

_KEYPOINTS = "keypoints.json"
_MADE_FROM = "made_from.json"


@dataclass
class ToSample:
    """One video to make."""

    inputs: Inputs
    config: SampleConfig


class Dataset(Protocol):
    """What is to be animated, and measured by."""

    @property
    def names(self) -> list[str]:
        """Sorted; no name is there twice."""
        ...

    def state(self, name: str) -> dict[str, Any]:
        """By what it shows that a video is to be made anew."""
        ...

    def to_sample(self, name: str, config: SampleConfig) -> ToSample:
        """What the models take. Raises `InputError`."""
        ...

    def pair(self, name: str, folder: Path) -> VideoPair:
        """A video that was made, with what there is to hold it against. Raises `InputError`."""
        ...


@dataclass
class SampledSource:
    """Makes videos that are not there yet."""

    dataset: Dataset
    folder: Path
    config: SampleConfig
    arcface: bool
    failed: dict[str, str] = field(default_factory=dict)
    notes: list[str] = field(default_factory=list)
    loaded: Animator | None = None

    @property
    def names(self) -> list[str]:
        return self.dataset.names

    def state(self, name: str) -> dict[str, Any]:
        return self.dataset.state(name)

    def load(self, name: str) -> VideoPair:
        folder = self.folder / safe_name(name)
        if not _was_made_from(folder, self.state(name)):
            shutil.rmtree(folder, ignore_errors=True)
            self._sample(name, folder)
        return self.dataset.pair(name, folder)

    def _sample(self, name: str, folder: Path) -> None:
        made = self.dataset.to_sample(name, replace(self.config, output=folder))
        inputs = made.inputs
        frames = animated(self.animator, inputs, made.config, Stopwatch(), Begun(), shown=False)
        with open_writer(folder, *inputs.size, inputs.fps) as video:
            for frame in frames:
                video.write(frame)
        if inputs.driven is not None:  # as they were fed, brought to the reference
            save_keypoints(folder / _KEYPOINTS, inputs.driven.keypoints)
        with replacing(folder / _MADE_FROM) as path:  # last: without it the video is made anew
            path.write_text(json.dumps(self.state(name)) + "\n", encoding="utf-8")

    @property
    def animator(self) -> Animator:
        """Loaded when the first video is to be made."""
        if self.loaded is None:
            self.loaded = Animator.from_pretrained(
                self.config.checkpoint, dtype=self.config.dtype, arcface=self.arcface, devices="all"
            )
        return self.loaded


def _was_made_from(folder: Path, state: dict[str, Any]) -> bool:
    path = folder / _MADE_FROM
    return path.is_file() and read_json(path) == json.loads(json.dumps(state))


def open_samples(config: EvaluateConfig) -> tuple[SampledSource, dict[str, Any], Embedder | None]:
    """The videos to make.

    Returns:
        the source; what they are made by, for the record and for a run that goes on; the ArcFace that conditions or is
        climbed, where the checkpoint has it and CSIM is to be measured by another.

    Raises:
        InputError: the checkpoint, the dataset or the settings cannot be used.
    """
    assert config.checkpoint is not None
    assert config.dataset is not None
    samples = config.samples
    checkpoint = open_checkpoint(config.checkpoint)
    models = checkpoint.config
    require_models(checkpoint.path, sampling_models(models))
    optimises = samples.hjb.adam_iterations > 0
    has_arcface = "arcface" in describe(checkpoint.path).models
    if optimises and not has_arcface:
        raise InputError(f"checkpoint {checkpoint.path} has no arcface, which the face optimisation needs")
    sample = SampleConfig(
        checkpoint=config.checkpoint,
        width=samples.width,
        height=samples.height,
        fit=samples.fit,
        dtype=samples.dtype,
        device=config.device,
        sampling=samples.sampling,
        hjb=samples.hjb,
    )
    dataset: Dataset
    if is_directory(config.dataset):
        dataset, what = _prepared(config, models), f"{samples.split} of {config.dataset}"
    else:
        dataset, what = _listed(config, models), str(config.dataset)
    print(f"sampling: {member(models).title} of {config.checkpoint}; {len(dataset.names)} videos of {what}", flush=True)
    files = sorted(path for path in checkpoint.path.rglob("*") if path.is_file())
    plain = sample.to_dict()
    settings = {f"{part}.{k}": v for part in ("sampling", "hjb") for k, v in plain[part].items()}
    sampled = {
        "checkpoint": config.checkpoint,
        "checkpoint's sha256": sha256_of(files, directory=checkpoint.path),
        "dataset": what,
        **{name: plain[name] for name in ("width", "height", "fit", "dtype")},
        **settings,
    }
    conditioning = _embedder(checkpoint) if has_arcface and config.weights.recogniser is not None else None
    source = SampledSource(dataset, config.output / "videos", sample, arcface=optimises)
    if config.output.joinpath("videos").is_dir() and not config.resume:
        raise InputError(f"{config.output} has videos already: go on by --resume, or name another --output")
    return source, sampled, conditioning


def _embedder(checkpoint: CheckpointSource) -> Embedder:
    arcface = checkpoint.load("arcface", blueprint(checkpoint.config, "arcface"))
    return lambda faces: np.asarray(arcface.module()(jnp.asarray(faces)))


@dataclass
class PreparedDataset:
    """Clips that `prepare` made: one frame is the reference, all of them the truth."""

    clips: PreparedClips
    numbers: dict[str, int]
    models: StableAnimatorConfig
    reference_frame: ReferenceFrame
    most_frames: int | None
    digest: str
    """Of the dataset's contents: prepared anew, its clips are others of the same names."""

    @property
    def names(self) -> list[str]:
        return sorted(self.numbers)

    def state(self, name: str) -> dict[str, Any]:
        number = self.numbers[name]
        return {"dataset": self.digest, "clip": number, "frames": self.most_frames, "reference": self.reference_frame}

    def to_sample(self, name: str, config: SampleConfig) -> ToSample:
        clip = self.clips[self.numbers[name]]
        record, count = clip.record, self._count(clip.length)
        which = 0 if self.reference_frame == "first" else count // 2
        kind, (width, height) = member(self.models), self.clips.size
        frames, poses = clip.read_frames([which]), clip.read_poses(range(count))
        known = self.models.unet.takes_faces and record.embeddings[which].any()
        embedding = record.embeddings[which] if known else None
        identity = Identity(embedding, "the dataset's embedding of the reference frame")
        face = None
        if config.hjb.adam_iterations > 0:
            if embedding is None:
                raise InputError("the reference frame has no face, which is to be optimised: take another frame")
            track = FaceTrack(record.boxes[:count], record.landmarks[:count], record.valid[:count])
            face = FaceInputs(embedding, track, "the dataset")
        inputs = Inputs(
            fitted_reference(kind, frames[0], width, height, "crop"),
            poses if kind.driver is not None else None,
            poses[which] if kind.reference_pose_first else None,
            self.models,
            (width, height),
            count + (kind.reference_pose_first and not kind.drops_first),
            record.fps or float(config.sampling.fps),
            identity,
            face,
            None,
            config,
            Finishing(frames[0], colours=False, mask=None, keypoints=None),
        )
        return ToSample(inputs, config)

    def pair(self, name: str, folder: Path) -> VideoPair:
        clip = self.clips[self.numbers[name]]
        record, count = clip.record, self._count(clip.length)
        truth = clip.read_frames(range(count))
        generated = without_reference(read_video(folder, "generated video")[0], self.models)
        driving = None
        if record.scores.any():
            width, height = self.clips.size
            driving = Keypoints(record.points[:count], record.scores[:count], width, height, record.fps or None)
        return VideoPair(name, generated, truth, frame_of(truth, self.reference_frame), driving, record.fps or None)

    def _count(self, length: int) -> int:
        return min(length, self.most_frames or length)


def _prepared(config: EvaluateConfig, models: StableAnimatorConfig) -> PreparedDataset:
    assert config.dataset is not None
    samples = config.samples
    if samples.width is not None or samples.height is not None:
        raise InputError("leave out --width and --height: videos of a prepared dataset have its size")
    buckets = list(read_dataset_file(config.dataset)["buckets"])
    if samples.bucket is None and len(buckets) > 1:
        raise InputError(f"dataset {config.dataset} has several sizes: choose one by --bucket ({', '.join(buckets)})")
    clips = PreparedClips(config.dataset, samples.split, samples.bucket or buckets[0])
    count = min(len(clips), samples.clips or len(clips))
    numbers: dict[str, int] = {}
    for number in range(count):
        numbers.setdefault(clips[number].name, number)
    frame = "middle" if config.reference_frame == "middle" else "first"
    digest = hashlib.sha256(json.dumps(clips.contents(), sort_keys=True).encode()).hexdigest()
    return PreparedDataset(clips, numbers, models, frame, samples.clip_frames, digest)


@dataclass
class ListedDataset:
    """Photos with poses, and truths where there are any."""

    videos: dict[str, Files]
    models: StableAnimatorConfig
    dwpose: Path | None
    insightface_root: Path | None
    reference_frame: ReferenceFrame

    @property
    def names(self) -> list[str]:
        return list(self.videos)

    def state(self, name: str) -> dict[str, Any]:
        return state_of(self.videos[name])

    def to_sample(self, name: str, config: SampleConfig) -> ToSample:
        files, kind = self.videos[name], member(self.models)
        driving = files.driving
        of_person = driving is not None and self._shows_a_person(driving)
        frames = None
        if kind.driver is not None and driving is None:
            raise InputError("it has no driving poses")
        if kind.driver is None:
            driving = None
            if files.truth is not None:
                frames = len(read_video(files.truth, "true video")[0])
        own = replace(
            config,
            reference=files.reference,
            poses=None if of_person else driving,
            driving=driving if of_person else None,
            dwpose=self.dwpose if of_person else None,
            driving_stride=1 if of_person else None,  # a frame for each true one, whatever is published
            insightface_root=self.insightface_root,
            frames=frames,
        ).absolute()
        return ToSample(read_inputs(own), own)

    def pair(self, name: str, folder: Path) -> VideoPair:
        files = self.videos[name]
        driving = folder if (folder / _KEYPOINTS).is_file() else files.driving
        if driving is not None and driving is files.driving and self._shows_a_person(driving):
            driving = None
        pair = read_pair(replace(files, generated=folder, driving=driving), self.reference_frame)
        return pair._replace(generated=without_reference(pair.generated, self.models))

    def _shows_a_person(self, driving: Path) -> bool:
        return self.dwpose is not None and not is_directory(driving) and not holds_keypoints(driving)


def _listed(config: EvaluateConfig, models: StableAnimatorConfig) -> ListedDataset:
    assert config.dataset is not None
    if not config.dataset.exists():
        raise InputError(f"--dataset {config.dataset} does not exist")
    videos = read_list(config.dataset)
    check_references(videos)
    if extra := next((files.name for files in videos if files.generated is not None), None):
        raise InputError(f"--dataset {config.dataset}: {extra} has a generated video, which is to be made")
    files = {files.name: files for files in videos}
    return ListedDataset(files, models, config.weights.dwpose, config.weights.insightface_root, config.reference_frame)


def without_reference(
    generated: UInt8[np.ndarray, "f h w 3"], models: StableAnimatorConfig
) -> UInt8[np.ndarray, "g h w 3"]:
    """Without the frame of the photo itself, with which some systems' videos begin."""
    kind = member(models)
    return generated[1:] if kind.reference_pose_first and not kind.drops_first else generated
