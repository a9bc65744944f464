import copy
import gc
import weakref
from itertools import islice

import pytest
import torch
from tiny_models import TEXT_DIM, TOKENS_PER_FRAME, random_context, random_latents, tiny_model
from torch import Tensor

from video_mirai.models import compiled_pass
from video_mirai.models.compiled_pass import MOST_KINDS
from video_mirai.sampling.rollout import RolloutSettings, rollout
from video_mirai.sampling.state import RolloutState

SETTINGS = {"num_steps": 2, "window_frames": 3, "sink_frames": 1}


def generate(model, settings: RolloutSettings, num_chunks: int, context: Tensor | None = None) -> Tensor:
    generator = torch.Generator().manual_seed(0)
    chunks = rollout(model, random_latents(2), settings, generator, context=context)
    return torch.cat(list(islice(chunks, num_chunks)), dim=1)


def relative_error(frames: Tensor, expected: Tensor) -> float:
    return float((frames - expected).abs().max() / expected.abs().max())


@pytest.fixture
def kinds(monkeypatch) -> list[int]:
    """Tokens of every pass that would be compiled; the function itself runs in place of its code."""
    tokens = []

    def not_compiled(module, passed):
        tokens.append(passed[1].shape[1])
        return module

    monkeypatch.setattr(compiled_pass, "_compile", not_compiled)
    return tokens


@pytest.mark.slow
def test_compiled_code_gives_the_same_frames_and_follows_the_weights():
    model, context = tiny_model(TEXT_DIM), random_context()
    for _ in range(2):
        eager, compiled = (
            generate(model, RolloutSettings(**SETTINGS, compile=with_it), 9, context) for with_it in (False, True)
        )
        assert relative_error(compiled, eager) < 1e-5
        with torch.no_grad():
            model.blocks[0].ffn.net[2].weight.mul_(2)
    assert len(model.compiled_passes()._compiled) == 2
    # Nothing in the code holds on to the model.
    weight = weakref.ref(model.blocks[0].ffn.net[2].weight)
    del model
    gc.collect()
    assert weight() is None


@pytest.mark.parametrize("backend", ["native", "matmul", "flex"])
@pytest.mark.parametrize(
    "options", [{"chunk_frames": 2}, {"sink_frames": 0, "solver": "heun"}, {"precision": "bf16"}, {"window_frames": 0}]
)
def test_a_compiled_rollout_is_the_same_and_has_two_kinds_of_passes_for_any_horizon(options, backend, kinds):
    model, context = tiny_model(TEXT_DIM, attention_backend=backend), random_context()
    settings = SETTINGS | options
    eager, compiled = (
        generate(model, RolloutSettings(**settings, compile=with_it), 9, context) for with_it in (False, True)
    )
    assert sorted(kinds) == [count * TOKENS_PER_FRAME * settings.get("chunk_frames", 1) for count in (1, 2)]
    assert relative_error(compiled, eager) < (1e-2 if "precision" in options else 1e-5)


def test_nothing_is_compiled_before_the_window_is_full(kinds):
    generate(tiny_model(), RolloutSettings(num_steps=2, window_frames=9, compile=True), 4)
    assert kinds == []


def test_a_rollout_that_is_not_to_be_compiled_is_not_after_one_that_was(kinds):
    model = tiny_model()
    generate(model, RolloutSettings(**SETTINGS, compile=True), 6)
    before = len(kinds)
    state = RolloutState()
    chunks = rollout(model, random_latents(2)[:1], RolloutSettings(**SETTINGS), torch.Generator(), state=state)
    assert len(list(islice(chunks, 6))) == 6
    assert len(kinds) == before and state.cache is not None and state.cache.compiled is None


def test_weights_that_were_replaced_count(kinds):
    model, other = tiny_model(), tiny_model()
    with torch.no_grad():
        for parameter in other.parameters():
            parameter.mul_(1.1)
    generate(model, RolloutSettings(**SETTINGS, compile=True), 6)
    model.load_state_dict(other.state_dict(), assign=True)
    frames = generate(model, RolloutSettings(**SETTINGS, compile=True), 6)
    assert len(kinds) == 2
    assert relative_error(frames, generate(other, RolloutSettings(**SETTINGS), 6)) < 1e-5


def test_more_kinds_than_are_worth_compiling_run_uncompiled(kinds):
    model, generator = tiny_model(TEXT_DIM), torch.Generator().manual_seed(0)

    def context(start: int, count: int) -> Tensor:
        return random_context()[:, : 1 + start % 3].repeat(1, 1 + start // 3, 1)

    chunks = rollout(
        model,
        random_latents(0),
        RolloutSettings(num_steps=2, window_frames=1, compile=True),
        generator,
        context=context,
    )
    assert len(list(islice(chunks, 20))) == 20
    assert len(kinds) == MOST_KINDS


def test_a_copied_model_compiles_its_own_passes(kinds):
    model = tiny_model()
    generate(model, RolloutSettings(**SETTINGS, compile=True), 6)
    assert copy.deepcopy(model)._compiled is None


def test_without_a_compiler_it_is_said_at_the_start(monkeypatch):
    monkeypatch.setenv("CXX", "no-such-compiler")
    with pytest.raises(ValueError, match="needs a C\\+\\+ compiler, and there is no no-such-compiler"):
        generate(tiny_model(), RolloutSettings(num_steps=2, window_frames=2, compile=True), 1)
