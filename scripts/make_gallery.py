"""The videos of an evaluation, side by side in one file: the README's picture is made with it."""

import argparse
from pathlib import Path
from typing import TYPE_CHECKING

from _cli import make_parser, run_script

if TYPE_CHECKING:
    import numpy as np


def main() -> None:
    """Parse, read, write."""
    options = parse_options()

    # Below, because these imports take seconds and --help needs none.
    import numpy as np

    from video_mirai.media import check_video_suffix, side_by_side, write_video

    check_video_suffix(options.out)
    strips = []
    for clip in options.clips:
        videos, rates = zip(*(read_video(options.report, name, clip) for name in options.models), strict=True)
        strips.append(side_by_side(videos, options.models, scale=options.scale))
    columns = 2 if len(strips) % 2 == 0 else 1
    rows = [np.concatenate(strips[start : start + columns], axis=2) for start in range(0, len(strips), columns)]
    write_video(options.out, np.concatenate(rows, axis=1), rates[0])
    print(options.out)


def parse_options() -> argparse.Namespace:
    parser = make_parser(
        "Truth and rollouts of an evaluation side by side, a strip for each clip, as .mp4 or .gif.",
        "python scripts/make_gallery.py --report runs/demo/report --clips 0 1 2 3 --out gallery.gif",
    )
    parser.add_argument("--report", type=Path, required=True, metavar="DIR", help="the evaluation's `out`")
    parser.add_argument("--models", nargs="+", default=["truth", "baseline", "foresight"], help="default: %(default)s")
    parser.add_argument("--clips", nargs="+", type=int, default=[0, 1, 2, 3], help="numbers (default: %(default)s)")
    parser.add_argument("--scale", type=int, default=2, help="whole-number enlargement (default: %(default)s)")
    parser.add_argument("--out", type=Path, required=True, metavar="FILE", help=".mp4 or .gif")
    return parser.parse_args()


def read_video(report: Path, model: str, clip: int) -> "tuple[np.ndarray, float]":
    """(T, H, W, 3) uint8 and its frame rate."""
    from video_mirai.data.video_reader import open_video

    path = report / "videos" / model / f"{clip:04d}.mp4"
    if not path.is_file():
        raise FileNotFoundError(f"{path} is not there; does the evaluation have this model and this clip?")
    with open_video(path) as video:
        return video.read(list(range(video.info.num_frames))), video.info.fps


if __name__ == "__main__":
    run_script(main)
