import pytest
import torch

from video_mirai.models.predictor import ForesightPredictor
from video_mirai.objectives.foresight import ForesightTargets, foresight_loss, look_ahead_targets


def numbered_chunks(num_chunks: int = 4) -> torch.Tensor:
    """Chunk i holds the number i."""
    return torch.arange(num_chunks, dtype=torch.float32)[None, :, None, None].expand(2, -1, 3, 5).clone()


@pytest.mark.parametrize(
    "window, expected, valid",
    [
        ((0,), [0, 1, 2, 3], [True] * 4),
        ((0, 1), [0.5, 1.5, 2.5, 3], [True] * 4),
        ((1,), [1, 2, 3, 0], [True, True, True, False]),
        ((0, 1, 2), [1, 2, 2.5, 3], [True] * 4),
        ((2,), [2, 3, 0, 0], [True, True, False, False]),
        ((0, 9), [0, 1, 2, 3], [True] * 4),
    ],
)
def test_targets_are_the_mean_over_valid_offsets(window, expected, valid):
    targets, mask = look_ahead_targets(numbered_chunks(), window)
    assert targets.shape == (2, 4, 3, 5)
    assert targets[0, :, 0, 0].tolist() == pytest.approx(expected)
    assert mask.tolist() == valid


def test_no_gradient_reaches_the_teacher():
    features = numbered_chunks().requires_grad_()
    assert not look_ahead_targets(features, (0, 1))[0].requires_grad


@pytest.mark.parametrize("window", [(), (-1,), (0, 0), (4,)])
def test_windows_that_make_no_sense_are_refused(window):
    with pytest.raises(ValueError, match="window"):
        look_ahead_targets(numbered_chunks(), window)


def make_targets(features: torch.Tensor, valid: torch.Tensor | None = None) -> ForesightTargets:
    """One head's; features (B, num_chunks, tokens, D), valid (num_chunks,)."""
    valid = torch.ones(features.shape[1], dtype=torch.bool) if valid is None else valid
    return ForesightTargets(features[:, None], valid[None, :, None].expand(1, -1, features.shape[2]))


def random_features() -> torch.Tensor:
    return torch.randn(2, 4, 3, 5, generator=torch.Generator().manual_seed(0))


def test_cosine_loss_is_zero_for_parallel_features_and_two_for_opposite_ones():
    flat = random_features().flatten(1, 2)[:, None]
    assert foresight_loss(3 * flat, make_targets(random_features())).item() == pytest.approx(0.0, abs=1e-6)
    assert foresight_loss(-flat, make_targets(random_features())).item() == pytest.approx(2.0, abs=1e-6)


def test_smooth_l1_is_against_targets_of_zero_mean_and_unit_variance():
    targets = 5 * random_features() + 3
    normalised = (targets - targets.mean(-1, keepdim=True)) / targets.std(-1, correction=0, keepdim=True)
    flat = normalised.flatten(1, 2)[:, None]
    assert foresight_loss(flat, make_targets(targets), "smooth_l1").item() == pytest.approx(0.0, abs=1e-5)
    assert foresight_loss(flat + 0.5, make_targets(targets), "smooth_l1").item() == pytest.approx(0.125, rel=1e-3)
    assert foresight_loss(flat + 3.0, make_targets(targets), "smooth_l1").item() == pytest.approx(2.5, rel=1e-3)


def test_chunks_without_a_target_do_not_count():
    targets, valid = look_ahead_targets(random_features(), (1,))
    predicted = torch.cat([random_features()[:, 1:], torch.randn(2, 1, 3, 5)], dim=1).flatten(1, 2)[:, None]
    assert foresight_loss(predicted, make_targets(targets, valid)).item() == pytest.approx(0.0, abs=1e-6)


def test_every_head_counts_the_same_however_many_tokens_have_a_target():
    features = random_features()
    valid = torch.ones(2, 4, 3, dtype=torch.bool)
    valid[1, 1:] = False
    foresight = ForesightTargets(torch.stack([features, features], 1), valid)
    flat = features.flatten(1, 2)
    assert foresight_loss(torch.stack([flat, -flat], 1), foresight).item() == pytest.approx(1.0, abs=1e-6)


@pytest.mark.parametrize("kind", ["blocks", "mlp", "linear"])
def test_predictor_sees_one_chunk_only_and_all_its_weights_get_a_gradient(kind):
    predictor = ForesightPredictor(24, 10, num_heads=2, num_blocks=2, kind=kind, num_targets=3)
    for gates in (parameter for name, parameter in predictor.named_parameters() if name.endswith("gates")):
        torch.nn.init.normal_(gates)  # open, or nothing behind them would move in one step
    hidden = torch.randn(2, 3 * 2 * 6, 24).requires_grad_()  # three chunks of two frames of 2 x 3 tokens
    predicted = predictor(hidden, chunk_frames=2, rows=2, columns=3)
    assert predicted.shape == (2, 3, 36, 10)
    predicted[:, :, :12].square().sum().backward()
    assert torch.count_nonzero(hidden.grad[:, 12:]) == 0
    assert all(parameter.grad.abs().max() > 0 for parameter in predictor.parameters())


def test_without_a_predictor_the_states_themselves_are_compared():
    predictor = ForesightPredictor(24, 24, num_heads=2, num_blocks=0, kind="none")
    hidden = torch.randn(2, 12, 24)
    assert torch.equal(predictor(hidden, 1, 2, 3), hidden[:, None]) and not list(predictor.parameters())


@pytest.mark.parametrize(
    "settings, message",
    [
        ({"kind": "x"}, "known: none, linear, mlp, blocks"),
        ({"kind": "none"}, "another width"),
        ({"num_blocks": 0}, "predictor_blocks=0"),
    ],
)
def test_predictors_that_make_no_sense_are_refused(settings, message):
    with pytest.raises(ValueError, match=message):
        ForesightPredictor(24, 10, **({"num_heads": 2, "num_blocks": 1} | settings))
