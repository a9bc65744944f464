"""Which token may attend to which: boolean masks, True = may attend."""

import torch
from torch import Tensor


def chunk_causal_mask(
    num_frames: int,
    tokens_per_frame: int,
    chunk_frames: int,
    *,
    window_frames: int | None = None,
    sink_frames: int = 0,
    device: torch.device | str | None = None,
) -> Tensor:
    """Every frame attends to its own chunk, to the history window before it and to the sink.

    Args:
        window_frames: history frames before the current chunk that may be attended to; None = all of them.
        sink_frames: first frames of the clip, always attended to once they are history.

    Returns:
        (num_frames * tokens_per_frame, num_frames * tokens_per_frame) bool.
    """
    _check_chunks(num_frames, chunk_frames)
    frames = torch.arange(num_frames, device=device)
    own_chunk = _same_chunk(frames, frames, chunk_frames)
    history = _in_history(frames, frames, chunk_frames, window_frames, sink_frames)
    return expand_frames(own_chunk | history, tokens_per_frame)


def teacher_forcing_mask(
    num_frames: int,
    tokens_per_frame: int,
    chunk_frames: int,
    *,
    window_frames: int | None = None,
    sink_frames: int = 0,
    device: torch.device | str | None = None,
) -> Tensor:
    """Mask of one pass over [clean history, noisy targets] of the same clip.

    The clean copy of the last chunk is nobody's history, so it is not given: there are
    `num_frames - chunk_frames` clean frames, followed by `num_frames` noisy ones. A clean frame attends as under
    `chunk_causal_mask`; a noisy frame attends to its own noisy chunk and to the clean frames of its history.

    Returns:
        (K, K) bool with K = (2 * num_frames - chunk_frames) * tokens_per_frame.
    """
    _check_chunks(num_frames, chunk_frames)
    clean = torch.arange(num_frames - chunk_frames, device=device)
    noisy = torch.arange(num_frames, device=device)
    clean_rows = _same_chunk(clean, clean, chunk_frames) | _in_history(
        clean, clean, chunk_frames, window_frames, sink_frames
    )
    clean_sees_noisy = torch.zeros(len(clean), len(noisy), dtype=torch.bool, device=device)
    noisy_sees_clean = _in_history(noisy, clean, chunk_frames, window_frames, sink_frames)
    noisy_sees_noisy = _same_chunk(noisy, noisy, chunk_frames)
    mask = torch.cat(
        [
            torch.cat([clean_rows, clean_sees_noisy], dim=1),
            torch.cat([noisy_sees_clean, noisy_sees_noisy], dim=1),
        ]
    )
    return expand_frames(mask, tokens_per_frame)


def expand_frames(frame_mask: Tensor, tokens_per_frame: int) -> Tensor:
    """(frames, frames) -> (frames * N, frames * N): tokens of a frame share what their frame may see."""
    return frame_mask.repeat_interleave(tokens_per_frame, 0).repeat_interleave(tokens_per_frame, 1)


def _same_chunk(queries: Tensor, keys: Tensor, chunk_frames: int) -> Tensor:
    return (queries // chunk_frames)[:, None] == (keys // chunk_frames)[None, :]


def _in_history(
    queries: Tensor, keys: Tensor, chunk_frames: int, window_frames: int | None, sink_frames: int
) -> Tensor:
    """Key frame lies before the query's chunk, and in the window or the sink."""
    chunk_start = (queries // chunk_frames * chunk_frames)[:, None]
    before = keys[None, :] < chunk_start
    if window_frames is None:
        return before
    recent = keys[None, :] >= chunk_start - window_frames
    return before & (recent | (keys < sink_frames)[None, :])


def _check_chunks(num_frames: int, chunk_frames: int) -> None:
    if chunk_frames < 1 or num_frames < 1 or num_frames % chunk_frames:
        nearest = max(num_frames // max(chunk_frames, 1), 1) * max(chunk_frames, 1)
        raise ValueError(
            f"num_frames={num_frames} is not a positive multiple of chunk_frames={chunk_frames}; try {nearest}."
        )
