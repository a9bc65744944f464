"""What a rollout writes: which files, under which names, how several videos share a picture, and how writing ends."""

from __future__ import annotations

import os
import sys
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from io import FileIO
from math import ceil, sqrt
from pathlib import Path
from typing import TYPE_CHECKING, NamedTuple

from _histories import Source

if TYPE_CHECKING:
    import numpy as np

STDOUT = "-"
SINGLE, GRID, COMPARE = "single", "grid", "compare"


class Job(NamedTuple):
    """One file: a history continued with one seed, or with several in one picture."""

    source: Source
    seeds: tuple[int, ...]
    out: Path


def plan_jobs(sources: Sequence[Source], seeds: Sequence[int], out: str, layout: str, suffix: str) -> list[Job]:
    """Every file to be written. In a folder it is <number>_<history>_<seed<seed> | grid | compare><suffix>.

    out: a file for a single job, "-" for the standard output, or a folder: an existing one, or a name that ends in a
        slash or has no suffix.
    Raises:
        ValueError: several jobs and one file, an unknown suffix, or a history's own file.
    """
    from video_mirai.media import check_video_suffix

    groups = [(seed,) for seed in seeds] if layout == SINGLE else [tuple(seeds)]
    pairs = [(source, group) for source in sources for group in groups]
    path = Path(out)
    if out != STDOUT and (out.endswith("/") or path.is_dir() or not path.suffix):
        check_video_suffix(f"name{suffix}")
        jobs = [Job(source, group, path / file_name(source, group, layout, suffix)) for source, group in pairs]
    elif len(pairs) > 1:
        raise ValueError(
            f"--out {out}: {len(sources)} histories and {len(seeds)} seeds make {len(pairs)} videos; name a folder, or "
            f"put the seeds of one history into one picture with --grid or --compare."
        )
    else:
        if out != STDOUT:
            check_video_suffix(out)
        jobs = [Job(*pairs[0], path)]
    histories = {source.path.resolve() for source in sources if source.path is not None}
    for job in jobs:
        if job.out.resolve() in histories:
            raise ValueError(f"--out {job.out} is the history's own file; name another.")
    return jobs


def file_name(source: Source, seeds: Sequence[int], layout: str, suffix: str) -> str:
    """Of a job's file in a folder; no two jobs have the same."""
    last = f"seed{seeds[0]}" if layout == SINGLE else layout
    return f"{source.number:04d}_{source.name}_{last}{suffix}"


class Layout(NamedTuple):
    """Arranges the videos of several seeds, (S, T, H, W, 3) uint8, and the truth (T, H, W, 3) in one: (T, H', W', 3).

    scale: whole-number enlargement.
    """

    kind: str
    seeds: tuple[int, ...]
    scale: int

    def __call__(self, videos: np.ndarray, truth: np.ndarray | None) -> np.ndarray:
        return _ARRANGE[self.kind](self, videos, truth)


def _single(layout: Layout, videos: np.ndarray, truth: np.ndarray | None) -> np.ndarray:
    return videos[0].repeat(layout.scale, axis=1).repeat(layout.scale, axis=2)


def _grid(layout: Layout, videos: np.ndarray, truth: np.ndarray | None) -> np.ndarray:
    import numpy as np

    from video_mirai.media import image_grid

    columns = ceil(sqrt(len(videos)))
    return np.stack([image_grid(frame, columns, scale=layout.scale) for frame in videos.swapaxes(0, 1)])


def _compare(layout: Layout, videos: np.ndarray, truth: np.ndarray | None) -> np.ndarray:
    from video_mirai.media import side_by_side

    assert truth is not None, "a comparison has a truth"
    return side_by_side([truth, *videos], ["truth", *(f"seed {seed}" for seed in layout.seeds)], layout.scale)


_ARRANGE: dict[str, Callable[[Layout, np.ndarray, np.ndarray | None], np.ndarray]] = {
    SINGLE: _single,
    GRID: _grid,
    COMPARE: _compare,
}


@contextmanager
def own_stdout() -> Iterator[FileIO]:
    """The standard output for our bytes alone: whatever else is printed inside goes to the standard error.

    Raises:
        ValueError: the standard output is a terminal.
    """
    if os.isatty(1):
        raise ValueError("--out - would write bytes to the terminal; pipe it into something, such as ffmpeg.")
    sys.stdout.flush()
    ours = os.dup(1)
    os.dup2(2, 1)
    try:
        with FileIO(ours, "w", closefd=False) as stream:
            yield stream
    finally:
        sys.stdout.flush()
        os.dup2(ours, 1)
        os.close(ours)
