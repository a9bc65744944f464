"""Clips cut from latent shards."""

import logging
import shutil
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from latent_files import HEADER, arrays_of, named, write_samples

from video_mirai.data.batch import ClipKey
from video_mirai.data.batch_stream import BatchStream, LoaderConfig
from video_mirai.data.clip_dataset import TooManyBadItems
from video_mirai.data.latent_index import index_of
from video_mirai.data.latent_reader import DamagedShard
from video_mirai.data.latent_shards import LatentShards, LatentShardsConfig
from video_mirai.data.latent_writer import pack_sample, write_index, write_shard
from video_mirai.data.loader import EpochSampler


def first_values(dataset: LatentShards, epoch: int = 0) -> list[float]:
    """Of every clip the number that its first frame carries: 100 sample + frame."""
    return [dataset[ClipKey(epoch, index)]["latents"][0, 0, 0, 0].item() for index in range(len(dataset))]


def damage(path: Path, place: int) -> None:
    content = bytearray(path.read_bytes())
    content[place] ^= 0x40
    path.write_bytes(content)


def test_a_clip_is_consecutive_latent_frames(tmp_path: Path) -> None:
    write_samples(tmp_path, [named("a.mp4"), named("b.mp4")], num_frames=20)
    dataset = LatentShards(tmp_path, 4, split="all", clips_per_video=3)
    assert len(dataset) == 6
    for index in range(6):
        clip = dataset[index]
        assert clip["latents"].shape == (4, 2, 3, 4) and clip["latents"].dtype == torch.float32
        frames = clip["latents"][:, 0, 0, 0] - 100 * ("a.mp4", "b.mp4").index(clip["name"])
        assert torch.equal(frames, frames[0] + torch.arange(4))
        assert 0 <= frames[0] <= 16
        assert (clip["index"], dataset.clip_name(index)) == (index, clip["name"])


def test_a_clip_depends_only_on_seed_epoch_and_index(tmp_path: Path) -> None:
    write_samples(tmp_path, [HEADER], num_frames=50)
    first, second, other = (LatentShards(tmp_path, 4, split="all", clips_per_video=8, seed=seed) for seed in (0, 0, 1))
    epochs = [first_values(first, epoch) for epoch in (0, 1)]
    assert [first_values(second, epoch) for epoch in (1, 0)] == epochs[::-1]
    assert len(set(epochs[0])) > 4 and epochs[0] != epochs[1]
    assert first_values(other) != epochs[0]


def test_clips_do_not_depend_on_how_samples_are_spread_over_shards(tmp_path: Path) -> None:
    headers = [named(f"{letter}.mp4") for letter in "abcd"]
    write_samples(tmp_path / "one", headers, num_frames=30)
    (tmp_path / "many" / "sub").mkdir(parents=True)
    for number in (3, 1, 0, 2):
        folder = tmp_path / "many" / ("sub" if number % 2 else ".")
        packed = pack_sample(f"k{number}", headers[number], arrays_of(30, 100.0 * number))
        write_shard(folder / f"shard-{9 - number:06d}.tar", [packed])
    settings: dict[str, Any] = {"split": "all", "clips_per_video": 2}
    whole, spread = LatentShards(tmp_path / "one", 4, **settings), LatentShards(tmp_path / "many", 4, **settings)
    assert first_values(whole) == first_values(spread)
    assert [whole.clip_name(index) for index in range(8)] == [spread.clip_name(index) for index in range(8)]


@pytest.mark.parametrize("num_workers", [0, 2])
def test_workers_give_the_same_batches(tmp_path: Path, num_workers: int) -> None:
    write_samples(tmp_path, [named(f"{number}.mp4") for number in range(6)], num_frames=30)
    dataset = LatentShards(tmp_path, 4, split="all")
    expected = [first_values(dataset, epoch) for epoch in range(2)]
    with BatchStream(dataset, EpochSampler(6, batch_size=3, seed=0), LoaderConfig(num_workers=num_workers)) as batches:
        for epoch in range(2):
            seen = {}
            for _ in range(2):
                batch = next(batches)
                seen |= dict(zip(batch["index"].tolist(), batch["latents"][:, 0, 0, 0, 0].tolist(), strict=True))
            assert seen == dict(enumerate(expected[epoch]))


def test_held_out_clips_are_evenly_spaced_and_the_same_in_every_epoch(tmp_path: Path) -> None:
    write_samples(tmp_path, [HEADER], num_frames=43)
    dataset = LatentShards(tmp_path, 4, split="val", val_fraction=0.99, test_fraction=0, clips_per_video=4)
    assert first_values(dataset) == first_values(dataset, 1) == [5, 15, 25, 35]


def test_a_stride_cuts_a_clip_every_so_many_seconds(tmp_path: Path) -> None:
    write_samples(tmp_path, [named("a.mp4"), named("b.mp4")], num_frames=20)
    dataset = LatentShards(tmp_path, 4, split="all", stride_seconds=0.5)
    assert first_values(dataset) == [0, 4, 8, 12, 16, 100, 104, 108, 112, 116]


def test_segments_are_never_crossed(tmp_path: Path) -> None:
    write_samples(tmp_path, [named("a.mp4", segment_frames=5)], num_frames=20)
    dataset = LatentShards(tmp_path, 3, split="all", clips_per_video=20)
    assert set(first_values(dataset)) == {0, 5, 10, 15}
    with pytest.raises(ValueError, match=r"num_frames=6 is more than the 5 latent frames .* larger --clip-frames"):
        LatentShards(tmp_path, 6, split="all")


def test_pieces_of_a_video_share_its_split_and_name_their_clips_by_it(tmp_path: Path) -> None:
    pieces = [
        named(f"{letter}.mp4#{first}-{first + 6}", source=f"{letter}.mp4", first_frame=first, end_frame=first + 6)
        for letter in "abcdefgh"
        for first in (0, 6)
    ]
    write_samples(tmp_path, pieces)
    sources = {}
    for split in ("train", "test"):
        dataset = LatentShards(tmp_path, 2, split=split, val_fraction=0, test_fraction=0.4)
        names = [dataset.clip_name(index) for index in range(len(dataset))]
        assert all(names.count(name) == 2 for name in names)
        sources[split] = set(names)
    assert sources["train"] | sources["test"] == {f"{letter}.mp4" for letter in "abcdefgh"}
    assert not sources["train"] & sources["test"]


def test_text_actions_and_classes_become_the_context(tmp_path: Path) -> None:
    text = np.arange(6, dtype=np.float16).reshape(2, 3)
    actions = np.arange(6, dtype=np.float32).reshape(6, 1, 1) * 10
    write_samples(tmp_path / "text", [named("a.mp4", context="text", context_from="e", caption="a cat")], context=text)
    write_samples(tmp_path / "actions", [named("a.mp4", context="actions", context_from="turn")], context=actions)
    write_samples(tmp_path / "class", [named(f"{name}/1.mp4", context="class", label=name) for name in ("dog", "cat")])

    clip = LatentShards(tmp_path / "text", 2, split="all")[0]
    assert clip["caption"] == "a cat"
    assert torch.equal(clip["context"], torch.from_numpy(text).float())

    clip = LatentShards(tmp_path / "actions", 2, split="all")[0]
    assert torch.equal(clip["context"][:, 0, 0], clip["latents"][:, 0, 0, 0] * 10)

    dataset = LatentShards(tmp_path / "class", 2, split="all")
    assert dataset.class_names == ("cat", "dog")
    assert {dataset[index]["name"]: dataset[index]["context"].tolist() for index in range(2)} == {
        "cat/1.mp4": [[1, 0]],
        "dog/1.mp4": [[0, 1]],
    }


def test_one_class_is_refused(tmp_path: Path) -> None:
    write_samples(tmp_path, [named("dog/1.mp4", context="class", label="dog")])
    with pytest.raises(ValueError, match="all 1 samples are 'dog'"):
        LatentShards(tmp_path, 2, split="all")


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"codec": "other"}, "b.mp4 has codec=other, but a.mp4 in .* has abc"),
        ({"height": 64}, "height=64"),
        ({"width": 64}, "width=64"),
        ({"fps": 30.0}, r"fps=30\.0"),
        ({"segment_frames": 3}, "segment_frames=3"),
    ],
)
def test_samples_that_do_not_go_together_are_refused(change: dict[str, Any], message: str, tmp_path: Path) -> None:
    write_samples(tmp_path, [named("a.mp4")])
    write_samples(tmp_path, [named("b.mp4", **change)], shard=1)
    with pytest.raises(ValueError, match=message):
        LatentShards(tmp_path, 2)


def test_frame_rates_that_differ_by_rounding_go_together(tmp_path: Path) -> None:
    write_samples(tmp_path, [named("a.mp4"), named("b.mp4", fps=8.001)])
    assert len(LatentShards(tmp_path, 2, split="all")) == 2


def test_another_codec_is_refused(tmp_path: Path) -> None:
    write_samples(tmp_path, [HEADER])
    dataset = LatentShards(tmp_path, 2, split="all")
    dataset.require_codec("abc")
    with pytest.raises(ValueError, match="encoded by codec abc, but this run's codec is xyz"):
        dataset.require_codec("xyz")


def test_of_two_samples_of_one_name_the_later_shards_counts(tmp_path: Path) -> None:
    write_samples(tmp_path, [named("a.mp4"), named("b.mp4")], shard=0)
    write_samples(tmp_path, [named("b.mp4")], shard=1)
    assert {value - value % 100 for value in first_values(LatentShards(tmp_path, 6, split="all"))} == {0}


def test_what_is_too_short_is_left_out_and_said(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    write_samples(tmp_path, [named("short.mp4")], num_frames=3)
    write_samples(tmp_path, [named("long.mp4")], num_frames=9, shard=1)
    with caplog.at_level(logging.WARNING):
        dataset = LatentShards(tmp_path, 4, split="all")
    assert [dataset.clip_name(index) for index in range(len(dataset))] == ["long.mp4"]
    assert "1 of 2 samples are shorter than 4 latent frames" in caplog.text
    with pytest.raises(ValueError, match=r"no sample of at least 10 latent frames \(of 2 samples, 2 in this split\)"):
        LatentShards(tmp_path, 10, split="all")


def test_folders_without_latents_are_named(tmp_path: Path) -> None:
    with pytest.raises(FileNotFoundError, match="nowhere: no such folder of latents"):
        LatentShards(tmp_path / "nowhere", 2)
    with pytest.raises(ValueError, match="no latents in this folder"):
        LatentShards(tmp_path, 2)
    (tmp_path / "a.mp4.safetensors").touch()
    with pytest.raises(ValueError, match="latents of an earlier version"):
        LatentShards(tmp_path, 2)


@pytest.mark.parametrize(
    ("setting", "message"),
    [
        ({"num_frames": 0}, "num_frames=0 must be at least 1"),
        ({"clips_per_video": 0}, "clips_per_video=0"),
        ({"stride_seconds": 0.0}, "stride_seconds=0.0 must be positive"),
        ({"seed": -1}, "seed=-1"),
        ({"split": "dev"}, "split='dev' is unknown; known: train"),
        ({"on_bad": "stop"}, "on_bad='stop' is unknown"),
        ({"val_fraction": 0.6, "test_fraction": 0.4}, "must leave something to train on"),
        ({"max_bad_fraction": 2.0}, "max_bad_fraction=2.0"),
    ],
)
def test_settings_that_cannot_be_are_named(tmp_path: Path, setting: dict[str, Any], message: str) -> None:
    with pytest.raises(ValueError, match=message):
        LatentShards(tmp_path, **setting)


def test_the_settings_are_those_of_the_configuration() -> None:
    assert LatentShards.__init__.__kwdefaults__ == {
        name: value for name, value in vars(LatentShardsConfig("")).items() if name not in ("root", "num_frames")
    }


def test_a_damaged_sample_is_skipped_named_and_counted(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    shard = write_samples(tmp_path, [named(f"{number}.mp4") for number in range(20)], num_frames=4)
    latents = shard.samples[7].members["latents.npy"]
    damage(shard.path, latents.offset + latents.num_bytes - 100)  # in the last but one of frames of 96 bytes
    dataset = LatentShards(tmp_path, 4, split="all")
    with caplog.at_level(logging.WARNING):
        values = first_values(dataset)
    bad = next(index for index in range(20) if dataset.clip_name(index) == "7.mp4")
    assert values[bad] != 700 and sorted(values[:bad] + values[bad + 1 :]) == [n * 100 for n in range(20) if n != 7]
    assert list(dataset.bad_items) == ["7.mp4"]
    assert "7.mp4: latent frame 2 is damaged (1 of 20 samples are bad so far)" in caplog.text
    assert first_values(dataset) == values

    with pytest.raises(DamagedShard, match=r"shard-000000\.tar: 7\.mp4: latent frame 2 is damaged"):
        LatentShards(tmp_path, 4, split="all", on_bad="raise")[bad]
    damage(shard.path, shard.samples[3].members["latents.npy"].offset + 300)
    with pytest.raises(TooManyBadItems, match=r"at least 2 of 20 samples cannot be read \(max_bad_fraction=0\.05\)"):
        first_values(dataset)


def test_a_shard_that_vanishes_is_an_error_within_the_allowed_share(tmp_path: Path) -> None:
    write_samples(tmp_path, [named("a.mp4"), named("b.mp4")])
    shard = write_samples(tmp_path, [named("c.mp4")], shard=1)
    dataset = LatentShards(tmp_path, 2, split="all", max_bad_fraction=0.4)
    shard.path.unlink()
    assert {value - value % 100 for value in first_values(dataset)} <= {0, 100}
    assert "cannot be opened (No such file" in dataset.bad_items["c.mp4"]


def test_a_shard_exchanged_behind_its_index_is_noticed(tmp_path: Path) -> None:
    shard = write_samples(tmp_path, [named("a.mp4")])
    other = write_samples(tmp_path / "other", [named("z.mp4")])
    dataset = LatentShards(tmp_path, 2, split="all", on_bad="raise")
    shutil.copy(other.path, shard.path)
    with pytest.raises(DamagedShard, match=r"a\.mp4: its header is not the one in the index"):
        dataset[0]


def test_times_that_do_not_ascend_are_damage(tmp_path: Path) -> None:
    arrays = arrays_of(6) | {"times": np.array([0, 1, 2, 1, 4, np.inf])}
    write_shard(tmp_path / "shard-000000.tar", [pack_sample("a", HEADER, arrays)])
    with pytest.raises(DamagedShard, match="times don't ascend"):
        LatentShards(tmp_path, 2, split="all", stride_seconds=1.0, on_bad="raise")


def test_a_shard_without_an_index_is_read_all_the_same(tmp_path: Path) -> None:
    shard = write_samples(tmp_path, [named("a.mp4"), named("b.mp4")], num_frames=30)
    expected = first_values(LatentShards(tmp_path, 2, split="all"))
    index_of(shard.path).unlink()
    assert first_values(LatentShards(tmp_path, 2, split="all")) == expected
    assert write_index(shard.path) == shard
