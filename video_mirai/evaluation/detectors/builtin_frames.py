"""`grid_colour_gradient`: the built-in, weight-free features of single frames as a frame encoder."""

import numpy as np
from numpy.typing import NDArray

from video_mirai.evaluation.consistency import BUILTIN_FRAME_FEATURES, builtin_frame_features


class BuiltinFrames:
    """`consistency.builtin_frame_features` of uint8 frames."""

    name = BUILTIN_FRAME_FEATURES
    sha256 = ""  # it has no weights
    preprocessing = "values in [0, 1], at the frames' own size"

    def frame_features(self, frames: NDArray[np.uint8]) -> NDArray[np.float64]:
        if frames.dtype != np.uint8:
            raise ValueError(f"frames are {frames.dtype}; uint8 of shape (frames, height, width, 3) is expected.")
        return builtin_frame_features(frames / 255)
