"""Videos and pictures on disk: writers that stream, labelled comparisons, grids.

Everything here takes uint8 frames (T, H, W, C), numpy or tensor, or float tensors (T, C, H, W) in [-1, 1].
"""

from video_mirai.media.formats import (
    WRITERS,
    check_video_suffix,
    open_writer,
    write_gif,
    write_video,
)
from video_mirai.media.frame_writer import FrameWriter, WriteError
from video_mirai.media.pictures import image_grid, side_by_side, write_image
from video_mirai.media.pixels import psnr, to_uint8
from video_mirai.media.plain_writers import NumpyWriter, PngFolderWriter, RawWriter
from video_mirai.media.video_writer import VideoWriter

__all__ = [
    "WRITERS",
    "FrameWriter",
    "NumpyWriter",
    "PngFolderWriter",
    "RawWriter",
    "VideoWriter",
    "WriteError",
    "check_video_suffix",
    "image_grid",
    "open_writer",
    "psnr",
    "side_by_side",
    "to_uint8",
    "write_gif",
    "write_image",
    "write_video",
]
