"""docs/result-schema.json says what results.json holds; scripts' tests validate whole results against it."""

import dataclasses
import json

import pytest
from jsonschema import Draft202012Validator, ValidationError
from result_schema import SCHEMA, check_result

from video_mirai.evaluation import results
from video_mirai.evaluation.results import ROW_KINDS, SCHEMA_VERSION

DEFINITIONS = {
    "estimate": results.Estimate, "metric": results.Metric, "curve": results.Curve, "window": results.Window,
    "row": results.Row, "difference": results.Difference, "model": results.ModelInfo,
    "video_set": results.VideoSetInfo, "detector": results.DetectorInfo, "clips": results.ClipsInfo,
    "vbench_score": results.VBenchScore, "vbench": results.VBenchInfo,
}  # fmt: skip


def test_schema_is_one_and_has_the_programs_version() -> None:
    Draft202012Validator.check_schema(SCHEMA)
    assert SCHEMA["properties"]["schema_version"]["const"] == SCHEMA_VERSION
    assert tuple(SCHEMA["$defs"]["row"]["properties"]["kind"]["enum"]) == ROW_KINDS


@pytest.mark.parametrize("name", [*DEFINITIONS, "result"])
def test_schema_has_every_field_and_no_other(name: str) -> None:
    found = SCHEMA if name == "result" else SCHEMA["$defs"][name]
    fields = [field.name for field in dataclasses.fields(DEFINITIONS.get(name, results.EvaluationResult))]
    assert sorted(found["properties"]) == sorted(found["required"]) == sorted(fields)
    assert found["additionalProperties"] is False


def test_a_result_with_a_field_too_many_or_a_wrong_kind_is_refused() -> None:
    with pytest.raises(ValidationError):
        check_result(json.dumps({"rows": []}))
