"""The driving video of a run: whether it can be used, its poses, and what is kept of them."""

import sys
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
from jaxtyping import UInt8
from PIL import Image

from stableanimator_jax.data.frame_rate import exact_rate
from stableanimator_jax.data.images import fit
from stableanimator_jax.data.keypoints import Keypoints, save_keypoints
from stableanimator_jax.data.resampling import read_driving
from stableanimator_jax.data.sound import check_sound
from stableanimator_jax.data.timing import shown_at
from stableanimator_jax.errors import InputError
from stableanimator_jax.family import Member
from stableanimator_jax.files import replacing_directory
from stableanimator_jax.perception.driving_poses import DrivenPoses, extract_poses, skeletons
from stableanimator_jax.perception.dwpose import DWPose
from stableanimator_jax.perception.people import PoseEstimator
from stableanimator_jax.perception.preview import write_preview
from stableanimator_jax.scripts.sample.settings import SampleConfig

REFERENCE_POSE = "reference_pose.png"
"""Beside the poses of a run that begins with the reference's own."""


def with_published_pace(config: SampleConfig, kind: Member) -> SampleConfig:
    """`config` with the frames that are taken of its driving video, and how fast they are to be played, as rates.

    What it does not say of them is as the system is published.

    Raises:
        InputError: the driving video cannot be read, or its sound would not keep time.
    """
    if config.sound and kind.reference_pose_first and not kind.drops_first:
        raise InputError(
            f"leave out --sound: {kind.title}'s output begins with the photo, so sound would come too early"
        )
    if config.driving is None or config.driving_fps is not None or kind.driver is None:
        return config
    stride = config.driving_stride or kind.driving_stride
    if stride == 1:
        return config
    with read_driving(config.driving, max_frames=1) as (info, _):
        if info.fps_note:
            print(
                f"warning: the driving video {config.driving} {info.fps_note}; --driving-fps chooses another",
                file=sys.stderr,
            )
        as_published = config.driving_stride is None
        if as_published and kind.faster_strides:
            stride *= max(1, int(info.source_fps / 24))
        fps = config.poses_fps or (kind.output_fps if as_published and not config.sound else None)
        return replace(config, poses_fps=fps, driving_fps=info.source_fps / stride, driving_stride=None)


def open_estimator(config: SampleConfig) -> PoseEstimator:
    """DWPose for a run with `driving` and `dwpose`. Raises `InputError` where it, or the sound, cannot be used."""
    assert config.driving is not None  # the caller's choice
    assert config.dwpose is not None  # SampleConfig sees to it
    if config.sound:
        check_sound(config.driving, config.output)  # whether the output can hold it; that there is none is said later
    return DWPose.from_folder(config.dwpose)


def driven_poses(
    config: SampleConfig, estimator: PoseEstimator, standing: Keypoints | None, width: int, height: int
) -> DrivenPoses:
    """The poses in the run's driving video; see `extract_poses`."""
    assert config.driving is not None  # the caller's choice
    return extract_poses(
        config.driving,
        estimator,
        standing,
        width,
        height,
        fit=config.fit,
        poses_fps=config.poses_fps,
        output_fps=config.output_fps,
        person=config.driving_person,
        align=config.align,
        style=config.skeletons,
        **_range(config),
    )


def driving_fps(config: SampleConfig) -> float:
    """Frames a second that come of the driving video.

    Raises:
        InputError: as `read_driving`; or the sound would not keep time with the output.
    """
    with _open(config) as (info, _):
        fps = info.fps
    if config.sound and config.poses_fps is not None and exact_rate(config.poses_fps) != exact_rate(fps):
        raise InputError(
            f"--sound keeps time only at the driving video's {fps:g} frames a second: leave --poses-fps out "
            "(--output-fps changes the number of frames, not the speed)"
        )
    return fps


def _open(config: SampleConfig):
    assert config.driving is not None
    return read_driving(config.driving, **_range(config))


def _range(config: SampleConfig) -> dict[str, Any]:
    """What to take of the driving video."""
    return {
        "start": config.driving_start,
        "end": config.driving_end,
        "fps": config.driving_fps,
        "max_frames": config.driving_max_frames,
    }


def write_driven_preview(
    path: Path, config: SampleConfig, reference: UInt8[np.ndarray, "H W 3"], driven: DrivenPoses
) -> None:
    """Skeletons over the driving frames and over the reference, which has the output's size."""
    poses, shown = driven.poses, driven.timing.frame
    assert poses.fps is not None  # of a video
    with _open(config) as (_, frames):
        found = shown_at(skeletons(driven.found, config.skeletons), shown)
        write_preview(path, shown_at(frames, shown), found, reference, iter(poses.frames), poses.fps)


def save_poses(
    place: Path,
    config: SampleConfig,
    reference: UInt8[np.ndarray, "h w 3"],
    driven: DrivenPoses,
    reference_pose: UInt8[np.ndarray, "H W 3"] | None,
) -> None:
    """Write skeletons, keypoints.json and preview.mp4 into a directory: all of them, or nothing.

    Args:
        place: the directory; new, or empty.
        config: the run's.
        reference: the photo at its own size.
        driven: what to write.
        reference_pose: the reference's own skeleton, where the run begins with it.

    Raises:
        InputError: it cannot be written.
    """
    keypoints, poses = driven.keypoints, driven.poses.frames
    with replacing_directory(place) as temporary:
        for i, pose in enumerate(poses):
            Image.fromarray(pose).save(temporary / f"frame_{i}.png")
        if reference_pose is not None:
            Image.fromarray(reference_pose).save(temporary / REFERENCE_POSE)
        save_keypoints(temporary / "keypoints.json", keypoints)
        shown = fit(reference, keypoints.width, keypoints.height, config.fit, filter="lanczos")
        write_driven_preview(temporary / "preview.mp4", config, shown, driven)
    print(f"wrote {place} (skeletons, keypoints.json, preview.mp4)")
