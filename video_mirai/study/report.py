"""A study's report, from its small files alone: report.md, report.html and the figures."""

import base64
from html import escape
from pathlib import Path
from typing import NamedTuple

from video_mirai.evaluation.report import Plot
from video_mirai.evaluation.report_style import page_head
from video_mirai.study.numbers import StudyNumbers
from video_mirai.study.plots import study_plots
from video_mirai.study.readings import compared_readings, readings
from video_mirai.study.tables import (
    Table,
    commands,
    contrasts,
    costs,
    differences,
    equal_compute,
    on_the_way,
    reached,
    references,
    seeds,
    settings,
)
from video_mirai.study.words import (
    chips,
    contrast_sentences,
    intro,
    metric_sentences,
    warnings,
)

# In this order; those without rows are left out.
TABLES = (
    differences, contrasts, on_the_way, equal_compute, reached, costs, seeds, readings, compared_readings, references,
    settings, commands,
)  # fmt: skip
# Which figure stands behind which table.
FIGURES_AFTER = {
    "Differences": ("forest",),
    "Arms against each other": ("contrasts",),
    "Steps to the reference's final quality": ("quality",),
    "Cost": ("training",),
    "Every seed": ("over_time",),
    "What the states know": ("probe",),
}


class Section(NamedTuple):
    """A heading, sentences, tables, and figures {file stem: plot}."""

    title: str
    sentences: list[str]
    tables: list[Table]
    plots: dict[str, Plot]


def write_report(results: Path) -> Path:
    """Write report.html, report.md and figures/ into a study's results.

    Returns:
        The HTML page.

    Raises:
        FileNotFoundError: nothing was collected yet.
    """
    numbers = StudyNumbers(results)
    plots = study_plots(numbers)
    figures = results / "figures"
    figures.mkdir(exist_ok=True)
    for name, plot in plots.items():
        (figures / f"{name}.png").write_bytes(plot.light)
    sections = make_sections(numbers, plots)
    (results / "report.md").write_text(as_markdown(numbers, sections), encoding="utf-8")
    page = results / "report.html"
    page.write_text(as_html(numbers, sections), encoding="utf-8")
    return page


def make_sections(numbers: StudyNumbers, plots: dict[str, Plot]) -> list[Section]:
    """The words first, then tables with their figures."""
    sections = [Section("What came out, at equal steps", metric_sentences(numbers), [], {})]
    pair_sentences = contrast_sentences(numbers)
    if pair_sentences:
        sections.append(Section("Two arms beside each other, at equal steps", pair_sentences, [], {}))
    for table in (table for make in TABLES if (table := make(numbers)).rows):
        stems = FIGURES_AFTER.get(table.title, ())
        shown = {stem: plots[stem] for stem in stems if stem in plots}
        sections.append(Section(table.title, [table.note] if table.note else [], [table], shown))
    return sections


def as_markdown(numbers: StudyNumbers, sections: list[Section]) -> str:
    """The same report in Markdown; figures are linked."""
    lines = [f"# Study: {numbers.config.name}", "", intro(numbers), "", " · ".join(chips(numbers)), ""]
    lines += [f"> {warning}\n" for warning in warnings(numbers)]
    for section in sections:
        lines += [f"## {section.title}", ""]
        bullet = "- " if len(section.sentences) > 1 else ""
        lines += [f"{bullet}{sentence}" for sentence in section.sentences]
        for table in section.tables:
            lines += ["", _row(table.columns), _row(["---"] * len(table.columns)), *map(_row, table.rows)]
        for stem, plot in section.plots.items():
            lines += ["", f"![{plot.title}](figures/{stem}.png)", "", f"*{plot.caption}*"]
        lines.append("")
    return "\n".join(lines)


def as_html(numbers: StudyNumbers, sections: list[Section]) -> str:
    """One self-contained page; nothing in it is loaded from anywhere."""
    title = escape(f"Study: {numbers.config.name}")
    shown = "".join(f"<span>{escape(chip)}</span>" for chip in chips(numbers))
    body = "".join(f"<p class=warning>{escape(warning)}</p>" for warning in warnings(numbers))
    body += "".join(map(_section, sections))
    return f"""{page_head(title, " .plots.wide { grid-template-columns: 1fr; }")}\
<body>
<main>
<h1>{title}</h1>
<p>{escape(intro(numbers))}</p><div class=chips>{shown}</div>
{body}
</main>
</body>
</html>
"""


def _section(section: Section) -> str:
    if len(section.sentences) > 1:
        words = "<ul>" + "".join(f"<li>{escape(sentence)}</li>" for sentence in section.sentences) + "</ul>"
    else:
        words = "".join(f"<p class=soft>{escape(sentence)}</p>" for sentence in section.sentences)
    tables = "".join(map(_table, section.tables))
    figures = "".join(map(_plot, section.plots.values()))
    figures = f"<div class='plots wide'>{figures}</div>" if figures else ""
    return f"<section><h2>{escape(section.title)}</h2>{words}{tables}{figures}</section>"


def _table(table: Table) -> str:
    head = "".join(f"<th>{escape(column)}</th>" for column in table.columns)
    rows = "".join("<tr>" + "".join(f"<td>{escape(cell)}</td>" for cell in row) + "</tr>" for row in table.rows)
    return f"<div class=scroll><table><tr>{head}</tr>{rows}</table></div>"


def _plot(plot: Plot) -> str:
    light, dark = (base64.b64encode(image).decode("ascii") for image in (plot.light, plot.dark))
    return (
        f'<figure><picture><source srcset="data:image/png;base64,{dark}" media="(prefers-color-scheme: dark)">'
        f'<img src="data:image/png;base64,{light}" alt="{escape(plot.title)}"></picture>'
        f"<figcaption>{escape(plot.caption)}</figcaption></figure>"
    )


def _row(cells: list[str]) -> str:
    return "| " + " | ".join(cell.replace("|", "\\|") for cell in cells) + " |"
