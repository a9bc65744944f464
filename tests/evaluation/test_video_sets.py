from pathlib import Path

import numpy as np
import pytest
from video_folders import FRAMES, folder_config, moving_texture, write_folder, write_real_and_fake

from video_mirai.evaluation.video_sets import (
    available_frames,
    common_format,
    open_sets,
    paired_keys,
    read_video,
    rules_of,
    set_info,
    usable,
)


def test_rate_is_the_lowest_of_any_file_and_frames_are_those_nearest_in_time(tmp_path: Path) -> None:
    real, _ = write_real_and_fake(tmp_path, 2)
    doubled = {f"clip_{i}": moving_texture(i).repeat(2, axis=0) for i in range(2)}
    write_folder(tmp_path / "fast", doubled, fps=16.0)
    config = folder_config(tmp_path, fakes={"fast": str(tmp_path / "fast")})
    sets = open_sets(config)
    wanted = common_format(config, sets)
    assert (wanted.fps, wanted.num_frames, wanted.height, wanted.width) == (8, FRAMES, 16, 16)
    slow, fast = (read_video(found.videos[0], wanted, "decord").frames.astype(int) for found in sets)
    assert abs(slow - fast).mean() < 6  # the codec's error; a frame further on is 60 off
    as_they_are = common_format(folder_config(tmp_path, fakes=config.fakes, every_frame=True), sets)
    assert as_they_are.fps is None and as_they_are.num_frames == FRAMES
    with pytest.raises(ValueError, match=r"fps=12 is more than the 8 of .*; ask for 8 or less"):
        common_format(folder_config(tmp_path, fakes=config.fakes, fps=12.0), sets)
    assert str(real) == sets[0].root


def test_length_is_that_of_the_shortest_file_or_shorter_files_are_left_out_and_counted(tmp_path: Path) -> None:
    write_real_and_fake(tmp_path, 3)
    write_folder(tmp_path / "fake", {"clip_0": moving_texture(0, frames=12)})
    config = folder_config(tmp_path)
    assert common_format(config, open_sets(config)).num_frames == 12
    longer = folder_config(tmp_path, num_frames=20)
    sets = open_sets(longer)
    wanted = common_format(longer, sets)
    kept = [usable(found, wanted) for found in sets]
    assert [(len(found.videos), found.left_out) for found in kept] == [(3, 0), (2, 1)]
    assert "1 shorter files left out" in rules_of(longer, wanted, kept)["length"]
    with pytest.raises(ValueError, match=r"fake: 0 of 3 videos have 30 frames or more; .* at least 2"):
        usable(sets[1], wanted._replace(num_frames=30))


def test_other_sizes_are_brought_to_the_real_one_and_mixed_real_sizes_need_a_choice(tmp_path: Path) -> None:
    write_real_and_fake(tmp_path, 2)
    write_folder(tmp_path / "fake", {"clip_0": moving_texture(0, size=32)})
    config = folder_config(tmp_path)
    sets = open_sets(config)
    wanted = common_format(config, sets)
    assert read_video(sets[1].videos[0], wanted, "decord").frames.shape == (FRAMES, 16, 16, 3)
    assert set_info(sets[1]).sizes == ["16x16", "32x32"]
    write_folder(tmp_path / "real", {"wide": moving_texture(9, size=32)})
    with pytest.raises(ValueError, match=r"the real videos have 2 sizes \(16x16, 32x32\); choose one: height=16"):
        common_format(config, open_sets(config))
    chosen = folder_config(tmp_path, height=24, width=8)
    assert common_format(chosen, open_sets(chosen))[3:] == (24, 8)


def test_videos_pair_by_relative_path_without_suffix(tmp_path: Path) -> None:
    write_folder(tmp_path / "real", {name: moving_texture(0) for name in ("a/1", "a/2", "b")})
    write_folder(tmp_path / "fake", {name: moving_texture(0) for name in ("a/1", "2", "b")})
    config = folder_config(tmp_path)
    real, fake = open_sets(config)
    assert paired_keys(config, real, fake) == {"a/1", "b"}
    assert paired_keys(folder_config(tmp_path, pair=False), real, fake) == set()
    (tmp_path / "fake" / "b.mp4").rename(tmp_path / "fake" / "b.mov")
    assert open_sets(config)[1].names == ["2", "a/1", "b"]
    write_folder(tmp_path / "fake", {"b": moving_texture(0)})
    with pytest.raises(ValueError, match=r"b\.mov and b\.mp4 both pair as 'b'"):
        open_sets(config)


def test_identity_of_a_set_is_its_names_and_contents(tmp_path: Path) -> None:
    write_real_and_fake(tmp_path, 2)
    config = folder_config(tmp_path)
    before = [set_info(found).sha256 for found in open_sets(config)]
    write_folder(tmp_path / "fake", {"clip_0": moving_texture(5)})
    after = [set_info(found).sha256 for found in open_sets(config)]
    assert before[0] == after[0] and before[1] != after[1]


def test_a_video_lasts_until_half_a_frame_after_its_last_one() -> None:
    timestamps = np.arange(10) / 10
    assert [available_frames(timestamps, fps) for fps in (None, 10.0, 5.0, 20.0)] == [10, 10, 5, 20]


@pytest.mark.parametrize(
    ("settings", "message"),
    [
        ({"clip_rule": "last"}, "clip_rule='last' is not known; choose one of sliding, first, random"),
        ({"height": 8}, "height and width belong together"),
        ({"fps": 0.0}, "fps=0.0 must be positive"),
        ({"fps": 8.0, "every_frame": True}, "choose one"),
        ({"num_frames": 0}, "num_frames=0 must be at least 1"),
        ({"fakes": {}}, "no generated videos"),
    ],
)
def test_settings_that_cannot_be_are_one_clear_line(settings: dict, message: str, tmp_path: Path) -> None:
    with pytest.raises(ValueError, match=message):
        open_sets(folder_config(tmp_path, **settings))
