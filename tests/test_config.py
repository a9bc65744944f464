"""YAML and overrides become dataclasses; mistakes are named by their full key."""

from dataclasses import dataclass, field
from pathlib import Path
from typing import Literal

import pytest
from tiny_training import TINY, TINY_FORESIGHT

from video_mirai.config import RunConfig, load_config, save_config


@dataclass
class Inner:
    width: int = 4
    rate: float = 0.1
    kind: Literal["a", "b"] = "a"
    window: tuple[int, int] = (0, 1)


@dataclass
class Outer:
    name: str
    inner: Inner = field(default_factory=Inner)
    maybe: Inner | None = None
    named: dict[str, str] = field(default_factory=dict)


def write(folder: Path, text: str, name: str = "x.yaml") -> Path:
    path = folder / name
    path.write_text(text)
    return path


def test_file_then_overrides_win_over_defaults(tmp_path: Path) -> None:
    path = write(tmp_path, "name: run\ninner: {width: 8, rate: 1}\n")
    config = load_config(Outer, path, ["inner.rate=2e-3", "maybe.width=3", "named.first=runs/a"])
    assert config == Outer("run", Inner(8, 0.002), Inner(3), {"first": "runs/a"})


def test_base_file_is_relative_and_loses(tmp_path: Path) -> None:
    (tmp_path / "deep").mkdir()
    write(tmp_path, "name: base\ninner: {width: 8, kind: b}\n", "base.yaml")
    path = write(tmp_path / "deep", "base: ../base.yaml\ninner: {width: 9}\n")
    assert load_config(Outer, path) == Outer("base", Inner(9, kind="b"))


def test_block_can_be_switched_off_and_on(tmp_path: Path) -> None:
    path = write(tmp_path, "name: run\nmaybe: {width: 2}\n")
    assert load_config(Outer, path, ["maybe=null"]).maybe is None
    assert load_config(Outer, path, ["maybe=null", "maybe.rate=1"]).maybe == Inner(rate=1.0)


@pytest.mark.parametrize(
    ("override", "message"),
    [
        ("inner.widht=3", r"^inner\.widht: unknown key \(command line\); known here: width, rate, kind, window"),
        ("iner.width=3", r"^iner: unknown key"),
        ("inner.width=many", r"^inner\.width: .*'many'"),
        ("inner.width=1.5", r"^inner\.width: "),
        ("inner.rate=true", r"^inner\.rate: "),
        ("inner.width=null", r"^inner\.width: "),
        ("inner.kind=c", r"^inner\.kind: .*'c'"),
        ("inner.window=[1,2,3]", r"^inner\.window: "),
        ("inner=3", r"^inner: "),
        ("inner.width.deeper=3", r"^inner\.width"),
        ("inner.width", r"^override 'inner.width' is not of the form"),
        ("inner.window=[1,", r"^inner\.window: cannot read the value"),
    ],
)
def test_mistake_on_the_command_line_is_named_by_its_full_key(tmp_path: Path, override: str, message: str) -> None:
    with pytest.raises(ValueError, match=message):
        load_config(Outer, write(tmp_path, "name: run\n"), [override])


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("inner: {width: 3}\n", r"^name: no value given"),
        ("name: run\ninner: {width: x}\n", r"^inner\.width: .*x\.yaml"),
        ("name: run\nmaybe: {nope: 1}\n", r"^maybe\.nope: unknown key"),
        ("name: [unclosed\n", r"not valid YAML"),
        ("- 1\n- 2\n", r"expected keys and values"),
        ("base: x.yaml\n", r"leads back to itself"),
        ("name: run\n_target_: os.system\n", r"^_target_: unknown key"),
    ],
)
def test_mistake_in_a_file_is_named(tmp_path: Path, text: str, message: str) -> None:
    with pytest.raises(ValueError, match=message):
        load_config(Outer, write(tmp_path, text))


def test_missing_file_and_missing_base_are_named(tmp_path: Path) -> None:
    with pytest.raises(FileNotFoundError, match=r"none\.yaml does not exist"):
        load_config(Outer, tmp_path / "none.yaml")
    with pytest.raises(FileNotFoundError, match=r"gone\.yaml does not exist"):
        load_config(Outer, write(tmp_path, "base: gone.yaml\n"))


@pytest.mark.parametrize("path", [TINY, TINY_FORESIGHT])
def test_saved_config_reads_back_equal(tmp_path: Path, path: Path) -> None:
    config = load_config(RunConfig, path)
    save_config(config, tmp_path / "run.yaml")
    assert load_config(RunConfig, tmp_path / "run.yaml") == config
