"""The parts of the report that say how every number was made, and what VBench found."""

import json
from html import escape

from video_mirai.evaluation.results import EvaluationResult, VideoSetInfo, finite_only


def method_section(result: EvaluationResult) -> str:
    """Definitions, rules, detectors, models or folders, and the run itself."""
    known = {metric.key: metric for metric in [*result.metrics, *result.window_metrics]}
    detectors = {
        d.label: f"features of {escape(d.name)}, {d.dimensions} numbers from {d.clip_frames} frames, "
        f"{escape(d.preprocessing)}; sha256 <code>{escape(d.sha256)}</code>"
        for d in result.detectors
    }
    models = {
        m.name: f"<code>{escape(m.path)}</code>, weights sha256 <code>{escape(m.sha256)}</code>, codec "
        f"{escape(m.codec)}, {_speed(m.frames_per_second)}; rollout {escape(json.dumps(m.rollout))}"
        for m in result.models
    }
    config = escape(json.dumps(finite_only(result.config), indent=2))
    return (
        "<section><h2>How every number was made</h2>"
        + _definitions("", {metric.title: escape(metric.how) for metric in known.values()})
        + _definitions("How videos were made comparable", {key: escape(rule) for key, rule in result.rules.items()})
        + _definitions("Detectors", detectors)
        + _definitions("Models", models)
        + _definitions("Folders", {found.name: _video_set(found) for found in result.video_sets})
        + _definitions("Run", {key: escape(value) for key, value in _facts(result).items()})
        + f"<details><summary>Resolved configuration</summary><pre>{config}</pre></details></section>"
    )


def vbench_section(result: EvaluationResult) -> str:
    """VBench's numbers as they are, dimension by dimension; empty where none were given."""
    if not result.vbench:
        return ""
    scores = [score for info in result.vbench for score in info.scores]
    dimensions = list(dict.fromkeys(score.dimension for score in scores))
    head = "".join(f"<th>{escape(dimension.replace('_', ' '))}</th>" for dimension in dimensions)
    body = ""
    for info in result.vbench:
        found = {
            score.dimension: f"{score.value:.4f}<small>{_videos(score.num_videos)}</small>" for score in info.scores
        }
        cells = "".join(f"<td>{found.get(dimension, '–')}</td>" for dimension in dimensions)
        body += f"<tr class=model><td>{escape(info.row)}<small>{info.flavour}</small></td>{cells}</tr>"
    how = {
        f"{info.row}, {info.flavour}": f"<code>{escape(info.file)}</code>, sha256 <code>{info.sha256}</code>; clips: "
        f"{escape(info.clip_rule)}; flags: {escape(info.flags)}"
        for info in result.vbench
    }
    return (
        "<section><h2>VBench</h2><p class=soft>Read from VBench's own files. Its consistency and dynamic degree use "
        "its own networks and are not those of the tables above. VBench and VBench-Long cut clips differently: compare "
        f"numbers of one kind only.</p><div class=scroll><table><tr><th></th>{head}</tr>{body}</table></div>"
        f"{_definitions('', how)}</section>"
    )


def _definitions(title: str, entries: dict[str, str]) -> str:
    """A list of names and what they mean, which is HTML already; empty without entries."""
    if not entries:
        return ""
    listed = "".join(f"<dt>{escape(name)}</dt><dd>{meaning}</dd>" for name, meaning in entries.items())
    return (f"<h3>{escape(title)}</h3>" if title else "") + f"<dl>{listed}</dl>"


def _facts(result: EvaluationResult) -> dict[str, str]:
    clips = result.clips
    return {
        "data": f"{clips.dataset}; split {clips.split}; {clips.num_clips} clips of {clips.num_source_videos} videos; "
        f"{clips.num_real_clips} real ones; identity sha256 {clips.clips_sha256}",
        "clip rule": clips.clip_rule,
        "covariances": f"ddof={result.ddof}",
        "revision": result.revision,
        "configuration": f"sha256 {result.config_sha256}",
        "hardware": ", ".join(f"{key}: {value}" for key, value in result.hardware.items()),
        "software": ", ".join(f"{key} {value}" for key, value in result.versions.items()),
        "made": f"{result.created}, results schema {result.schema_version}",
    }


def _video_set(found: VideoSetInfo) -> str:
    frames = f"{found.frames[0]}" if len(found.frames) == 1 else f"{found.frames[0]} to {found.frames[-1]}"
    fps = ", ".join(f"{rate:g}" for rate in found.fps)
    return (
        f"<code>{escape(found.path)}</code>: {found.num_files} files, {found.left_out} too short; {frames} frames at "
        f"{fps} frames/s, {', '.join(found.sizes)}; sha256 of what was used <code>{found.sha256}</code>"
    )


def _videos(count: int) -> str:
    return f"{count} videos" if count else ""


def _speed(frames_per_second: float | None) -> str:
    return "speed not measured" if frames_per_second is None else f"{frames_per_second:.1f} frames/s over all processes"
