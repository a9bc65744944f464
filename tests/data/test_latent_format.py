"""The files of latent shards: what lies in them, and what is refused."""

import io
import json
import os
import pickle
import tarfile
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from latent_files import HEADER, arrays_of, named, write_samples

from video_mirai.data.latent_header import ArrayInfo, header_from, parse_header
from video_mirai.data.latent_index import Shard, index_of, list_shards, open_shard, verify_shard
from video_mirai.data.latent_reader import DamagedShard, read_array, read_latents, scan_shard
from video_mirai.data.latent_writer import pack_sample, write_shard

EXAMPLES = settings(
    max_examples=150, deadline=None, derandomize=True, suppress_health_check=[HealthCheck.function_scoped_fixture]
)


@pytest.fixture
def shard(tmp_path: Path) -> Shard:
    return write_samples(tmp_path, [named("a.mp4", caption="zwei Hunde\n\u72ac"), named("b.mp4")])


def read_everything(path: Path) -> None:
    for sample in open_shard(path).samples:
        read_latents(sample, 0, sample.header.num_frames)
        for name in sample.header.arrays:
            read_array(sample, name)


def test_what_is_written_is_read(shard: Shard) -> None:
    for found in (open_shard(shard.path).samples, scan_shard(shard.path)):
        assert [sample.header.name for sample in found] == ["a.mp4", "b.mp4"]
        assert found[0].header.caption == "zwei Hunde\n\u72ac"
        for number, sample in enumerate(found):
            expected = arrays_of(6, 100.0 * number)
            np.testing.assert_array_equal(read_latents(sample, 2, 3), expected["latents"][2:5])
            np.testing.assert_array_equal(read_array(sample, "latents"), expected["latents"])
            np.testing.assert_array_equal(read_array(sample, "times"), expected["times"])
    assert list(verify_shard(shard.path)) == []


def test_a_shard_is_an_ordinary_tar_of_ordinary_arrays(shard: Shard) -> None:
    """As webdataset reads it: samples by what precedes the first dot, in order, each member by its extension."""
    samples: dict[str, dict[str, Any]] = {}
    with tarfile.open(shard.path) as tar:
        for member in tar:
            key, _, extension = member.name.partition(".")
            content = tar.extractfile(member)
            assert content is not None
            read = np.load(io.BytesIO(content.read()), allow_pickle=False) if extension.endswith("npy") else None
            samples.setdefault(key, {})[extension] = read
    assert list(samples) == ["000000-00000", "000000-00001"]
    for number, members in enumerate(samples.values()):
        assert set(members) == {"json", "latents.npy", "latents.crc32.npy", "times.npy"}
        np.testing.assert_array_equal(members["latents.npy"], arrays_of(6, 100.0 * number)["latents"])


def test_float16_is_stored_as_such(tmp_path: Path) -> None:
    arrays = arrays_of(6)
    arrays["latents"] = arrays["latents"].astype(np.float16)
    shard = write_shard(tmp_path / "shard-000000.tar", [pack_sample("a", HEADER, arrays)])
    assert shard is not None
    assert read_latents(shard.samples[0], 0, 6).dtype == np.float16


def test_the_same_samples_make_the_same_bytes(tmp_path: Path) -> None:
    contents = []
    for folder in ("first", "second"):
        shard = write_samples(tmp_path / folder, [named("a.mp4"), named("b.mp4")])
        contents.append((shard.path.read_bytes(), index_of(shard.path).read_bytes()))
    assert contents[0] == contents[1]


def test_no_samples_make_no_shard(tmp_path: Path) -> None:
    assert write_shard(tmp_path / "shard-000000.tar", []) is None
    assert list(tmp_path.iterdir()) == []


def test_a_shard_that_cannot_be_finished_leaves_nothing(tmp_path: Path) -> None:
    def samples() -> Any:
        yield pack_sample("a", HEADER, arrays_of(6))
        raise OSError(28, "No space left on device")

    with pytest.raises(OSError, match="No space left"):
        write_shard(tmp_path / "shard-000000.tar", samples())
    assert list(tmp_path.iterdir()) == []


def test_folders_are_listed_whole_and_hidden_files_left_out(tmp_path: Path) -> None:
    for place in (
        "shard-000001.tar",
        "sub/shard-000000.tar",
        ".shard-000002.tar.unfinished",
        ".trash/shard-000003.tar",
    ):
        (tmp_path / place).parent.mkdir(exist_ok=True)
        (tmp_path / place).touch()
    assert list_shards(tmp_path) == [tmp_path / "sub" / "shard-000000.tar", tmp_path / "shard-000001.tar"]


def test_an_index_without_its_shard_is_an_error(shard: Shard) -> None:
    shard.path.unlink()
    with pytest.raises(ValueError, match=r"shard-000000\.index\.json: its shard is gone; encode anew"):
        list_shards(shard.path.parent)


@pytest.mark.parametrize(
    ("content", "reason"),
    [
        (b"", "not a usable index"),
        (b"no json", "not a usable index"),
        (b"[" * 100_000, "not a usable index"),
        (b"[]", "not of format 1"),
        (b'{"format": 2}', "not of format 1"),
        (b'{"format": 1, "num_bytes": 5, "sha256": "", "samples": []}', "samples are missing"),
        (b'{"format": 1, "num_bytes": 5, "sha256": "", "samples": [{"members": {}}]}', "a header is not one of this"),
    ],
)
def test_an_index_that_is_none_is_named(shard: Shard, content: bytes, reason: str) -> None:
    index_of(shard.path).write_bytes(content)
    with pytest.raises(DamagedShard, match=r"index\.json: not a usable index \(.*remove it") as caught:
        open_shard(shard.path)
    assert reason in str(caught.value)
    assert "\n" not in str(caught.value)


def test_a_place_beyond_the_shards_end_is_refused(shard: Shard) -> None:
    entry = json.loads(index_of(shard.path).read_bytes())
    entry["samples"][0]["members"]["latents.npy"][0] = 2**62
    index_of(shard.path).write_text(json.dumps(entry))
    with pytest.raises(DamagedShard, match=r"latents\.npy goes beyond the end of the shard"):
        open_shard(shard.path)


def test_a_shard_cut_off_is_named_with_and_without_its_index(shard: Shard) -> None:
    num_bytes = shard.path.stat().st_size
    os.truncate(shard.path, num_bytes // 2)
    with pytest.raises(DamagedShard, match=f"has {num_bytes // 2} bytes, its index says {num_bytes}"):
        open_shard(shard.path)
    index_of(shard.path).unlink()
    with pytest.raises(DamagedShard, match="cut off"):
        open_shard(shard.path)


@pytest.mark.parametrize(
    ("content", "reason"),
    [
        (b"", "cut off at byte 0"),
        (b"no tar" * 200, "not a tar shard"),
        (bytes(1024), "holds no samples"),
        (pickle.dumps({"latents": [0.0] * 1000}), "not a tar shard"),
        (b"PK\3\4" + bytes(2000), "not a tar shard"),
    ],
)
def test_what_is_no_shard_is_named(tmp_path: Path, content: bytes, reason: str) -> None:
    path = tmp_path / "shard-000000.tar"
    path.write_bytes(content)
    with pytest.raises(DamagedShard, match=reason):
        open_shard(path)


def test_links_in_a_shard_are_not_followed(tmp_path: Path) -> None:
    with tarfile.open(tmp_path / "shard-000000.tar", "w") as tar:
        link = tarfile.TarInfo("a.json")
        link.type, link.linkname = tarfile.SYMTYPE, "/etc/passwd"
        tar.addfile(link)
    with pytest.raises(DamagedShard, match=r"'a\.json' is no ordinary file"):
        open_shard(tmp_path / "shard-000000.tar")


class Bomb:
    """Unpickled, it makes a file."""

    def __init__(self, path: Path) -> None:
        self.path = path

    def __reduce__(self) -> tuple[Callable[..., Any], tuple[Any, ...]]:
        return os.mkdir, (str(self.path),)


def add_member(tar: tarfile.TarFile, name: str, content: bytes) -> None:
    info = tarfile.TarInfo(name)
    info.size = len(content)
    tar.addfile(info, io.BytesIO(content))


def test_a_malicious_pickle_is_refused_as_a_shard_and_in_one(tmp_path: Path) -> None:
    bomb = tmp_path / "exploded"
    stream = io.BytesIO()
    np.lib.format.write_array(stream, np.array([[Bomb(bomb)]], dtype=object), version=(1, 0), allow_pickle=True)
    arrays = {"latents": ArrayInfo((1, 1, 1, 1), "float32", ""), "times": ArrayInfo((1,), "float64", "")}
    with tarfile.open(tmp_path / "shard-000000.tar", "w", format=tarfile.USTAR_FORMAT) as tar:
        add_member(tar, "a.json", replace(HEADER, arrays=arrays).to_bytes())
        for member in ("latents.npy", "latents.crc32.npy", "times.npy"):
            add_member(tar, f"a.{member}", stream.getvalue())
    with pytest.raises(DamagedShard, match=r"latents\.npy holds object \(1, 1\), its header says float32"):
        read_everything(tmp_path / "shard-000000.tar")

    (tmp_path / "shard-000001.tar").write_bytes(pickle.dumps(Bomb(bomb)).ljust(2000, b"\0"))
    with pytest.raises(DamagedShard, match="not a tar shard"):
        read_everything(tmp_path / "shard-000001.tar")
    assert not bomb.exists()
    np.load(io.BytesIO(stream.getvalue()), allow_pickle=True)
    assert bomb.exists()  # so it would have been


def test_verify_names_everything_that_is_damaged(shard: Shard) -> None:
    content = bytearray(shard.path.read_bytes())
    for sample, member in ((0, "latents.npy"), (0, "times.npy"), (1, "latents.crc32.npy")):
        span = shard.samples[sample].members[member]
        content[span.offset + span.num_bytes - 1] ^= 1
    shard.path.write_bytes(content)
    problems = list(verify_shard(shard.path))
    assert len(problems) == 2
    assert "a.mp4: its latents are damaged" in problems[0] or "a.mp4: its times are damaged" in problems[0]
    assert "b.mp4: latent frame 5 is damaged" in problems[1]


def test_verify_names_a_shard_with_damage_in_no_sample(shard: Shard) -> None:
    content = bytearray(shard.path.read_bytes())
    content[-1] ^= 1
    shard.path.write_bytes(content)
    assert list(verify_shard(shard.path)) == [f"{shard.path}: differs from what its index was made of"]


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"format": 2}, "in format 1"),
        ({"name": None}, "name=None"),
        ({"height": 0}, "height=0"),
        ({"height": True}, "height=True"),
        ({"fps": 0}, "fps=0"),
        ({"fps": float("nan")}, "fps=nan"),
        ({"fps": 10**400}, "fps=1000"),
        ({"context": "smell"}, "context='smell'"),
        ({"end_frame": 0}, "end_frame=0"),
        ({"arrays": {}}, r"lists the arrays \[\]"),
    ],
)
def test_headers_that_cannot_be_are_refused(change: dict[str, Any], message: str, shard: Shard) -> None:
    entry = shard.samples[0].header.to_dict()
    entry["arrays"] = json.loads(shard.samples[0].header.to_bytes())["arrays"]
    assert header_from(entry) == shard.samples[0].header
    with pytest.raises(ValueError, match=message):
        header_from(entry | change)


@pytest.mark.parametrize(
    ("name", "info", "message"),
    [
        ("latents", {"shape": [6, 2, 3], "dtype": "float32", "sha256": ""}, r"latents of float32 \(6, 2, 3\)"),
        ("latents", {"shape": [6, 2, 3, 4], "dtype": "object", "sha256": ""}, "latents of object"),
        ("latents", {"shape": [-6, 2, 3, 4], "dtype": "float32", "sha256": ""}, "latents of shape"),
        ("times", {"shape": [5], "dtype": "float64", "sha256": ""}, r"times of float64 \(5,\)"),
        ("times", {"shape": [6]}, "describes times as"),
        ("times", 6, "describes times as 6"),
    ],
)
def test_arrays_that_cannot_be_are_refused(name: str, info: Any, message: str, shard: Shard) -> None:
    entry = json.loads(shard.samples[0].header.to_bytes())
    entry["arrays"][name] = info
    with pytest.raises(ValueError, match=message):
        header_from(entry)


@EXAMPLES
@given(text=st.binary(max_size=80) | st.text(max_size=80).map(str.encode))
def test_whatever_a_header_holds_it_is_one_or_a_value_error(text: bytes) -> None:
    with pytest.raises(ValueError, match="a header"):
        parse_header(text)


@EXAMPLES
@given(
    place=st.floats(0, 1, exclude_max=True),
    content=st.binary(min_size=1, max_size=600),
    kind=st.sampled_from(["overwrite", "insert", "delete", "truncate"]),
    has_index=st.booleans(),
)
def test_a_damaged_shard_is_read_as_it_was_or_refused(
    tmp_path: Path, place: float, content: bytes, kind: str, has_index: bool
) -> None:
    path = tmp_path / "fuzzed" / "shard-000000.tar"
    write_samples(path.parent, [named("a.mp4"), named("b.mp4")])
    if not has_index:
        index_of(path).unlink()
    whole = path.read_bytes()
    at = int(place * len(whole))
    end = at + (0 if kind == "insert" else len(content))
    middle = content if kind in ("overwrite", "insert") else b""
    path.write_bytes(whole[:at] + middle + (b"" if kind == "truncate" else whole[end:]))
    try:
        read_everything(path)
    except DamagedShard as error:
        assert str(error).startswith(str(path.parent)) and "\n" not in str(error)


@EXAMPLES
@given(place=st.floats(0, 1, exclude_max=True), content=st.binary(min_size=1, max_size=40))
def test_a_damaged_index_is_refused_or_harmless(tmp_path: Path, place: float, content: bytes) -> None:
    path = tmp_path / "fuzzed" / "shard-000000.tar"
    write_samples(path.parent, [named("a.mp4"), named("b.mp4")])
    whole = index_of(path).read_bytes()
    at = int(place * len(whole))
    index_of(path).write_bytes(whole[:at] + content + whole[at + len(content) :])
    try:
        read_everything(path)
    except DamagedShard as error:
        assert str(error).startswith(str(path.parent)) and "\n" not in str(error)
