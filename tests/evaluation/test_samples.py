"""Several samples of one history: mean, best and worst."""

from pathlib import Path

import numpy as np
import pytest
from video_folders import evaluate, moving_texture, result_of, write_folder, write_real_and_fake

from video_mirai.evaluation.row_scores import VideoScores
from video_mirai.evaluation.samples import merge_samples, of_samples


def scores(psnr: list[float], **numbers: float) -> VideoScores:
    curve = np.array(psnr)
    features = {"fd_mean": np.full((2, 3), curve[0])}
    return VideoScores(
        0, "video", {"psnr": curve}, {"psnr": curve.mean(), **numbers}, features, cosine_by_lag={1: curve[0]}
    )


def test_best_and_worst_are_whole_samples_by_their_mean_over_frames():
    found = of_samples(np.array([[10.0, 30.0], [24.0, 24.0], [5.0, 7.0]]), higher_is_better=True)
    assert found == (pytest.approx(50 / 3), 24, 6)
    lower = of_samples(np.array([[10.0, 30.0], [24.0, 24.0], [5.0, 7.0]]), higher_is_better=False)
    assert (lower.best, lower.worst) == (6, 24)


def test_one_sample_is_its_own_best_and_worst():
    assert of_samples(np.array([[1.0, 3.0]]), higher_is_better=True) == (2, 2, 2)


@pytest.mark.parametrize(("values", "words"), [(np.ones(3), "samples, frames"), (np.full((2, 2), np.nan), "NaN")])
def test_values_that_are_no_samples_are_one_clear_line(values, words):
    with pytest.raises(ValueError, match=words):
        of_samples(values, higher_is_better=True)


def test_merged_scores_are_means_and_keep_the_first_samples_features():
    merged = merge_samples([scores([10, 20], lost=1.0), scores([30, 20], lost=np.nan)])
    assert merged.numbers == {"psnr": 20, "lost": 1, "psnr_best": 25, "psnr_worst": 15}
    assert merged.curves["psnr"].tolist() == [20, 20] and merged.cosine_by_lag == {1: 20}
    assert merged.features["fd_mean"][0, 0] == 10
    alone = scores([10, 20])
    assert merge_samples([alone]) is alone


def test_folders_of_one_name_are_samples_and_the_report_has_their_best_and_worst(tmp_path: Path) -> None:
    real, fake = write_real_and_fake(tmp_path, 3)
    found = evaluate(tmp_path, fakes={"ours": str(fake)}, samples={"ours": [str(real)]})
    row = found.rows[0].scores[0].numbers
    alone = evaluate(tmp_path, fakes={"ours": str(fake)}).rows[0]
    assert row["psnr_best"] == row["ssim_best"] * 100 == 100
    assert row["psnr_worst"] == pytest.approx(alone.scores[0].numbers["psnr"])
    assert row["psnr"] == pytest.approx((row["psnr_best"] + row["psnr_worst"]) / 2)
    assert found.rows[0].distance("fd_random3d", None, None) == alone.distance("fd_random3d", None, None)
    result = result_of(tmp_path, fakes={"ours": str(fake)}, samples={"ours": [str(real)]})
    titles = [metric.title for metric in result.shown_metrics()]
    assert {"PSNR, best of 2", "PSNR, worst of 2", "SSIM, best of 2"} <= set(titles)
    assert result.rules["samples"] == "ours: 2 of every video"
    assert [found.name for found in result.video_sets] == ["real", "ours", "ours, sample 2"]


def test_samples_of_other_videos_or_of_no_row_are_one_clear_line(tmp_path: Path) -> None:
    _, fake = write_real_and_fake(tmp_path, 3)
    other = write_folder(tmp_path / "other", {f"clip_{i}": moving_texture(i) for i in range(2)})
    with pytest.raises(ValueError, match=r"are samples of fake but 'clip_2' and 0 others are usable in only one"):
        evaluate(tmp_path, samples={"fake": [str(other)]})
    with pytest.raises(ValueError, match=r"samples\.nobody: no such row; the rows are fake"):
        evaluate(tmp_path, samples={"nobody": [str(fake)]})
