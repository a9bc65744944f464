"""What a target may know of the future, for the method and for its controls."""

import pytest
import torch
from tiny_models import TEXT_DIM, TOKENS_PER_FRAME, random_latents, tiny_model

from video_mirai.models.codecs import PixelsCodec
from video_mirai.models.teachers import DiTTeacher, Visibility
from video_mirai.objectives.foresight import ForesightConfig, ForesightSource, ForesightTargets, splice_future


def make_source(
    chunk_frames: int = 1, text_dim: int | None = None, visibility: Visibility | None = None, **config: object
) -> ForesightSource:
    teacher = DiTTeacher(tiny_model(text_dim), 2, 0.0, torch.Generator(), visibility)
    return ForesightSource(teacher, ForesightConfig(**config), chunk_frames, PixelsCodec(), num_steps=10)


def depends_on(source: ForesightSource, frames: int = 4) -> torch.Tensor:
    """(chunks, frames) bool: do the targets of a chunk of clip 0 change when that frame of clip 0 is replaced?"""
    latents = random_latents(frames)
    before = source.targets(latents, None).targets[0]
    columns = []
    for frame in range(frames):
        changed = latents.clone()
        changed[0, frame] = random_latents(1, batch=1, seed=9)[0, 0]
        after = source.targets(changed, None).targets[0]  # (heads, chunks, tokens, D)
        columns.append((after != before).flatten(2).any(2).any(0))
    return torch.stack(columns, dim=1)


def test_targets_are_by_chunk():
    targets, valid, scale = make_source(chunk_frames=2, window=[0, 1]).targets(random_latents(6), None)
    assert targets.shape == (2, 1, 3, 2 * TOKENS_PER_FRAME, 72) and scale == 1.0
    assert valid.shape == (1, 3, 2 * TOKENS_PER_FRAME) and valid.all()


def test_a_non_causal_teachers_targets_know_the_whole_clip():
    assert depends_on(make_source(window=[0])).all()


def test_a_causal_teachers_targets_at_offset_zero_know_nothing_of_the_future():
    source = make_source(window=[0], visibility=Visibility(1, None, 0))
    assert torch.equal(depends_on(source), torch.ones(4, 4).tril().bool())


def test_a_causal_teachers_window_limits_how_far_back_it_looks():
    one_layer = DiTTeacher(tiny_model(), 1, 0.0, torch.Generator(), Visibility(1, 1, 0))
    source = ForesightSource(one_layer, ForesightConfig(window=[0]), 1, PixelsCodec(), num_steps=10)
    assert torch.equal(depends_on(source), (torch.ones(4, 4).tril() - torch.ones(4, 4).tril(-2)).bool())


@pytest.mark.parametrize("window", [[0], [0, 1], [1]])
@pytest.mark.parametrize("fuse", ["mean", "heads"])
def test_with_a_shuffled_future_no_target_depends_on_the_true_future(window, fuse):
    dependence = depends_on(make_source(window=window, fuse=fuse, shuffle_future=True))
    chunks = [index for index in range(4) if index + min(window) < 4]
    assert torch.equal(dependence[chunks], torch.ones(4, 4).tril().bool()[chunks])
    by_two = depends_on(make_source(chunk_frames=2, window=[0], shuffle_future=True))
    assert by_two.tolist() == [[True, True, False, False], [True] * 4]


def test_with_a_shuffled_future_the_other_clips_future_is_read():
    source = make_source(window=[1], shuffle_future=True)
    latents = random_latents(4)
    before = source.targets(latents, None).targets
    changed = latents.clone()
    changed[1, 3] += 1.0
    assert not torch.equal(source.targets(changed, None).targets[0, :, 2], before[0, :, 2])


def test_with_a_shuffled_future_the_last_chunk_reads_the_true_clip():
    shuffled, true = make_source(window=[0], shuffle_future=True), make_source(window=[0])
    latents = random_latents(3)
    torch.testing.assert_close(
        shuffled.targets(latents, None).targets[:, :, -1], true.targets(latents, None).targets[:, :, -1]
    )


def test_contexts_of_frames_are_spliced_with_their_frames():
    source = make_source(window=[0], shuffle_future=True, text_dim=TEXT_DIM)
    latents, contexts = random_latents(3), torch.randn(2, 3, 5, TEXT_DIM)
    before = source.targets(latents, contexts).targets
    changed = contexts.clone()
    changed[0, 2] += 1.0
    after = source.targets(latents, changed).targets
    assert torch.equal(after[0, :, :2], before[0, :, :2]) and not torch.equal(after[0, :, 2], before[0, :, 2])


def test_splicing_goes_on_as_the_next_clip():
    clips = torch.arange(6).reshape(2, 3)
    assert splice_future(clips, 1).tolist() == [[0, 4, 5], [3, 1, 2]]
    with pytest.raises(ValueError, match="batch of one"):
        splice_future(clips[:1], 1)


def test_the_first_chunks_of_targets_keep_everything_else():
    targets = make_source(window=[0, 1], fuse="heads").targets(random_latents(4), None, step=3)
    first = targets.first_chunks(2)
    assert isinstance(first, ForesightTargets) and first.scale == targets.scale
    assert torch.equal(first.targets, targets.targets[:, :, :2]) and torch.equal(first.valid, targets.valid[:, :2])
