"""Stage of the report: a whole video with fewer evaluations of the UNet, by every preset and by DeepCache."""

from collections.abc import Iterator
from dataclasses import replace

from benchmarks._case import Case, Row, timed
from benchmarks._sampling import make_video, random_animator, settings
from stableanimator_jax.sampling.config import PRESETS, SamplingConfig


def variants(case: Case) -> dict[str, SamplingConfig]:
    """By their flags; tiny ones keep their few steps."""
    published = settings(case, case.steps)
    presets = {f"--preset {name}": published.with_preset(name) for name in PRESETS}
    if case.tiny:
        presets = {name: replace(made, steps=2, guidance_interval=(0, 1000)) for name, made in presets.items()}
    return presets | {"--cache-interval 3": replace(published, cache_interval=3)}


def measure(case: Case) -> Iterator[Row]:
    """Warm videos, of a first each that compiles. What they are worth is in docs/speed.md."""
    animator, dtype = random_animator(case)
    for flags, sampling in variants(case).items():
        first, *videos = (make_video(animator, case, sampling).whole for _ in range(1 + case.repeats))
        yield timed(f"first video, {flags}, which compiles", first, dtype=dtype)
        yield timed(f"whole video, {flags}", *videos, dtype=dtype)
