"""What the preparation of training data can be told: the flags of `prepare_data.py`."""

import dataclasses
from dataclasses import dataclass, field
from pathlib import Path
from typing import Annotated, Any

import tyro

from stableanimator_jax.config import Device, DtypeChoice
from stableanimator_jax.data.clip_format import bucket_size
from stableanimator_jax.data.images import FitMode
from stableanimator_jax.errors import InputError
from stableanimator_jax.limits import Above, AtLeast, Between, check_limits
from stableanimator_jax.preparation.filters import FilterConfig

SHORTEST_CLIP = 17
"""16 frames and one more for the reference; `clip_sampling` can take no less."""


@dataclass(frozen=True)
class ModelFiles:
    """Models that find people and faces. Only those are needed whose findings are not in the input already."""

    insightface_root: Annotated[Path | None, tyro.conf.arg(metavar="DIR")] = None
    """Folder with InsightFace's models (models/NAME/*.onnx)."""
    insightface_name: str = "antelopev2"
    """The model pack in it."""
    dwpose: Annotated[Path | None, tyro.conf.arg(metavar="DIR")] = None
    """Folder with DWPose's models (yolox_l.onnx and dw-ll_ucoco_384.onnx)."""


@dataclass(frozen=True)
class ClipConfig:
    """How videos become clips."""

    buckets: tuple[str, ...] = ("512x512", "576x1024")
    """Sizes of the clips, WIDTHxHEIGHT in multiples of 64. A video goes to the one nearest to it in aspect, and is
    cropped to it around its centre."""
    fps: Annotated[float | None, Between(1, 240)] = None
    """Bring videos to this many frames a second. By default they stay at their own average rate."""
    max_frames: int = 300
    """Longest clip; longer shots are split. A training step reads a clip's whole record to take 17 frames of it."""
    min_frames: Annotated[int, AtLeast(SHORTEST_CLIP)] = 61
    """Shortest clip: 61 frames hold 16 at stride 4. Down to 17 the loader takes 16 at a smaller stride."""
    cut: Annotated[float, Above(0, 255)] = 25.0
    """A scene cut is where a frame differs from the one before by so many grey levels (of 255) on average, and three
    times as much as usual in the shot. 255 turns this off."""

    def __post_init__(self):
        check_limits(self)
        if not self.buckets or len(set(self.buckets)) < len(self.buckets):
            raise InputError("buckets must be one or more different sizes, such as 512x512 576x1024")
        for bucket in self.buckets:
            bucket_size(bucket)
        if not 2 * self.min_frames <= self.max_frames <= 10000:
            raise InputError(
                f"max-frames must be from twice min-frames ({2 * self.min_frames}) to 10000, got {self.max_frames}"
            )


@dataclass(frozen=True)
class BeamConfig:
    """Prepare on many machines by Apache Beam (the [beam] extra). They must share the input and the work folder."""

    runner: Annotated[str | None, tyro.conf.arg(metavar="RUNNER")] = None
    """Beam's runner, such as DirectRunner, DataflowRunner, FlinkRunner. By default Beam is not used."""
    options: Annotated[tuple[str, ...], tyro.conf.arg(metavar="NAME=VALUE")] = ()
    """The runner's options, such as direct_running_mode=multi_processing direct_num_workers=4."""

    def __post_init__(self):
        if self.options and self.runner is None:
            raise InputError("beam.options are given without --beam.runner")


@dataclass(frozen=True)
class VideosConfig:
    """One run of `prepare_data.py videos`."""

    input: Annotated[tyro.conf.Positional[Path | None], tyro.conf.arg(metavar="FOLDER")] = None
    """Videos, at any depth, or folders in the published layout, NAME/images/frame_0.png, …; what NAME/poses,
    NAME/faces and NAME/embeddings.npy hold is kept."""
    output: Annotated[Path | None, tyro.conf.arg(metavar="ROOT")] = None
    """The dataset's folder to make."""
    work: Annotated[Path | None, tyro.conf.arg(metavar="DIR")] = None
    """Where each video's clips are kept until all are done, by content and settings: give it to keep them, so that
    another run with more videos need not repeat these. By default ROOT/.work, removed at the end."""
    workers: Annotated[int | None, Between(1, 1024)] = None
    """Processes that prepare videos. By default one for every 4 cores, and no more than videos."""
    validation: Annotated[float, AtLeast(0, below=1)] = 0.05
    """Share of the videos for validation, chosen by a hash of their names."""
    clips: Annotated[ClipConfig, tyro.conf.arg(name="")] = field(default_factory=ClipConfig)
    filters: FilterConfig = field(default_factory=FilterConfig)
    models: Annotated[ModelFiles, tyro.conf.arg(name="")] = field(default_factory=ModelFiles)
    beam: BeamConfig = field(default_factory=BeamConfig)

    def __post_init__(self):
        check_limits(self)

    def settings(self) -> dict[str, Any]:
        """What decides which clips a video gives, as plain data for JSON; where files lie does not."""
        return {"clips": dataclasses.asdict(self.clips), "filters": dataclasses.asdict(self.filters)}


@dataclass(frozen=True)
class FacesConfig:
    """One run of `prepare_data.py faces`."""

    input: Annotated[tyro.conf.Positional[Path | None], tyro.conf.arg(metavar="FOLDER")] = None
    """Folders in the published layout, NAME/images/frame_0.png, …, at any depth; or one folder of such frames."""
    overwrite: bool = False
    """Make masks and embeddings anew where there are some; by default they are left as they are."""
    insightface_root: Annotated[Path | None, tyro.conf.arg(metavar="DIR")] = None
    """Folder with InsightFace's models (models/NAME/*.onnx)."""
    insightface_name: str = "antelopev2"
    """The model pack in it."""


@dataclass(frozen=True)
class EncodeConfig:
    """One run of `prepare_data.py encode`."""

    data: Annotated[tyro.conf.Positional[Path | None], tyro.conf.arg(metavar="DATASET|LIST.txt")] = None
    """A dataset that `videos` made, all of it; or a list of folders in the published layout."""
    checkpoint: Annotated[str | None, tyro.conf.arg(metavar="DIR|embedded")] = None
    """The checkpoint whose VAE and CLIP image encoder training is to use; embedded is the small one in this package."""
    size: Annotated[str | None, tyro.conf.arg(metavar="WIDTHxHEIGHT")] = None
    """For a list: the size to train in, as for training."""
    fit: FitMode | None = None
    """For a list: how frames are brought to that aspect, as for training. By default they are cropped."""
    batch: Annotated[int, Between(1, 4096)] = 8
    """Frames to encode at a time. At 512x512 each takes about half a GB of the device's memory."""
    noise_augmentation: Annotated[float, Between(0, 10)] = 0.02
    """How much noise the VAE's copy of a reference has, as for training."""
    seed: Annotated[int, Between(0, 2**32 - 1)] = 0
    """Of that noise."""
    dtype: DtypeChoice = "auto"
    """What CLIP computes in; the VAE is float32 always. auto: float16 on a GPU, bfloat16 on a TPU, float32 on a CPU."""
    device: Device = "auto"
    """Where to compute. auto: an accelerator where JAX finds one."""
    compilation_cache: bool = True
    """Keep compiled programs for the next run, in ~/.cache/stableanimator_jax or JAX_COMPILATION_CACHE_DIR."""

    def __post_init__(self):
        check_limits(self)
        if self.size is not None:
            bucket_size(self.size)


def nearest_bucket(width: int, height: int, buckets: tuple[str, ...]) -> str:
    """The bucket whose aspect is nearest to a video's, by the ratio of the two; the first of equals."""

    def distance(bucket: str) -> float:
        bucket_width, bucket_height = bucket_size(bucket)
        ratio = width * bucket_height / (height * bucket_width)
        return max(ratio, 1 / ratio)

    return min(buckets, key=distance)
