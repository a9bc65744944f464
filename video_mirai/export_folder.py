"""An exported model's folder: what lies where in it, and how it is found."""

import json
from pathlib import Path
from typing import NamedTuple

EXPORT = "export"
TRANSFORMER = "transformer"
CODEC = "codec"
CONFIG_FILE = "run.yaml"
CLIPS_FILE = "clips.json"
PIPELINE_FILE = "model_index.json"  # diffusers' name
CARD_FILE = "README.md"  # the Hub's name

ASSET_PREFIX = "asset:"
ASSETS = Path(__file__).resolve().parents[1] / "assets" / "checkpoints"


class ClipFormat(NamedTuple):
    """Size in pixels and frame rate of the video that a model was trained on, known without its data."""

    height: int
    width: int
    fps: float


def resolve(path: str | Path) -> Path:
    """The folder itself, or the shipped one that `asset:<name>` stands for; FileNotFoundError for any other name."""
    text = str(path)
    if not text.startswith(ASSET_PREFIX):
        return Path(path)
    folder = ASSETS / text.removeprefix(ASSET_PREFIX)
    if not folder.is_dir():
        shipped = sorted(found.parent.name for found in ASSETS.glob(f"*/{TRANSFORMER}"))
        raise FileNotFoundError(f"{text} is not shipped; there are {', '.join(shipped) or 'none'}.")
    return folder


def find_export(path: str | Path) -> Path:
    """The export folder of a run folder or of `asset:<name>`, or the folder itself where it is an export.

    Raises:
        FileNotFoundError: names what is missing.
    """
    path = resolve(path)
    if not path.is_dir():
        raise FileNotFoundError(f"checkpoint folder {path} does not exist.")
    folder = path if (path / TRANSFORMER).is_dir() else path / EXPORT
    if not folder.is_dir():
        raise FileNotFoundError(
            f"{path} has no {EXPORT}/ folder; finish its training, or export what there is with scripts/export.py."
        )
    return folder


def find_run_export(path: str | Path) -> Path:
    """The same, and everything is there that `build.load_run` reads."""
    folder = find_export(path)
    for needed in (f"{TRANSFORMER}/config.json", CODEC, CLIPS_FILE, CONFIG_FILE):
        if not (folder / needed).exists():
            raise FileNotFoundError(f"{folder} is no complete export: {needed} is missing.")
    return folder


def read_clip_format(export: Path) -> ClipFormat:
    """What the export says about the clips."""
    return ClipFormat(**json.loads((export / CLIPS_FILE).read_text()))
