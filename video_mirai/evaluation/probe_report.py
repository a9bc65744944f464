"""The probe's report: curves over the offset, and one self-contained HTML page."""

import base64
import io
import json
from html import escape

import numpy as np
from matplotlib.axes import Axes
from matplotlib.backends.backend_agg import FigureCanvasAgg
from matplotlib.figure import Figure
from PIL import Image

from video_mirai.evaluation.plots import Theme
from video_mirai.evaluation.probe_pictures import Picture
from video_mirai.evaluation.probe_result import (
    BASELINE,
    CHECKPOINT,
    CONSTANT_VELOCITY,
    COPY,
    MEAN,
    METRICS,
    MLP,
    NO_READOUT,
    PREDICTORS,
    R2,
    RAW_PIXELS,
    RIDGE,
    SHUFFLED,
    UNTRAINED,
    ProbeMetric,
    ProbeResult,
    as_text,
    interval_text,
)
from video_mirai.evaluation.report import Plot
from video_mirai.evaluation.report_style import page_head
from video_mirai.evaluation.results import Estimate, finite_only

PROBE_STYLE = "\n.probe img { max-width: 100%; image-rendering: pixelated; border-radius: 6px; }"

# Okabe and Ito's palette; what is learnt is drawn solid, what needs no model dashed.
_COLOURS = {
    CHECKPOINT: "#0072B2", BASELINE: "#E69F00", UNTRAINED: "#CC79A7", RAW_PIXELS: "#009E73", SHUFFLED: "#8A8A8A",
    COPY: "#56B4E9", MEAN: "#B0B0B0", CONSTANT_VELOCITY: "#D55E00",
}  # fmt: skip
_LINES = {SHUFFLED: ":", COPY: "--", MEAN: "--", CONSTANT_VELOCITY: "-."}
_READOUTS = {RIDGE: "ridge", MLP: "network"}
# A copy far ahead can be much worse than the mean; without this floor it would flatten every other line.
_LOWEST_R2 = -0.25


def plot_r2(result: ProbeResult, target: str, readout: str, theme: Theme) -> bytes:
    """R2 of every predictor over the offset, with 95 % bars, as PNG bytes."""
    figure, axes = _figure(theme)
    for predictor, colour in _COLOURS.items():
        scores = [result.score(target, offset, predictor, readout) for offset in result.offsets()]
        points = [(score.offset, score.metrics[R2.key]) for score in scores if score is not None]
        if points:
            _curve(axes, points, predictor, colour, _LINES.get(predictor, "-"))
    axes.set_ylim(bottom=max(axes.get_ylim()[0], _LOWEST_R2), top=1.03)
    return _png(figure, axes, f"{target}: R2 of {_READOUTS[readout]} readouts", R2.title, theme)


def plot_difference(result: ProbeResult, readout: str, theme: Theme) -> bytes:
    """R2 of the checkpoint minus that of its reference over the offset, for every target, as PNG bytes."""
    figure, axes = _figure(theme)
    axes.axhline(0, color=theme.foreground, linewidth=1)
    for target, colour in zip(result.targets, ("#0072B2", "#D55E00", "#009E73"), strict=False):
        found = [result.difference(target.key, offset, readout, result.reference) for offset in result.offsets()]
        points = [(difference.offset, difference.metrics[R2.key]) for difference in found if difference is not None]
        if points:
            _curve(axes, points, target.key, colour, "-")
    title = f"R2, {CHECKPOINT} − {result.reference} ({_READOUTS[readout]})"
    return _png(figure, axes, title, "difference of R2", theme)


def build_page(result: ProbeResult, plots: list[Plot], pictures: list[Picture]) -> str:
    """The whole page as HTML; nothing in it is loaded from anywhere."""
    sections = [
        "".join(f"<p class=warning>{escape(warning)}</p>" for warning in result.warnings),
        _headline(result),
        _pictures(pictures, result),
        _plots(plots),
        *(_scores(result, target.key, target.unit) for target in result.targets),
        _method(result),
    ]
    title = f"Probe: is the future in the state? {result.checkpoint.path}"
    return f"""{page_head(escape(title), PROBE_STYLE)}\
<body>
<main>
<h1>Probe: is the future in the state?</h1>
{_summary(result)}
{"".join(sections)}
</main>
</body>
</html>
"""


def _summary(result: ProbeResult) -> str:
    clips, config = result.clips, result.config
    against = f" against {result.baseline.path}" if result.baseline is not None else ""
    chips = [
        f"{result.checkpoint.path}{against}",
        f"layer {result.checkpoint.layer} of {result.checkpoint.num_layers}",
        f"sigma {config['sigma']:g}",
        f"{clips.num_clips} clips of {clips.dataset}, split “{clips.split}”",
        ", ".join(f"{videos} {part}" for part, videos in clips.num_videos.items()) + " videos",
        f"{clips.num_rows['test']} test frames",
        f"seed {config['seed']}",
    ]
    return (
        "<p>The model is frozen. Its hidden state at frame t, which has seen nothing later, is all that a readout gets "
        "that predicts frame t + D. Readouts are fitted on some videos, chosen on others and scored on yet others.</p>"
        f"<div class=chips>{''.join(f'<span>{escape(chip)}</span>' for chip in chips)}</div>"
    )


def _headline(result: ProbeResult) -> str:
    offsets = result.offsets()
    head = "".join(f"<th>D = {offset}</th>" for offset in offsets)
    body = []
    for target in result.targets:
        for readout in result.readouts():
            found = [result.difference(target.key, offset, readout, result.reference) for offset in offsets]
            cells = "".join(_cell(d.metrics[R2.key] if d else None, R2, signed=True) for d in found)
            body.append(f"<tr><td>{escape(target.key)}<small>{_READOUTS[readout]}</small></td>{cells}</tr>")
    return (
        f"<section><h2>The number that counts: R2, {CHECKPOINT} − {result.reference}</h2><p class=soft>Paired over "
        "test videos; small print: 95 % bootstrap interval; coloured where it excludes zero. Above zero the "
        "checkpoint's state says more of the future.</p>"
        f"<div class=scroll><table><tr><th></th>{head}</tr>{''.join(body)}</table></div></section>"
    )


def _pictures(pictures: list[Picture], result: ProbeResult) -> str:
    if not pictures:
        return ""
    rows = ", ".join(f"{offset}" for offset in result.config["offsets"])
    figures = "".join(
        f'<figure><img src="{_data_url(png_bytes(picture.image))}" alt="readouts of {escape(picture.video)}">'
        f"<figcaption>Clip {picture.clip}, {escape(picture.video)}, t = {picture.frame}</figcaption></figure>"
        for picture in pictures
    )
    return (
        f"<section class=probe><h2>Readouts as pictures</h2><p class=soft>Test videos, chosen before anything was "
        f"fitted; from top to bottom D = {rows}. A linear readout shows the mean of the futures that the state allows; "
        f"beside it stands the mean of {result.config['picture_rollouts']} rollouts from the same frame.</p>"
        f"<div class=plots>{figures}</div></section>"
    )


def _plots(plots: list[Plot]) -> str:
    figures = "".join(
        f'<figure><picture><source srcset="{_data_url(plot.dark)}" media="(prefers-color-scheme: dark)">'
        f'<img src="{_data_url(plot.light)}" alt="{escape(plot.title)}"></picture></figure>'
        for plot in plots
    )
    return f"<section><h2>Over the offset</h2><div class=plots>{figures}</div></section>"


def _scores(result: ProbeResult, target: str, unit: str) -> str:
    """One table for each metric: predictors by offset."""
    offsets = result.offsets()
    head = "".join(f"<th>D = {offset}</th>" for offset in offsets)
    tables = []
    for metric in result.metrics(target):
        lines = []
        for readout in (*result.readouts(), NO_READOUT):
            for predictor in PREDICTORS:
                scores = [
                    s for s in result.scores if (s.target, s.readout, s.predictor) == (target, readout, predictor)
                ]
                if scores:
                    by_offset = {s.offset: s.metrics[metric.key] for s in scores}
                    cells = "".join(_cell(by_offset.get(offset), metric) for offset in offsets)
                    name = _READOUTS.get(readout, "no readout")
                    lines.append(f"<tr><td>{escape(predictor)}<small>{name}</small></td>{cells}</tr>")
        measure = f"{metric.title} ({unit})" if metric.key == "rmse" else metric.title
        tables.append(
            f"<h3>{escape(measure)}</h3><div class=scroll><table><tr><th></th>{head}</tr>{''.join(lines)}</table></div>"
        )
    return f"<section><h2>{escape(target)}: every score</h2>{''.join(tables)}</section>"


def _method(result: ProbeResult) -> str:
    clips = result.clips
    models = {CHECKPOINT: result.checkpoint} | ({BASELINE: result.baseline} if result.baseline is not None else {})
    facts = {
        **{metric.title: metric.how for metric in METRICS.values()},
        **PREDICTORS,
        **{
            f"{name}, as read": f"{of.path}, weights sha256 {of.sha256}; layer {of.layer} of {of.num_layers}, "
            f"{of.features} numbers a state, window {of.window_frames}, chunks of {of.chunk_frames}"
            for name, of in models.items()
        },
        "frames read in every clip": ", ".join(str(frame) for frame in clips.frames_read),
        "targets": "; ".join(f"{target.key} {target.shape}" for target in result.targets),
        "ridge strengths chosen, on pixels or the first target": _strengths(result),
        "revision": result.revision,
        "configuration": f"sha256 {result.config_sha256}",
        "hardware": ", ".join(f"{key}: {value}" for key, value in result.hardware.items()),
        "software": ", ".join(f"{key} {value}" for key, value in result.versions.items()),
        "made": result.created,
    }
    listed = "".join(f"<dt>{escape(key)}</dt><dd>{escape(value)}</dd>" for key, value in facts.items())
    config = escape(json.dumps(finite_only(result.config), indent=2))
    return (
        f"<section><h2>How every number was made</h2><dl>{listed}</dl><details><summary>Resolved "
        f"configuration</summary><pre>{config}</pre></details></section>"
    )


def _strengths(result: ProbeResult) -> str:
    first = result.targets[0].key
    scores = [s for s in result.scores if s.target == first and s.predictor == CHECKPOINT and s.readout == RIDGE]
    return ", ".join(f"D = {score.offset}: {score.strength:.3g}" for score in scores)


def _cell(estimate: Estimate | None, metric: ProbeMetric, *, signed: bool = False) -> str:
    """With `signed` a difference, coloured where its interval excludes zero."""
    colour = ""
    if signed and estimate is not None:
        better = (estimate.value > 0) == (metric.better == "higher")
        colour = f" class={('better' if better else 'worse') if estimate.excludes_zero else 'unclear'}"
    value = as_text(estimate, metric, signed=signed)
    return f"<td{colour}>{value}<small>{interval_text(estimate, metric)}</small></td>"


def _figure(theme: Theme) -> tuple[Figure, Axes]:
    figure = Figure(figsize=(7.2, 3.9), dpi=130, facecolor=theme.background, layout="constrained")
    FigureCanvasAgg(figure)
    return figure, figure.add_subplot(facecolor=theme.background)


def _curve(axes: Axes, points: list[tuple[int, Estimate]], label: str, colour: str, line: str) -> None:
    offsets = [offset for offset, _ in points]
    axes.plot(
        offsets, [e.value for _, e in points], color=colour, linestyle=line, marker="o", markersize=4, label=label
    )
    for offset, estimate in points:
        if estimate.low is not None and estimate.high is not None:
            axes.vlines(offset, estimate.low, estimate.high, color=colour, linewidth=1, alpha=0.6)


def _png(figure: Figure, axes: Axes, title: str, y_label: str, theme: Theme) -> bytes:
    axes.set_title(title, loc="left", fontsize=11, color=theme.foreground)
    axes.set_xlabel("offset D, latent frames ahead", color=theme.foreground)
    axes.set_ylabel(y_label, color=theme.foreground)
    axes.tick_params(colors=theme.foreground)
    axes.grid(color=theme.grid, linewidth=0.8)
    axes.set_axisbelow(True)
    for side, spine in axes.spines.items():
        spine.set_visible(side in ("left", "bottom"))
        spine.set_color(theme.grid)
    figure.legend(loc="outside lower center", ncols=4, frameon=False, fontsize=9, labelcolor=theme.foreground)
    buffer = io.BytesIO()
    # No software name and date in the file: the same numbers give the same bytes.
    figure.savefig(buffer, format="png", facecolor=theme.background, metadata={"Software": None})
    return buffer.getvalue()


def png_bytes(image: np.ndarray) -> bytes:
    """A (H, W, 3) uint8 picture as PNG."""
    buffer = io.BytesIO()
    Image.fromarray(image).save(buffer, format="png")
    return buffer.getvalue()


def _data_url(png: bytes) -> str:
    return f"data:image/png;base64,{base64.b64encode(png).decode('ascii')}"
