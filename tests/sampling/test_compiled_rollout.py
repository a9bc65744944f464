import copy
from itertools import islice

import pytest
import torch
from tiny_models import TEXT_DIM, TOKENS_PER_FRAME, random_context, random_latents, tiny_model
from torch import Tensor

from video_mirai.models.compiled_pass import CompiledPasses
from video_mirai.sampling.rollout import RolloutSettings, rollout


def generate(model, settings: RolloutSettings, num_chunks: int, context: Tensor | None = None) -> Tensor:
    generator = torch.Generator().manual_seed(0)
    chunks = rollout(model, random_latents(2), settings, generator, context=context)
    return torch.cat(list(islice(chunks, num_chunks)), dim=1)


@pytest.fixture
def compilations(monkeypatch) -> list[int]:
    """Tokens of every pass that was compiled."""
    tokens = []
    from video_mirai.models import compiled_pass

    compile_pass = compiled_pass._compile

    def counted(blocks, passed):
        tokens.append(passed[0].shape[1])
        return compile_pass(blocks, passed)

    monkeypatch.setattr(compiled_pass, "_compile", counted)
    return tokens


@pytest.mark.slow
def test_a_compiled_rollout_is_the_same_and_compiles_two_passes_for_any_horizon(compilations):
    model, context = tiny_model(TEXT_DIM), random_context()
    eager, compiled = (
        generate(model, RolloutSettings(num_steps=2, window_frames=3, sink_frames=1, compile=with_it), 9, context)
        for with_it in (False, True)
    )
    assert (compiled - eager).abs().max() < 1e-5 * eager.abs().max()
    # A chunk alone, and one behind its predecessor, which is committed.
    assert compilations == [TOKENS_PER_FRAME, 2 * TOKENS_PER_FRAME]
    # The code refers to the weights: it follows them, and serves another rollout.
    with torch.no_grad():
        model.blocks[0].ffn.net[2].weight.mul_(2)
    settings = RolloutSettings(num_steps=2, window_frames=3, sink_frames=1, compile=True)
    changed = generate(model, settings, 9, context)
    assert len(compilations) == 2 and (changed - compiled).abs().max() > 1e-3
    model._compiled = None
    again = generate(model, RolloutSettings(num_steps=2, window_frames=3, sink_frames=1), 9, context)
    assert (changed - again).abs().max() < 1e-5 * again.abs().max()


@pytest.mark.parametrize("backend", ["native", "matmul"])
@pytest.mark.parametrize("options", [{"chunk_frames": 2, "window_frames": 3}, {"sink_frames": 1, "solver": "heun"}])
def test_a_compiled_rollout_passes_on_all_that_blocks_need(options, backend, monkeypatch):
    """With the function that would be compiled in place of its code."""
    monkeypatch.setattr("video_mirai.models.compiled_pass._compile", lambda blocks, passed: blocks)
    model, context = tiny_model(TEXT_DIM, attention_backend=backend), random_context()
    settings = {"num_steps": 2, "window_frames": 2, **options}
    eager, compiled = (
        generate(model, RolloutSettings(**settings, compile=with_it), 6, context) for with_it in (False, True)
    )
    assert len(model._compiled._compiled) == 2
    assert (compiled - eager).abs().max() < 1e-5 * eager.abs().max()


def test_nothing_is_compiled_before_the_window_is_full(compilations):
    generate(tiny_model(), RolloutSettings(num_steps=2, window_frames=9, compile=True), 4)
    assert compilations == []


def test_a_copied_model_compiles_its_own_passes():
    model = tiny_model()
    model.compile_passes()
    assert copy.deepcopy(model)._compiled is None


def test_passes_compiled_for_weights_that_were_replaced_are_dropped():
    model = tiny_model()
    model.compile_passes()
    first = model._compiled
    model.compile_passes()
    assert model._compiled is first
    model.load_state_dict({name: value.clone() for name, value in model.state_dict().items()}, assign=True)
    model.compile_passes()
    assert isinstance(model._compiled, CompiledPasses) and model._compiled is not first


def test_without_a_compiler_it_is_said_at_the_start(monkeypatch):
    monkeypatch.setenv("CXX", "no-such-compiler")
    with pytest.raises(ValueError, match="needs a C\\+\\+ compiler, and there is no no-such-compiler"):
        generate(tiny_model(), RolloutSettings(num_steps=2, window_frames=2, compile=True), 1)
