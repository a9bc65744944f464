"""The reference inputs and values of tests/reference, made by independent implementations."""

import json
import runpy
from pathlib import Path
from typing import Any

FOLDER = Path(__file__).parents[1] / "reference"
CASES: dict[str, Any] = runpy.run_path(str(FOLDER / "cases.py"))
VALUES: dict[str, Any] = json.loads((FOLDER / "values.json").read_text())


def close(value: float, expected: float, tolerance: float = 1e-6) -> bool:
    return abs(value - expected) <= tolerance * max(1.0, abs(expected))
