"""What a training run can be told. The defaults are the published training's, on one device."""

import dataclasses
import json
import os
from dataclasses import dataclass, field
from pathlib import Path
from typing import Annotated, Any, Literal

import tyro

from stableanimator_jax.config import Device, IdInjection
from stableanimator_jax.data.images import FitMode
from stableanimator_jax.data.loader import LoaderConfig
from stableanimator_jax.distributed import DistributedConfig
from stableanimator_jax.errors import InputError
from stableanimator_jax.files import absolute_path, url_scheme
from stableanimator_jax.limits import AtLeast, Between, check_limits
from stableanimator_jax.shipped import EMBEDDED
from stableanimator_jax.training.checkpoints import CheckpointConfig
from stableanimator_jax.training.metrics import WandbConfig
from stableanimator_jax.weights.run_folder import checkpoint_path

Trainable = Literal["attentions", "all", "adapters", "lora"]


@dataclass(frozen=True)
class DataConfig:
    """What to train on: a prepared dataset, or folders in the published layout."""

    dataset: Annotated[Path | None, tyro.conf.arg(metavar="DIR")] = None
    """A dataset that `prepare videos` made. All its buckets are trained on."""
    lists: Annotated[tuple[Path, ...], tyro.conf.arg(metavar="FILE.txt ...")] = ()
    """Instead of a dataset: text files that name folders in the published layout, one file a bucket."""
    sizes: Annotated[tuple[str, ...], tyro.conf.arg(metavar="WIDTHxHEIGHT ...")] = ()
    """With --data.lists: the size of each one's clips."""
    fit: FitMode = "crop"
    """With --data.lists: how frames are brought to that size's aspect."""
    encoded: bool = False
    """Train on latents and embeddings that `prepare encode` left beside the data: VAE and CLIP do not run."""
    changed: bool = False
    """With --resume: go on although clips, their order, --data.batch-size, --data.seed or --data.proportions are not
    what they were. What is other is told."""
    loader: Annotated[LoaderConfig, tyro.conf.arg(name="")] = field(default_factory=LoaderConfig)

    def __post_init__(self):
        if self.dataset is not None and self.lists:
            raise InputError("give --data.dataset or --data.lists, not both")
        if len(self.lists) != len(self.sizes):
            raise InputError(
                f"--data.lists names {len(self.lists)} files, but --data.sizes {len(self.sizes)} sizes: one each"
            )


@dataclass(frozen=True)
class ModelConfig:
    """Where the model departs from that of --init-from: the paper's ablations."""

    id_injection: IdInjection = "distribution_aware"
    """How face tokens enter the UNet: aligned in distribution (the paper), by plain addition, or not at all."""
    refine_face_tokens: bool = True
    """Refine the face tokens by the image's content (the paper's Face Encoder); else they are ArcFace's alone."""


@dataclass(frozen=True)
class TrainableConfig:
    """Which parameters are trained. PoseNet and Face Encoder always are; VAE, CLIP and ArcFace never."""

    unet: Trainable = "attentions"
    """Of the UNet: its attention layers (published code), everything (the paper), the ID adapters only, or the ID
    adapters and low-rank changes of the attention layers."""
    lora_rank: Annotated[int, Between(1, 2**12)] = 32
    """Rank of those changes."""
    lora_alpha: Annotated[float, AtLeast(0)] = 32.0
    """They are multiplied by this over the rank."""

    def __post_init__(self):
        check_limits(self, "trainable")


@dataclass(frozen=True)
class ObjectiveConfig:
    """The loss and what goes into it."""

    face_weight: Annotated[float, AtLeast(0)] = 1.0
    """How much more the error inside the face boxes counts; 0 is the ablation without face masks."""
    dropout: Annotated[float, AtLeast(0)] = 0.1
    """Probability that a clip goes without the image embedding, the reference's latents, or both: each."""
    noise_augmentation: Annotated[float, AtLeast(0)] = 0.02
    """Strength of the noise on the reference before it is encoded."""
    fps: Annotated[int, AtLeast(1)] = 7
    """Frames a second that the model is told (it is conditioned on fps - 1)."""
    motion_bucket: Annotated[int, AtLeast(0)] = 127
    """SVD's motion bucket id."""

    def __post_init__(self):
        check_limits(self, "objective")
        if self.dropout > 1 / 3:
            raise InputError(f"objective.dropout must be at most 1/3: three cases take it each; got {self.dropout}")

    @property
    def added_time_ids(self) -> tuple[float, float, float]:
        """SVD's conditions on the video as a whole."""
        return self.fps - 1, self.motion_bucket, self.noise_augmentation


@dataclass(frozen=True)
class OptimizerConfig:
    """The optimiser and its learning rate."""

    kind: Literal["adamw", "muon"] = "adamw"
    """AdamW, as published; or Muon, whose steps are orthogonal matrices, with Adam for norms and biases: a model that
    begins from nothing learns in fewer steps."""
    learning_rate: Annotated[float, AtLeast(0)] = 1e-5
    """After the warm-up."""
    schedule: Literal["constant", "cosine", "timed"] = "constant"
    """After the warm-up: as it is, or down to 0 at the last step along half a cosine. timed: as it is, then along half
    a cosine to 0 over the last fifth of --max-minutes, however many steps those have."""
    warmup_steps: Annotated[int, AtLeast(0)] = 500
    """Steps in which the learning rate rises evenly from 0."""
    beta1: Annotated[float, AtLeast(0, below=1)] = 0.9
    """Adam's decay of the gradients' mean."""
    beta2: Annotated[float, AtLeast(0, below=1)] = 0.999
    """Adam's decay of the gradients' mean square."""
    eps: Annotated[float, AtLeast(0)] = 1e-8
    """Adam's, added to the root of the mean square."""
    weight_decay: Annotated[float, AtLeast(0)] = 1e-2
    """Decoupled, times the learning rate."""
    clip_norm: Annotated[float, AtLeast(0)] = 1.0
    """Gradients of a larger norm, over all parameters together, are scaled down to it; 0: never."""
    accumulate: Annotated[int, AtLeast(1)] = 1
    """Parts that a batch is cut into, one after the other in a device's memory: a batch so many times as large."""
    ema_decay: Annotated[float, AtLeast(0, below=1)] = 0.0
    """Of the running mean of the parameters that is then validated and exported, such as 0.9999; 0: there is none."""

    def __post_init__(self):
        check_limits(self, "optimizer")


@dataclass(frozen=True)
class MeshConfig:
    """How the devices share the work. The product of the three is their number."""

    data: Annotated[int | None, AtLeast(1)] = None
    """Groups of devices with a copy of the parameters each; by default as many as there are devices for."""
    fsdp: Annotated[int, AtLeast(1)] = 1
    """Devices that share one copy of the parameters and the optimiser's state."""
    frame: Annotated[int, AtLeast(1)] = 1
    """Devices that share the frames of a clip."""

    def __post_init__(self):
        check_limits(self, "mesh")


@dataclass(frozen=True)
class ValidationConfig:
    """Loss on clips that are not trained on, at noise that is always the same, and videos of them."""

    every: Annotated[int, AtLeast(0)] = 1000
    """Steps from one validation to the next; 0: none, and --data needs no clips for it."""
    lists: Annotated[tuple[Path, ...], tyro.conf.arg(metavar="FILE.txt ...")] = ()
    """With --data.lists: the same for validation. A dataset has a split for it."""
    clips: Annotated[int, AtLeast(1)] = 8
    """How many of them, always the same; rounded up to a multiple of the devices that have rows of their own."""
    keep_best: bool = False
    """Keep the weights with the lowest loss in OUTPUT/best, for inference. Those that the run begins from are validated
    and count too."""
    levels: Annotated[int, AtLeast(1)] = 4
    """Noise levels that each is denoised from, spread evenly over those of training."""
    videos: Annotated[int, AtLeast(0)] = 1
    """How many of them to make videos of; 0: none."""
    steps: Annotated[int, AtLeast(1)] = 25
    """Denoising steps of a video."""
    guidance: Annotated[float, AtLeast(0)] = 3.0
    """Classifier-free guidance of a video."""

    def __post_init__(self):
        check_limits(self, "validation")


@dataclass(frozen=True)
class TrainConfig:
    """One run of `train.py`."""

    output: Annotated[Path, tyro.conf.arg(metavar="DIR")] = Path("outputs/training")
    """Where checkpoints, curves and videos go."""
    checkpoint_directory: Annotated[str | None, tyro.conf.arg(metavar="DIR|URL")] = None
    """Where checkpoints go instead of --output: a folder that all processes share, or a bucket, gs://BUCKET/RUN."""
    resume: bool = False
    """Go on from the latest checkpoint in --output; if there is none, begin."""
    resume_step: Annotated[int | None, tyro.conf.arg(metavar="STEP")] = None
    """Go on from the checkpoint of this step."""
    init_from: Annotated[str, tyro.conf.arg(metavar="DIR|embedded")] = EMBEDDED
    """The weights to begin from: a checkpoint directory, of StableAnimator or of Stable Video Diffusion alone (PoseNet
    and Face Encoder then begin anew); a training run's folder (its last weights); or the small one in this package."""
    steps: Annotated[int, AtLeast(1)] = 100_000
    """Steps of the whole run, those before it was resumed too."""
    max_minutes: Annotated[float, AtLeast(0)] = 0.0
    """End after the step during which so many minutes are over, as after the last one, and save and validate then. They
    are counted from the start of this command, loading and compiling included. 0: there is no limit."""
    seed: Annotated[int, Between(0, 2**32 - 1)] = 0
    """Of everything random but the data's order, which has its own."""
    dtype: Literal["auto", "bfloat16", "float32"] = "auto"
    """What the models compute in (the VAE, norms, loss and optimiser in float32 always), and what frozen parameters
    are held in. auto: bfloat16, but float32 on a CPU."""
    remat: bool = True
    """Compute the UNet's blocks once more in the backward pass rather than keep what is inside them."""
    log_every: Annotated[int, AtLeast(1)] = 10
    """Steps between points of the curves; each is a mean over them."""
    device: Device = "auto"
    """Where to compute. auto: an accelerator where JAX finds one."""
    compilation_cache: bool = True
    """Keep compiled programs for the next run, in ~/.cache/stableanimator_jax or JAX_COMPILATION_CACHE_DIR."""
    data: DataConfig = field(default_factory=DataConfig)
    model: ModelConfig = field(default_factory=ModelConfig)
    trainable: TrainableConfig = field(default_factory=TrainableConfig)
    objective: ObjectiveConfig = field(default_factory=ObjectiveConfig)
    optimizer: OptimizerConfig = field(default_factory=OptimizerConfig)
    mesh: MeshConfig = field(default_factory=MeshConfig)
    distributed: DistributedConfig = field(default_factory=DistributedConfig)
    checkpoints: CheckpointConfig = field(default_factory=CheckpointConfig)
    validation: ValidationConfig = field(default_factory=ValidationConfig)
    wandb: WandbConfig = field(default_factory=WandbConfig)

    def __post_init__(self):
        check_limits(self)
        if url_scheme(self.output) is not None:
            raise InputError(
                "--output must be a folder of this machine, or mounted on it, not a URL; checkpoints alone can go to a "
                "bucket: --checkpoint-directory gs://BUCKET/RUN"
            )
        if self.optimizer.schedule == "timed" and not self.max_minutes:
            raise InputError("--optimizer.schedule timed needs --max-minutes, over which it is laid")
        if self.validation.keep_best and not self.validation.every:
            raise InputError("--validation.keep-best needs validation: give --validation.every")
        if self.data.dataset is not None and self.validation.lists:
            raise InputError("--validation.lists goes with --data.lists; a dataset has a validation split of its own")
        if self.validation.lists and len(self.validation.lists) != len(self.data.lists):
            raise InputError(f"--validation.lists must name {len(self.data.lists)} files, one for each of --data.lists")
        if self.data.lists and self.validation.every and not self.validation.lists:
            raise InputError("give --validation.lists for --data.lists, or turn validation off: --validation.every 0")

    def absolute(self) -> "TrainConfig":
        """With every path absolute, so that it means the same from another directory."""
        init_from, place = self.init_from, self.checkpoint_directory
        if init_from != EMBEDDED:
            init_from = str(_absolute(checkpoint_path(init_from)))
        if place is not None and url_scheme(place) is None:
            place = str(_absolute(Path(place)))
        return dataclasses.replace(_absolute(self), init_from=init_from, checkpoint_directory=place)

    def to_dict(self) -> dict[str, Any]:
        """As plain data for JSON."""
        return json.loads(json.dumps(dataclasses.asdict(self), default=str))


def _absolute(value: Any) -> Any:
    """A setting with its paths absolute and `..` worked out, so that two ways to write a path are not two settings."""
    if isinstance(value, Path):
        return Path(os.path.normpath(absolute_path(value)))
    if isinstance(value, tuple):
        return tuple(map(_absolute, value))
    if dataclasses.is_dataclass(value) and not isinstance(value, type):
        parts = {field.name: _absolute(getattr(value, field.name)) for field in dataclasses.fields(value)}
        return dataclasses.replace(value, **parts)
    return value
