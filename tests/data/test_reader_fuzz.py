"""Damaged video files: frames or UnreadableVideo, whatever the damage; no other error, no crash, no hang."""

from collections.abc import Callable, Iterator
from concurrent.futures import ProcessPoolExecutor
from itertools import count
from multiprocessing import get_context
from pathlib import Path

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from read_anything import read_anything
from video_kinds import write_kind

SECONDS = 60  # for one file; reading it takes milliseconds
EXAMPLES = settings(
    max_examples=120,
    deadline=None,
    derandomize=True,
    suppress_health_check=[HealthCheck.function_scoped_fixture],
)

Read = Callable[[bytes], str]
Edit = tuple[str, str, float, bytes]

edits = st.tuples(
    st.sampled_from(["flip", "overwrite", "insert", "delete", "truncate"]),
    st.sampled_from(["moov", "stsd", "stts", "ctts", "stsz", "mdat", ""]),  # boxes; "": the whole file
    st.floats(0, 1),
    st.binary(min_size=1, max_size=12) | st.sampled_from([b"\0" * 4, b"\xff" * 4, b"\x7f\xff\xff\xff"]),
)


@pytest.fixture(scope="module")
def content(tmp_path_factory: pytest.TempPathFactory) -> bytes:
    return write_kind(tmp_path_factory.mktemp("sound"), "b_frames.mp4").read_bytes()


@pytest.fixture(scope="module")
def process() -> Iterator[ProcessPoolExecutor]:
    with ProcessPoolExecutor(1, mp_context=get_context("spawn")) as pool:
        yield pool


@pytest.fixture(params=["decord", "pyav"])
def read(request: pytest.FixtureRequest, process: ProcessPoolExecutor, tmp_path: Path) -> Read:
    if request.param == "decord":
        pytest.importorskip("decord")
    numbers = count()

    def read_bytes(content: bytes) -> str:
        path = tmp_path / f"{next(numbers)}.mp4"
        path.write_bytes(content)
        answer = process.submit(read_anything, path, request.param).result(SECONDS)
        assert answer == "read" or answer.startswith(f"{path}: ")
        assert "\n" not in answer
        return answer.removeprefix(f"{path}: ")

    return read_bytes


def test_the_sound_file_is_read(content: bytes, read: Read) -> None:
    assert read(content) == "read"


@EXAMPLES
@given(changes=st.lists(edits, min_size=1, max_size=3))
def test_any_damage_gives_frames_or_a_named_error(content: bytes, read: Read, changes: list[Edit]) -> None:
    for change in changes:
        content = edited(content, change)
    assert read(content)  # "read", or what is wrong with the named file


def edited(content: bytes, change: Edit) -> bytes:
    """One change, at a share of the way from where a box begins to the end of the file, or of 200 bytes of a table."""
    kind, box, share, replacement = change
    first = max(content.find(box.encode()), 0)
    reach = len(content) - first if box in ("", "moov", "mdat") else min(200, len(content) - first)
    at = first + int(share * max(0, reach - 1))
    if kind == "flip" and at < len(content):
        return content[:at] + bytes([content[at] ^ 1 << replacement[0] % 8]) + content[at + 1 :]
    if kind == "insert":
        return content[:at] + replacement + content[at:]
    if kind == "delete":
        return content[:at] + content[at + len(replacement) :]
    if kind == "truncate":
        return content[:at]
    return content[:at] + replacement + content[at + len(replacement) :]


@pytest.mark.parametrize("box", ["stts", "mvhd"])
def test_a_header_that_claims_more_frames_than_fit_into_memory_does_not_end_the_process(
    content: bytes, read: Read, box: str
) -> None:
    """decord alone is aborted by it (std::bad_alloc)."""
    field = content.index(box.encode()) + {"stts": 12, "mvhd": 20}[box]  # number of samples, duration
    answer = read(content[:field] + b"\x7f\xff\xff\xff" + content[field + 4 :])
    assert answer == "read" or "not a readable video" in answer or "claims" in answer
