"""All videos' measures as one table: value, interval, what the truth and a baseline get, and whether to trust it."""

from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass, field, replace
from typing import Any

import numpy as np

from stableanimator_jax.errors import InputError
from stableanimator_jax.evaluation.frechet import KernelSums, extrapolated, frechet, kernel_distance
from stableanimator_jax.evaluation.measures import METRICS, Measured
from stableanimator_jax.evaluation.protocol import Protocol, describe
from stableanimator_jax.evaluation.statistics import Interval, fvd_verdict, jackknife, mean_interval
from stableanimator_jax.evaluation.totals import GROUPS, Side, Totals


@dataclass(frozen=True)
class Estimate:
    """One metric of all videos."""

    value: float
    """NaN where it takes more clips than there are."""
    interval: Interval | None
    """Of 95 % confidence, over videos, within what the metric can be; of a Fréchet distance that of the value less its
    bias. None of too few."""
    videos: int
    clips: int | None = None
    """Or frames, which a distribution is made of; None of a mean over videos."""
    effective: float | None = None
    """How many independent clips those are worth."""
    bias: float | None = None
    """By how much the value is too large for so few videos, by the jackknife."""
    extrapolated: float | None = None
    """To endlessly many videos; of FVD."""
    truth: float | None = None
    """What the truth itself gets: half of the true videos against the other half, or the true frames."""
    baseline: float | None = None
    """What needs no animation: another person's face, or a still picture."""
    headline: bool = True
    reason: str = ""
    """Why it is no headline."""


@dataclass(frozen=True)
class Summary:
    """What one result says, of videos by one protocol."""

    protocol: str
    choices: dict[str, str]
    """The protocol's, in words."""
    metrics: dict[str, Estimate]
    """By the names in `METRICS`, in that order."""
    weights: dict[str, str]
    """SHA-256 of each network's weights."""
    decoder: str
    """What read the videos, with its version."""
    frames: dict[str, int]
    """Of each video."""
    sizes: dict[str, tuple[int, int]]
    """Width and height of each generated video."""
    notes: list[str] = field(default_factory=list)
    """What went wrong or has to be known, with the videos' names."""

    def plain(self) -> dict[str, Any]:
        """For JSON; `Summary.of_plain` reads it back."""
        return asdict(self)

    @classmethod
    def of_plain(cls, data: Mapping[str, Any]) -> "Summary":
        """Raises `InputError` where it is no summary."""
        try:
            metrics = {
                name: Estimate(
                    **{**m, "value": _float(m["value"]), "interval": m["interval"] and Interval(*m["interval"])}
                )
                for name, m in data["metrics"].items()
            }
            sizes = {name: (int(w), int(h)) for name, (w, h) in data["sizes"].items()}
            return cls(**{**data, "metrics": metrics, "sizes": sizes})
        except (KeyError, TypeError, ValueError, AttributeError) as e:
            raise InputError(f"this is not a summary of an evaluation: {type(e).__name__} {e}") from e


def _float(value: float | None) -> float:
    """JSON has no NaN: it is None there."""
    return float("nan") if value is None else float(value)


def summarise(
    videos: Sequence[Measured],
    totals: Totals,
    protocol: Protocol,
    *,
    weights: Mapping[str, str],
    decoder: str,
    resamples: int = 2000,
    seed: int = 0,
) -> Summary:
    """Put all videos together.

    Args:
        videos: the measures of each; features are not looked at, so that they need not be kept.
        totals: the features of the same videos.
        protocol: by which they were measured.
        weights: SHA-256 of each network's weights.
        decoder: what read the videos.
        resamples: bootstrap draws of the means.
        seed: of those.

    Raises:
        InputError: there is no video.
    """
    if not videos:
        raise InputError("there is no video to summarise: none could be measured")
    found = {}
    names = {name for video in videos for name in video.scores}
    for name in names:
        found[name] = _mean(name, videos, protocol, resamples, seed)
    if totals.faces is not None and "csim_reference" in found:
        found["csim_reference"] = replace(found["csim_reference"], baseline=totals.faces.strangers())
    for name, (generated, truth) in totals.networks.items():
        found |= _distances(name, generated, truth, protocol)
    return Summary(
        protocol.name,
        describe(protocol),
        {name: found[name] for name in METRICS if name in found},
        dict(weights),
        decoder,
        {video.name: video.length for video in videos},
        {video.name: video.size for video in videos},
        [f"{video.name}: {note}" for video in videos for note in video.notes],
    )


def _mean(name: str, videos: Sequence[Measured], protocol: Protocol, resamples: int, seed: int) -> Estimate:
    """The mean over the videos that have this score."""
    having = [video for video in videos if np.isfinite(video.scores.get(name, np.nan))]
    weights = np.array([video.length if protocol.mean_over == "frames" else 1 for video in having], np.float64)
    values = np.array([video.scores[name] for video in having])
    interval = mean_interval(values, weights, resamples=resamples, seed=seed)
    missing = len(videos) - len(having)
    return Estimate(
        _weighted(values, weights),
        _possible(name, interval),
        len(having),
        truth=_beside([video.truths.get(name) for video in having], weights),
        baseline=_beside([video.baselines.get(name) for video in having], weights),
        headline=not missing,
        reason=f"{missing} of {len(videos)} videos lack it" if missing else "",
    )


def _possible(name: str, interval: Interval | None) -> Interval | None:
    """The part of it that the metric can be."""
    least, most = METRICS[name].least, METRICS[name].most
    return interval and Interval(*(min(max(end, least), most) for end in interval))


def _beside(values: Sequence[float | None], weights: np.ndarray) -> float | None:
    has = [i for i, value in enumerate(values) if value is not None and np.isfinite(value)]
    return _weighted(np.array([values[i] for i in has], np.float64), weights[has]) if has else None


def _weighted(values: np.ndarray, weights: np.ndarray) -> float:
    return float(values @ weights / weights.sum()) if len(values) else float("nan")


def _distances(name: str, generated: Side, truth: Side, protocol: Protocol) -> dict[str, Estimate]:
    """Fréchet's distance of one network's features, and of FVD's the kernel distance too."""
    ddof = protocol.ddof
    whole = generated.sums(), truth.sums()
    clips = min(whole[0].count, whole[1].count)
    groups = sorted(truth.groups)
    effective = min(generated.effective_number(), truth.effective_number())
    kernel = {"kvd": _kernel(generated, truth, groups, effective)} if name == "fvd" else {}
    if clips <= ddof:
        return {name: _none(truth, clips, f"it needs {ddof + 1} clips or frames at least")} | kernel
    value = frechet(*whole, ddof=ddof)
    rests = [(whole[0] - generated.groups[g], whole[1] - truth.groups[g]) for g in groups]
    without = [frechet(*rest, ddof=ddof) for rest in rests if min(rest[0].count, rest[1].count) > ddof]
    knife = jackknife(value, without)
    half, other = ([truth.groups[g] for g in groups[start::2]] for start in (0, 1))
    floor = None
    if half and other:
        halves = [sum(some[1:], some[0]) for some in (half, other)]
        if min(s.count for s in halves) > ddof:
            floor = frechet(*halves, ddof=ddof)
    verdict = fvd_verdict(effective)
    estimate = Estimate(
        value,
        _possible(name, knife and knife.interval),
        truth.means.videos,
        clips,
        effective,
        knife and knife.bias,
        extrapolated=_at_infinity(generated, truth, groups, ddof) if name == "fvd" else None,
        truth=floor,
        headline=verdict.headline,
        reason="" if verdict.headline else verdict.reason,
    )
    return {name: estimate} | kernel


def _none(truth: Side, clips: int, reason: str) -> Estimate:
    return Estimate(float("nan"), None, truth.means.videos, clips, headline=False, reason=reason)


def _at_infinity(generated: Side, truth: Side, groups: Sequence[int], ddof: int) -> float | None:
    """By distances of 5 to all of 10 groups, which begin at each of some groups in turn; None of fewer groups."""
    if len(groups) < 4:
        return None
    sizes, distances = [], []
    for count in range(len(groups) // 2, len(groups) + 1):
        starts = range(0, len(groups), 2) if count < len(groups) else range(1)
        for start in starts:
            some = {groups[(start + i) % len(groups)] for i in range(count)}
            a, b = generated.sums(some), truth.sums(some)
            if min(a.count, b.count) > ddof:
                sizes.append(min(a.count, b.count))
                distances.append(frechet(a, b, ddof=ddof))
    return extrapolated(sizes, distances) if len(set(sizes)) > 1 else None


def _kernel(generated: Side, truth: Side, groups: Sequence[int], effective: float) -> Estimate:
    a, b = generated.sample, truth.sample
    if truth.means.videos < 2:
        return _none(truth, min(len(a.features), len(b.features)), "it needs clips of two videos at least")
    sums = KernelSums.of(a.features, b.features, a.videos, b.videos, GROUPS)
    value, knife, halves = sums.distance(), None, None
    if len(groups) > 3:
        knife = jackknife(value, [sums.distance(without=group) for group in groups])
        odd = np.isin(b.videos % GROUPS, groups[1::2])
        halves = kernel_distance(b.features[odd], b.features[~odd], videos_x=b.videos[odd], videos_y=b.videos[~odd])
    return Estimate(
        value,
        knife and knife.interval,
        truth.means.videos,
        min(len(a.features), len(b.features)),
        effective,
        truth=halves,
    )


def require_comparable(results: Mapping[str, Summary]) -> list[str]:
    """What has to be said of results in one table.

    Args:
        results: by the name that each has in the table.

    Returns:
        warnings: other videos, frames, sizes or decoders.

    Raises:
        InputError: other protocols, other choices of one, or other weights of the same network.
    """
    notes = []
    (first_name, first), *rest = results.items()
    for name, other in rest:
        pair = f"{first_name} and {name}"
        if other.protocol != first.protocol:
            raise InputError(
                f"{pair} cannot stand in one table: their protocols are {first.protocol} and {other.protocol}; measure "
                "both by one of them"
            )
        if other.choices != first.choices:
            titles = [t for t in first.choices | other.choices if first.choices.get(t) != other.choices.get(t)]
            raise InputError(
                f"{pair} cannot stand in one table: {', '.join(titles)} of the protocol {first.protocol} differ, as "
                "versions of this package do; measure both with one"
            )
        for network in sorted(first.weights.keys() & other.weights.keys()):
            if first.weights[network] != other.weights[network]:
                raise InputError(
                    f"{pair} cannot stand in one table: their weights of {network} differ (sha256 "
                    f"{first.weights[network][:12]}… and {other.weights[network][:12]}…); measure both with one file"
                )
        for what in ("frames", "sizes", "decoder"):
            if getattr(first, what) != getattr(other, what):
                names = "videos or their numbers of frames" if what == "frames" else what
                notes.append(f"{pair} differ in {names}: compare with care")
    return notes


def merge_tables(results: Mapping[str, Summary]) -> dict[str, dict[str, Estimate]]:
    """Results side by side: by metric, then by the results' names. Raises `InputError` as `require_comparable`."""
    require_comparable(results)
    return {
        metric: {name: result.metrics[metric] for name, result in results.items() if metric in result.metrics}
        for metric in METRICS
        if any(metric in result.metrics for result in results.values())
    }
