"""Offsets and neighbours on the space-time grid: never round a row's end, never out of the clip."""

import pytest
import torch

from video_mirai.objectives.look_ahead import Offset, fused_targets, head_offsets, offset_targets

CHUNKS, CHUNK_FRAMES, ROWS, COLUMNS = 3, 2, 3, 4


def grid_features() -> torch.Tensor:
    """Every token holds its own place (chunk, frame in it, row, column)."""
    axes = (torch.arange(size) for size in (CHUNKS, CHUNK_FRAMES, ROWS, COLUMNS))
    return torch.stack(torch.meshgrid(*axes, indexing="ij"), -1).float()[None]


@pytest.mark.parametrize("offset", [Offset(0), Offset(1), Offset(2, 1, -1), Offset(0, 0, 1), Offset(1, -2, 3)])
def test_a_target_is_exactly_the_token_one_offset_away_or_there_is_none(offset):
    targets, valid = offset_targets(grid_features(), offset)
    for place in grid_features()[0].reshape(-1, 4).int().tolist():
        there = [place[0] + offset.chunks, place[1], place[2] + offset.rows, place[3] + offset.columns]
        inside = all(0 <= at < size for at, size in zip(there, (CHUNKS, CHUNK_FRAMES, ROWS, COLUMNS), strict=True))
        assert valid[tuple(place)] == inside, place
        assert targets[0][tuple(place)].tolist() == (there if inside else [0] * 4)


def test_heads_are_the_window_and_then_its_nearest_neighbours():
    assert head_offsets((1, 2), 0) == [Offset(1), Offset(2)]
    around = head_offsets((1,), 6)[1:]
    assert set(around[:4]) == {Offset(1, -1, 0), Offset(1, 0, -1), Offset(1, 0, 1), Offset(1, 1, 0)}
    assert around[4:] == [Offset(1, -1, -1), Offset(1, -1, 1)]
    assert {offset.chunks for offset in head_offsets((0, 3), 4)[2:]} == {0}, "near in time counts too"


def test_a_head_for_each_offset_has_its_own_targets_and_the_mean_is_over_the_window():
    features = grid_features().reshape(1, CHUNKS * CHUNK_FRAMES, ROWS * COLUMNS, 4)
    heads = fused_targets(features, (0, 1), CHUNK_FRAMES, ROWS, 2, fuse="heads")
    tokens = CHUNK_FRAMES * ROWS * COLUMNS
    assert heads.targets.shape == (1, 4, CHUNKS, tokens, 4) and heads.valid.shape == (4, CHUNKS, tokens)
    assert heads.valid[1].tolist() == [[True] * tokens] * 2 + [[False] * tokens]
    mean = fused_targets(features, (0, 1), CHUNK_FRAMES, ROWS, 0, fuse="mean")
    assert mean.targets.shape == (1, 1, CHUNKS, tokens, 4)
    torch.testing.assert_close(mean.targets[:, 0, :2], heads.targets[:, :2, :2].mean(1))


def test_no_gradient_reaches_the_teacher_through_heads():
    assert not offset_targets(grid_features().requires_grad_(), Offset(1))[0].requires_grad
