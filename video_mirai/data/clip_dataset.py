"""Data sets of clips that are cut from items (video files, samples of a shard), some of which may prove to be bad."""

from __future__ import annotations

import logging
from abc import ABC, abstractmethod
from collections.abc import Sequence
from contextlib import suppress
from pathlib import Path
from typing import ClassVar, NamedTuple, Protocol

import numpy as np
from torch.utils.data import Dataset

from video_mirai.data.batch import ClipKey, VideoSample
from video_mirai.data.loader import split_places

logger = logging.getLogger(__name__)

SPLITS = ("train", "val", "test", "all")
MAX_ATTEMPTS = 100  # replacement clips drawn for one bad one
NAMED_ITEMS = 3  # bad ones that an error names


class BadItem(ValueError):
    """A file that is not what it should be, or cannot be read; the message names the path and the reason."""

    def __init__(self, path: str | Path, reason: str) -> None:
        super().__init__(str(path), reason)  # with these, pickle makes it again
        self.path = str(path)
        self.reason = " ".join(reason.split())  # one line, whatever a file's content says

    def __str__(self) -> str:
        return f"{self.path}: {self.reason}"


class TooManyBadItems(ValueError):
    """More items than allowed cannot be read."""


class ClipPlace(NamedTuple):
    """Where in the split clips are cut: place number `slot` of item number `item`."""

    item: int
    slot: int


class ClipSettings(Protocol):
    """What the configurations of such data sets have in common; VideoFolderConfig describes it."""

    root: str
    num_frames: int
    split: str
    val_fraction: float
    test_fraction: float
    clips_per_video: int
    stride_seconds: float | None
    seed: int
    on_bad: str
    max_bad_fraction: float


class ClipDataset(Dataset[VideoSample], ABC):
    """Map-style data set; a clip depends only on (seed, epoch, index), not on the process that reads it.

    From every place clips_per_place clips are cut, whose indices follow each other. With on_bad="skip" a clip that
    cannot be read is replaced by one drawn from (seed, epoch, the place's number, attempt). Each process counts and
    logs the bad items it has met itself, in `bad_items` {name: what is wrong}; a loader's workers therefore each log an
    item once, and each fails when it alone has met too many.

    A subclass sets `num_items` and `places`, and reads a place. Raises BadItem for a bad item with on_bad="raise";
    TooManyBadItems.
    """

    ITEMS: ClassVar[str]  # how messages call them
    num_items: int
    places: list[ClipPlace]
    clips_per_place: int = 1

    def __init__(self, settings: ClipSettings) -> None:
        self._settings = settings
        self.bad_items: dict[str, str] = {}

    @abstractmethod
    def _read(self, place: ClipPlace, members: Sequence[int], generator: np.random.Generator) -> list[VideoSample]:
        """Clips of a place, without their indices; BadItem where one of them cannot be read.

        members: which of its clips, from 0 on.
        """

    @abstractmethod
    def _item_name(self, item: int) -> str:
        """Unlike that of any other item."""

    def __len__(self) -> int:
        return len(self.places) * self.clips_per_place

    def __getitem__(self, key: int | ClipKey) -> VideoSample:
        epoch, index = self._checked(key)
        number, member = divmod(index, self.clips_per_place)
        place = self.places[number]
        for attempt in range(MAX_ATTEMPTS):
            generator = np.random.default_rng([self._settings.seed, epoch, number, attempt])
            if attempt > 0:
                place = self.places[generator.integers(len(self.places))]
            try:
                [clip] = self._read(place, [member], generator)
            except BadItem as error:
                self._count_bad(place.item, error)
                continue
            clip["index"] = index
            return clip
        raise TooManyBadItems(
            f"{self._settings.root}: {MAX_ATTEMPTS} clips in turn cannot be read; {self._name_bad()}."
        )

    def __getitems__(self, keys: Sequence[int | ClipKey]) -> list[VideoSample]:
        """The same clips as one by one; those of one place that follow each other are read in one go."""
        checked = [self._checked(key) for key in keys]
        return [
            clip for neighbours in split_places(checked, self.clips_per_place) for clip in self._read_place(neighbours)
        ]

    def _read_place(self, keys: Sequence[ClipKey]) -> list[VideoSample]:
        if len(keys) > 1:
            number = keys[0].index // self.clips_per_place
            generator = np.random.default_rng([self._settings.seed, keys[0].epoch, number, 0])
            members = [key.index % self.clips_per_place for key in keys]
            with suppress(BadItem):  # then only some of them may be bad
                clips = self._read(self.places[number], members, generator)
                for key, clip in zip(keys, clips, strict=True):
                    clip["index"] = key.index
                return clips
        return [self[key] for key in keys]

    def _checked(self, key: int | ClipKey) -> ClipKey:
        epoch, index = key if isinstance(key, tuple) else (0, key)
        if not 0 <= index < len(self):
            raise IndexError(f"clip {index} is not in 0..{len(self) - 1}.")
        return ClipKey(epoch, index)

    def _count_bad(self, item: int, error: BadItem) -> None:
        """Logs a bad item once and goes on, unless the settings say that it is an error."""
        if self._settings.on_bad == "raise":
            raise error
        name = self._item_name(item)
        if name in self.bad_items:
            return
        self.bad_items[name] = str(error)
        num_bad, allowed = len(self.bad_items), self._settings.max_bad_fraction * self.num_items
        if num_bad > allowed or num_bad == self.num_items:
            raise TooManyBadItems(
                f"{self._settings.root}: at least {num_bad} of {self.num_items} {self.ITEMS} cannot be read "
                f"(max_bad_fraction={self._settings.max_bad_fraction:g}): {self._name_bad()}."
            ) from error
        logger.warning("skipping %s (%d of %d %s are bad so far)", error, num_bad, self.num_items, self.ITEMS)

    def _name_bad(self) -> str:
        said = list(self.bad_items.values())
        more = len(said) - NAMED_ITEMS
        return "; ".join(said[:NAMED_ITEMS]) + (f"; and {more} more" if more > 0 else "")


def check_settings(settings: ClipSettings) -> None:
    """Raises ValueError naming the first setting that cannot be."""
    for name, value in (("num_frames", settings.num_frames), ("clips_per_video", settings.clips_per_video)):
        if value < 1:
            raise ValueError(f"{name}={value} must be at least 1.")
    if settings.stride_seconds is not None and not settings.stride_seconds > 0:
        raise ValueError(f"stride_seconds={settings.stride_seconds} must be positive, or null.")
    if settings.seed < 0:
        raise ValueError(f"seed={settings.seed} must not be negative.")
    if settings.split not in SPLITS:
        raise ValueError(f"split={settings.split!r} is unknown; known: {', '.join(SPLITS)}.")
    if settings.on_bad not in ("skip", "raise"):
        raise ValueError(f"on_bad={settings.on_bad!r} is unknown; known: skip, raise.")
    if min(settings.val_fraction, settings.test_fraction) < 0 or settings.val_fraction + settings.test_fraction >= 1:
        raise ValueError(
            f"val_fraction={settings.val_fraction} and test_fraction={settings.test_fraction} must not be negative and "
            f"must leave something to train on."
        )
    if not 0 <= settings.max_bad_fraction <= 1:
        raise ValueError(f"max_bad_fraction={settings.max_bad_fraction} must be from 0 to 1.")
