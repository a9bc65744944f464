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

    is_webp = options.out.suffix.lower() == ".webp"
    if not is_webp:
        check_video_suffix(options.out)
    strips = []
    for clip in options.clips:
        videos, rates = zip(*(read_video(options.report, name, clip) for name in options.models), strict=True)
        videos = [video[: options.frames] for video in videos]
        strips.append(side_by_side(videos, options.models, scale=options.scale))
    columns = 2 if len(strips) % 2 == 0 else 1
    rows = [np.concatenate(strips[start : start + columns], axis=2) for start in range(0, len(strips), columns)]
    gallery = np.concatenate(rows, axis=1)
    if options.colours is not None:
        gallery = in_few_colours(gallery, options.colours)
    if is_webp:
        write_webp(options.out, gallery, rates[0])
    else:
        write_video(options.out, gallery, rates[0])
    print(options.out)


def parse_options() -> argparse.Namespace:
    parser = make_parser(
        "Truth and rollouts of an evaluation side by side, a strip for each clip, as .webp, .mp4 or .gif.",
        "python scripts/make_gallery.py --report runs/demo/report --clips 0 1 2 3 --out gallery.webp",
    )
    parser.add_argument("--report", type=Path, required=True, metavar="DIR", help="the evaluation's `out`")
    parser.add_argument("--models", nargs="+", default=["truth", "baseline", "foresight"], help="default: %(default)s")
    parser.add_argument("--clips", nargs="+", type=int, default=[0, 1, 2, 3], help="numbers (default: %(default)s)")
    parser.add_argument("--scale", type=int, default=2, help="whole-number enlargement (default: %(default)s)")
    parser.add_argument("--frames", type=int, metavar="N", help="the first N of each, history included; default: all")
    parser.add_argument(
        "--colours", type=int, metavar="N", help="in all, at most 256, for a small .webp; default: as they are"
    )
    parser.add_argument("--out", type=Path, required=True, metavar="FILE", help=".webp, .mp4 or .gif")
    options = parser.parse_args()
    if options.frames is not None and options.frames < 1:
        raise ValueError(f"--frames {options.frames} must be at least 1.")
    if options.colours is not None and not 2 <= options.colours <= 256:
        raise ValueError(f"--colours {options.colours} must be from 2 to 256.")
    return options


def read_video(report: Path, model: str, clip: int) -> "tuple[np.ndarray, float]":
    """The exact frames, (T, H, W, 3) uint8, and their rate."""
    import numpy as np

    from video_mirai.data.video_reader import open_video

    frames, path = (report / f"{kind}/{model}/{clip:04d}.{end}" for kind, end in (("frames", "npz"), ("videos", "mp4")))
    for needed in (frames, path):
        if not needed.is_file():
            raise FileNotFoundError(f"{needed} is not there; does the evaluation have this model and this clip?")
    with np.load(frames) as stored, open_video(path) as video:
        return stored["frames"], video.info.fps


def write_webp(path: Path, video: "np.ndarray", fps: float) -> None:
    """(T, H, W, 3) uint8, looping, without loss."""
    from PIL import Image

    path.parent.mkdir(parents=True, exist_ok=True)
    first, *others = (Image.fromarray(frame) for frame in video)
    first.save(path, save_all=True, append_images=others, duration=round(1000 / fps), loop=0, lossless=True)


def in_few_colours(video: "np.ndarray", count: int) -> "np.ndarray":
    """A video in colours that suit 16 frames spread over it, without dithering: what rests is at rest."""
    import numpy as np
    from PIL import Image

    spread = video[np.linspace(0, len(video) - 1, 16).astype(int)]
    palette = Image.fromarray(spread.reshape(-1, *video.shape[2:])).quantize(count)
    frames = (Image.fromarray(frame).quantize(palette=palette, dither=Image.Dither.NONE) for frame in video)
    return np.stack([np.asarray(frame.convert("RGB")) for frame in frames])


if __name__ == "__main__":
    run_script(main)
