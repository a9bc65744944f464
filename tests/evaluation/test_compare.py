import json
from pathlib import Path

import numpy as np
import pytest
from video_folders import evaluate, make_files, moving_texture, write_folder, write_real_and_fake

from video_mirai.evaluation.aggregate import Resampling
from video_mirai.evaluation.compare import Compared, MetricDifference, compare_rows
from video_mirai.evaluation.compare_tables import csv_rows, forest_plot, latex, markdown
from video_mirai.evaluation.evaluated_row import load_row

NUM_VIDEOS = 4
RESAMPLING = Resampling(num_resamples=50, num_subsets=6, seed=0)


@pytest.fixture(scope="module")
def root(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Evaluations dark and darker of the same real videos, of others, and of another detector clip rule."""
    folder = tmp_path_factory.mktemp("compared")
    write_real_and_fake(folder, NUM_VIDEOS)
    darker = {f"clip_{i}": (moving_texture(i) * 0.5).astype(np.uint8) for i in range(NUM_VIDEOS)}
    write_folder(folder / "darker", darker)
    write_folder(folder / "other real", {f"clip_{i}": moving_texture(20 + i) for i in range(NUM_VIDEOS)})
    for name, settings in {
        "dark": {}, "darker": {"fakes": {"darker": str(folder / "darker")}},
        "elsewhere": {"real": str(folder / "other real")}, "first": {"clip_rule": "first"},
        "longer": {"history_frames": 2},
    }.items():  # fmt: skip
        make_files(evaluate(folder, out=str(folder / name), **settings))
    return folder


def compared(root: Path, *places: str) -> Compared:
    return compare_rows([load_row(str(root / place)) for place in places], RESAMPLING)


def by_key(found: Compared) -> dict[str, MetricDifference]:
    return {difference.metric.key: difference for difference in found.differences}


def test_same_clips_are_paired_and_the_difference_is_that_of_every_video(root: Path) -> None:
    found = compared(root, "dark", "darker")
    assert (found.baseline, found.names, found.notes) == ("fake", ["darker"], [])
    differences = by_key(found)
    rows = [load_row(str(root / place)).scores.scores for place in ("dark", "darker")]
    expected = np.mean([b.numbers["psnr"] - a.numbers["psnr"] for a, b in zip(*rows, strict=True)])
    assert differences["psnr"].difference.value == pytest.approx(expected)
    assert differences["psnr"].how == "paired" and differences["psnr"].difference.excludes_zero
    assert differences["fd_random3d"].difference.value > 0 and differences["fd_random3d"].difference.low is not None
    assert differences["brightness"].baseline == pytest.approx(
        np.mean([score.numbers["brightness"] for score in rows[0]])
    )


def test_an_evaluation_against_itself_differs_by_nothing(root: Path) -> None:
    for difference in compared(root, "dark", "dark").differences:
        found = difference.difference
        assert found.value == found.low == found.high == 0


def test_distance_read_back_is_the_one_that_was_reported(root: Path) -> None:
    reported = json.loads((root / "dark" / "results.json").read_text())["rows"][0]["metrics"]["fd_random3d"]["value"]
    assert load_row(str(root / "dark")).scores.distance("fd_random3d", None, None) == pytest.approx(reported)


def test_other_true_clips_are_not_paired_and_the_intervals_are_wider(root: Path) -> None:
    found = compared(root, "elsewhere", "darker")
    assert "not paired" in found.notes[0] and "dataset differs" in found.notes[0]
    unpaired, paired = by_key(found)["brightness"], by_key(compared(root, "dark", "darker"))["brightness"]
    assert unpaired.how == "unpaired"
    width = [d.difference.high - d.difference.low for d in (unpaired, paired)]
    assert width[0] > width[1]


def test_a_number_that_was_made_differently_is_not_compared(root: Path) -> None:
    found = compared(root, "dark", "first")
    assert "fd_random3d" not in by_key(found) and "psnr" in by_key(found)
    assert found.notes == ["fd_random3d is not compared for first:fake: it was made differently."]


def test_another_length_is_refused(root: Path) -> None:
    with pytest.raises(ValueError, match=r"longer has history_frames=2, .*dark has 0: .* evaluate both alike"):
        compared(root, "dark", "longer")


@pytest.mark.parametrize(
    ("damage", "message"),
    [
        ("none", "no such evaluation folder"),
        ("row", "has no model 'nobody'; its models: fake"),
        ("version", "has schema version 0, this program reads"),
        ("json", "not JSON"),
        ("features", "features.npz is missing or damaged"),
        ("videos", "hold different videos"),
    ],
)
def test_what_cannot_be_read_is_one_clear_line(damage: str, message: str, root: Path, tmp_path: Path) -> None:
    folder = tmp_path / "copy"
    place = f"{folder}:nobody" if damage == "row" else str(folder)
    if damage != "none":
        folder.mkdir()
        for name in ("results.json", "per_video.csv", "features.npz"):
            (folder / name).write_bytes((root / "dark" / name).read_bytes())
    result = folder / "results.json"
    if damage == "version":
        result.write_text(json.dumps(json.loads(result.read_text()) | {"schema_version": 0}))
    if damage == "json":
        result.write_text("{")
    if damage == "features":
        (folder / "features.npz").write_bytes(b"PK")
    if damage == "videos":
        lines = (folder / "per_video.csv").read_text().splitlines()
        (folder / "per_video.csv").write_text("\n".join(lines[:3]))
    with pytest.raises((ValueError, FileNotFoundError), match=message):
        load_row(place)


def test_one_evaluation_is_no_comparison(root: Path) -> None:
    with pytest.raises(ValueError, match="1 evaluation given"):
        compared(root, "dark")


def test_tables_hold_every_difference_and_mark_the_clear_ones(root: Path) -> None:
    found = compared(root, "dark", "darker", "elsewhere")
    text = markdown(found)
    assert text.startswith("| metric | dark:fake | darker:darker − dark:fake | elsewhere:fake − dark:fake |")
    line = next(line for line in text.splitlines() if line.startswith("| Brightness"))
    assert line.count("**") == 2 and line.count("|") == 5
    tex = latex(found)
    assert r"fd\_random3d $\downarrow$" in tex and tex.count(r"\\") == len(by_key(found)) + 1
    assert tex.count("&") == 3 * (len(by_key(found)) + 1)
    rows = csv_rows(found)
    assert len(rows) == len(found.differences)
    assert {row["outcome"] for row in rows} <= {"better", "worse", "unclear", "unknown"}
    assert forest_plot(found).startswith(b"\x89PNG")
