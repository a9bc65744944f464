"""Files that are on the disk for sure, and folders that still hold what was written: SHA256SUMS, for `sha256sum -c`."""

import hashlib
import os
import shutil
from pathlib import Path

SUMS_FILE = "SHA256SUMS"
_BLOCK_BYTES = 1 << 20


def write_sums(folder: Path) -> None:
    """Write the checksum of every file of a folder into its SHA256SUMS."""
    lines = [f"{file_sum(file)}  {file.name}\n" for file in sorted(folder.iterdir())]
    write_text(folder / SUMS_FILE, "".join(lines))


def check_sums(folder: Path) -> None:
    """Compare a folder with its SHA256SUMS.

    Raises:
        ValueError: names the first file that is missing or was changed.
    """
    path = folder / SUMS_FILE
    try:
        lines = path.read_text(encoding="utf-8").splitlines()
    except (OSError, UnicodeDecodeError) as error:
        raise ValueError(f"{folder} is damaged: {SUMS_FILE} cannot be read.") from error
    if not lines:
        raise ValueError(f"{folder} is damaged: {SUMS_FILE} is empty.")
    for line in lines:
        expected, _, name = line.partition("  ")
        file = folder / name
        if not name or Path(name).name != name:
            raise ValueError(f"{folder} is damaged: {SUMS_FILE} has a line that is no checksum: {line[:80]!r}.")
        if not file.is_file():
            raise ValueError(f"{folder} is damaged: {name} is missing.")
        if file_sum(file) != expected:
            raise ValueError(f"{file} is damaged: its checksum is not the one in {SUMS_FILE}.")


def file_sum(path: Path) -> str:
    """SHA-256 of a file, in hexadecimal."""
    digest = hashlib.sha256()
    with path.open("rb") as stream:
        while block := stream.read(_BLOCK_BYTES):
            digest.update(block)
    return digest.hexdigest()


def write_text(path: Path, text: str) -> None:
    """Write a text file and wait until it is on the disk."""
    path.write_text(text, encoding="utf-8")
    sync_file(path)


def sync_file(path: Path) -> None:
    """Wait until a file's content is on the disk."""
    with path.open("rb") as stream:
        os.fsync(stream.fileno())


def sync_folder(folder: Path) -> None:
    """Wait until a folder's entries, new names included, are on the disk."""
    descriptor = os.open(folder, os.O_RDONLY)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)


def remove_folder(folder: Path) -> None:
    """Remove a folder; when that is cut short, what is left no longer has the folder's name."""
    doomed = folder.with_name(f"removed_{folder.name}")
    if doomed.exists():
        shutil.rmtree(doomed)
    folder.rename(doomed)
    shutil.rmtree(doomed)
