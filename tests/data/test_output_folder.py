import re
from pathlib import Path

import pytest

from video_mirai.data.output_folder import make_output_folder


def test_a_folder_is_made_and_left_empty(tmp_path: Path) -> None:
    assert make_output_folder(tmp_path / "a/b").is_dir()
    assert list((tmp_path / "a/b").iterdir()) == []


@pytest.mark.parametrize("below", ["", "x", "x/y"])
def test_a_file_in_the_way_is_named(tmp_path: Path, below: str) -> None:
    (tmp_path / "file").touch()
    with pytest.raises(ValueError, match=r"cannot be a folder: .*file.* is a file"):
        make_output_folder(tmp_path / "file" / below)


def test_a_folder_that_takes_no_files_is_refused_with_the_reason() -> None:
    with pytest.raises(ValueError, match=re.escape("/proc/self/fdinfo cannot be written to")):
        make_output_folder("/proc/self/fdinfo")
