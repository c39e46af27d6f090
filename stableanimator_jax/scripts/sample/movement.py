"""How a run's person is to move: its poses, at the rate of the output."""

import sys
from dataclasses import dataclass
from pathlib import Path

import numpy as np
from jaxtyping import UInt8

from stableanimator_jax.data.keypoint_formats import holds_keypoints
from stableanimator_jax.data.keypoints import Keypoints, keypoints_beside
from stableanimator_jax.data.poses import load_poses
from stableanimator_jax.data.timing import Timing, at_rate
from stableanimator_jax.errors import InputError
from stableanimator_jax.family import Member
from stableanimator_jax.perception.driving_poses import DrivenPoses, drawn
from stableanimator_jax.perception.keypoint_poses import output_keypoints
from stableanimator_jax.perception.people import PoseEstimator
from stableanimator_jax.scripts.sample.driving import driven_poses, driving_fps
from stableanimator_jax.scripts.sample.outputs import output_fps
from stableanimator_jax.scripts.sample.settings import SampleConfig


@dataclass(frozen=True, eq=False)
class Movement:
    """The poses, and when they are."""

    poses: UInt8[np.ndarray, "f H W 3"] | None
    """One a frame of the output, at its size; None where the weights take none."""
    place: Keypoints | Path | None
    """What they were drawn from, in pixels of the output and at its rate; or where the pictures are."""
    timing: Timing
    """Which of the poses given the output's frames are."""
    fps: float
    """Frames a second that the output plays at."""
    driven: DrivenPoses | None = None
    """What was found in the driving video, if there is one."""


def read_movement(
    config: SampleConfig,
    kind: Member,
    poses: Path | None,
    estimator: PoseEstimator | None,
    standing: Keypoints | None,
    size: tuple[int, int],
    frames: int,
) -> Movement:
    """Find the poses in the driving video, or read them, and bring them to the output's rate.

    Args:
        config: the run's, with the pace of its driving video as rates.
        kind: whose weights they are for.
        poses: where they are; None with a driving video, or where there are none.
        estimator: finds them in the driving video; None where there is none.
        standing: the reference's person, to whom driven poses are aligned.
        size: the output's width and height.
        frames: of the output, for weights that take no poses.

    Raises:
        InputError: they cannot be used, or cannot be brought to that rate.
    """
    if config.poses_fps is not None and kind.driver is None:
        raise InputError(f"{kind.title} takes no poses: leave out --poses-fps (--output-fps says how fast it plays)")
    if estimator is not None:
        own = driving_fps(config)  # which looks at the sound
        fps = output_fps(config, config.poses_fps or own, *size)
        driven = driven_poses(config, estimator, standing if config.aligns else None, *size)
        return Movement(driven.poses.frames, driven.keypoints, driven.timing, fps, driven)
    if poses is None:
        fps = output_fps(config, _rate(config, None, kind), *size)
        return Movement(None, None, at_rate(frames, fps, fps), fps)
    if holds_keypoints(poses):
        keypoints = output_keypoints(poses, *size, config.fit)
        rate = _rate(config, keypoints.fps, kind)
        fps = output_fps(config, rate, *size)
        timing = at_rate(len(keypoints.points), rate, fps, keypoints.cuts)
        keypoints = keypoints.at(timing, fps)
        return Movement(drawn(keypoints, config.skeletons), keypoints, timing, fps)
    loaded = load_poses(poses, *size, config.fit)
    if loaded.fps_note:
        print(f"warning: poses {poses} {loaded.fps_note}", file=sys.stderr)
    rate = _rate(config, loaded.fps, kind)
    fps = output_fps(config, rate, *size)
    timing = at_rate(len(loaded.frames), rate, fps)
    if timing.share.any() or len(timing.frame) > timing.count:
        beside = keypoints_beside(poses)
        keypoints = f"--poses {beside}" if beside else "keypoints as --poses"
        raise InputError(
            f"poses {poses} are pictures, {rate:g} a second, between which none can be made for --output-fps {fps:g}: "
            f"give {keypoints}, or say by --poses-fps {fps:g} that they are to be as fast"
        )
    return Movement(loaded.frames if timing.unchanged else loaded.frames[timing.frame], poses, timing, fps)


def _rate(config: SampleConfig, own: float | None, kind: Member) -> float:
    """Of the poses. Those that have no speed are as fast as the output is to be."""
    return config.poses_fps or own or config.output_fps or kind.output_fps or float(config.sampling.fps)
