"""VBench (Huang et al. 2024) and VBench-Long: a folder that they can be run on, and their results read back.

VBench itself is no dependency. What is written here follows its `vbench/__init__.py` and `vbench2_beta_long`: videos
are named {prompt}-{index}.mp4, prompts stand in a JSON object {file name: prompt}, and results are
{dimension: [mean, details of every video, ...]} in NAME_eval_results.json.
"""

import json
import math
import re
import shutil
from collections import Counter
from collections.abc import Iterable, Iterator
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np

from video_mirai.data.captions import CAPTIONS
from video_mirai.data.video_list import list_videos
from video_mirai.data.video_reader import open_video
from video_mirai.evaluation.detectors.base import file_sha256
from video_mirai.evaluation.results import VBenchInfo, VBenchScore
from video_mirai.media import VideoWriter

SHORT, LONG = "VBench", "VBench-Long"
CLIP_RULES = {
    SHORT: "whole videos as they are, all their frames",
    LONG: "each video cut into clips one after the other, a short last one prolonged backwards: 2 s, or 10 s for "
    "human_action, temporal_style and overall_consistency (its clip_length_mix.yaml, unless another was given); in "
    "long_custom_input always 2 s",
}
# Any video will do for these; the others need VBench's own prompts.
CUSTOM_DIMENSIONS = (
    "subject_consistency", "background_consistency", "motion_smoothness", "dynamic_degree", "aesthetic_quality",
    "imaging_quality",
)  # fmt: skip
COPIED_SUFFIXES = (".mp4", ".gif")
MAX_NAME_LENGTH = 180
FRAMES_AT_ONCE = 64


class VideoToExport(NamedTuple):
    """A video and its prompt. source: a file, or frames (T, H, W, 3) uint8 to be written at fps."""

    prompt: str
    source: Path | np.ndarray
    fps: float


def videos_of_folder(root: Path) -> Iterator[VideoToExport]:
    """The videos of a folder or manifest; the prompt is the manifest's caption, the sidecar's or the file's name."""
    for file in list_videos(root):
        prompt = CAPTIONS["manifest"](file) or CAPTIONS["sidecar"](file) or file.path.stem
        if file.first_frame or file.end_frame is not None:
            with open_video(file.path) as video:
                last = len(video.timestamps) if file.end_frame is None else file.end_frame
                yield VideoToExport(prompt, video.read(range(file.first_frame, last)), video.info.fps)
        else:
            yield VideoToExport(prompt, file.path, 0.0)


def videos_of_store(frames_folder: Path, history_frames: int, fps: float) -> Iterator[VideoToExport]:
    """What a checkpoint generated, without the given history; the prompt is the clip's name."""
    for path in sorted(frames_folder.glob("[0-9]*.npz")):
        with np.load(path, allow_pickle=False) as stored:
            yield VideoToExport(str(stored["name"]), stored["frames"][history_frames:], fps)


def export_videos(folder: Path, videos: Iterable[VideoToExport]) -> Path:
    """Write folder/videos/{prompt}-{index}.mp4, folder/prompts.json and how to call VBench; returns the folder.

    Raises:
        ValueError: the folder holds videos already.
    """
    target = folder / "videos"
    if target.is_dir() and any(target.iterdir()):
        raise ValueError(f"{target} is not empty; VBench would score what lies there too. Name another folder.")
    target.mkdir(parents=True, exist_ok=True)
    seen: Counter[str] = Counter()
    prompts: dict[str, str] = {}
    for video in videos:
        name = _file_name(video.prompt)
        suffix = video.source.suffix.lower() if isinstance(video.source, Path) else ".mp4"
        path = target / f"{name}-{seen[name]}{suffix if suffix in COPIED_SUFFIXES else '.mp4'}"
        seen[name] += 1
        _write(video, path)
        prompts[path.name] = video.prompt
    (folder / "prompts.json").write_text(json.dumps(prompts, indent=2, ensure_ascii=False) + "\n", encoding="utf-8")
    (folder / "README.txt").write_text(_how_to_call(), encoding="utf-8")
    return folder


def read_vbench(row: str, path: str, flags: str) -> VBenchInfo:
    """What VBench or VBench-Long wrote.

    Args:
        row: whose videos these are. flags: how VBench was called; its file does not say.
    Raises:
        FileNotFoundError, ValueError: no such file, or not of that form.
    """
    file = Path(path)
    if not file.is_file():
        raise FileNotFoundError(f"VBench results {path} do not exist; VBench writes NAME_eval_results.json.")
    try:
        found = json.loads(file.read_text(encoding="utf-8"))
    except ValueError as error:
        raise ValueError(f"{path}: not JSON ({error}).") from error
    if not isinstance(found, dict) or not found:
        raise ValueError(f"{path}: not VBench's results; {{dimension: [mean, details]}} is expected.")
    scores = [_score(row, path, dimension, value) for dimension, value in found.items()]
    flavour = LONG if any(_is_long(value) for value in found.values()) else SHORT
    stated = flags or "not stated"
    return VBenchInfo(row, file.name, file_sha256(file), flavour, CLIP_RULES[flavour], stated, scores)


def _score(row: str, path: str, dimension: str, value: Any) -> VBenchScore:
    if not isinstance(value, list) or not value or not isinstance(value[0], (int, float)):
        raise ValueError(f"{path}: {dimension} is not [mean, details of every video] as VBench writes it.")
    if not math.isfinite(value[0]):
        raise ValueError(f"{path}: the mean of {dimension} is {value[0]}.")
    details = _details(value)
    videos = {_long_name(str(detail.get("video_path", number))) for number, detail in enumerate(details)}
    return VBenchScore(row, dimension, float(value[0]), len(videos))


def _details(value: list[Any]) -> list[dict[str, Any]]:
    """One object a video, or a clip."""
    listed = value[1] if len(value) > 1 and isinstance(value[1], list) else []
    return [detail for detail in listed if isinstance(detail, dict)]


def _is_long(value: Any) -> bool:
    """VBench-Long cuts clips into a folder split_clip, and adds means over each video's clips."""
    details = _details(value)
    return any("split_clip" in str(detail.get("video_path")) or "inclip_score" in detail for detail in details)


def _long_name(path: str) -> str:
    """The video that a clip .../split_clip/VIDEO/VIDEO_000.mp4 was cut from."""
    return Path(path).parent.name if "split_clip" in path else Path(path).stem


def _file_name(prompt: str) -> str:
    """VBench takes a name apart at "-<number>" at its end, VBench-Long at "_"."""
    plain = " ".join(re.sub(r"[/\\_\x00-\x1f]", " ", prompt).split())
    return plain[:MAX_NAME_LENGTH].strip(" .") or "video"


def _write(video: VideoToExport, path: Path) -> None:
    if isinstance(video.source, np.ndarray):
        with VideoWriter(path, video.fps) as writer:
            writer.append(video.source)
    elif video.source.suffix.lower() in COPIED_SUFFIXES:
        shutil.copyfile(video.source, path)
    else:
        with open_video(video.source) as opened, VideoWriter(path, opened.info.fps) as writer:
            count = len(opened.timestamps)
            for start in range(0, count, FRAMES_AT_ONCE):
                writer.append(opened.read(range(start, min(count, start + FRAMES_AT_ONCE))))


def _how_to_call() -> str:
    dimensions = " ".join(CUSTOM_DIMENSIONS)
    return f"""Run VBench on these videos (https://github.com/Vchitect/VBench), from its own folder:

  python evaluate.py --videos_path THIS/videos --mode custom_input --prompt_file THIS/prompts.json \\
      --dimension {dimensions}

and VBench-Long, which cuts clips of 2 seconds:

  python vbench2_beta_long/eval_long.py --videos_path THIS/videos --mode long_custom_input \\
      --dimension {dimensions}

Then read OUTPUT/*_eval_results.json back with scripts/evaluate.py --vbench-results NAME=FILE --vbench-flags "...".
"""
