import pytest
import torch
from tiny_models import TOKENS_PER_FRAME, random_latents, tiny_model

from video_mirai.models.predictor import ForesightPredictor
from video_mirai.models.teachers import DiTTeacher
from video_mirai.objectives.foresight import ForesightSource, ForesightTargets, foresight_loss, look_ahead_targets


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


def test_loss_is_zero_for_parallel_features_and_two_for_opposite_ones():
    features = torch.randn(2, 4, 3, 5, generator=torch.Generator().manual_seed(0))
    foresight = ForesightTargets(features, torch.ones(4, dtype=torch.bool))
    flat = features.flatten(1, 2)
    assert foresight_loss(3 * flat, foresight).item() == pytest.approx(0.0, abs=1e-6)
    assert foresight_loss(-flat, foresight).item() == pytest.approx(2.0, abs=1e-6)


def test_chunks_without_a_target_do_not_count():
    features = torch.randn(2, 4, 3, 5, generator=torch.Generator().manual_seed(0))
    targets, valid = look_ahead_targets(features, (1,))
    predicted = torch.cat([features[:, 1:], torch.randn(2, 1, 3, 5)], dim=1).flatten(1, 2)
    assert foresight_loss(predicted, ForesightTargets(targets, valid)).item() == pytest.approx(0.0, abs=1e-6)


def test_predictor_sees_one_chunk_only_and_all_its_weights_get_a_gradient():
    predictor = ForesightPredictor(24, 10, num_heads=2, num_blocks=2)
    for block in predictor.blocks:
        torch.nn.init.normal_(block.gates)  # open, or nothing behind them would move in one step
    hidden = torch.randn(2, 3 * 2 * 6, 24).requires_grad_()  # three chunks of two frames of 2 x 3 tokens
    predicted = predictor(hidden, chunk_frames=2, rows=2, columns=3)
    assert predicted.shape == (2, 36, 10)
    predicted[:, :12].square().sum().backward()
    assert torch.count_nonzero(hidden.grad[:, 12:]) == 0
    assert all(parameter.grad.abs().max() > 0 for parameter in predictor.parameters())


def test_teacher_features_see_the_future_and_lie_on_the_token_grid():
    teacher = DiTTeacher(tiny_model(), layer=2, sigma=0.0, generator=torch.Generator())
    latents = random_latents(4)
    features = teacher.encode(latents, None)
    assert features.shape == (2, 4, TOKENS_PER_FRAME, teacher.feature_dim)
    changed = latents.clone()
    changed[:, 3] += 1.0
    assert not torch.allclose(teacher.encode(changed, None)[:, 0], features[:, 0])
    assert not any(parameter.requires_grad for parameter in teacher.model.parameters())


def test_layers_above_the_one_that_is_read_are_not_kept():
    model = tiny_model()
    latents = random_latents(3)
    expected = model(latents, torch.zeros(2, 3), capture=(2,)).hidden[2]
    teacher = DiTTeacher(model, layer=2, sigma=0.0, generator=torch.Generator())
    assert len(model.blocks) == 2
    assert torch.equal(teacher.encode(latents, None).flatten(1, 2), expected)


def test_teacher_noise_comes_from_its_own_generator_only():
    teacher = DiTTeacher(tiny_model(), layer=1, sigma=0.5, generator=torch.Generator().manual_seed(0))
    torch.manual_seed(7)
    before = torch.random.get_rng_state()
    first, second = (teacher.encode(random_latents(2), None) for _ in range(2))
    assert torch.equal(torch.random.get_rng_state(), before)
    assert not torch.equal(first, second)
    teacher.generator.manual_seed(0)
    assert torch.equal(teacher.encode(random_latents(2), None), first)


def test_source_gives_targets_by_chunk():
    source = ForesightSource(DiTTeacher(tiny_model(), 1, 0.0, torch.Generator()), (0, 1), chunk_frames=2)
    targets, valid = source.targets(random_latents(6), None)
    assert targets.shape == (2, 3, 2 * TOKENS_PER_FRAME, 72) and valid.tolist() == [True] * 3


@pytest.mark.parametrize("layer, sigma", [(0, 0.0), (4, 0.0), (1, 1.5)])
def test_impossible_teacher_settings_are_refused(layer, sigma):
    with pytest.raises(ValueError, match="teacher"):
        DiTTeacher(tiny_model(), layer, sigma, torch.Generator())
