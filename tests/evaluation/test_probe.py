"""The mathematics of the probe: closed forms, planted signals, and what must come out as nothing."""

import numpy as np
import pytest
import torch

from video_mirai.evaluation.bootstrap import bootstrap
from video_mirai.evaluation.probe import (
    LAMBDAS,
    fit_ridge,
    innovation_cosine,
    mean_per_video,
    r2_per_video,
    ridge_basis,
    root_mean_square,
)
from video_mirai.evaluation.probe_mlp import MlpConfig, fit_mlp

CPU = torch.device("cpu")


def planted(rows: int, width: int, outputs: int, noise: float, seed: int = 0) -> tuple[np.ndarray, np.ndarray]:
    """Features of very different sizes, and targets that are linear in them but for noise."""
    rng = np.random.default_rng(seed)
    features = rng.standard_normal((rows, width)) * np.logspace(-2, 2, width) + 5
    weights = np.random.default_rng(99).standard_normal((width, outputs)) / np.logspace(-2, 2, width)[:, None]
    return features, features @ weights + noise * rng.standard_normal((rows, outputs)) + 3


@pytest.mark.parametrize(("rows", "width"), [(60, 7), (12, 30)], ids=["more rows", "more features"])
def test_ridge_equals_the_solution_of_the_normal_equations(rows: int, width: int) -> None:
    features, targets = planted(rows, width, 3, noise=0.5)
    others, _ = planted(20, width, 3, noise=0.5, seed=1)
    basis = ridge_basis(features)
    coordinates = basis.coordinates(features)
    ridge = fit_ridge(basis, coordinates, targets, coordinates, targets, lambdas=np.array([0.3]))
    standard = (features - features.mean(0)) / features.std(0)
    gram = standard.T @ standard + ridge.strength * np.eye(width)
    weights = np.linalg.solve(gram, standard.T @ (targets - targets.mean(0)))
    expected = (others - features.mean(0)) / features.std(0) @ weights + targets.mean(0)
    assert ridge.strength == pytest.approx(0.3 * rows)  # standardised columns have energy n each
    np.testing.assert_allclose(ridge.predict(basis.coordinates(others)), expected, rtol=1e-9, atol=1e-9)


def test_chosen_strength_is_the_one_with_the_least_validation_error() -> None:
    features, targets = planted(40, 25, 4, noise=3.0)
    checked, wanted = planted(50, 25, 4, noise=3.0, seed=1)
    basis = ridge_basis(features)
    train, validation = basis.coordinates(features), basis.coordinates(checked)
    alone = [fit_ridge(basis, train, targets, validation, wanted, lambdas=np.array([value])) for value in LAMBDAS]
    errors = [np.square(ridge.predict(validation) - wanted).sum() for ridge in alone]
    chosen = fit_ridge(basis, train, targets, validation, wanted)
    assert 0 < np.argmin(errors) < len(LAMBDAS) - 1
    assert chosen.strength == alone[int(np.argmin(errors))].strength


def test_a_planted_linear_future_is_found_and_shuffled_features_find_nothing() -> None:
    parts = [planted(rows, 20, 5, noise=0.1, seed=seed) for seed, rows in enumerate((400, 100, 200))]
    videos = np.repeat(np.arange(50), 4).tolist()
    basis = ridge_basis(parts[0][0])
    rng = np.random.default_rng(0)
    found = {}
    for name, order in (("true", lambda rows: rows), ("shuffled", rng.permutation)):
        train, validation, test = (order(basis.coordinates(features)) for features, _ in parts)
        ridge = fit_ridge(basis, train, parts[0][1], validation, parts[1][1])
        found[name] = r2_per_video(parts[2][1], ridge.predict(test), parts[0][1].mean(0), videos).mean()
    assert found["true"] > 0.99
    assert -0.05 < found["shuffled"] <= 0.01


def test_features_that_never_change_predict_the_mean() -> None:
    targets = np.arange(10.0)[:, None]
    basis = ridge_basis(np.full((10, 3), 7.0))
    nothing = basis.coordinates(np.zeros((4, 3)))
    ridge = fit_ridge(basis, basis.coordinates(np.full((10, 3), 7.0)), targets, nothing, np.zeros((4, 1)))
    np.testing.assert_allclose(ridge.predict(nothing), 4.5)


def test_features_that_are_not_finite_are_refused() -> None:
    with pytest.raises(ValueError, match="NaN or infinite"):
        ridge_basis(np.array([[1.0], [np.nan]]))


def test_mean_over_videos_is_r2_of_all_rows_together() -> None:
    rng = np.random.default_rng(0)
    targets = rng.standard_normal((30, 4))
    predictions = targets + 0.5 * rng.standard_normal((30, 4))
    mean = np.full(4, 0.2)
    videos = [row // 3 for row in range(30)]
    pooled = 1 - np.square(targets - predictions).sum() / np.square(targets - mean).sum()
    per_video = r2_per_video(targets, predictions, mean, videos)
    assert per_video.shape == (10,) and per_video.mean() == pytest.approx(pooled)
    np.testing.assert_allclose(r2_per_video(targets, targets, mean, videos), 1)
    np.testing.assert_allclose(r2_per_video(targets, np.tile(mean, (30, 1)), mean, videos), 0)


def test_interval_of_the_videos_numbers_is_that_of_the_resampled_ratio() -> None:
    rng = np.random.default_rng(0)
    spread = rng.lognormal(sigma=0.5, size=(200, 1))  # videos that differ much in how far they are from the mean
    targets = spread * rng.standard_normal((200, 5))
    predictions = targets + 0.5 * spread * rng.standard_normal((200, 5))
    errors, distances = np.square(targets - predictions).sum(1), np.square(targets).sum(1)
    resampled = np.random.default_rng(1).integers(200, size=(2000, 200))
    expected = np.quantile(1 - errors[resampled].sum(1) / distances[resampled].sum(1), [0.025, 0.975])
    found = bootstrap(r2_per_video(targets, predictions, np.zeros(5), list(range(200))))
    np.testing.assert_allclose([found.low, found.high], expected, atol=0.1 * np.ptp(expected))
    halved = r2_per_video(targets, targets / 2, np.zeros(5), list(range(200)))
    np.testing.assert_allclose(halved, 0.75)  # the same share of every video, however far from the mean it is


def test_r2_of_targets_without_spread_is_refused() -> None:
    with pytest.raises(ValueError, match="R2 is not defined"):
        r2_per_video(np.ones((4, 2)), np.zeros((4, 2)), np.ones(2), [0, 0, 1, 1])


def test_innovation_cosine_is_blind_to_what_is_there_already() -> None:
    current = np.array([[5.0, 5.0]] * 4)
    future = current + np.array([[1, 0], [1, 0], [1, 0], [0, 0]])
    predicted = current + np.array([[2, 0], [0, 3], [0, 0], [1, 1]])
    np.testing.assert_allclose(innovation_cosine(current, future, predicted), [1, 0, 0, np.nan])


def test_means_of_videos_leave_out_what_is_undefined() -> None:
    means = mean_per_video(np.array([1.0, np.nan, 5.0, np.nan, 3.0]), ["b", "b", "a", "c", "a"])
    np.testing.assert_allclose(means, [1, 4, np.nan])
    np.testing.assert_allclose(root_mean_square(np.zeros((2, 2)), np.array([[3.0, 3], [4, 4]]), [0, 1]), [3, 4])


def test_network_finds_what_no_straight_line_can_and_keeps_the_mean_where_there_is_nothing() -> None:
    rng = np.random.default_rng(0)
    train, validation, test = (rng.standard_normal((rows, 4)) for rows in (600, 200, 200))
    targets = [[np.abs(rows[:, :1]), rng.standard_normal((len(rows), 2))] for rows in (train, validation, test)]
    config = MlpConfig(hidden=32, steps=200, lr=1e-2)
    bent, noise = fit_mlp(train, targets[0], validation, targets[1], config, 0, CPU)
    again, _ = fit_mlp(train, targets[0], validation, targets[1], config, 0, CPU)
    videos = list(range(200))
    scores = [
        r2_per_video(wanted, network.predict(test), known.mean(0), videos).mean()
        for network, wanted, known in zip((bent, noise), targets[2], targets[0], strict=True)
    ]
    basis = ridge_basis(train)
    line = fit_ridge(basis, basis.coordinates(train), targets[0][0], basis.coordinates(validation), targets[1][0])
    straight = r2_per_video(targets[2][0], line.predict(basis.coordinates(test)), targets[0][0].mean(0), videos).mean()
    assert scores[0] > 0.8 and straight < 0.1 and -0.05 < scores[1] < 0.05
    np.testing.assert_array_equal(bent.predict(test), again.predict(test))
