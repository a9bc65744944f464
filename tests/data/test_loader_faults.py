import faulthandler
import gc
import logging
import multiprocessing
import os
import random
import resource
import signal
import subprocess
import sys
import textwrap
import time
from collections.abc import Callable
from itertools import islice
from multiprocessing.connection import Connection
from pathlib import Path
from typing import Any

import numpy as np
import psutil
import pytest
import torch
from torch.utils.data import DataLoader, Dataset, TensorDataset

from video_mirai.data.batch import ClipKey, VideoBatch, VideoSample
from video_mirai.data.batch_stream import BatchStream, LoaderConfig, TooManyWorkerFailures
from video_mirai.data.loader import EpochSampler
from video_mirai.data.video_reader import UnreadableVideo
from video_mirai.data.worker_pool import WorkerTraceback

NUM_CLIPS = 40
BATCH_SIZE = 4
HANG_SECONDS = 3.0  # long enough for a worker that is only slow because the machine is busy


def segfault() -> None:
    faulthandler.disable()  # pytest's, which would print the worker's stack
    resource.setrlimit(resource.RLIMIT_CORE, (0, 0))
    os.kill(os.getpid(), signal.SIGSEGV)


FAULTS: dict[str, Callable[[], object]] = {
    "died (signal 9, Killed)": lambda: os.kill(os.getpid(), signal.SIGKILL),
    "died (signal 11, Segmentation fault)": segfault,
    "exited with code 3": lambda: os._exit(3),
    f"gave no sign of life for {HANG_SECONDS:g} s": lambda: time.sleep(3600),
}
KILLED = "died (signal 9, Killed)"
HANGS = f"gave no sign of life for {HANG_SECONDS:g} s"


class Clips(Dataset[VideoSample]):
    """Clips whose pixels are drawn from their key; reading one of `faulty` does what `fault` says.

    once: a folder that remembers which clips have had their fault already; None: it comes every time.
    """

    def __init__(self, fault: str = KILLED, faulty: tuple[int, ...] = (), once: Path | None = None) -> None:
        self.fault = fault
        self.faulty = faulty
        self.once = once

    def __getitem__(self, key: ClipKey) -> VideoSample:
        if key.index in self.faulty and self._is_due(key):
            FAULTS[self.fault]()
        generator = torch.Generator().manual_seed(1000 * key.epoch + key.index)
        video = torch.randn(2, 3, 4, 4, generator=generator)
        return VideoSample(
            video=video, state={"epoch": torch.tensor([key.epoch])}, name=f"{key.index}.mp4", index=key.index
        )

    def _is_due(self, key: ClipKey) -> bool:
        if self.once is None:
            return True
        mark = self.once / f"{key.epoch}-{key.index}"
        first = not mark.exists()
        mark.touch()
        return first


class NamedPairs(Clips):
    """Clips 2k and 2k + 1 come from one source."""

    def clip_name(self, index: int) -> str:
        return f"source_{index // 2}.mp4"


class Failing(Clips):
    def __init__(self, error: Exception) -> None:
        super().__init__()
        self.error = error

    def __getitem__(self, key: ClipKey) -> VideoSample:
        if key.index == clip_at(1):
            raise self.error
        return super().__getitem__(key)


class Collecting(Clips):
    """Reading a clip runs the garbage collector, as it does in time in any worker."""

    def __getitem__(self, key: ClipKey) -> VideoSample:
        gc.collect()
        return super().__getitem__(key)


class CollectorState(Clips):
    def __getitem__(self, key: ClipKey) -> VideoSample:
        return {**super().__getitem__(key), "state": {"collects": torch.tensor([gc.isenabled()])}}


class OfOneProcess:
    """Like a decord reader: its threads are its own process's, and freeing it anywhere else is a crash."""

    def __init__(self) -> None:
        self.cycle = self  # so that only the garbage collector ends it, as after an error that holds its frames
        self.pid = os.getpid()

    def __del__(self) -> None:
        if os.getpid() != self.pid:
            os._exit(3)


class Slow(Clips):
    """A batch takes longer than the time limit, a clip does not."""

    def __getitem__(self, key: ClipKey) -> VideoSample:
        time.sleep(0.3 * HANG_SECONDS)
        return super().__getitem__(key)


class CannotTravel(Exception):
    def __init__(self, first: str, second: str) -> None:
        super().__init__(f"{first} and {second}")


def stream(dataset: Clips, num_workers: int = 2, start_step: int = 0, **settings: Any) -> BatchStream:
    config = LoaderConfig(num_workers, **{"timeout_seconds": HANG_SECONDS, **settings})
    return BatchStream(dataset, EpochSampler(NUM_CLIPS, BATCH_SIZE, seed=0, start_step=start_step), config)


def clip_at(step: int, row: int = 1) -> int:
    """Index of a clip of a step's batch."""
    return next(iter(EpochSampler(NUM_CLIPS, BATCH_SIZE, seed=0, start_step=step)))[row].index


def take(num_batches: int, dataset: Clips, num_workers: int = 2, **settings: Any) -> list[VideoBatch]:
    with stream(dataset, num_workers, **settings) as batches:
        return list(islice(batches, num_batches))


def assert_same(got: list[VideoBatch], expected: list[VideoBatch]) -> None:
    assert len(got) == len(expected)
    for one, other in zip(got, expected, strict=True):
        assert one["name"] == other["name"]
        assert torch.equal(one["video"], other["video"])
        assert torch.equal(one["index"], other["index"])
        assert torch.equal(one["state"]["epoch"], other["state"]["epoch"])


@pytest.fixture(autouse=True)
def no_worker_is_left() -> object:
    yield
    assert multiprocessing.active_children() == []


@pytest.mark.parametrize("num_workers", [1, 3])
@pytest.mark.parametrize("start_step", [0, 7])
def test_batches_do_not_depend_on_the_number_of_workers(num_workers: int, start_step: int) -> None:
    batches = take(25, Clips(), num_workers, start_step=start_step)
    assert_same(batches, take(25, Clips(), 0, start_step=start_step))


@pytest.mark.parametrize("fault", FAULTS)
def test_a_lost_worker_is_named_and_counted_and_changes_no_batch(
    fault: str, tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    dataset = Clips(fault, faulty=(clip_at(5),), once=tmp_path)
    with stream(dataset) as batches, caplog.at_level(logging.WARNING):
        got = list(islice(batches, 9))
        assert_same(got, take(9, Clips(), 0))
        assert batches.refused == set()
        [failure] = batches.failures
    assert failure.step == 6
    assert failure.text == f"worker 1 {fault} while reading clip {clip_at(5)}"
    [line] = caplog.messages
    assert line.startswith(f"step 6: {failure.text}; new workers go on from here (failure 1 of at most 10 ")


def test_a_worker_that_is_slow_but_gets_on_is_left_alone() -> None:
    with stream(Slow(), num_workers=1) as batches:
        assert next(batches)["index"].tolist() == take(1, Clips(), 0)[0]["index"].tolist()
        assert batches.failures == []


def test_a_clip_that_takes_two_workers_down_is_replaced_by_the_same_clip_whatever_the_number_of_workers(
    caplog: pytest.LogCaptureFixture,
) -> None:
    bad = clip_at(5)
    with caplog.at_level(logging.WARNING):
        two, three = (take(20, Clips(KILLED, faulty=(bad,)), num_workers) for num_workers in (2, 3))
    assert_same(two, three)
    undisturbed = take(20, Clips(), 0)
    for got, expected in zip(two, undisturbed, strict=True):
        for row, index in enumerate(expected["index"].tolist()):
            if index == bad:
                assert got["index"][row] != bad
            else:
                assert torch.equal(got["video"][row], expected["video"][row])
    assert sum(bad in batch["index"] for batch in undisturbed) == 2  # once in each epoch
    assert f"clip {bad} has failed two workers in turn and is left out from here on (1 of 40" in caplog.messages[2]
    assert len(caplog.messages) == 6  # once it is left out, nothing more is lost on it


def test_the_clips_of_one_source_are_left_out_together() -> None:
    bad = clip_at(3)
    with stream(NamedPairs(KILLED, faulty=(bad,))) as batches:
        indices = torch.stack([batch["index"] for batch in islice(batches, 20)])
        assert batches.refused == {bad, bad ^ 1}
        assert f"clip {bad} (source_{bad // 2}.mp4)" in batches.failures[0].text
    assert bad not in indices
    assert bad ^ 1 not in indices[3:]


def test_more_failures_than_allowed_end_training_with_one_line_that_names_the_first() -> None:
    with stream(
        Clips(KILLED, faulty=tuple(range(NUM_CLIPS))), max_worker_failures=4, max_refused_fraction=0.9
    ) as batches:
        with pytest.raises(TooManyWorkerFailures, match="5 loader workers died or hung within 1000 steps") as caught:
            next(batches)
        assert len(batches.failures) == 5
    message = str(caught.value)
    assert "\n" not in message
    assert f"(max_worker_failures=4): worker 0 {KILLED} while reading clip {clip_at(0, row=0)}; " in message
    assert "; and 2 more. If memory ran out" in message


def test_old_failures_are_forgiven(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    monkeypatch.setattr("video_mirai.data.batch_stream.FAILURE_STEPS", 4)
    bad = tuple(clip_at(step) for step in (1, 5, 9))
    with stream(Clips(KILLED, faulty=bad, once=tmp_path), max_worker_failures=1) as batches:
        assert len(list(islice(batches, 10))) == 10
        assert [failure.step for failure in batches.failures] == [2, 6, 10]


def test_more_refused_clips_than_the_configured_share_end_training() -> None:
    bad = (clip_at(1), clip_at(2))
    with pytest.raises(TooManyWorkerFailures, match=r"die or hang on 2 of 40 clips \(max_refused_fraction=0.04\): wor"):
        take(4, Clips(KILLED, faulty=bad), max_refused_fraction=0.04)


@pytest.mark.parametrize("num_workers", [0, 2])
def test_an_error_of_the_data_set_keeps_its_class_and_its_one_line(num_workers: int) -> None:
    batches = stream(Failing(UnreadableVideo("a.mp4", "empty file")), num_workers)
    next(batches)
    with pytest.raises(UnreadableVideo) as caught:
        next(batches)
    assert str(caught.value) == "a.mp4: empty file"
    assert caught.value.path == "a.mp4"
    assert batches.failures == []
    with pytest.raises(ValueError, match="closed"):
        next(batches)


def test_a_workers_traceback_is_the_cause_of_its_error() -> None:
    with pytest.raises(KeyError) as caught:
        take(2, Failing(KeyError("speed")))
    assert isinstance(caught.value.__cause__, WorkerTraceback)
    assert f"worker 1, clip {clip_at(1)} of epoch 0:\nTraceback" in str(caught.value.__cause__)


def test_workers_do_not_free_what_their_parent_had_open() -> None:
    gc.disable()  # or the parent may free it first
    try:
        OfOneProcess()
        batches = stream(Collecting())
        assert_same(list(islice(batches, 4)), take(4, Clips(), 0))
        assert batches.failures == []
        batches.close()
    finally:
        gc.enable()


@pytest.mark.parametrize("collects", [True, False])
def test_workers_collect_garbage_and_the_parent_goes_on_as_it_did(collects: bool) -> None:
    dataset = CollectorState()
    before = gc.isenabled()
    (gc.enable if collects else gc.disable)()
    try:
        [batch] = take(1, dataset)
        assert batch["state"]["collects"].all()
        assert gc.isenabled() == collects
    finally:
        (gc.enable if before else gc.disable)()


def test_an_error_that_cannot_be_pickled_arrives_as_its_text() -> None:
    with pytest.raises(RuntimeError, match=r"^CannotTravel: this and that$"):
        take(2, Failing(CannotTravel("this", "that")))


def test_closing_ends_workers_that_hang() -> None:
    batches = stream(Clips(HANGS, faulty=tuple(range(NUM_CLIPS))))
    assert len(multiprocessing.active_children()) == 2
    batches.close()
    batches.close()
    assert multiprocessing.active_children() == []


def test_a_batch_outlives_the_workers_and_can_be_written_to() -> None:
    [batch] = take(1, Clips())
    gc.collect()
    [expected] = take(1, Clips(), 0)
    assert torch.equal(batch["video"].add_(1), expected["video"] + 1)


def global_generators() -> tuple[bytes, str, str]:
    return torch.get_rng_state().numpy().tobytes(), repr(random.getstate()), repr(np.random.get_state(legacy=False))


def test_neither_start_nor_restart_touches_a_global_generator(tmp_path: Path) -> None:
    before = global_generators()
    assert len(take(8, Clips(KILLED, faulty=(clip_at(2),), once=tmp_path))) == 8
    assert global_generators() == before


def test_a_worker_that_dies_during_a_step_is_noticed_only_when_its_batch_is_due() -> None:
    # A DataLoader with workers leaves a SIGCHLD handler behind that raises when a worker of its own dies.
    next(iter(DataLoader(TensorDataset(torch.zeros(4)), num_workers=1)))
    handlers = [signal.getsignal(number) for number in (signal.SIGCHLD, signal.SIGINT, signal.SIGTERM)]
    with stream(Clips()) as batches:
        got = [next(batches)]
        for process in multiprocessing.active_children():
            process.kill()
        end = time.monotonic() + 0.5
        while time.monotonic() < end:  # an optimiser step: Python code that a signal handler could interrupt
            pass
        assert batches.failures == []
        got += islice(batches, 6)
        (failure,) = batches.failures  # both died; which is named, and with which clip, depends on how far each was
        assert KILLED in failure.text
    assert_same(got, take(7, Clips(), 0))
    assert handlers == [signal.getsignal(number) for number in (signal.SIGCHLD, signal.SIGINT, signal.SIGTERM)]


def _train_in_a_group_of_its_own(talk: Connection) -> None:
    """Reads batches, as training does that has taken note of a signal and goes on to the end of its step."""
    os.setsid()
    seen = []
    with stream(Clips()) as batches:
        for number in (signal.SIGINT, signal.SIGTERM):  # set only now, so that the workers cannot have inherited it
            signal.signal(number, lambda number, frame: seen.append(number))
        got = [next(batches)]
        talk.send([process.pid for process in multiprocessing.active_children()])
        while len(seen) < 2:
            time.sleep(0.01)
        got += islice(batches, 9)
        talk.send((len(batches.failures), [batch["index"].tolist() for batch in got]))
    talk.send(len(multiprocessing.active_children()))


def _train_for_ever(talk: Connection) -> None:
    batches = stream(Clips(HANGS, faulty=(clip_at(2),)), timeout_seconds=1000)
    next(batches)
    next(batches)
    talk.send([process.pid for process in multiprocessing.active_children()])
    next(batches)


def start(target: Callable[[Connection], None]) -> tuple[multiprocessing.process.BaseProcess, Connection]:
    context = multiprocessing.get_context("fork")
    ours, theirs = context.Pipe()
    process = context.Process(target=target, args=(theirs,))
    process.start()
    theirs.close()
    return process, ours


def is_alive(process: psutil.Process) -> bool:
    """Where nobody reaps orphans, they stay as zombies."""
    try:
        return process.status() != psutil.STATUS_ZOMBIE
    except psutil.NoSuchProcess:
        return False


def test_signals_to_the_process_group_leave_the_workers_at_work() -> None:
    process, talk = start(_train_in_a_group_of_its_own)
    assert process.pid is not None
    assert len(talk.recv()) == 2
    for number in (signal.SIGINT, signal.SIGTERM):
        os.killpg(process.pid, number)
    num_failures, indices = talk.recv()
    assert num_failures == 0
    assert indices == [batch["index"].tolist() for batch in take(10, Clips(), 0)]
    assert talk.recv() == 0
    process.join()
    assert process.exitcode == 0


def test_workers_end_when_their_parent_is_killed_even_one_that_hangs() -> None:
    process, talk = start(_train_for_ever)
    workers = [psutil.Process(pid) for pid in talk.recv()]
    assert len(workers) == 2
    process.kill()
    process.join()
    end = time.monotonic() + 60
    while (alive := [worker for worker in workers if is_alive(worker)]) and time.monotonic() < end:
        time.sleep(0.05)
    for worker in alive:
        worker.kill()
    assert alive == []


@pytest.mark.slow
def test_the_interpreter_exits_at_once_with_a_worker_that_hangs_and_a_stream_that_nobody_closed() -> None:
    script = """
        import multiprocessing, time
        from video_mirai.data.batch import VideoSample
        from video_mirai.data.batch_stream import BatchStream, LoaderConfig
        from video_mirai.data.loader import EpochSampler

        class Hangs:
            def __getitem__(self, key):
                time.sleep(3600)

        batches = BatchStream(Hangs(), EpochSampler(8, 2, seed=0), LoaderConfig(num_workers=2))
        print(*[process.pid for process in multiprocessing.active_children()])
    """
    done = subprocess.run(
        [sys.executable, "-c", textwrap.dedent(script)], capture_output=True, text=True, timeout=120, check=True
    )
    workers = done.stdout.split()
    assert len(workers) == 2
    assert not any(psutil.pid_exists(int(pid)) for pid in workers)
    assert done.stderr == ""


@pytest.mark.parametrize(
    ("settings", "message"),
    [
        ({"num_workers": -1}, "num_workers=-1 must not be negative"),
        ({"timeout_seconds": 0.0}, "timeout_seconds=0.0 must be positive"),
        ({"timeout_seconds": float("nan")}, "timeout_seconds=nan must be positive"),
        ({"max_worker_failures": -1}, "max_worker_failures=-1 must not be negative"),
        ({"max_refused_fraction": 1.0}, "max_refused_fraction=1.0 must be at least 0 and below 1"),
    ],
)
def test_settings_that_cannot_be_are_errors(settings: dict[str, Any], message: str) -> None:
    with pytest.raises(ValueError, match=message):
        LoaderConfig(**settings)
