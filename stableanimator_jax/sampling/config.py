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
    """Frames by which a window begins before the last one ends, at least 1, because every window's first place is
    taken by the video's first frame."""
    rows_at_once: int = 2
    """(window, guidance branch) rows in one call of the UNet: 1 takes the least memory, 2 is one guided window."""
    decode_chunk: int = 4
    """Frames decoded at once. Fewer takes less memory; flicker can show between chunks of 1 or 2."""
    noise_augmentation: float = 0.02
    """Strength of the noise added to the reference image before it is encoded."""
    fps: int = 7
    """Frames a second that the model is told (it is conditioned on fps - 1)."""
    motion_bucket: int = 127
    """SVD's motion bucket id: it was trained with 1 (still) to 255."""
    seed: int = 0
    """Same seed, same inputs, same device: same video."""

    def __post_init__(self):
        for name, least, most in (
            ("steps", 1, 1000),
            ("window", 2, 1024),
            ("overlap", 1, 1023),
            ("rows_at_once", 1, 1024),
            ("decode_chunk", 1, 1024),
            ("fps", 1, 1000),
            ("motion_bucket", 0, 1023),
            ("seed", 0, 2**32 - 1),
            ("guidance_min", 0, 1000),
            ("guidance_max", 0, 1000),
            ("noise_augmentation", 0, 1000),
        ):
            value = getattr(self, name)
            if not least <= value <= most:  # which NaN is not
                raise InputError(f"{name.replace('_', '-')} must be from {least} to {most}, got {value}")
        if self.overlap > self.window - 1:
            raise InputError(
                f"overlap must be smaller than the window ({self.window} frames, the first of them always "
                f"frame 0), got {self.overlap}"
            )

    @property
    def guided(self) -> bool:
        """Whether any frame needs the unconditional pass."""
        return (self.guidance_min, self.guidance_max) != (1.0, 1.0)
