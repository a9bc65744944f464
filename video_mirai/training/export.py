"""What leaves a training run: the averaged student, its codec and its config; no predictor, no teacher."""

import json
import logging
import shutil
from collections.abc import Mapping
from dataclasses import asdict
from pathlib import Path
from typing import Any, NamedTuple

from torch import Tensor

from video_mirai.export_folder import CARD_FILE, CLIPS_FILE, CODEC, CONFIG_FILE, EXPORT, TRANSFORMER, ClipFormat
from video_mirai.models.causal_dit import CausalVideoDiT
from video_mirai.models.codecs import Codec
from video_mirai.pipeline import VideoMiraiPipeline
from video_mirai.training.export_proof import Baseline, prove_export
from video_mirai.training.model_card import CardFacts, render_card

logger = logging.getLogger(__name__)


class ExportParts(NamedTuple):
    """What goes into an export.

    model_config: CausalVideoDiT's, as its `.config`.
    weights: {parameter name: tensor}, every one of the model's.
    """

    model_config: Mapping[str, Any]
    weights: dict[str, Tensor]
    codec: Codec
    clips: ClipFormat
    config_yaml: str


def write_export(run_dir: Path, parts: ExportParts, baseline: Baseline, card: CardFacts) -> Path:
    """Write `run_dir`/export, replacing an older one only when the new one is whole and proven.

    Raises:
        ValueError: what was written does not cost what the baseline costs.
    """
    final, unfinished = run_dir / EXPORT, run_dir / f"{EXPORT}_unfinished"
    shutil.rmtree(unfinished, ignore_errors=True)
    unfinished.mkdir(parents=True)
    model = CausalVideoDiT.from_config(dict(parts.model_config))
    model.load_state_dict(parts.weights)
    if baseline.settings is not None:
        pipeline = VideoMiraiPipeline(model, parts.codec, asdict(baseline.settings), parts.clips._asdict())
        pipeline.save_pretrained(unfinished)
    else:
        model.save_pretrained(unfinished / TRANSFORMER)
        parts.codec.save_pretrained(unfinished / CODEC)
    (unfinished / CLIPS_FILE).write_text(json.dumps(parts.clips._asdict()) + "\n")
    (unfinished / CONFIG_FILE).write_text(parts.config_yaml)
    proof = prove_export(unfinished, baseline)
    for line in proof:
        logger.info("export: %s", line)
    (unfinished / CARD_FILE).write_text(render_card(card, proof))
    shutil.rmtree(final, ignore_errors=True)
    unfinished.rename(final)
    return final
