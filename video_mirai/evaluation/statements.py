"""The comparison in plain words, window by window, made from the numbers whatever they say."""

import math
from typing import NamedTuple

from video_mirai.evaluation.results import (
    Difference,
    Estimate,
    EvaluationResult,
    Metric,
    Row,
    Window,
    format_interval,
    format_number,
)


class Verdict(NamedTuple):
    """`outcome` is "better", "worse", "unclear" or "unknown"."""

    outcome: str
    text: str


class WindowStatement(NamedTuple):
    """One window of one model: its value, then the comparison with copying and with real video."""

    frames: str
    beyond_training: bool
    metric: str
    value: str
    against_copy: Verdict
    against_real: str


class ModelStatement(NamedTuple):
    name: str
    summary: list[str]
    windows: list[WindowStatement]


def model_statements(result: EvaluationResult) -> list[ModelStatement]:
    """For every model and window: how it compares with copy-last-frame and with real against real."""
    return [_model_statement(result, row) for row in result.rows if row.kind == "model"]


def difference_statements(result: EvaluationResult) -> list[str]:
    """One sentence per headline metric for every pair of models compared on the same histories."""
    names = {row.name for row in result.rows if row.kind == "model"}
    sentences = []
    for difference in result.differences:
        if difference.reference not in names:
            continue
        for metric in result.shown_metrics():
            estimate = difference.metrics.get(metric.key)
            if estimate is not None and metric.better != "neither":
                verdict = judge(estimate, metric)
                sentences.append(f"{metric.title}: {difference.name} {verdict.text} {difference.reference}.")
    return sentences


def judge(difference: Estimate, metric: Metric) -> Verdict:
    """Whether a paired difference is an improvement: only when its interval excludes zero."""
    if not math.isfinite(difference.value):
        return Verdict("unknown", "cannot be compared with")
    size = format_number(abs(difference.value), metric.decimals) + (f" {metric.unit}" if metric.unit else "")
    interval = format_interval(difference, metric.decimals)
    if difference.value == 0:
        return Verdict("unclear", "is equal to")
    direction = "above" if difference.value > 0 else "below"
    if not interval:
        return Verdict("unknown", f"is {size} {direction} (no interval)")
    if not difference.excludes_zero:
        return Verdict("unclear", f"is not clearly different from (difference 95 %: {interval})")
    if metric.better == "neither":
        return Verdict("unclear", f"is {size} {direction} (95 %: {interval})")
    better = (difference.value > 0) == (metric.better == "higher")
    if difference.value < 0:
        interval = format_interval(_negated(difference), metric.decimals)
    return Verdict(
        "better" if better else "worse", f"is {'better' if better else 'worse'} by {size} (95 %: {interval}) than"
    )


def _negated(estimate: Estimate) -> Estimate:
    assert estimate.low is not None and estimate.high is not None
    return Estimate(-estimate.value, -estimate.high, -estimate.low)


def _model_statement(result: EvaluationResult, row: Row) -> ModelStatement:
    copy, real = result.row("copy"), result.row("real")
    to_copy = next((d for d in result.differences if copy and (d.name, d.reference) == (row.name, copy.name)), None)
    statements = [
        _window_statement(result, metric, window, i, to_copy, copy, real)
        for metric in result.window_metrics
        if metric.better != "neither"
        for i, window in enumerate(row.windows)
        if metric.key in window.metrics
    ]
    summary = [
        _summary(metric, [s for s in statements if s.metric == metric.title])
        for metric in result.window_metrics
        if metric.better != "neither"
    ]
    return ModelStatement(row.name, [line for line in summary if line], statements)


def _window_statement(
    result: EvaluationResult,
    metric: Metric,
    window: Window,
    index: int,
    to_copy: Difference | None,
    copy: Row | None,
    real: Row | None,
) -> WindowStatement:
    value = window.metrics[metric.key]
    against_copy = Verdict("unknown", "no comparison")
    if to_copy is not None and metric.key in to_copy.windows[index].metrics:
        verdict = judge(to_copy.windows[index].metrics[metric.key], metric)
        reference = copy.windows[index].metrics[metric.key].value if copy else math.nan
        against_copy = Verdict(verdict.outcome, f"{verdict.text} copying, {format_number(reference, metric.decimals)}")
    trained = result.clips.training_frames
    return WindowStatement(
        frames=f"{window.first}–{window.last}",
        beyond_training=trained is not None and window.first > trained - result.clips.history_frames,
        metric=metric.title,
        value=format_number(value.value, metric.decimals) + (f" {metric.unit}" if metric.unit else ""),
        against_copy=against_copy,
        against_real=_against_real(metric, value, real.windows[index] if real else None),
    )


def _against_real(metric: Metric, value: Estimate, real: Window | None) -> str:
    if real is None or metric.key not in real.metrics:
        return "not defined for real against real, which has no common history"
    floor = real.metrics[metric.key].value
    shown = format_number(floor, metric.decimals)
    if not (floor > 0 and math.isfinite(value.value)):
        return f"floor {shown}"
    ratio = value.value / floor
    return (
        f"{ratio:.1f} times the floor of {shown}"
        if ratio >= 0.95
        else f"below the floor of {shown} ({ratio:.2f} times)"
    )


def _summary(metric: Metric, statements: list[WindowStatement]) -> str:
    if not statements:
        return ""
    parts = []
    for outcome, words in (
        ("better", "better than"),
        ("worse", "worse than"),
        ("unclear", "not clearly different from"),
    ):
        frames = [s.frames for s in statements if s.against_copy.outcome == outcome]
        if frames:
            where = "all windows" if len(frames) == len(statements) else "frames " + ", ".join(frames)
            parts.append(f"{words} copy-last-frame in {where}")
    return f"{metric.title}: " + ("; ".join(parts) if parts else "no comparison with copy-last-frame") + "."
