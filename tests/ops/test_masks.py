import pytest
import torch

from video_mirai.ops.masks import chunk_causal_mask, teacher_forcing_mask


def test_frame_wise_mask_without_window_is_lower_triangular():
    assert torch.equal(chunk_causal_mask(5, 1, 1), torch.ones(5, 5).tril().bool())


def test_chunks_attend_within_themselves_and_backwards_only():
    mask = chunk_causal_mask(4, 1, 2)
    assert mask.int().tolist() == [[1, 1, 0, 0], [1, 1, 0, 0], [1, 1, 1, 1], [1, 1, 1, 1]]


def test_window_counts_history_frames_before_the_current_chunk():
    mask = chunk_causal_mask(6, 1, 2, window_frames=2)
    assert mask[4].int().tolist() == [0, 0, 1, 1, 1, 1]
    assert mask[2].int().tolist() == [1, 1, 1, 1, 0, 0]


def test_sink_frames_stay_visible_outside_the_window():
    mask = chunk_causal_mask(6, 1, 1, window_frames=1, sink_frames=1)
    assert mask[5].int().tolist() == [1, 0, 0, 0, 1, 1]


def test_window_zero_leaves_the_current_chunk():
    assert torch.equal(chunk_causal_mask(4, 1, 2, window_frames=0), torch.block_diag(*[torch.ones(2, 2)] * 2).bool())


def test_tokens_of_a_frame_share_what_it_sees():
    frame_mask = chunk_causal_mask(3, 1, 1)
    token_mask = chunk_causal_mask(3, 4, 1)
    assert token_mask.shape == (12, 12)
    assert torch.equal(token_mask[::4, ::4], frame_mask)
    assert torch.equal(token_mask[3::4, 2::4], frame_mask)


@pytest.mark.parametrize("window, sink", [(None, 0), (2, 0), (2, 1)])
def test_teacher_forcing_targets_see_the_history_that_rollout_would_give_them(window, sink):
    frames, chunk = 6, 2
    history = frames - chunk
    mask = teacher_forcing_mask(frames, 1, chunk, window_frames=window, sink_frames=sink)
    causal = chunk_causal_mask(frames, 1, chunk, window_frames=window, sink_frames=sink)
    assert torch.equal(mask[:history, :history], causal[:history, :history])
    assert not mask[:history, history:].any()
    own = chunk_causal_mask(frames, 1, chunk, window_frames=0)
    assert torch.equal(mask[history:, history:], own)
    assert torch.equal(mask[history:, :history], (causal & ~own)[:, :history])


def test_frames_that_do_not_fill_chunks_are_refused_with_a_number_that_works():
    with pytest.raises(ValueError, match="try 4"):
        chunk_causal_mask(5, 1, 2)
