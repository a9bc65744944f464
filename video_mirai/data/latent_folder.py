"""Clips of latents that a codec has encoded beforehand: one safetensors file per source video.

`data_tools/encode_latents.py` writes them. Crops are read through a memory map, so a file costs what its crop costs.
"""

from __future__ import annotations

import logging
import os
from dataclasses import asdict, dataclass, fields
from pathlib import Path

import numpy as np
from safetensors import SafetensorError, safe_open
from safetensors.torch import save_file
from torch import Tensor
from torch.utils.data import Dataset

from video_mirai.data.batch import ClipKey, VideoSample
from video_mirai.data.video_folder import RATE_TOLERANCE, SPLITS
from video_mirai.data.video_list import split_of

logger = logging.getLogger(__name__)

SUFFIX = ".safetensors"
TENSOR = "latents"


@dataclass(frozen=True)
class LatentHeader:
    """What a latent file says about itself; see `conflict` for what must agree in a folder.

    codec: fingerprint of the codec. fps, height, width: of the video that was encoded, after resampling and resizing.
    name: the source's path relative to its root, which decides the split. source_bytes: its size. num_frames: latent
    frames. segment_frames: 0 where every latent frame belongs to one video frame; else the file is a row of segments of
    so many latent frames, each encoded for itself, and clips start where segments do. resampled: whether fps was asked
    for.
    """

    codec: str
    fps: float
    height: int
    width: int
    name: str
    source_bytes: int
    num_frames: int
    segment_frames: int
    resampled: bool

    def conflict(self, other: LatentHeader) -> str | None:
        """The first thing in which files of one folder must agree and these don't."""
        for name in ("codec", "height", "width", "segment_frames"):
            if asdict(self)[name] != asdict(other)[name]:
                return name
        return "fps" if abs(self.fps / other.fps - 1) > RATE_TOLERANCE else None


@dataclass
class LatentFolderConfig:
    """Which latents, and how clips are cut from them; as VideoFolderConfig, frames being latent frames.

    With the same seed and a codec that works frame by frame, clips and splits are those of the VideoFolder encoded.
    """

    root: str
    num_frames: int = 16
    split: str = "train"
    val_fraction: float = 0.1
    test_fraction: float = 0.1
    clips_per_video: int = 1
    seed: int = 0


class LatentFolder(Dataset[VideoSample]):
    """Map-style data set of clips: latents (F, C, h, w) float32, name (the source's relative path), index.

    codec, fps, height, width: of all files. The keyword arguments are LatentFolderConfig's. Files that are too short
    are left out, and said to be so. Raises FileNotFoundError for a missing root; ValueError for an empty one, an empty
    split, a file that is no latent file, and files that don't agree in codec, frame rate or size.
    """

    def __init__(
        self,
        root: str | Path,
        num_frames: int = LatentFolderConfig.num_frames,
        *,
        split: str = LatentFolderConfig.split,
        val_fraction: float = LatentFolderConfig.val_fraction,
        test_fraction: float = LatentFolderConfig.test_fraction,
        clips_per_video: int = LatentFolderConfig.clips_per_video,
        seed: int = LatentFolderConfig.seed,
    ) -> None:
        self.config = LatentFolderConfig(
            str(root), num_frames, split, val_fraction, test_fraction, clips_per_video, seed
        )
        check_config(self.config)
        headers = read_headers(Path(root))
        first = next(iter(headers.values()))
        self.codec, self.fps, self.height, self.width = first.codec, first.fps, first.height, first.width
        self.segment_frames = first.segment_frames
        if self.segment_frames and num_frames > self.segment_frames:
            raise ValueError(
                f"num_frames={num_frames} is more than the {self.segment_frames} latent frames that {root} was encoded "
                f"in at a time; encode it anew with a larger --clip-frames."
            )
        chosen = {
            path: header
            for path, header in headers.items()
            if split in ("all", split_of(header.name, seed, val_fraction, test_fraction))
        }
        self.files = {path: header for path, header in chosen.items() if self._num_starts(header) > 0}
        if len(self.files) < len(chosen):
            logger.warning("%s: %d of %d files are shorter than %d latent frames and left out", root,
                           len(chosen) - len(self.files), len(chosen), num_frames)  # fmt: skip
        if not self.files:
            raise ValueError(
                f"{root}: split {split!r} has no file of at least {num_frames} latent frames (of {len(headers)} files, "
                f"{len(chosen)} in this split)."
            )
        self._paths = list(self.files)

    def __len__(self) -> int:
        return len(self.files) * self.config.clips_per_video

    def __getitem__(self, key: int | ClipKey) -> VideoSample:
        epoch, index = key if isinstance(key, tuple) else (0, key)
        if not 0 <= index < len(self):
            raise IndexError(f"clip {index} is not in 0..{len(self) - 1}.")
        slot, file = divmod(index, len(self._paths))
        path = self._paths[file]
        header = self.files[path]
        num_starts = self._num_starts(header)
        if self.config.split in ("val", "test"):
            start = (2 * slot + 1) * num_starts // (2 * self.config.clips_per_video)
        else:
            start = int(np.random.default_rng([self.config.seed, epoch, index, 0]).integers(num_starts))
        start *= max(1, self.segment_frames)
        with safe_open(path, framework="pt") as file_map:
            latents = file_map.get_slice(TENSOR)[start : start + self.config.num_frames]
        return VideoSample(latents=latents.float(), name=header.name, index=index)

    def clip_name(self, index: int) -> str:
        """What the clip `index` is cut from, without reading it."""
        return self.files[self._paths[index % len(self._paths)]].name

    def require_codec(self, fingerprint: str) -> None:
        """ValueError unless these are the latents of the codec with this fingerprint."""
        if fingerprint != self.codec:
            raise ValueError(
                f"{self.config.root} was encoded by codec {self.codec[:12]}, but this run's codec is "
                f"{fingerprint[:12]}; encode the videos with this run's codec."
            )

    def _num_starts(self, header: LatentHeader) -> int:
        if self.segment_frames:
            return header.num_frames // self.segment_frames
        return max(0, header.num_frames - self.config.num_frames + 1)


def read_headers(root: Path) -> dict[Path, LatentHeader]:
    """Headers of all latent files below a folder, sorted by source name; ValueError where they don't go together."""
    if not root.is_dir():
        raise FileNotFoundError(f"{root}: no such folder of latents.")
    headers = {path: read_header(path) for path in root.rglob(f"*{SUFFIX}") if not path.name.startswith(".")}
    if not headers:
        raise ValueError(f"{root}: no latents in this folder; make some with data_tools/encode_latents.py.")
    headers = dict(sorted(headers.items(), key=lambda item: item[1].name))
    first_path, first = next(iter(headers.items()))
    for path, header in headers.items():
        if name := header.conflict(first):
            theirs, ours = asdict(header)[name], asdict(first)[name]
            raise ValueError(f"{path} has {name}={theirs}, but {first_path} has {ours}; these don't go together.")
    return headers


def read_header(path: Path) -> LatentHeader:
    """ValueError naming the file when it is damaged or no latent file."""
    try:
        with safe_open(path, framework="pt") as file_map:
            metadata = file_map.metadata() or {}
    except (SafetensorError, OSError) as error:
        raise ValueError(f"{path}: not a readable latent file ({error}).") from error
    missing = [field.name for field in fields(LatentHeader) if field.name not in metadata]
    if missing:
        raise ValueError(f"{path}: no latent file of this project; its header lacks {', '.join(missing)}.")
    return LatentHeader(
        codec=metadata["codec"],
        fps=float(metadata["fps"]),
        height=int(metadata["height"]),
        width=int(metadata["width"]),
        name=metadata["name"],
        source_bytes=int(metadata["source_bytes"]),
        num_frames=int(metadata["num_frames"]),
        segment_frames=int(metadata["segment_frames"]),
        resampled=metadata["resampled"] == "True",
    )


def write_latents(path: Path, latents: Tensor, header: LatentHeader) -> None:
    """Writes latents (F, C, h, w) at once: a file is there whole or not at all."""
    assert header.num_frames == len(latents), "header and latents disagree"
    path.parent.mkdir(parents=True, exist_ok=True)
    unfinished = path.with_name(f".{path.name}.unfinished")
    metadata = {name: str(value) for name, value in asdict(header).items()}
    save_file({TENSOR: latents.contiguous()}, unfinished, metadata)
    os.replace(unfinished, path)


def check_config(config: LatentFolderConfig) -> None:
    """Raises ValueError naming the first setting that cannot be."""
    for name, value in (("num_frames", config.num_frames), ("clips_per_video", config.clips_per_video)):
        if value < 1:
            raise ValueError(f"{name}={value} must be at least 1.")
    if config.seed < 0:
        raise ValueError(f"seed={config.seed} must not be negative.")
    if config.split not in SPLITS:
        raise ValueError(f"split={config.split!r} is unknown; known: {', '.join(SPLITS)}.")
    if min(config.val_fraction, config.test_fraction) < 0 or config.val_fraction + config.test_fraction >= 1:
        raise ValueError(
            f"val_fraction={config.val_fraction} and test_fraction={config.test_fraction} must not be negative and "
            f"must leave something to train on."
        )
