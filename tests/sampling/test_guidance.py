from itertools import islice

import pytest
import torch
from tiny_models import TEXT_DIM, random_context, random_latents, tiny_model
from torch import Tensor

from video_mirai.sampling.guidance import GuidanceConfig, combine_views, guidance_views
from video_mirai.sampling.rollout import RolloutSettings, rollout


def generate(model, guidance: GuidanceConfig, history=None, generators=None, **kwargs) -> Tensor:
    settings = RolloutSettings(num_steps=2, window_frames=3, history_sigma=0.1, guidance=guidance)
    history = random_latents(2) if history is None else history
    generators = torch.Generator().manual_seed(0) if generators is None else generators
    return torch.cat(list(islice(rollout(model, history, settings, generators, **kwargs), 4)), dim=1)


@pytest.mark.parametrize("config", [GuidanceConfig(3.0), GuidanceConfig(2.0, 1.5), GuidanceConfig(1.0, 4.0)])
def test_weights_of_the_views_add_up_to_one(config):
    views = guidance_views(config, 0.1)
    assert sum(view.weight for view in views) == pytest.approx(1)
    assert views[0].has_context and views[0].history_sigma == 0.1


def test_scale_one_has_one_view_and_changes_nothing():
    assert len(guidance_views(GuidanceConfig(), 0.1)) == 1
    velocity = torch.randn(2, 3)
    assert combine_views(velocity, guidance_views(GuidanceConfig(), 0.1)) is velocity


def test_guidance_moves_away_from_the_weaker_view():
    full, without = torch.randn(2, 3), torch.randn(2, 3)
    combined = combine_views(torch.cat([full, without]), guidance_views(GuidanceConfig(3.0), 0.0))
    torch.testing.assert_close(combined, without + 3 * (full - without))


def test_a_null_context_equal_to_the_context_leaves_the_rollout_as_it_was():
    model, context = tiny_model(TEXT_DIM), random_context()
    plain = generate(model, GuidanceConfig(), context=context)
    guided = generate(model, GuidanceConfig(5.0), context=context, null_context=context)
    torch.testing.assert_close(guided, plain, atol=1e-4, rtol=1e-4)
    assert (generate(model, GuidanceConfig(5.0), context=context) - plain).abs().max() > 1e-2


def test_each_scale_changes_the_rollout():
    model, context = tiny_model(TEXT_DIM), random_context()
    configs = [GuidanceConfig(), GuidanceConfig(2.0), GuidanceConfig(1.0, 2.0), GuidanceConfig(2.0, 2.0)]
    results = [generate(model, config, context=context) for config in configs]
    assert all((one - other).abs().max() > 1e-3 for i, one in enumerate(results) for other in results[:i])


def test_a_guided_batch_equals_each_sample_alone():
    model, context, history = tiny_model(TEXT_DIM), random_context(), random_latents(2)
    config = GuidanceConfig(2.0, 2.0)
    together = generate(
        model, config, history, [torch.Generator().manual_seed(seed) for seed in (5, 6)], context=context
    )
    for row, seed in enumerate((5, 6)):
        one = slice(row, row + 1)
        alone = generate(model, config, history[one], [torch.Generator().manual_seed(seed)], context=context[one])
        torch.testing.assert_close(together[one], alone, atol=1e-5, rtol=1e-5)


@pytest.mark.parametrize(
    ("guidance", "message"),
    [
        (GuidanceConfig(context_scale=2.0), "has no context to leave out"),
        (GuidanceConfig(history_scale=2.0, history_sigma=0.1), "must lie above history_sigma=0.1"),
    ],
)
def test_guidance_that_cannot_be_is_named(guidance, message):
    with pytest.raises(ValueError, match=message):
        generate(tiny_model(), guidance)
