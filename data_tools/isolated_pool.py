"""Runs a function on many inputs in processes of their own, so that an input that crashes or hangs costs only itself.

A pool of concurrent.futures is lost as a whole when one of its processes dies.
"""

from __future__ import annotations

import logging
import multiprocessing
import signal
import time
from collections import deque
from collections.abc import Callable, Iterable, Iterator
from contextlib import suppress
from multiprocessing.connection import Connection, wait
from typing import Any, NamedTuple

START_SECONDS = 300.0  # for a new process to import what it needs


class Outcome(NamedTuple):
    """number: of the input, from 0; value: what the function returned; failure: why it didn't, empty where it did."""

    number: int
    value: Any
    failure: str


def run_isolated(
    function: Callable[[Any], Any], inputs: Iterable[Any], processes: int, timeout_seconds: float
) -> Iterator[Outcome]:
    """The outcome of every input, as they come; a process that dies or takes too long is replaced.

    Processes are spawned: the function must be importable, and what goes in and out must pickle.

    Args:
        timeout_seconds: for one input.
    Raises: RuntimeError where a process does not even start.
    """
    pending = deque(enumerate(inputs))
    workers: list[_Worker] = []
    try:
        for _ in range(min(processes, len(pending))):
            workers.append(_Worker(function))
        while workers:
            # Never without an end, so that an interrupt is noticed everywhere.
            until = min(worker.deadline for worker in workers) - time.monotonic()
            ready = wait([worker.connection for worker in workers], min(max(until, 0.0), 1.0))
            for worker in list(workers):
                if worker.connection in ready:
                    outcome = worker.receive()
                elif time.monotonic() > worker.deadline:
                    outcome = worker.give_up(f"too slow: not done after {timeout_seconds:g} s")
                else:
                    continue
                if outcome is not None:
                    yield outcome
                if not worker.is_alive or not pending:
                    worker.close()
                    workers.remove(worker)
                if worker.is_alive and pending:
                    worker.start(*pending.popleft(), timeout_seconds)
                elif len(workers) < min(processes, len(pending)):
                    workers.append(_Worker(function))
    finally:
        for worker in workers:
            worker.close()


class _Worker:
    def __init__(self, function: Callable[[Any], Any]) -> None:
        spawning = multiprocessing.get_context("spawn")
        self.connection, other_end = spawning.Pipe()
        self._process = spawning.Process(target=_serve, args=(function, other_end), daemon=True)
        # Inherited: an interrupt while the new process still imports would print a traceback.
        on_interrupt = signal.signal(signal.SIGINT, signal.SIG_IGN)
        try:
            self._process.start()
        finally:
            signal.signal(signal.SIGINT, on_interrupt)
        other_end.close()  # so that its death is the end of the connection
        self.deadline = time.monotonic() + START_SECONDS
        self.is_alive = True
        self._index: int | None = None  # of the input it works on; None while it starts

    def start(self, index: int, value: Any, timeout_seconds: float) -> None:
        self._index = index
        self.deadline = time.monotonic() + timeout_seconds
        with suppress(OSError):  # it has just died, which receive() will notice
            self.connection.send(value)

    def receive(self) -> Outcome | None:
        """What has arrived; None for the message that the process is ready."""
        try:
            value, failure = self.connection.recv()
        except (EOFError, OSError):
            self._process.join()
            return self.give_up(f"crashed: the decoder ended its process ({_cause(self._process.exitcode)})")
        return None if self._index is None else Outcome(self._index, value, failure)

    def give_up(self, failure: str) -> Outcome:
        self._process.kill()
        self._process.join()
        self.is_alive = False
        if self._index is None:
            raise RuntimeError(f"a process did not start ({_cause(self._process.exitcode)}); see the lines above.")
        return Outcome(self._index, None, failure)

    def close(self) -> None:
        self.connection.close()  # its process ends when it next looks
        self._process.join(1.0)
        if self._process.is_alive():
            self._process.kill()


def _serve(function: Callable[[Any], Any], connection: Connection) -> None:
    logging.disable(logging.WARNING)  # what there is to say is in the answers
    signal.signal(signal.SIGINT, signal.default_int_handler)
    try:
        connection.send((None, ""))  # ready
        while True:
            value = connection.recv()
            try:
                answer = (function(value), "")
            except Exception as error:  # noqa: BLE001 - whatever a broken file leads to must not stop the others
                answer = (None, f"failed: {type(error).__name__}: {' '.join(str(error).split())}")
            connection.send(answer)
    except (EOFError, OSError, KeyboardInterrupt):
        return  # nobody waits for an answer any more


def _cause(exit_code: int | None) -> str:
    if exit_code is None or exit_code >= 0:
        return f"exit code {exit_code}"
    name = signal.Signals(-exit_code).name
    return f"{name}, out of memory?" if name == "SIGKILL" else name
