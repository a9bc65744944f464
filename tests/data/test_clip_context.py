"""Classes from folders and actions frame by frame, as conditioning."""

import json
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
import torch

from video_mirai.data.batch import ClipKey
from video_mirai.data.clip_context import actions_on_the_way, read_actions
from video_mirai.data.video_folder import VideoFolder
from video_mirai.data.video_list import write_manifest
from video_mirai.data.video_reader import UnreadableVideo

pytest.importorskip("decord")

MakeVideo = Callable[..., Path]
FrameNumbers = Callable[[np.ndarray], list[int]]


@pytest.fixture
def record(make_video: MakeVideo) -> Callable[..., Path]:
    """A video with actions beside it: the action from frame i to i+1 is turn i and forward 100 + i."""

    def make(name: str = "videos/clip.mp4", num_frames: int = 30) -> Path:
        path = make_video(name, num_frames=num_frames, fps=10)
        lines = [{"frame": i, "name": "walk", "forward": 100 + i, "turn": float(i)} for i in range(num_frames)]
        path.with_suffix(".jsonl").write_text("".join(json.dumps(line) + "\n" for line in lines))
        return path

    return make


def open_actions(root: Path, num_frames: int = 4, **settings: object) -> VideoFolder:
    choice = {"context": "actions", "actions": ["turn", "forward"], "split": "all", "height": 16, "width": 32}
    return VideoFolder(root, num_frames, **{**choice, **settings})


def test_a_class_is_one_hot_in_the_same_order_in_every_split(make_video: MakeVideo) -> None:
    for number in range(8):
        make_video(f"videos/deep/walk_slowly/{number}.mp4")
        root = make_video(f"videos/run/{number}.mp4").parents[1]
    settings = {"context": "class", "height": 16, "width": 32, "val_fraction": 0.3, "test_fraction": 0.3}
    for split in ("train", "val", "test"):
        dataset = VideoFolder(root, 4, split=split, **settings)
        assert dataset.class_names == ("run", "walk slowly")
        for index in range(len(dataset)):
            sample = dataset[index]
            expected = [[1, 0]] if "run" in sample["name"] else [[0, 1]]
            assert sample["context"].dtype == torch.float32
            assert sample["context"].tolist() == expected


def test_one_class_is_an_error(make_video: MakeVideo) -> None:
    with pytest.raises(ValueError, match="at least two folders, one for each class; all 1 lie in 'videos'"):
        VideoFolder(make_video().parent, 4, context="class", split="all")


def test_each_frame_carries_the_action_that_leads_to_it(
    record: Callable[..., Path], frame_numbers: FrameNumbers
) -> None:
    dataset = open_actions(record().parent)
    starts = set()
    for epoch in range(10):
        sample = dataset[ClipKey(epoch, 0)]
        assert sample["context"].shape == (4, 1, 2)
        assert sample["context"].dtype == torch.float32
        for number, (turn, forward) in zip(
            frame_numbers((sample["video"].numpy() + 1) * 127.5), sample["context"][:, 0].tolist(), strict=True
        ):
            assert (turn, forward) == ((number - 1, 99 + number) if number > 0 else (0, 0))
        starts.add(sample["context"][0, 0, 0].item())
    assert len(starts) > 3


@pytest.mark.parametrize(
    ("fps", "turns"),
    [
        (5, [0, 0.5, 2.5, 4.5]),  # frames 0 2 4 6: means of turns 0 1, 2 3, 4 5
        (3, [0, 1, 4.5, 8]),  # frames 0 3 7 10
        (30, [0, 0, 0, 0]),  # frames 0 0 1 1: the third is reached by turn 0, the others show no motion
    ],
)
def test_actions_between_two_frames_of_a_resampled_clip_are_averaged(
    record: Callable[..., Path], fps: float, turns: list[float]
) -> None:
    sample = open_actions(record().parent, fps=fps, stride_seconds=100)[0]
    assert sample["context"][:, 0, 0].tolist() == turns


def test_the_first_frame_of_a_resampled_clip_is_reached_from_one_clip_frame_before(record: Callable[..., Path]) -> None:
    sample = open_actions(record().parent, fps=5, stride_seconds=1)[1]  # frames 10 12 14 16
    assert sample["context"][:, 0, 0].tolist() == [8.5, 10.5, 12.5, 14.5]


def test_a_frame_shown_twice_has_no_action_on_the_way() -> None:
    actions = np.array([[1.0], [2.0], [6.0]])
    assert actions_on_the_way(actions, [0, 0, 1, 1, 3])[:, 0].tolist() == [0, 1, 0, 4]


def test_what_came_before_a_piece_is_not_in_its_context(record: Callable[..., Path]) -> None:
    root = record().parent
    write_manifest(root / "pieces.jsonl", [{"path": "clip.mp4", "first_frame": 10, "end_frame": 14}])
    sample = open_actions(root / "pieces.jsonl")[0]
    assert sample["context"][:, 0, 0].tolist() == [0, 10, 11, 12]


FAULTS = {
    "missing": (None, r"no actions beside it \(bad\.jsonl\)"),
    "too short": (lambda lines: lines[:20], r"bad\.jsonl has 20 actions for 30 frames"),
    "too long": (lambda lines: [*lines, lines[-1]], r"bad\.jsonl has 31 actions for 30 frames"),
    "corrupt": (lambda lines: [*lines[:4], lines[4][:9], *lines[5:]], r"bad\.jsonl, line 5: not JSON"),
    "not an object": (lambda lines: ["3", *lines[1:]], r"bad\.jsonl, line 1: not an object"),
    "shuffled": (lambda lines: [lines[1], lines[0], *lines[2:]], r"bad\.jsonl, line 1: says frame 1, expected 0"),
    "no such field": (
        lambda lines: [line.replace("turn", "spin") for line in lines],
        r"line 1: no finite number 'turn'; it has frame, name, forward, spin",
    ),
    "no number": (lambda lines: [*lines[:-1], lines[-1].replace("29.0", '"a"')], r"line 30: no finite number 'turn'"),
    "infinite": (lambda lines: [*lines[:-1], lines[-1].replace("29.0", "1e999")], r"line 30: no finite number 'turn'"),
}


@pytest.mark.parametrize("fault", FAULTS)
def test_a_video_with_bad_actions_is_skipped_in_training_and_refused_in_evaluation(
    record: Callable[..., Path], fault: str
) -> None:
    spoil, reason = FAULTS[fault]
    root = record("videos/good.mp4").parent
    actions = record("videos/bad.mp4").with_suffix(".jsonl")
    if spoil is None:
        actions.unlink()
    else:
        actions.write_text("\n".join(spoil(actions.read_text().splitlines())))
    training = open_actions(root, max_bad_fraction=0.5)
    assert [training[index]["name"] for index in range(2)] == ["good.mp4", "good.mp4"]
    assert list(training.bad_items) == [str(root / "bad.mp4")]
    with pytest.raises(UnreadableVideo, match=rf"bad\.mp4: .*{reason}"):
        open_actions(root, on_bad="raise")[0]


def test_the_last_frame_s_action_may_be_missing_and_keys_pressed_may_be_booleans(tmp_path: Path) -> None:
    (tmp_path / "a.jsonl").write_text('{"fire": true}\n{"fire": false}\n')
    for num_frames in (2, 3):
        assert read_actions(tmp_path / "a.mp4", ["fire"], num_frames).tolist() == [[1.0], [0.0]]


@pytest.mark.parametrize(
    ("settings", "message"),
    [
        ({"context": "text"}, "context='text' is unknown; known: none, class, actions"),
        ({"actions": []}, r"context='actions' with actions=\[\]: name the fields"),
        ({"context": "none"}, r"context='none' with actions=\['turn', 'forward'\]"),
    ],
)
def test_a_context_that_cannot_be_is_named(
    record: Callable[..., Path], settings: dict[str, object], message: str
) -> None:
    with pytest.raises(ValueError, match=message):
        open_actions(record().parent, **settings)
