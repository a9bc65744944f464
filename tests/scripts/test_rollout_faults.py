"""A rollout that cannot go on: what it has made is kept, and one line says why it ended."""

import os
import signal
import socket
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import imageio.v3 as iio
import numpy as np
import pytest
import torch
from forked_script import ForkedScript
from torch import Tensor

import rollout
from video_mirai.models import cache_size
from video_mirai.sampling import solvers

RollOut = Callable[..., int]
BYTES_OF_FRAME = 16 * 16 * 3


def frames_of(path: Path) -> np.ndarray:
    return iio.imread(path, plugin="pyav")


def last_line(capsys: pytest.CaptureFixture[str]) -> str:
    return capsys.readouterr().err.strip().splitlines()[-1]


def test_latents_that_are_no_numbers_stop_the_rollout_at_a_named_frame(
    roll_out: RollOut, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    solved = []

    def solve_until_the_sixth(velocity_of: solvers.VelocityFn, x: Tensor, sigmas: Tensor) -> Tensor:
        solved.append(solvers.solve_euler(velocity_of, x, sigmas))
        return solved[-1] if len(solved) < 6 else torch.full_like(x, torch.nan)

    monkeypatch.setitem(solvers.SOLVERS, "euler", solve_until_the_sixth)
    out = tmp_path / "long.mp4"
    assert roll_out("--history", "dataset", "--history-frames", 2, "--frames", 20, "--out", out) == 1
    line = last_line(capsys)
    assert line.startswith(f"error: frame 7 of {out}: the latents are NaN or infinite; the 7 frames before it are kept")
    assert len(frames_of(out)) == 7


def test_a_full_disk_is_one_line_and_what_is_written_plays(
    roll_out: RollOut, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    resource = pytest.importorskip("resource")
    before = resource.getrlimit(resource.RLIMIT_FSIZE)
    out = tmp_path / "long.npy"
    resource.setrlimit(resource.RLIMIT_FSIZE, (128 + 12 * BYTES_OF_FRAME + 100, before[1]))
    try:
        code = roll_out("--history", "none", "--frames", 40, "--steps", 1, "--out", out)
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, before)
    assert code == 1
    assert last_line(capsys) == (f"error: cannot go on writing {out}: File too large; 12 frames were written before.")
    assert len(np.load(out)) == 12


def test_a_folder_that_cannot_be_made_is_one_line_before_anything_is_generated(
    roll_out: RollOut, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    (tmp_path / "file").write_text("")
    assert roll_out("--history", "dataset", "--frames", 2, "--out", tmp_path / "file" / "long.mp4") == 2
    assert last_line(capsys).startswith("error: ")


def test_a_window_that_memory_has_no_room_for_is_refused_with_the_bytes(
    roll_out: RollOut, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setattr(cache_size, "available_bytes", lambda device: 60_000)
    usual = ("--history", "none", "--frames", 2, "--out", tmp_path / "long.mp4")
    assert roll_out(*usual, "--window", 2) == 0
    assert roll_out(*usual, "--window", 40_000) == 2
    line = last_line(capsys)
    assert "bytes, but 60,000 are available on cpu; at most window_frames=" in line
    largest = line.split("window_frames=")[-1].split(" ")[0]
    assert roll_out(*usual, "--window", largest) == 0
    assert roll_out(*usual, "--window", int(largest) + 1) == 2


Start = Callable[..., ForkedScript]


@pytest.fixture
def start(run_folder: Path, tmp_path: Path) -> Iterator[Start]:
    """Starts the script in a process of its own; what is left of it at the end is killed."""
    started: list[ForkedScript] = []

    def begin(*words: object, **settings: Any) -> ForkedScript:
        command = ["rollout.py", "--checkpoint", str(run_folder), "--device", "cpu", *map(str, words)]
        started.append(ForkedScript(rollout.main, command, tmp_path / f"log{len(started)}", **settings))
        return started[-1]

    yield begin
    for script in started:
        script.kill()


def start_endless(start: Start, out: Path, *words: object) -> ForkedScript:
    """A rollout that has written some seconds of its file already."""
    usual = ("--history", "none", "--frames", 1_000_000, "--steps", 1, "--fps", 4)
    script = start(*usual, "--out", out, *words)
    deadline = time.monotonic() + 100
    while (not out.is_file() or out.stat().st_size < 5_000) and time.monotonic() < deadline:
        assert not script.has_ended, script.log.read_text()
        time.sleep(0.02)
    return script


def test_a_rollout_killed_with_sigkill_leaves_a_video_that_plays(start: Start, tmp_path: Path) -> None:
    out = tmp_path / "long.mp4"
    script = start_endless(start, out)
    os.killpg(script.pid, signal.SIGKILL)
    assert script.exit_code() == -signal.SIGKILL
    assert len(frames_of(out)) >= 4


@pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGINT])
def test_a_signal_finishes_the_file_and_says_how_many_frames_it_holds(
    start: Start, tmp_path: Path, number: signal.Signals
) -> None:
    out = tmp_path / "long.mp4"
    script = start_endless(start, out)
    os.killpg(script.pid, number)  # as a terminal or a batch system does
    assert script.exit_code() == 130
    said = script.log.read_text()
    count = len(frames_of(out))
    assert (
        f"stopped by {number.name}: {out} is finished and holds 0 frames of history and {count} of 1000000 generated."
    ) in said
    assert "Traceback" not in said


@pytest.mark.parametrize("bytes_read", [5 * BYTES_OF_FRAME, 2 * BYTES_OF_FRAME + 1])
def test_a_pipe_gets_frames_and_nothing_else_and_may_be_closed_at_any_time(start: Start, bytes_read: int) -> None:
    ours, theirs = os.pipe()
    # More frames than a pipe holds: one that is closed early has to be noticed.
    frames = 5 if bytes_read == 5 * BYTES_OF_FRAME else 300
    script = start("--history", "none", "--frames", frames, "--steps", 1, "--out", "-", stdout=theirs, closed=(ours,))
    os.close(theirs)
    with open(ours, "rb") as pipe:
        assert len(pipe.read(bytes_read)) == bytes_read
        if frames == 5:
            assert pipe.read() == b""
    assert script.exit_code() == 0
    said = script.log.read_text()
    assert "ffmpeg -f rawvideo -pix_fmt rgb24 -s 16x16 -r 10 -i - -pix_fmt yuv420p out.mp4" in said
    assert "Traceback" not in said and "error" not in said


def test_two_processes_write_the_same_files_as_one(start: Start, roll_out: RollOut, tmp_path: Path) -> None:
    words = ("--history", "dataset", "--index", 0, 1, 5, "--seeds", 0, 3, "--frames", 4, "--format", "npy", "--out")
    assert roll_out(*words, tmp_path / "one") == 0
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        port = free.getsockname()[1]
    meeting = {"MASTER_ADDR": "127.0.0.1", "MASTER_PORT": str(port), "WORLD_SIZE": "2", "ACCELERATE_USE_CPU": "1"}
    ranks = [start(*words, tmp_path / "two", environment=meeting | {"RANK": rank, "LOCAL_RANK": rank}) for rank in "01"]
    for rank in ranks:
        assert rank.exit_code() == 0, rank.log.read_text()
        assert rank.log.read_text().count(" generated, ") == 3
    contents = [{path.name: path.read_bytes() for path in (tmp_path / name).iterdir()} for name in ("one", "two")]
    assert len(contents[0]) == 6
    assert contents[0] == contents[1]


def test_a_saved_state_goes_on_bit_for_bit(roll_out: RollOut, tmp_path: Path) -> None:
    usual, state = ("--seed", 3, "--out"), tmp_path / "state.safetensors"
    clip = ("--history", "dataset", "--history-frames", 2)
    assert roll_out(*clip, "--frames", 9, *usual, tmp_path / "whole.npy") == 0
    assert roll_out(*clip, "--frames", 4, "--save-state", state, *usual, tmp_path / "first.npy") == 0
    assert roll_out("--history", "none", "--load-state", state, "--frames", 5, *usual, tmp_path / "rest.npy") == 0
    whole, first, rest = (np.load(tmp_path / f"{name}.npy") for name in ("whole", "first", "rest"))
    np.testing.assert_array_equal(np.concatenate([first, rest]), whole)


@pytest.mark.parametrize(
    ("options", "message"),
    [
        (("--history", "dataset", "--load-state", "state.safetensors"), "say --history none"),
        (("--history", "none", "--load-state", "missing.safetensors"), "does not exist"),
        (("--history", "none", "--save-state", "missing/state.safetensors"), "the folder missing does not exist"),
        (("--history", "none", "--seeds", 0, 1, "--save-state", "state.safetensors"), "that of one video"),
    ],
)
def test_a_state_that_cannot_be_is_one_line(
    roll_out: RollOut, tmp_path: Path, capsys: pytest.CaptureFixture[str], options: tuple, message: str
) -> None:
    assert roll_out(*options, "--frames", 1, "--out", f"{tmp_path}/out/") == 2
    assert message in last_line(capsys)
