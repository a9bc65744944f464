"""How well split_scenes' methods find shots: films of known cuts, made of any videos.

    python -m benchmarks.shots --videos data/doom

Joins random stretches of different videos by hard cuts or by dissolves, and counts what each method finds.
"""

import argparse
import sys
from collections.abc import Sequence
from itertools import pairwise
from pathlib import Path
from typing import NamedTuple

import numpy as np
from tqdm import tqdm

from video_mirai.data.frame_stream import stream_frames
from video_mirai.data.shots import HEIGHT, METHODS, WIDTH, shots_between
from video_mirai.data.video_list import VideoFile, list_videos
from video_mirai.data.video_reader import UnreadableVideo, open_video

SHOT_FRAMES = (15, 90)  # least and greatest length of a shot
TOLERANCE = 2  # frames that a boundary may be off by


class Film(NamedTuple):
    """frames: (N, HEIGHT, WIDTH, 3) uint8. transitions: the frame after the last that is only of
    one shot, and the first that is only of the next; the same for a hard cut.
    """

    frames: np.ndarray
    transitions: list[tuple[int, int]]


def main() -> int:
    parser = argparse.ArgumentParser(description="How well split_scenes' methods find shots, on films of known cuts.")
    parser.add_argument("--videos", type=Path, required=True, help="folder or manifest of videos, each one shot")
    parser.add_argument("--films", type=int, default=16, help="of each kind (default: %(default)s)")
    parser.add_argument("--shots", type=int, default=8, help="in a film (default: %(default)s)")
    parser.add_argument("--dissolve", type=int, default=12, help="frames of a dissolve (default: %(default)s)")
    parser.add_argument("--seed", type=int, default=0, help="(default: %(default)s)")
    options = parser.parse_args()
    try:
        videos = list_videos(options.videos)
        if len(videos) < 2:
            raise ValueError(f"{options.videos}: films are made of at least 2 videos.")
        for method, made in METHODS.items():
            scores = made.load("cpu")
            for kind, dissolve in (("hard cuts", 0), (f"dissolves of {options.dissolve} frames", options.dissolve)):
                generator = np.random.default_rng(options.seed)
                counts = np.zeros(3, np.int64)
                for _ in tqdm(range(options.films), desc=f"{method}, {kind}", leave=False):
                    film = make_film(videos, options.shots, dissolve, generator)
                    counts += judge(film, shots_between(scores([film.frames]), made.threshold))
                hits, found, there = counts.tolist()
                precision = hits / found if found else float("nan")
                print(f"{method}, {kind}: {there} there, {found} found, precision {precision:.3f}, recall "
                      f"{hits / there:.3f}")  # fmt: skip
    except (ValueError, OSError) as error:
        print(f"shots: {error}", file=sys.stderr)
        return 2
    return 0


def make_film(videos: Sequence[VideoFile], num_shots: int, dissolve: int, generator: np.random.Generator) -> Film:
    """Random stretches of videos, no two of one video in a row; `dissolve` frames mix both sides, 0: a hard cut."""
    number = int(generator.integers(len(videos)))
    frames = stretch(videos, number, dissolve, generator)
    transitions = []
    for _ in range(num_shots - 1):
        number = int((number + generator.integers(1, len(videos))) % len(videos))
        following = stretch(videos, number, dissolve, generator)
        end = len(frames)
        if dissolve:
            share = (np.arange(1, dissolve + 1) / (dissolve + 1))[:, None, None, None]
            mixed = frames[-dissolve:] * (1 - share) + following[:dissolve] * share
            frames = np.concatenate([frames[:-dissolve], mixed.astype(np.uint8), following[dissolve:]])
            transitions.append((end - dissolve, end))
        else:
            frames = np.concatenate([frames, following])
            transitions.append((end, end))
    return Film(frames, transitions)


def stretch(videos: Sequence[VideoFile], number: int, dissolve: int, generator: np.random.Generator) -> np.ndarray:
    """Of one video, small as split_scenes looks at it; of another one where this is too short."""
    num_frames = int(generator.integers(*SHOT_FRAMES)) + 2 * dissolve
    for offset in range(len(videos)):
        file = videos[(number + offset) % len(videos)]
        with open_video(file.path, "pyav") as video:
            last = len(video.timestamps) - num_frames
            if last >= 0:
                start = int(generator.integers(last + 1))
                return np.concatenate([*stream_frames(video, range(start, start + num_frames), HEIGHT, WIDTH)])
    raise UnreadableVideo(videos[0].path.parent, f"no video has {num_frames} frames")


def judge(film: Film, shots: Sequence[tuple[int, int]]) -> np.ndarray:
    """(hits, found, there): a boundary found is a hit where it lies in a transition, each of which counts once."""
    found = [(before[1], after[0]) for before, after in pairwise(shots)]
    hits = sum(
        any(last - TOLERANCE <= next_first and end <= first + TOLERANCE for end, next_first in found)
        for last, first in film.transitions
    )
    return np.array([hits, len(found), len(film.transitions)])


if __name__ == "__main__":
    sys.exit(main())
