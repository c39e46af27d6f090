"""Videos of unseen people by one or several checkpoints, and how good they are.

Every video is kept as a file as soon as it is made, under a name that stands for everything it depends on but the
program itself: a run that was stopped goes on, and another checkpoint or setting never finds the wrong file.
"""

import dataclasses
import hashlib
import json
import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, NamedTuple

import jax.numpy as jnp
import numpy as np
from jaxtyping import Float, Float32, UInt8
from PIL import Image
from PIL.PngImagePlugin import PngInfo
from tqdm import tqdm

from examples.drawn_world.clips import VALIDATION_SEEDS, draw_moment
from examples.drawn_world.dataset import embed_faces
from examples.drawn_world.glasses import GLASSES_FILE, WearsGlasses, load_glasses, share_right
from examples.drawn_world.intervals import Estimate, draw_pairs, frechet, mean
from examples.drawn_world.metrics import image_features, picture_quality, pose_fidelity, similarity, wall_flicker
from examples.drawn_world.pairs import DrawnPair, draw_pair, palette, unseen_pairs
from examples.drawn_world.people import make_person
from examples.drawn_world.settings import make_folder
from stableanimator_jax.data.face_track import Face
from stableanimator_jax.errors import InputError
from stableanimator_jax.files import replacing
from stableanimator_jax.interrupts import check_interrupted
from stableanimator_jax.models.arcface import ArcFace, cosine
from stableanimator_jax.models.catalogue import blueprint
from stableanimator_jax.models.functional import Model
from stableanimator_jax.models.image_encoder import ImageEncoder
from stableanimator_jax.provenance import file_sha256
from stableanimator_jax.sampling.config import HJBConfig, SamplingConfig
from stableanimator_jax.sampling.face_control import FaceOptimisation
from stableanimator_jax.sampling.pipeline import Animator
from stableanimator_jax.scripts.sample.settings import DRAWN_PEOPLE
from stableanimator_jax.weights.checkpoint import STABLEANIMATOR
from stableanimator_jax.weights.fingerprint import fingerprint
from stableanimator_jax.weights.opening import open_checkpoint

SAMPLING = DRAWN_PEOPLE.sampling
"""As configs/drawn_people.py."""


@dataclass(frozen=True)
class MeasureConfig:
    """Whom to measure on, and by what."""

    pairs: int = 100
    """Of an unseen person and an unseen motion."""
    first_pair: int = 0
    """Its number. The first hundred are for development, and the package's example is one of them."""
    frames: int = 8
    """Of each video."""
    stride: int = 3
    """Frames of the motion from one of them to the next."""
    size: int = 64
    """Of the frames in pixels."""
    second_arcface: Path | None = None
    """A checkpoint with an ArcFace that was trained apart from the one that the models know."""
    glasses: Path | None = None
    """What `glasses` left, to tell whether faces wear glasses where they should."""
    resamples: int = 2000
    """Of the pairs, for the confidence intervals."""

    def __post_init__(self):
        for name, low in {"pairs": 2, "first_pair": 0, "frames": 2, "stride": 1, "size": 16, "resamples": 100}.items():
            if getattr(self, name) < low:
                raise InputError(f"--{name.replace('_', '-')} must be at least {low}, got {getattr(self, name)}")


@dataclass(frozen=True)
class StudyConfig(MeasureConfig):
    """What is made and measured."""

    sampling: SamplingConfig = SAMPLING
    """The first pair is sampled with its seed, each other one with the next."""
    hjb: HJBConfig = field(default_factory=lambda: dataclasses.replace(DRAWN_PEOPLE.hjb, iterations=0))
    """The face optimisation: where it is, as in configs/drawn_people.py."""
    work: Path = Path("outputs/drawn_world/study")
    """Where videos are kept, and all numbers of all pairs as `results.json`."""


@dataclass(frozen=True)
class Condition:
    """One way to make the videos."""

    name: str
    title: str
    """In tables."""
    checkpoint: str
    iterations: int
    """Of the face optimisation."""


@dataclass(frozen=True)
class Measured:
    """What came of one condition, in the order of the pairs."""

    scores: dict[str, Float[np.ndarray, "n"]]
    """By the names of `metrics.METRICS`."""
    features: Float32[np.ndarray, "n f d"]
    videos: UInt8[np.ndarray, "n f h w 3"]
    seconds: Float[np.ndarray, "n"]
    """That making each video took."""


@dataclass(frozen=True)
class Study:
    """All conditions, and the truth for comparison."""

    pairs: list[DrawnPair]
    conditions: dict[str, Condition]
    measured: dict[str, Measured]
    truth: dict[str, Float[np.ndarray, "n"]]
    """What the true frames themselves have: `csim`, `csim_second` to the reference, and `glasses`; and as `…_chance`
    what the next pair's person has."""
    estimates: dict[str, dict[str, Estimate]]
    """Of each condition's metrics, and of `truth`."""


class Judges(NamedTuple):
    """The models that measure, the same for every condition."""

    arcfaces: dict[str, Model[ArcFace]]
    """By the metric."""
    image_encoder: Model[ImageEncoder]
    glasses: WearsGlasses | None


def run_study(conditions: Sequence[Condition], config: StudyConfig) -> Study:
    """Make the videos that are not there yet, and measure all.

    Args:
        conditions: of different names, those of one checkpoint beside each other, so that it is loaded once. The first
            one's checkpoint has the ArcFace and the image encoder that all are measured by.
        config: see there.

    Raises:
        InputError: a checkpoint cannot be used, or the settings do not go with it.
    """
    if any(condition.iterations for condition in conditions):
        config.hjb.optimised_steps(config.sampling.steps)  # raises here rather than after hours
    judges = load_judges(conditions[0].checkpoint, config)
    pairs = draw_study(config)
    truth, truth_features, references = measure_truth(judges, pairs)
    measured = {}
    animator_of = OneAnimator()
    for condition in conditions:
        videos, seconds = make_videos(condition, animator_of, pairs, config)
        measured[condition.name] = measure(judges, pairs, references, videos, seconds, condition.title)
    drawn = draw_pairs(config.pairs, config.resamples)
    estimates = {}
    for name, found in tqdm(measured.items(), "intervals", unit="condition"):
        estimates[name] = {metric: mean(values, drawn) for metric, values in found.scores.items()}
        estimates[name]["frechet"] = frechet(truth_features, found.features, drawn)
    estimates["truth"] = {metric: mean(values, drawn) for metric, values in truth.items()}
    named = {condition.name: condition for condition in conditions}
    return Study(pairs, named, measured, truth, estimates)


def judged_by(checkpoint: str, config: MeasureConfig) -> dict[str, str]:
    """The judges, each as the hash of its values: scores by other ones cannot be compared."""
    judges = {"csim": fingerprint(checkpoint, "arcface"), "frechet": fingerprint(checkpoint, "image_encoder")}
    if config.second_arcface is not None:
        judges["csim_second"] = fingerprint(str(config.second_arcface), "arcface")
    if config.glasses is not None:
        judges["glasses"] = file_sha256(config.glasses / GLASSES_FILE)
    return judges


def draw_study(config: MeasureConfig) -> list[DrawnPair]:
    """The pairs of a study."""
    numbers = tqdm(unseen_pairs(config.pairs, config.first_pair), "drawing", unit="pair")
    return [draw_pair(pair, frames=config.frames, stride=config.stride, size=config.size) for pair in numbers]


class OneAnimator:
    """Gives a checkpoint's animator, and keeps it in memory until another one is asked for."""

    def __init__(self):
        self.checkpoint: str | None = None
        self.animator: Animator | None = None

    def __call__(self, checkpoint: str) -> Animator:
        if self.animator is None or self.checkpoint != checkpoint:
            self.animator = None  # freed before the next one is loaded
            self.animator = Animator.from_pretrained(checkpoint, dtype="float32", arcface=True)
            self.checkpoint = checkpoint
        return self.animator


def load_judges(checkpoint: str, config: MeasureConfig) -> Judges:
    """The ArcFace and the image encoder of a checkpoint, and what else the settings name.

    Raises:
        InputError: one cannot be read, or the second ArcFace is the first one.
    """
    source = open_checkpoint(checkpoint)
    arcfaces = {"csim": source.load("arcface", blueprint(source.config, "arcface"))}
    if (second := config.second_arcface) is not None:
        other = open_checkpoint(str(second))
        arcfaces["csim_second"] = other.load("arcface", blueprint(other.config, "arcface"))
        if alike(*arcfaces.values()):
            raise InputError(
                f"the ArcFace of {second} is the one that {checkpoint} has too; train another one to judge"
            )
    image_encoder = source.load("image_encoder", blueprint(source.config, "image_encoder"))
    return Judges(arcfaces, image_encoder, None if config.glasses is None else load_glasses(config.glasses))


def alike(one: Model[ArcFace], other: Model[ArcFace]) -> bool:
    """Whether they embed a drawn face in the same way: weights may be rounded in one of the two."""
    clip = draw_moment(VALIDATION_SEEDS, np.random.default_rng(0), 1, 64)
    a, b = (jnp.asarray(embed_faces(arcface, clip.frames, clip.faces.boxes)) for arcface in (one, other))
    return cosine(a, b).item() > 0.9


def measure_truth(
    judges: Judges, pairs: list[DrawnPair]
) -> tuple[dict[str, np.ndarray], np.ndarray, dict[str, np.ndarray]]:
    """`Study.truth`, the true frames' features [n, f, d], and the references' embeddings [n, d] of each ArcFace."""
    truth, references = {}, {}
    for name, arcface in judges.arcfaces.items():
        embedded = [embed_faces(arcface, p.reference[None], p.reference_box[None])[0] for p in pairs]
        faces = [embed_faces(arcface, p.truth, p.faces.boxes) for p in pairs]
        valid = [p.faces.valid for p in pairs]
        truth[name] = np.array(list(map(similarity, faces, embedded, valid)))
        others = faces[1:] + faces[:1], embedded, valid[1:] + valid[:1]
        truth[f"{name}_chance"] = np.array(list(map(similarity, *others)))
        references[name] = np.stack(embedded)
    if judges.glasses is not None:
        persons = [p.pair.person for p in pairs]
        for name, asked in (("glasses", persons), ("glasses_chance", persons[1:] + persons[:1])):
            found = [share_right(judges.glasses, p.truth, p.faces, who) for p, who in zip(pairs, asked, strict=True)]
            truth[name] = np.array(found)
    return truth, np.stack([image_features(judges.image_encoder, p.truth) for p in pairs]), references


def make_videos(
    condition: Condition, animator_of: Callable[[str], Animator], pairs: Sequence[DrawnPair], config: StudyConfig
) -> tuple[UInt8[np.ndarray, "n f h w 3"], Float[np.ndarray, "n"]]:
    """A condition's videos, and the seconds that each took.

    Args:
        condition: how they are made.
        animator_of: gives a checkpoint's animator; called only where a video is not among the files yet.
        pairs: in the order of their numbers.
        config: see there.
    """
    hjb = dataclasses.replace(config.hjb, iterations=condition.iterations) if condition.iterations else None
    models = {model: fingerprint(condition.checkpoint, model) for model in STABLEANIMATOR}
    folder = config.work / condition.name
    make_folder(folder)
    videos, seconds = [], []
    for number, pair in enumerate(tqdm(pairs, condition.title, unit="pair")):
        check_interrupted()
        sampling = dataclasses.replace(config.sampling, seed=config.sampling.seed + number)
        settings = {"models": models, "sampling": sampling, "hjb": hjb}
        file = folder / f"{number:04}-{_key(settings, pair)}.png"
        if not file.exists():
            began = time.monotonic()
            made = _animate(animator_of(condition.checkpoint), pair, sampling, hjb)
            _write_strip(file, made, time.monotonic() - began)
        made, took = _read_strip(file, config.size)
        videos.append(made)
        seconds.append(took)
    return np.stack(videos), np.array(seconds)


def _animate(animator: Animator, pair: DrawnPair, sampling: SamplingConfig, hjb: HJBConfig | None) -> np.ndarray:
    embedding = animator.embed_face(pair.reference, Face(pair.reference_box))
    return animator.animate(
        pair.reference,
        pair.poses,
        id_embedding=embedding,
        sampling=sampling,
        hjb=None if hjb is None else FaceOptimisation(hjb, embedding, pair.faces),
        on_denoise=lambda done, total: check_interrupted(),
        on_optimise=lambda done, total: check_interrupted(),
    )


def _key(settings: Mapping[str, Any], pair: DrawnPair) -> str:
    """Of all that a video depends on: weights and settings, and what is drawn, which may change with the world."""
    plain = {k: dataclasses.asdict(v) if dataclasses.is_dataclass(v) else v for k, v in settings.items()}  # pyright: ignore[reportArgumentType]
    digest = hashlib.sha256(json.dumps(plain, sort_keys=True).encode())
    for array in (pair.reference, pair.reference_box, pair.poses, pair.faces.boxes, pair.faces.valid):
        digest.update(repr((array.shape, array.dtype)).encode() + array.tobytes())
    return digest.hexdigest()[:24]


def _write_strip(file: Path, video: UInt8[np.ndarray, "f h w 3"], seconds: float) -> None:
    """Frames beside each other in one picture."""
    notes = PngInfo()
    notes.add_text("seconds", f"{seconds:.2f}")
    with replacing(file) as temporary:
        Image.fromarray(np.concatenate(list(video), axis=1)).save(temporary, format="PNG", pnginfo=notes)


def _read_strip(file: Path, size: int) -> tuple[UInt8[np.ndarray, "f h w 3"], float]:
    with Image.open(file) as image:
        strip, seconds = np.asarray(image), float(image.info["seconds"])
    return np.stack(np.split(strip, strip.shape[1] // size, axis=1)), seconds


def measure(
    judges: Judges,
    pairs: list[DrawnPair],
    references: Mapping[str, np.ndarray],
    videos: np.ndarray,
    seconds: np.ndarray,
    title: str,
) -> Measured:
    """Measure videos.

    Args:
        judges: what measures.
        pairs: what the videos are of.
        references: embeddings of the reference pictures by each ArcFace, [n, d].
        videos: uint8 [n, f, h, w, 3].
        seconds: that making each took.
        title: for the progress bar.
    """
    rows: list[dict[str, float]] = []
    for number, (pair, made) in enumerate(zip(tqdm(pairs, f"measuring: {title}", unit="pair"), videos, strict=True)):
        check_interrupted()
        row = picture_quality(made, pair.truth, pair.faces)
        row |= pose_fidelity(made, pair.truth, palette(make_person(pair.pair.person)), pair.wall)
        row["flicker"] = wall_flicker(made, pair.truth, pair.wall)
        if judges.glasses is not None:
            row["glasses"] = share_right(judges.glasses, made, pair.faces, pair.pair.person)
        for name, arcface in judges.arcfaces.items():
            faces = embed_faces(arcface, made, pair.faces.boxes)
            row[name] = similarity(faces, references[name][number], pair.faces.valid)
        rows.append(row)
    features = np.stack([image_features(judges.image_encoder, made) for made in videos])
    return Measured({name: np.array([row[name] for row in rows]) for name in rows[0]}, features, videos, seconds)
