"""The caption of each video: from a file beside it, from the manifest, or from its folder's name."""

from __future__ import annotations

import json
from collections.abc import Callable, Sequence
from pathlib import Path

from video_mirai.data.video_list import VideoFile

SIDECARS = (".txt", ".json")
CAPTION_KEY = "caption"


def with_captions(files: Sequence[VideoFile], captions: str) -> list[VideoFile]:
    """The files, each with the caption that the setting names; with "none", none.

    captions: "none"; "sidecar": `clip.txt` (the whole text, stripped) or, where there is none, `clip.json`
    ({"caption": ...}) beside `clip.mp4`; "manifest": the column "caption"; "folder": `folder_label`.

    Raises ValueError for an unknown setting, for files without a caption (how many, and the first), and for a sidecar
    that cannot be read.
    """
    if captions not in CAPTIONS:
        raise ValueError(f"captions={captions!r} is unknown; known: {', '.join(CAPTIONS)}.")
    caption_of = CAPTIONS[captions]
    found = [file._replace(caption=caption_of(file)) for file in files]
    lacking = [file for file in found if not file.caption]
    if lacking and captions != "none":
        raise ValueError(
            f"captions={captions!r}, but {len(lacking)} of {len(files)} videos have no caption "
            f"({MISSING[captions]}); the first: {lacking[0].path}."
        )
    return found


def folder_label(file: VideoFile) -> str:
    """The name of the folder that the file lies in, underscores as spaces: "playing_guitar/1.mp4" is playing guitar."""
    return file.path.absolute().parent.name.replace("_", " ")


def _from_nothing(file: VideoFile) -> str | None:
    return None


def _from_manifest(file: VideoFile) -> str | None:
    return file.caption.strip() if file.caption is not None else None


def _from_sidecar(file: VideoFile) -> str | None:
    for suffix in SIDECARS:
        path = file.path.with_suffix(suffix)
        if path.is_file():
            return _read_sidecar(path)
    return None


def _read_sidecar(path: Path) -> str | None:
    """The caption in a sidecar file; None for a .json without one. ValueError naming a file that is damaged."""
    try:
        text = path.read_text(encoding="utf-8-sig")
        if path.suffix == ".txt":
            return text.strip()
        described = json.loads(text)
    except (ValueError, RecursionError) as error:
        raise ValueError(f"{path}: not a caption file ({error}).") from error
    caption = described.get(CAPTION_KEY) if isinstance(described, dict) else None
    if caption is not None and not isinstance(caption, str):
        raise ValueError(f'{path}: "{CAPTION_KEY}" is no text.')
    return caption.strip() if caption is not None else None


CAPTIONS: dict[str, Callable[[VideoFile], str | None]] = {
    "none": _from_nothing,
    "sidecar": _from_sidecar,
    "manifest": _from_manifest,
    "folder": folder_label,
}
MISSING = {
    "sidecar": f'a {" or ".join(SIDECARS)} file of the same name, a .json with "{CAPTION_KEY}", not empty',
    "manifest": f'the manifest\'s "{CAPTION_KEY}"',
    "folder": "a folder's name",
}
