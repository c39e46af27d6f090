"""What a sampling run can be told, with the published defaults."""

import dataclasses
from dataclasses import dataclass
from typing import Annotated, Literal, get_args

import numpy as np
from jaxtyping import Float, Float32

from stableanimator_jax.config import Dtype, Kind
from stableanimator_jax.errors import InputError
from stableanimator_jax.family import FAMILY
from stableanimator_jax.limits import Between, check_limits

Crop = Literal["box", "aligned"]
HJB_PRESETS = {"published": 3, "paper": 10}
Schedule = Literal["karras", "aligned"]
Solver = Literal["euler", "dpmpp_2m", "lcm"]
PresetName = Literal["published", "balanced", "fast"]
_EVERYWHERE = (0.0, 1000.0)
LCM_GRID = 40
"""Steps that AnimateLCM was distilled from."""


@dataclass(frozen=True)
class Preset:
    """Fields of `SamplingConfig` that go together, by the same names."""

    steps: int
    schedule: Schedule
    sampler: Solver
    guidance_interval: tuple[float, float]
    cache_interval: int = 1
    cache_branch: int = 0


PRESETS: dict[PresetName, Preset] = {
    "published": Preset(25, "karras", "euler", _EVERYWHERE),
    "balanced": Preset(15, "aligned", "euler", _EVERYWHERE),
    "fast": Preset(10, "aligned", "euler", (0.28, 60.0)),
}
"""From the most UNet evaluations to the fewest: 50, 30 and 17 a window. The first is as published; docs/speed.md has
what the others cost."""


@dataclass(frozen=True)
class Strength:
    """How strongly a condition acts, and from which to which share of the denoising steps (docs/control.md).

    `SamplingConfig`, which knows what it is called, checks it.
    """

    strength: Annotated[float, Between(0, 3)] = 1.0
    """What it is multiplied by: 1 as published, 0 without it."""
    start: Annotated[float, Between(0, 1)] = 0.0
    """From this share of the steps on: 0.2 leaves it out of the first fifth."""
    end: Annotated[float, Between(0, 1)] = 1.0
    """Up to this share of the steps: 0.8 leaves it out of the last fifth."""

    def __str__(self) -> str:
        return f"{self.strength:g}, from {self.start:.0%} to {self.end:.0%} of the steps"

    def at_steps(self, steps: int) -> Float32[np.ndarray, "steps"]:
        """What it is multiplied by at each of so many steps."""
        step = np.arange(steps)
        acts = (step >= round(self.start * steps)) & (step < round(self.end * steps))
        return np.where(acts, self.strength, 0).astype(np.float32)


PUBLISHED_STRENGTH = Strength()


@dataclass(frozen=True)
class SamplingConfig:
    """Settings of the denoising loop and the decoder. Defaults are those that StableAnimator is published with."""

    steps: Annotated[int, Between(1, 1000)] = 25
    """Denoising steps."""
    schedule: Schedule = "karras"
    """Which noise levels the steps go through: Karras', as published, or aligned, those of Align Your Steps, made for
    SVD in 8, 10 and 15 steps and interpolated for others."""
    sampler: Solver = "euler"
    """How a step is taken: Euler's, as published; DPM-Solver++(2M), of second order; or the consistency model's, with
    new noise, for weights that were distilled for it (AnimateLCM), which has noise levels of its own."""
    guidance_min: Annotated[float, Between(0, 1000)] = 3.0
    """Classifier-free guidance of the video's first frame; it rises evenly to guidance-max at the last. 1 is none."""
    guidance_max: Annotated[float, Between(0, 1000)] = 3.0
    """Classifier-free guidance of the video's last frame."""
    guidance_interval: Annotated[tuple[float, float], Between(0, 1000)] = _EVERYWHERE
    """Lowest and highest noise level that are guided, such as 0.28 60. Steps at others take half the time. By default
    all of them are, from 700 down to 0.002."""
    cache_interval: Annotated[int, Between(1, 1000)] = 1
    """Run the whole UNet every so many steps, and in between only its layers of high resolution, on what the others
    made last (DeepCache). 1 runs it every step, and so are all steps after the face optimisation changed something."""
    cache_branch: Annotated[int, Between(0, 1000)] = 0
    """How deep the steps in between go: 0 the least; 10, in SVD's UNet, all but the lowest block."""
    window: Annotated[int, Between(2, 1024)] = 16
    """Frames that the UNet sees at once (the published tile size). Of SVD and AnimateLCM it sees all of them."""
    overlap: Annotated[int, Between(1, 1023)] = 4
    """Frames by which a window begins before the last one ends, at least 1, because every window's first place is
    taken by the video's first frame."""
    rows_at_once: Annotated[int, Between(1, 1024)] = 2
    """(window, guidance branch) rows in one call of the UNet: 1 takes the least memory, 2 is one guided window. With
    several devices it is one on each."""
    decode_chunk: Annotated[int, Between(1, 1024)] = 4
    """Frames decoded at once. Fewer takes less memory; flicker can show between chunks of 1 or 2."""
    noise_augmentation: Annotated[float, Between(0, 1000)] = 0.02
    """Strength of the noise added to the reference image before it is encoded."""
    fps: Annotated[int, Between(1, 1000)] = 7
    """Frames a second that the model is told (it is conditioned on fps - 1)."""
    motion_bucket: Annotated[int, Between(0, 1023)] = 127
    """SVD's motion bucket id: it was trained with 1 (still) to 255."""
    pose: Strength = PUBLISHED_STRENGTH
    """How strongly poses act."""
    face: Strength = PUBLISHED_STRENGTH
    """How strongly face tokens act in the ID adapters."""
    image: Strength = PUBLISHED_STRENGTH
    """How strongly the reference acts as CLIP sees it, in the UNet's cross-attention alone."""
    seed: Annotated[int, Between(0, 2**32 - 1)] = 0
    """Same seed, same inputs, same device: same video."""

    def __post_init__(self):
        check_limits(self)
        for name, strength in self.strengths.items():
            check_limits(strength, name)
            if round(strength.start * self.steps) >= round(strength.end * self.steps):
                raise InputError(
                    f"{name}.start {strength.start:g} to {name}.end {strength.end:g} holds none of the {self.steps} "
                    f"steps: for none at all give {name}.strength 0"
                )
        if self.overlap > self.window - 1:
            raise InputError(
                f"overlap must be smaller than the window ({self.window} frames, the first of them always "
                f"frame 0), got {self.overlap}"
            )
        if self.cache_branch and self.cache_interval == 1:
            raise InputError(
                f"cache-branch {self.cache_branch} has no use while every step runs the whole UNet: give "
                "cache-interval too, such as 2"
            )
        if self.sampler == "lcm":
            if self.steps > LCM_GRID:
                raise InputError(f"sampler lcm takes at most {LCM_GRID} steps, got {self.steps}")
            if self.schedule != "karras":
                raise InputError(f"sampler lcm has noise levels of its own: leave out schedule {self.schedule}")
        for name, choices in (("schedule", get_args(Schedule)), ("sampler", get_args(Solver))):
            if (value := getattr(self, name)) not in choices:
                raise InputError(f"{name} must be one of {', '.join(choices)}, got {value!r}")
        if len(self.guidance_interval) != 2 or self.guidance_interval[0] > self.guidance_interval[1]:
            raise InputError(
                "guidance-interval must be two noise levels, the lower one first, got "
                + " ".join(f"{level:g}" for level in self.guidance_interval)
            )
        if self.guidance_interval != _EVERYWHERE:
            if not self.guided:
                raise InputError(
                    "guidance-interval has no use without guidance (guidance-min and guidance-max are 1): make it "
                    "{:g} {:g}".format(*_EVERYWHERE)
                )
            if not any(map(self.guides, self.sigmas[:-1])):
                raise InputError(
                    "guidance-interval {:g} {:g} holds none of the {} noise levels, which fall from {:.4g} to "
                    "{:.4g}".format(*self.guidance_interval, self.steps, self.sigmas[0], self.sigmas[-2])
                )

    @classmethod
    def published(cls, kind: Kind) -> "SamplingConfig":
        """As the system of this kind is published."""
        return cls(**FAMILY[kind].published)

    @property
    def added_time_ids(self) -> tuple[float, float, float]:
        """SVD's micro-conditioning: fps - 1, motion bucket, noise augmentation."""
        return (self.fps - 1, self.motion_bucket, self.noise_augmentation)

    @property
    def strengths(self) -> dict[str, Strength]:
        """By the names of the fields."""
        return {"pose": self.pose, "face": self.face, "image": self.image}

    @property
    def guided(self) -> bool:
        """Whether any frame needs the unconditional pass."""
        return (self.guidance_min, self.guidance_max) != (1.0, 1.0)

    def guides(self, sigma: Float[np.floating, ""]) -> bool:
        """Whether there is guidance at a noise level."""
        low, high = self.guidance_interval
        return self.guided and bool(low <= sigma <= high)

    @property
    def sigmas(self) -> Float32[np.ndarray, "levels"]:
        """The noise levels, one more than steps: the last is 0."""
        from stableanimator_jax import diffusion  # JAX comes with it, for which no --help should wait

        if self.sampler == "lcm":
            return diffusion.lcm_sigmas(self.steps, LCM_GRID)
        make = {"karras": diffusion.karras_sigmas, "aligned": diffusion.aligned_sigmas}[self.schedule]
        return make(self.steps)

    def with_preset(self, name: PresetName) -> "SamplingConfig":
        """These settings with those of one of `PRESETS` in their places; an interval only where there is guidance."""
        if name not in PRESETS:
            raise InputError(f"preset must be one of {', '.join(PRESETS)}, got {name!r}")
        if self.sampler == "lcm":
            raise InputError(f"preset {name} is not for AnimateLCM's few steps (sampler lcm): leave it out")
        interval = {} if self.guided else {"guidance_interval": _EVERYWHERE}
        return dataclasses.replace(self, **vars(PRESETS[name]) | interval)


@dataclass(frozen=True)
class HJBConfig:
    """The HJB-based face optimisation inside denoising (paper section 3.4); docs/hjb.md derives and compares it."""

    iterations: Annotated[int | Literal["published", "paper"], Between(0, 1000)] = 0
    """Adam iterations at every optimised step; 0 turns the face optimisation off. The published script has 3, the
    paper 10."""
    start: Annotated[int, Between(0, 999)] = 0
    """First denoising step that is optimised, counted from 0."""
    end: int | None = None
    """Last denoising step that is optimised. By default 20 of 25 as published, and as far into any other number."""
    every: Annotated[int, Between(1, 1000)] = 1
    """Optimise every n-th step only, from the first one on."""
    last: Annotated[int | None, Between(1, 1000)] = None
    """Of these steps optimise the last so many only: they cost as much as the others, and decide the face. By default
    all of them, as published."""
    learning_rate: Annotated[float, Between(0, 100)] = 0.1
    """Adam's at step 0; it falls evenly to nothing at the end of denoising."""
    chunk: Annotated[int, Between(1, 1024)] = 4
    """Frames optimised at once. Fewer takes less memory."""
    crop: Crop = "box"
    """What ArcFace sees: the face's box as published, or the face aligned by its landmarks as ArcFace was trained."""
    margin: Annotated[float | None, Between(0, 100)] = None
    """Decode only the faces' surroundings: a margin on each side, as a share of their size (such as 0.25). Faster,
    approximate, and leaves the background alone. By default whole frames are decoded, as published."""
    dtype: Dtype = "float32"
    """What VAE decoder and ArcFace compute in here; norms' statistics and Adam are float32 always."""

    def __post_init__(self):
        if self.iterations not in HJB_PRESETS and not isinstance(self.iterations, int):
            raise InputError(f"hjb.iterations must be a number, published or paper, got {self.iterations!r}")
        check_limits(self, "hjb")
        if self.end is not None and self.end < self.start:
            raise InputError(f"hjb.end ({self.end}) is before hjb.start ({self.start}): no step would be optimised")

    @property
    def adam_iterations(self) -> int:
        """The number of iterations, presets looked up."""
        return self.iterations if isinstance(self.iterations, int) else HJB_PRESETS[self.iterations]

    def optimised_steps(self, steps: int) -> range:
        """The denoising steps, of `steps`, that are optimised: of few steps perhaps fewer than `last`.

        Raises:
            InputError: `start` or `end` lies beyond the last step.
        """
        end = max(0, steps * 21 // 25 - 1) if self.end is None else self.end
        for name, value in (("start", self.start), ("end", end)):
            if value >= steps:
                raise InputError(f"hjb.{name} is {value}, but the last of {steps} denoising steps is {steps - 1}")
        if end < self.start:
            raise InputError(
                f"hjb.start is {self.start}, but the last step optimised of {steps} is {end}; give --hjb.end too"
            )
        return range(self.start, end + 1, self.every)[-(self.last or steps) :]
