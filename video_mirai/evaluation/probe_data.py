"""Clips for the probe, split by video into those that fit a readout, choose its strength and score it; targets."""

import dataclasses
from collections.abc import Hashable, Mapping, Sequence
from dataclasses import dataclass
from typing import NamedTuple

import numpy as np
import torch
from einops import rearrange
from numpy.typing import NDArray

from video_mirai.data.latent_shards import LatentShards, LatentShardsConfig
from video_mirai.data.loader import collate_clips
from video_mirai.data.scenes import Scenes, ScenesConfig
from video_mirai.data.video_folder import VideoFolder, VideoFolderConfig
from video_mirai.evaluation.probe_features import ClipBatch, FeatureReader, block_means
from video_mirai.models.codecs import Codec

PIXELS, POSITION, VELOCITY = "pixels", "position", "velocity"

DataSetConfig = VideoFolderConfig | ScenesConfig | LatentShardsConfig


@dataclass
class ProbeData:
    """Where clips come from: one of the three, or none for the checkpoint's own training data."""

    video_folder: VideoFolderConfig | None = None
    scenes: ScenesConfig | None = None
    latent_shards: LatentShardsConfig | None = None

    def named(self) -> DataSetConfig | None:
        """The one that is given; ValueError for several."""
        given = {name: config for name, config in vars(self).items() if config is not None}
        if len(given) > 1:
            raise ValueError(f"{' and '.join(f'data.{name}' for name in given)} are both given; choose one.")
        return next(iter(given.values()), None)


class Splits(NamedTuple):
    """Numbers of the clips of each part; no video has clips in two."""

    train: list[int]
    val: list[int]
    test: list[int]


class ProbeClips(NamedTuple):
    """An open data set, the video that each of its clips was cut from, and how clips are split."""

    dataset: VideoFolder | Scenes | LatentShards
    videos: list[str]
    splits: Splits


class Target(NamedTuple):
    """Something to predict. shape: of one frame's values, (H, W, 3) or (numbers,)."""

    key: str
    unit: str
    shape: tuple[int, ...]


class Collected(NamedTuple):
    """What the readouts see of all clips, in the order of their numbers.

    features: by reader, (clips, R, d). targets: by key, (clips, F, m), for every latent frame of a clip. kept:
    (clips, R), rows that count. picture_shape: of a frame in targets["pixels"], (H, W, 3).
    """

    features: dict[str, NDArray[np.float32]]
    targets: dict[str, NDArray[np.float32]]
    kept: NDArray[np.bool_]
    picture_shape: tuple[int, int, int]


class ShownFrame(NamedTuple):
    """A test frame that the report shows. row: its number among the test rows."""

    clip: int
    frame: int
    row: int


def open_clips(
    data: DataSetConfig,
    split: str,
    num_frames: int,
    num_clips: int,
    shares: tuple[float, float],
    seed: int,
    codec: Codec,
) -> ProbeClips:
    """Clips of one split of a data set, at most num_clips of them, split again by video.

    Args:
        num_frames: of a clip, latent frames.
        shares: of the videos, for validation and for testing.

    Raises:
        ValueError: too few videos, videos that are too short, an unreadable file, latents of another codec.
    """
    if isinstance(data, LatentShardsConfig):
        shards = LatentShards(**vars(dataclasses.replace(data, num_frames=num_frames, split=split, on_bad="raise")))
        shards.require_codec(codec.fingerprint())
        dataset: VideoFolder | Scenes | LatentShards = shards
    elif isinstance(data, ScenesConfig):
        frames = codec.num_pixel_frames(num_frames)
        dataset = Scenes(**vars(dataclasses.replace(data, num_frames=frames, split=split, num_clips=num_clips)))
    else:
        frames = codec.num_pixel_frames(num_frames)
        dataset = VideoFolder(**vars(dataclasses.replace(data, num_frames=frames, split=split, on_bad="raise")))
    count = min(num_clips, len(dataset))
    videos = [str(n) if isinstance(dataset, Scenes) else dataset.clip_name(n) for n in range(count)]
    return ProbeClips(dataset, videos, split_by_video(videos, shares, seed))


def split_by_video(videos: Sequence[Hashable], shares: tuple[float, float], seed: int) -> Splits:
    """Whole videos in a seeded order: test, then validation, the rest to train on.

    Args:
        videos: every clip's.
        shares: of the videos, for validation and for testing.

    Raises:
        ValueError: fewer than two videos to test on, or none for one of the other parts.
    """
    names = list(dict.fromkeys(videos))
    order = [names[i] for i in np.random.default_rng(seed).permutation(len(names))]
    num_val, num_test = (round(share * len(names)) for share in shares)
    if num_test < 2 or num_val < 1 or len(names) - num_test - num_val < 1:
        raise ValueError(
            f"{len(names)} videos leave {num_test} to test on, {num_val} to choose with and "
            f"{len(names) - num_test - num_val} to fit on; at least 2, 1 and 1 are needed: give more videos "
            f"(num_clips, data, split) or other shares (val_share, test_share)."
        )
    parts = {name: 2 if i < num_test else 1 if i < num_test + num_val else 0 for i, name in enumerate(order)}
    return Splits(*([clip for clip, video in enumerate(videos) if parts[video] == part] for part in range(3)))


def read_batch(clips: ProbeClips, numbers: list[int], codec: Codec) -> tuple[ClipBatch, dict[str, torch.Tensor]]:
    """The clips of the given numbers, and what is known of their state. Encoded ones are shown as they decode."""
    batch = collate_clips([clips.dataset[number] for number in numbers])
    if "latents" not in batch:
        return ClipBatch(numbers, batch["video"], None), batch.get("state", {})
    parameter = next(codec.parameters(), None)
    device = torch.device("cpu") if parameter is None else parameter.device
    with torch.no_grad():
        video = codec.decode(batch["latents"].to(device)).cpu()
    return ClipBatch(numbers, video, batch["latents"]), {}


def collect(
    clips: ProbeClips,
    readers: Mapping[str, FeatureReader],
    frames: Sequence[int],
    codec: Codec,
    batch_clips: int,
    picture_size: int,
    *,
    min_hidden_frames: int = 0,
) -> Collected:
    """Reads every clip once with every reader.

    Args:
        frames: latent frames that the readers read, one a row.
        min_hidden_frames: pixel frames; only rows in whose frame a sprite is hidden, and has been for so many, count.
            0 = all rows; 1 = hidden, seen before or not.
    """
    features: dict[str, list[NDArray[np.float32]]] = {name: [] for name in readers}
    targets: dict[str, list[NDArray[np.float32]]] = {}
    kept = np.ones((len(clips.videos), len(frames)), dtype=bool)
    shape = (0, 0, 3)
    count = len(clips.videos)
    for start in range(0, count, batch_clips):
        batch, state = read_batch(clips, list(range(start, min(start + batch_clips, count))), codec)
        for name, reader in readers.items():
            features[name].append(reader(batch).float().cpu().numpy())
        pictures = shown_pictures(batch.video, codec.temporal_factor, picture_size)
        shape = (pictures.shape[2], pictures.shape[3], 3)
        if min_hidden_frames:
            hidden = hidden_frames(state, codec.temporal_factor, min_hidden_frames)
            kept[batch.numbers] = hidden[:, list(frames)]
        for key, values in ({PIXELS: pictures} | state_targets(state, codec.temporal_factor)).items():
            targets.setdefault(key, []).append(values.reshape(*values.shape[:2], -1))
    return Collected(
        {name: np.concatenate(parts) for name, parts in features.items()},
        {key: np.concatenate(parts) for key, parts in targets.items()},
        kept,
        shape,
    )


def shown_pictures(video: torch.Tensor, frame_stride: int, picture_size: int) -> NDArray[np.float32]:
    """The picture of every latent frame, its last pixel frame: (B, F, h, w, 3) in [0, 1], sides at most picture_size.

    Larger pictures become the means of equal square blocks.
    """
    shown = video[:, ::frame_stride]
    side = -(-max(shown.shape[-2:]) // picture_size)
    return rearrange((block_means(shown, side) + 1) / 2, "b f c h w -> b f h w c").clamp(0, 1).cpu().numpy()


def hidden_frames(state: Mapping[str, torch.Tensor], frame_stride: int, min_frames: int) -> NDArray[np.bool_]:
    """(B, F): whether some sprite is hidden in a latent frame's last pixel frame, and in so many pixel frames up to it.

    Above 1 it must have been in sight before, or there would be nothing to remember.

    Raises:
        ValueError: no state is known.
    """
    if not state:
        raise ValueError("rows other than all need scenes, whose sprites' visibility is known; choose rows=all.")
    hidden = ~state["visible"].numpy()  # (B, T, K)
    count = np.arange(1, hidden.shape[1] + 1)[None, :, None]
    last_seen = np.maximum.accumulate(np.where(hidden, 0, count), axis=1)
    kept = (count - last_seen >= min_frames) & ((last_seen > 0) | (min_frames == 1))
    return np.asarray(kept.any(axis=2))[:, ::frame_stride]


def state_targets(state: Mapping[str, torch.Tensor], frame_stride: int) -> dict[str, NDArray[np.float32]]:
    """Position and velocity of every latent frame's last pixel frame, each (B, F, K, 2); nothing where none is known.

    Sprites come in the order of their identities, which a picture shows; that of the data set it does not.
    """
    if not state:
        return {}
    order = state["identity"].argsort(dim=1)[:, None, :, None]  # (B, 1, K, 1)
    return {
        key: state[key].take_along_dim(order, dim=2)[:, ::frame_stride].float().numpy() for key in (POSITION, VELOCITY)
    }


def shown_frames(
    clips: ProbeClips, kept: NDArray[np.bool_], frames: Sequence[int], num_videos: int
) -> list[ShownFrame]:
    """Of the first test videos that have rows, one clip each: the middle one of its rows."""
    shown: dict[str, ShownFrame] = {}
    row = 0
    for clip in clips.splits.test:
        rows = np.flatnonzero(kept[clip])
        if len(rows):
            middle = len(rows) // 2
            shown.setdefault(clips.videos[clip], ShownFrame(clip, frames[rows[middle]], row + middle))
        row += len(rows)
    return list(shown.values())[:num_videos]
