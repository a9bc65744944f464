"""A script in a process of its own, forked: nothing has to be imported again, which takes longer than most tests."""

import logging
import multiprocessing
import os
import signal
import sys
import traceback
from collections.abc import Callable
from pathlib import Path

from tiny_training import forget_accelerator

from _cli import run_script


class ForkedScript:
    """pid: of the process, which leads a group of its own; log: what it says on the standard error, and, unless that
    is a pipe, on the standard output.
    """

    def __init__(
        self,
        main: Callable[[], None],
        words: list[str],
        log: Path,
        *,
        environment: dict[str, str] | None = None,
        stdout: int | None = None,
        closed: tuple[int, ...] = (),
    ) -> None:
        """words: of the command line, the script's name first; stdout: a file descriptor; closed: those to close."""
        self.log = log
        fork = multiprocessing.get_context("fork")
        self._process = fork.Process(target=_run, args=(main, words, log, environment or {}, stdout, closed))
        self._process.start()

    @property
    def pid(self) -> int:
        assert self._process.pid is not None
        return self._process.pid

    @property
    def has_ended(self) -> bool:
        return not self._process.is_alive()

    def exit_code(self, timeout: float = 120) -> int:
        """Waits for it; negative: the signal that ended it."""
        self._process.join(timeout)
        assert self._process.exitcode is not None, f"still running after {timeout} s"
        return self._process.exitcode

    def kill(self) -> None:
        """As the kernel does; safe for a process that has ended."""
        self._process.kill()
        self._process.join()


def fork_script(main: Callable[[], None], words: list[str], log: Path) -> int:
    """Pid of a script that is the caller's alone to wait for: multiprocessing, whenever it starts a process, also waits
    for those of its own that have ended.
    """
    pid = os.fork()
    if pid:
        return pid
    code = 1
    try:
        _run(main, words, log, {}, None, ())
    except SystemExit as end:
        code = end.code if isinstance(end.code, int) else int(end.code is not None)
    finally:
        if sys.exc_info()[0] is not None:
            traceback.print_exc()
        sys.stdout.flush()
        sys.stderr.flush()
        os._exit(code)


def _run(
    main: Callable[[], None],
    words: list[str],
    log: Path,
    environment: dict[str, str],
    stdout: int | None,
    closed: tuple[int, ...],
) -> None:
    """multiprocessing does with SystemExit, and with any other error, what Python does at the top."""
    os.setsid()
    signal.signal(signal.SIGINT, signal.default_int_handler)
    for descriptor in closed:
        os.close(descriptor)
    said = os.open(log, os.O_WRONLY | os.O_CREAT | os.O_TRUNC)
    os.dup2(said, 2)
    os.dup2(said if stdout is None else stdout, 1)
    if stdout is not None:
        os.close(stdout)
    sys.stdout, sys.stderr = os.fdopen(1, "w", closefd=False), os.fdopen(2, "w", closefd=False, buffering=1)
    logging.root.handlers.clear()  # the tests' own
    os.environ.update(environment)
    forget_accelerator()
    sys.argv = words
    run_script(main)
