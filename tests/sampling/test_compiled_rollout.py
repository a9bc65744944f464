from itertools import islice

import pytest
import torch
from tiny_models import TEXT_DIM, random_context, random_latents, tiny_model
from torch._dynamo.utils import counters

from video_mirai.sampling.rollout import RolloutSettings, rollout


@pytest.mark.slow
def test_a_compiled_rollout_is_the_same_and_compiles_few_shapes_whatever_the_cache_holds():
    model, context = tiny_model(TEXT_DIM), random_context()
    frames = []
    for compiled in (False, True):
        torch.compiler.reset()
        counters.clear()
        settings = RolloutSettings(num_steps=2, window_frames=3, sink_frames=1, compile=compiled)
        chunks = rollout(model, random_latents(0), settings, torch.Generator().manual_seed(0), context=context)
        frames.append(torch.cat(list(islice(chunks, 6)), dim=1))
    eager, compiled = frames
    assert (compiled - eager).abs().max() < 1e-5 * eager.abs().max()
    # Two parts of a block, each for a chunk alone and for one behind its predecessor, which ends in the last layer.
    assert counters["stats"]["unique_graphs"] == 2 * 2 + 1
