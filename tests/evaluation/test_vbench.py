import json
import re
from pathlib import Path

import numpy as np
import pytest
from video_folders import moving_texture, write_folder

from video_mirai.data.video_reader import probe
from video_mirai.evaluation.vbench import (
    VideoToExport,
    export_videos,
    read_vbench,
    videos_of_folder,
    videos_of_store,
)

SHORT = {
    "subject_consistency": [0.91, [{"video_path": "v/a cat-0.mp4", "video_results": 0.9},
                                   {"video_path": "v/a cat-1.mp4", "video_results": 0.92}]],
    "dynamic_degree": [0.5, [{"video_path": "v/a cat-0.mp4", "video_results": True},
                             {"video_path": "v/a cat-1.mp4", "video_results": False}]],
}  # fmt: skip
CLIPS = [
    {"video_path": f"v/split_clip/{video}/{video}_00{clip}.mp4", "video_results": 0.8}
    for video in ("a cat-0", "a dog-0", "a cow-0")
    for clip in range(2)
]
LONG = {
    "imaging_quality": [0.6, CLIPS, [{"video_path": "v/a cat-0.mp4", "video_results": 0.6}]],
    "subject_consistency": [0.9, [{"video_path": "v/a cat-0.mp4", "inclip_score": 0.9, "clip2clip_score": 0.8,
                                   "mapped_clip2clip_score": 0.8, "video_results": 0.9}]],
}  # fmt: skip


def written(folder: Path, content: object) -> str:
    path = folder / "results_x_eval_results.json"
    path.write_text(json.dumps(content))
    return str(path)


def test_results_of_vbench_keep_their_values_and_count_videos(tmp_path: Path) -> None:
    found = read_vbench("ours", written(tmp_path, SHORT), "--mode custom_input")
    assert found.flavour == "VBench" and "whole videos" in found.clip_rule and found.flags == "--mode custom_input"
    assert [(s.dimension, s.value, s.num_videos) for s in found.scores] == [
        ("subject_consistency", 0.91, 2), ("dynamic_degree", 0.5, 2)
    ]  # fmt: skip


def test_results_of_vbench_long_count_videos_and_not_clips(tmp_path: Path) -> None:
    found = read_vbench("ours", written(tmp_path, LONG), "")
    assert found.flavour == "VBench-Long" and "2 s" in found.clip_rule and found.flags == "not stated"
    assert [(s.dimension, s.num_videos) for s in found.scores] == [("imaging_quality", 3), ("subject_consistency", 1)]


@pytest.mark.parametrize(
    ("content", "message"),
    [
        ([1, 2], "not VBench's results"),
        ({}, "not VBench's results"),
        ({"color": "high"}, "color is not .mean, details"),
        ({"color": [float("nan"), []]}, "the mean of color is nan"),
    ],
)
def test_other_files_are_refused_in_one_line(content: object, message: str, tmp_path: Path) -> None:
    with pytest.raises(ValueError, match=message):
        read_vbench("ours", written(tmp_path, content), "")
    with pytest.raises(FileNotFoundError, match="do not exist"):
        read_vbench("ours", str(tmp_path / "none.json"), "")


def test_exported_folder_is_one_that_vbench_can_read(tmp_path: Path) -> None:
    source = write_folder(tmp_path / "videos", {name: moving_texture(0) for name in ("clip_1", "b/clip_1", "c")})
    (source / "c.txt").write_text("a cat/dog, 50_mm")
    folder = export_videos(tmp_path / "out", videos_of_folder(source))
    names = sorted(path.name for path in (folder / "videos").iterdir())
    assert names == ["a cat dog, 50 mm-0.mp4", "clip 1-0.mp4", "clip 1-1.mp4"]
    prompts = json.loads((folder / "prompts.json").read_text())
    assert sorted(prompts) == names and prompts["a cat dog, 50 mm-0.mp4"] == "a cat/dog, 50_mm"
    assert all(re.fullmatch(r"[^_/]+-\d+\.mp4", name) for name in names)
    assert (folder / "videos" / "clip 1-1.mp4").read_bytes() == (source / "clip_1.mp4").read_bytes()
    assert "--mode custom_input" in (folder / "README.txt").read_text()
    with pytest.raises(ValueError, match="is not empty"):
        export_videos(folder, [])


def test_what_a_checkpoint_generated_is_exported_without_its_history(tmp_path: Path) -> None:
    np.savez(tmp_path / "0000.npz", name="scene 3", frames=moving_texture(0))
    folder = export_videos(tmp_path / "out", videos_of_store(tmp_path, 4, 8.0))
    (path,) = (folder / "videos").iterdir()
    assert path.name == "scene 3-0.mp4" and probe(path).num_frames == len(moving_texture(0)) - 4


def test_other_containers_become_mp4_and_long_prompts_short_names(tmp_path: Path) -> None:
    write_folder(tmp_path, {"a": moving_texture(0)})
    (tmp_path / "a.mp4").rename(tmp_path / "a.mov")
    folder = export_videos(tmp_path / "out", [VideoToExport("word " * 99, tmp_path / "a.mov", 0.0)])
    (path,) = (folder / "videos").iterdir()
    assert path.suffix == ".mp4" and len(path.name) < 200 and probe(path).num_frames == len(moving_texture(0))
