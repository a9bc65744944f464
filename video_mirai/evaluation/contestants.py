"""The models of an evaluation, the names of its rows, and the processes that share its work."""

import hashlib
import re
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any, NamedTuple

import torch

from video_mirai.models.causal_dit import CausalVideoDiT
from video_mirai.models.codecs import Codec
from video_mirai.sampling.rollout import RolloutSettings

TRUTH, OTHERS = "truth", "real"
COPY_ROW, REAL_ROW, CODEC_ROW = "copy-last-frame", "real vs real", "codec"
VELOCITY_ROW, READER_ROW = "constant velocity", "reader on the truth"
RESERVED = (TRUTH, OTHERS, COPY_ROW, REAL_ROW, CODEC_ROW)


@dataclass(frozen=True)
class Contestant:
    """A model to evaluate.

    Attributes:
        path: as the user named it. training_frames: length of its training clips, pixel frames. training_seed: of it.
    """

    path: str
    model: CausalVideoDiT
    codec: Codec
    rollout: RolloutSettings
    training_frames: int
    training_seed: int | None = None


class Processes(NamedTuple):
    """The processes that share the work. gather: concatenates a list over all of them, in any order."""

    rank: int
    num_processes: int
    wait: Callable[[], None]
    gather: Callable[[list[Any]], list[Any]]

    @property
    def is_main(self) -> bool:
        return self.rank == 0


def check_names(models: dict[str, str], prefix: str = "models.") -> None:
    """ValueError unless there are models and their names can be folder names. prefix: how the user wrote them."""
    if not models:
        raise ValueError("no models to evaluate; name some: models.baseline=RUN models.foresight=RUN.")
    for name in models:
        if name in RESERVED or not re.fullmatch(r"[\w.+-]+", name):
            raise ValueError(
                f"{prefix}{name}: choose a name of letters, digits, '_', '.', '+' and '-', none of {RESERVED}."
            )


def weights_sha256(model: torch.nn.Module) -> str:
    """sha256 over the names and bytes of all parameters and buffers."""
    digest = hashlib.sha256()
    for name, tensor in sorted(model.state_dict().items()):
        digest.update(name.encode())
        digest.update(tensor.detach().float().cpu().contiguous().numpy().tobytes())
    return digest.hexdigest()
