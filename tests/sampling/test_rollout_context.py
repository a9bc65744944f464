"""Rollouts with one context for each frame."""

import pytest
import torch
from tiny_models import TEXT_DIM, random_latents, tiny_model
from torch import Tensor

from video_mirai.sampling.rollout import RolloutSettings, rollout
from video_mirai.sampling.state import RolloutState

MODEL = tiny_model(TEXT_DIM)


def generate(context: Tensor, history_frames: int, num_chunks: int, state: RolloutState | None = None) -> Tensor:
    settings = RolloutSettings(num_steps=2, window_frames=20, chunk_frames=2)
    generator = torch.Generator().manual_seed(0)
    chunks = rollout(MODEL, random_latents(history_frames), settings, generator, context=context, state=state)
    return torch.cat([next(chunks) for _ in range(num_chunks)], dim=1)


def contexts(frames: int) -> Tensor:
    return torch.randn(2, frames, 3, TEXT_DIM, generator=torch.Generator().manual_seed(4))


def test_the_same_context_for_every_frame_equals_one_for_the_clip() -> None:
    context = contexts(1)
    repeated = generate(context.expand(-1, 9, -1, -1), history_frames=3, num_chunks=3)
    torch.testing.assert_close(repeated, generate(context[:, 0], history_frames=3, num_chunks=3))


@pytest.mark.parametrize("frame", [0, 4, 5, 8])
def test_a_frame_s_context_changes_its_own_chunk_and_no_earlier_one(frame: int) -> None:
    context = contexts(9)
    changed = context.clone()
    changed[:, frame] += 1
    before, after = (generate(given, history_frames=3, num_chunks=3) for given in (context, changed))
    differs = (before != after).flatten(2).any(-1).any(0)  # (6,) generated frames, numbers 3 to 8
    first = max(0, (frame - 3) // 2 * 2)
    assert differs.tolist() == [number >= first for number in range(6)]


def test_a_rollout_that_outlasts_its_contexts_says_how_many_there_are() -> None:
    with pytest.raises(ValueError, match="given for 8 frames, but frame 9 is to be generated"):
        generate(contexts(8), history_frames=3, num_chunks=3)


def test_a_state_goes_on_with_the_contexts_of_what_is_new() -> None:
    context, state = contexts(9), RolloutState()
    settings = RolloutSettings(num_steps=2, window_frames=20)
    generator = torch.Generator().manual_seed(0)
    stream = rollout(MODEL, random_latents(3), settings, generator, context=context)
    whole = torch.cat([next(stream) for _ in range(6)], dim=1)
    generator = torch.Generator().manual_seed(0)
    first = rollout(MODEL, random_latents(3), settings, generator, context=context[:, :5], state=state)
    parts = [next(first) for _ in range(2)]
    rest = rollout(MODEL, random_latents(0), settings, generator, context=context[:, 5:], state=state)
    parts += [next(rest) for _ in range(4)]
    assert torch.equal(torch.cat(parts, dim=1), whole)
