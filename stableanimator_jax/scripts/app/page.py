"""The page itself: its fields, its buttons, and what is shown when."""

import html
import sys
import traceback
from collections.abc import Iterator
from pathlib import Path
from types import MethodType
from typing import Any, get_args

import gradio as gr
from gradio.components import Component

from stableanimator_jax.errors import InputError
from stableanimator_jax.perception.alignment import Align
from stableanimator_jax.sampling.config import PRESETS
from stableanimator_jax.scripts.app.files import uploaded, without_paths
from stableanimator_jax.scripts.app.form import (
    AS_THE_WEIGHTS,
    FACES,
    MOST_STEPS,
    SETTINGS,
    base_config,
    movements,
    takes_poses,
)
from stableanimator_jax.scripts.app.jobs import Standing
from stableanimator_jax.scripts.app.visitors import KEPT_SECONDS
from stableanimator_jax.scripts.app.work import Animated, Checked, Workshop
from stableanimator_jax.scripts.sample.check import png_base64
from stableanimator_jax.shipped import EMBEDDED, EXAMPLE

CSS = """
.gradio-container { overflow-wrap: anywhere; --block-info-text-color: var(--body-text-color) }
/* White on these can be read: 4.5 to 1 and more, which gradio's own colours have not. */
.gradio-container { --button-primary-background-fill: #c2410c; --button-primary-background-fill-hover: #9a3412 }
.gradio-container { --button-cancel-background-fill: #b91c1c; --button-cancel-background-fill-hover: #991b1b }
.gradio-container .or { color: var(--body-text-color) }
.said progress { width: 100%; height: 1rem }
.said p { margin: .3rem 0 }
.said .problem { border-left: 4px solid #c62828; padding: .2rem .8rem; font-weight: 600 }
.checked { overflow-x: auto }
.checked figure img { width: 7.5rem }
.checked th { text-align: left; vertical-align: top; padding: .15rem 1rem .15rem 0 }
.checked td { vertical-align: top; padding: .15rem 0 }
.checked .warning { background: #fff3cd; color: #222; border-left: 4px solid #d39e00; padding: .3rem .8rem }
"""


def build(workshop: Workshop) -> gr.Blocks:
    """The page, which works in `workshop`."""
    app, base = workshop.app, base_config(workshop.app)
    drawn, ways = app.checkpoint == EMBEDDED, movements(app)
    longest = f"At most {app.max_frames} frames are taken."
    with gr.Blocks(title="StableAnimator", analytics_enabled=False, delete_cache=(600, KEPT_SECONDS)) as page:
        gr.Markdown(
            "# StableAnimator\nA photo of a person, and how they are to move: a video of that person doing so. "
            + ("The weights here know small drawn people only. " if drawn else "")
            + "*Check* looks in seconds at what you gave; *Animate* makes the video. Your files are deleted when you "
            "close this page."
        )
        with gr.Row():
            with gr.Column():
                photo = gr.Image(
                    label="Photo", type="filepath", sources=["upload", "clipboard"], height=280, format="png",
                    value=str(EXAMPLE / "reference.png") if drawn else None,
                )  # fmt: skip
                movement = gr.Radio(
                    ways, label="Movement", value=ways[0][1] if ways else None, visible=len(ways) > 0,
                    info="What says how the person moves.",
                )  # fmt: skip
                driving = gr.Video(
                    label="Driving video", sources=["upload"], height=220,
                    visible=bool(ways) and ways[0][1] == "driving",
                )  # fmt: skip
                poses = gr.File(
                    label="Poses: numbered skeletons, a video of them, or keypoints", file_count="multiple",
                    height=140, visible=bool(ways) and ways[0][1] == "poses",
                )  # fmt: skip
                with gr.Row():
                    seed = gr.Number(
                        base.sampling.seed, label="Seed", info="The same number makes the same video.", precision=0,
                        minimum=0, maximum=2**32 - 1,
                    )  # fmt: skip
                    steps = gr.Number(
                        base.sampling.steps, label="Steps", info="More take longer.", precision=0, minimum=1,
                        maximum=MOST_STEPS,
                    )  # fmt: skip
                preset = gr.Radio(
                    [AS_THE_WEIGHTS, *PRESETS], value=AS_THE_WEIGHTS, label="Preset",
                    info="How much is computed: published the most, fast a third of it.",
                )  # fmt: skip
                faces = gr.Radio(
                    list(FACES), label="Face optimisation", info="Raises the face's likeness, and takes longer.",
                    value=next((name for name, n in FACES.items() if n == base.hjb.iterations), "off"),
                )  # fmt: skip
                with gr.Accordion("Size and alignment", open=False):
                    with gr.Row():
                        sides = [
                            gr.Number(
                                side, label=name, info=f"Pixels, at most {app.max_side}; empty: what suits.",
                                precision=0, minimum=0, maximum=app.max_side,
                            )
                            for name, side in (("Width", base.width), ("Height", base.height))
                        ]  # fmt: skip
                    align = gr.Radio(
                        list(get_args(Align)), value=base.align, label="Alignment",
                        info=f"How the driving person is brought to the person in the photo. {longest}",
                    )  # fmt: skip
                    sound = gr.Checkbox(False, label="Sound", info="Keep the driving video's sound.")
                with gr.Accordion("Settings of an earlier video", open=False):
                    record = gr.File(label="Record (.json)", file_types=[".json"], height=120)
                if drawn:
                    gr.Examples([[str(EXAMPLE / "reference.png"), "example"]], [photo, movement], label="Drawn people")
            with gr.Column():
                with gr.Row():
                    check = gr.Button("Check", elem_id="check")
                    animate = gr.Button("Animate", variant="primary", elem_id="animate")
                    cancel = gr.Button("Cancel", variant="stop", elem_id="cancel")
                said = gr.HTML(_said("Nothing is running."), elem_classes="said")
                checked = gr.HTML(visible=False, elem_classes="checked")
                preview = gr.Video(label="Poses, as they will be used", visible=False, interactive=False, height=320)
                video = gr.Video(label="Animation", interactive=False, visible=False, loop=True, height=480)
                sheet, plot = (
                    gr.Image(label=label, interactive=False, visible=False, type="filepath",
                             buttons=["download", "fullscreen"])
                    for label in ("Contact sheet", "What the face optimisation did")
                )  # fmt: skip
                kept = gr.File(label="Record, to make it again", interactive=False, visible=False)

        fields = [photo, movement, driving, poses, seed, preset, steps, *sides, faces, align, sound]
        settings = dict(zip(SETTINGS, fields[4:], strict=True))
        shown = [said, checked, preview, video, sheet, plot, kept]
        for field in (photo, driving, poses, record):
            field.async_move_resource_to_block_cache = MethodType(_no_addresses, field)

        def work(request: gr.Request, values: tuple[Any, ...], *, animate: bool) -> Iterator[list[Any]]:
            job = None
            try:
                job = workshop.job(_session(request), values, animate=animate)
                for standing in job.standings():
                    yield [_progress(standing), *[gr.skip()] * 6]
            except BaseException as e:
                if job is not None:
                    job.cancel()  # who watches it has left
                if isinstance(e, GeneratorExit):
                    raise
                told = _told(e)
                yield [_said(told, "problem"), *[gr.skip()] * 6]
                if not isinstance(e, KeyboardInterrupt):
                    raise gr.Error(html.escape(told), duration=None, print_exception=False) from None
                return
            yield _shown(job.result)

        def on_check(request: gr.Request, *values: Any) -> Iterator[list[Any]]:
            yield from work(request, values, animate=False)

        def on_animate(request: gr.Request, *values: Any) -> Iterator[list[Any]]:
            yield from work(request, values, animate=True)

        def on_cancel(request: gr.Request) -> str:
            job = workshop.visitors.of(_session(request)).job
            if job is None or job.ended:
                return _said("Nothing of yours is running or waiting any more.")
            job.cancel()
            return _said("Cancelled: it ends with the step that it is at.")

        def on_record(request: gr.Request, value: Any) -> list[Any]:
            if value is None:
                return [gr.skip()] * (len(SETTINGS) + 1)
            try:
                found, others = workshop.recorded(value, _session(request))
            except Exception as e:
                raise gr.Error(html.escape(_told(e)), duration=None, print_exception=False) from None
            left = f" The page has no field for {', '.join(others)}, which this video had otherwise." if others else ""
            files = "Give the files themselves again."
            return [*(found[name] for name in SETTINGS), _said(f"The record's settings are filled in. {files}{left}")]

        def on_upload(request: gr.Request, value: Any) -> None:
            workshop.visitors.upload(_session(request), uploaded(value, "this", workshop.cache))

        def on_movement(way: Any) -> list[Any]:
            return [gr.update(visible=way == "driving"), gr.update(visible=way == "poses")]

        def on_preset(name: Any) -> Any:
            return PRESETS[name].steps if isinstance(name, str) and name in PRESETS else base.sampling.steps

        def on_leave(request: gr.Request) -> None:
            workshop.visitors.leave(_session(request))

        device = {
            "concurrency_limit": 1, "concurrency_id": "device", "preprocess": False, "api_visibility": "undocumented",
        }  # fmt: skip
        quick = {"queue": False, "preprocess": False, "show_progress": "hidden", "api_visibility": "undocumented"}
        running: list[Any] = [
            check.click(on_check, fields, shown, api_name="check", show_progress_on=said, **device),
            animate.click(on_animate, fields, shown, api_name="animate", show_progress_on=said, **device),
        ]
        cancel.click(on_cancel, None, said, api_name="cancel", cancels=running, **quick)
        record.upload(on_record, record, [*settings.values(), said], api_name="record", **quick)
        for field in (photo, driving, poses):
            field.upload(on_upload, field, None, **quick)
        movement.change(on_movement, movement, [driving, poses], **quick)
        preset.input(on_preset, preset, steps, **quick)
        page.unload(on_leave)
    assert takes_poses(app) == bool(ways)
    page.queue(max_size=app.queue, api_open=False)
    return page


async def _no_addresses(self: Component, path: str) -> str:
    """In place of a field's own, which would fetch addresses from the network: uploads only."""
    if str(path).lower().startswith(("http:", "https:")):
        raise gr.Error("upload the file itself: addresses are not fetched", print_exception=False)
    return str(path)


def _session(request: gr.Request) -> str:
    if not request.session_hash:
        raise gr.Error("this request belongs to no open page", print_exception=False)
    return request.session_hash


def _said(text: str, kind: str = "") -> str:
    return f'<div role="status" aria-live="polite"><p class="{kind}">{html.escape(text)}</p></div>'


def _told(error: BaseException) -> str:
    """What a visitor is told of an error; what is no fault of theirs is written to the server's log."""
    if isinstance(error, KeyboardInterrupt):
        return "Cancelled."
    if isinstance(error, InputError):
        text = without_paths(str(error))
        return text[:1].upper() + text[1:] + ("" if text.endswith(".") else ".")
    if isinstance(error, MemoryError):
        return "There is not enough memory for this: give smaller files, or a smaller size."
    if isinstance(error, gr.Error):
        return str(error.message)
    traceback.print_exception(error, file=sys.stderr)
    return "Something went wrong in the program, not with your input; who runs it finds it in its log."


def _progress(standing: Standing) -> str:
    known = f' value="{standing.done}" max="{standing.total}"' if standing.total else ""
    left = standing.seconds_left
    words = [standing.label.capitalize(), standing.note, "" if left is None else f"about {left:.0f} s left of this"]
    text = html.escape(", ".join(filter(None, words)))
    frame = ""
    if standing.frame is not None:
        frame = f'<img alt="The latest frame" src="data:image/png;base64,{png_base64(standing.frame)}">'
    bar = f'<progress aria-label="Progress"{known}></progress>'
    return f'<div role="status" aria-live="polite"><p>{text}</p></div>{bar}{frame}'


def _shown(result: Checked | Animated) -> list[Any]:
    """For the page's outputs, in their order."""
    if isinstance(result, Checked):
        return [
            _said("Checked; nothing was animated."),
            gr.update(value=result.body, visible=True),
            _file(result.video),
            *[gr.update(value=None, visible=False)] * 4,
        ]
    files = [_file(path) for path in (result.video, result.sheet, result.plot, result.record)]
    return [_said(result.said), gr.update(visible=False), gr.update(value=None, visible=False), *files]


def _file(path: Path | None) -> Any:
    return gr.update(value=None if path is None else str(path), visible=path is not None)
