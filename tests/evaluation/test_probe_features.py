"""Features are those of a rollout's pass, have not seen the future, and splits share no video."""

from pathlib import Path

import numpy as np
import pytest
import torch
from einops import rearrange
from tiny_models import CHANNELS, HEIGHT, TOKENS_PER_FRAME, WIDTH, random_latents, tiny_model

from video_mirai.data.latent_header import LatentHeader
from video_mirai.data.latent_shards import LatentShardsConfig
from video_mirai.data.latent_writer import pack_sample, write_shard
from video_mirai.data.scenes import Scenes, ScenesConfig
from video_mirai.evaluation.generation import clip_generator
from video_mirai.evaluation.probe_data import (
    PIXELS,
    POSITION,
    collect,
    hidden_frames,
    open_clips,
    read_batch,
    shown_frames,
    split_by_video,
    state_targets,
)
from video_mirai.evaluation.probe_features import (
    ClipBatch,
    HiddenReader,
    PixelReader,
    block_means,
    block_side,
    frames_to_read,
    require_causal,
)
from video_mirai.evaluation.probe_run import ProbeConfig, ProbedModel, min_hidden_frames
from video_mirai.flow.path import interpolate
from video_mirai.models.codecs import PixelsCodec
from video_mirai.ops.masks import chunk_causal_mask, teacher_forcing_mask
from video_mirai.sampling.rollout import RolloutSettings

FRAMES = 6


def clips(seed: int = 1) -> ClipBatch:
    return ClipBatch([0, 7], torch.zeros(2, FRAMES, 3, HEIGHT, WIDTH), random_latents(FRAMES, seed=seed))


def reader(frames: list[int], chunk_frames: int = 1, **changes: object) -> HiddenReader:
    settings = RolloutSettings(chunk_frames=chunk_frames, window_frames=FRAMES)
    given = {"layer": 2, "sigma": 0.4, "max_features": 10_000, "seed": 3} | changes
    return HiddenReader(tiny_model(), PixelsCodec(), frames, settings=settings, **given)


@pytest.mark.parametrize("chunk_frames", [1, 2])
def test_states_are_those_of_noisy_chunks_beside_clean_history(chunk_frames: int) -> None:
    frames = list(range(chunk_frames - 1, FRAMES, chunk_frames))
    hidden_reader = reader(frames, chunk_frames)
    batch = clips()
    found = hidden_reader(batch)
    # The same in one masked pass over [clean history, noisy targets], as in teacher forcing.
    latents = batch.latents
    noise = torch.stack(
        [torch.randn(latents.shape[1:], generator=clip_generator(3, number, torch.device("cpu"))) for number in (0, 7)]
    )
    sigmas = torch.full(latents.shape[:2], 0.4)
    history = FRAMES - chunk_frames
    output = tiny_model()(
        torch.cat([latents[:, :history], interpolate(latents, noise, sigmas)], dim=1),
        torch.cat([torch.zeros(2, history), sigmas], dim=1),
        mask=teacher_forcing_mask(FRAMES, TOKENS_PER_FRAME, chunk_frames),
        positions=torch.cat([torch.arange(history), torch.arange(FRAMES)]),
        capture=(2,),
    )
    states = rearrange(output.hidden[2], "b (f n) d -> b f n d", n=TOKENS_PER_FRAME)[:, history:][:, frames]
    expected = rearrange(states, "b f n d -> b f (d n)")
    torch.testing.assert_close(found, expected, rtol=1e-4, atol=1e-5)


def test_causal_readers_pass_and_a_reader_that_sees_the_whole_clip_is_refused() -> None:
    batch = clips()
    require_causal(reader([1, 3, 4]), batch, [1, 3, 4], 1)
    require_causal(PixelReader([1, 3], 1, 100), batch, [1, 3], 1)
    model = tiny_model()

    def masked(mask: torch.Tensor | None):
        def read(given: ClipBatch) -> torch.Tensor:
            sigmas = torch.zeros(given.latents.shape[:2])
            with torch.no_grad():
                hidden = model(given.latents, sigmas, mask=mask, capture=(2,)).hidden[2]
            return rearrange(hidden, "b (f n) d -> b f (n d)", n=TOKENS_PER_FRAME)

        return read

    frames = list(range(FRAMES))
    require_causal(masked(chunk_causal_mask(FRAMES, TOKENS_PER_FRAME, 1)), batch, frames, 1)
    with pytest.raises(ValueError, match=r"^the features of frame 0 change .* so nothing is fitted"):
        require_causal(masked(None), batch, frames, 1)
    # Frames of one chunk see each other: only the last of a chunk is causal.
    with pytest.raises(ValueError, match="have seen the future"):
        require_causal(masked(chunk_causal_mask(FRAMES, TOKENS_PER_FRAME, 2)), batch, frames, 1)


def test_a_codec_that_looks_ahead_is_refused() -> None:
    class LooksAhead(PixelsCodec):
        def encode(self, video: torch.Tensor) -> torch.Tensor:
            return video + 1e-3 * video.flip(1)

    batch = ClipBatch([0, 1], torch.rand(2, FRAMES, 3, HEIGHT, WIDTH), None)
    settings = RolloutSettings(window_frames=FRAMES)
    model = tiny_model(in_channels=3, out_channels=3)
    require_causal(HiddenReader(model, PixelsCodec(), [2], 1, 0.4, settings, 10_000, 0), batch, [2], 1)
    with pytest.raises(ValueError, match="have seen the future"):
        require_causal(HiddenReader(model, LooksAhead(), [2], 1, 0.4, settings, 10_000, 0), batch, [2], 1)


def test_frames_read_end_chunks_and_leave_the_history_asked_for() -> None:
    assert frames_to_read(4, rows=3, stride_frames=2, chunk_frames=1) == [4, 6, 8]
    assert frames_to_read(4, rows=3, stride_frames=2, chunk_frames=3) == [8, 11, 14]


def test_noise_belongs_to_the_clip_and_not_to_its_place_in_a_batch() -> None:
    whole = clips()
    alone = ClipBatch([7], whole.video[1:], whole.latents[1:])
    torch.testing.assert_close(reader([2, 4])(alone), reader([2, 4])(whole)[1:], rtol=1e-4, atol=1e-5)


def test_states_that_are_too_wide_become_means_of_blocks_of_tokens() -> None:
    rows, columns = HEIGHT // 2, WIDTH // 2
    wide = reader([3])(clips())
    narrow = reader([3], max_features=wide.shape[-1] // 3)(clips())
    assert block_side(72, rows, columns, wide.shape[-1] // 3) == 2
    assert narrow.shape == (2, 1, 72 * 2 * 2) and narrow.shape[-1] <= wide.shape[-1] // 3
    grid = wide.view(2, 1, 72, rows, columns)
    expected = torch.stack([grid[..., :2, :2].mean((-1, -2)), grid[..., :2, 2:].mean((-1, -2))], dim=-1)
    torch.testing.assert_close(narrow.view(2, 1, 72, 2, 2)[..., 0, :], expected, rtol=1e-4, atol=1e-5)
    assert block_side(10_000, 3, 5, 7) == 5  # never less than one block
    assert block_means(torch.ones(2, 3, CHANNELS, 5, 5), 3).shape == (2, 3, CHANNELS, 2, 2)


def test_no_video_is_in_two_parts_and_all_its_clips_stay_together() -> None:
    videos = [f"video{number % 20}" for number in range(60)]
    splits = split_by_video(videos, (0.2, 0.3), seed=0)
    parts = [{videos[clip] for clip in part} for part in splits]
    assert [len(part) for part in parts] == [10, 4, 6]
    assert not parts[0] & parts[1] and not parts[0] & parts[2] and not parts[1] & parts[2]
    assert sorted(splits.train + splits.val + splits.test) == list(range(60))
    assert splits == split_by_video(videos, (0.2, 0.3), seed=0) != split_by_video(videos, (0.2, 0.3), seed=1)
    with pytest.raises(ValueError, match="3 videos leave 1 to test on, 1 to choose with and 1 to fit on"):
        split_by_video(["a", "b", "c"], (0.3, 0.3), seed=0)


def test_targets_are_the_pictures_and_states_of_the_frames_themselves() -> None:
    config = ScenesConfig(height=16, width=16, sprite_size=6.0, num_sprites=2)
    probed = open_clips(config, "test", 5, 8, (0.3, 0.4), 0, PixelsCodec())
    collected = collect(probed, {"pixels": PixelReader([2], 1, 10_000)}, [2], PixelsCodec(), 3, picture_size=8)
    assert collected.targets[PIXELS].shape == (8, 5, 8 * 8 * 3) and collected.picture_shape == (8, 8, 3)
    assert isinstance(probed.dataset, Scenes)
    sample = probed.dataset[5]
    small = (block_means(sample["video"], 2) + 1) / 2
    np.testing.assert_allclose(collected.targets[PIXELS][5, 3], rearrange(small[3], "c h w -> (h w c)"), atol=1e-6)
    order = sample["state"]["identity"].argsort()
    np.testing.assert_array_equal(collected.targets[POSITION][5, 3], sample["state"]["position"][3][order].flatten())
    pair = rearrange(sample["video"][1:3], "t c h w -> (t c h w)")
    np.testing.assert_array_equal(collected.features["pixels"][5, 0], pair)


def test_only_frames_with_a_hidden_sprite_count_where_that_is_asked_for() -> None:
    config = ScenesConfig(height=16, width=16, sprite_size=3.0, occluder_width=6, max_angle=30.0)
    probed = open_clips(config, "test", 12, 10, (0.3, 0.4), 0, PixelsCodec())
    frames = [2, 5, 9]
    kept = collect(probed, {}, frames, PixelsCodec(), 4, picture_size=8, min_hidden_frames=1).kept
    visible = torch.stack([probed.dataset[number]["state"]["visible"] for number in range(10)])
    np.testing.assert_array_equal(kept, ~visible[:, frames, 0].numpy())
    assert kept.any() and not kept.all()
    assert collect(probed, {}, frames, PixelsCodec(), 4, picture_size=8).kept.all()
    shown = shown_frames(probed, kept, frames, 2)
    rows = [
        (clip, frame) for clip in probed.splits.test for frame, keep in zip(frames, kept[clip], strict=True) if keep
    ]
    assert 1 <= len(shown) <= 2 and all(rows[one.row] == (one.clip, one.frame) for one in shown)
    with pytest.raises(ValueError, match="rows other than all need scenes"):
        hidden_frames({}, 1, 1)


def test_a_frame_counts_as_remembered_once_some_sprite_has_been_hidden_for_long_enough() -> None:
    seen = torch.tensor([[1, 1], [0, 1], [0, 0], [0, 1], [1, 0], [0, 0], [0, 0], [0, 1]]).bool()
    state = {"visible": seen[None]}
    runs = np.array([0, 1, 2, 3, 1, 2, 3, 3])  # of whichever sprite has been hidden for longest
    for least in (1, 2, 3, 4):
        np.testing.assert_array_equal(hidden_frames(state, 1, least)[0], runs >= least)
    np.testing.assert_array_equal(hidden_frames(state, 2, 3)[0], runs[::2] >= 3)


def test_a_sprite_that_was_never_in_sight_is_hidden_but_not_remembered() -> None:
    state = {"visible": torch.tensor([0, 0, 0, 1, 0, 0]).bool()[None, :, None]}
    assert hidden_frames(state, 1, 1)[0].tolist() == [True, True, True, False, True, True]
    assert hidden_frames(state, 1, 2)[0].tolist() == [False, False, False, False, False, True]


def test_rows_that_are_remembered_are_hidden_for_as_long_as_chunk_and_window_last() -> None:
    def least(rows: str, **settings: int) -> int:
        rollout = RolloutSettings(chunk_frames=4, **settings)
        model = ProbedModel("", None, PixelsCodec(), rollout)  # type: ignore[arg-type]
        return min_hidden_frames(ProbeConfig(rows=rows), {"checkpoint": model})

    assert [least(rows, window_frames=6) for rows in ("all", "hidden", "remembered")] == [0, 1, 10]
    with pytest.raises(ValueError, match="keeps sight of a clip's first 2 frames"):
        least("remembered", window_frames=6, sink_frames=2)


def test_a_latent_frame_has_the_state_of_its_last_pixel_frame() -> None:
    position = torch.arange(9.0).view(1, 9, 1, 1).expand(1, 9, 1, 2)
    state = {"identity": torch.zeros(1, 1, dtype=torch.int64), "position": position, "velocity": position}
    assert state_targets(state, 4)[POSITION][0, :, 0, 0].tolist() == [0, 4, 8]
    assert state_targets({}, 4) == {}


def test_encoded_clips_are_shown_as_they_decode_and_need_the_models_codec(tmp_path: Path) -> None:
    codec = PixelsCodec()
    samples = []
    for number in range(6):
        name = f"{number}.mp4"
        header = LatentHeader(name, name, 1, codec=codec.fingerprint(), height=4, width=4, fps=8.0, arrays={})
        latents = np.full((5, 3, 4, 4), number / 10, np.float32)
        samples.append(pack_sample(str(number), header, {"latents": latents, "times": np.arange(5) / 8}))
    write_shard(tmp_path / "shard-000000.tar", samples)
    probed = open_clips(LatentShardsConfig(str(tmp_path)), "all", 4, 100, (0.3, 0.4), 0, codec)
    assert len(set(probed.videos)) == 6 and [len(part) for part in probed.splits] == [2, 2, 2]
    batch, state = read_batch(probed, [1, 4], codec)
    assert batch.latents is not None and batch.video.shape == (2, 4, 3, 4, 4) and state == {}
    torch.testing.assert_close(batch.video, batch.latents)

    class OtherCodec(PixelsCodec):
        def fingerprint(self) -> str:
            return "0" * 64

    with pytest.raises(ValueError, match="was encoded by codec"):
        open_clips(LatentShardsConfig(str(tmp_path)), "all", 4, 100, (0.3, 0.4), 0, OtherCodec())
