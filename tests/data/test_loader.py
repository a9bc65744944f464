from itertools import islice

import numpy as np
import pytest
import torch
from torch.utils.data import Dataset

from video_mirai.data.batch import ClipKey, VideoSample
from video_mirai.data.batch_stream import BatchStream, LoaderConfig
from video_mirai.data.loader import EpochSampler, collate_clips


class Numbers(Dataset[VideoSample]):
    """A clip's pixels are its epoch and index."""

    def __getitem__(self, key: ClipKey) -> VideoSample:
        video = torch.tensor([key.epoch, key.index], dtype=torch.float32).reshape(1, 2, 1, 1)
        return VideoSample(
            video=video, state={"speed": torch.tensor([key.index])}, name=f"{key.index}", index=key.index
        )


def take(num_batches: int, **settings: int) -> list[list[ClipKey]]:
    return list(islice(EpochSampler(**{"num_items": 11, "batch_size": 2, "seed": 0, **settings}), num_batches))


def test_an_epoch_gives_every_clip_at_most_once_and_drops_the_incomplete_batch() -> None:
    keys = [key for batch in take(5) for key in batch]
    assert {key.epoch for key in keys} == {0}
    assert len({key.index for key in keys}) == 10
    assert {key.epoch for key in take(6)[5]} == {1}


def test_epochs_and_seeds_have_different_orders() -> None:
    batches = take(10)
    assert [key.index for batch in batches[:5] for key in batch] != [
        key.index for batch in batches[5:] for key in batch
    ]
    assert take(5) != take(5, seed=1)
    assert take(5) == take(5)


@pytest.mark.parametrize("start_step", [1, 5, 7])
def test_starting_at_a_step_goes_on_where_another_run_stopped(start_step: int) -> None:
    assert take(3, start_step=start_step) == take(12)[start_step : start_step + 3]


def test_the_global_order_does_not_depend_on_the_number_of_processes() -> None:
    together = take(8, batch_size=4)
    ranks = [take(8, batch_size=2, rank=rank, num_processes=2) for rank in range(2)]
    for batch, first, second in zip(together, *ranks, strict=True):
        assert batch[0::2] == first
        assert batch[1::2] == second


def test_one_clip_a_place_is_the_plain_permutation() -> None:
    assert [key.index for batch in take(5) for key in batch] == np.random.default_rng([0, 0]).permutation(11).tolist()[
        :10
    ]


def test_clips_of_a_place_stay_together_whatever_the_number_of_processes() -> None:
    placed = {"num_items": 24, "clips_per_place": 2}
    together = take(8, batch_size=8, **placed)
    assert {key.index for batch in together[:3] for key in batch} == set(range(24))
    for batch in together:
        assert all(second == ClipKey(*first)._replace(index=first.index + 1) and first.index % 2 == 0
                   for first, second in zip(batch[0::2], batch[1::2], strict=True))  # fmt: skip
    ranks = [take(8, batch_size=4, rank=rank, num_processes=2, **placed) for rank in range(2)]
    for batch, first, second in zip(together, *ranks, strict=True):
        assert first == [*batch[0:2], *batch[4:6]]
        assert second == [*batch[2:4], *batch[6:8]]
    assert take(3, batch_size=8, start_step=4, **placed) == together[4:7]


def test_a_batch_that_places_do_not_fill_is_an_error() -> None:
    with pytest.raises(ValueError, match="3 clips per process is not a multiple of clips_per_place=2"):
        EpochSampler(12, 3, 0, clips_per_place=2)


def test_a_batch_larger_than_the_data_set_is_an_error() -> None:
    with pytest.raises(ValueError, match="11 clips, fewer than a batch of 12"):
        EpochSampler(11, 6, 0, num_processes=2)


@pytest.mark.parametrize("num_workers", [0, 2])
def test_batches_come_in_the_samplers_order(num_workers: int) -> None:
    with BatchStream(Numbers(), EpochSampler(11, 2, 0), LoaderConfig(num_workers=num_workers)) as stream:
        batches = list(islice(stream, 7))
    assert [batch["video"].flatten().int().tolist() for batch in batches] == [
        [number for key in keys for number in key] for keys in take(7)
    ]


def test_collating_stacks_every_entry() -> None:
    batch = collate_clips([Numbers()[ClipKey(0, 3)], Numbers()[ClipKey(0, 5)]])
    assert batch["video"].shape == (2, 1, 2, 1, 1)
    assert batch["state"]["speed"].tolist() == [[3], [5]]
    assert batch["name"] == ["3", "5"]
    assert batch["index"].tolist() == [3, 5]


def test_clips_that_do_not_fit_together_are_an_error() -> None:
    small = VideoSample(video=torch.zeros(2, 3, 4, 4), name="a", index=0)
    large = VideoSample(video=torch.zeros(2, 3, 8, 8), name="b", index=1)
    latents = VideoSample(latents=torch.zeros(2, 3, 4, 4), name="c", index=2)
    with pytest.raises(ValueError, match="video has several shapes"):
        collate_clips([small, large])
    with pytest.raises(ValueError, match="different entries"):
        collate_clips([small, latents])
