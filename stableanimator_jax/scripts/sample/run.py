"""A run of `sample.py`: files in; a video, its contact sheet and its record out."""

import collections
import contextlib
import dataclasses
import itertools
import sys
import warnings
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from dataclasses import replace
from datetime import UTC, datetime
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
from jaxtyping import Float32, UInt8
from tqdm import tqdm

from stableanimator_jax.data.face_track import Face, FaceTrack
from stableanimator_jax.data.images import load_image
from stableanimator_jax.data.sound import copy_sound
from stableanimator_jax.data.video import FramesLeftOut, open_writer
from stableanimator_jax.files import replacing
from stableanimator_jax.progress import ProgressBars, Stopwatch
from stableanimator_jax.provenance import sha256_of, versions
from stableanimator_jax.sampling.config import Crop
from stableanimator_jax.scripts.sample.contact_sheet import ContactSheet
from stableanimator_jax.scripts.sample.faces import FaceInputs, Portrait
from stableanimator_jax.scripts.sample.hjb_plot import plot_similarity
from stableanimator_jax.scripts.sample.inputs import Inputs, hash_inputs, read_inputs
from stableanimator_jax.scripts.sample.record import Record, write_record
from stableanimator_jax.scripts.sample.settings import SampleConfig
from stableanimator_jax.scripts.sample.unfinished import UnfinishedRun
from stableanimator_jax.shipped import EMBEDDED

if TYPE_CHECKING:
    from stableanimator_jax.sampling.face_control import FaceOptimisation, StepReport
    from stableanimator_jax.sampling.pipeline import Animator

_TOO_LITTLE_MEMORY = (
    "the device has too little memory for this: try --rows-at-once 1, a smaller --decode-chunk or --window, "
    "--dtype float16, or a smaller size"
)


def run(config: SampleConfig) -> Record | None:
    """Animate, and write the video, its contact sheet (`OUTPUT.contact_sheet.png`) and its record (`OUTPUT.json`).

    Each of them appears whole or not at all. Says on stdout what is done, with progress bars on stderr.

    Returns:
        What was written to `OUTPUT.json`; None after a warm-up, which writes nothing.

    Raises:
        InputError: what was asked for cannot be done; found before anything is computed wherever it can be.
    """
    started, watch = datetime.now(UTC), Stopwatch()
    config = config.absolute()
    boxes = None if config.embeds_reference else config.face_boxes
    if not config.optimises_faces and (unused := boxes or config.face_masks):
        print(f"warning: {unused} is not used: --hjb.iterations is 0", file=sys.stderr)
    inputs = read_inputs(config)
    own = config.checkpoint == EMBEDDED
    print(f"weights: {'the small ones in this package, of drawn people' if own else config.checkpoint}")
    print(f"reference: {config.reference or 'the example in this package'}")
    moves = config.poses or config.driving or "the example in this package"
    print(f"poses: {moves}, {_frame_count(len(inputs.poses))}")
    print(f"identity: {inputs.identity.source}")
    if inputs.face is not None:
        print(f"faces to optimise: {inputs.face.source}")

    from stableanimator_jax.runtime import (  # imports JAX, slow to start
        choose_device,
        choose_devices,
        compute_dtype,
        out_of_memory_explained,
    )
    from stableanimator_jax.sampling.devices import plan_devices
    from stableanimator_jax.sampling.pipeline import Animator
    from stableanimator_jax.sampling.programs import quick_starts

    device = choose_device(config.device)
    dtype = compute_dtype(config.dtype)
    print(f"device: {device}, computing in {dtype}", flush=True)
    arcface = inputs.face is not None or isinstance(inputs.identity.embedding, Portrait)
    available = choose_devices(config.devices)
    plan = plan_devices(len(available), len(inputs.poses), config.sampling, config.frame_devices)
    if len(available) > 1:
        print(plan, flush=True)
    animator = Animator.from_pretrained(
        config.checkpoint,
        dtype=dtype,
        arcface=arcface,
        devices=available[: plan.devices],
        frame_devices=plan.frames,
    )
    watch.lap("load")
    compiled: list[str] = []

    def compiling(name: str) -> None:
        if not compiled:
            tqdm.write("compiling: the first time for this size, about a minute for full-size models", file=sys.stderr)
        compiled.append(name)

    starting = quick_starts(on_compile=compiling, only_compile=config.warm_up)
    frames, height, width = inputs.poses.shape[:3]
    if config.warm_up:
        with starting, out_of_memory_explained(_TOO_LITTLE_MEMORY):
            collections.deque(_frames(animator, _with_a_face(inputs), config, watch, []), maxlen=0)
        print(f"compiled {len(compiled)} programs for {width}x{height} in {watch.total():.1f} s; nothing was animated")
        return None
    sheet = ContactSheet(inputs.reference, inputs.poses)
    reports: list[StepReport] = []
    with ThreadPoolExecutor(1) as pool:
        hashes = pool.submit(hash_inputs, config)  # a checkpoint has gigabytes; the device computes meanwhile
        unfinished = UnfinishedRun(replace(config, dtype=dtype), hashes.result)
        begun = unfinished.start()
        if begun is not None:
            reports += begun[1]
        finishing = partial(_add_sound, config) if config.sound else None
        with (
            warnings.catch_warnings(action="ignore", category=FramesLeftOut),  # said when the inputs were read
            starting if config.compilation_cache else contextlib.nullcontext(),
            out_of_memory_explained(_TOO_LITTLE_MEMORY),
            _kept_when_interrupted(unfinished),
            open_writer(
                config.output, width, height, inputs.fps, finishing, overwrite=True, unfinished=unfinished.frames
            ) as video,
        ):
            there = video.count
            for number in range(there):
                assert unfinished.frames is not None
                sheet.add(load_image(unfinished.frames / f"frame_{number}.png", what="frame"))
            for frame in _frames(animator, inputs, config, watch, reports, unfinished, there):
                video.write(frame)
                sheet.add(frame)
            # Before the video takes its place: were an input unreadable now, it would be left without a record.
            hashed = hashes.result()
        watch.lap("decode")
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
        # With what "auto" and the defaults became, here and today. What was kept of a driving video was kept then, and
        # its speed is the driving flags'.
        fps = inputs.fps if config.driving is None else config.output_fps
        resolved = replace(
            config,
            width=width,
            height=height,
            output_fps=fps,
            dtype=dtype,
            save_poses=None,
            overwrite=False,
            resume=False,
        )
        record = Record(
            configuration=resolved.to_dict(),
            inputs=hashed,
            versions=versions(),
            result={
                "started": started.isoformat(timespec="seconds"),
                "device": device,
                "devices": {"rows": plan.rows, "frames": plan.frames},
                "identity": inputs.identity.source,
                "frames": frames,
                "seconds": watch.laps,
                # By which a later run knows that they may be replaced.
                "files": {file.name: sha256_of([file]) for file in written},
            },
            hjb=[_finite(dataclasses.asdict(report)) for report in reports],
        )
        write_record(path, record)
    beside = ".contact_sheet.png, .hjb.png and .json" if reports else ".contact_sheet.png and .json"
    sampling = watch.laps["denoise"] + watch.laps["decode"]
    print(
        f"wrote {config.output} (with {beside} beside it): {_frame_count(frames)} of "
        f"{width}x{height} sampled in {sampling:.1f} s, {frames / sampling:.2f} frames per second; "
        f"{watch.total():.1f} s in all"
    )
    return record


@contextlib.contextmanager
def _kept_when_interrupted(run: UnfinishedRun) -> Iterator[None]:
    """After an error within the block only what a run can go on from is left; an interrupt says how."""
    try:
        yield
    except BaseException as e:
        told = run.interrupted() if isinstance(e, KeyboardInterrupt) else None
        if not run.file.is_file():
            run.clear()
        if told:
            raise KeyboardInterrupt(told) from e
        raise
    run.clear()


def _with_a_face(inputs: Inputs) -> Inputs:
    """The inputs with a face in every frame, where faces are looked for: without one nothing would be optimised."""
    if inputs.face is None or isinstance(inputs.face.faces, FaceTrack):
        return inputs
    height, width = inputs.poses.shape[1:3]
    size = np.asarray([width, height], np.float32)
    landmarks = np.asarray([[0.45, 0.45], [0.55, 0.45], [0.5, 0.5], [0.46, 0.55], [0.54, 0.55]], np.float32) * size
    anywhere = Face(np.concatenate([0.4 * size, 0.6 * size]), landmarks)
    return replace(inputs, face=replace(inputs.face, faces=lambda frame, number: anywhere))


def _frame_count(count: int) -> str:
    return "1 frame" if count == 1 else f"{count} frames"


def _add_sound(config: SampleConfig, video: Path) -> None:
    assert config.driving is not None  # SampleConfig sees to it
    if not copy_sound(config.driving, video, config.driving_start or 0.0):  # to the video's own end
        print(f"warning: {config.driving} has no sound there; neither has the output", file=sys.stderr)


def _finite(values: dict[str, Any]) -> dict[str, Any]:
    """JSON has no NaN: null."""
    return {name: None if value != value else value for name, value in values.items()}


def _optimisation(animator: "Animator", face: FaceInputs, config: SampleConfig) -> "FaceOptimisation":
    from stableanimator_jax.sampling.face_control import FaceOptimisation

    return FaceOptimisation(config.hjb, _embedded(animator, face.reference, config.hjb.crop), face.faces)


def _embedded(animator: "Animator", face: Portrait | np.ndarray, crop: Crop) -> Float32[np.ndarray, "512"]:
    if isinstance(face, Portrait):
        return animator.embed_face(face.image, face.face, crop)
    return face


def _frames(
    animator: "Animator",
    inputs: Inputs,
    config: SampleConfig,
    watch: Stopwatch,
    reports: "list[StepReport]",
    run: UnfinishedRun | None = None,
    there: int = 0,
) -> Iterator[UInt8[np.ndarray, "H W 3"]]:
    """The video's frames one by one, but for those that are there, with progress bars.

    What the face optimisation did goes into `reports`, and places to go on from are kept by `run`.
    """
    hjb = None if inputs.face is None else _optimisation(animator, inputs.face, config)
    identity = inputs.identity.embedding
    with ProgressBars() as bars:
        steps = config.sampling.steps
        on_denoise = bars.begin("denoising", "call")
        bars.step(1, steps)
        on_decode = None

        def denoised(done: int, total: int) -> None:
            nonlocal on_decode
            on_denoise(done, total)
            if done == total:
                watch.lap("denoise")
                on_decode = bars.begin("decoding", "frame")

        def optimise(done: int, total: int) -> None:
            bars.note(f"optimising the face in frame {done} of {total}")

        def optimised(report: "StepReport") -> None:
            reports.append(report)
            similarity = f"face similarity {report.similarity_before:.3f} -> {report.similarity_after:.3f}"
            bars.note(similarity if report.faces else "no face found")

        def decoded(done: int, total: int) -> None:
            assert on_decode is not None  # decoding follows denoising
            on_decode(done, total)

        chunks = animator.stream(
            inputs.reference,
            inputs.poses,
            id_embedding=None if identity is None else _embedded(animator, identity, "box"),
            sampling=config.sampling,
            hjb=hjb,
            on_step=lambda step, _: bars.step(step + 2, steps) if step + 1 < steps else None,
            on_denoise=denoised,
            on_optimise=optimise,
            on_optimised=optimised,
            on_decode=decoded,
            unfinished=None if run is None or run.latest is None else run.latest[0],
            on_unfinished=None if run is None else lambda state: run.reached(state, reports),
            first_frame=there,
        )
        frames = itertools.chain.from_iterable(chunks)
        yield from itertools.islice(frames, there % config.sampling.decode_chunk, None)
