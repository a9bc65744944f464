#!/usr/bin/env bash
# Sets up .venv and runs every check. Arguments go to pytest:  ./scripts/test.sh -k rollout
set -euo pipefail
cd "$(dirname "${BASH_SOURCE[0]}")/.."
scripts/bootstrap.sh dev hf demo detectors

# One thread a process: pytest already runs one process a core.
export OMP_NUM_THREADS="${OMP_NUM_THREADS:-1}"
export MPLBACKEND=Agg
bin=.venv/bin
failed=""

check() {
  echo "== $*"
  "$bin/$@" || failed="${failed:+$failed, }$*"
}

check ruff check .
check ruff format --check .
check mypy
check lint-imports
check pytest -n logical --maxprocesses 8 "$@"

if [ -n "$failed" ]; then
  echo "failed: $failed" >&2
  exit 1
fi
