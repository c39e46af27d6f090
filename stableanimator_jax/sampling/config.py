"""What a sampling run can be told, with the published defaults."""

from dataclasses import dataclass

from stableanimator_jax.errors import InputError


@dataclass(frozen=True)
class SamplingConfig:
    """Settings of the denoising loop and the decoder. Defaults are the published ones."""

    steps: int = 25
    """Denoising steps."""
    guidance_min: float = 3.0
    """Classifier-free guidance of the video's first frame; it rises evenly to guidance-max at the last. 1 is none."""
    guidance_max: float = 3.0
    """Classifier-free guidance of the video's last frame."""
    window: int = 16
    """Frames that the UNet sees at once (the published tile size)."""
    overlap: int = 4
    """Frames that neighbouring windows share. Every window also begins with the video's first frame."""
    rows_at_once: int = 2
    """(window, guidance branch) rows in one call of the UNet: 1 takes the least memory, 2 is one guided window."""
    decode_chunk: int = 4
    """Frames decoded at once. Fewer takes less memory; flicker can show between chunks of 1 or 2."""
    noise_augmentation: float = 0.02
    """Strength of the noise added to the reference image before it is encoded."""
    fps: int = 7
    """Frames a second that the model is told (it is conditioned on fps - 1)."""
    motion_bucket: int = 127
    """SVD's motion bucket id, 1 (still) to 255."""
    seed: int = 0
    """Same seed, same inputs, same device: same video."""

    def __post_init__(self):
        for name, least in (
            ("steps", 1),
            ("window", 2),
            ("overlap", 0),
            ("rows_at_once", 1),
            ("decode_chunk", 1),
            ("fps", 1),
            ("motion_bucket", 0),
            ("seed", 0),
        ):
            if getattr(self, name) < least:
                raise InputError(f"{name.replace('_', '-')} must be at least {least}, got {getattr(self, name)}")
        if self.overlap > self.window - 1:
            raise InputError(
                f"overlap must be smaller than the window ({self.window} frames, the first of them always "
                f"frame 0), got {self.overlap}"
            )
        if not 0 <= self.noise_augmentation < float("inf"):
            raise InputError(f"noise-augmentation must be a number from 0 up, got {self.noise_augmentation}")
        for name in ("guidance_min", "guidance_max"):
            if not 0 <= getattr(self, name) < float("inf"):
                raise InputError(f"{name.replace('_', '-')} must be a number from 0 up, got {getattr(self, name)}")
        if self.seed >= 2**32:
            raise InputError(f"seed must be below 2^32, got {self.seed}")

    @property
    def guided(self) -> bool:
        """Whether any frame needs the unconditional pass."""
        return (self.guidance_min, self.guidance_max) != (1.0, 1.0)
