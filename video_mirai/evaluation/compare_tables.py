"""A comparison of evaluations as Markdown, LaTeX, CSV and a forest plot."""

import io
from pathlib import Path

from matplotlib.axes import Axes
from matplotlib.backends.backend_agg import FigureCanvasAgg
from matplotlib.figure import Figure

from video_mirai.evaluation.compare import HALVES, NO_INTERVAL, Compared, MetricDifference, SeedValues
from video_mirai.evaluation.results import CsvRow, format_number, write_csv
from video_mirai.evaluation.statements import judge

ARROWS = {"higher": "↑", "lower": "↓", "neither": ""}
OUTCOME_COLOURS = {"better": "#0b7a53", "worse": "#b3391b", "unclear": "#5d6678", "unknown": "#5d6678"}


def write_comparison(compared: Compared, folder: Path) -> str:
    """Write comparison.md, .tex, .csv and forest.png, of groups seeds.csv too; returns the Markdown."""
    folder.mkdir(parents=True, exist_ok=True)
    text = markdown(compared)
    (folder / "comparison.md").write_text(text, encoding="utf-8")
    (folder / "comparison.tex").write_text(latex(compared), encoding="utf-8")
    write_csv(csv_rows(compared), folder / "comparison.csv")
    if compared.seeds:
        write_csv(seed_rows(compared), folder / "seeds.csv")
    (folder / "forest.png").write_bytes(forest_plot(compared))
    return text


def markdown(compared: Compared) -> str:
    """One line per metric: the baseline's value, then every difference with its 95 % interval."""
    lines = [
        f"| metric | {compared.baseline} | " + " | ".join(f"{n} − {compared.baseline}" for n in compared.names) + " |",
        "|---|---:|" + "---:|" * len(compared.names),
    ]
    for metric_rows in _by_metric(compared).values():
        metric = next(iter(metric_rows.values())).metric
        title = f"{metric.title} {ARROWS[metric.better]}".strip() + (f" ({metric.unit})" if metric.unit else "")
        value = format_number(next(iter(metric_rows.values())).baseline, metric.decimals)
        cells = [_cell(metric_rows.get(name), bold="**") for name in compared.names]
        lines.append(f"| {title} | {value} | " + " | ".join(cells) + " |")
    seeds = _markdown_seeds(compared) if compared.seeds else []
    return "\n".join([*lines, "", _how(compared), *seeds, *(f"- {note}" for note in compared.notes)]) + "\n"


def _markdown_seeds(compared: Compared) -> list[str]:
    columns = [compared.baseline, *compared.names]
    called = ", ".join(compared.seeds[0].seeds)
    lines = ["", f"Every training seed ({called}):", "", f"| metric | {' | '.join(columns)} |"]
    lines.append("|---|" + "---:|" * len(columns))
    for by_group in _seeds_by_metric(compared).values():
        cells = [_seed_cell(by_group.get(name), "–") for name in columns]
        lines.append(f"| {next(iter(by_group.values())).metric.title} | {' | '.join(cells)} |")
    return [*lines, ""]


def latex(compared: Compared) -> str:
    """A tabular for booktabs; of groups a second one with every training seed."""
    columns = "lr" + "r" * len(compared.names)
    baseline = _escaped(compared.baseline)
    head = " & ".join(["metric", baseline, *(f"{_escaped(name)} $-$ {baseline}" for name in compared.names)])
    lines = [rf"\begin{{tabular}}{{{columns}}}", r"\toprule", head + r" \\", r"\midrule"]
    arrows = {"higher": r" $\uparrow$", "lower": r" $\downarrow$", "neither": ""}
    for metric_rows in _by_metric(compared).values():
        first = next(iter(metric_rows.values()))
        cells = [_escaped(first.metric.title) + arrows[first.metric.better]]
        cells.append(format_number(first.baseline, first.metric.decimals))
        cells += [_latex_cell(metric_rows.get(name)) for name in compared.names]
        lines.append(" & ".join(cells) + r" \\")
    lines += [r"\bottomrule", r"\end{tabular}"]
    return "\n".join(lines + (_latex_seeds(compared) if compared.seeds else [])) + "\n"


def _latex_seeds(compared: Compared) -> list[str]:
    columns = [compared.baseline, *compared.names]
    head = " & ".join([f"metric ({', '.join(compared.seeds[0].seeds)})", *map(_escaped, columns)])
    lines = ["", rf"\begin{{tabular}}{{l{'r' * len(columns)}}}", r"\toprule", head + r" \\", r"\midrule"]
    for by_group in _seeds_by_metric(compared).values():
        cells = [_escaped(next(iter(by_group.values())).metric.title)]
        cells += [_seed_cell(by_group.get(name), "--") for name in columns]
        lines.append(" & ".join(cells) + r" \\")
    return [*lines, r"\bottomrule", r"\end{tabular}"]


def csv_rows(compared: Compared) -> list[CsvRow]:
    """One row for each metric and compared row."""
    return [
        {
            "metric": d.metric.key, "baseline": compared.baseline, "row": d.name, "baseline_value": d.baseline,
            "difference": d.difference.value, "low": d.difference.low, "high": d.difference.high, "how": d.how,
            "interval": d.interval, "videos": d.num_videos, "seeds": len(d.by_seed) or None,
            "better": d.metric.better, "outcome": judge(d.difference, d.metric).outcome,
        }
        for d in compared.differences
    ]  # fmt: skip


def seed_rows(compared: Compared) -> list[CsvRow]:
    """One row for each metric, group and training seed."""
    return [
        {"metric": found.metric.key, "row": found.name, "seed": seed, "value": value}
        for found in compared.seeds
        for seed, value in zip(found.seeds, found.values, strict=True)
    ]


def forest_plot(compared: Compared) -> bytes:
    """Every difference with its interval about zero, each metric on a scale of its own; PNG bytes."""
    by_metric = list(_by_metric(compared).values())
    rows = max(1, len(by_metric))
    figure = Figure(figsize=(8, 0.9 + rows * (0.22 + 0.2 * len(compared.names))), dpi=130, layout="constrained")
    FigureCanvasAgg(figure)
    for axes, metric_rows in zip(figure.subplots(rows, 1, squeeze=False)[:, 0], by_metric, strict=False):
        _draw_metric(axes, metric_rows, compared.names)
    figure.suptitle(f"Difference from {compared.baseline}, 95 % intervals", fontsize=11, x=0.01, ha="left")
    buffer = io.BytesIO()
    figure.savefig(buffer, format="png", metadata={"Software": None})
    return buffer.getvalue()


def _draw_metric(axes: Axes, metric_rows: dict[str, MetricDifference], names: list[str]) -> None:
    metric = next(iter(metric_rows.values())).metric
    for position, name in enumerate(names):
        if name not in metric_rows:
            continue
        found = metric_rows[name].difference
        low, high = (found.value if end is None else end for end in (found.low, found.high))
        colour = OUTCOME_COLOURS[judge(found, metric).outcome]
        axes.plot([low, high], [position, position], color=colour, linewidth=2)
        axes.plot(found.value, position, "o", color=colour, markersize=5)
        by_seed = metric_rows[name].by_seed
        axes.plot(by_seed, [position] * len(by_seed), "|", color=colour, markersize=8)
    axes.axvline(0, color="#1d2330", linewidth=0.8)
    reach = 1.15 * max(abs(end) for end in axes.get_xlim()) or 1.0
    axes.set_xlim(-reach, reach)
    axes.set_ylim(len(names) - 0.5, -0.5)
    axes.set_yticks(range(len(names)), names, fontsize=7)
    axes.tick_params(axis="x", labelsize=6)
    label = f"{metric.title} {ARROWS[metric.better]}".strip() + (f"\n{metric.unit}" if metric.unit else "")
    axes.set_ylabel(label, rotation=0, ha="right", va="center", fontsize=8, labelpad=10)
    for side in ("top", "right", "left"):
        axes.spines[side].set_visible(False)


def _by_metric(compared: Compared) -> dict[str, dict[str, MetricDifference]]:
    """{metric: {row: difference}} in the order of the first evaluation's table."""
    found: dict[str, dict[str, MetricDifference]] = {}
    for difference in compared.differences:
        found.setdefault(difference.metric.key, {})[difference.name] = difference
    return found


def _cell(found: MetricDifference | None, bold: str) -> str:
    if found is None:
        return "–"
    text = format_number(found.difference.value, found.metric.decimals, signed=True)
    mark = bold if found.difference.excludes_zero else ""
    return f"{mark}{text}{mark}{_interval(found)}"


def _latex_cell(found: MetricDifference | None) -> str:
    if found is None:
        return "--"
    text = format_number(found.difference.value, found.metric.decimals, signed=True)
    value = rf"\mathbf{{{text}}}" if found.difference.excludes_zero else text
    return f"${value}${_interval(found)}"


def _interval(found: MetricDifference) -> str:
    low, high = found.difference.low, found.difference.high
    if low is None or high is None:
        return ""
    decimals = found.metric.decimals
    return f" [{format_number(low, decimals)}, {format_number(high, decimals)}]"


def _seeds_by_metric(compared: Compared) -> dict[str, dict[str, SeedValues]]:
    """{metric: {group: values}} in the order of the table."""
    found: dict[str, dict[str, SeedValues]] = {}
    for values in compared.seeds:
        found.setdefault(values.metric.key, {})[values.name] = values
    return found


def _seed_cell(found: SeedValues | None, missing: str) -> str:
    if found is None:
        return missing
    return ", ".join(format_number(value, found.metric.decimals) for value in found.values)


def _how(compared: Compared) -> str:
    """What the numbers and their intervals are."""
    over = "training seeds, then videos" if compared.seeds else "videos"
    sentences = [f"Differences with 95 % intervals over {over}; bold where the interval excludes zero."]
    if compared.seeds:
        sentences.append("Values are means over seeds; of few seeds intervals are too narrow (docs/evaluation.md).")
    for kind, words in {
        HALVES: "half the spread over random halves of the videos, which are not a bootstrap's copies",
        NO_INTERVAL: "no interval",
    }.items():
        titles = dict.fromkeys(d.metric.title for d in compared.differences if d.interval == kind)
        if titles:
            sentences.append(f"{', '.join(titles)}: {words}.")
    return " ".join([*sentences, _sizes(compared)])


def _sizes(compared: Compared) -> str:
    found = dict.fromkeys((d.name, d.num_videos, d.how) for d in compared.differences)
    return "; ".join(f"{name}: {how}, {count} videos" for name, count, how in found) + "."


def _escaped(text: str) -> str:
    special = {"\\": r"\textbackslash{}", "_": r"\_", "%": r"\%", "&": r"\&", "#": r"\#", "$": r"\$", "<": r"$<$",
               ">": r"$>$", "{": r"\{", "}": r"\}", "^": r"\^{}", "~": r"\~{}"}  # fmt: skip
    return "".join(special.get(character, character) for character in text)
