from pathlib import Path

import numpy as np
import pytest
from video_folders import (
    CPU,
    FRAMES,
    SIZE,
    evaluate,
    folder_config,
    moving_texture,
    result_of,
    write_folder,
    write_real_and_fake,
)

from video_mirai.evaluation.contestants import Processes
from video_mirai.evaluation.folder_run import evaluate_folders
from video_mirai.evaluation.publish import make_result
from video_mirai.evaluation.row_scores import RowScores


@pytest.fixture(scope="module")
def root(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("videos")
    write_real_and_fake(folder)
    return folder


def by_name(rows: list[RowScores]) -> dict[str, RowScores]:
    return {row.name: row for row in rows}


def test_real_videos_as_generated_ones_have_distance_zero_and_the_highest_psnr(root: Path) -> None:
    found = evaluate(root, fakes={"same": str(root / "real"), "fake": str(root / "fake")})
    rows = by_name(found.rows)
    assert [row.kind for row in found.rows] == ["model", "model", "copy", "real"]
    assert rows["same"].distance("fd_random3d", None, None) == pytest.approx(0, abs=1e-9)
    assert rows["fake"].distance("fd_random3d", None, None) > 0
    assert {score.numbers["psnr"] for score in rows["same"].scores} == {100.0}
    assert rows["fake"].scores[0].numbers["psnr"] < 30
    assert rows["fake"].scores[0].numbers["psnr_failure"] in range(FRAMES + 1)
    assert rows["copy-first-frame"].scores[0].numbers["dynamic_degree"] == 0
    assert rows["copy-first-frame"].scores[0].numbers["freeze_fraction"] == 1
    assert len(rows["real vs real"].scores) == len(rows["real vs real"].reference) == 3
    assert {(c.row.name, c.reference.name) for c in found.comparisons} == {
        ("fake", "same"), ("same", "copy-first-frame"), ("fake", "copy-first-frame"),
    }  # fmt: skip


def test_sets_without_common_names_are_compared_as_sets(root: Path) -> None:
    write_folder(root / "others", {f"sample {i}": moving_texture(10 + i) for i in range(3)})
    result = result_of(root, fakes={"others": str(root / "others")})
    metrics = result.rows[0].metrics
    assert "psnr" not in metrics and metrics["fd_random3d"].value > 0
    assert result.differences == []
    assert "hold videos of other names" in result.warnings[0]
    assert "paired with a real video: others 0 of 3" in result.rules["pairing"]


def test_part_of_the_videos_may_be_paired_and_the_report_says_how_many_are_not(root: Path) -> None:
    names = {"clip_0": moving_texture(0), "clip_1": moving_texture(1), "new": moving_texture(7)}
    write_folder(root / "some", names)
    result = result_of(root, fakes={"some": str(root / "some")})
    row = result.rows[0]
    assert row.metrics["psnr"].value > 25
    assert len(row.curves["psnr"].mean) == FRAMES
    assert any("psnr is undefined on 1 clips of some" in warning for warning in result.warnings)


def test_pair_false_compares_no_videos_of_one_name(root: Path) -> None:
    found = evaluate(root, pair=False)
    assert "psnr" not in found.rows[0].scores[0].numbers
    assert found.comparisons == []
    assert not {s.clip for s in found.rows[0].scores} & {s.clip for s in found.rows[0].reference}


def test_history_is_scored_nowhere_and_its_last_frame_is_what_is_copied(root: Path) -> None:
    changed = {f"clip_{i}": moving_texture(i) for i in range(4)}
    for frames in changed.values():
        frames[:3] = 0
    write_folder(root / "dark_start", changed)
    found = evaluate(root, fakes={"dark": str(root / "dark_start")}, history_frames=4)
    assert found.clips.horizon_frames == FRAMES - 4
    assert found.rows[1].name == "copy-last-frame"
    assert all(len(score.curves["psnr"]) == FRAMES - 4 for score in found.rows[0].scores)
    assert min(score.numbers["psnr"] for score in found.rows[0].scores) > 25


def test_clip_rules_choose_the_clips_behind_the_distance_over_the_whole(root: Path) -> None:
    pooled = {}
    for rule in ("sliding", "first", "random"):
        found = evaluate(root, clip_rule=rule)
        pooled[rule] = [score.pooled for score in found.rows[0].scores]
        assert found.rows[0].distance("fd_random3d", 1, None) > 0
        assert rule != "random" or evaluate(root, clip_rule=rule).rows[0].distance(
            "fd_random3d", None, None
        ) == found.rows[0].distance("fd_random3d", None, None)
    assert set(pooled["sliding"]) == {None} and set(pooled["first"]) == {(0,)}
    assert set(pooled["random"]) == {(FRAMES // 8,)}  # the one after the windows


def test_windows_have_a_pooled_reference_beside_the_aligned_one(root: Path) -> None:
    row = result_of(root).rows[0]
    assert [(window.first, window.last) for window in row.windows] == [(1, 8), (9, 16), (17, 24)]
    for window in row.windows:
        aligned, pooled = window.metrics["fd_random3d"], window.metrics["fd_random3d_pooled"]
        assert aligned.value != pooled.value and aligned.low is not None and pooled.low is not None
    assert row.curves["fd_random3d_pooled"].frames == [4, 12, 20]
    assert row.cosine_by_lag is not None and row.cosine_by_lag.frames == [1, 2, 5, 10, 20]


def test_first_frame_without_a_history_has_no_consistency(root: Path) -> None:
    row = result_of(root).rows[0]
    assert row.curves["consistency"].frames == list(range(2, FRAMES + 1))
    assert row.curves["brightness"].frames == list(range(1, FRAMES + 1))


def test_real_videos_are_given_to_a_detector_once_and_generated_ones_always(
    root: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    from video_mirai.evaluation.detectors.random3d import Random3D

    seen: list[int] = []
    features = Random3D.features

    def counted(self: Random3D, clips: np.ndarray) -> np.ndarray:
        seen.append(clips.shape[2])
        return features(self, clips)

    monkeypatch.setattr(Random3D, "features", counted)
    evaluate(root, feature_cache=str(tmp_path))
    first = len(seen)
    seen.clear()
    evaluate(root, feature_cache=str(tmp_path))
    assert (first, len(seen)) == (18, 12)  # 6 real, 6 copied, 6 generated; then without the real ones
    assert set(seen) == {SIZE}


def test_two_processes_find_the_same_numbers_as_one(root: Path) -> None:
    class Gathered(Exception):
        pass

    theirs: list = []

    def give(scores: list) -> list:
        theirs.extend(scores)
        raise Gathered

    config = folder_config(root)
    with pytest.raises(Gathered):
        evaluate_folders(config, Processes(1, 2, lambda: None, give), CPU)
    both = evaluate_folders(config, Processes(0, 2, lambda: None, lambda mine: theirs + mine), CPU)
    assert make_result(both, "", CPU).rows == result_of(root).rows


def test_too_few_real_videos_leave_out_the_floor_and_say_so(tmp_path: Path) -> None:
    write_real_and_fake(tmp_path, 3)
    result = result_of(tmp_path)
    assert [row.kind for row in result.rows] == ["model", "copy"]
    assert any("noise floor is missing" in warning for warning in result.warnings)
