"""The published schema of results.json."""

import json
from pathlib import Path
from typing import Any

from jsonschema import Draft202012Validator

SCHEMA: dict[str, Any] = json.loads(
    (Path(__file__).resolve().parents[2] / "docs" / "result-schema.json").read_text(encoding="utf-8")
)


def check_result(text: str) -> dict[str, Any]:
    """The result in a results.json; raises ValidationError where it is not as published."""
    result = json.loads(text)
    Draft202012Validator(SCHEMA).validate(result)
    return result
