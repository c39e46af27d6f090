"""One video measured: every score that its protocol and the networks at hand allow, and why the others are missing."""

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any, NamedTuple

import numpy as np
from jaxtyping import Float, Float32, UInt8

from stableanimator_jax.data.keypoints import Keypoints
from stableanimator_jax.errors import InputError
from stableanimator_jax.evaluation import clips, pixels
from stableanimator_jax.evaluation.identity import Recogniser, cosines, drift, mean_face, unit
from stableanimator_jax.evaluation.networks.network import features as network_features
from stableanimator_jax.evaluation.poses import pose_error
from stableanimator_jax.evaluation.protocol import Protocol
from stableanimator_jax.perception.people import PoseEstimator


class Metric(NamedTuple):
    """How a number is shown."""

    title: str
    higher_is_better: bool | None
    """None of what says nothing by itself."""
    digits: int
    least: float = -np.inf
    most: float = np.inf
    """What it cannot be below, or above."""


METRICS: dict[str, Metric] = {
    "l1": Metric("L1", False, 6, 0),
    "psnr": Metric("PSNR, dB", True, 2, 0),
    "psnr_legacy": Metric("PSNR (legacy), dB", True, 2, 0),
    "ssim": Metric("SSIM", True, 4, -1, 1),
    "lpips_alex": Metric("LPIPS (AlexNet)", False, 4, 0),
    "lpips_vgg": Metric("LPIPS (VGG)", False, 4, 0),
    "flicker": Metric("Flicker", None, 5, 0),
    "flicker_error": Metric("Flicker, off by", False, 5, 0),
    "csim_reference": Metric("CSIM to the reference", True, 4, -1, 1),
    "csim_reference_found": Metric("CSIM to the reference, faces found", True, 4, -1, 1),
    "csim_truth": Metric("CSIM to the truth", True, 4, -1, 1),
    "csim_truth_found": Metric("CSIM to the truth, faces found", True, 4, -1, 1),
    "face_rate": Metric("Frames with a face", True, 3, 0, 1),
    "csim_slope": Metric("CSIM, drift in 100 frames", True, 4),
    "csim_change": Metric("CSIM, last quarter less first", True, 4),
    "pose_body": Metric("Pose error, body", False, 4, 0),
    "pose_hands": Metric("Pose error, hands", False, 4, 0),
    "pose_face": Metric("Pose error, face", False, 4, 0),
    "pck": Metric("PCK, body", True, 3, 0, 1),
    "pose_missed": Metric("Keypoints not found", False, 3, 0, 1),
    "fid": Metric("FID", False, 2, 0),
    "fid_vid": Metric("FID-VID", False, 2, 0),
    "fvd": Metric("FVD", False, 1, 0),
    "kvd": Metric("KVD", False, 3),
}
"""In the order of the tables. The last four are of all videos together, in a `Summary` only."""


class VideoPair(NamedTuple):
    """A generated video, and what there is to hold it against."""

    name: str
    generated: UInt8[np.ndarray, "f h w 3"]
    truth: UInt8[np.ndarray, "f h2 w2 3"] | None = None
    reference: UInt8[np.ndarray, "h3 w3 3"] | None = None
    driving: Keypoints | None = None
    """The poses as they were fed."""
    fps: float | None = None
    """Frames a second, for reports."""


@dataclass(frozen=True)
class Tools:
    """The networks at hand; what lacks one is not measured."""

    lpips: Mapping[
        str, Callable[[Float32[np.ndarray, "n h w 3"], Float32[np.ndarray, "n h w 3"]], Float[np.ndarray, "n"]]
    ] = field(default_factory=dict)
    """By the network's name, "vgg" or "alex": distances of images in the protocol's range, which may be [0, 1]."""
    inception: Callable[[Float32[np.ndarray, "n 299 299 3"]], Float[np.ndarray, "n d"]] | None = None
    """RGB in [-1, 1] to 2048 features."""
    i3d: Callable[[Float32[np.ndarray, "n t 224 224 3"]], Float[np.ndarray, "n d"]] | None = None
    """RGB in [-1, 1] to 400 logits."""
    resnet_3d: Callable[[Float32[np.ndarray, "n t 112 112 3"]], Float[np.ndarray, "n d"]] | None = None
    """RGB in 8-bit levels less the mean of its data, to 2048 features."""
    recogniser: Recogniser | None = None
    estimator: PoseEstimator | None = None
    batch: int = 4
    """Images or clips that a network is given at once: always as many, the last filled up, or JAX compiles anew."""
    weights: Mapping[str, str] = field(default_factory=dict)
    """SHA-256 of the weights by name, as "lpips_vgg", "inception", "i3d", "resnet_3d", "recogniser", "estimator"."""

    def lacking(self, protocol: Protocol) -> list[str]:
        """What of the protocol is not measured, in words: of no video, so that no video's notes say it."""
        networks = [(f"weights of LPIPS ({net})", f"LPIPS ({net})", self.lpips.get(net)) for net in protocol.lpips]
        networks += [
            ("weights of Inception", "FID", self.inception),
            ("weights of the 3D ResNet-50", "FID-VID", self.resnet_3d),
            ("weights of I3D", "FVD and KVD", self.i3d),
            ("face recogniser", "CSIM", self.recogniser),
            ("pose estimator", "pose error", self.estimator),
        ]
        return [f"no {what}: no {figure}" for what, figure, network in networks if network is None]


@dataclass(frozen=True)
class Measured:
    """What was found of one video."""

    name: str
    length: int
    """Frames."""
    size: tuple[int, int]
    """Width and height of the generated frames, as they were given."""
    scores: dict[str, float] = field(default_factory=dict)
    """By the names in `METRICS`: means over the video's frames."""
    truths: dict[str, float] = field(default_factory=dict)
    """What the truth gets in the generated video's place, where that is not trivial."""
    baselines: dict[str, float] = field(default_factory=dict)
    """What the truth's first frame gets, standing still."""
    frames: dict[str, list[float]] = field(default_factory=dict)
    """The scores frame by frame; NaN where there is none. Flicker has one less."""
    features: dict[str, Float[np.ndarray, "n d"]] = field(default_factory=dict)
    """For `Totals`: "fvd/generated", "fvd/truth" and so on; "identity/reference" and "identity/truth"."""
    notes: list[str] = field(default_factory=list)
    """Why something was not measured that the tools allow."""

    def plain(self) -> dict[str, Any]:
        """For JSON, without the features and with None for NaN; `Measured.of_plain` reads it back."""
        frames = {name: [v if np.isfinite(v) else None for v in values] for name, values in self.frames.items()}
        return {name: value for name, value in vars(self).items() if name != "features"} | {"frames": frames}

    @classmethod
    def of_plain(cls, data: Mapping[str, Any]) -> "Measured":
        """Raises `InputError` where it is none."""
        try:
            width, height = data["size"]
            curves = {n: [float("nan") if v is None else v for v in values] for n, values in data["frames"].items()}
            return cls(**{**data, "size": (int(width), int(height)), "frames": curves})
        except (KeyError, TypeError, ValueError, AttributeError) as e:
            raise InputError(f"this is not what was measured of a video: {type(e).__name__} {e}") from e


def measure(pair: VideoPair, protocol: Protocol, tools: Tools) -> Measured:
    """Everything of one video that the protocol has and the tools allow.

    Raises:
        InputError: the truth or the driving poses have another number of frames, the video is empty, or its frames are
            too small for SSIM.
    """
    if not len(pair.generated):
        raise InputError("the generated video has no frames")
    height, width = pair.generated.shape[1:3]
    found = Measured(pair.name, len(pair.generated), (width, height))
    if pair.truth is None:
        found.notes.append("no truth: no L1, PSNR, SSIM, LPIPS and no distances of distributions")
        _score(found, "flicker", pixels.flicker(clips.prepare(pair.generated, protocol)))
    else:
        generated, truth = clips.prepare_pair(pair.generated, pair.truth, protocol)
        of_truth = pair.truth.shape[2], pair.truth.shape[1]
        if of_truth != found.size and protocol.side is None:
            found.notes.append(f"the truth is {of_truth[0]}x{of_truth[1]}, cut and resized to {width}x{height}")
        _measure_pixels(found, generated, truth, protocol, tools)
        _collect_features(found, generated, truth, protocol, tools)
    _measure_identity(found, pair, protocol, tools)
    _measure_poses(found, pair, protocol, tools)
    return found


def _score(found: Measured, name: str, curve: np.ndarray, truth: np.ndarray | None = None) -> None:
    """Note a curve over frames, and its mean over those that are known; nothing where none is."""
    found.frames[name] = [float(value) for value in curve]
    if np.isfinite(curve).any():
        found.scores[name] = float(np.nanmean(curve))
    if truth is not None and np.isfinite(truth).any():
        found.truths[name] = float(np.nanmean(truth))


def _measure_pixels(
    found: Measured, generated: np.ndarray, truth: np.ndarray, protocol: Protocol, tools: Tools
) -> None:
    still = np.broadcast_to(truth[:1], truth.shape)
    measures = {"l1": pixels.l1, "psnr": pixels.psnr, "ssim": pixels.ssim}
    if protocol.psnr_legacy:
        measures["psnr_legacy"] = pixels.psnr_legacy
    for name, of in measures.items():
        _score(found, name, of(generated, truth, protocol))
        if len(truth) > 1:  # of the frames that it does not simply copy
            found.baselines[name] = float(of(still[1:], truth[1:], protocol).mean())
    _score(found, "flicker", pixels.flicker(generated), pixels.flicker(truth))
    _score(found, "flicker_error", pixels.flicker_error(generated, truth))
    for net in protocol.lpips:
        if net in tools.lpips:
            _score(found, f"lpips_{net}", _lpips(tools.lpips[net], generated, truth, protocol, tools.batch))


def _lpips(distance: Callable[..., np.ndarray], a: np.ndarray, b: np.ndarray, protocol: Protocol, batch: int):
    low, high = (np.float32(end) for end in protocol.lpips_range)

    def ranged(frames: np.ndarray) -> np.ndarray:
        return frames.astype(np.float32) / np.float32(255) * (high - low) + low

    return network_features(lambda a, b: distance(ranged(a), ranged(b)), a, b, batch=batch).astype(np.float64)


def _collect_features(
    found: Measured, generated: np.ndarray, truth: np.ndarray, protocol: Protocol, tools: Tools
) -> None:
    def clips_of(prepared: Callable[..., np.ndarray]) -> Callable[[np.ndarray], np.ndarray]:
        return lambda frames: clips.windows(prepared(frames, protocol), protocol)

    networks = {
        "fid": (tools.inception, lambda frames: clips.fid_images(frames, protocol)),
        "fid_vid": (tools.resnet_3d, clips_of(clips.resnet_frames)),
        "fvd": (tools.i3d, clips_of(clips.i3d_frames)),
    }
    for name, (network, inputs) in networks.items():
        if network is None:
            continue
        if name != "fid" and found.length < protocol.window:
            found.notes.append(f"shorter than {protocol.window} frames: no {METRICS[name].title}")
        else:
            for side, frames in (("generated", generated), ("truth", truth)):
                found.features[f"{name}/{side}"] = network_features(network, inputs(frames), batch=tools.batch)


def _measure_identity(found: Measured, pair: VideoPair, protocol: Protocol, tools: Tools) -> None:
    if tools.recogniser is None:
        return
    faces = tools.recogniser.embeddings(list(pair.generated))
    true_faces = None if pair.truth is None else tools.recogniser.embeddings(list(pair.truth))
    found.frames["face_rate"] = [float(face is not None) for face in faces]
    found.scores["face_rate"] = float(np.mean(found.frames["face_rate"]))
    if true_faces is not None:
        found.truths["face_rate"] = float(np.mean([face is not None for face in true_faces]))
        _csim(found, "csim_truth", faces, true_faces, protocol)
    reference = None if pair.reference is None else tools.recogniser.embeddings([pair.reference])[0]
    if reference is None:
        found.notes.append("no reference: no CSIM to it" if pair.reference is None else "no face in the reference")
        return
    _csim(found, "csim_reference", faces, [reference] * len(faces), protocol)
    found.features["identity/reference"] = unit(reference)[None]
    if true_faces is not None and (mean := mean_face(true_faces)) is not None:
        found.features["identity/truth"] = mean[None]
        found.truths["csim_reference"] = float(
            cosines(true_faces, [reference] * len(true_faces), protocol.missing_face).mean()
        )
    if (change := drift(cosines(faces, [reference] * len(faces), float("nan")))) is not None:
        found.scores.update(csim_slope=change.slope, csim_change=change.change)


def _csim(
    found: Measured,
    name: str,
    faces: Sequence[np.ndarray | None],
    others: Sequence[np.ndarray | None],
    protocol: Protocol,
) -> None:
    _score(found, name, cosines(faces, others, protocol.missing_face))
    _score(found, f"{name}_found", cosines(faces, others, float("nan")))


def _measure_poses(found: Measured, pair: VideoPair, protocol: Protocol, tools: Tools) -> None:
    if tools.estimator is None:
        return
    if pair.driving is None:
        found.notes.append("no driving keypoints: no pose error")
        return
    errors = [pose_error(tools.estimator.people(list(pair.generated)), found.size, pair.driving, protocol)]
    if pair.truth is not None:
        size = pair.truth.shape[2], pair.truth.shape[1]
        errors.append(pose_error(tools.estimator.people(list(pair.truth)), size, pair.driving, protocol))
    for part in errors[0].distance:
        _score(found, f"pose_{part}", *(error.distance[part] for error in errors))
    _score(found, "pck", *(error.pck for error in errors))
    _score(found, "pose_missed", *(error.missed for error in errors))
