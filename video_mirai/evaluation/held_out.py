"""Which held-out clips are compared, and which other ones stand for real video."""

import dataclasses
from typing import NamedTuple

import numpy as np
from torch import Tensor

from video_mirai.data.scenes import Scenes, ScenesConfig
from video_mirai.data.video_folder import VideoFolder, VideoFolderConfig, count_starts
from video_mirai.data.video_reader import open_video
from video_mirai.evaluation.generation import StoredClip
from video_mirai.media import to_uint8


class HeldOut(NamedTuple):
    """A held-out data set and the indices of its clips: `compared` are continued by the models, `others` never are."""

    dataset: VideoFolder | Scenes
    compared: list[int]
    others: list[int]

    def read(self, index: int) -> StoredClip:
        """One clip of the data set with what it knows about its state."""
        sample = self.dataset[index]
        state: dict[str, Tensor] = sample.get("state", {})
        return StoredClip(sample["name"], to_uint8(sample["video"]), {k: v.numpy() for k, v in state.items()})

    def identity(self) -> dict[str, object]:
        """All that decides which frames the clips hold, for settings hashes."""
        config = dataclasses.asdict(self.dataset.config)
        return {"data": config, "compared": self.compared, "others": self.others}


def open_held_out(
    data: VideoFolderConfig | ScenesConfig,
    split: str,
    history_frames: int,
    horizon_frames: int,
    num_clips: int,
    seed: int,
) -> HeldOut:
    """Open the held-out split with clips of history + horizon frames and choose num_clips of them.

    Raises:
        ValueError: too few clips, an unreadable file, or clips shorter than asked for; says what is possible.
    """
    num_frames = history_frames + horizon_frames
    if isinstance(data, ScenesConfig):
        # Scenes are drawn when asked for: half of them are compared, half stand for real video.
        config = dataclasses.replace(data, num_frames=num_frames, split=split, num_clips=2 * num_clips)
        scenes = Scenes(**dataclasses.asdict(config))
        return HeldOut(scenes, list(range(num_clips)), list(range(num_clips, 2 * num_clips)))
    config_folder = dataclasses.replace(data, num_frames=num_frames, split=split, on_bad="raise", clips_per_place=1)
    folder = VideoFolder(**dataclasses.asdict(config_folder))
    compared, others = choose_clips([place.item for place in folder.places], num_clips, seed)
    _check_lengths(folder, compared + others, history_frames, horizon_frames)
    return HeldOut(folder, compared, others)


def choose_clips(videos: list[int], num_clips: int, seed: int) -> tuple[list[int], list[int]]:
    """Two sets of clips that share no source video, of at most num_clips each, as many videos as possible.

    Args:
        videos: number of the source video of every clip.
    Raises:
        ValueError: the first set has fewer than num_clips.
    """
    order = np.random.default_rng(seed).permutation(len(set(videos)))
    shuffled = [sorted(set(videos))[i] for i in order]
    chosen = []
    for half in (set(shuffled[0::2]), set(shuffled[1::2])):
        slots: dict[int, int] = {}
        clips = []
        for index, video in enumerate(videos):
            if video in half:
                clips.append((slots.setdefault(video, 0), shuffled.index(video), index))
                slots[video] += 1
        chosen.append([index for _, _, index in sorted(clips)])
    if len(chosen[0]) < num_clips:
        raise ValueError(
            f"num_clips={num_clips}, but the held-out split has only {len(chosen[0])} clips to compare "
            f"({len(videos)} in all; half of the videos are set aside for real against real); "
            f"try num_clips={len(chosen[0])} or more clips per video."
        )
    return chosen[0][:num_clips], chosen[1][:num_clips]


def _check_lengths(folder: VideoFolder, clips: list[int], history_frames: int, horizon_frames: int) -> None:
    longest = {folder.files[folder.places[clip].item]: 0 for clip in clips}
    for file in longest:
        with open_video(file.path, folder.config.backend) as video:
            longest[file] = longest_clip(video.timestamps, folder.config.fps)
    file, frames = min(longest.items(), key=lambda item: item[1])
    if frames < history_frames + horizon_frames:
        possible = frames - history_frames
        advice = f"the longest possible is horizon_frames={possible}" if possible > 0 else "record longer videos"
        raise ValueError(
            f"horizon_frames={horizon_frames} after {history_frames} history frames is longer than the held-out video "
            f"{file.name} ({frames} frames); {advice}."
        )


def longest_clip(timestamps: np.ndarray, fps: float | None) -> int:
    """Most frames that a clip of a file with these timestamps (seconds) can have."""
    if fps is None:
        return len(timestamps)
    upper = int((timestamps[-1] - timestamps[0]) * fps) + 2
    return next((frames for frames in range(upper, 0, -1) if count_starts(timestamps, frames, fps) > 0), 0)
