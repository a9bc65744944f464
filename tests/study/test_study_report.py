"""The report, from small files alone."""

import re
from html import unescape
from pathlib import Path

import pytest
from study_results import write_study
from tiny_training import REPOSITORY

from video_mirai.study.numbers import StudyNumbers
from video_mirai.study.readings import compared_readings, readings
from video_mirai.study.report import as_markdown, make_sections, write_report
from video_mirai.study.tables import contrasts, equal_compute, on_the_way
from video_mirai.study.words import contrast_sentences, metric_sentences, warnings


@pytest.fixture(scope="module")
def results(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("results")
    write_study(folder, gains={"foresight": 2.0})
    write_report(folder)
    return folder


@pytest.mark.slow
def test_the_page_loads_nothing_and_shows_every_figure(results: Path) -> None:
    page = (results / "report.html").read_text()
    assert not re.findall(r'(?:src|href|srcset)="(?!data:)', page)
    assert page.count("<figure>") == len(list((results / "figures").glob("*.png"))) == 6


@pytest.mark.slow
def test_markdown_and_page_have_the_same_sections(results: Path) -> None:
    page, text = (results / "report.html").read_text(), (results / "report.md").read_text()
    headings = re.findall(r"^## (.+)$", text, re.M)
    assert headings == [unescape(heading) for heading in re.findall(r"<h2>(.+?)</h2>", page)]
    assert {
        "Differences",
        "Arms against each other",
        "At equal compute",
        "Cost",
        "Every seed",
        "Steps to the reference's final quality",
        "What the states know",
        "On the way",
    } <= set(headings)


@pytest.mark.slow
@pytest.mark.parametrize("results", sorted(REPOSITORY.glob("docs/studies/*/")), ids=lambda folder: folder.name)
def test_a_committed_report_is_what_its_committed_numbers_give_today(results: Path) -> None:
    numbers = StudyNumbers(results)
    expected = as_markdown(numbers, make_sections(numbers, {})).splitlines()
    committed = (results / "report.md").read_text().splitlines()
    figures = [line for line in committed if line.startswith("![")]
    assert len(figures) == len(list((results / "figures").glob("*.png")))

    def without_figures(lines: list[str]) -> list[str]:
        captions = [lines[place + 2] for place, line in enumerate(lines) if line.startswith("![")]
        return [line for line in lines if line and not line.startswith("![") and line not in captions]

    assert without_figures(committed) == without_figures(expected)


def test_a_sentence_names_seeds_videos_steps_interval_and_every_control(tmp_path: Path) -> None:
    write_study(tmp_path, gains={"foresight": 2.0})
    sentence = metric_sentences(StudyNumbers(tmp_path))[0]
    assert "3 seeds, 6 videos, 100 steps" in sentence
    assert "foresight is better by +2.0 [+2.0, +2.0]; window0 no difference shown" in sentence


def test_a_contrast_has_a_sentence_and_rows(tmp_path: Path) -> None:
    write_study(tmp_path, gains={"foresight": 2.0, "window0": 2.0})
    numbers = StudyNumbers(tmp_path)
    [sentence] = contrast_sentences(numbers)
    first = "Kept track no difference shown: +0.0 [+0.0, +0.0]; "
    assert sentence.startswith(f"foresight against window0, 3 seeds: {first}")
    rows = contrasts(numbers).rows
    assert [row[:3] for row in rows] == [[title, "foresight", "window0"] for title in
                                         ("Kept track ↑", "Last window ↓", "Probe R2, 1 ahead ↑")]  # fmt: skip
    assert {row[-1] for row in rows} == {"unclear"}


def test_equal_compute_says_where_an_arm_is_taken_and_why_not(tmp_path: Path) -> None:
    write_study(tmp_path, gains={"foresight": 2.0})
    kept = [row for row in equal_compute(StudyNumbers(tmp_path)).rows if row[0] == "Kept track ↑"]
    # The teacher takes 40 of the baseline's 100 seconds, and a step of foresight twice as long.
    assert [row[1:4] for row in kept] == [
        ["foresight", "not counted", "50"], ["foresight", "counted", "30"], ["window0", "not counted", "100"],
    ]  # fmt: skip
    assert [row[6] for row in kept] == ["-2.0", "-5.2", "+0.0"]
    (tmp_path / "teachers" / "wise" / "teacher.json").write_text(
        '{"cpu_seconds": 120, "wall_seconds": 1, "attempts": [], "revision": "", "commands": []}'
    )
    assert equal_compute(StudyNumbers(tmp_path)).rows[1][3] == "the teacher alone costs more"


def test_what_the_states_know_stands_beside_what_plain_pictures_know(tmp_path: Path) -> None:
    write_study(tmp_path, gains={"foresight": 2.0})
    table = readings(StudyNumbers(tmp_path))
    assert table.columns == ["target", "frames ahead", "baseline", "foresight", "window0", "raw pixels"]
    assert table.rows == [
        ["pixels", "0", "0.500", "0.520", "0.500", "–"], ["pixels", "1", "0.500", "0.520", "0.500", "0.750"],
    ]  # fmt: skip


def test_what_the_states_know_is_compared_with_the_reference_and_between_the_contrasted_arms(tmp_path: Path) -> None:
    write_study(tmp_path, gains={"foresight": 2.0, "window0": 1.0})
    table = compared_readings(StudyNumbers(tmp_path))
    assert table.columns[2:] == ["foresight - baseline", "window0 - baseline", "foresight - window0"]
    both = [f"{gain} [{gain}, {gain}] [{gain}, {gain}] better" for gain in ("+0.020", "+0.010", "+0.010")]
    assert table.rows == [["pixels", "0", *both], ["pixels", "1", *both]]


def test_milestones_are_compared_at_equal_steps(tmp_path: Path) -> None:
    write_study(tmp_path, gains={"foresight": 2.0, "window0": 2.0})
    table = on_the_way(StudyNumbers(tmp_path))
    assert table.columns[3:] == ["step 25", "step 50"]
    assert table.rows[0] == ["Kept track ↑", "foresight", "baseline", *["+2.0 [+2.0, +2.0] [+2.0, +2.0] better"] * 2]
    assert table.rows[2] == ["Kept track ↑", "foresight", "window0", *["+0.0 [+0.0, +0.0] [+0.0, +0.0] unclear"] * 2]
    assert len(table.rows) == 6, "probes read the end alone"


def test_what_is_not_finished_is_said(tmp_path: Path) -> None:
    write_study(tmp_path, gains={})
    for file in (tmp_path / "foresight" / "seed3").iterdir():
        file.unlink()
    numbers = StudyNumbers(tmp_path)
    assert warnings(numbers)[0].startswith("Not finished: train/foresight/seed3, evaluate/foresight/seed3")
    assert "2 seeds, 6 videos" in metric_sentences(numbers)[0]


def test_results_that_are_not_there_are_named(tmp_path: Path) -> None:
    with pytest.raises(FileNotFoundError, match="holds no results of a study"):
        StudyNumbers(tmp_path)
