"""Whether foresight's settings fit the run: everything that can be wrong about them before the first step."""

import torch

from video_mirai.models.teachers import DiTTeacher, TeacherEncoder
from video_mirai.objectives.flow_matching import Objective
from video_mirai.objectives.foresight import ForesightConfig
from video_mirai.objectives.look_ahead import head_offsets
from video_mirai.ops.attention import check_backend
from video_mirai.training.checks import LatentShape


def check_foresight(objective: Objective, teacher: TeacherEncoder, shape: LatentShape, device: torch.device) -> None:
    """Objective and teacher may be on the meta device; `device` is the one that trains.

    Raises:
        ValueError: names the settings that do not fit.
    """
    foresight = objective.foresight
    assert foresight is not None
    student_grid = objective.student.grid(shape.height, shape.width)
    if isinstance(teacher, DiTTeacher):
        _check_dit(teacher, shape, device)
    teacher_grid = teacher.grid(shape.height, shape.width)
    if teacher_grid != student_grid:
        raise ValueError(
            f"token grids do not match: the teacher gives {_tokens(teacher_grid)} tokens per frame, the student "
            f"{_tokens(student_grid)}; give both the same patch_size."
        )
    num_chunks = shape.frames // objective.config.chunk_frames
    _check_objective(foresight, objective.config.kind, num_chunks)
    _check_offsets(foresight, num_chunks, student_grid)


def _check_dit(teacher: DiTTeacher, shape: LatentShape, device: torch.device) -> None:
    config = teacher.network.config
    check_backend(config.attention_backend, device, masked=teacher.visibility is not None, backward=False)
    if config.in_channels != shape.channels:
        raise ValueError(f"the teacher reads latents of {config.in_channels} channels, these have {shape.channels}.")
    if (config.text_dim is None) != (shape.context_tokens == 0):
        raise ValueError(
            f"the teacher has text_dim={config.text_dim}, but clips come "
            f"{'without' if shape.context_tokens == 0 else 'with'} context."
        )


def _check_objective(foresight: ForesightConfig, kind: str, num_chunks: int) -> None:
    if kind == "bidirectional":
        raise ValueError(
            "objective.kind=bidirectional sees the future itself, so foresight has nothing to teach it; "
            "set foresight=null or another objective."
        )
    if foresight.tap == "clean" and kind != "teacher_forcing":
        raise ValueError(f"foresight.tap=clean: objective.kind={kind} has no clean tokens; only teacher_forcing has.")
    if foresight.tap == "clean" and num_chunks < 2:
        raise ValueError("foresight.tap=clean: the last chunk of a clip has no clean tokens, and these clips have one.")


def _check_offsets(foresight: ForesightConfig, num_chunks: int, grid: tuple[int, int]) -> None:
    window = foresight.window
    if len(set(window)) < len(window):
        raise ValueError(f"foresight.window={window} names an offset twice.")
    if not window or max(window) >= num_chunks or min(window) < 0:
        raise ValueError(f"foresight.window={window} is longer than the clip: offsets go from 0 to {num_chunks - 1}.")
    rows, columns = grid
    for offset in head_offsets(tuple(window), foresight.neighbours):
        if abs(offset.rows) >= rows or abs(offset.columns) >= columns:
            raise ValueError(
                f"foresight.neighbours={foresight.neighbours} reaches beyond a grid of {rows} x {columns} tokens."
            )


def _tokens(grid: tuple[int, int]) -> int:
    return grid[0] * grid[1]
