"""Folders that results go to, tried before the work and not after it."""

import tempfile
from pathlib import Path


def make_output_folder(path: str | Path) -> Path:
    """The folder, made where there is none, once a file could be written into it.

    Raises:
        ValueError: it is a file, lies below one, or cannot be written to.
    """
    folder = Path(path)
    try:
        folder.mkdir(parents=True, exist_ok=True)
        with tempfile.TemporaryFile(dir=folder):
            pass
    except (FileExistsError, NotADirectoryError) as error:
        raise ValueError(f"{folder} cannot be a folder: {error.filename} is a file; name another.") from error
    except OSError as error:
        raise ValueError(f"{folder} cannot be written to: {error.strerror}; name another folder.") from error
    return folder
