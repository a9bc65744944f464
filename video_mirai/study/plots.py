"""A study's figures, as PNG bytes for light and for dark pages."""

import io
from collections.abc import Callable, Sequence
from functools import reduce
from typing import TypeVar

import numpy as np
from matplotlib.axes import Axes
from matplotlib.backends.backend_agg import FigureCanvasAgg
from matplotlib.figure import Figure
from PIL import Image

from video_mirai.evaluation.plots import DARK, LIGHT, Theme
from video_mirai.evaluation.report import Plot
from video_mirai.evaluation.results import Estimate
from video_mirai.study.config import PrimaryMetric
from video_mirai.study.numbers import StudyNumbers, Values
from video_mirai.study.statistics import Effect, difference, effect, mean_cost, teacher_cost
from video_mirai.study.words import outcome

# Okabe and Ito's palette, which people with colour blindness can tell apart.
COLOURS = ("#8A8A8A", "#0072B2", "#E69F00", "#CC79A7", "#009E73", "#D55E00", "#56B4E9", "#F0E442")
PANEL_WIDTH, PANEL_HEIGHT = 5.2, 3.4
PALETTE = 256  # colours of a PNG
ARROWS = {"higher": "↑", "lower": "↓"}
READOUT = "ridge"

Panel = TypeVar("Panel")


def study_plots(numbers: StudyNumbers) -> dict[str, Plot]:
    """Every figure for which there are numbers, by file stem."""
    found = {
        "training": _training(numbers),
        "over_time": _over_time(numbers),
        "quality": _quality(numbers),
        "forest": _forest(numbers),
        "contrasts": _contrasts(numbers),
        "probe": _probe(numbers),
    }
    return {name: plot for name, plot in found.items() if plot is not None}


def arm_colours(numbers: StudyNumbers) -> dict[str, str]:
    """Grey for the reference."""
    reference = numbers.config.reference
    arms = [reference, *(arm for arm in numbers.config.arms if arm != reference)]
    return {arm: COLOURS[0] if place == 0 else COLOURS[1 + (place - 1) % 7] for place, arm in enumerate(arms)}


def _training(numbers: StudyNumbers) -> Plot | None:
    """Losses over steps; a panel each."""
    logged = {arm: [rows for s in numbers.config.seeds if (rows := numbers.training(arm, s))] for arm in _arms(numbers)}
    keys = dict.fromkeys(key for runs in logged.values() for rows in runs for row in rows for key in row)
    shown = [key for key in keys if key in ("train/flow", "train/foresight", "validation/loss")]

    def draw(axes: Axes, key: str, theme: Theme) -> None:
        for arm, runs in logged.items():
            lines = [[(row["step"], row[key]) for row in rows if key in row] for rows in runs]
            _lines(axes, [np.array(line).T for line in lines if line], arm, arm_colours(numbers)[arm])
        _label(axes, key.replace("/", ", "), "step", "loss", theme)

    caption = "Thick: mean over seeds; thin: every seed. A lower training loss is not a better rollout."
    return _figure("Training curves", caption, shown, draw)


def _over_time(numbers: StudyNumbers) -> Plot | None:
    """Rollouts' metrics over generated frames."""
    curves = {
        arm: [found for seed in numbers.config.seeds if (found := numbers.curves(arm, seed))] for arm in _arms(numbers)
    }
    keys = list(dict.fromkeys(key for seeds in curves.values() for found in seeds for key in found))
    clips = numbers.facts.get("clips", {})
    training_end = (clips.get("training_frames") or 0) - clips.get("history_frames", 0)

    def draw(axes: Axes, key: str, theme: Theme) -> None:
        for arm, seeds in curves.items():
            _lines(axes, [np.array(found[key]) for found in seeds if key in found], arm, arm_colours(numbers)[arm])
        if training_end > 0:
            axes.axvline(training_end, color=theme.foreground, linewidth=1, linestyle=(0, (2, 2)))
        title = numbers.facts.get("metrics", {}).get(key, [key.replace("_", " "), ""])[0]
        _label(axes, title, "generated frame", "", theme)

    caption = (
        "Means over videos after the whole training. Thick: mean over seeds; thin: every seed; band: from the lowest "
        "to the highest seed. The dotted line stands where the training clips ended."
    )
    return _figure("Long rollouts", caption, keys, draw)


def _quality(numbers: StudyNumbers) -> Plot | None:
    """Primary metrics against steps, and against compute."""
    metrics = [m for m in numbers.config.primary if m.source != "probe"]
    found = {(m.name, arm): numbers.values(m, arm) for m in metrics for arm in _arms(numbers)}
    panels = [
        (m, by) for m in metrics for by in ("steps", "compute") if any(found[m.name, a].seeds for a in _arms(numbers))
    ]
    unit = numbers.config.cost.replace("cpu_", "CPU ").replace("_", " ")

    def draw(axes: Axes, panel: tuple[PrimaryMetric, str], theme: Theme) -> None:
        metric, by = panel
        for arm in _arms(numbers):
            values, cost = found[metric.name, arm], mean_cost(numbers, arm)
            if not values.seeds or (by == "compute" and cost is None):
                continue
            per_step = 1.0 if by == "steps" else float(cost or 0.0) / numbers.num_steps
            x = np.array(values.steps) * per_step
            colour = arm_colours(numbers)[arm]
            _lines(axes, [np.stack([x, line]) for line in _seed_means(values)], arm, colour, marker="o")
            teacher = teacher_cost(numbers, arm)
            if by == "compute" and teacher:
                mean = np.nanmean(_seed_means(values), axis=0)
                axes.plot(x + teacher, mean, color=colour, linestyle=":", linewidth=1.5)
        label = "step" if by == "steps" else f"{unit} of training"
        _label(axes, f"{metric.name} {ARROWS[metric.better]}", label, "", theme)

    caption = (
        "Averaged weights at the milestones; markers are what was evaluated. Against compute: dotted with the whole "
        "training of the teacher counted in."
    )
    return _figure("Quality against steps and against compute", caption, panels, draw)


def _forest(numbers: StudyNumbers) -> Plot | None:
    """Every arm's difference from the reference in every primary metric."""
    reference = numbers.config.reference
    arms = {arm: (arm, reference) for arm in numbers.config.arms if arm != reference}
    return _differences(numbers, "Differences from the reference", arms, f"minus {reference}")


def _contrasts(numbers: StudyNumbers) -> Plot | None:
    """The pairs of arms that the config names, in every primary metric."""
    pairs = {f"{pair.arm}\n- {pair.against}": (pair.arm, pair.against) for pair in numbers.config.contrasts}
    return _differences(numbers, "Arms against each other", pairs, "arm minus the other")


def _differences(numbers: StudyNumbers, title: str, pairs: dict[str, tuple[str, str]], unit: str) -> Plot | None:
    """A forest plot of pairs (arm, against) by label; a panel for every primary metric."""
    found = {
        (metric.name, label): difference(numbers, metric, arm, against)
        for metric in numbers.config.primary
        for label, (arm, against) in pairs.items()
    }
    metrics = [m for m in numbers.config.primary if any(found[m.name, label] is not None for label in pairs)]

    def draw(axes: Axes, metric: PrimaryMetric, theme: Theme) -> None:
        for place, (label, (arm, _)) in enumerate(pairs.items()):
            shown = found[metric.name, label]
            if shown is None:
                continue
            colour = arm_colours(numbers)[arm]
            clear = outcome(metric, shown) in ("better", "worse")
            _bar(axes, place, shown, colour, colour if clear else theme.background)
            seeds = list(shown.by_seed.values())
            axes.plot(seeds, [place + 0.22] * len(seeds), "o", color=colour, markersize=3.5, alpha=0.7)
        axes.axvline(0, color=theme.foreground, linewidth=0.8)
        axes.set_yticks(range(len(pairs)), list(pairs), fontsize=8)
        axes.set_ylim(len(pairs) - 0.4, -0.6)
        better = "right of 0 is better" if metric.better == "higher" else "left of 0 is better"
        _label(axes, metric.name, f"{unit}; {better}", "", theme)

    caption = (
        "Square: mean, full where both intervals leave 0 out; thick: 95 % interval over seeds and videos (of a set's "
        "number over seeds); thin: Student's over seeds; dots: every seed."
    )
    return _figure(title, caption, metrics, draw, legend=False)


def _probe(numbers: StudyNumbers) -> Plot | None:
    """Difference of R2 by offset, a panel for each target."""
    places = [(target, offset) for target, offset, readout in numbers.probe_places() if readout == READOUT]
    arms = [arm for arm in numbers.config.arms if arm != numbers.config.reference]

    def draw(axes: Axes, target: str, theme: Theme) -> None:
        for place, arm in enumerate(arms):
            colour, shown = arm_colours(numbers)[arm], []
            for offset in sorted(offset for of, offset in places if of == target):
                ours, theirs = numbers.probe_pair(target, offset, READOUT, arm)
                if not ours.seeds:
                    continue
                found = effect(numbers.config, ours, ours.numbers[:, -1], theirs.numbers[:, -1])
                if found is not None:
                    at = offset + (place - (len(arms) - 1) / 2) * 0.08
                    shown.append((at, found.estimate.value))
                    axes.plot([at, at], _ends(found.estimate), color=colour, linewidth=1.5)
            axes.plot(*np.array(shown).reshape(-1, 2).T, "o-", color=colour, markersize=4, linewidth=1, label=arm)
        axes.axhline(0, color=theme.foreground, linewidth=0.8)
        _label(axes, f"R2 of {target}", "frames ahead (latent)", f"minus {numbers.config.reference}", theme)

    caption = f"Difference of R2 ({READOUT}) on the probe's test videos, with 95 % intervals over seeds and videos."
    return _figure("The future in the state", caption, list(dict.fromkeys(t for t, _ in places)), draw)


def _arms(numbers: StudyNumbers) -> list[str]:
    return list(arm_colours(numbers))


def _seed_means(values: Values) -> np.ndarray:
    """(seeds, steps), means over the videos that have a number."""
    finite = np.isfinite(values.numbers)
    total = np.where(finite, values.numbers, 0.0).sum(axis=-1)
    count = finite.sum(axis=-1)
    return np.divide(total, count, out=np.full(total.shape, np.nan), where=count > 0)


def _lines(axes: Axes, lines: Sequence[np.ndarray], label: str, colour: str, marker: str | None = None) -> None:
    """Every line (2, n) thin, their mean thick, the range between them shaded, where all have a value."""
    if not lines:
        return
    for line in lines:
        axes.plot(*line, color=colour, linewidth=0.7, alpha=0.5)
    shared_x = reduce(np.intersect1d, [line[0] for line in lines])
    values = np.stack([line[1, np.isin(line[0], shared_x)] for line in lines])
    axes.plot(shared_x, values.mean(axis=0), color=colour, linewidth=2, label=label, marker=marker, markersize=4)
    axes.fill_between(shared_x, values.min(axis=0), values.max(axis=0), color=colour, alpha=0.12, linewidth=0)


def _bar(axes: Axes, place: int, shown: Effect, colour: str, filling: str) -> None:
    if shown.student is not None:
        axes.plot(shown.student, [place, place], color=colour, linewidth=0.9)
    axes.plot(_ends(shown.estimate), [place, place], color=colour, linewidth=2.5)
    axes.plot(shown.estimate.value, place, "s", color=colour, markerfacecolor=filling, markersize=6)


def _ends(estimate: Estimate) -> list[float]:
    return [estimate.value if end is None else end for end in (estimate.low, estimate.high)]


def _label(axes: Axes, title: str, x_label: str, y_label: str, theme: Theme) -> None:
    axes.set_title(title, loc="left", fontsize=10, color=theme.foreground)
    axes.set_xlabel(x_label, color=theme.foreground, fontsize=9)
    axes.set_ylabel(y_label, color=theme.foreground, fontsize=9)
    axes.tick_params(colors=theme.foreground, labelsize=8)
    axes.grid(color=theme.grid, linewidth=0.7)
    axes.set_axisbelow(True)
    for side, spine in axes.spines.items():
        spine.set_visible(side in ("left", "bottom"))
        spine.set_color(theme.grid)


def _figure(
    title: str,
    caption: str,
    panels: Sequence[Panel],
    draw: Callable[[Axes, Panel, Theme], None],
    *,
    legend: bool = True,
) -> Plot | None:
    """A figure of panels, two in a row, in both themes; None without panels."""
    if not panels:
        return None
    light, dark = (_png(panels, draw, theme, legend=legend) for theme in (LIGHT, DARK))
    return Plot(title, f"{title}. {caption}", light, dark)


def _png(panels: Sequence[Panel], draw: Callable[[Axes, Panel, Theme], None], theme: Theme, *, legend: bool) -> bytes:
    columns = min(2, len(panels))
    rows = -(-len(panels) // columns)
    size = (PANEL_WIDTH * columns, PANEL_HEIGHT * rows + 0.4)
    figure = Figure(figsize=size, dpi=100, facecolor=theme.background, layout="constrained")
    FigureCanvasAgg(figure)
    grid = figure.subplots(rows, columns, squeeze=False).ravel()
    for axes, panel in zip(grid, panels, strict=False):
        axes.set_facecolor(theme.background)
        draw(axes, panel, theme)
    for axes in grid[len(panels) :]:
        axes.set_visible(False)
    if legend:
        lines = {label: line for axes in grid for line, label in zip(*axes.get_legend_handles_labels(), strict=True)}
        figure.legend(
            lines.values(), lines.keys(), loc="outside lower center", ncols=min(5, len(lines) or 1), frameon=False,
            fontsize=9, labelcolor=theme.foreground,
        )  # fmt: skip
    drawn, small = io.BytesIO(), io.BytesIO()
    figure.savefig(drawn, format="png", facecolor=theme.background)
    # A palette makes the file, which is committed, a third as large.
    Image.open(drawn).convert("RGB").quantize(PALETTE).save(small, format="png", optimize=True)
    return small.getvalue()
