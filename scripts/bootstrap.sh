#!/usr/bin/env bash
# Makes .venv at the root of the checkout with video_mirai and the named extras; a second run skips what is done.
#
#   scripts/bootstrap.sh [EXTRA ...]      extras of setup.py: dev, demo, detectors, hf, xformers
#
# PYTHON               the interpreter that makes .venv (default: the first suitable one found)
# VIDEO_MIRAI_TORCH    what pip shall install as torch: a requirement, a wheel file, any pip arguments.
#                      Remembered in .venv. docs/installation.md lists the choices.
set -euo pipefail
cd "$(dirname "${BASH_SOURCE[0]}")/.."

MIN_TORCH="2.9"
venv=".venv"
venv_python="$venv/bin/python"
choice_file="$venv/.torch-choice"

say() { printf '[set-up] %s\n' "$*"; }
die() {
  printf '[set-up] error: %s\n' "$*" >&2
  exit 2
}

is_recent_python() { "$1" -c 'import sys; sys.exit(sys.version_info < (3, 10))' >/dev/null 2>&1; }
can_make_venv() { "$1" -c 'import ensurepip, venv' >/dev/null 2>&1; }

# Prints the interpreter to make .venv with.
find_python() {
  local candidate recent=""
  local candidates=(python3 python3.14 python3.13 python3.12 python3.11 python3.10 python)
  if [ -n "${PYTHON:-}" ]; then candidates=("$PYTHON"); fi
  for candidate in "${candidates[@]}"; do
    is_recent_python "$candidate" || continue
    recent="$candidate"
    if can_make_venv "$candidate"; then
      echo "$candidate"
      return
    fi
  done
  if [ -n "$recent" ]; then
    die "$recent cannot make virtual environments (no ensurepip); on Debian and Ubuntu: sudo apt install python3-venv"
  fi
  die "no Python >= 3.10 found${PYTHON:+ at PYTHON=$PYTHON}; install one, or name one: PYTHON=/path/to/python $0"
}

has_nvidia_gpu() { command -v nvidia-smi >/dev/null 2>&1 && nvidia-smi -L 2>/dev/null | grep -q '^GPU '; }

# Everything but the extras that decides what ends up in .venv.
fingerprint() {
  "$venv_python" - "$device" "$choice" <<'PY'
import hashlib, sys
from pathlib import Path

parts = [sys.version, *sys.argv[1:]]
parts += [Path(name).read_text() for name in ("setup.py", "constraints.txt", "scripts/bootstrap.sh")]
print(hashlib.sha256("\0".join(parts).encode()).hexdigest()[:16])
PY
}

pip_install() {
  local quiet="-qq" # errors only
  if [ -t 1 ]; then quiet=""; fi
  "$venv_python" -m pip install --disable-pip-version-check $quiet "$@"
}

installed_torch() { "$venv_python" -c 'import importlib.metadata as m; print(m.version("torch"))'; }
torch_cuda() { "$venv_python" -c 'import torch; print(torch.version.cuda or "")'; }

install_cuda_torch() {
  say "NVIDIA GPU found: installing the CUDA build of torch (several GB)"
  pip_install "torch>=$MIN_TORCH"
  if [ -z "$(torch_cuda)" ]; then
    # pip found or preferred a CPU build: ask for any other.
    pip_install --upgrade "torch>=$MIN_TORCH,!=$(installed_torch)"
  fi
  if ! "$venv_python" -c 'import sys, torch; sys.exit(not torch.cuda.is_available())' 2>/dev/null; then
    say "warning: torch $(installed_torch) cannot use this GPU (driver too old for its CUDA $(torch_cuda), or a CPU build);"
    say "         everything will run on the CPU. VIDEO_MIRAI_TORCH chooses another build: docs/installation.md"
  fi
}

# Lists what pip offers without downloading it. Only Linux needs the question: elsewhere the plain build is the CPU build.
warn_without_cpu_build() {
  local wanted offered
  [ "$(uname -s)" = Linux ] || return 0
  wanted=$(sed -n 's/^torch==//p' constraints.txt)
  offered=$("$venv_python" -m pip index versions torch 2>/dev/null) || return 0 # pip install will say what is wrong
  if printf '%s' "$offered" | tr ' ,' '\n\n' | grep -qxF "$wanted+cpu"; then return 0; fi
  cat <<TEXT
[set-up] No NVIDIA GPU here, and pip's configuration offers no CPU build of torch $wanted: the plain build brings
[set-up] the CUDA libraries with it, several GB to download and to keep. It works, but you may rather choose:
[set-up]   - point pip's configuration (pip config, or PIP_ variables) at a place that has torch $wanted+cpu, or
[set-up]   - VIDEO_MIRAI_TORCH="<pip requirement, wheel file or pip arguments>" $0
[set-up] docs/installation.md has both. Going on with the plain build.
TEXT
  if [ -t 1 ]; then
    say "Ctrl-C within 10 seconds to choose."
    sleep 10
  fi
}

install_cpu_torch() {
  if [ "$("$venv_python" -m pip freeze 2>/dev/null | grep -c '^torch==')" = 0 ]; then
    warn_without_cpu_build
    say "installing torch for the CPU"
  fi
  pip_install torch -c constraints.txt
}

venv_works() {
  # A checkout that was moved leaves scripts in .venv/bin that point at the old place.
  [ ! -e "$venv/.made-at" ] || [ "$(cat "$venv/.made-at")" = "$PWD" ] || return 1
  is_recent_python "$venv_python" && "$venv_python" -m pip --version >/dev/null 2>&1
}

make_venv() {
  local python
  python=$(find_python)
  say "making $venv with $("$python" --version)"
  "$python" -m venv --clear "$venv"
  printf '%s\n' "$PWD" >"$venv/.made-at"
}

install() {
  local torch_version
  if [ -n "$choice" ]; then
    say "installing torch as VIDEO_MIRAI_TORCH says: $choice"
    # shellcheck disable=SC2086  # several words are several arguments
    pip_install $choice
    printf '%s\n' "$choice" >"$choice_file"
  elif [ "$device" = cuda ]; then
    install_cuda_torch
  else
    install_cpu_torch
  fi
  torch_version=$(installed_torch) || die "torch is not installed after VIDEO_MIRAI_TORCH=$choice"
  # Whatever was chosen stays: nothing that follows may replace it.
  printf 'torch==%s\n' "$torch_version" >"$venv/torch-constraint.txt"
  say "installing video_mirai${extras:+ with $extras}"
  pip_install -e ".${extras:+[$extras]}" -c "$venv/torch-constraint.txt"
  say "done: $("$venv_python" --version), torch $torch_version, $(du -sh "$venv" | cut -f1) in $venv"
}

choice="${VIDEO_MIRAI_TORCH:-$(cat "$choice_file" 2>/dev/null || true)}"
extras=$(IFS=,; echo "$*")
device=cpu
if has_nvidia_gpu; then device=cuda; fi

venv_works || make_venv
stamp=".set-up-$(fingerprint)"
if [ ! -e "$venv/$stamp-$extras" ]; then
  # Stamps of an earlier state (other torch, other setup.py) no longer tell the truth.
  find "$venv" -maxdepth 1 -name '.set-up-*' ! -name "$stamp-*" -delete
  install
  touch "$venv/$stamp-$extras"
fi
