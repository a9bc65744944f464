"""`module:callable`: any Python function as a detector."""

import importlib
from collections.abc import Callable
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from video_mirai.evaluation.detectors.base import check_clips, check_output, file_sha256

# Size of the black clip that finds out the feature width.
PROBE_SIZE = 64


class ExternalDetector:
    """A function from clips (N, T, H, W, 3) uint8 to features (N, d), named `module:callable`.

    sha256 is that of the module's source file; the function's own weights are its author's to state.

    Raises:
        ValueError: no such module or function, or an output that is not (N, d).
    """

    preprocessing = "the function's own"

    def __init__(self, spec: str, clip_frames: int, batch_clips: int) -> None:
        self._function, source = _imported(spec)
        self.name = spec
        self.label = f"fd_{spec.split(':')[1]}"
        self.clip_frames = clip_frames
        self.sha256 = file_sha256(source)
        self._batch_clips = batch_clips
        probe = np.asarray(self._function(np.zeros((1, clip_frames, PROBE_SIZE, PROBE_SIZE, 3), np.uint8)))
        if probe.ndim != 2 or len(probe) != 1:
            raise ValueError(f"detector {spec} returned shape {probe.shape} for one clip; expected (1, feature width).")
        self.feature_dim = probe.shape[1]

    def features(self, clips: NDArray[np.uint8]) -> NDArray[np.float64]:
        check_clips(clips, self.clip_frames)
        rows = [clips[start : start + self._batch_clips] for start in range(0, len(clips), self._batch_clips)]
        return np.concatenate([check_output(self, self._function(batch), len(batch)) for batch in rows])


def _imported(spec: str) -> tuple[Callable[[NDArray[np.uint8]], NDArray[np.floating]], Path]:
    """The function and the file of its module."""
    module_name, _, function_name = spec.partition(":")
    try:
        module = importlib.import_module(module_name)
    except ImportError as error:
        raise ValueError(f"detector {spec!r}: module {module_name!r} can't be imported ({error}).") from error
    function = vars(module).get(function_name)
    if not callable(function):
        raise ValueError(f"detector {spec!r}: module {module_name!r} has no function {function_name!r}.")
    if module.__spec__ is None or module.__spec__.origin is None or not Path(module.__spec__.origin).is_file():
        raise ValueError(f"detector {spec!r}: module {module_name!r} has no file whose sha256 could be recorded.")
    return function, Path(module.__spec__.origin)
