"""A run of `sample.py`: files in; a video, its contact sheet and its record out."""

import collections
import contextlib
import dataclasses
import os
import sys
import warnings
from collections.abc import Callable, Iterator
from concurrent.futures import Future, ThreadPoolExecutor
from dataclasses import dataclass, replace
from datetime import UTC, datetime
from functools import partial
from hashlib import sha256
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
from jaxtyping import UInt8
from tqdm import tqdm

from stableanimator_jax.data.face_track import FaceTrack
from stableanimator_jax.data.sound import copy_sound
from stableanimator_jax.data.video import FramesLeftOut, open_writer
from stableanimator_jax.distributed import DistributedConfig
from stableanimator_jax.family import member
from stableanimator_jax.files import replacing
from stableanimator_jax.progress import Stopwatch
from stableanimator_jax.provenance import sha256_of, versions
from stableanimator_jax.scripts.sample.animating import animated, with_a_face
from stableanimator_jax.scripts.sample.contact_sheet import ContactSheet
from stableanimator_jax.scripts.sample.faces import Portrait
from stableanimator_jax.scripts.sample.hjb_plot import plot_similarity
from stableanimator_jax.scripts.sample.inputs import Inputs, hash_inputs, read_inputs
from stableanimator_jax.scripts.sample.record import InputFile, Record, write_record
from stableanimator_jax.scripts.sample.settings import SampleConfig
from stableanimator_jax.scripts.sample.unfinished import NO_MATTER, Begun, UnfinishedRun, as_process_0_began
from stableanimator_jax.shipped import EMBEDDED

if TYPE_CHECKING:
    from stableanimator_jax.sampling.devices import DevicePlan
    from stableanimator_jax.sampling.pipeline import Animator

_TOO_LITTLE_MEMORY = (
    "the device has too little memory for this: try --rows-at-once 1, a smaller --decode-chunk or --window (for SVD "
    "and AnimateLCM fewer --frames), --dtype float16, or a smaller size"
)


@dataclass(frozen=True)
class Guest:
    """What a program that runs several of them one after another does itself; by default as a single run does."""

    load: "Callable[..., Animator] | None" = None
    """In place of `Animator.from_pretrained`, with its arguments: such as to keep what is loaded."""
    on_frame: Callable[[UInt8[np.ndarray, "h w 3"]], None] = lambda frame: None
    """Called with each frame when it is written."""


@dataclass(frozen=True)
class _Run:
    """All that is known before anything is computed."""

    config: SampleConfig
    """With the dtype that "auto" became."""
    inputs: Inputs
    hashes: "Future[dict[str, InputFile]]"
    animator: "Animator"
    plan: "DevicePlan"
    device: str
    started: datetime
    watch: Stopwatch
    guest: Guest


def run(config: SampleConfig, guest: Guest = Guest()) -> Record | None:
    """Animate, and write the video, its contact sheet (`OUTPUT.contact_sheet.png`) and its record (`OUTPUT.json`).

    Each of them appears whole or not at all. Says on stdout what is done, with progress bars on stderr. Of several
    processes, process 0 writes and says all that.

    Returns:
        What was written to `OUTPUT.json`; None after a check or a warm-up, which animate nothing, and on other
        processes.

    Raises:
        InputError: what was asked for cannot be done; found before anything is computed wherever it can be.
    """
    if config.check:
        from stableanimator_jax.scripts.sample.check import check

        check(config)
        return None
    if config.distributed.start == "off":
        return _run(config, guest)
    from stableanimator_jax.hosts import ending_together, is_first, leave_together, start_distributed
    from stableanimator_jax.runtime import choose_device

    start_distributed(config.distributed)
    choose_device(config.device)
    with contextlib.ExitStack() as quiet:
        if not is_first():
            quiet.enter_context(contextlib.redirect_stdout(quiet.enter_context(Path(os.devnull).open("w"))))
        with ending_together():
            record = _run(config, guest)
            leave_together()
    return record


def _run(config: SampleConfig, guest: Guest) -> Record | None:
    with ThreadPoolExecutor(1) as pool:
        return _go(_prepare(config, pool, guest))


def _go(run: _Run) -> Record | None:
    """Compile, animate, or help another process to."""
    config = run.config

    from stableanimator_jax.hosts import is_first
    from stableanimator_jax.runtime import out_of_memory_explained
    from stableanimator_jax.sampling.programs import quick_starts

    compiled: list[str] = []

    def compiling(name: str) -> None:
        if not compiled and is_first():
            tqdm.write("compiling: the first time for this size, about a minute for full-size models", file=sys.stderr)
        compiled.append(name)

    with out_of_memory_explained(_TOO_LITTLE_MEMORY), contextlib.ExitStack() as programs:
        if config.compilation_cache:
            programs.enter_context(quick_starts(on_compile=compiling, only_compile=config.warm_up))
        if config.warm_up:
            _drop(animated(run.animator, with_a_face(run.inputs), run.config, run.watch, Begun()))
            width, height = run.inputs.size
            seconds = run.watch.total()
            print(f"compiled {len(compiled)} programs for {width}x{height} in {seconds:.1f} s; nothing was animated")
            return None
        if not is_first():
            begun = as_process_0_began(None)
            _drop(animated(run.animator, run.inputs, run.config, run.watch, begun, shown=False))
            return None
        return _write(run)


def _drop(frames: Iterator[Any]) -> None:
    collections.deque(frames, maxlen=0)


def _prepare(config: SampleConfig, pool: ThreadPoolExecutor, guest: Guest) -> _Run:
    """Read and check the inputs, and load the models."""
    started, watch = datetime.now(UTC), Stopwatch()
    config = config.absolute()
    inputs = _read_together(config)
    hashes = pool.submit(hash_inputs, config)  # a checkpoint has gigabytes; the rest goes on meanwhile
    own = config.checkpoint == EMBEDDED
    print(f"weights: {'the small ones in this package, of drawn people' if own else config.checkpoint}")
    print(f"reference: {config.reference or 'the example in this package'}")
    if inputs.poses is None:
        print(f"poses: none ({member(inputs.models).title} moves by itself), {_frame_count(inputs.frames)}")
    else:
        moves = config.poses or config.driving or "the example in this package"
        print(f"poses: {moves}, {_frame_count(len(inputs.poses))}")
    print(f"identity: {inputs.identity.source}")
    if inputs.face is not None:
        print(f"faces to optimise: {inputs.face.source}")

    from stableanimator_jax.runtime import choose_device, choose_devices, compute_dtype  # imports JAX, slow to start
    from stableanimator_jax.sampling.pipeline import Animator, plan_for

    device = choose_device(config.device)
    dtype = compute_dtype(config.dtype)
    print(f"device: {device}, computing in {dtype}", flush=True)
    arcface = inputs.face is not None or isinstance(inputs.identity.embedding, Portrait)
    available = choose_devices(config.devices)
    plan = plan_for(inputs.models, len(available), inputs.denoised, config.sampling, config.frame_devices)
    if len(available) > 1:
        print(plan, flush=True)
    animator = (guest.load or Animator.from_pretrained)(
        config.checkpoint,
        dtype=dtype,
        arcface=arcface,
        devices=available[: plan.devices],
        frame_devices=plan.frames,
    )
    watch.lap("load")
    config = replace(config, dtype=dtype)
    if config.distributed.start != "off":
        _require_agreement(config, inputs, hashes.result())
    return _Run(config, inputs, hashes, animator, plan, device, started, watch, guest)


def _read_together(config: SampleConfig) -> Inputs:
    """The inputs, which every process finds, or none."""
    if config.distributed.start == "off":
        return read_inputs(config)
    from stableanimator_jax.hosts import failing_together

    with failing_together():
        return read_inputs(config)


def _require_agreement(config: SampleConfig, inputs: Inputs, hashes: dict[str, InputFile]) -> None:
    """Stop all processes where one was told or given something else: their rows would be of different videos."""
    from stableanimator_jax.hosts import require_agreement

    paths = {name for name, value in vars(config).items() if isinstance(value, Path)} | {"checkpoint"}
    settings = {name: value for name, value in config.to_dict().items() if name not in {*NO_MATTER, *paths}}
    found = {"reference": inputs.reference, "poses": inputs.poses, "identity": inputs.identity.embedding}
    found["reference pose"] = inputs.reference_pose
    if inputs.face is not None and isinstance(inputs.face.faces, FaceTrack):
        found |= {"faces": inputs.face.faces.boxes, "frames with a face": inputs.face.faces.valid}
    arrays = {
        f"{name} as read": sha256(x.tobytes()).hexdigest() for name, x in found.items() if isinstance(x, np.ndarray)
    }
    require_agreement(settings | arrays | {f"file of {name}": file.sha256 for name, file in hashes.items()})


def _write(run: _Run) -> Record:
    """Animate, and write what comes out."""
    config, inputs = run.config, run.inputs
    width, height = inputs.size
    sheet = ContactSheet(inputs.reference, inputs.shown_poses, inputs.frames)
    unfinished = UnfinishedRun(config, run.hashes.result)
    finishing = partial(_add_sound, config) if config.sound else None
    with (
        warnings.catch_warnings(action="ignore", category=FramesLeftOut),  # said when the inputs were read
        unfinished.alone(),
    ):
        begun = unfinished.start()
        with open_writer(
            config.output, width, height, inputs.fps, finishing, overwrite=True, unfinished=unfinished.frames
        ) as video:
            begun = as_process_0_began(replace(begun, frames=video.count))
            for frame in unfinished.frames_there(begun.frames):
                sheet.add(frame)
            reached = partial(unfinished.reached, begun.reports)
            for frame in animated(run.animator, inputs, config, run.watch, begun, on_unfinished=reached):
                video.write(frame)
                sheet.add(frame)
                run.guest.on_frame(frame)
            # Before the video takes its place: were an input unreadable now, it would be left without a record.
            hashed = run.hashes.result()
    run.watch.lap("decode")
    return _finish(run, sheet, begun, hashed)


def _finish(run: _Run, sheet: ContactSheet, begun: Begun, hashed: dict[str, InputFile]) -> Record:
    """Write what lies beside the video, and say what was done."""
    config, reports, frames = run.config, begun.reports, run.inputs.frames
    width, height = run.inputs.size
    written = [config.output] if config.output.is_file() else []
    if reports:
        with replacing(config.hjb_plot_path) as path:
            plot_similarity(reports, path)
        written.append(config.hjb_plot_path)
        if not any(report.faces for report in reports):
            print("warning: no face was found in any predicted frame: nothing was optimised", file=sys.stderr)
    else:
        config.hjb_plot_path.unlink(missing_ok=True)  # of another run, which the new video is not
    with replacing(config.contact_sheet_path) as path:
        sheet.save(path)
    written.append(config.contact_sheet_path)
    with replacing(config.record_path) as path:
        # With what "auto" and the defaults became, here and today. What was kept of a driving video was kept then; how
        # fast everything is follows from the inputs.
        resolved = replace(
            config, width=width, height=height, save_poses=None, overwrite=False, resume=False,
            distributed=DistributedConfig(),
        )  # fmt: skip
        record = Record(
            configuration=resolved.to_dict(),
            inputs=hashed,
            versions=versions(),
            result={
                "started": run.started.isoformat(timespec="seconds"),
                "device": run.device,
                "devices": {"rows": run.plan.rows, "frames": run.plan.frames},
                "identity": run.inputs.identity.source,
                "frames": frames,
                "fps": run.inputs.fps,
                "seconds": run.watch.laps,
                # By which a later run knows that they may be replaced.
                "files": {file.name: sha256_of([file]) for file in written},
            },
            hjb=[_finite(dataclasses.asdict(report)) for report in reports],
        )
        write_record(path, record)
    beside = ".contact_sheet.png, .hjb.png and .json" if reports else ".contact_sheet.png and .json"
    sampling = run.watch.laps["denoise"] + run.watch.laps["decode"]
    print(
        f"wrote {config.output} (with {beside} beside it): {_frame_count(frames)} of "
        f"{width}x{height} sampled in {sampling:.1f} s, {frames / sampling:.2f} frames per second; "
        f"{run.watch.total():.1f} s in all"
    )
    return record


def _frame_count(count: int) -> str:
    return "1 frame" if count == 1 else f"{count} frames"


def _add_sound(config: SampleConfig, video: Path) -> None:
    assert config.driving is not None  # SampleConfig sees to it
    if not copy_sound(config.driving, video, config.driving_start or 0.0):  # to the video's own end
        print(f"warning: {config.driving} has no sound there; neither has the output", file=sys.stderr)


def _finite(values: dict[str, Any]) -> dict[str, Any]:
    """JSON has no NaN: null."""
    return {name: None if value != value else value for name, value in values.items()}
