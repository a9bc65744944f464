import pytest
import torch
from tiny_models import TEXT_DIM, random_context, random_latents, tiny_model

from video_mirai.models.codecs import PixelsCodec
from video_mirai.models.teachers import DiTTeacher
from video_mirai.objectives.flow_matching import Objective, ObjectiveConfig, drop_contexts
from video_mirai.objectives.foresight import ForesightConfig, ForesightSource, WeightSchedule, make_predictors

KINDS = ("teacher_forcing", "diffusion_forcing", "bidirectional")


def generator(seed: int = 0) -> torch.Generator:
    return torch.Generator().manual_seed(seed)


def sensitivity(kind: str, chunk_frames: int, **config: object) -> torch.Tensor:
    """(F, F) bool: does the error of frame i (row) change when the clean frame j (column) is replaced?"""
    objective = Objective(tiny_model(), ObjectiveConfig(kind=kind, chunk_frames=chunk_frames, **config))
    latents = random_latents(4, batch=1)
    before = objective.diagnose(latents, None, generator()).loss[0]
    rows = []
    for frame in range(4):
        changed = latents.clone()
        changed[:, frame] = random_latents(1, batch=1, seed=9)[:, 0]
        rows.append(objective.diagnose(changed, None, generator()).loss[0] != before)
    return torch.stack(rows, dim=1)


@pytest.mark.parametrize("kind", KINDS[:2])
def test_causal_objectives_never_show_a_frame_its_future(kind):
    assert torch.equal(sensitivity(kind, 1), torch.ones(4, 4).tril().bool())
    chunks = torch.ones(2, 2).tril().bool().repeat_interleave(2, 0).repeat_interleave(2, 1)
    assert torch.equal(sensitivity(kind, 2), chunks)


def test_bidirectional_objective_shows_everything():
    assert sensitivity("bidirectional", 1).all()


def test_window_limits_what_a_target_can_look_up():
    """One layer deep the window is exact; deeper, states carry what came before."""
    assert not sensitivity("teacher_forcing", 1, window_frames=0)[3, :3].any()


@pytest.mark.parametrize("kind", KINDS)
def test_every_parameter_gets_a_gradient_and_losses_are_scalars(kind):
    objective = Objective(tiny_model(TEXT_DIM), ObjectiveConfig(kind=kind, history_sigma_max=0.2))
    losses = objective(random_latents(4), random_context(), generator())
    assert losses.keys() == {"total", "flow"} and losses["total"].ndim == 0
    losses["total"].backward()
    without = [name for name, p in objective.named_parameters() if p.grad is None or not p.grad.abs().max() > 0]
    assert without == []


def test_all_randomness_comes_from_the_generator():
    objective = Objective(tiny_model(), ObjectiveConfig(history_sigma_max=0.2))
    first, again, other = (objective(random_latents(3), None, generator(seed))["total"] for seed in (0, 0, 1))
    assert torch.equal(first, again) and not torch.equal(first, other)


def test_chunks_share_one_sigma_and_stay_above_the_floor():
    objective = Objective(tiny_model(sigma_floor=0.3), ObjectiveConfig(kind="diffusion_forcing", chunk_frames=2))
    sigmas = objective.diagnose(random_latents(4, batch=16), None, generator()).sigmas
    assert torch.equal(sigmas[:, ::2], sigmas[:, 1::2]) and sigmas.min() >= 0.3


def test_data_weighting_is_the_error_of_the_data():
    model = tiny_model(prediction_type="data")
    velocity, data = (
        Objective(model, ObjectiveConfig(kind="bidirectional", loss_weighting=name)) for name in ("velocity", "data")
    )
    diagnosis = velocity.diagnose(random_latents(3), None, generator())
    loss = data(random_latents(3), None, generator())["total"]
    torch.testing.assert_close(loss, (diagnosis.sigmas.square() * diagnosis.loss).mean())


def test_history_noise_reaches_the_loss():
    model = tiny_model()
    clean, noised = (Objective(model, ObjectiveConfig(history_sigma_max=level)) for level in (0.0, 0.9))
    first = [o.diagnose(random_latents(3), None, generator()) for o in (clean, noised)]
    assert torch.equal(first[0].loss[:, 0], first[1].loss[:, 0])  # the first frame has no history
    assert not torch.equal(first[0].loss[:, 1:], first[1].loss[:, 1:])


def foresight_objective(weight: float, **settings: object) -> tuple[Objective, ForesightSource]:
    config = ForesightConfig(**({"weight": weight, "student_layers": [2], "predictor_blocks": 1} | settings))
    student, objective = tiny_model(), ObjectiveConfig()
    source = ForesightSource(DiTTeacher(tiny_model(seed=5), 2, 0.0, generator()), config, 1, PixelsCodec(), 10)
    return Objective(student, objective, make_predictors(config, student, 72), config), source


def test_weight_zero_leaves_the_students_gradients_bit_identical():
    plain = Objective(tiny_model(), ObjectiveConfig())
    plain(random_latents(4), None, generator())["total"].backward()
    zero, source = foresight_objective(0.0)
    latents = random_latents(4)
    zero(latents, None, generator(), source.targets(latents, None))["total"].backward()
    for expected, actual in zip(plain.student.parameters(), zero.student.parameters(), strict=True):
        assert torch.equal(expected.grad, actual.grad)


def test_foresight_supervises_layers_up_to_its_tap_and_the_predictor():
    objective, source = foresight_objective(1.0)
    latents = random_latents(4)
    losses = objective(latents, None, generator(), source.targets(latents, None))
    assert losses.keys() == {"total", "flow", "foresight"}
    (losses["total"] - Objective(objective.student, ObjectiveConfig())(latents, None, generator())["total"]).backward()
    moved = [block.ffn.net[2].weight.grad.abs().max().item() for block in objective.student.blocks]
    assert moved[0] > 1e-6 and moved[1] > 1e-6 and moved[2] < 1e-7
    assert objective.predictor["2"].heads[0].weight.grad.abs().max() > 0


def test_several_layers_are_the_mean_of_each_alone():
    several, source = foresight_objective(1.0, student_layers=[1, 3])
    latents = random_latents(4)
    targets = source.targets(latents, None)
    found = several(latents, None, generator(), targets)["foresight"]
    alone = []
    for layer in (1, 3):
        single, _ = foresight_objective(1.0, student_layers=[layer])
        single.predictor[str(layer)] = several.predictor[str(layer)]
        alone.append(single(latents, None, generator(), targets)["foresight"])
    torch.testing.assert_close(found, torch.stack(alone).mean())


def test_clean_tap_does_not_depend_on_the_noise_of_the_targets():
    latents = random_latents(4)
    losses = {}
    for tap in ("clean", "noisy"):
        objective, source = foresight_objective(1.0, tap=tap)
        targets = source.targets(latents, None)
        losses[tap] = [objective(latents, None, generator(seed), targets)["foresight"].item() for seed in (0, 1)]
    assert losses["clean"][0] == losses["clean"][1]
    assert losses["noisy"][0] != losses["noisy"][1]


@pytest.mark.parametrize(
    "settings",
    [
        {"tap": "clean"},
        {"fuse": "heads", "neighbours": 3},
        {"loss": "smooth_l1"},
        *({"predictor": kind} for kind in ("none", "linear", "mlp", "blocks")),
        *({"window": window} for window in ([0], [1], [2], [0, 1, 2])),
        *({"student_layers": layers} for layers in ([0.5], [1, 3])),
    ],
    ids=str,
)
def test_every_switch_supervises_the_student(settings):
    objective, source = foresight_objective(1.0, **settings)
    latents = random_latents(4)
    losses = objective(latents, None, generator(), source.targets(latents, None))
    losses["total"].backward()
    with_it = [parameter.grad.clone() for parameter in objective.student.blocks[0].parameters()]
    objective.zero_grad()
    objective(latents, None, generator(), source.targets(latents, None)._replace(scale=0.0))["total"].backward()
    without = [parameter.grad for parameter in objective.student.blocks[0].parameters()]
    assert any(not torch.equal(left, right) for left, right in zip(with_it, without, strict=True))


def test_weight_follows_its_schedule():
    objective, source = foresight_objective(0.5, schedule=WeightSchedule(start_step=2, warmup_steps=1))
    latents = random_latents(4)
    for step, weight in enumerate([0.0, 0.0, 0.25, 0.5, 0.5]):
        losses = objective(latents, None, generator(), source.targets(latents, None, step=step))
        torch.testing.assert_close(losses["total"], losses["flow"] + weight * losses["foresight"])


@pytest.mark.parametrize(
    ("decay", "weights"),
    [
        ("constant", [0.0, 0.25, 0.5, 0.5, 0.5, 0.5, 0.5]),
        ("linear", [0.0, 0.25, 0.5, 0.4, 0.3, 0.2, 0.1]),
        ("cosine", [0.0, 0.25, 0.5, 0.4414, 0.3, 0.1586, 0.1]),
    ],
)
def test_weight_decays_from_its_peak_to_its_last_share_at_the_runs_end(decay, weights):
    schedule = WeightSchedule(start_step=1, warmup_steps=1, decay=decay, final_fraction=0.2)
    found = [0.5 * schedule.factor(step, num_steps=6) for step in range(7)]
    assert found == pytest.approx(weights, abs=1e-4)


def test_a_predictor_without_targets_is_an_error():
    objective, _ = foresight_objective(0.2)
    with pytest.raises(ValueError, match="teacher's targets"):
        objective(random_latents(2), None, generator())


@pytest.mark.parametrize("change, known", [({"kind": "x"}, "teacher_forcing"), ({"loss_weighting": "x"}, "velocity")])
def test_unknown_names_list_the_known_ones(change, known):
    with pytest.raises(ValueError, match=known):
        Objective(tiny_model(), ObjectiveConfig(**change))


def test_contexts_are_dropped_clip_by_clip_and_at_the_share_asked_for():
    context = torch.ones(1000, 3, 2)
    dropped = drop_contexts(context, 0.25, torch.Generator().manual_seed(0)).flatten(1)
    assert set(dropped.mean(1).tolist()) == {0.0, 1.0}
    assert abs(float((dropped[:, 0] == 0).float().mean()) - 0.25) < 0.05


def test_a_dropped_context_trains_as_zeros_do():
    model, latents, context = tiny_model(TEXT_DIM), random_latents(4), random_context()
    objective = Objective(model, ObjectiveConfig(context_dropout=0.999999))
    losses = [
        objective(latents, given, torch.Generator().manual_seed(0))["total"]
        for given in (context, torch.zeros_like(context))
    ]
    assert torch.equal(*losses)
