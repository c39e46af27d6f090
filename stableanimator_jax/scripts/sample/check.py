"""`sample.py --check`: what a run would be made of and take, as a page and a video, in seconds rather than minutes."""

import base64
import contextlib
import html
import io
import sys
from dataclasses import dataclass
from pathlib import Path
from typing import TextIO

import numpy as np
from jaxtyping import UInt8
from PIL import Image, ImageDraw

from stableanimator_jax.data.face_track import FaceTrack
from stableanimator_jax.data.images import resize
from stableanimator_jax.data.video import open_writer
from stableanimator_jax.errors import InputError, as_input_error
from stableanimator_jax.family import member
from stableanimator_jax.files import replacing
from stableanimator_jax.perception.preview import overlay
from stableanimator_jax.progress import Stopwatch
from stableanimator_jax.sampling.background import composite
from stableanimator_jax.sampling.config import PUBLISHED_STRENGTH
from stableanimator_jax.scripts.sample.contact_sheet import chosen_frames
from stableanimator_jax.scripts.sample.driving import write_driven_preview
from stableanimator_jax.scripts.sample.inputs import Inputs, read_inputs
from stableanimator_jax.scripts.sample.settings import SampleConfig

_MARK = '<meta name="generator" content="sample.py --check">'
_FACE = (255, 220, 0)
_PERSON = (255, 0, 160)
_STYLE = """
body { font: 16px/1.5 system-ui, sans-serif; max-width: 62rem; margin: 2rem auto; padding: 0 1rem; color: #222 }
table { border-collapse: collapse } th, td { text-align: left; vertical-align: top; padding: .2rem 1rem .2rem 0 }
th { font-weight: 600; white-space: nowrap } img, video { max-width: 100%; margin: .5rem 0 }
.warning { background: #fff3cd; border-left: 4px solid #d39e00; padding: .3rem .8rem; margin: .4rem 0 }
"""


@dataclass(frozen=True)
class Seen:
    """What there is to say of a run before it is begun."""

    inputs: Inputs
    facts: list[tuple[str, str]]
    """What is said, by name."""
    warnings: list[str]
    pictures: list[tuple[str, UInt8[np.ndarray, "H W 3"]]]
    """By their captions: the reference at the output's size, and some poses over it."""


def look(config: SampleConfig) -> Seen:
    """Read everything, and say what it is and what the run would take. Raises `InputError` as `read_inputs`."""
    heard = Heard(sys.stderr)
    with contextlib.redirect_stderr(heard):
        inputs = read_inputs(config)
    shown = resize(inputs.reference, *inputs.size, "lanczos")
    pictures = [("reference", shown), *_mask(shown, inputs), *_pictures(shown, inputs, _faces(inputs))]
    return Seen(inputs, _facts(config, inputs), heard.warnings, pictures)


def check(config: SampleConfig) -> Seen:
    """Read everything, say what it is and what the run would take, and write the page and the video beside it.

    Returns:
        What is on the page.

    Raises:
        InputError: as `read_inputs`; or the page or the video would replace what no check left there.
    """
    watch, config = Stopwatch(), config.absolute()
    page, video = config.check_page_path, config.check_video_path
    _require_ours(page, video)
    seen = look(config)
    inputs, shown = seen.inputs, seen.pictures[0][1]
    width, height = inputs.size
    video = None if inputs.poses is None else video
    with as_input_error(f"cannot write {page}"):
        page.parent.mkdir(parents=True, exist_ok=True)
        config.check_video_path.unlink(missing_ok=True)
    with replacing(page) as place:  # before the video, which is known as ours by it
        place.write_text(_page(seen, video), encoding="utf-8")
    if video is not None and inputs.driven is not None:
        write_driven_preview(video, inputs.pace, shown, inputs.driven)
    elif video is not None and inputs.poses is not None:
        with open_writer(video, width, height, inputs.fps) as file:
            for pose in inputs.poses:
                file.write(overlay(shown, pose))
    for name, value in seen.facts:
        print(f"{name}: {value}")
    beside = "" if video is None else f" and {video.name}"
    print(f"wrote {page}{beside} in {watch.total():.1f} s; nothing was animated")
    return seen


def _require_ours(page: Path, video: Path) -> None:
    """Raise `InputError` where something is there that no check left."""
    with as_input_error(f"cannot read {page}"):
        ours = page.is_file() and _MARK in page.read_text(encoding="utf-8", errors="replace")
        there = next((path for path in (page, video) if path.exists() or path.is_symlink()), None)
    if there is not None and not ours:
        raise InputError(
            f"will not replace {there}, which no --check left there: name another --output, or move it away"
        )


@dataclass
class Heard(io.TextIOBase):
    """Standard error, and what warnings went through it."""

    stream: TextIO

    def __post_init__(self):
        self.warnings: list[str] = []

    def write(self, text: str) -> int:
        self.warnings += [line.removeprefix("warning: ") for line in text.splitlines() if line.startswith("warning: ")]
        return self.stream.write(text)

    def flush(self) -> None:
        self.stream.flush()

    def isatty(self) -> bool:
        return self.stream.isatty()


def _facts(config: SampleConfig, inputs: Inputs) -> list[tuple[str, str]]:
    """What is said, by name."""
    from stableanimator_jax.models.flops import matmul_rate
    from stableanimator_jax.runtime import choose_device, choose_devices, compute_dtype  # imports JAX
    from stableanimator_jax.sampling.forecast import forecast
    from stableanimator_jax.sampling.pipeline import plan_for

    device, dtype = choose_device(config.device), compute_dtype(config.dtype)
    (width, height), sampling = inputs.size, config.sampling
    plan = plan_for(inputs.models, len(choose_devices(config.devices)), inputs.denoised, sampling, config.frame_devices)
    ahead = forecast(inputs.models, inputs.denoised, width, height, sampling, config.hjb, dtype)
    minutes = ahead.seconds(matmul_rate(dtype, seconds=0.3)) / plan.speedup / 60
    guidance = f"guidance {sampling.guidance_min:g} to {sampling.guidance_max:g}"
    share = f"{ahead.optimise_flop / ahead.flop:.0%} for the face optimisation"
    memory = f"{ahead.weight_bytes / 1e9:,.2g} GB of weights, about {ahead.step_bytes / 1e9:,.2g} GB for a step"
    return [
        ("weights", f"{config.checkpoint} ({member(inputs.models).title})"),
        ("reference", f"{config.reference or 'the example in this package'}, {_size(inputs.reference)} used"),
        ("poses", _poses(config, inputs)),
        ("identity", inputs.identity.source),
        ("faces to optimise", "none: --hjb.iterations is 0" if inputs.face is None else inputs.face.source),
        ("output", f"{inputs.frames} frames of {width}x{height}, {inputs.fps:g} a second"),
        ("steps", f"{sampling.steps} ({sampling.sampler}), {guidance}"),
        *((f"{name} strength", str(s)) for name, s in sampling.strengths.items() if s != PUBLISHED_STRENGTH),
        ("device", f"{device}, computing in {dtype}" + (f"; {plan}" if plan.devices > 1 else "")),
        ("arithmetic", f"{ahead.flop / 1e12:,.3g} TFLOP, {share}"),
        ("predicted time", f"about {_minutes(minutes)}, beside loading and compiling"),
        ("predicted memory", memory),
        *_finishing(config),
    ]


def _finishing(config: SampleConfig) -> list[tuple[str, str]]:
    said = ["colours as the reference's"] * config.match_colours
    if config.keep_background is not None:
        said.append(f"the reference's background, by {config.keep_background}")
    return [("frames get", "; ".join(said))] if said else []


def _size(image: UInt8[np.ndarray, "h w 3"]) -> str:
    return f"{image.shape[1]}x{image.shape[0]} pixels"


def _minutes(minutes: float) -> str:
    if minutes < 2:
        return f"{max(1, round(60 * minutes))} s"
    return f"{minutes:.0f} min" if minutes < 120 else f"{minutes / 60:.1f} h"


def _poses(config: SampleConfig, inputs: Inputs) -> str:
    if inputs.poses is None:
        return "none: these weights take none"
    if inputs.driven is None:
        return f"{config.poses or 'the example in this package'}, {len(inputs.poses)} frames"
    scores = inputs.driven.found.scores  # of the video, which may have more or fewer frames than the output
    return f"of {config.driving}: the person is found in {int(scores.any(axis=1).sum())} of {len(scores)} frames"


def _faces(inputs: Inputs) -> FaceTrack | None:
    return inputs.face.faces if inputs.face is not None and isinstance(inputs.face.faces, FaceTrack) else None


def _pictures(
    reference: UInt8[np.ndarray, "H W 3"], inputs: Inputs, faces: FaceTrack | None
) -> list[tuple[str, UInt8[np.ndarray, "H W 3"]]]:
    """Some poses over the reference, each with the face's box where it is known."""
    if inputs.poses is None:
        return []
    made = []
    for i in chosen_frames(len(inputs.poses), 6):
        picture = Image.fromarray(overlay(reference, inputs.poses[i]))
        if faces is not None and faces.valid[i]:
            ImageDraw.Draw(picture).rectangle(
                faces.boxes[i].tolist(), outline=_FACE, width=max(1, picture.width // 256)
            )
        made.append((f"frame {i}", np.asarray(picture)))
    return made


def _mask(reference: UInt8[np.ndarray, "H W 3"], inputs: Inputs) -> list[tuple[str, UInt8[np.ndarray, "H W 3"]]]:
    """The background that stays, where the mask of the reference says it: the person in one colour."""
    mask = inputs.finishing.mask
    if not isinstance(mask, np.ndarray):
        return []
    covered = np.full_like(reference, _PERSON)
    return [("background that stays", composite(covered, reference, mask.astype(np.float32) / 255))]


def page_body(seen: Seen) -> str:
    """What is said, the warnings and the pictures, as HTML."""
    rows = "\n".join(
        f'<tr><th scope="row">{html.escape(name)}</th><td>{html.escape(value)}</td></tr>' for name, value in seen.facts
    )
    said = "\n".join(f'<p class="warning">{html.escape(line)}</p>' for line in seen.warnings) or "<p>No warnings.</p>"
    shown = "\n".join(
        f'<figure style="display:inline-block;margin:.3rem"><img width="240" alt="{html.escape(name)}" '
        f'src="data:image/png;base64,{png_base64(picture)}"><figcaption>{html.escape(name)}</figcaption></figure>'
        for name, picture in seen.pictures
    )
    return f"""<table>
{rows}
</table>
<h2>Warnings</h2>
{said}
<h2>Poses over the reference</h2>
{shown}
"""


def _page(seen: Seen, video: Path | None) -> str:
    played = "" if video is None else f'<h2>Poses</h2>\n<video controls loop src="{html.escape(video.name)}"></video>'
    return f"""<!doctype html>
<html lang="en"><head><meta charset="utf-8">{_MARK}
<meta name="viewport" content="width=device-width, initial-scale=1"><title>Check</title><style>{_STYLE}</style></head>
<body><h1>Before it is animated</h1>
{page_body(seen)}
{played}
</body></html>
"""


def png_base64(picture: UInt8[np.ndarray, "H W 3"]) -> str:
    """A picture of at most 480 pixels a side, for the address of an image within a page."""
    file = io.BytesIO()
    image = Image.fromarray(picture)
    image.thumbnail((480, 480))
    image.save(file, format="PNG")
    return base64.b64encode(file.getvalue()).decode()
