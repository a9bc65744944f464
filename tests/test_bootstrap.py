"""What scripts/bootstrap.sh asks of pip, seen through an interpreter that records instead of installing."""

import shutil
import subprocess
import sys
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parents[1]

pytestmark = pytest.mark.skipif(sys.platform == "win32", reason="needs bash")

# Answers `-m venv` and `-m pip` itself, hands programs and one-liners about Python on to the real interpreter.
FAKE_PYTHON = """#!/usr/bin/env bash
log="$FAKE/log"
version() { cat "$FAKE/torch" 2>/dev/null; }
case "$*" in
  "-m venv --clear "*) rm -rf "$4"; mkdir -p "$4/bin"; cp "$0" "$4/bin/python"; echo venv >>"$log" ;;
  "-m pip --version") ;;
  "-m pip freeze") version | sed 's/^/torch==/' ;;
  "-m pip index versions torch") cat "$FAKE/offered" ;;
  "-m pip install "*)
    echo "pip ${*:3}" >>"$log"
    case "$*" in
      *"torch>=2.9,!="*) echo 9.0.0 >"$FAKE/torch" ;;
      *-e*) [ ! -e "$FAKE/broken" ] || exit 1 ;;
      *) [ -s "$FAKE/torch" ] || cp "$FAKE/resolves" "$FAKE/torch" ;;
    esac ;;
  *'m.version("torch")'*) version ;;
  *torch.version.cuda*) case "$(version)" in *+cpu) echo ;; *) echo 13.0 ;; esac ;;
  *torch.cuda.is_available*) ;;
  *ensurepip*) [ ! -e "$FAKE/no_ensurepip" ] ;;
  *) exec "$REAL_PYTHON" "$@" ;;
esac
"""


class Checkout:
    """A copy of what bootstrap.sh reads, with a fake interpreter and a fake GPU."""

    def __init__(self, folder: Path) -> None:
        self.root = folder / "a checkout"
        self.fake = folder / "fake"
        (self.root / "scripts").mkdir(parents=True)
        (self.fake / "bin").mkdir(parents=True)
        for name in ("setup.py", "constraints.txt", "scripts/bootstrap.sh"):
            shutil.copy(ROOT / name, self.root / name)
        self.program("python3", FAKE_PYTHON)
        self.set_gpu(False)
        self.pip_offers("2.14.0", "2.13.0+cpu", "2.13.0", resolves="2.13.0+cpu")

    def program(self, name: str, text: str) -> None:
        path = self.fake / "bin" / name
        path.write_text(text)
        path.chmod(0o755)

    def set_gpu(self, present: bool) -> None:
        self.program("nvidia-smi", "#!/bin/sh\n" + ("echo 'GPU 0: fake'" if present else "exit 9"))

    def pip_offers(self, *versions: str, resolves: str) -> None:
        (self.fake / "offered").write_text(f"torch ({versions[0]})\nAvailable versions: {', '.join(versions)}\n")
        (self.fake / "resolves").write_text(resolves)

    def bootstrap(self, *extras: str, **env: str) -> "subprocess.CompletedProcess[str]":
        (self.fake / "log").write_text("")
        return subprocess.run(
            [str(self.root / "scripts" / "bootstrap.sh"), *extras],
            cwd="/",
            env={
                "PATH": f"{self.fake / 'bin'}:/usr/bin:/bin",
                "FAKE": str(self.fake),
                "REAL_PYTHON": sys.executable,
                "PYTHON": str(self.fake / "bin" / "python3"),
                **env,
            },
            capture_output=True,
            text=True,
        )

    @property
    def log(self) -> list[str]:
        return (self.fake / "log").read_text().splitlines()


@pytest.fixture
def checkout(tmp_path: Path) -> Checkout:
    return Checkout(tmp_path)


def test_second_run_does_nothing(checkout: Checkout) -> None:
    assert checkout.bootstrap("dev").returncode == 0
    assert checkout.log[0] == "venv" and len(checkout.log) == 3
    again = checkout.bootstrap("dev")
    assert (again.returncode, again.stdout, checkout.log) == (0, "", [])


def test_without_gpu_the_constraint_chooses_torch_and_nothing_later_replaces_it(checkout: Checkout) -> None:
    checkout.bootstrap("dev", "hf")
    assert checkout.log[1:] == [
        "pip install --disable-pip-version-check -qq torch -c constraints.txt",
        "pip install --disable-pip-version-check -qq -e .[dev,hf] -c .venv/torch-constraint.txt",
    ]
    assert (checkout.root / ".venv" / "torch-constraint.txt").read_text() == "torch==2.13.0+cpu\n"


def test_changed_requirements_and_new_extras_install_again_in_the_same_environment(checkout: Checkout) -> None:
    checkout.bootstrap("dev")
    checkout.bootstrap("demo")
    assert "venv" not in checkout.log and len(checkout.log) == 2
    with (checkout.root / "setup.py").open("a") as file:
        file.write("# changed\n")
    checkout.bootstrap("dev")
    assert "venv" not in checkout.log and len(checkout.log) == 2


def test_interrupted_set_up_is_taken_up_again(checkout: Checkout) -> None:
    (checkout.fake / "broken").touch()
    assert checkout.bootstrap("dev").returncode != 0
    (checkout.fake / "broken").unlink()
    assert checkout.bootstrap("dev").returncode == 0
    assert any("-e .[dev]" in line for line in checkout.log)


def test_moved_checkout_gets_a_new_environment(checkout: Checkout, tmp_path: Path) -> None:
    checkout.bootstrap("dev")
    checkout.root = checkout.root.rename(tmp_path / "elsewhere")
    checkout.bootstrap("dev")
    assert checkout.log[0] == "venv"


@pytest.mark.skipif(sys.platform != "linux", reason="elsewhere the plain build of torch is the CPU build")
def test_missing_cpu_build_is_said_before_anything_is_downloaded(checkout: Checkout) -> None:
    checkout.pip_offers("2.14.0", "2.13.0", resolves="2.13.0")
    run = checkout.bootstrap("dev")
    assert run.returncode == 0
    assert run.stdout.index("VIDEO_MIRAI_TORCH") < run.stdout.index("installing torch")
    checkout.bootstrap("demo")
    assert "VIDEO_MIRAI_TORCH" not in checkout.bootstrap("demo").stdout


def test_with_gpu_a_cpu_build_is_replaced(checkout: Checkout) -> None:
    checkout.bootstrap("dev")
    checkout.set_gpu(True)
    run = checkout.bootstrap("dev")
    assert run.returncode == 0
    assert "torch>=2.9,!=2.13.0+cpu" in "\n".join(checkout.log)
    assert (checkout.root / ".venv" / "torch-constraint.txt").read_text() == "torch==9.0.0\n"


def test_choice_of_torch_is_remembered(checkout: Checkout) -> None:
    checkout.bootstrap("dev", VIDEO_MIRAI_TORCH="torch==2.12.1 --no-cache-dir")
    assert checkout.log[1].endswith("-qq torch==2.12.1 --no-cache-dir")
    assert checkout.bootstrap("dev").stdout == ""
    checkout.bootstrap("demo")
    assert checkout.log[0].endswith("-qq torch==2.12.1 --no-cache-dir")


def test_python_without_ensurepip_is_one_line_and_exit_code_2(checkout: Checkout) -> None:
    (checkout.fake / "no_ensurepip").touch()
    run = checkout.bootstrap("dev")
    assert run.returncode == 2
    assert run.stderr.count("\n") == 1 and "python3-venv" in run.stderr


def test_missing_python_is_one_line_and_exit_code_2(checkout: Checkout) -> None:
    run = checkout.bootstrap("dev", PYTHON="/nowhere/python3")
    assert run.returncode == 2
    assert run.stderr.count("\n") == 1 and "PYTHON=/nowhere/python3" in run.stderr
