import sys

import pytest

import sensitivity
from _cli import run_script


def run(monkeypatch, *arguments):
    monkeypatch.setattr(sys, "argv", ["sensitivity.py", *map(str, arguments)])
    with pytest.raises(SystemExit) as exit_info:
        run_script(sensitivity.main)
    return exit_info.value.code


@pytest.mark.slow
def test_tables_go_between_the_markers_and_the_rest_of_the_document_stays(tmp_path, monkeypatch, capsys):
    document = tmp_path / "page.md"
    document.write_text(f"# Before\n{sensitivity.BEGIN}\nearlier tables\n{sensitivity.END}\nafter\n")
    code = run(monkeypatch, "--videos", 2, "--clips", 8, "--into", document)
    assert code in (0, 1)  # two videos decide nothing
    text = document.read_text()
    assert text.startswith(f"# Before\n{sensitivity.BEGIN}\nMade by `python scripts/sensitivity.py --videos 2")
    assert text.endswith(f"{sensitivity.END}\nafter\n")
    assert "earlier tables" not in text
    assert "| fd_random3d |" in text
    assert "| metric | undamaged |" in capsys.readouterr().out


def test_document_without_markers_is_refused_before_anything_is_measured(tmp_path, monkeypatch, capsys):
    document = tmp_path / "page.md"
    document.write_text("no markers")
    assert run(monkeypatch, "--into", document) == 2
    assert "lacks the lines" in capsys.readouterr().err
    assert document.read_text() == "no markers"


@pytest.mark.parametrize(("value", "said"), [(123.4, "123"), (0.0123456, "0.0123"), (-0.5, "-0.5"), (1e-5, "0")])
def test_numbers_have_three_digits(value, said):
    assert sensitivity.number(value) == said
