"""Whatever a config file or an override holds: a config, or one line that says what is wrong."""

import re
from pathlib import Path

from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from tiny_training import TINY

from video_mirai.config import RunConfig, load_config

SETTINGS = settings(
    derandomize=True, deadline=None, max_examples=60, suppress_health_check=[HealthCheck.function_scoped_fixture]
)
ORIGINAL = TINY.read_bytes()
KEYS = re.findall(r"[a-z_]+", TINY.read_text())
# Other people's text never starts with a base file: that is another file's business.
TEXT = st.text(max_size=20)
VALUES = st.one_of(st.none(), st.booleans(), st.integers(), st.floats(), TEXT, st.lists(st.integers(), max_size=3))


def config_or_message(path: Path, overrides: list[str]) -> RunConfig | str:
    try:
        return load_config(RunConfig, path, overrides)
    except (ValueError, FileNotFoundError) as error:
        return str(error).strip()


@SETTINGS
@given(st.integers(0, len(ORIGINAL) - 1), st.binary(max_size=4), st.integers(0, 40))
def test_any_damage_to_a_file_gives_a_config_or_a_value_error(
    tmp_path: Path, position: int, inserted: bytes, removed: int
) -> None:
    path = tmp_path / "x.yaml"
    path.write_bytes(ORIGINAL[:position] + inserted + ORIGINAL[position + removed :])
    assert config_or_message(path, [])  # an empty message says nothing


@SETTINGS
@given(st.lists(st.sampled_from(KEYS), min_size=1, max_size=3), VALUES)
def test_any_override_gives_a_config_or_a_value_error(keys: list[str], value: object) -> None:
    assert config_or_message(TINY, [f"{'.'.join(keys)}={value}"])


@SETTINGS
@given(TEXT)
def test_any_text_as_override_gives_a_config_or_a_value_error(text: str) -> None:
    assert config_or_message(TINY, [text])
