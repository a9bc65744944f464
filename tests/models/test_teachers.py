"""Teachers that are CausalVideoDiTs: frozen ones, causal ones, and the student's average."""

import pytest
import torch
from tiny_models import TOKENS_PER_FRAME, random_latents, tiny_model

from video_mirai.models.teachers import AverageTeacher, DiTTeacher, Visibility, resolve_layer


def test_teacher_features_see_the_future_and_lie_on_the_token_grid():
    teacher = DiTTeacher(tiny_model(), layer=2, sigma=0.0, generator=torch.Generator())
    latents = random_latents(4)
    features = teacher.encode(latents, None)
    assert features.shape == (2, 4, TOKENS_PER_FRAME, teacher.feature_dim)
    changed = latents.clone()
    changed[:, 3] += 1.0
    assert not torch.allclose(teacher.encode(changed, None)[:, 0], features[:, 0])
    assert not any(parameter.requires_grad for parameter in teacher.network.parameters())


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


def test_average_teacher_reads_through_the_averages_own_tensors_as_they_move():
    student = tiny_model()
    average = {name: value.detach().clone() for name, value in student.named_parameters()}
    with torch.device("meta"):
        network = type(student).from_config(student.config)
    teacher = AverageTeacher(network, 2, 0.0, None, Visibility(1, None, 0))
    teacher.follow(average)
    latents = random_latents(3)
    expected = DiTTeacher(tiny_model(), 2, 0.0, None, Visibility(1, None, 0)).encode(latents, None)
    assert torch.equal(teacher.encode(latents, None), expected)
    average["blocks.0.attn1.to_q.weight"].mul_(-1)
    assert not torch.equal(teacher.encode(latents, None), expected)
    own = dict(teacher.network.named_parameters())
    assert all(own[name].data_ptr() == average[name].data_ptr() for name in own)
    assert not any(parameter.requires_grad for parameter in own.values())


@pytest.mark.parametrize("value, layer", [(1, 1), (30, 30), (0.5, 15), (0.01, 1), (0.99, 30), (7.0, 7)])
def test_a_layer_is_a_number_from_one_or_a_fraction_of_the_depth(value, layer):
    assert resolve_layer("some.layer", value, 30) == layer


@pytest.mark.parametrize("value", [0, -1, 31, 1.5, float("nan"), float("inf")])
def test_layers_that_do_not_exist_are_refused_with_their_setting(value):
    with pytest.raises(ValueError, match=r"some\.layer="):
        resolve_layer("some.layer", value, 30)


@pytest.mark.parametrize("layer, sigma", [(0, 0.0), (4, 0.0), (1, 1.5)])
def test_impossible_teacher_settings_are_refused(layer, sigma):
    with pytest.raises(ValueError, match=r"foresight\.teacher"):
        DiTTeacher(tiny_model(), layer, sigma, torch.Generator())
