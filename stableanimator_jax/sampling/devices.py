"""Which devices a video is made on, and what each of them does: the rows of a step first, then the frames of a row."""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

from jax.sharding import Mesh

from stableanimator_jax.errors import InputError
from stableanimator_jax.family import Tiling
from stableanimator_jax.parallel import make_mesh
from stableanimator_jax.sampling.config import SamplingConfig
from stableanimator_jax.sampling.windows import tile

FRAME_COST = 0.04
"""What each further device that shares a row's frames costs of the time that all of them save: the traffic of temporal
layers. Predicted from programs compiled for TPUs; rows share nothing."""

WORTH = 1.05
"""How many times slower a layout may be that shares fewer frames: a prediction is no closer."""


@dataclass(frozen=True)
class DevicePlan:
    """How the calls of the UNet are spread over devices."""

    rows: int
    """Groups of devices with rows of their own, one a call."""
    frames: int
    """Devices that share the frames of a row."""
    speedup: float
    """Of a guided step, against one device: predicted."""

    @property
    def devices(self) -> int:
        return self.rows * self.frames

    def mesh(self, devices: Sequence[Any]) -> Mesh:
        """Over the first of `devices` that it takes."""
        return make_mesh(self.rows, 1, self.frames, devices)

    def __str__(self) -> str:
        shared = "" if self.frames == 1 else f", each row's frames over {self.frames}"
        rows = f"{self.rows} row{'s' * (self.rows > 1)} at once"
        return f"{self.devices} devices: {rows}{shared}; a step {self.speedup:.1f} times as fast as on one (predicted)"


def plan_devices(
    available: int,
    video_frames: int,
    sampling: SamplingConfig,
    frame_devices: int | None = None,
    *,
    tiling: Tiling = "filled",
    all_of_them: bool = False,
) -> DevicePlan:
    """About the fastest use of up to `available` devices for a video: rows first, then the frames of a row.

    A row is one window in one guidance branch; a step has windows x branches of them. Devices that no row is left for
    compute nothing twice: they are better used on another one's frames, or not at all.

    Args:
        available: devices, at least 1.
        video_frames: of the video.
        sampling: its settings: window, overlap and guidance.
        frame_devices: that share a row's frames, where it is not to be chosen.
        tiling: how windows lie; see `windows.tile`.
        all_of_them: leave no device out, whatever it has to do: each of several processes must take part.

    Raises:
        InputError: the frames of a window cannot be shared by so many devices, or there are not so many.
    """
    windows = tile(tiling, video_frames, sampling.window, sampling.overlap)
    window = windows.window
    if frame_devices is not None and (not 1 <= frame_devices <= available or window % frame_devices):
        raise InputError(
            f"frame-devices must divide the window of {window} frames and be at most the {available} devices, "
            f"got {frame_devices}"
        )
    rows = len(windows.indices) * (2 if sampling.guided else 1)

    def time(plan: tuple[int, int]) -> float:
        at_once, shared = plan
        calls = -(-rows // at_once)
        return calls * (1 + FRAME_COST * (shared - 1)) / shared

    layouts = [
        (at_once, shared)
        for shared in range(1, min(available, window) + 1)
        if (window % shared == 0 if frame_devices is None else shared == frame_devices)
        for at_once in range(1, (available // shared if all_of_them else min(available // shared, rows)) + 1)
        if not all_of_them or at_once * shared == available
    ]
    if not layouts:
        raise InputError(
            f"{available} devices cannot be shared out with {frame_devices} of them on the frames of each row: make "
            f"frame-devices a divisor of {available}"
        )
    least = min(map(time, layouts))
    near = [plan for plan in layouts if time(plan) <= WORTH * least]
    best = min(near, key=lambda plan: (plan[1], time(plan), plan[0]))
    return DevicePlan(*best, speedup=time((1, 1)) / time(best))
