"""Manifests, captions and actions of any content: a list, or an error of one line; nothing else, and no hang."""

import json
from collections.abc import Callable
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import TypeVar

import numpy as np
import pytest
from hypothesis import example, given, settings
from hypothesis import strategies as st

from video_mirai.data.captions import with_captions
from video_mirai.data.clip_context import read_actions
from video_mirai.data.video_folder import VideoFolder
from video_mirai.data.video_list import VideoFile, list_videos, read_manifest, write_manifest
from video_mirai.data.video_reader import UnreadableVideo

pytest.importorskip("decord")

Result = TypeVar("Result")
EXAMPLES = settings(max_examples=60, deadline=None, derandomize=True)
KEYS = ("path", "verdict", "reason", "first_frame", "end_frame", "caption", "frame", "turn", "other")

json_values = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats() | st.text(max_size=8) | st.sampled_from(["ok", "bad"]),
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.sampled_from(KEYS), inner, max_size=4),
    max_leaves=6,
)
names = st.text(min_size=1, max_size=6) | st.sampled_from(["a.mp4", "./a.mp4", "..", "/", "~", "a\n.mp4", "x" * 300])
entries = st.fixed_dictionaries(
    {"path": names},
    optional={
        "verdict": st.sampled_from(["ok", "bad", "needs-transcode", None]) | json_values,
        "reason": st.text(max_size=5) | json_values,
        "first_frame": st.integers(-1, 40) | json_values,
        "end_frame": st.integers(0, 10**30) | json_values,
        "caption": st.text(max_size=5) | json_values,
    },
)
plausible = st.fixed_dictionaries(
    {"path": names},
    optional={
        "verdict": st.sampled_from(["ok", "bad", None]),
        "first_frame": st.integers(0, 4),
        "end_frame": st.integers(5, 10**30),
        "caption": st.text(max_size=5),
    },
)
lines = st.lists((entries | json_values).map(json.dumps) | st.text(max_size=20), max_size=5)
plausible_lines = st.lists(plausible.map(json.dumps), min_size=1, max_size=2)
content = st.binary(max_size=60) | (plausible_lines | lines).map(
    lambda parts: "\n".join(parts).encode("utf-8", "surrogatepass")
)


def or_one_line(call: Callable[[], Result], kind: type[Exception]) -> Result | None:
    """What the call gives; None where it raises such an error of one line; any other ends the test."""
    try:
        return call()
    except kind as error:
        assert str(error) and "\n" not in str(error)
        return None


@EXAMPLES
@given(content, st.sampled_from([".jsonl", ".txt"]))
@example(b'{"path": "a.mp4", "end_frame": 1' + b"0" * 5000 + b"}", ".jsonl")
@example(b"\xef\xbb\xbfa.mp4\r\n", ".txt")
def test_any_manifest_gives_videos_or_an_error_of_one_line(written: bytes, suffix: str) -> None:
    with TemporaryDirectory() as folder:
        manifest = Path(folder) / f"videos{suffix}"
        manifest.write_bytes(written)
        videos = or_one_line(lambda: list_videos(manifest), ValueError)
        assert videos is None or all(isinstance(video, VideoFile) for video in videos)
        assert or_one_line(lambda: VideoFolder(manifest, fps=10, split="all")[0], ValueError) is None  # no such files


@EXAMPLES
@given(st.lists(entries, max_size=4))
def test_a_manifest_that_is_written_reads_back_equal(listed: list[dict[str, object]]) -> None:
    with TemporaryDirectory() as folder:
        manifest = Path(folder) / "videos.jsonl"
        or_one_line(lambda: write_manifest(manifest, listed), ValueError)
        if manifest.exists():
            assert read_manifest(manifest) == listed


@EXAMPLES
@given(content)
def test_any_sidecar_gives_a_caption_or_an_error_of_one_line(written: bytes) -> None:
    with TemporaryDirectory() as folder:
        video = VideoFile(Path(folder) / "a.mp4", "a.mp4", "a.mp4")
        for suffix in (".json", ".txt"):
            video.path.with_suffix(suffix).write_bytes(written)
            captioned = or_one_line(lambda: with_captions([video], "sidecar"), ValueError)
            assert captioned is None or isinstance(captioned[0].caption, str)


@EXAMPLES
@given(content)
@example(b'{"frame": 0, "turn": 1e999}')
@example(b'{"turn": 1' + b"0" * 400 + b"}")
def test_any_action_file_gives_numbers_or_names_the_video(written: bytes) -> None:
    with TemporaryDirectory() as folder:
        video = Path(folder) / "a.mp4"
        video.with_suffix(".jsonl").write_bytes(written)
        for num_frames in (1, 2):
            actions = or_one_line(lambda n=num_frames: read_actions(video, ["turn"], n), UnreadableVideo)
            assert actions is None or (num_frames - len(actions) in (0, 1) and np.isfinite(actions).all())
