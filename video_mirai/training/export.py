"""What leaves a training run: the averaged student, its codec and its config; no predictor, no teacher."""

import json
import shutil
from collections.abc import Mapping
from pathlib import Path
from typing import Any, NamedTuple

from torch import Tensor

from video_mirai.models.causal_dit import CausalVideoDiT
from video_mirai.models.codecs import Codec

EXPORT = "export"
TRANSFORMER = "transformer"
CODEC = "codec"
CONFIG_FILE = "run.yaml"
CLIPS_FILE = "clips.json"


class ClipFormat(NamedTuple):
    """Size in pixels and frame rate of the video that a model was trained on, known without its data."""

    height: int
    width: int
    fps: float


def write_export(
    run_dir: Path,
    model_config: Mapping[str, Any],
    weights: dict[str, Tensor],
    codec: Codec,
    clips: ClipFormat,
    config_yaml: str,
    model_card: str,
) -> Path:
    """Write `run_dir`/export, replacing an older one only when the new one is whole.

    Args:
        model_config: CausalVideoDiT's, as its `.config`.
        weights: {parameter name: tensor}, every one of the model's.
    """
    final, unfinished = run_dir / EXPORT, run_dir / f"{EXPORT}_unfinished"
    shutil.rmtree(unfinished, ignore_errors=True)
    unfinished.mkdir(parents=True)
    model = CausalVideoDiT.from_config(dict(model_config))
    model.load_state_dict(weights)
    model.save_pretrained(unfinished / TRANSFORMER)
    codec.save_pretrained(unfinished / CODEC)
    (unfinished / CLIPS_FILE).write_text(json.dumps(clips._asdict()) + "\n")
    (unfinished / CONFIG_FILE).write_text(config_yaml)
    (unfinished / "MODEL_CARD.md").write_text(model_card)
    shutil.rmtree(final, ignore_errors=True)
    unfinished.rename(final)
    return final


def read_clip_format(export: Path) -> ClipFormat:
    """What `write_export` wrote about the clips."""
    return ClipFormat(**json.loads((export / CLIPS_FILE).read_text()))


def find_export(path: Path) -> Path:
    """The export folder of a run folder, or the folder itself where it is an export.

    Raises:
        FileNotFoundError: names what is missing.
    """
    if not path.is_dir():
        raise FileNotFoundError(f"checkpoint folder {path} does not exist.")
    folder = path if (path / TRANSFORMER).is_dir() else path / EXPORT
    if not folder.is_dir():
        raise FileNotFoundError(
            f"{path} has no {EXPORT}/ folder; finish its training, or export what there is with scripts/export.py."
        )
    for needed in (f"{TRANSFORMER}/config.json", CODEC, CLIPS_FILE, CONFIG_FILE):
        if not (folder / needed).exists():
            raise FileNotFoundError(f"{folder} is no complete export: {needed} is missing.")
    return folder
