"""What a run writes, checked before anything is computed."""

import sys
from pathlib import Path

from stableanimator_jax.commands import called
from stableanimator_jax.data.frame_rate import HIGHEST_FPS, LOWEST_FPS
from stableanimator_jax.data.video import check_writable, frames_left_out, held_fps, output_suffix
from stableanimator_jax.errors import InputError, reason_of
from stableanimator_jax.files import real_path
from stableanimator_jax.provenance import sha256_of
from stableanimator_jax.scripts.sample.record import written_files
from stableanimator_jax.scripts.sample.settings import SampleConfig
from stableanimator_jax.weights.run_folder import checkpoint_path


def check_outputs(config: SampleConfig) -> None:
    """Find out whether everything that a run writes can be written, and that it takes the place of no input
    and of nothing that must stay.

    Raises:
        InputError: something cannot.
    """
    inputs = _inputs(config)
    check_writable(config.output, inputs)
    check_kept_poses(config)
    read = {real_path(path) for path in inputs}
    for path in (config.contact_sheet_path, config.record_path, config.hjb_plot_path):  # an old plot is removed
        try:
            taken = path.is_dir()
        except OSError as e:
            raise InputError(f"cannot write {path}: {reason_of(e)}") from e
        if taken or real_path(path) in read:
            raise InputError(f"cannot write {path}: it is {'a directory' if taken else 'an input too'}")
    if real_path(config.output).is_relative_to(real_path(checkpoint_path(config.checkpoint))):
        raise InputError(f"cannot write {config.output}: it is inside the checkpoint; name another output")
    _check_replaced(config)


def check_kept_poses(config: SampleConfig) -> None:
    """Find out whether `--save-poses` can be written. Raises `InputError`."""
    if config.save_poses is None:
        return
    if output_suffix(config.save_poses):
        raise InputError(f"--save-poses {config.save_poses} must be a directory, so without a suffix")
    check_writable(config.save_poses, _inputs(config))
    places = real_path(config.save_poses), real_path(config.output)
    if places[0] == places[1] or places[1] in places[0].parents or places[0] in places[1].parents:
        raise InputError(f"--save-poses {config.save_poses} and --output {config.output} must lie side by side")


def _inputs(config: SampleConfig) -> list[Path]:
    given = (
        config.reference, config.reference_pose, config.poses, config.driving, config.face_embedding, config.face_boxes,
        config.face_masks, config.keep_background,
    )  # fmt: skip
    return [path for path in given if path is not None]


def _check_replaced(config: SampleConfig) -> None:
    """Raise `InputError` where a file would be replaced that no run left there, or one that was not to be."""
    places = (config.output, config.contact_sheet_path, config.hjb_plot_path, config.record_path)
    there = [path for path in places if path.is_file() or path.is_symlink()]
    if not there:
        return
    try:
        left = {config.record_path: None, **written_files(config.record_path)}
    except InputError:
        left = {}
    for path in there:
        if path not in left or left[path] not in (None, sha256_of([path])):
            raise InputError(
                f"will not replace {path}, which no run of {called('sample')} left there, or which was changed since: "
                "name another --output, or move it away"
            )
    if not config.may_replace:
        raise InputError(
            f"{there[0]} is there, from an earlier run: name another --output, or replace it by --overwrite"
        )


def output_fps(config: SampleConfig, rate: float, width: int, height: int) -> float:
    """Frames a second that the output plays at. Says on stderr where its kind of file gets fewer of them.

    Args:
        config: the run's.
        rate: of the poses.
        width, height: of the output.

    Raises:
        InputError: no video plays at that speed, or the output's kind of file cannot hold that size.
    """
    fps, slow = config.output_fps or rate, rate < LOWEST_FPS
    if slow or fps > HIGHEST_FPS:
        raise InputError(
            f"poses {config.poses or config.driving} play at {rate:g} frames a second, at which no video can be "
            f"written; give another speed by {'--poses-fps' if slow else '--output-fps'}"
        )
    held = held_fps(config.output, width, height, fps)
    if held < fps:
        print(f"warning: {frames_left_out(config.output, held, fps)}", file=sys.stderr)
    return fps
