"""Curves over time with bands, as PNG bytes for the report and for disk."""

import io
from collections.abc import Mapping
from dataclasses import dataclass

from matplotlib.axes import Axes
from matplotlib.backends.backend_agg import FigureCanvasAgg
from matplotlib.figure import Figure

from video_mirai.evaluation.results import Curve, Row

# Okabe and Ito's palette, which people with colour blindness can tell apart.
_MODEL_COLOURS = ("#E69F00", "#0072B2", "#D55E00", "#CC79A7", "#56B4E9", "#F0E442")
_KIND_COLOURS = {"copy": "#8A8A8A", "real": "#009E73", "codec": "#B39DDB", "velocity": "#795548", "reader": "#607D8B"}
_KIND_LINES = {"model": "-", "copy": "--", "real": "-.", "codec": ":", "velocity": "--", "reader": ":"}


@dataclass(frozen=True)
class Theme:
    background: str
    foreground: str
    grid: str


LIGHT = Theme(background="#ffffff", foreground="#1d2330", grid="#e3e6ec")
DARK = Theme(background="#171b24", foreground="#e6e9f0", grid="#2c3240")


def row_colours(rows: list[Row]) -> dict[str, str]:
    """One colour per row, the same in every plot: models in order, the reference rows fixed by kind."""
    models = [row.name for row in rows if row.kind == "model"]
    colours = {name: _MODEL_COLOURS[i % len(_MODEL_COLOURS)] for i, name in enumerate(models)}
    return {row.name: colours.get(row.name) or _KIND_COLOURS[row.kind] for row in rows}


def plot_curves(
    rows: list[Row], key: str, title: str, y_label: str, history_frames: int, training_frames: int | None, theme: Theme
) -> bytes | None:
    """One metric of every row over the scored frames, as PNG bytes; None where no row has that curve.

    Args:
        history_frames, training_frames: frames; the vertical line stands where the training clips ended. None: unknown.
    """
    curves = {row.name: row.curves[key] for row in rows if key in row.curves}
    if not curves:
        return None
    figure, axes = _figure(theme)
    _draw(axes, rows, curves)
    training_end = 0 if training_frames is None else training_frames - history_frames
    if training_end > 0:
        axes.axvline(training_end, color=theme.foreground, linewidth=1, linestyle=(0, (2, 2)))
        axes.annotate(
            " training length ends",
            (training_end, 1),
            xycoords=("data", "axes fraction"),
            xytext=(2, -4),
            textcoords="offset points",
            va="top",
            fontsize=8,
            color=theme.foreground,
        )
    return _finished(figure, axes, title, "generated frame" if history_frames else "frame", y_label, theme)


def plot_lags(rows: list[Row], title: str, theme: Theme) -> bytes | None:
    """Cosine of every row against the distance in frames, as PNG bytes; None where no row has one."""
    curves = {row.name: row.cosine_by_lag for row in rows if row.cosine_by_lag is not None}
    if not curves:
        return None
    figure, axes = _figure(theme)
    axes.set_xscale("log")
    lags = sorted({lag for curve in curves.values() for lag in curve.frames})
    axes.set_xticks(lags, [str(lag) for lag in lags], minor=False)
    axes.minorticks_off()
    _draw(axes, rows, curves)
    return _finished(figure, axes, title, "frames apart", "cosine", theme)


def _figure(theme: Theme) -> tuple[Figure, Axes]:
    figure = Figure(figsize=(7.2, 3.9), dpi=130, facecolor=theme.background, layout="constrained")
    FigureCanvasAgg(figure)
    return figure, figure.add_subplot(facecolor=theme.background)


def _finished(figure: Figure, axes: Axes, title: str, x_label: str, y_label: str, theme: Theme) -> bytes:
    axes.set_title(title, loc="left", fontsize=11, color=theme.foreground)
    axes.set_xlabel(x_label, color=theme.foreground)
    axes.set_ylabel(y_label, color=theme.foreground)
    axes.tick_params(colors=theme.foreground)
    axes.grid(color=theme.grid, linewidth=0.8)
    axes.set_axisbelow(True)
    for side, spine in axes.spines.items():
        spine.set_visible(side in ("left", "bottom"))
        spine.set_color(theme.grid)
    figure.legend(
        loc="outside lower center",
        ncols=min(4, len(axes.lines)),
        frameon=False,
        fontsize=9,
        labelcolor=theme.foreground,
    )
    buffer = io.BytesIO()
    # No software name and date in the file: the same numbers give the same bytes.
    figure.savefig(buffer, format="png", facecolor=theme.background, metadata={"Software": None})
    return buffer.getvalue()


def _draw(axes: Axes, rows: list[Row], curves: Mapping[str, Curve]) -> None:
    colours = row_colours(rows)
    for row in rows:
        if row.name not in curves:
            continue
        curve, colour = curves[row.name], colours[row.name]
        few = len(curve.frames) <= 16
        axes.plot(
            curve.frames,
            curve.mean,
            color=colour,
            linestyle=_KIND_LINES[row.kind],
            linewidth=2 if row.kind == "model" else 1.5,
            marker="o" if few else None,
            markersize=4,
            label=row.name,
        )
        if curve.low != curve.high:
            axes.fill_between(curve.frames, curve.low, curve.high, color=colour, alpha=0.15, linewidth=0)
