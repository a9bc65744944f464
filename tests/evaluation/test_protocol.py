from pathlib import Path

import numpy as np
import pytest
import torch
from numpy.typing import NDArray

from video_mirai.data.scenes import Scenes, ScenesConfig
from video_mirai.evaluation.aggregate import (
    Resampling,
    few_samples_warnings,
    make_difference,
    make_row,
    mean_estimate,
)
from video_mirai.evaluation.detectors.builtin_frames import BuiltinFrames
from video_mirai.evaluation.frechet import frechet_at_infinity, frechet_distance
from video_mirai.evaluation.generation import (
    ClipStore,
    StoredClip,
    as_model_input,
    clip_generator,
    continue_videos,
    reconstruct,
    settings_hash,
)
from video_mirai.evaluation.held_out import choose_clips, longest_clip, open_held_out
from video_mirai.evaluation.mmd import polynomial_mmd, polynomial_mmd_subsets
from video_mirai.evaluation.protocol import EvaluateConfig, FrameEncoders, Protocol, copy_last_frame
from video_mirai.evaluation.row_scores import RowScores, VideoScores, clip_timeline
from video_mirai.evaluation.scene_rows import SceneRows
from video_mirai.media import to_uint8
from video_mirai.models.causal_dit import CausalVideoDiT
from video_mirai.models.codecs import PixelsCodec
from video_mirai.sampling.rollout import RolloutSettings

HISTORY, HORIZON, WINDOW = 2, 8, 4
RESAMPLING = Resampling(num_resamples=50, num_subsets=10, seed=0)
CONFIG = EvaluateConfig(
    history_frames=HISTORY, window_frames=WINDOW, stride_frames=2, first_frames=4, num_resamples=50, num_subsets=10
)
TIMELINE = clip_timeline(HORIZON, WINDOW, 2)


class MeanColour:
    """A detector of three numbers."""

    name, label, sha256, clip_frames, feature_dim, preprocessing = "mean", "fd_mean", "0" * 64, WINDOW, 3, "none"

    def features(self, clips: NDArray[np.uint8]) -> NDArray[np.float64]:
        return clips.mean(axis=(1, 2, 3))


def random_clip(seed: int, name: str = "") -> StoredClip:
    frames = np.random.default_rng(seed).integers(0, 256, (HISTORY + HORIZON, 16, 16, 3), dtype=np.uint8)
    return StoredClip(name or f"video {seed}", frames, {})


def protocol(scenes: SceneRows | None = None) -> Protocol:
    encoders = FrameEncoders(BuiltinFrames(), BuiltinFrames())
    return Protocol(CONFIG, TIMELINE, {"fd_mean": MeanColour()}, encoders, scenes, "sliding clips")


def scores_of(num_videos: int, offset: float = 0.0, seed: int = 0) -> list[VideoScores]:
    rng = np.random.default_rng(seed)
    return [
        VideoScores(
            clip,
            f"video {clip}",
            {"psnr": np.linspace(20, 10, HORIZON) + offset},
            {"psnr": 15 + offset + 0.01 * clip},
            {"fd_mean": rng.normal(offset, 1, (len(TIMELINE.starts), 3))},
        )
        for clip in range(num_videos)
    ]


def tiny_model() -> CausalVideoDiT:
    torch.manual_seed(0)
    return CausalVideoDiT(
        patch_size=(1, 4, 4), num_attention_heads=1, attention_head_dim=12, in_channels=3, out_channels=3,
        text_dim=None, freq_dim=16, ffn_dim=16, num_layers=1,
    ).eval()  # fmt: skip


def generated(seeds: list[int]) -> np.ndarray:
    history = as_model_input(np.stack([random_clip(seed).frames[:HISTORY] for seed in seeds]), torch.device("cpu"))
    generators = [clip_generator(0, seed, torch.device("cpu")) for seed in seeds]
    settings = RolloutSettings(num_steps=2, chunk_frames=3, window_frames=3)
    parts = continue_videos(tiny_model(), PixelsCodec(), history, HORIZON, settings, generators)
    return to_uint8(torch.cat(list(parts), dim=1))


def test_history_frames_never_count():
    truth, video = random_clip(0), random_clip(0)
    video.frames[: HISTORY - 1] = 0
    ours, theirs = protocol().score(0, video, truth), protocol().score(0, truth, truth)
    assert ours.numbers == theirs.numbers
    np.testing.assert_array_equal(ours.features["fd_mean"], theirs.features["fd_mean"])


def test_copied_frames_are_perfectly_consistent_and_not_dynamic():
    truth = random_clip(0)
    copied = copy_last_frame(truth, HISTORY)
    assert (copied.frames[HISTORY:] == truth.frames[HISTORY - 1]).all()
    numbers = protocol().score(0, copied, truth).numbers
    assert numbers["consistency"] == pytest.approx(1)
    assert numbers["dynamic_degree"] == numbers["drift_brightness"] == numbers["drift_sharpness"] == 0


class LastRow:
    """A frame encoder that sees only the last row of pixels."""

    name, sha256, preprocessing = "last row", "", "none"

    def frame_features(self, frames: NDArray[np.uint8]) -> NDArray[np.float64]:
        return frames[:, -1].reshape(len(frames), -1) / 255


def test_background_has_a_consistency_of_its_own_features():
    truth = random_clip(0)
    truth.frames[:, -1] = truth.frames[0, -1]
    encoders = FrameEncoders(BuiltinFrames(), LastRow())
    both = Protocol(CONFIG, TIMELINE, {"fd_mean": MeanColour()}, encoders, None, "sliding clips")
    numbers = both.score(0, truth, None).numbers
    assert numbers["background_consistency"] == pytest.approx(1) and numbers["consistency"] < 0.99
    same = protocol().score(0, truth, None).numbers
    assert same["background_consistency"] == same["consistency"] == numbers["consistency"]
    how = {metric.key: metric.how for metric in both.metrics()}
    assert "last row" in how["background_consistency"] and "grid_colour_gradient" in how["consistency"]


def test_truth_against_itself_has_the_highest_psnr_and_ssim():
    numbers = protocol().score(0, random_clip(0), random_clip(0)).numbers
    assert numbers["psnr"] == numbers["psnr_first"] == 100
    assert numbers["ssim"] == pytest.approx(1)


def test_every_headline_metric_is_scored():
    scored = protocol().score(0, random_clip(1), random_clip(0))
    row = RowScores("a", "model", [scored, scored], [scored, scored], TIMELINE, 1)
    found = make_row(row, RESAMPLING)
    for metric in [*protocol().metrics(), *protocol().window_metrics()]:
        assert metric.key in found.metrics


def test_true_scene_frames_show_their_own_state():
    scenes = Scenes(1, HISTORY + HORIZON, height=16, width=16, sprite_size=6.0)
    held_out = open_held_out(scenes.config, "test", HISTORY, HORIZON, 1, 0)
    clip = held_out.read(0)
    numbers = protocol(SceneRows(scenes.config, 4.0, 8)).score(0, clip, clip).numbers
    assert numbers["position_error"] < 0.5
    assert numbers["identity_persistence"] == 1
    assert numbers["first_step_beyond"] == HORIZON


def test_windows_follow_each_other_and_clips_slide():
    assert TIMELINE.windows == [(0, 4), (4, 8)]
    assert TIMELINE.starts == [0, 2, 4]
    with pytest.raises(ValueError, match=r"horizon_frames=3 is shorter than window_frames=4"):
        clip_timeline(3, 4, 2)
    with pytest.raises(ValueError, match=r"stride_frames=3 must divide"):
        clip_timeline(8, 4, 3)


def test_row_pools_sliding_clips_and_aligns_windows_in_time():
    ours, real = scores_of(6, 1.0), scores_of(6, seed=1)
    row = make_row(RowScores("a", "model", ours, real, TIMELINE, 1), RESAMPLING)
    pooled = [np.concatenate([score.features["fd_mean"] for score in scores]) for scores in (ours, real)]
    assert row.metrics["fd_mean"].value == pytest.approx(frechet_distance(*pooled))
    second = [np.stack([score.features["fd_mean"][2] for score in scores]) for scores in (ours, real)]
    assert row.windows[1].metrics["fd_mean"].value == pytest.approx(frechet_distance(*second))
    assert [(window.first, window.last) for window in row.windows] == [(1, 4), (5, 8)]
    assert row.curves["psnr"].mean == pytest.approx(np.linspace(21, 11, HORIZON).tolist())
    assert row.num_videos == 6


def test_distance_has_its_unbiased_companions_beside_it():
    ours, real = scores_of(40, 1.0), scores_of(40, seed=1)
    row = make_row(RowScores("a", "model", ours, real, TIMELINE, 1), RESAMPLING)
    pooled = [np.concatenate([score.features["fd_mean"] for score in scores]) for scores in (ours, real)]
    assert row.metrics["mmd_mean"].value == pytest.approx(polynomial_mmd(*pooled))
    assert row.metrics["mmd_mean"].low is not None
    subsets = polynomial_mmd_subsets(*pooled, subset_size=60)
    assert row.metrics["mmd_mean_subsets"].value == pytest.approx(subsets.mean)
    assert row.metrics["mmd_mean_subsets_deviation"].value == pytest.approx(subsets.deviation)
    assert row.metrics["fd_mean_at_infinity"].value == pytest.approx(frechet_at_infinity(*pooled).distance)
    few = make_row(RowScores("a", "model", ours[:2], real[:2], TIMELINE, 1), RESAMPLING)
    assert np.isnan(few.metrics["fd_mean_at_infinity"].value)


def test_difference_of_a_row_with_itself_is_zero_with_an_interval_of_no_width():
    row = RowScores("a", "model", scores_of(6), scores_of(6, seed=1), TIMELINE, 1)
    difference = make_difference(row, row, RESAMPLING)
    assert difference.metrics.pop("fd_mean_at_infinity").value == 0  # which has no interval
    for estimate in [*difference.metrics.values(), *difference.windows[0].metrics.values()]:
        assert estimate.value == estimate.low == estimate.high == 0


def test_differences_hold_the_companions_of_the_distance_and_an_interval_only_where_halves_give_one():
    first, second = (RowScores("a", "model", scores_of(40, x), scores_of(40, seed=1), TIMELINE, 1) for x in (1.0, 0.0))
    found = make_difference(first, second, RESAMPLING).metrics
    each = [make_row(row, RESAMPLING).metrics for row in (first, second)]
    for key in ("fd_mean", "mmd_mean", "fd_mean_at_infinity"):
        assert found[key].value == pytest.approx(each[0][key].value - each[1][key].value)
    assert found["mmd_mean"].low < found["mmd_mean"].value < found["mmd_mean"].high
    assert found["fd_mean_at_infinity"].low is None
    assert "mmd_mean_subsets" not in found


def test_constant_gain_is_found_whatever_the_spread_between_videos():
    real = scores_of(6, seed=1)
    better = RowScores("a", "model", scores_of(6, 1.0), real, TIMELINE, 1)
    worse = RowScores("b", "model", scores_of(6), real, TIMELINE, 1)
    gain = make_difference(better, worse, RESAMPLING).metrics["psnr"]
    assert gain.value == pytest.approx(1) and gain.excludes_zero
    assert "psnr" not in make_difference(better, worse, RESAMPLING, leave_out=("psnr",)).metrics


def test_clips_of_one_video_count_once_and_nan_not_at_all():
    estimate = mean_estimate(np.array([1.0, 1.0, 1.0, 3.0, np.nan]), ["a", "a", "a", "b", "c"], RESAMPLING)
    assert estimate.value == 2
    single = mean_estimate(np.array([1.0, 3.0]), ["a", "a"], RESAMPLING)
    assert (single.value, single.low) == (2, None)


def test_few_clips_are_warned_about():
    few = RowScores("a", "model", scores_of(3), scores_of(3), TIMELINE, 1)
    assert "3 clips per window and 9 pooled for 3 feature dimensions" in few_samples_warnings(few)[0]
    many = RowScores("a", "model", scores_of(4), scores_of(4), TIMELINE, 1)
    assert few_samples_warnings(many) == []


def test_compared_and_other_clips_share_no_video():
    videos = [0, 0, 1, 1, 2, 2, 3, 3, 4, 4]
    compared, others = choose_clips(videos, 3, seed=0)
    assert len(compared) == 3 and len(others) == 3
    assert not {videos[i] for i in compared} & {videos[i] for i in others}
    assert len({videos[i] for i in compared}) == 3  # as many videos as possible
    with pytest.raises(ValueError, match=r"has only 6 clips to compare .* try num_clips=6"):
        choose_clips(videos, 7, seed=0)


def test_longest_clip_counts_frames_at_the_clips_own_rate():
    timestamps = np.arange(10) / 10
    assert longest_clip(timestamps, None) == 10
    assert longest_clip(timestamps, 10.0) == 10
    assert longest_clip(timestamps, 5.0) == 5


def test_generated_videos_have_the_horizon_asked_for_and_do_not_depend_on_the_batch():
    together = generated([0, 1])
    assert together.shape == (2, HORIZON, 16, 16, 3)
    alone = generated([1])[0].astype(int)
    assert abs(together[1].astype(int) - alone).max() <= 1  # one grey level of rounding
    assert (together[0] != together[1]).any()


def test_pixels_survive_their_codec():
    frames = random_clip(0).frames
    np.testing.assert_array_equal(reconstruct(PixelsCodec(), frames, torch.device("cpu")), frames)


def test_stored_clip_comes_back_and_counts_only_under_its_settings(tmp_path: Path):
    store = ClipStore(tmp_path / "frames", tmp_path / "videos", settings_hash({"a": 1}))
    assert not store.has(3)
    clip = random_clip(0)._replace(state={"position": np.ones((2, 2))})
    store.save(3, clip, fps=8.0)
    loaded = store.load(3)
    np.testing.assert_array_equal(loaded.frames, clip.frames)
    np.testing.assert_array_equal(loaded.state["position"], np.ones((2, 2)))
    assert loaded.name == clip.name
    assert store.has(3)
    assert not ClipStore(tmp_path / "frames", tmp_path / "videos", settings_hash({"a": 2})).has(3)
    (tmp_path / "frames" / "0003.npz").write_bytes(b"cut off")
    assert not store.has(3)


def test_scenes_are_held_out_without_their_training_split():
    held_out = open_held_out(ScenesConfig(height=16, width=16, sprite_size=6.0), "test", 2, 4, 3, 0)
    assert held_out.dataset.config.split == "test"
    assert held_out.compared == [0, 1, 2] and held_out.others == [3, 4, 5]
    assert held_out.read(0).frames.shape == (6, 16, 16, 3)
