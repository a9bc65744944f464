"""Readouts as pictures: current frame, readouts, true future, and the mean of several rollouts beside them."""

import math
from itertools import chain
from typing import NamedTuple

import numpy as np
import torch
from numpy.typing import NDArray

from video_mirai.evaluation.generation import clip_generator
from video_mirai.evaluation.probe_data import PIXELS, read_batch, shown_pictures
from video_mirai.evaluation.probe_result import BASELINE, CHECKPOINT
from video_mirai.evaluation.probe_run import Probe, ProbedModel
from video_mirai.media import side_by_side
from video_mirai.sampling.rollout import rollout

# Columns are enlarged to about so many pixels, which their labels need.
COLUMN_PIXELS = 112
# Keeps the noise of rollouts apart from that of the states that were read.
ROLLOUT_CLIPS = 1_000_000


class Picture(NamedTuple):
    """One test video: a row for each offset. image: (H, W, 3) uint8."""

    clip: int
    video: str
    frame: int
    image: NDArray[np.uint8]


def make_pictures(probe: Probe) -> list[Picture]:
    """One for each shown frame."""
    offsets = probe.config.offsets
    pictures = []
    for place, (clip, frame, _) in enumerate(probe.shown_frames):
        true = probe.collected.targets[PIXELS][clip].reshape(-1, *probe.collected.picture_shape)
        columns = {"now": np.stack([true[frame]] * len(offsets))}
        for name in (BASELINE, CHECKPOINT):
            if name in probe.shown:
                rows = [probe.shown[name][offset][place] for offset in offsets]
                columns[f"readout {name}"] = np.stack(rows).reshape(-1, *probe.collected.picture_shape)
        columns["true future"] = np.stack([true[frame + offset] for offset in offsets])
        if probe.config.picture_rollouts and max(offsets):
            for name in (BASELINE, CHECKPOINT):
                if name in probe.models:
                    columns[f"rollouts {name}"] = _rollouts(probe, probe.models[name], clip, frame)
        pictures.append(Picture(clip, probe.clips.videos[clip], frame, _tiled(columns)))
    return pictures


def _rollouts(probe: Probe, of: ProbedModel, clip: int, frame: int) -> NDArray[np.float32]:
    """(offsets, h, w, 3): mean of several rollouts from the true frames up to `frame`; at offset 0 the frame itself."""
    config = probe.config
    batch, _ = read_batch(probe.clips, [clip], of.codec)
    mean = mean_rollout(
        of, batch.video, batch.latents, frame, max(config.offsets), config.picture_rollouts, config.seed, clip
    )
    shown = shown_pictures(mean, of.codec.temporal_factor, config.picture_size)[0]
    return np.stack([shown[frame + offset] for offset in config.offsets])


@torch.no_grad()
def mean_rollout(
    of: ProbedModel,
    video: torch.Tensor,
    latents: torch.Tensor | None,
    frame: int,
    num_frames: int,
    num_rollouts: int,
    seed: int,
    clip: int,
) -> torch.Tensor:
    """(1, T, 3, H, W): mean of decoded rollouts, history included; what there is after `frame` is generated.

    Args:
        video, latents: of one clip; the video is encoded where there are no latents.
        num_frames: latent frames to generate.
    """
    device = of.model.device
    history = of.codec.encode(video.to(device)) if latents is None else latents.to(device)
    history = history[:, : frame + 1].expand(num_rollouts, -1, -1, -1, -1)
    generators = [clip_generator(seed, ROLLOUT_CLIPS * (number + 1) + clip, device) for number in range(num_rollouts)]
    chunks = rollout(of.model, history, of.rollout, generators)
    wanted = [next(chunks) for _ in range(math.ceil(num_frames / of.rollout.chunk_frames))]
    decoded = torch.cat(list(of.codec.decode_stream(chain([history], wanted))), dim=1)
    return decoded.mean(dim=0, keepdim=True).cpu()


def _tiled(columns: dict[str, NDArray[np.floating]]) -> NDArray[np.uint8]:
    """Labelled columns, rows from the first offset down."""
    videos = [np.round(255 * np.clip(column, 0, 1)).astype(np.uint8) for column in columns.values()]
    scale = max(1, COLUMN_PIXELS // videos[0].shape[2])
    rows = side_by_side(videos, list(columns), scale)
    return np.concatenate(list(rows))
