"""What `evaluate.py` can be told: its flags."""

import re
from dataclasses import dataclass, field
from pathlib import Path
from typing import Annotated, Literal

import tyro

from stableanimator_jax.config import Device, DtypeChoice
from stableanimator_jax.data.images import FitMode
from stableanimator_jax.errors import InputError
from stableanimator_jax.evaluation.protocol import Protocol, protocol_named
from stableanimator_jax.limits import Above, Between, check_limits
from stableanimator_jax.sampling.config import HJBConfig, SamplingConfig

_DIR, _FILE = tyro.conf.arg(metavar="DIR"), tyro.conf.arg(metavar="FILE")
_VIDEOS = tyro.conf.arg(metavar="DIR|VIDEO")


@dataclass(frozen=True)
class WeightFiles:
    """The networks' files. What lacks one is not measured; docs/evaluation.md says where each comes from."""

    i3d: Annotated[Path | None, _FILE] = None
    """I3D, for FVD and KVD."""
    i3d_eps: Annotated[float, Above(0, 1)] = 1e-3
    """Of its batch norms: 1e-3 as published, 1e-5 as VideoGPT and cd-fvd compute, whose figures are others."""
    inception: Annotated[Path | None, _FILE] = None
    """FID's Inception."""
    resnet_3d: Annotated[Path | None, _FILE] = None
    """The 3D ResNet-50, for FID-VID."""
    lpips_vgg: Annotated[Path | None, _FILE] = None
    """torchvision's VGG-16, for LPIPS; given with --lpips-vgg-heads."""
    lpips_vgg_heads: Annotated[Path | None, _FILE] = None
    """LPIPS's own weights for it, v0.1/vgg.pth."""
    lpips_alex: Annotated[Path | None, _FILE] = None
    """torchvision's AlexNet, for LPIPS; given with --lpips-alex-heads."""
    lpips_alex_heads: Annotated[Path | None, _FILE] = None
    """LPIPS's own weights for it, v0.1/alex.pth."""
    recogniser: Annotated[Path | None, tyro.conf.arg(metavar="FILE.onnx")] = None
    """A face recogniser, for CSIM; given with --insightface-root, whose detector finds the faces. Another than the one
    that conditions the model: AdaFace's, or w600k_r50.onnx of InsightFace's buffalo_l."""
    recogniser_channels: Literal["rgb", "bgr"] = "rgb"
    """The order in which it was trained: rgb as ArcFace's, bgr as AdaFace's."""
    insightface_root: Annotated[Path | None, _DIR] = None
    """Folder with InsightFace's models (models/antelopev2/*.onnx), whose detector finds the faces."""
    dwpose: Annotated[Path | None, _DIR] = None
    """Folder with DWPose's models, yolox_l.onnx and dw-ll_ucoco_384.onnx, for pose errors."""

    def __post_init__(self):
        check_limits(self)
        for network in ("vgg", "alex"):
            both = [getattr(self, f"lpips_{network}"), getattr(self, f"lpips_{network}_heads")]
            if both.count(None) == 1:
                raise InputError(
                    f"LPIPS takes two files: give both --lpips-{network} and --lpips-{network}-heads, or neither"
                )
        if self.recogniser is not None and self.insightface_root is None:
            raise InputError("--recogniser needs --insightface-root DIR, whose detector finds the faces")


@dataclass(frozen=True)
class Samples:
    """How --checkpoint samples, and what of --dataset."""

    split: str = "validation"
    """Of a prepared dataset."""
    bucket: Annotated[str | None, tyro.conf.arg(metavar="WIDTHxHEIGHT")] = None
    """Of such a dataset. Needed where it has several."""
    clips: Annotated[int | None, Between(1, 10**6)] = None
    """At most so many of its clips, the first."""
    clip_frames: Annotated[int | None, Between(1, 10**4)] = None
    """At most so many frames of each, the first."""
    width: Annotated[int | None, tyro.conf.arg(metavar="PIXELS")] = None
    """Of the output, with a list of pairs; as when sampling."""
    height: Annotated[int | None, tyro.conf.arg(metavar="PIXELS")] = None
    """As --width, and given together with it."""
    fit: FitMode = "crop"
    """How reference and poses of a list are brought to the output's aspect."""
    dtype: DtypeChoice = "auto"
    """What the models compute in, as when sampling."""
    sampling: Annotated[SamplingConfig, tyro.conf.arg(name="")] = field(default_factory=SamplingConfig)
    hjb: HJBConfig = field(default_factory=HJBConfig)

    def __post_init__(self):
        check_limits(self)


@dataclass(frozen=True)
class EvaluateConfig:
    """One evaluation."""

    generated: Annotated[Path | None, _VIDEOS] = None
    """The videos to be measured: .mp4, .gif, .webp and others, or folders of numbered frames, in one folder; or one
    such video."""
    truth: Annotated[Path | None, _VIDEOS] = None
    """What they should look like, frame by frame: under the same names."""
    references: Annotated[Path | None, tyro.conf.arg(metavar="DIR|IMAGE")] = None
    """The photos that they were made from, under the same names."""
    driving: Annotated[Path | None, tyro.conf.arg(metavar="DIR|FILE")] = None
    """The poses as they were fed, under the same names: keypoints (docs/keypoints.md), or folders with keypoints.json,
    as --save-poses leaves them."""
    pairs: Annotated[Path | None, tyro.conf.arg(metavar="FILE.json|FILE.csv")] = None
    """Instead of those four, a list with name, generated, truth, reference and driving of each video; what there is
    not may be left out. Paths are relative to the list."""
    checkpoint: Annotated[str | None, tyro.conf.arg(metavar="DIR|embedded")] = None
    """Instead of --generated: weights to sample with, a checkpoint directory, a training run's folder, or
    the small ones in this package."""
    dataset: Annotated[Path | None, tyro.conf.arg(metavar="DIR|FILE.json|FILE.csv")] = None
    """With --checkpoint, what to animate and measure by: a prepared dataset, or a list as --pairs,
    without generated videos. Its driving column has keypoints, folders of skeletons, or, with --dwpose, videos of
    people."""
    output: Annotated[Path, tyro.conf.arg(metavar="RESULT_DIR")] = Path("outputs/evaluation")
    """Where everything goes: result.json, result.csv, result.md, report.html; what was found of each video in work/;
    with --checkpoint the videos in videos/."""
    protocol: Literal["standard", "disco"] = "standard"
    """How frames are prepared and measured: standard, each metric as it is meant; disco, as published tables of human
    animation have it, defects included. Figures of the two are never compared."""
    reference_frame: Literal["none", "first", "middle"] = "none"
    """Take this frame of the truth for the reference where none is given. With a prepared dataset, which has none: the
    first one unless told otherwise."""
    resume: bool = False
    """Go on with what is in --output: videos that were measured, and have not changed, are not measured again."""
    shard: Annotated[str, tyro.conf.arg(metavar="I/N")] = "1/1"
    """Measure every N-th video from the I-th on, into an --output of its own; the command `merge` puts the N results
    together."""
    batch: Annotated[int, Between(1, 4096)] = 4
    """Images or clips that a network sees at once."""
    worst: Annotated[int, Between(0, 100)] = 6
    """Videos shown in the report as pictures, the worst."""
    device: Device = "auto"
    """Where to compute."""
    weights: Annotated[WeightFiles, tyro.conf.arg(name="")] = field(default_factory=WeightFiles)
    samples: Annotated[Samples, tyro.conf.arg(name="")] = field(default_factory=Samples)

    def __post_init__(self):
        check_limits(self)
        place_in_shards(self.shard)
        folders = [n for n in ("generated", "truth", "references", "driving") if getattr(self, n) is not None]
        if self.checkpoint is not None:
            if self.dataset is None:
                raise InputError("--checkpoint needs --dataset: what it is to animate, and to be measured by")
            if folders or self.pairs is not None:
                raise InputError(f"leave out --{(folders or ['pairs'])[0]}: with --checkpoint, --dataset names it all")
        elif self.dataset is not None:
            raise InputError("--dataset is for --checkpoint, which samples; videos that are there: --generated")
        elif self.pairs is not None and folders:
            raise InputError(f"give --pairs or --{folders[0]}, not both: each names the videos")

    @property
    def how(self) -> Protocol:
        """The protocol with its choices."""
        return protocol_named(self.protocol)


@dataclass(frozen=True)
class MergeConfig:
    """Results of the shards of one evaluation to one."""

    results: Annotated[tyro.conf.Positional[tuple[Path, ...]], tyro.conf.arg(metavar="RESULT_DIR")] = ()
    """What runs with --shard left, with their work/."""
    output: Annotated[Path, tyro.conf.arg(metavar="RESULT_DIR")] = Path("outputs/evaluation")
    """A new folder for the result of all."""
    worst: Annotated[int, Between(0, 100)] = 6
    """Videos shown in the report as pictures, the worst."""


@dataclass(frozen=True)
class CompareConfig:
    """Results of one protocol beside each other; differences to the first, with intervals over the videos that both
    have."""

    results: Annotated[tyro.conf.Positional[tuple[Path, ...]], tyro.conf.arg(metavar="RESULT")] = ()
    """Folders with a result.json, or such files."""
    output: Annotated[Path | None, tyro.conf.arg(metavar="FILE.md")] = None
    """Write the table there too."""


def place_in_shards(shard: str) -> tuple[int, int]:
    """Which one, counted from 0, of how many: (1, 4) of 2/4. Raises `InputError`."""
    match = re.fullmatch(r"(\d+)/(\d+)", shard)
    if match is None or not 1 <= int(match[1]) <= int(match[2]):
        raise InputError(f"--shard is I/N with I from 1 to N, such as 2/4; got {shard}")
    return int(match[1]) - 1, int(match[2])
