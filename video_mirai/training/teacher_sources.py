"""Foresight teachers from their settings, on the meta device (to check and count) or for real."""

from collections.abc import Callable
from pathlib import Path
from typing import NamedTuple

import torch

from video_mirai.models.causal_dit import CausalVideoDiT
from video_mirai.models.codecs import Codec
from video_mirai.models.pixel_teachers import PixelTeacher, load_encoder
from video_mirai.models.teachers import AverageTeacher, DiTTeacher, TeacherConfig, TeacherEncoder, Visibility
from video_mirai.objectives.flow_matching import ObjectiveConfig


class TeacherOrigin(NamedTuple):
    """What a teacher is made of.

    folder: the checkpoint's transformer folder, for kinds that are a CausalVideoDiT with a checkpoint.
    trained_as: the objective that it was trained with, where the checkpoint says so.
    student, objective: of the run; the student may be on the meta device.
    """

    settings: TeacherConfig
    folder: Path | None
    trained_as: ObjectiveConfig | None
    student: CausalVideoDiT
    objective: ObjectiveConfig
    codec: Codec


class Placing(NamedTuple):
    """Where a teacher's network is built, its precision, and the generator of the noise that it reads through."""

    device: torch.device
    dtype: torch.dtype
    generator: torch.Generator | None


def build_teacher(origin: TeacherOrigin, placing: Placing) -> TeacherEncoder:
    """The teacher that the settings name; on the meta device no weights are read.

    Raises:
        FileNotFoundError, ValueError: one line that names the setting at fault.
    """
    kind = origin.settings.kind
    if kind not in TEACHERS:
        raise ValueError(f"foresight.teacher.kind={kind!r} is unknown; known: {', '.join(TEACHERS)}.")
    return TEACHERS[kind](origin, placing)


def _non_causal_dit(origin: TeacherOrigin, placing: Placing) -> TeacherEncoder:
    _refuse_image_size(origin.settings)
    trained_as = origin.trained_as
    if trained_as is not None and trained_as.kind != "bidirectional":
        raise ValueError(
            f"the teacher {origin.settings.checkpoint} was trained causally ({trained_as.kind}); read without its mask "
            f"it sees what it never saw: foresight.teacher.kind=causal_dit."
        )
    return DiTTeacher(_load_dit(origin, placing), origin.settings.layer, origin.settings.sigma, placing.generator)


def _causal_dit(origin: TeacherOrigin, placing: Placing) -> TeacherEncoder:
    _refuse_image_size(origin.settings)
    settings, trained_as = origin.settings, origin.trained_as
    if trained_as is None or trained_as.kind == "bidirectional":
        how = "says not how it was trained" if trained_as is None else "was trained with objective.kind=bidirectional"
        raise ValueError(
            f"foresight.teacher.kind=causal_dit: {settings.checkpoint} {how}; it takes the run of a causal model."
        )
    if trained_as.chunk_frames != origin.objective.chunk_frames:
        raise ValueError(
            f"the teacher {settings.checkpoint} was trained on chunks of {trained_as.chunk_frames} frames, this run's "
            f"objective.chunk_frames is {origin.objective.chunk_frames}."
        )
    network = _load_dit(origin, placing)
    return DiTTeacher(network, settings.layer, settings.sigma, placing.generator, _visibility(trained_as))


def _average(origin: TeacherOrigin, placing: Placing) -> TeacherEncoder:
    """Its weights are the trainer's, which gives them when it is made (`AverageTeacher.follow`)."""
    settings = origin.settings
    _refuse_image_size(settings)
    if settings.checkpoint or settings.untrained:
        raise ValueError(
            "foresight.teacher.kind=ema reads the student's own average: leave checkpoint empty and untrained false."
        )
    with torch.device("meta"):
        network = CausalVideoDiT.from_config(origin.student.config)
    return AverageTeacher(network, settings.layer, settings.sigma, placing.generator, _visibility(origin.objective))


def _encoder(origin: TeacherOrigin, placing: Placing) -> TeacherEncoder:
    settings = origin.settings
    _require_checkpoint(settings, "name a folder or hub id of an encoder.")
    if settings.sigma:
        raise ValueError(f"foresight.teacher.sigma={settings.sigma}: an encoder reads clean pixels; set it to 0.")
    network = load_encoder(
        settings.checkpoint, settings.image_size, placing.device, placing.dtype, untrained=settings.untrained
    )
    return PixelTeacher(network, settings.layer, origin.codec, origin.student.grid)


TEACHERS: dict[str, Callable[[TeacherOrigin, Placing], TeacherEncoder]] = {
    "dit": _non_causal_dit,
    "causal_dit": _causal_dit,
    "ema": _average,
    "encoder": _encoder,
}


def _load_dit(origin: TeacherOrigin, placing: Placing) -> CausalVideoDiT:
    _require_checkpoint(origin.settings, "name a trained teacher's run folder.")
    assert origin.folder is not None
    if origin.settings.untrained or placing.device.type == "meta":
        with torch.device("meta" if placing.device.type == "meta" else "cpu"):  # the same weights on every device
            return CausalVideoDiT.from_config(CausalVideoDiT.load_config(origin.folder)).to(placing.device)
    return CausalVideoDiT.from_pretrained(origin.folder, torch_dtype=placing.dtype).to(placing.device)


def _visibility(objective: ObjectiveConfig) -> Visibility:
    return Visibility(objective.chunk_frames, objective.window_frames, objective.sink_frames)


def _require_checkpoint(settings: TeacherConfig, advice: str) -> None:
    if not settings.checkpoint:
        raise ValueError(f"foresight.teacher.checkpoint: no value given; {advice}")


def _refuse_image_size(settings: TeacherConfig) -> None:
    if settings.image_size is not None:
        raise ValueError(
            f"foresight.teacher.image_size={settings.image_size}: a {settings.kind!r} reads latents; only an encoder "
            f"reads pictures of a size."
        )
