"""Groups of training seeds, each run an evaluation of the same histories."""

import json
import shutil
from pathlib import Path

import numpy as np
import pytest
from video_folders import evaluate, make_files, moving_texture, write_folder

from video_mirai.evaluation.aggregate import Resampling
from video_mirai.evaluation.bootstrap import paired_seed_bootstrap
from video_mirai.evaluation.compare import HALVES, NO_INTERVAL, Compared, MetricDifference, compare_rows
from video_mirai.evaluation.compare_groups import compare_groups, load_group
from video_mirai.evaluation.compare_tables import csv_rows, forest_plot, latex, markdown, seed_rows, write_comparison
from video_mirai.evaluation.evaluated_row import load_row

NUM_VIDEOS = 5
RESAMPLING = Resampling(num_resamples=200, num_subsets=6, seed=0)
# How bright the videos of every training seed are.
BRIGHTNESS = {"a": (0.9, 0.8, 0.85), "b": (0.6, 0.5, 0.55)}


@pytest.fixture(scope="module")
def root(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """a0, a1, a2 and b0, b1, b2: evaluations of two methods, and one with another seed of the noise."""
    folder = tmp_path_factory.mktemp("groups")
    real = {f"clip_{i}": moving_texture(i) for i in range(NUM_VIDEOS)}
    write_folder(folder / "real", real)
    fakes = {}
    for method, shares in BRIGHTNESS.items():
        for seed, share in enumerate(shares):
            darker = {name: (frames * share).astype(np.uint8) for name, frames in real.items()}
            fakes[f"{method}{seed}"] = str(write_folder(folder / f"videos {method}{seed}", darker))
    make_files(evaluate(folder, out=str(folder / "all"), fakes=fakes))
    make_files(evaluate(folder, out=str(folder / "other seed"), fakes={"a0": fakes["a0"]}, seed=1))
    return folder


def group(root: Path, name: str, *rows: str) -> str:
    return f"{name}=" + ",".join(f"{root / 'all'}:{row}" for row in rows)


def compared(root: Path) -> Compared:
    groups = [group(root, name, *(f"{name}{seed}" for seed in range(3))) for name in "ab"]
    return compare_groups([load_group(text) for text in groups], RESAMPLING)


def by_key(found: Compared) -> dict[str, MetricDifference]:
    return {difference.metric.key: difference for difference in found.differences}


def with_models(root: Path, folder: Path, seeds: dict[str, int], sha256: str | None = None) -> Path:
    """The evaluation again, its rows made of checkpoints trained with these seeds."""
    shutil.copytree(root / "all", folder)
    result = json.loads((folder / "results.json").read_text())
    result["models"] = [
        {"name": name, "training_seed": seed, "sha256": sha256 or f"{name:0<64}"} for name, seed in seeds.items()
    ]
    (folder / "results.json").write_text(json.dumps(result))
    return folder


def test_intervals_are_over_seeds_then_videos_and_every_seed_is_kept(root: Path) -> None:
    found = by_key(compared(root))["brightness"]
    rows = [load_row(f"{root / 'all'}:{method}{seed}").scores.scores for method in "ab" for seed in range(3)]
    a, b = np.split(np.array([[score.numbers["brightness"] for score in row] for row in rows]), 2)
    expected = paired_seed_bootstrap(b, a, num_resamples=200, seed=0)
    assert (found.difference.value, found.difference.low, found.difference.high) == pytest.approx(tuple(expected))
    assert found.by_seed == pytest.approx((b - a).mean(axis=1))
    assert found.baseline == pytest.approx(a.mean())
    assert found.num_videos == NUM_VIDEOS


def test_distances_of_groups_are_means_over_seeds_with_halves_of_the_videos(root: Path) -> None:
    found = by_key(compared(root))
    single = [by_key(compare_rows([load_row(f"{root / 'all'}:{m}{i}") for m in "ab"], RESAMPLING)) for i in range(3)]
    for key in ("fd_random3d", "mmd_random3d"):
        each = [differences[key].difference.value for differences in single]
        assert found[key].by_seed == pytest.approx(each)
        assert found[key].difference.value == pytest.approx(np.mean(each))
        assert found[key].difference.low < found[key].difference.value < found[key].difference.high
        assert found[key].interval == HALVES


def test_distance_at_infinity_of_groups_has_every_seed_and_no_interval(root: Path, monkeypatch) -> None:
    monkeypatch.setattr("video_mirai.evaluation.row_scores.RowScores.at_infinity", lambda row, label, seed: 1.5)
    found = by_key(compared(root))["fd_random3d_at_infinity"]
    assert (found.difference.value, found.difference.low, found.interval) == (0, None, NO_INTERVAL)
    assert "fd_random3d at infinite N: no interval." in markdown(compared(root))


@pytest.mark.slow
def test_tables_show_every_seed(root: Path, tmp_path: Path) -> None:
    found = compared(root)
    text = write_comparison(found, tmp_path)
    assert "over training seeds, then videos" in text and "Every training seed (run 1, run 2, run 3)" in text
    brightness = [line for line in text.splitlines() if line.startswith("| Brightness")]
    assert len(brightness) == 2 and brightness[1].count(",") == 4
    assert latex(found).count(r"\begin{tabular}") == 2
    seeds = [row for row in seed_rows(found) if row["metric"] == "brightness"]
    assert [row["row"] for row in seeds] == ["a"] * 3 + ["b"] * 3
    assert {row["seeds"] for row in csv_rows(found)} == {3}
    assert (tmp_path / "seeds.csv").is_file() and forest_plot(found).startswith(b"\x89PNG")
    assert found.notes == ["The training seeds of a, b are not in the files: runs are paired in the order given."]


def test_seeds_of_checkpoints_are_named_and_must_be_paired_alike(root: Path, tmp_path: Path) -> None:
    seeds = {"a0": 4, "a1": 5, "b0": 4, "b1": 5}
    folder = with_models(root, tmp_path / "models", seeds)
    a, b, swapped = (
        load_group(f"{name}={folder}:{rows[0]},{folder}:{rows[1]}")
        for name, rows in {"a": ("a0", "a1"), "b": ("b0", "b1"), "c": ("b1", "b0")}.items()
    )
    found = compare_groups([a, b], RESAMPLING)
    assert found.notes == [] and found.seeds[0].seeds == ["seed 4", "seed 5"]
    with pytest.raises(ValueError, match=r"b1 was trained with seed 5, but its partner .*a0 with 4; .*same order"):
        compare_groups([a, swapped], RESAMPLING)


@pytest.mark.parametrize(
    ("seeds", "sha256", "words"),
    [({"a0": 4, "a1": 4}, None, "same training seed twice"), ({"a0": 4, "a1": 5}, "0" * 64, "same weights twice")],
)
def test_copies_of_one_training_are_no_seeds(
    seeds: dict[str, int], sha256: str | None, words: str, root: Path, tmp_path: Path
) -> None:
    folder = with_models(root, tmp_path / "models", seeds, sha256)
    with pytest.raises(ValueError, match=words):
        load_group(f"a={folder}:a0,{folder}:a1")


@pytest.mark.parametrize(
    ("a", "b", "words"),
    [
        (("a0", "a1", "a2"), ("b0", "b1"), "b has 2 runs, a has 3; give as many"),
        (("a0",), ("b0",), "a has one run; 2 seeds or more"),
        (("a0", "a0"), ("b0", "b1"), "same evaluation twice"),
        (("a0", "nobody"), ("b0", "b1"), "has no model 'nobody'"),
    ],
)
def test_groups_that_cannot_be_paired_are_one_clear_line(
    a: tuple[str, ...], b: tuple[str, ...], words: str, root: Path
) -> None:
    with pytest.raises(ValueError, match=words):
        compare_groups([load_group(group(root, "a", *a)), load_group(group(root, "b", *b))], RESAMPLING)


def test_other_noise_or_one_group_alone_is_refused(root: Path) -> None:
    mixed = load_group(f"a={root / 'other seed'}:a0,{root / 'all'}:a1")
    good = load_group(group(root, "b", "b0", "b1"))
    with pytest.raises(ValueError, match=r"can't be paired with .*seed differs .*same histories with the same seed"):
        compare_groups([good, mixed], RESAMPLING)
    with pytest.raises(ValueError, match="two or more, of different names"):
        compare_groups([good], RESAMPLING)
    with pytest.raises(ValueError, match="expected NAME=FOLDER"):
        load_group(str(root / "all"))
