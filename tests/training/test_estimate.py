"""Costs are counted, so they can be checked against a counter."""

from pathlib import Path

import pytest
import torch
from tiny_models import TEXT_DIM, TOKENS_PER_FRAME, random_context, random_latents, tiny_model
from tiny_training import REPOSITORY, tiny_config
from torch.utils.flop_counter import FlopCounterMode

from video_mirai import build
from video_mirai.models.causal_dit import CausalVideoDiT
from video_mirai.models.codecs import PixelsCodec
from video_mirai.models.pixel_teachers import PixelTeacher
from video_mirai.models.predictor import ForesightPredictor
from video_mirai.sampling.guidance import GuidanceConfig
from video_mirai.sampling.rollout import RolloutSettings, rollout
from video_mirai.sampling.state import RolloutState
from video_mirai.training.estimate import (
    ClipSize,
    StepEstimate,
    estimate_step,
    forward_flops,
    predictor_flops,
    readable,
    rollout_cost,
    size_of,
    teacher_flops,
)


@pytest.mark.parametrize("text_dim", [None, 24])
def test_forward_flops_are_those_that_torch_counts(text_dim: int | None) -> None:
    with torch.device("meta"):
        model = CausalVideoDiT(
            patch_size=(1, 2, 2),
            num_attention_heads=2,
            attention_head_dim=16,
            in_channels=4,
            out_channels=4,
            text_dim=text_dim,
            freq_dim=32,
            ffn_dim=96,
            num_layers=3,
        )
        latents, sigmas = torch.zeros(1, 5, 4, 8, 8), torch.zeros(1, 5)
        context = None if text_dim is None else torch.zeros(1, 7, text_dim)
        with FlopCounterMode(display=False) as counter, torch.no_grad():
            model(latents, sigmas, context)
    ours = forward_flops(size_of(model), tokens=5 * 16, frames=5, context_tokens=0 if text_dim is None else 7)
    assert ours == counter.get_total_flops()


@pytest.mark.parametrize("text_dim", [None, TEXT_DIM])
@pytest.mark.parametrize(
    "changes",
    [
        {},
        {"solver": "heun", "fuse_commit": False},
        {"solver": "unipc", "guidance": GuidanceConfig(history_scale=2.0), "precision": "bf16"},
    ],
)
def test_rollout_flops_and_cache_bytes_are_those_of_a_rollout_whose_window_is_full(
    text_dim: int | None, changes: dict
) -> None:
    model = tiny_model(text_dim, attention_backend="matmul")  # torch does not count the fused kernel of CPUs
    settings = RolloutSettings(num_steps=3, chunk_frames=2, window_frames=3, sink_frames=1, **changes)
    context = None if text_dim is None else random_context(1)
    state = RolloutState()
    chunks = rollout(model, random_latents(6, 1), settings, torch.Generator(), context=context, state=state)
    next(chunks)
    with FlopCounterMode(display=False) as counter:
        next(chunks)
    cost = rollout_cost(model, settings, TOKENS_PER_FRAME, 0 if context is None else context.shape[1])
    combining = 1e-4 if "guidance" in changes else 0  # the views' velocities: a product that is no network's
    assert cost.flops_per_frame == pytest.approx(counter.get_total_flops() / 2, rel=combining)
    assert state.cache is not None and cost.cache_bytes == state.cache.num_bytes


@pytest.mark.parametrize("kind", ["linear", "mlp", "blocks"])
def test_predictor_flops_are_those_that_torch_counts(kind: str) -> None:
    with torch.device("meta"):
        predictor = ForesightPredictor(32, 48, num_heads=2, num_blocks=2, kind=kind, num_targets=3)
        hidden = torch.zeros(1, 6 * 4, 32)
        with FlopCounterMode(display=False) as counter, torch.no_grad():
            predictor(hidden, 2, 2, 2)
    assert predictor_flops(predictor, tokens=24, chunk_tokens=8) == counter.get_total_flops()


def step_of(tmp_path: Path, *overrides: str) -> StepEstimate:
    """Of a run with foresight from the student's own average, as --dry-run counts it."""
    base = REPOSITORY / "configs" / "train" / "sources" / "scenes_tiny_ema.yaml"
    config = tiny_config(tmp_path, *overrides, base=base)
    plan = build.plan_run(config, torch.device("cpu"))
    clip = ClipSize(plan.shape.frames, plan.objective.student.tokens_per_frame(16, 16), 0)
    return estimate_step(plan.objective, plan.teacher, plan.codec, config.train, clip, num_processes=1)


def test_a_shuffled_future_costs_a_teacher_pass_for_every_chunk(tmp_path: Path) -> None:
    once, shuffled = step_of(tmp_path), step_of(tmp_path, "foresight.shuffle_future=true")
    assert shuffled.teacher_flops == 8 * once.teacher_flops > 0
    assert shuffled.student_flops == once.student_flops


def test_clean_states_are_those_of_one_chunk_less(tmp_path: Path) -> None:
    noisy, clean = step_of(tmp_path), step_of(tmp_path, "foresight.tap=clean")
    assert clean.predictor_flops == pytest.approx(7 / 8 * noisy.predictor_flops)


def test_the_average_as_a_teacher_holds_no_weights_of_its_own(tmp_path: Path) -> None:
    plain, with_it = step_of(tmp_path, "foresight=null"), step_of(tmp_path, "foresight.predictor=linear")
    assert with_it.state_bytes - plain.state_bytes == 4 * 4 * (2 * 32 + 6 * (32 * 32 + 32))  # the predictor's


def test_an_encoders_flops_grow_with_the_frames_that_it_is_given() -> None:
    encoders = pytest.importorskip("tiny_encoders", reason="needs the extra hf", exc_type=ImportError)
    flops = {}
    for family in ("dinov2", "videomae", "vjepa2"):
        with torch.device("meta"):
            teacher = PixelTeacher(encoders.tiny_encoder(family), 2, PixelsCodec(), lambda height, width: (4, 4))
        flops[family] = [teacher_flops(teacher, ClipSize(frames, 16, 0), PixelsCodec()) for frames in (4, 8)]
    assert flops["dinov2"][1] == 2 * flops["dinov2"][0] > 0
    assert flops["videomae"][1] == flops["videomae"][0] > 0, "it takes a fixed number of frames"
    assert flops["vjepa2"][1] > 2 * flops["vjepa2"][0] > 0, "attention over more time steps"


def test_readable_numbers_have_three_digits_and_a_unit() -> None:
    assert [readable(number) for number in (12, 1234, 1.234e9)] == ["12 ", "1.23 k", "1.23 G"]
