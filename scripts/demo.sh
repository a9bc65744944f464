#!/usr/bin/env bash
# Sets up .venv and runs the demo: data, teacher, students, rollouts, evaluation, report.  ./scripts/demo.sh --help
set -euo pipefail
cd "$(dirname "${BASH_SOURCE[0]}")/.."
scripts/bootstrap.sh demo detectors
exec .venv/bin/python scripts/demo.py "$@"
