"""The report: one self-contained HTML page made from an EvaluationResult, plots and videos."""

import base64
from html import escape
from typing import NamedTuple

from video_mirai.evaluation.report_method import method_section, vbench_section
from video_mirai.evaluation.report_style import SCRIPT, page_head
from video_mirai.evaluation.results import (
    Difference,
    EvaluationResult,
    Metric,
    Row,
    format_estimate,
    format_interval,
)
from video_mirai.evaluation.statements import difference_statements, judge, model_statements

_ARROWS = {"higher": " ↑", "lower": " ↓", "neither": ""}
_ROW_NOTES = {
    "model": "",
    "copy": "one true frame, repeated",
    "velocity": "sprites carried straight on from what the given frames show",
    "reader": "the true frames, read: the floor of every number in this table",
    "real": "other real videos: the noise floor",
    "codec": "the truth, encoded and decoded: the ceiling",
}


class Plot(NamedTuple):
    """One figure twice, for light and for dark pages (PNG bytes)."""

    title: str
    caption: str
    light: bytes
    dark: bytes


class Strip(NamedTuple):
    """Videos of one history side by side: a caption, then (label, mp4 bytes)."""

    caption: str
    videos: list[tuple[str, bytes]]


class Gallery(NamedTuple):
    title: str
    note: str
    strips: list[Strip]
    pause_button: bool = False


def build_report(result: EvaluationResult, plots: list[Plot], galleries: list[Gallery]) -> str:
    """The whole page as HTML; nothing in it is loaded from anywhere."""
    clips = result.clips
    sections = [
        _warnings(result),
        _headline(result),
        *(_gallery(gallery) for gallery in galleries),
        _words(result),
        _plots(plots),
        vbench_section(result),
        method_section(result),
    ]
    return f"""{page_head(escape(_title(result)))}\
<body data-fps="{clips.fps}" data-history="{clips.history_frames}" data-training="{clips.training_frames or 0}"
 data-frames="{clips.history_frames + clips.horizon_frames}">
<main>
<h1>{escape(_title(result))}</h1>
{_summary(result)}
{"".join(sections)}
</main>
<script>{SCRIPT}</script>
</body>
</html>
"""


def _title(result: EvaluationResult) -> str:
    names = [row.name for row in result.rows if row.kind == "model"]
    return ("Long rollouts: " if result.models else "Videos: ") + " and ".join(names)


def _summary(result: EvaluationResult) -> str:
    clips = result.clips
    chips = [
        f"{clips.num_clips} clips of {clips.num_source_videos} videos",
        f"split “{clips.split}”",
        f"{clips.width}×{clips.height} at {clips.fps:g} frames/s",
        f"{clips.history_frames} history frames",
        f"{clips.horizon_frames} scored frames",
    ]
    if clips.training_frames is not None:
        times = clips.horizon_frames / max(1, clips.training_frames)
        chips += [f"trained on {clips.training_frames} frames", f"horizon {times:.1f}× the training length"]
    chips.append(f"seed {clips.seed}")
    what = (
        "Every model continues the same histories, one chunk at a time from its cache, far past the length it was "
        "trained on. Scores leave the given frames out."
        if result.models
        else "Folders of videos against real ones, brought to one rate, size and length; how stands at the end."
    )
    return f"<p>{what}</p><div class=chips>{''.join(f'<span>{escape(chip)}</span>' for chip in chips)}</div>"


def _warnings(result: EvaluationResult) -> str:
    return "".join(f"<p class=warning>{escape(warning)}</p>" for warning in result.warnings)


def _headline(result: EvaluationResult) -> str:
    tables = "".join(_table(result, group, metrics) for group, metrics in result.shown_tables().items())
    return (
        "<section><h2>Results</h2>"
        "<p class=soft>↑ higher is better, ↓ lower is better. Small print: 95 % intervals over source videos. "
        "Differences are paired on the same histories and seeds; coloured where the interval excludes zero. A "
        "consistency means nothing without the dynamic degree beside it: a frozen video is perfectly consistent.</p>"
        f"{tables}</section>"
    )


def _table(result: EvaluationResult, group: str, metrics: list[Metric]) -> str:
    head = "".join(f'<th title="{escape(m.how)}">{escape(m.title)}{_ARROWS[m.better]}{_unit(m)}</th>' for m in metrics)
    body = "".join(_row(row, metrics) for row in result.rows if any(row.has(m) for m in metrics))
    shown = [difference for difference in result.differences if any(difference.has(m) for m in metrics)]
    body += "".join(_difference(difference, metrics, first=i == 0) for i, difference in enumerate(shown))
    title = f"<h3>{escape(group)}</h3>" if group else ""
    return f"{title}<div class=scroll><table><tr><th></th>{head}</tr>{body}</table></div>"


def _row(row: Row, metrics: list[Metric]) -> str:
    cells = []
    for metric in metrics:
        estimate = row.metrics.get(metric.key)
        interval = format_interval(estimate, metric.decimals)
        cells.append(f"<td>{format_estimate(estimate, metric.decimals)}<small>{interval}</small></td>")
    return f"<tr class={row.kind}><td>{escape(row.name)}<small>{_ROW_NOTES[row.kind]}</small></td>{''.join(cells)}</tr>"


def _difference(difference: Difference, metrics: list[Metric], first: bool) -> str:
    cells = []
    for metric in metrics:
        estimate = difference.metrics.get(metric.key)
        outcome = judge(estimate, metric).outcome if estimate is not None else "unknown"
        cells.append(
            f"<td class={outcome}>{format_estimate(estimate, metric.decimals, signed=True)}"
            f"<small>{format_interval(estimate, metric.decimals)}</small></td>"
        )
    name = f"{escape(difference.name)} − {escape(difference.reference)}"
    return f"<tr{' class=split' if first else ''}><td>{name}</td>{''.join(cells)}</tr>"


def _words(result: EvaluationResult) -> str:
    parts = ["<section><h2>In plain words</h2>"]
    sentences = difference_statements(result)
    if sentences:
        parts.append("<ul>" + "".join(f"<li>{escape(sentence)}</li>" for sentence in sentences) + "</ul>")
    for statement in model_statements(result):
        parts.append(f"<h3>{escape(statement.name)}, window by window</h3><ul>")
        parts.extend(f"<li>{escape(line)}</li>" for line in statement.summary)
        parts.append(
            "</ul><div class=scroll><table class=words><tr><th>frames</th><th>metric</th><th>value</th>"
            "<th>against copy-last-frame</th><th>against real versus real</th></tr>"
        )
        for window in statement.windows:
            beyond = "<small>beyond training</small>" if window.beyond_training else ""
            parts.append(
                f"<tr><td>{window.frames}{beyond}</td><td>{escape(window.metric)}</td><td>{escape(window.value)}</td>"
                f"<td class={window.against_copy.outcome}>{escape(window.against_copy.text)}</td>"
                f"<td>{escape(window.against_real)}</td></tr>"
            )
        parts.append("</table></div>")
    return "".join([*parts, "</section>"])


def _plots(plots: list[Plot]) -> str:
    figures = "".join(
        f'<figure><picture><source srcset="{_data_url(plot.dark, "image/png")}" media="(prefers-color-scheme: dark)">'
        f'<img src="{_data_url(plot.light, "image/png")}" alt="{escape(plot.title)}"></picture>'
        f"<figcaption>{escape(plot.caption)}</figcaption></figure>"
        for plot in plots
    )
    return (
        "<section><h2>Over time</h2><p class=soft>Lines are means over videos, bands 95 % intervals. A vertical "
        f"line stands where the training clips ended, if known.</p><div class=plots>{figures}</div></section>"
    )


def _gallery(gallery: Gallery) -> str:
    if not gallery.strips:
        return ""
    strips = "".join(_strip(strip) for strip in gallery.strips)
    pause = "<button id=pause type=button>Pause videos</button>" if gallery.pause_button else ""
    head = f"<h2>{escape(gallery.title)}</h2><p class=soft>{escape(gallery.note)}</p>{pause}"
    return f"<section>{head}<div class=strips>{strips}</div></section>"


def _strip(strip: Strip) -> str:
    tiles = "".join(
        f'<figure><video src="{_data_url(video, "video/mp4")}" loop muted autoplay playsinline preload="auto"></video>'
        f"<figcaption>{escape(label)}</figcaption></figure>"
        for label, video in strip.videos
    )
    columns = min(4, len(strip.videos))
    caption = f"<p class=soft>{escape(strip.caption)} <span class=clock></span></p>"
    return f'<div class=strip>{caption}<div class=tiles style="--columns:{columns}">{tiles}</div></div>'


def _unit(metric: Metric) -> str:
    return f"<br>{escape(metric.unit)}" if metric.unit else ""


def _data_url(data: bytes, kind: str) -> str:
    return f"data:{kind};base64,{base64.b64encode(data).decode('ascii')}"
