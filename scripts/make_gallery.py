"""The videos of an evaluation, side by side in one file: the README's picture is made with it."""

import argparse
from pathlib import Path
from typing import TYPE_CHECKING

from _cli import make_parser, run_script

if TYPE_CHECKING:
    import numpy as np

SUFFIXES = (".webp", ".mp4", ".gif")


def main() -> None:
    """Parse, read, write."""
    options = parse_options()

    # Below, because these imports take seconds and --help needs none.
    import numpy as np

    from video_mirai.media import side_by_side, write_video

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
    write = write_webp if options.out.suffix == ".webp" else write_video
    write(options.out, gallery, rates[0])
    print(options.out)


def parse_options() -> argparse.Namespace:
    """ValueError for the first option that cannot be."""
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
    parser.add_argument("--out", type=Path, required=True, metavar="FILE", help="its ending says how it is written")
    options = parser.parse_args()
    if options.out.suffix not in SUFFIXES:
        raise ValueError(f"--out {options.out}: must end in one of {', '.join(SUFFIXES)}.")
    for option, most in (("scale", None), ("frames", None), ("colours", 256)):
        value = vars(options)[option]
        if value is not None and (value < 1 or (most is not None and value > most)):
            raise ValueError(f"--{option} {value} must be at least 1{'' if most is None else f' and at most {most}'}.")
    return options


def read_video(report: Path, model: str, clip: int) -> "tuple[np.ndarray, float]":
    """(T, H, W, 3) uint8 and its rate; the exact frames where an evaluation has kept them, else the mp4's."""
    import numpy as np

    from video_mirai.data.video_reader import open_video

    path = report / "videos" / model / f"{clip:04d}.mp4"
    exact = report / "frames" / model / f"{clip:04d}.npz"
    if not path.is_file():
        raise FileNotFoundError(f"{path} is not there; does the evaluation have this model and this clip?")
    with open_video(path) as video:
        if not exact.is_file():
            return video.read(list(range(video.info.num_frames))), video.info.fps
        with np.load(exact) as stored:
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
