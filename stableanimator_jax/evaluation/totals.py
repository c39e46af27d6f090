"""All videos' features as sums: memory does not grow with the videos, and sums of shards add up to those of all."""

import zipfile
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Self

import numpy as np
from jaxtyping import Float, Float32, Float64, Int64, UInt64

from stableanimator_jax.errors import InputError, as_input_error
from stableanimator_jax.evaluation.frechet import Sums
from stableanimator_jax.evaluation.statistics import VideoMeans
from stableanimator_jax.files import replacing

GROUPS = 10
"""Of videos; the jackknife leaves out one at a time."""
KEPT_CLIPS = 2048
"""Clips of each kind whose features are kept for the kernel distance, by lot."""
NETWORKS = ("fid", "fid_vid", "fvd")
"""Whose features are totalled, by the names that they have in `Measured.features`."""


@dataclass(frozen=True, eq=False)
class Sample:
    """Clips by lot: those whose tickets are lowest, so that neither their order nor where they came from matters."""

    features: Float32[np.ndarray, "n d"]
    videos: Int64[np.ndarray, "n"]
    tickets: UInt64[np.ndarray, "n"]

    @classmethod
    def of(cls, features: Float[np.ndarray, "n d"], video: int) -> Self:
        """All clips of one video."""
        tickets = np.random.default_rng(video).integers(0, 2**64, len(features), dtype=np.uint64)
        return cls(features.astype(np.float32), np.full(len(features), video, np.int64), tickets)

    def __add__(self, other: Self) -> Self:
        features, videos, tickets = (
            np.concatenate(parts)
            for parts in (
                (self.features, other.features),
                (self.videos, other.videos),
                (self.tickets, other.tickets),
            )
        )
        kept = np.lexsort((videos, tickets))[:KEPT_CLIPS]
        kept = kept[np.lexsort((tickets[kept], videos[kept]))]
        return type(self)(features[kept], videos[kept], tickets[kept])


@dataclass(frozen=True, eq=False)
class Side:
    """One kind of videos, generated or true, by one network."""

    groups: dict[int, Sums]
    means: VideoMeans
    sample: Sample

    @classmethod
    def of(cls, features: Float[np.ndarray, "n d"], video: int) -> Self:
        """Of one video."""
        return cls({video % GROUPS: Sums.of(features)}, VideoMeans.of(features), Sample.of(features, video))

    def __add__(self, other: Self) -> Self:
        groups = dict(self.groups)
        for number, sums in other.groups.items():
            groups[number] = groups[number] + sums if number in groups else sums
        return type(self)(groups, self.means + other.means, self.sample + other.sample)

    def sums(self, groups: set[int] | None = None) -> Sums:
        """Of some groups, or of all."""
        first, *rest = (self.groups[number] for number in sorted(self.groups if groups is None else groups))
        return sum(rest, first)

    def effective_number(self) -> float:
        """How many independent clips there are; see `VideoMeans`."""
        sums = self.sums()
        if sums.count < 2:
            return float(sums.count)
        mean = sums.mean()
        spread = float(np.trace(sums.outer) - sums.count * (mean @ mean)) / (sums.count - 1)
        return self.means.effective_number(sums.count, mean, spread)


@dataclass(frozen=True, eq=False)
class Faces:
    """Sums of unit embeddings, of one reference and one true face a video: how alike different people are."""

    videos: int
    references: Float64[np.ndarray, "d"]
    truths: Float64[np.ndarray, "d"]
    own: float
    """The sum of the cosines of each video's own two."""

    @classmethod
    def of(cls, reference: Float[np.ndarray, "1 d"], truth: Float[np.ndarray, "1 d"]) -> Self:
        """Of one video."""
        a, b = reference[0].astype(np.float64), truth[0].astype(np.float64)
        return cls(1, a, b, float(a @ b))

    def __add__(self, other: Self) -> Self:
        return type(self)(
            self.videos + other.videos,
            self.references + other.references,
            self.truths + other.truths,
            self.own + other.own,
        )

    def strangers(self) -> float | None:
        """Mean cosine of a reference and the truth of another video; None of one video. Some of the others may show
        the same person."""
        if self.videos < 2:
            return None
        return (float(self.references @ self.truths) - self.own) / (self.videos * (self.videos - 1))


@dataclass
class Totals:
    """Features of all videos that were added, or of those of one shard."""

    networks: dict[str, tuple[Side, Side]] = field(default_factory=dict)
    """By network: the generated videos, and the true ones."""
    faces: Faces | None = None

    def add(self, video: int, features: Mapping[str, Float[np.ndarray, "n d"]]) -> None:
        """Take in one video's features, once.

        Args:
            video: its number in the sorted list of all videos, the same on every host: it decides the group.
            features: of `Measured`; networks that lack the generated or the true side are passed over.
        """
        new = Totals()
        for name in NETWORKS:
            sides = [features.get(f"{name}/{side}") for side in ("generated", "truth")]
            if all(side is not None and len(side) for side in sides):
                generated, truth = (Side.of(side, video) for side in sides if side is not None)
                new.networks[name] = generated, truth
        if "identity/reference" in features and "identity/truth" in features:
            new.faces = Faces.of(features["identity/reference"], features["identity/truth"])
        self.merge(new)

    def merge(self, other: "Totals") -> None:
        """Take in what another shard totalled, of other videos.

        Raises:
            InputError: features of another size, as other networks have them.
        """
        for name, (generated, truth) in other.networks.items():
            if name in self.networks:
                ours = self.networks[name]
                if ours[0].sample.features.shape[1] != generated.sample.features.shape[1]:
                    raise InputError(f"features {name!r} of different sizes cannot be added: they are of two networks")
                generated, truth = ours[0] + generated, ours[1] + truth
            self.networks[name] = generated, truth
        if other.faces is not None:
            self.faces = other.faces if self.faces is None else self.faces + other.faces

    def save(self, path: Path) -> None:
        """Write them as `.npz`, whole or not at all. Raises `InputError` where that cannot be."""
        with as_input_error(f"cannot write {path}"), replacing(path) as temporary, temporary.open("wb") as file:
            np.savez(file, allow_pickle=False, **dict(self._arrays()))

    @classmethod
    def load(cls, path: Path) -> Self:
        """Read what `save` wrote. Raises `InputError` where it is missing or damaged."""
        damaged = KeyError, ValueError, EOFError, zipfile.BadZipFile
        with as_input_error(f"cannot read {path}", *damaged), path.open("rb") as opened, np.load(opened) as file:
            arrays = dict(file)
            totals = cls()
            for name in sorted({key.split("/")[0] for key in arrays} - {"faces"}):
                generated, truth = (_side(arrays, f"{name}/{i}") for i in (0, 1))
                totals.networks[name] = generated, truth
            if "faces/videos" in arrays:
                videos, references, truths, own = (
                    arrays[f"faces/{k}"] for k in ("videos", "references", "truths", "own")
                )
                totals.faces = Faces(int(videos), references, truths, float(own))
            return totals

    def _arrays(self) -> Iterator[tuple[str, np.ndarray]]:
        for name, sides in self.networks.items():
            for i, side in enumerate(sides):
                for number, sums in side.groups.items():
                    yield from _fields(f"{name}/{i}/groups/{number}", sums)
                yield from _fields(f"{name}/{i}/means", side.means)
                yield from _fields(f"{name}/{i}/sample", side.sample)
        if self.faces is not None:
            yield from _fields("faces", self.faces)


def _fields(prefix: str, record: Sums | VideoMeans | Sample | Faces) -> Iterator[tuple[str, np.ndarray]]:
    for name, value in vars(record).items():
        yield f"{prefix}/{name}", np.asarray(value)


def _side(arrays: Mapping[str, np.ndarray], prefix: str) -> Side:
    def of(part: str, *names: str) -> list[np.ndarray]:
        return [arrays[f"{prefix}/{part}/{name}"] for name in names]

    start = f"{prefix}/groups/"
    numbers = sorted({int(key.removeprefix(start).split("/")[0]) for key in arrays if key.startswith(start)})
    groups = {}
    for number in numbers:
        count, total, outer = of(f"groups/{number}", "count", "total", "outer")
        groups[number] = Sums(int(count), total, outer)
    videos, squared, first, second = of("means", "videos", "squared", "first", "second")
    means = VideoMeans(int(videos), float(squared), first, float(second))
    return Side(groups, means, Sample(*of("sample", "features", "videos", "tickets")))
