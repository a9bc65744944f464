"""Batches for training that keep coming when a process that reads them dies or hangs."""

from __future__ import annotations

import logging
from collections import deque
from collections.abc import Sequence
from dataclasses import dataclass
from itertools import count
from types import TracebackType
from typing import NamedTuple, Protocol, runtime_checkable

import numpy as np
from torch.utils.data import Dataset

from video_mirai.data.batch import ClipKey, VideoBatch, VideoSample
from video_mirai.data.loader import EpochSampler, collate_clips, read_clips
from video_mirai.data.worker_pool import WorkerFailed, WorkerPool

logger = logging.getLogger(__name__)

FAILURE_STEPS = 1000  # a span of steps in which max_worker_failures are allowed
BATCHES_AHEAD = 2  # read beforehand by each worker
NAMED_FAILURES = 3  # that an error names


@dataclass
class LoaderConfig:
    """How clips are read for training.

    num_workers: processes that read clips, for each training process; 0: the training process reads them itself, and
        nothing below applies.
    timeout_seconds: a worker that spends longer on one clip, or on the clips of one place, is taken to hang. Other
        training processes wait meanwhile, so twice this should stay below their own time limit (NCCL's is 600 s).
    max_worker_failures: workers that may die or hang within 1000 steps; more end the training.
    max_refused_fraction: of the clips, below 1; when more are left out because workers die or hang on them, training
        ends.
    """

    num_workers: int = 2
    timeout_seconds: float = 120.0
    max_worker_failures: int = 10
    max_refused_fraction: float = 0.05

    def __post_init__(self) -> None:
        if self.num_workers < 0:
            raise ValueError(f"num_workers={self.num_workers} must not be negative.")
        if not self.timeout_seconds > 0:
            raise ValueError(f"timeout_seconds={self.timeout_seconds} must be positive.")
        if self.max_worker_failures < 0:
            raise ValueError(f"max_worker_failures={self.max_worker_failures} must not be negative.")
        if not 0 <= self.max_refused_fraction < 1:
            raise ValueError(f"max_refused_fraction={self.max_refused_fraction} must be at least 0 and below 1.")


class TooManyWorkerFailures(ValueError):
    """Workers die or hang more often than the settings allow."""


@runtime_checkable
class NamedClips(Protocol):
    """A data set that knows its clips' sources without reading them; clips of one source are left out together."""

    def clip_name(self, index: int) -> str: ...


class Failure(NamedTuple):
    """step: the one whose batch was not there. text: which worker, what happened, which clip."""

    step: int
    text: str


class BatchStream:
    """Iterator over the sampler's batches, for ever; to be closed, or used in a `with` statement.

    When a worker dies, exits or hangs, all are killed, new ones are started and go on with the batch that is due: what
    comes out is bit for bit what it would have been. A clip on which that happens twice in turn is left out from then
    on, with all others of its source: in its place, also in `index`, comes one drawn from (the sampler's seed, epoch,
    index, attempt). So batches depend on which clips take workers down, not on when, nor on the number of workers.

    Failures are noticed in `next` only; no signal handler is set, and no global generator is drawn from. Errors that
    the data set raises come out of `next` as they are. Any error closes the stream.

    failures: so far. refused: indices of the clips that are left out.
    """

    def __init__(self, dataset: Dataset[VideoSample], sampler: EpochSampler, config: LoaderConfig) -> None:
        self.dataset = dataset
        self.config = config
        self.step = sampler.start_step
        self.failures: list[Failure] = []
        self.refused: set[int] = set()
        self._sampler = sampler
        self._keys = iter(sampler)
        self._ahead: deque[list[ClipKey]] = deque()  # put into the pool and not yet out of it; the first is due
        self._suspect: int | None = None  # clip that the last failure happened on, until its batch has come
        self._closed = False
        self._pool: WorkerPool | None = None
        if config.num_workers > 0:
            self._start_pool()

    def __iter__(self) -> BatchStream:
        return self

    def __next__(self) -> VideoBatch:
        """The next batch; TooManyWorkerFailures, or what the data set raises."""
        if self._closed:
            raise ValueError("this stream of batches is closed; make a new one.")
        try:
            batch = self._receive() if self._pool is not None else self._read_here()
        except BaseException:
            self.close()
            raise
        self.step += 1
        self._suspect = None
        return batch

    def close(self) -> None:
        """End the workers, whatever they are doing. Can be called again."""
        self._closed = True
        if self._pool is not None:
            self._pool.kill()

    def __enter__(self) -> BatchStream:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.close()

    def _read_here(self) -> VideoBatch:
        return collate_clips(read_clips(self.dataset, next(self._keys)))

    def _receive(self) -> VideoBatch:
        while True:
            assert self._pool is not None, "without workers there is nothing to receive"
            try:
                batch = self._pool.get()
            except WorkerFailed as failed:
                self._note(failed)
                self._pool.kill()
                self._start_pool()
            else:
                self._ahead.popleft()
                self._fill(self._pool)
                return batch

    def _start_pool(self) -> None:
        """New workers, which go on with the batch that is due."""
        self._pool = WorkerPool(self.dataset, self.config.num_workers, self.config.timeout_seconds)
        for keys in self._ahead:
            self._pool.put([self._stand_in(key) for key in keys])
        self._fill(self._pool)

    def _fill(self, pool: WorkerPool) -> None:
        while len(self._ahead) < BATCHES_AHEAD * self.config.num_workers:
            keys = next(self._keys)
            self._ahead.append(keys)
            pool.put([self._stand_in(key) for key in keys])

    def _stand_in(self, key: ClipKey) -> ClipKey:
        """The key itself, or what comes in its place if its clip is refused."""
        index = key.index
        for attempt in count(1):
            if index not in self.refused:
                break
            generator = np.random.default_rng([self._sampler.seed, key.epoch, key.index, attempt])
            index = int(generator.integers(self._sampler.num_items))
        return ClipKey(key.epoch, index)

    def _note(self, failed: WorkerFailed) -> None:
        """Log and count a failure, and refuse the clip if it is the second in turn there."""
        index = None if failed.row is None else self._stand_in(self._ahead[0][failed.row]).index
        while_doing = "" if index is None else f" while reading {self._describe(index)}"
        self.failures.append(Failure(self.step + 1, failed.what + while_doing))
        recent = [failure.text for failure in self.failures if failure.step > self.step + 1 - FAILURE_STEPS]
        allowed = self.config.max_worker_failures
        if len(recent) > allowed:
            raise TooManyWorkerFailures(
                f"{len(recent)} loader workers died or hung within {FAILURE_STEPS} steps "
                f"(max_worker_failures={allowed}): {_name_first(recent)}. If memory ran out, use fewer workers or a "
                f"smaller batch; else look at these clips."
            ) from failed
        logger.warning("step %d: %s; new workers go on from here (failure %d of at most %d within %d steps)",
                       self.step + 1, self.failures[-1].text, len(recent), allowed, FAILURE_STEPS)  # fmt: skip
        if index is not None and index == self._suspect:
            self._refuse(index)
        self._suspect = index

    def _refuse(self, index: int) -> None:
        """Leave out the clip, and all of the same source, from the batch that is due on."""
        num_clips = self._sampler.num_items
        if isinstance(self.dataset, NamedClips):
            name = self.dataset.clip_name(index)
            self.refused |= {other for other in range(num_clips) if self.dataset.clip_name(other) == name}
        else:
            self.refused.add(index)
        if len(self.refused) > self.config.max_refused_fraction * num_clips:
            raise TooManyWorkerFailures(
                f"loader workers die or hang on {len(self.refused)} of {num_clips} clips "
                f"(max_refused_fraction={self.config.max_refused_fraction:g}): "
                f"{_name_first([failure.text for failure in self.failures])}; look at these clips."
            )
        logger.warning("%s has failed two workers in turn and is left out from here on (%d of %d clips are left out)",
                       self._describe(index), len(self.refused), num_clips)  # fmt: skip

    def _describe(self, index: int) -> str:
        name = f" ({self.dataset.clip_name(index)})" if isinstance(self.dataset, NamedClips) else ""
        return f"clip {index}{name}"


def _name_first(failures: Sequence[str]) -> str:
    more = len(failures) - NAMED_FAILURES
    return "; ".join(failures[:NAMED_FAILURES]) + (f"; and {more} more" if more > 0 else "")
