"""The report as one page that needs nothing else: tables, plots, and the worst videos as pictures."""

import base64
import html

import numpy as np

from stableanimator_jax.evaluation.measures import METRICS, Measured
from stableanimator_jax.evaluation.summary import Summary
from stableanimator_jax.scripts.evaluate.plots import along_frames, as_uri, distribution
from stableanimator_jax.scripts.evaluate.tables import Report, arrow, grouped_notes, row

_CURVES = (
    "psnr", "ssim", "lpips_vgg", "lpips_alex", "csim_reference", "csim_truth", "pose_body", "flicker_error",
)  # fmt: skip
_JUDGES = ("l1", "psnr", "ssim", "lpips_vgg", "lpips_alex", "csim_reference", "csim_truth", "pose_body")
_MOST_ROWS = 1000
_STYLE = """
:root { color-scheme: light; --ink: #1f2933; --soft: #52606d; --line: #d9e2ec; --blue: #1b6ca8; --back: #f5f7fa }
* { box-sizing: border-box }
body { font: 16px/1.5 system-ui, sans-serif; color: var(--ink); max-width: 76rem; margin: 0 auto; padding: 1.5rem 1rem }
h1 { font-size: 1.7rem; margin: 0 0 .2rem }
h2 { font-size: 1.2rem; margin: 2.2rem 0 .6rem; padding-top: .6rem; border-top: 1px solid var(--line) }
.lead { color: var(--soft); margin: 0 }
.facts { display: flex; flex-wrap: wrap; gap: .6rem; margin: 1rem 0; padding: 0; list-style: none }
.facts li { background: var(--back); border-radius: .5rem; padding: .5rem .9rem }
.facts strong { display: block; font-size: 1.15rem }
.scroll { overflow-x: auto }
table { border-collapse: collapse; width: 100%; font-size: .92rem }
caption { text-align: left; color: var(--soft); padding-bottom: .4rem }
th, td { text-align: left; vertical-align: top; padding: .35rem 1rem .35rem 0; border-bottom: 1px solid var(--line) }
th.n, td.n { text-align: right; font-variant-numeric: tabular-nums }
td.n, th[scope=row] { white-space: nowrap }
td.small { min-width: 16rem }
th[scope=row] { font-weight: 600 }
.small { font-size: .85rem; color: var(--soft) }
.box { border-left: 5px solid #b35c00; background: #fff4e5; padding: .5rem 1rem; margin: .6rem 0; border-radius: .3rem }
.box.bad { border-color: #b3261e; background: #fdecea }
.box ul { margin: .2rem 0; padding-left: 1.2rem; overflow-wrap: anywhere }
.plots { display: grid; grid-template-columns: repeat(auto-fill, minmax(19rem, 1fr)); gap: .8rem }
img { max-width: 100%; border: 1px solid var(--line); border-radius: .4rem }
.plots img { width: 100% }
figure { margin: 0 0 1.4rem }
code { background: var(--back); padding: .1rem .3rem; overflow-wrap: anywhere }
summary { cursor: pointer; color: var(--blue); padding: .3rem 0 }
"""


def page(report: Report, summary: Summary, odd: list[str], worst: int) -> str:
    """The HTML.

    Args:
        report: all that the result says.
        summary: of its videos.
        odd: videos that are far worse than the others, in words.
        worst: how many to show as pictures.
    """
    found = report.found
    ranked = worst_first(found.videos)
    sections = [
        _head(report, summary),
        _warnings(report, odd),
        _metrics(summary),
        _distributions(found.videos, summary),
        _curves(found.videos, ranked[0] if ranked else None),
        _pictures(report, ranked[:worst]),
        _protocol(report, summary),
        _videos(found.videos),
    ]
    title = f"Evaluation of {len(found.videos)} videos, protocol {summary.protocol}"
    return (
        f'<!doctype html>\n<html lang="en"><head><meta charset="utf-8"><title>{html.escape(title)}</title>\n'
        '<meta name="viewport" content="width=device-width, initial-scale=1">\n'
        f"<style>{_STYLE}</style></head>\n<body><main>\n"
        + "\n".join(section for section in sections if section)
        + "\n</main></body></html>\n"
    )


def worst_first(videos: list[Measured]) -> list[str]:
    """Names by their mean rank in the measures that judge single videos; videos that have none are left out."""
    ranks: dict[str, list[float]] = {}
    for name in _JUDGES:
        having = [v for v in videos if np.isfinite(v.scores.get(name, np.nan))]
        sign = 1 if METRICS[name].higher_is_better else -1
        order = np.argsort(np.argsort([sign * v.scores[name] for v in having], kind="stable"), kind="stable")
        for video, place in zip(having, order, strict=True):
            ranks.setdefault(video.name, []).append(float(place) / max(1, len(having) - 1))
    return sorted(ranks, key=lambda name: (float(np.mean(ranks[name])), name))


def _head(report: Report, summary: Summary) -> str:
    sizes = {f"{w}x{h}" for w, h in summary.sizes.values()}
    facts = [
        ("videos measured", str(len(summary.frames))),
        ("frames", f"{sum(summary.frames.values()):,}"),
        ("frames a video", _range(list(summary.frames.values()))),
        ("size", next(iter(sizes)) if len(sizes) == 1 else f"{len(sizes)} sizes"),
    ]
    if report.found.failed:
        facts.append(("not measured", str(len(report.found.failed))))
    if report.shard != "1/1":
        facts.append(("shard", report.shard))
    items = "".join(f"<li><strong>{html.escape(v)}</strong>{html.escape(k)}</li>" for k, v in facts)
    sampled = report.evaluation.sampled
    lead = f"By the protocol <strong>{html.escape(summary.protocol)}</strong>"
    if sampled is not None:
        lead += f"; sampled by <code>{html.escape(str(sampled.get('checkpoint')))}</code>"
    return f'<header><h1>Evaluation</h1><p class="lead">{lead}</p><ul class="facts">{items}</ul></header>'


def _range(values: list[int]) -> str:
    low, high = min(values), max(values)
    return str(low) if low == high else f"{low} to {high}"


def _warnings(report: Report, odd: list[str]) -> str:
    found = report.found
    said = [f"{name}: {text}" for name, texts in found.suspicions.items() for text in texts]
    failed = [f"{name}: {reason}" for name, reason in found.failed.items()]
    boxes = [
        _box("What stands out", [*said, *odd], "box bad"),
        _box("Videos that could not be measured", failed, "box bad"),
        _box("To be known", grouped_notes(found), "box"),
    ]
    return "\n".join(boxes)


def _box(title: str, lines: list[str], kind: str) -> str:
    return f'<section class="{kind}"><strong>{title}</strong>{_list(lines)}</section>' if lines else ""


def _section(title: str, body: str, lead: str = "") -> str:
    """Nothing where there is no body."""
    said = f'<p class="small">{lead}</p>' if lead else ""
    return f"<section><h2>{title}</h2>{said}{body}</section>" if body else ""


def _plots(images: list[str]) -> str:
    return f'<div class="plots">{"".join(images)}</div>' if images else ""


def _table(caption: str, head: str, rows: list[str]) -> str:
    top = f"<caption>{caption}</caption>" if caption else ""
    heads = f"<thead><tr>{head}</tr></thead>" if head else ""
    return f'<div class="scroll"><table>{top}{heads}<tbody>{"".join(rows)}</tbody></table></div>'


def _list(lines: list[str], most: int = 30) -> str:
    shown = "".join(f"<li>{html.escape(line)}</li>" for line in lines[:most])
    more = f"<li>and {len(lines) - most} more, in result.json</li>" if len(lines) > most else ""
    return f"<ul>{shown}{more}</ul>"


def _metrics(summary: Summary) -> str:
    head = ("metric", "value", "95 % interval", "videos", "clips or frames", "truth", "baseline", "")
    cells = "".join(f'<th scope="col"{" class=n" if 0 < i < 7 else ""}>{title}</th>' for i, title in enumerate(head))
    rows = []
    for name, estimate in summary.metrics.items():
        *numbers, remarks = row(name, estimate)
        tds = "".join(f'<td class="n">{html.escape(value)}</td>' for value in numbers)
        title = html.escape(METRICS[name].title + arrow(name))
        rows.append(f'<tr><th scope="row">{title}</th>{tds}<td class="small">{html.escape(remarks)}</td></tr>')
    caption = (
        "↑ higher is better, ↓ lower. Intervals are over videos. Truth: what the true videos get in the generated "
        "ones' place (of a distance of distributions: half of them against the other half); baseline: what needs no "
        "animation, a still picture or another person's face. Values in brackets are no headline."
    )
    return _section("Figures", _table(caption, cells, rows))


def _distributions(videos: list[Measured], summary: Summary) -> str:
    images = []
    for name, estimate in summary.metrics.items():
        if not any(np.isfinite(video.scores.get(name, np.nan)) for video in videos):
            continue
        digits = METRICS[name].digits
        alt = f"{METRICS[name].title} of each video: mean {estimate.value:.{digits}f}, {estimate.videos} videos"
        images.append(f'<img alt="{html.escape(alt)}" src="{as_uri(distribution(name, videos, estimate))}">')
    lead = "Every video is a dot. Red: the mean and its interval; green: the truth; grey: the baseline."
    return _section("Over the videos", _plots(images), lead)


def _curves(videos: list[Measured], worst: str | None) -> str:
    images = []
    for name in _CURVES:
        if (figure := along_frames(name, videos, worst)) is not None:
            alt = f"{METRICS[name].title} along the frames: median and middle 80 % of the videos"
            images.append(f'<img alt="{html.escape(alt)}" src="{as_uri(figure)}">')
    lead = "Whether videos get worse the longer they are. Dashed: the worst video."
    return _section("Along the frames", _plots(images), lead)


def _pictures(report: Report, ranked: list[str]) -> str:
    found = report.found
    by_name = {video.name: video for video in found.videos}
    suspected = [name for name in found.suspicions if name not in ranked][: len(ranked)]
    figures = []
    for name in [*suspected, *ranked]:
        picture = found.pictures.get(name)
        if picture is None:
            continue
        video = by_name[name]
        numbers = ", ".join(
            f"{METRICS[key].title} {video.scores[key]:.{METRICS[key].digits}f}"
            for key in _JUDGES
            if key in video.scores
        )
        said = "".join(f"<br><strong>{html.escape(text)}</strong>" for text in found.suspicions.get(name, []))
        data = base64.b64encode(picture.read_bytes()).decode()
        alt = f"{name}: generated frames over the true ones, the reference at the left where there is one"
        caption = f'<strong>{html.escape(name)}</strong> <span class="small">{html.escape(numbers)}</span>{said}'
        figures.append(
            f'<figure><img alt="{html.escape(alt)}" src="data:image/jpeg;base64,{data}">'
            f"<figcaption>{caption}</figcaption></figure>"
        )
    lead = "By the mean of their ranks in the measures that judge single videos; before them those that look mistaken."
    return _section("The worst videos", "".join(figures), lead)


def _protocol(report: Report, summary: Summary) -> str:
    sampled = report.evaluation.sampled or {}
    facts = {
        **summary.choices,
        **{f"setting: {key}": str(value) for key, value in report.evaluation.settings.items()},
        "decoder": summary.decoder,
        **{f"weights of {name}": f"SHA-256 {digest}" for name, digest in summary.weights.items()},
        **{f"sampled: {key}": str(value) for key, value in sampled.items()},
        "command": " ".join(report.command),
    }
    rows = [
        f'<tr><th scope="row">{html.escape(title)}</th><td>{html.escape(words)}</td></tr>'
        for title, words in facts.items()
    ]
    return _section("How it was measured", _table("Figures by other choices cannot be compared with these.", "", rows))


def _videos(videos: list[Measured]) -> str:
    names = [name for name in METRICS if any(name in video.scores for video in videos)]
    head = "".join(f'<th scope="col" class="n">{html.escape(METRICS[name].title)}</th>' for name in names)
    rows = []
    for video in videos[:_MOST_ROWS]:
        cells = "".join(
            f'<td class="n">{video.scores[n]:.{METRICS[n].digits}f}</td>' if n in video.scores else "<td></td>"
            for n in names
        )
        rows.append(f'<tr><th scope="row">{html.escape(video.name)}</th><td class="n">{video.length}</td>{cells}</tr>')
    more = f" (the first {_MOST_ROWS}; all of them are in result.csv)" if len(videos) > _MOST_ROWS else ""
    head = f'<th scope="col">video</th><th scope="col" class="n">frames</th>{head}'
    title = f"<summary>Show the table of {len(videos)} videos{more}</summary>"
    return _section("Every video", f"<details>{title}{_table('', head, rows)}</details>")
