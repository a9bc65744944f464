"""The results as JSON and as a Markdown table."""

import json
from dataclasses import asdict
from itertools import groupby
from pathlib import Path

from benchmarks.measure import Findings, Row

SCHEMA_VERSION = 1
Facts = dict[str, str | int | float]


def write_report(out: Path, machine: Facts, command: str, findings: Findings) -> str:
    """Writes benchmark.json and benchmark.md into a folder; returns the Markdown."""
    out.mkdir(parents=True, exist_ok=True)
    rows = [asdict(row) | {"met": row.met} for row in findings.rows]
    result = {
        "schema_version": SCHEMA_VERSION,
        "command": command,
        "machine": machine,
        "rows": rows,
        "series": findings.series,
    }
    (out / "benchmark.json").write_text(json.dumps(result, indent=1, allow_nan=False) + "\n", encoding="utf-8")
    markdown = to_markdown(machine, command, findings.rows)
    (out / "benchmark.md").write_text(markdown, encoding="utf-8")
    return markdown


def to_markdown(machine: Facts, command: str, rows: list[Row]) -> str:
    """Machine and command, then one table; a line in bold starts every group."""
    facts = "; ".join(f"{name} {value}" for name, value in machine.items())
    lines = [f"`{command}` on {facts}.", "", "| What | Median | Least – greatest | Target |", "|---|---:|---:|---|"]
    for group, members in groupby(rows, key=lambda row: row.group):
        lines.append(f"| **{group}** | | | |")
        lines += [_line(row) for row in members]
    return "\n".join(lines) + "\n"


def _line(row: Row) -> str:
    spread = "" if row.low == row.high else f"{_number(row.low)} – {_number(row.high)}"
    return f"| {row.name} | {_number(row.value)} {row.unit} | {spread} | {_target(row)} |"


def _target(row: Row) -> str:
    if row.met is None:
        return ""
    bound = f"≤ {row.at_most:g}" if row.at_most is not None else f"≥ {row.at_least:g}"
    return f"{bound}: {'met' if row.met else 'missed'}"


def _number(value: float) -> str:
    """Three significant digits."""
    return f"{value:.0f}" if abs(value) >= 100 else f"{value:.3g}"
