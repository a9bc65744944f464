import re
from dataclasses import replace
from html.parser import HTMLParser

from video_mirai.evaluation.plots import DARK, LIGHT, plot_curves, plot_lags, row_colours
from video_mirai.evaluation.report import Gallery, Plot, Strip, build_report
from video_mirai.evaluation.results import (
    ClipsInfo,
    Curve,
    DetectorInfo,
    Difference,
    Estimate,
    EvaluationResult,
    Metric,
    ModelInfo,
    Row,
    VBenchInfo,
    VBenchScore,
    VideoSetInfo,
    Window,
)
from video_mirai.evaluation.statements import difference_statements, judge, model_statements

PSNR = Metric("psnr", "PSNR", "dB", "higher", 2, "peak signal-to-noise ratio")
DISTANCE = Metric("fd_random3d", "fd_random3d", "", "lower", 2, "Frechet distance")


def example_result() -> EvaluationResult:
    def row(name: str, kind: str, psnr: float | None, distance: float) -> Row:
        windows, curves = [], {}
        for i in range(2):
            metrics = {"fd_random3d": Estimate(distance * (i + 1))}
            if psnr is not None:
                metrics["psnr"] = Estimate(psnr - i, psnr - i - 1, psnr - i + 1)
            windows.append(Window(16 * i + 1, 16 * i + 16, metrics))
        if psnr is not None:
            mean = [psnr - 0.1 * t for t in range(32)]
            band = [m - 1 for m in mean], [m + 1 for m in mean]
            curves["psnr"] = Curve(list(range(1, 33)), mean, *band)
        return Row(name, kind, 4, windows[0].metrics, windows, curves)

    def difference(name: str, reference: str, values: list[Estimate]) -> Difference:
        windows = [Window(16 * i + 1, 16 * i + 16, {"psnr": value}) for i, value in enumerate(values)]
        return Difference(name, reference, {"psnr": values[0]}, windows)

    gain, loss, unclear = Estimate(2, 1, 3), Estimate(-2, -3, -1), Estimate(0.5, -1, 2)
    return EvaluationResult(
        created="2026-01-01T00:00:00+00:00",
        revision="0123abc",
        hardware={"cpu": "two cores"},
        versions={"python": "3.11"},
        config={"seed": 0},
        config_sha256="c" * 64,
        clips=ClipsInfo("Scenes", "test", 8.0, 64, 64, 4, 4, 4, 4, 32, 16, "sliding 16-frame clips", 0),
        models=[
            ModelInfo(name, f"runs/{name}", "a" * 64, 16, {"num_steps": 4}, "pixels", 12.0)
            for name in ("baseline", "foresight")
        ],
        detectors=[DetectorInfo("fd_random3d", "random3d", "d" * 64, 16, 256, "none")],
        ddof=1,
        metrics=[PSNR, DISTANCE],
        window_metrics=[PSNR, DISTANCE],
        rows=[
            row("baseline", "model", 20, 9),
            row("foresight", "model", 22, 6),
            row("copy-last-frame", "copy", 18, 30),
            row("real vs real", "real", None, 3),
        ],
        differences=[
            difference("foresight", "baseline", [gain, unclear]),
            difference("baseline", "copy-last-frame", [gain, loss]),
            difference("foresight", "copy-last-frame", [gain, unclear]),
        ],
        warnings=["4 videos are <few> & far between"],
    )


class _Tags(HTMLParser):
    def __init__(self) -> None:
        super().__init__()
        self.open: list[str] = []
        self.links: list[str] = []
        self.videos: list[dict[str, str | None]] = []

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        if tag not in ("meta", "link", "br", "img", "source"):
            self.open.append(tag)
        values = dict(attrs)
        self.links += [value for key in ("src", "href", "srcset") if (value := values.get(key))]
        if tag == "video":
            self.videos.append(values)

    def handle_endtag(self, tag: str) -> None:
        if tag == "p" and self.open[-1] != "p":
            return
        assert self.open.pop() == tag


def example_page() -> str:
    gallery = Gallery("Same histories, side by side", "fixed", [Strip("clip 0", [("truth", b"1"), ("baseline", b"2")])])
    return build_report(example_result(), [Plot("PSNR", "over time", b"light", b"dark")], [gallery])


def parsed(page: str) -> _Tags:
    tags = _Tags()
    tags.feed(page)
    return tags


def test_report_loads_nothing_from_outside_itself():
    links = parsed(example_page()).links
    assert len(links) == 5
    assert all(link.startswith("data:") for link in links)
    assert "@import" not in example_page() and "url(" not in example_page()


def test_report_tags_are_balanced():
    assert parsed(example_page()).open == []


def test_report_videos_loop_muted_and_inline():
    videos = parsed(example_page()).videos
    assert len(videos) == 2
    assert all({"loop", "muted", "autoplay", "playsinline"} <= video.keys() for video in videos)


def test_report_escapes_text_and_names_every_row_detector_and_warning():
    page = example_page()
    assert "4 videos are &lt;few&gt; &amp; far between" in page
    for text in ("baseline", "foresight", "copy-last-frame", "real vs real", "d" * 64, "a" * 64, "0123abc"):
        assert text in page


def test_frechet_distance_of_another_detector_is_never_called_fvd():
    assert not re.search(r"\bFVD\b", example_page())


def test_difference_is_an_improvement_only_when_its_interval_excludes_zero():
    assert judge(Estimate(1, 0.5, 2), PSNR).outcome == "better"
    assert judge(Estimate(1, 0.5, 2), DISTANCE).outcome == "worse"
    assert judge(Estimate(-1, -2, -0.5), DISTANCE).outcome == "better"
    assert judge(Estimate(1, -0.5, 2), PSNR).outcome == "unclear"
    assert judge(Estimate(1), PSNR).outcome == "unknown"


def test_statements_compare_every_window_with_copying_and_with_real_video():
    baseline, foresight = model_statements(example_result())
    assert [w.frames for w in baseline.windows] == ["1–16", "17–32", "1–16", "17–32"]
    assert [w.against_copy.outcome for w in baseline.windows[:2]] == ["better", "worse"]
    assert [w.against_copy.outcome for w in foresight.windows[:2]] == ["better", "unclear"]
    assert baseline.windows[2].against_real == "3.0 times the floor of 3.00"
    assert "worse than copy-last-frame in frames 17–32" in baseline.summary[0]
    assert [w.beyond_training for w in baseline.windows[:2]] == [False, True]


def test_pairs_of_models_are_stated_in_one_sentence_per_metric():
    assert difference_statements(example_result()) == [
        "PSNR: foresight is better by 2.00 dB (95 %: 1.00 to 3.00) than baseline."
    ]


def test_plot_is_a_png_in_both_themes_and_none_without_the_curve():
    rows = example_result().rows
    for theme in (LIGHT, DARK):
        png = plot_curves(rows, "psnr", "PSNR", "dB", 4, 16, theme)
        assert png is not None and png.startswith(b"\x89PNG")
    assert plot_curves(rows, "unknown", "PSNR", "dB", 4, 16, LIGHT) is None


def test_cosine_by_lag_is_drawn_where_a_row_has_it():
    rows = example_result().rows
    assert plot_lags(rows, "lags", LIGHT) is None
    with_lags = [replace(rows[0], cosine_by_lag=Curve([1, 10], [0.9, 0.5], [0.8, 0.4], [1, 0.6])), *rows[1:]]
    png = plot_lags(with_lags, "lags", DARK)
    assert png is not None and png.startswith(b"\x89PNG")


def test_report_of_folders_says_what_was_compared_and_what_vbench_found():
    result = replace(
        example_result(),
        models=[],
        clips=replace(example_result().clips, training_frames=None),
        rules={"pairing": "by <name>"},
        video_sets=[VideoSetInfo("real", "videos/real", "e" * 64, 5, 1, [16, 40], [8.0], ["64x64"])],
        vbench=[
            VBenchInfo("baseline", "x_eval_results.json", "f" * 64, "VBench", "whole videos", "not stated",
                       [VBenchScore("baseline", "imaging_quality", 0.61239, 4)])
        ],
    )  # fmt: skip
    page = build_report(result, [], [])
    assert parsed(page).open == []
    for text in ("by &lt;name&gt;", "5 files, 1 too short; 16 to 40 frames", "0.6124", "imaging quality", "not stated"):
        assert text in page
    assert "trained on" not in page and 'data-training="0"' in page


def test_tables_are_grouped_and_leave_out_rows_without_a_number():
    result = example_result()
    grouped = [replace(PSNR, group="Pairs"), replace(DISTANCE, group="Sets")]
    page = build_report(replace(result, metrics=grouped, differences=[]), [], [])
    pairs, sets = page.index("<h3>Pairs"), page.index("<h3>Sets")
    assert "real vs real" not in page[pairs:sets] and "real vs real" in page[sets:]


def test_rows_have_different_colours():
    colours = row_colours(example_result().rows)
    assert len(set(colours.values())) == len(colours) == 4
