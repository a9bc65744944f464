"""A generated frame of ours beside the same frame without a cache and beside diffusers' causal transformers; CPU."""

from collections.abc import Iterator

import torch
from torch import Tensor

from benchmarks.machine import matrix_products
from benchmarks.measure import Findings, Timed, Turns, ratios, take_turns, timed
from benchmarks.peers import AnyFlowFrames, SkyReelsFrames
from benchmarks.reference_frame import (
    OurVariant,
    Reference,
    cached_frame_flops,
    frames_without_cache,
    make_reference,
    our_frames,
    recomputed_frame_flops,
)
from benchmarks.sizes import Sizes
from video_mirai.sampling.rollout import RolloutState

GROUP = "Frame beside others"
OURS = {
    "ours (native)": OurVariant("native"),
    "ours (matmul)": OurVariant("matmul"),
}
NO_CACHE, MATMUL = "ours without a cache", "matmul"
COMPRESSED = "AnyFlow-FAR, older history compressed"  # fewer tokens than all others
SAME_OUTPUT = 1e-5
TIMES_LIMIT = 2.0  # of the counted FLOPs at the matmul rate
TIMES_PEER = 8.0
TIMES_NO_CACHE = 5.0
LARGE_SHARE = 0.5  # of the matmul rate
FIRST_FRAME = 1.2  # of a later frame; only reading the state stands between them


def measure_side_by_side(sizes: Sizes, *, compiled: bool) -> Findings:
    """Milliseconds a frame of every variant, the limit, long history, the large size, and the first frame."""
    findings = _measure_peers(sizes, compiled=compiled)
    findings.extend(_measure_long_history(sizes))
    findings.extend(_measure_large(sizes))
    findings.extend(_measure_first_frame(sizes))
    return findings


def peer_frames(reference: Reference, *, compiled: bool) -> dict[str, Iterator[Tensor]]:
    """By name."""
    suffix = ", compiled" if compiled else ""
    history_frames = reference.history.shape[1]
    peers = {
        "AnyFlow-FAR": AnyFlowFrames(reference, history_frames, compiled=compiled),
        COMPRESSED: AnyFlowFrames(reference, 2, compiled=compiled),
        "SkyReels-V2, frame-causal": SkyReelsFrames(reference, causal=True, compiled=compiled),
        "SkyReels-V2, no mask": SkyReelsFrames(reference, causal=False, compiled=compiled),
    }
    return {f"{name}{suffix}": iter(peer) for name, peer in peers.items()}


def check_same_frame(frame: Tensor, expected: Tensor, name: str) -> None:
    """Raises RuntimeError when the cache changes the frame: then its time means nothing."""
    error = float((frame - expected).abs().max() / expected.abs().max())
    if not error <= SAME_OUTPUT:
        raise RuntimeError(f"{name}: the frame differs from the one without a cache by {error:.2e} of its maximum.")


def check_peer_frame(frame: Tensor, expected: Tensor, name: str) -> None:
    """Raises RuntimeError when it isn't a finite frame of the same shape."""
    if frame.shape != expected.shape or not bool(frame.isfinite().all()):
        raise RuntimeError(f"{name}: expected finite numbers of shape {tuple(expected.shape)}, got {frame}.")


def _measure_peers(sizes: Sizes, *, compiled: bool) -> Findings:
    size, device = sizes.peers, torch.device("cpu")
    reference = make_reference(size, size.width, size.num_layers, size.history_frames, device)
    streams = {NO_CACHE: frames_without_cache(reference, OurVariant())}
    expected = next(streams[NO_CACHE])
    for name, variant in OURS.items():
        streams[name] = our_frames(reference, variant)
        check_same_frame(next(streams[name]), expected, name)
    peers = peer_frames(reference, compiled=False)
    if compiled:
        peers |= peer_frames(reference, compiled=True)
    for name, stream in peers.items():
        check_peer_frame(next(stream), expected, name)
    turns = _time_frames(streams | peers, sizes, sizes.repetitions, "frame beside others")
    findings = Findings()
    flops = {NO_CACHE: recomputed_frame_flops(reference)} | dict.fromkeys(OURS, cached_frame_flops(reference))
    for name, seconds in turns.items():
        if name != MATMUL:
            findings.add(GROUP, f"{name}, a frame", _milliseconds(seconds), "ms")
    findings.add(GROUP, "ours, counted", [flops[next(iter(OURS))] / 1e9], "GFLOP a frame")
    findings.add(GROUP, "ours without a cache, counted", [flops[NO_CACHE] / 1e9], "GFLOP a frame")
    rivals = [name for name in peers if not name.startswith(COMPRESSED)]
    for name in OURS:
        limit = [flops[name] / rate for rate in _matmul_rate(turns, sizes)]
        over_limit = ratios(turns[name], limit)
        findings.add(GROUP, f"{name} / counted FLOPs at the matmul rate", over_limit, "x", at_most=TIMES_LIMIT)
        best = [min(turn) for turn in zip(*(turns[rival] for rival in rivals), strict=True)]
        findings.add(GROUP, f"best peer / {name}", ratios(best, turns[name]), "x", at_least=TIMES_PEER)
        findings.add(GROUP, f"{NO_CACHE} / {name}", ratios(turns[NO_CACHE], turns[name]), "x")
    findings.series |= {f"frame beside others: {name}": seconds for name, seconds in turns.items()}
    return findings


def _measure_long_history(sizes: Sizes) -> Findings:
    size = sizes.peers
    reference = make_reference(size, size.width, size.num_layers, size.long_history_frames, torch.device("cpu"))
    streams = {NO_CACHE: frames_without_cache(reference, OurVariant())}
    streams |= {name: our_frames(reference, variant) for name, variant in OURS.items()}
    expected = next(streams[NO_CACHE])
    for name in OURS:
        check_same_frame(next(streams[name]), expected, name)
    turns = _time_frames(streams, sizes, size.slow_repetitions, "long history")
    findings = Findings()
    history = f"{size.long_history_frames} history frames"
    for name in streams:
        findings.add(GROUP, f"{history}: {name}, a frame", _milliseconds(turns[name]), "ms")
    for name in OURS:
        saved = ratios(turns[NO_CACHE], turns[name])
        findings.add(GROUP, f"{history}: {NO_CACHE} / {name}", saved, "x", at_least=TIMES_NO_CACHE)
    return findings


def _measure_large(sizes: Sizes) -> Findings:
    size = sizes.peers
    reference = make_reference(
        size, size.large_width, size.large_layers, size.history_frames, torch.device("cpu")
    )
    streams = {name: our_frames(reference, variant) for name, variant in OURS.items()}
    turns = _time_frames(streams, sizes, size.slow_repetitions, "large size")
    findings = Findings()
    label = f"width {size.large_width}, {size.large_layers} layers"
    rate = _matmul_rate(turns, sizes)
    for name in OURS:
        findings.add(GROUP, f"{label}: {name}, a frame", _milliseconds(turns[name]), "ms")
        share = [cached_frame_flops(reference) / seconds for seconds in turns[name]]
        named = f"{label}: {name}, share of the matmul rate"
        findings.add(GROUP, named, ratios(share, rate), "x", at_least=LARGE_SHARE)
    return findings


def _measure_first_frame(sizes: Sizes) -> Findings:
    """From a state that has read the history, and from the history itself, beside a frame in mid-stream."""
    size, device = sizes.peers, torch.device("cpu")
    reference = make_reference(size, size.width, size.num_layers, size.history_frames, device)
    findings = Findings()
    for name, variant in OURS.items():
        state = RolloutState()
        stream = our_frames(reference, variant, state)
        next(stream)
        starts: dict[str, Timed] = {
            "later": timed(lambda stream=stream: next(stream), device),
            "read": timed_start(reference, variant, state),
            "unread": timed_start(reference, variant, None),
        }
        turns = take_turns(starts, sizes.repetitions, sizes.warmup, f"first frame, {name}")
        findings.add(GROUP, f"{name}, first frame, history read before", _milliseconds(turns["read"]), "ms")
        compared = ratios(turns["read"], turns["later"])
        findings.add(GROUP, f"{name}, first frame / a later one", compared, "x", at_most=FIRST_FRAME)
        label = f"{name}, first frame and reading {size.history_frames} history frames"
        findings.add(GROUP, label, _milliseconds(turns["unread"]), "ms")
    return findings
