"""Folders of any model's videos through the scripts: files, page, comparison, VBench, mistakes."""

import json
import sys
from collections.abc import Callable
from html import escape
from pathlib import Path

import pytest
from headless_browser import PHONE_WIDTH, find_browser, visit
from result_schema import check_result
from tiny_training import forget_accelerator
from video_folders import QUICK, moving_texture, write_folder, write_real_and_fake

import compare
import evaluate
from _cli import run_script

SETTINGS = [f"{key}={value}".replace(" ", "").replace("'", "") for key, value in QUICK.items()]


def call(monkeypatch: pytest.MonkeyPatch, main: Callable[[], None], *given: str) -> int:
    """Exit code of a script, run in this process."""
    forget_accelerator()
    monkeypatch.setattr(sys, "argv", ["script.py", *given])
    with pytest.raises(SystemExit) as exit_info:
        run_script(main)
    forget_accelerator()
    return int(exit_info.value.code or 0)


def folders(root: Path, *more: str) -> list[str]:
    return ["--real", str(root / "real"), "--fake", str(root / "fake"), *SETTINGS, f"out={root / 'out'}",
            f"feature_cache={root / 'features'}", *more]  # fmt: skip


@pytest.fixture(scope="module")
def evaluated(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder with an evaluation of two generated folders in out/, and what VBench said of one."""
    root = tmp_path_factory.mktemp("evaluated")
    write_real_and_fake(root, 4)
    write_folder(root / "others", {f"sample_{i}": moving_texture(10 + i) for i in range(2)})
    scores = {"imaging_quality": [0.6, [{"video_path": "v/split_clip/a-0/a-0_000.mp4", "video_results": 0.6}]]}
    (root / "vbench.json").write_text(json.dumps(scores))
    with pytest.MonkeyPatch.context() as monkeypatch:
        given = folders(
            root, "--fake", f"theirs={root / 'others'}", "training_frames=12", "--vbench-export", str(root / "export"),
            "--vbench-results", f"fake={root / 'vbench.json'}", "--vbench-flags", "--mode long_custom_input",
        )  # fmt: skip
        assert call(monkeypatch, evaluate.main, *given) == 0
    return root


@pytest.mark.slow
def test_result_is_as_the_schema_says_and_holds_rules_folders_and_vbench(evaluated: Path) -> None:
    result = check_result((evaluated / "out" / "results.json").read_text())
    assert [row["name"] for row in result["rows"]] == ["fake", "theirs", "copy-first-frame", "real vs real"]
    assert set(result["rules"]) == {
        "pairing", "frame rate", "length", "size", "clips", "samples", "frame features", "background features"
    }  # fmt: skip
    assert [found["name"] for found in result["video_sets"]] == ["real", "fake", "theirs"]
    assert result["vbench"][0]["flavour"] == "VBench-Long" and result["clips"]["training_frames"] == 12
    assert "allow_import" not in result["config"]
    assert sorted(path.name for path in (evaluated / "export").iterdir()) == ["fake", "theirs"]
    assert (evaluated / "export" / "theirs" / "videos" / "sample 1-0.mp4").is_file()


@pytest.mark.slow
def test_page_says_how_every_number_was_made(evaluated: Path) -> None:
    page = (evaluated / "out" / "report.html").read_text()
    result = json.loads((evaluated / "out" / "results.json").read_text())
    for metric in result["metrics"]:
        if metric["key"] in result["rows"][0]["metrics"]:
            assert f"<dt>{escape(metric['title'])}</dt>" in page
    for text in (*result["rules"].values(), "VBench-Long", "--mode long_custom_input", "time-aligned", "pooled"):
        assert escape(text) in page
    assert page.index(">Consistency ↑") < page.index(">Dynamic degree") < page.index(">Brightness")


@pytest.mark.slow
def test_page_plays_every_video_on_a_phone_without_an_error(evaluated: Path, tmp_path: Path) -> None:
    browser = find_browser()
    if browser is None:
        pytest.skip("no Chromium on this machine; install the package chromium")
    page = (evaluated / "out" / "report.html").read_text()
    seen = visit(browser, page, tmp_path)
    assert seen.console == []
    assert seen.found["playing"] == seen.found["videos"] == page.count("<video") > 2
    assert seen.found["images"] == page.count("<img") > 5
    assert seen.found["width"] == PHONE_WIDTH and seen.found["content_width"] <= PHONE_WIDTH
    # Names stay in sight: they must be readable and leave room for numbers.
    assert PHONE_WIDTH / 4 < seen.found["narrowest_name"] <= seen.found["widest_name"] < PHONE_WIDTH / 2


@pytest.mark.slow
def test_browser_test_sees_errors_silent_videos_and_overflow(evaluated: Path, tmp_path: Path) -> None:
    browser = find_browser()
    if browser is None:
        pytest.skip("no Chromium on this machine; install the package chromium")
    page = "<html><body><p style='width:999px'>wide</p><video src='data:video/mp4;base64,AAAA'></video>"
    seen = visit(browser, page + "<script>absent();</script></body></html>", tmp_path, seconds=4)
    assert any("absent is not defined" in line for line in seen.console)
    assert (seen.found["videos"], seen.found["playing"]) == (1, 0) and seen.found["content_width"] > PHONE_WIDTH


@pytest.mark.slow
def test_rows_of_one_evaluation_are_compared_as_sets_where_names_differ(
    evaluated: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    out = evaluated / "comparison"
    places = [f"{evaluated / 'out'}:{row}" for row in ("fake", "theirs")]
    assert call(monkeypatch, compare.main, *places, "--out", str(out)) == 0
    printed = capsys.readouterr().out
    assert "theirs − fake" in printed and "not paired" in printed
    assert sorted(path.name for path in out.iterdir()) == [
        "comparison.csv", "comparison.md", "comparison.tex", "forest.png"
    ]  # fmt: skip


@pytest.mark.slow
def test_groups_are_compared_from_the_command_line_and_not_beside_single_runs(
    evaluated: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    row = f"{evaluated / 'out'}:fake"
    assert call(monkeypatch, compare.main, row, "--group", f"a={row}") == 2
    assert "and not both" in capsys.readouterr().err
    assert call(monkeypatch, compare.main, "--group", f"a={row},{row}", "--group", f"b={row}") == 2
    assert "same evaluation twice" in capsys.readouterr().err


def test_comparison_of_nothing_is_one_line_and_exit_code_2(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    assert call(monkeypatch, compare.main, str(tmp_path / "none"), str(tmp_path)) == 2
    assert capsys.readouterr().err.splitlines()[0].endswith("it is the out=... of scripts/evaluate.py.")


def break_unreadable(root: Path) -> None:
    (root / "fake" / "clip_0.mp4").write_bytes(b"no video at all" * 99)


def break_empty(root: Path) -> None:
    for path in (root / "fake").iterdir():
        path.unlink()


def leave_one(root: Path) -> None:
    (root / "fake" / "clip_1.mp4").unlink()


def break_nothing(root: Path) -> None: ...


def mix_sizes(root: Path) -> None:
    write_folder(root / "real", {"large": moving_texture(9, size=32)})


def shorten(root: Path) -> None:
    write_folder(root / "fake", {"clip_0": moving_texture(0, frames=5)})


@pytest.mark.parametrize(
    ("breaks", "more", "message"),
    [
        (break_empty, [], "error: {root}/fake: no videos in this folder"),
        (leave_one, [], "error: {root}/fake: 1 of 1 videos have 24 frames or more; a comparison of sets needs at"),
        (shorten, [], "error: 5 frames ({root}/fake/clip_0.mp4 is the shortest), 0 of them history, leave no clip of"),
        (shorten, ["num_frames=20"], "error: {root}/fake: 1 of 2 videos have 20 frames or more"),
        (mix_sizes, [], "error: the real videos have 2 sizes (16x16, 32x32); choose one: height=16 width=16."),
        (break_unreadable, [], "error: {root}/fake/clip_0.mp4: "),
        (break_nothing, ["detectors=[i3d_torchscript:none.pt]"], "error: I3D file 'none.pt' does not exist;"),
        (break_nothing, ["detectors=[unknown]"], "error: detector 'unknown' is not known; choose one of"),
        (break_nothing, ["detectors=[state]"], "error: detector state reads synthetic scenes only"),
        (break_nothing, ["frame_encoder=eyes"], "error: frame encoder 'eyes' is not known; choose one of"),
        (break_nothing, ["detectors=[]"], "error: detectors=[] names none"),
        (break_nothing, ["detectors=[json:dumps]"], "error: detector 'json:dumps' would import the module 'json'"),
        (break_nothing, ["allow_import=true"], "error: allow_import: unknown key"),
        (break_nothing, ["--fake", "real=x"], "error: --fake real: choose a name"),
        (break_nothing, ["--fake", "other/fake"], "error: --fake: two folders are named fake"),
        (break_nothing, ["--fake", "nowhere"], "error: nowhere: no such folder or manifest of videos."),
        (break_nothing, ["--vbench-results", "fake=none.json"], "error: VBench results none.json do not exist"),
        (break_nothing, ["--vbench-results", "mine=none.json"], "error: --vbench-results mine=...: no such row; the"),
        (break_nothing, ["fps=99"], "error: fps=99 is more than the 8 of"),
        (break_nothing, ["stride_frames=3"], "error: stride_frames=3 must divide window_frames=8."),
    ],
)  # fmt: skip
def test_users_mistake_is_one_line_and_exit_code_2(
    breaks: Callable[[Path], None], more: list[str], message: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
) -> None:  # fmt: skip
    write_real_and_fake(tmp_path, 2)
    breaks(tmp_path)
    assert call(monkeypatch, evaluate.main, *folders(tmp_path, *more)) == 2
    errors = [line for line in capsys.readouterr().err.replace("\r", "\n").splitlines() if line.startswith("error")]
    assert len(errors) == 1 and errors[0].startswith(message.format(root=tmp_path))


@pytest.mark.parametrize(
    ("given", "message"),
    [
        ([], "give --checkpoint RUN or --config FILE to roll models out, or --real DIR and --fake DIR"),
        (["--fake", "a"], "--fake needs --real DIR"),
        (["--real", "a"], "--real needs --fake"),
    ],
)
def test_half_a_call_says_what_is_missing(
    given: list[str], message: str, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    assert call(monkeypatch, evaluate.main, *given) == 2
    assert message in capsys.readouterr().err


def test_code_of_the_users_runs_only_with_the_flag(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    (tmp_path / "my_detector.py").write_text("def wrong(clips):\n    return clips[0, 0, 0, 0]\n")
    monkeypatch.syspath_prepend(str(tmp_path))
    write_real_and_fake(tmp_path, 2)
    given = folders(tmp_path, "detectors=[my_detector:wrong]")
    assert call(monkeypatch, evaluate.main, *given) == 2
    assert "which was not allowed" in capsys.readouterr().err
    assert call(monkeypatch, evaluate.main, *given, "--allow-import") == 2
    assert "returned shape (3,) for one clip" in capsys.readouterr().err
