"""What a stranger imports for another model's videos."""

import subprocess
import sys

import numpy as np
import pytest

from video_mirai import evaluation

HEAVY = ("accelerate", "av", "decord", "diffusers", "huggingface_hub", "matplotlib", "torchmetrics", "transformers")


def test_importing_the_metrics_loads_none_of_the_heavy_libraries():
    code = f"import sys, video_mirai.evaluation; print([m for m in {HEAVY} if m in sys.modules])"
    shown = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True).stdout
    assert shown.strip() == "[]"


def test_every_public_name_is_there():
    assert sorted(evaluation.__all__) == list(evaluation.__all__)
    assert [name for name in evaluation.__all__ if name not in vars(evaluation)] == []


@pytest.mark.parametrize(
    "call",
    [
        lambda bad: evaluation.frechet_distance(bad, bad),
        lambda bad: evaluation.frechet_at_infinity(bad, bad),
        lambda bad: evaluation.polynomial_mmd(bad, bad),
        lambda bad: evaluation.frechet_over_time({0: bad}, {0: bad}),
        lambda bad: evaluation.subject_consistency(bad),
        lambda bad: evaluation.cosine_by_lag(bad),
        lambda bad: evaluation.drift(bad[:, 0]),
        lambda bad: evaluation.slope_per_100_frames(bad[:, 0]),
        lambda bad: evaluation.time_to_failure(bad[:, 0], 1.0),
        lambda bad: evaluation.bootstrap(bad[:, 0]),
        lambda bad: evaluation.paired_bootstrap(bad[:, 0], bad[:, 0]),
        lambda bad: evaluation.bootstrap_band(bad),
        lambda bad: evaluation.flicker(np.broadcast_to(bad[:, None, None], (len(bad), 2, 2, 3))),
        lambda bad: evaluation.exposure(np.broadcast_to(bad[:, None, None], (len(bad), 2, 2, 3))),
    ],
)
@pytest.mark.parametrize("bad", [np.full((6, 3), np.nan), np.zeros((0, 3))], ids=["NaN", "empty"])
def test_features_that_are_nan_or_empty_are_one_clear_line(call, bad):
    with pytest.raises(ValueError) as caught:
        call(bad)
    assert "\n" not in str(caught.value)
    assert len(str(caught.value)) > 20
