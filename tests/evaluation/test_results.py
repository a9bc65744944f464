import csv
import json
import math
from pathlib import Path

from video_mirai.evaluation.results import (
    SCHEMA_VERSION,
    ClipsInfo,
    Curve,
    Difference,
    Estimate,
    EvaluationResult,
    Metric,
    Row,
    Window,
    format_estimate,
    format_interval,
    headline_table,
    write_results,
)


def example_result() -> EvaluationResult:
    curve = Curve([1, 2], [20.0, math.inf], [19.0, 18.0], [21.0, 22.0])
    rows = [
        Row("model", "model", 2, {"psnr": Estimate(20.0, 19.0, 21.0)}, [Window(1, 2, {})], {"psnr": curve}),
        Row("real vs real", "real", 2, {"flicker": Estimate(0.5)}, [Window(1, 2, {})], {}),
        Row("copy", "copy", 2, {}, [Window(1, 2, {})], {}),
    ]
    return EvaluationResult(
        created="now",
        revision="abc",
        hardware={},
        versions={},
        config={},
        config_sha256="",
        clips=ClipsInfo("Scenes", "test", 8.0, 16, 16, 2, 2, 2, 1, 2, 1, "sliding", 0),
        models=[],
        detectors=[],
        ddof=1,
        metrics=[Metric("psnr", "PSNR", "dB", "higher", 2, ""), Metric("flicker", "Flicker", "", "neither", 2, "")],
        window_metrics=[],
        rows=rows,
        differences=[Difference("model", "other", {"psnr": Estimate(1.0, 0.5, 1.5)}, [])],
    )


def test_json_is_strict_and_holds_null_where_a_number_is_not_finite(tmp_path: Path):
    files = write_results(example_result(), [{"clip": 0, "psnr": math.nan}], tmp_path / "new")
    loaded = json.loads(files.results.read_text(), parse_constant=lambda name: pytest_fail(name))
    assert loaded["schema_version"] == SCHEMA_VERSION
    assert loaded["rows"][0]["curves"]["psnr"]["mean"] == [20.0, None]


def pytest_fail(name: str) -> None:
    raise AssertionError(f"{name} in JSON")


def test_csv_files_have_one_line_per_video_and_per_curve_point(tmp_path: Path):
    files = write_results(example_result(), [{"clip": 0, "psnr": 1.5}, {"clip": 1, "ssim": 0.5}], tmp_path)
    videos = list(csv.DictReader(files.per_video.open()))
    assert videos == [{"clip": "0", "psnr": "1.5", "ssim": ""}, {"clip": "1", "psnr": "", "ssim": "0.5"}]
    curves = list(csv.DictReader(files.curves.open()))
    assert [(c["row"], c["metric"], c["frame"], c["mean"]) for c in curves] == [
        ("model", "psnr", "1", "20.0"),
        ("model", "psnr", "2", ""),
    ]


def test_headline_table_shows_missing_numbers_as_dashes_and_marks_clear_differences():
    table = headline_table(example_result())
    assert [line.split()[-2:] for line in table.splitlines()[1:3]] == [["20.00", "–"], ["–", "0.50"]]
    assert "+1.00 *" in table
    assert "copy" not in table


def test_numbers_too_small_for_their_decimals_are_not_shown_as_zero():
    assert format_estimate(Estimate(0.0004), 2) == "4.0e-04"
    assert format_estimate(Estimate(0.0), 2) == format_estimate(Estimate(-5.7e-14), 2) == "0.00"
    assert format_interval(Estimate(1.0, 0.5, 2.0), 1) == "0.5 to 2.0"
    assert format_interval(Estimate(1.0), 1) == ""
