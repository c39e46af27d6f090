"""What a run of `sample.py` can be told: its flags, and its record's `configuration`."""

import dataclasses
import json
import os
from dataclasses import dataclass, field
from pathlib import Path
from typing import Annotated, Any, Literal

import tyro

from stableanimator_jax.config import Device, DtypeChoice, Kind, StableAnimatorConfig, from_dict, read_json
from stableanimator_jax.data.images import FitMode
from stableanimator_jax.distributed import DistributedConfig
from stableanimator_jax.errors import InputError
from stableanimator_jax.files import absolute_path
from stableanimator_jax.limits import Between, check_limits
from stableanimator_jax.perception.alignment import Align
from stableanimator_jax.perception.person_choice import parse_choice
from stableanimator_jax.perception.skeleton import SkeletonStyle
from stableanimator_jax.sampling.config import HJBConfig, SamplingConfig
from stableanimator_jax.shipped import EMBEDDED
from stableanimator_jax.weights.run_folder import checkpoint_path

_WHO = "largest|left|right|centre|NUMBER|X,Y"
REFERENCE_PERSON_NEEDS = "--reference-person needs --driving VIDEO, aligned, or --insightface-root DIR"
LARGEST_SIDE = 16384  # of H.264 and WebP, and far above what any accelerator holds


@dataclass(frozen=True)
class SampleConfig:
    """One run of `sample.py`."""

    reference: Annotated[Path | None, tyro.conf.arg(metavar="IMAGE")] = None
    """Photo of the person, of any size. Not needed with --checkpoint embedded, which has an example."""
    reference_person: Annotated[str | None, tyro.conf.arg(metavar=_WHO)] = None
    """Who in the photo it is, where it shows several: by default the largest; or the one farthest to the left or right,
    or in the middle; the second from the left by 2; or whoever is at a point, in pixels of the photo. With --driving
    the poses are brought to their place, and the identity is their face."""
    poses: Annotated[Path | None, tyro.conf.arg(metavar="DIR|VIDEO|KEYPOINTS")] = None
    """Skeletons as DWPose draws them, one a frame of the output: a directory of numbered images (frame_0.png,
    frame_1.png, …), or a video. Or keypoints, which are drawn so: keypoints.json of --save-poses, OpenPose's JSON, or
    NumPy's arrays (docs/keypoints.md). Not needed with --driving, nor with --checkpoint embedded, which has an
    example."""
    reference_pose: Annotated[Path | None, tyro.conf.arg(metavar="IMAGE")] = None
    """With --poses, the skeleton of the person in the photo, for weights that begin with it (MimicMotion, ControlNeXt).
    By default reference_pose.png beside the poses, where --save-poses leaves it; with --driving it is found."""
    frames: Annotated[int | None, Between(1, 1024), tyro.conf.arg(metavar="FRAMES")] = None
    """Of the output, for weights that take no poses (SVD, AnimateLCM). By default as many as they were trained on."""
    driving: Annotated[Path | None, tyro.conf.arg(metavar="VIDEO")] = None
    """A video of anybody moving, instead of --poses: DWPose finds the poses in it (needs --dwpose)."""
    dwpose: Annotated[Path | None, tyro.conf.arg(metavar="DIR")] = None
    """Folder with DWPose's models, yolox_l.onnx and dw-ll_ucoco_384.onnx."""
    driving_start: Annotated[float | None, tyro.conf.arg(metavar="SECONDS")] = None
    """Where in the driving video to begin."""
    driving_end: Annotated[float | None, tyro.conf.arg(metavar="SECONDS")] = None
    """Where in the driving video to end."""
    driving_fps: Annotated[float | None, tyro.conf.arg(metavar="FPS")] = None
    """Frames a second to take of the driving video, which the output then plays at. By default its own."""
    driving_stride: Annotated[int | None, Between(1, 1000), tyro.conf.arg(metavar="FRAMES")] = None
    """Take every so many-th frame of the driving video, instead of --driving-fps; the output keeps the video's speed.
    By default all of them; for weights of other systems as these are published (docs/family.md): every second, which
    MimicMotion's output plays at 15 a second."""
    driving_max_frames: Annotated[int | None, tyro.conf.arg(metavar="FRAMES")] = None
    """At most so many frames of the driving video."""
    driving_person: Annotated[str | None, tyro.conf.arg(metavar=_WHO)] = None
    """Whom to follow in the driving video, as in --reference-person: by where they are in the first frame that shows
    anybody, and again after each scene cut. Points are in pixels of the video."""
    align: Align = "linear"
    """How the driving person is brought to the place and the size of the person in the reference: by heights, as
    published; by a similarity, which also turns, and minds single wild joints less; by that and the lengths of the
    reference's bones, for people of other proportions; or not at all (docs/alignment.md)."""
    skeletons: Annotated[SkeletonStyle, tyro.conf.arg(name="")] = field(default_factory=SkeletonStyle)
    sound: bool = False
    """Carry the driving video's sound over to the output, an .mp4."""
    save_poses: Annotated[Path | None, tyro.conf.arg(metavar="DIR")] = None
    """Keep what was found in the driving video in a new directory: skeletons and keypoints.json, which --poses takes
    again, and preview.mp4, skeletons over the driving frames and over the reference."""
    output: Annotated[Path, tyro.conf.arg(metavar="FILE|DIR")] = Path("outputs/animation.mp4")
    """What to write: an .mp4, .gif (of at most 50 frames a second) or .webp file (90). Or, without a suffix or with one
    of digits, as in 2026.11.27, a new directory of PNGs. Beside it come OUTPUT.contact_sheet.png, OUTPUT.json and, with
    --hjb.iterations, OUTPUT.hjb.png."""
    overwrite: bool = False
    """Replace files that an earlier run left there, as OUTPUT.json tells. Without it that is done in --output's default
    place only. Nothing else is ever replaced."""
    resume: bool = False
    """Go on with a run of the same settings that was interrupted, from the latents that it kept beside the output;
    where none are kept, begin. Frames of a directory that were written stay."""
    keep_every: Annotated[float, Between(0, 86400), tyro.conf.arg(metavar="SECONDS")] = 60.0
    """How often latents are kept for --resume. A shorter run leaves nothing."""
    checkpoint: Annotated[str, tyro.conf.arg(metavar="DIR|embedded")] = EMBEDDED
    """The weights: a checkpoint directory, a training run's folder (its last weights), or the small ones in this
    package, which know drawn people only."""
    width: Annotated[int | None, tyro.conf.arg(metavar="PIXELS")] = None
    """Of the output, a multiple of 64 (of 16 with --checkpoint embedded). By default the poses' own; with --driving
    of the reference's aspect, so that little of it is cut off: 512x512 for a square, up to 576x1024 for 9:16."""
    height: Annotated[int | None, tyro.conf.arg(metavar="PIXELS")] = None
    """As --width, and given together with it."""
    fit: FitMode = "crop"
    """How reference and poses are brought to the output's aspect: cut to it, or padded to it with black bars."""
    insightface_root: Annotated[Path | None, tyro.conf.arg(metavar="DIR")] = None
    """Folder with InsightFace's models (models/antelopev2/*.onnx), which find the person's face in the reference."""
    face_embedding: Annotated[Path | None, tyro.conf.arg(metavar="FILE.npy")] = None
    """The identity as a raw ArcFace embedding, 512 numbers, instead of --insightface-root (with the face optimisation
    also beside it: InsightFace then finds the faces only)."""
    identity: Literal["insightface", "checkpoint"] = "insightface"
    """Whose ArcFace embeds the reference's face where --face-embedding does not: InsightFace's, aligned, as the
    published weights were trained; or the checkpoint's own, as those in this package were, by the face's box, which
    is that of --face-boxes or found by InsightFace. Where no face is known, the embedding is zeros, and who it is
    comes from the reference image alone."""
    face_boxes: Annotated[Path | None, tyro.conf.arg(metavar="FILE.json")] = None
    """Where the face is in the reference, and, for the face optimisation, in every frame of the poses (docs/hjb.md has
    the format). Without it and --face-masks, from keypoints.json beside the poses, else found by InsightFace in the
    frames as they are predicted."""
    face_masks: Annotated[Path | None, tyro.conf.arg(metavar="DIR")] = None
    """As --face-boxes for the frames, from frame_0.png, frame_1.png, … of the poses' size, white where the face is."""
    poses_fps: Annotated[float | None, Between(0.01, 1000), tyro.conf.arg(metavar="FPS")] = None
    """How fast the poses are, in frames a second. By default as the driving video, the video of skeletons or the
    keypoints say; where nothing says it, as --output-fps, else --fps. Another than theirs is another speed."""
    output_fps: Annotated[float | None, Between(0.01, 1000), tyro.conf.arg(metavar="FPS")] = None
    """Frames a second of the output, which takes as long as the poses, by default as many as those have. For more,
    poses are interpolated between keypoints (--driving, or keypoints as --poses; between pictures there is none to be
    made); for fewer, some are left out (docs/finishing.md)."""
    match_colours: bool = False
    """Bring the output's colours to the reference's: mean and spread of each channel in Lab, by one change for all
    frames, found from the first 16 (docs/finishing.md)."""
    keep_background: Annotated[Path | None, tyro.conf.arg(metavar="MASK|DIR|VIDEO")] = None
    """Keep the reference's own background, where the camera stands still: a mask of the reference's size, white where
    the person is, by which the generated one, found by the keypoints, is laid over it. Or masks of the output's size,
    one a frame, white where the frame is to stay (docs/finishing.md)."""
    dtype: DtypeChoice = "auto"
    """What the models compute in; the VAE in float32, but for its decoder with float16. auto: float16 on a GPU, as
    published, bfloat16 on a TPU, float32 on a CPU."""
    device: Device = "auto"
    """Where to compute. auto: an accelerator where JAX finds one."""
    devices: Annotated[int | Literal["all"], tyro.conf.arg(metavar="all|NUMBER")] = "all"
    """How many of the accelerators share the work. all: those that make this video faster. Each holds a copy
    of the weights. On a CPU: 1."""
    frame_devices: Annotated[int | None, tyro.conf.arg(metavar="NUMBER")] = None
    """Of the devices, those that share the frames of one window. By default as many as is fastest: windows and guidance
    branches are spread first."""
    distributed: DistributedConfig = field(default_factory=DistributedConfig)
    """Several processes, on as many machines, that make one video: the same command on each. Process 0 writes it."""
    compilation_cache: bool = True
    """Keep compiled programs for the next run, in ~/.cache/stableanimator_jax or JAX_COMPILATION_CACHE_DIR."""
    check: bool = False
    """Look before you wait: do all but load the weights, denoise and decode. Writes OUTPUT.check.html, a page with what
    was found, warnings, sizes, and predicted time and memory, and OUTPUT.check.mp4, the poses over the driving video
    and, aligned, over the reference."""
    warm_up: bool = False
    """Compile what this very run needs, and keep it; nothing is animated or written. A run of another size, of other
    settings, or on other devices compiles its own; one of another number of frames at most a last, shorter chunk (on
    several devices also the step, where that number changes how they share it; so does a video that is one window of
    its own length, as all of SVD's and AnimateLCM's are). Where faces are to be found in the frames, --hjb.margin is
    compiled when they are."""
    sampling: Annotated[SamplingConfig, tyro.conf.arg(name="")] = field(default_factory=SamplingConfig)
    hjb: HJBConfig = field(default_factory=HJBConfig)

    def __post_init__(self):
        check_limits(self)
        if (self.width is None) != (self.height is None):
            raise InputError("give both --width and --height, or neither")
        if max(self.width or 0, self.height or 0) > LARGEST_SIDE:
            raise InputError(
                f"width and height must be at most {LARGEST_SIDE} pixels, got {self.width} and {self.height}"
            )
        if self.insightface_root is not None and self.face_embedding is not None and not self.optimises_faces:
            raise InputError("give --insightface-root or --face-embedding, not both: each is the identity")
        if self.driving is not None and self.poses is not None:
            raise InputError("give --driving or --poses, not both: each says how the person moves")
        if self.driving is not None and self.dwpose is None:
            raise InputError(
                "--driving needs --dwpose DIR, a folder with yolox_l.onnx and dw-ll_ucoco_384.onnx "
                "(from huggingface.co/yzd-v/DWPose)"
            )
        if self.driving is None:
            names = (
                "dwpose", "driving_start", "driving_end", "driving_fps", "driving_stride", "driving_max_frames",
                "driving_person", "save_poses",
            )  # fmt: skip
            useless = [name for name in names if getattr(self, name) is not None] + ["sound"] * self.sound
            if useless:
                raise InputError(f"--{useless[0].replace('_', '-')} needs --driving VIDEO")
        if self.driving_fps is not None and self.driving_stride is not None:
            raise InputError("give --driving-fps or --driving-stride, not both: each says which frames are taken")
        if self.driving is not None and self.reference_pose is not None:
            raise InputError("leave out --reference-pose: with --driving it is found in the reference")
        for name in ("reference_person", "driving_person"):
            if (text := getattr(self, name)) is not None:
                parse_choice(text, f"--{name.replace('_', '-')}")
        if self.reference_person is not None and self.insightface_root is None and self.driving is None:
            raise InputError(REFERENCE_PERSON_NEEDS)
        if self.face_boxes is not None and self.face_masks is not None:
            raise InputError("give --face-boxes or --face-masks, not both: each says where the faces are")
        if self.warm_up and not self.compilation_cache:
            raise InputError("--warm-up is of no use with --no-compilation-cache: nothing that it compiles is kept")
        if self.check and (self.warm_up or self.distributed.start != "off"):
            raise InputError("--check computes nothing: leave out --warm-up and --distributed.start")
        if self.warm_up and self.save_poses is not None:
            raise InputError("--warm-up writes nothing: leave out --save-poses")
        if self.distributed.start != "off" and self.devices != "all":
            raise InputError("several processes share all of their devices: leave out --devices")
        if self.optimises_faces:
            self.hjb.optimised_steps(self.sampling.steps)

    @property
    def may_replace(self) -> bool:
        """Whether files that an earlier run left at the output's place give way to this one's."""
        return self.overwrite or self.output == absolute_path(SampleConfig.output)

    @property
    def contact_sheet_path(self) -> Path:
        return self.output.parent / f"{self.output.name}.contact_sheet.png"

    @property
    def hjb_plot_path(self) -> Path:
        return self.output.parent / f"{self.output.name}.hjb.png"

    @property
    def check_page_path(self) -> Path:
        return self.output.parent / f"{self.output.name}.check.html"

    @property
    def check_video_path(self) -> Path:
        return self.output.parent / f"{self.output.name}.check.mp4"

    @property
    def aligns(self) -> bool:
        """Whether poses are brought to the reference's person, who must then be found."""
        return self.driving is not None and self.align != "off"

    @property
    def optimises_faces(self) -> bool:
        """Whether the face optimisation is on."""
        return self.hjb.adam_iterations > 0

    @property
    def embeds_reference(self) -> bool:
        """Whether the checkpoint's own ArcFace is to make the identity."""
        return self.identity == "checkpoint" and self.face_embedding is None

    @property
    def record_path(self) -> Path:
        return self.output.parent / f"{self.output.name}.json"

    def absolute(self) -> "SampleConfig":
        """With every path absolute, so that it means the same from another directory.

        Of the output's path `..` is worked out too, because its last part names the files beside it.
        """
        paths = {
            f.name: absolute_path(v) for f in dataclasses.fields(self) if isinstance(v := getattr(self, f.name), Path)
        }
        paths["output"] = Path(os.path.normpath(paths["output"]))
        if self.checkpoint != EMBEDDED:
            # Of a training run's folder its last weights by their own name: those of another day would be others.
            place = str(checkpoint_path(str(absolute_path(Path(self.checkpoint)))))
            paths["checkpoint"] = place  # pyright: ignore[reportArgumentType]
        return dataclasses.replace(self, **paths)

    @classmethod
    def from_dict(cls, data: dict[str, Any]) -> "SampleConfig":
        """The inverse of `to_dict`. Raises `InputError` for an unknown field or a value of another type."""
        return from_dict(cls, data)

    def to_dict(self) -> dict[str, Any]:
        """As plain data for JSON."""
        return json.loads(json.dumps(dataclasses.asdict(self), default=str))  # paths become text, tuples lists


def kind_of(checkpoint: str) -> Kind:
    """Whose weights a checkpoint holds, as its config.json says; what is wrong with it is said when it is opened."""
    try:
        return StableAnimatorConfig.from_dict(read_json(checkpoint_path(checkpoint) / "config.json")["config"]).kind
    except (InputError, LookupError, TypeError):
        return "stableanimator"


def published(kind: Kind, **fields: Any) -> SampleConfig:
    """A run of the system of this kind, sampled as it is published."""
    return SampleConfig(sampling=SamplingConfig.published(kind), **fields)


DRAWN_PEOPLE = SampleConfig(
    checkpoint=EMBEDDED,
    width=64,
    height=64,
    identity="checkpoint",
    # Windows as long as the clips that it was trained on; little guidance, few steps, and few of them optimised: more
    # do not make it better (docs/drawn_world.md).
    sampling=SamplingConfig(steps=8, window=8, overlap=2, guidance_min=1.2, guidance_max=1.2),
    hjb=HJBConfig(iterations="published", last=1),
)
"""For the weights in this package; `configs/drawn_people.py`."""
