"""Processes that read batches, made so that the loss of any of them is noticed, named and harmless.

torch's DataLoader is not used for this: a dying worker makes its SIGCHLD handler raise in the middle of an optimiser
step, a hung one can block the parent for ever, and its iterator draws from the global generator. Here nothing happens
outside `get`, and a worker shares no pipe and no lock with another.
"""

from __future__ import annotations

import atexit
import ctypes
import gc
import logging
import mmap
import multiprocessing
import os
import pickle
import signal
import socket
import tempfile
import threading
import time
import traceback
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from multiprocessing.connection import Connection, wait
from typing import BinaryIO

import torch
from torch.utils.data import Dataset

from video_mirai.data.batch import ClipKey, VideoBatch, VideoSample
from video_mirai.data.loader import collate_clips, count_neighbours, read_clips, split_places

logger = logging.getLogger(__name__)

STOP_SIGNALS = (signal.SIGINT, signal.SIGTERM)
BATCH, ERROR = b"b", b"e"
JOIN_SECONDS = 10  # for the kernel to take away a process that has been killed
ORPHAN_SECONDS = 2  # between a worker's looks at whether its parent still lives


class WorkerFailed(Exception):
    """A worker is gone, or gives no sign of life.

    what: such as "worker 1 died (signal 9, Killed)". row: clip of the batch due that it was reading; None: no clip.
    """

    def __init__(self, what: str, row: int | None) -> None:
        super().__init__(what)
        self.what = what
        self.row = row


class WorkerTraceback(Exception):
    """Cause of an error that a data set raised in a worker: where, and the worker's traceback."""


class WorkerPool:
    """Workers that read batches; batches come out in the order in which their keys were put in.

    Workers are forked, so that the data set need not be picklable. They ignore SIGINT and SIGTERM, which a terminal and
    a batch system send to the whole process group; they end with `kill`, with the interpreter, and soon after their
    parent's death.

    timeout_seconds: a worker that spends longer on one clip, while its batch is waited for, has failed.
    """

    def __init__(self, dataset: Dataset[VideoSample], num_workers: int, timeout_seconds: float) -> None:
        assert num_workers > 0, "a pool has workers"
        self._timeout_seconds = timeout_seconds
        self._num_put = 0
        self._num_got = 0
        self._workers: list[_Worker] = []
        try:
            for number in range(num_workers):
                self._workers.append(_Worker(number, dataset))
        except BaseException:
            self.kill()
            raise

    def put(self, keys: Sequence[ClipKey]) -> None:
        """Have the next worker in turn read this batch; a worker that is gone is noticed by `get`."""
        self._workers[self._num_put % len(self._workers)].put(self._num_put, keys)
        self._num_put += 1

    def get(self) -> VideoBatch:
        """The next batch.

        Raises WorkerFailed, after which the pool is of no more use; and whatever the data set raised, with a
        WorkerTraceback as its cause.
        """
        assert self._num_got < self._num_put, "nothing was put in"
        worker = self._workers[self._num_got % len(self._workers)]
        batch = worker.get(self._num_got, self._timeout_seconds)
        self._num_got += 1
        return batch

    def kill(self) -> None:
        """End all workers, whatever they are doing; returns when they are gone. Can be called again."""
        for worker in self._workers:
            worker.process.kill()
        for worker in self._workers:
            worker.close()
        self._workers.clear()


class _Place(ctypes.Structure):
    """What a worker is doing, in memory shared with its parent.

    batch, row: the clip that it reads, of several read in one go the first; row -1: none. since: monotonic seconds at
    which the last was begun.
    """

    _fields_ = (("batch", ctypes.c_int64), ("row", ctypes.c_int64), ("since", ctypes.c_double))


class _Worker:
    """The parent's side of a worker."""

    def __init__(self, number: int, dataset: Dataset[VideoSample]) -> None:
        self.number = number
        self._place = _Place.from_buffer(mmap.mmap(-1, ctypes.sizeof(_Place)))
        self._place.batch = self._place.row = -1
        # One byte and an open file per result: nothing can arrive by halves, and what has arrived outlives its sender.
        self._results, results = socket.socketpair()
        tasks, self._tasks = multiprocessing.Pipe(duplex=False)
        context = multiprocessing.get_context("fork")
        self.process = context.Process(
            target=_work,
            args=(dataset, tasks, results, self._place, os.getpid()),
            name=f"video_mirai loader worker {number}",
            daemon=True,
        )
        with _signals_held_back(), _garbage_held_back():
            self.process.start()
        atexit.register(self.process.kill)  # multiprocessing only sends SIGTERM, and then waits
        results.close()
        tasks.close()

    def put(self, batch_number: int, keys: Sequence[ClipKey]) -> None:
        try:
            self._tasks.send((batch_number, keys))
        except BrokenPipeError:
            logger.debug("worker %d is gone and got no batch", self.number)

    def get(self, batch_number: int, timeout_seconds: float) -> VideoBatch:
        self._wait_for_result(batch_number, timeout_seconds)
        kind, files, _, _ = socket.recv_fds(self._results, 1, 1)
        if not kind:
            raise self._failed(self._how_it_ended(), batch_number)
        with os.fdopen(files[0], "rb") as file:
            if kind == ERROR:
                file.seek(0)
                error, origin = pickle.load(file)
                raise error from WorkerTraceback(f"worker {self.number}, {origin}")
            # Mapped, not copied; the map lives as long as the tensors.
            return torch.load(f"/dev/fd/{file.fileno()}", mmap=True, weights_only=True)

    def close(self) -> None:
        """Clear away what is left of a process that has been killed."""
        self.process.join(JOIN_SECONDS)
        if self.process.exitcode is None:
            logger.warning("%s (process %d) cannot be killed: it waits for a disk or a network drive.",
                           self.process.name, self.process.pid)  # fmt: skip
        atexit.unregister(self.process.kill)
        self._results.close()
        self._tasks.close()

    def _wait_for_result(self, batch_number: int, timeout_seconds: float) -> None:
        """Returns when there is a result or the worker has ended; WorkerFailed where it makes no progress."""
        waiting_since = time.monotonic()
        while True:
            deadline = max(waiting_since, self._place.since) + timeout_seconds
            seconds_left = deadline - time.monotonic()
            if wait([self._results], max(0.0, seconds_left)):  # an ended worker's socket is at its end
                return
            if seconds_left <= 0:
                raise self._failed(f"gave no sign of life for {timeout_seconds:g} s", batch_number)

    def _how_it_ended(self) -> str:
        self.process.join(JOIN_SECONDS)
        code = self.process.exitcode
        if code is None:
            return "closed its connection"
        return f"died (signal {-code}, {signal.strsignal(-code)})" if code < 0 else f"exited with code {code}"

    def _failed(self, how: str, batch_number: int) -> WorkerFailed:
        reading = self._place.batch == batch_number and self._place.row >= 0
        return WorkerFailed(f"worker {self.number} {how}", self._place.row if reading else None)


def _work(
    dataset: Dataset[VideoSample], tasks: Connection, results: socket.socket, place: _Place, parent_pid: int
) -> None:
    """A worker's life: read batches until there is no parent any more."""
    # What the parent left to its garbage collector is the parent's to free: a decord reader has threads, which a fork
    # does not copy, and aborts the process that frees it without them.
    gc.freeze()
    gc.enable()
    for number in STOP_SIGNALS:
        signal.signal(number, signal.SIG_IGN)
    signal.pthread_sigmask(signal.SIG_UNBLOCK, STOP_SIGNALS)
    threading.Thread(target=_end_with_parent, args=(parent_pid,), daemon=True).start()
    torch.set_num_threads(1)
    torch.serialization.set_crc32_options(False)  # the file lives in memory, for moments
    while True:
        try:
            batch_number, keys = tasks.recv()
        except EOFError:
            return
        with _anonymous_file() as file:
            try:
                torch.save(_read_batch(dataset, batch_number, keys, place), file)
                kind = BATCH
            except Exception as error:  # noqa: BLE001  # the parent raises it
                file.seek(0)
                file.truncate()
                file.write(_pickle_error(error, keys, place))
                kind = ERROR
            file.flush()
            socket.send_fds(results, [kind], [file.fileno()])


def _read_batch(dataset: Dataset[VideoSample], batch_number: int, keys: Sequence[ClipKey], place: _Place) -> VideoBatch:
    samples: list[VideoSample] = []
    place.batch = batch_number
    for neighbours in split_places(keys, count_neighbours(dataset)):
        place.since = time.monotonic()
        place.row = len(samples)
        samples += read_clips(dataset, neighbours)
    place.row = -1
    return collate_clips(samples)


def _pickle_error(error: Exception, keys: Sequence[ClipKey], place: _Place) -> bytes:
    """(the error, where it happened); a RuntimeError with its text where the error itself cannot travel."""
    key = keys[place.row] if place.row >= 0 else None
    where = "putting a batch together" if key is None else f"clip {key.index} of epoch {key.epoch}"
    origin = f"{where}:\n{traceback.format_exc()}"
    try:
        pickled = pickle.dumps((error, origin))
        pickle.loads(pickled)
    except Exception:  # noqa: BLE001  # pickling runs the error class's own code
        return pickle.dumps((RuntimeError(f"{type(error).__name__}: {error}"), origin))
    return pickled


def _anonymous_file() -> BinaryIO:
    """A file without a name; in memory, and not bounded by the size of /dev/shm, where the system has such files."""
    if hasattr(os, "memfd_create"):
        return os.fdopen(os.memfd_create("video_mirai batch"), "w+b")
    return tempfile.TemporaryFile()


def _end_with_parent(parent_pid: int) -> None:
    while os.getppid() == parent_pid:
        time.sleep(ORPHAN_SECONDS)
    os._exit(1)


@contextmanager
def _signals_held_back() -> Iterator[None]:
    """No stop signal reaches a worker before it has learnt to ignore it; the parent gets what comes now afterwards."""
    before = signal.pthread_sigmask(signal.SIG_BLOCK, STOP_SIGNALS)
    try:
        yield
    finally:
        signal.pthread_sigmask(signal.SIG_SETMASK, before)


@contextmanager
def _garbage_held_back() -> Iterator[None]:
    """The collector does not run, so that it does not run in a worker before the worker has set the parent's apart."""
    before = gc.isenabled()
    gc.disable()
    try:
        yield
    finally:
        if before:
            gc.enable()
