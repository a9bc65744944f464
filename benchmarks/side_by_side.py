"""A generated frame of ours beside the same frame without a cache and beside diffusers' causal transformers; CPU."""

from collections.abc import Iterator
from functools import partial

import torch
from torch import Tensor

from benchmarks.machine import matrix_products
from benchmarks.measure import Findings, Timed, Turns, ratios, take_turns, timed
from benchmarks.peers import AnyFlowFrames, SkyReelsFrames
from benchmarks.reference_frame import (
    OurFrames,
    OurVariant,
    Reference,
    cached_frame_flops,
    make_reference,
    recomputed_frame_flops,
)
from benchmarks.sizes import Sizes
from video_mirai.sampling.rollout import RolloutState

GROUP = "Frame beside others"
OURS = {
    "ours": OurVariant(),
    "ours (matmul)": OurVariant("matmul"),
}
OURS_COMPILED = {
    "ours, compiled": OurVariant(changes={"compile": True}),
    "ours (matmul), compiled": OurVariant("matmul", {"compile": True}),
}
UNFUSED = "ours, a pass for each commit"
NO_CACHE, MATMUL = "ours without a cache", "matmul"
COMPILED = ", compiled"
RIVALS = ("AnyFlow-FAR", "SkyReels-V2, frame-causal", "SkyReels-V2, no mask")
COMPRESSED = "AnyFlow-FAR, older history compressed"  # no rival: it has fewer tokens
SAME_FRAME = 1e-5
TIMES_LIMIT = 2.0  # of the counted FLOPs at the matmul rate
TIMES_PEER = 8.0
TIMES_NO_CACHE = 5.0
LARGE_SHARE = 0.5  # of the matmul rate
FIRST_FRAME = 1.2  # of a later frame
CPU = torch.device("cpu")


def measure_side_by_side(sizes: Sizes, *, compiled: bool) -> Findings:
    """Milliseconds a frame of every variant, the limit, long history, the large size, and the first frame."""
    ours = OURS | OURS_COMPILED if compiled else OURS
    size = sizes.peers
    reference = make_reference(size, size.width, size.num_layers, size.history_frames, CPU)
    findings = Findings()
    findings.extend(_measure_peers(sizes, reference, ours, compiled=compiled))
    findings.extend(_measure_first_frame(sizes, reference, ours))
    findings.extend(_measure_long_history(sizes, ours))
    findings.extend(_measure_large(sizes, ours))
    return findings


def peer_frames(reference: Reference, *, compiled: bool) -> dict[str, Iterator[Tensor]]:
    """By name."""
    peers = {
        "AnyFlow-FAR": iter(AnyFlowFrames(reference, reference.history.shape[1], compiled=compiled)),
        COMPRESSED: iter(AnyFlowFrames(reference, 2, compiled=compiled)),
        "SkyReels-V2, frame-causal": iter(SkyReelsFrames(reference, causal=True, compiled=compiled)),
        "SkyReels-V2, no mask": iter(SkyReelsFrames(reference, causal=False, compiled=compiled)),
    }
    return {f"{name}{COMPILED}" if compiled else name: peer for name, peer in peers.items()}


def check_same_frame(frame: Tensor, expected: Tensor, name: str) -> None:
    """Raises RuntimeError when the cache changes the frame: then its time means nothing."""
    error = float((frame - expected).abs().max() / expected.abs().max())
    if not error <= SAME_FRAME:
        raise RuntimeError(f"{name}: the frame differs from the one without a cache by {error:.2e} of its maximum.")


def check_peer_frame(frame: Tensor, expected: Tensor, name: str) -> None:
    """Raises RuntimeError when it isn't a finite frame of the same shape."""
    if frame.shape != expected.shape or not bool(frame.isfinite().all()):
        raise RuntimeError(f"{name}: expected finite numbers of shape {tuple(expected.shape)}, got {frame}.")


def _measure_peers(sizes: Sizes, reference: Reference, ours: dict[str, OurVariant], *, compiled: bool) -> Findings:
    torch.compiler.reset()  # else the next shapes would count as dynamic and get slower code
    unfused = OurVariant(changes={"fuse_commit": False})
    streams, expected = _start_ours(reference, ours | {UNFUSED: unfused})
    peers = peer_frames(reference, compiled=False)
    if compiled:
        peers |= peer_frames(reference, compiled=True)
    for name, stream in peers.items():
        check_peer_frame(next(stream), expected, name)
    turns = _time_frames(streams | peers, sizes, sizes.repetitions, "frame beside others")
    findings = Findings()
    for name in streams | peers:
        findings.add(GROUP, f"{name}, a frame", _milliseconds(turns[name]), "ms")
    counted = cached_frame_flops(reference)
    findings.add(GROUP, "ours, counted", [counted / 1e9], "GFLOP a frame")
    findings.add(GROUP, f"{NO_CACHE}, counted", [recomputed_frame_flops(reference) / 1e9], "GFLOP a frame")
    findings.add(GROUP, f"{UNFUSED} / ours", ratios(turns[UNFUSED], turns["ours"]), "x")
    if compiled:
        findings.add(GROUP, "ours / ours, compiled", ratios(turns["ours"], turns["ours, compiled"]), "x")
    limit = [counted / rate for rate in _matmul_rate(turns, sizes)]
    best = {suffix: _best_peer(turns, suffix) for suffix in (("", COMPILED) if compiled else ("",))}
    for name in ours:
        over = ratios(turns[name], limit)
        findings.add(GROUP, f"{name} / counted FLOPs at the matmul rate", over, "x", at_most=TIMES_LIMIT)
        suffix = COMPILED if name.endswith(COMPILED) else ""
        faster = ratios(best[suffix], turns[name])
        findings.add(GROUP, f"best peer{suffix} / {name}", faster, "x", at_least=TIMES_PEER)
        findings.add(GROUP, f"{NO_CACHE} / {name}", ratios(turns[NO_CACHE], turns[name]), "x")
    findings.series |= {f"frame beside others: {name}": seconds for name, seconds in turns.items()}
    return findings


def _measure_first_frame(sizes: Sizes, reference: Reference, ours: dict[str, OurVariant]) -> Findings:
    """From a state that has read the history, and from the history itself, beside a frame in mid-stream."""
    torch.compiler.reset()
    findings = Findings()
    history = f"reading {sizes.peers.history_frames} history frames"
    for name, variant in ours.items():
        frames, state = OurFrames(reference, variant), RolloutState()
        stream = frames.start(state)
        next(stream)
        starts: dict[str, Timed] = {
            "later": timed(partial(next, stream), CPU),
            "read": timed(partial(_first_frame, frames, state), CPU),
            "unread": timed(partial(_first_frame, frames, None), CPU),
        }
        turns = take_turns(starts, sizes.repetitions, sizes.warmup, f"first frame, {name}")
        compared = ratios(turns["read"], turns["later"])
        findings.add(GROUP, f"{name}, first frame, history read before", _milliseconds(turns["read"]), "ms")
        findings.add(GROUP, f"{name}, first frame / a later one", compared, "x", at_most=FIRST_FRAME)
        findings.add(GROUP, f"{name}, {history} and first frame", _milliseconds(turns["unread"]), "ms")
    return findings


def _measure_long_history(sizes: Sizes, ours: dict[str, OurVariant]) -> Findings:
    torch.compiler.reset()
    size = sizes.peers
    reference = make_reference(size, size.width, size.num_layers, size.long_history_frames, CPU)
    streams, _ = _start_ours(reference, ours)
    turns = _time_frames(streams, sizes, size.slow_repetitions, "long history")
    findings = Findings()
    history = f"{size.long_history_frames} history frames"
    for name in streams:
        findings.add(GROUP, f"{history}: {name}, a frame", _milliseconds(turns[name]), "ms")
    for name in ours:
        saved = ratios(turns[NO_CACHE], turns[name])
        findings.add(GROUP, f"{history}: {NO_CACHE} / {name}", saved, "x", at_least=TIMES_NO_CACHE)
    return findings


def _measure_large(sizes: Sizes, ours: dict[str, OurVariant]) -> Findings:
    torch.compiler.reset()
    size = sizes.peers
    reference = make_reference(size, size.large_width, size.large_layers, size.history_frames, CPU)
    streams = {name: OurFrames(reference, variant).start() for name, variant in ours.items()}
    turns = _time_frames(streams, sizes, size.slow_repetitions, "large size")
    findings = Findings()
    label = f"width {size.large_width}, {size.large_layers} layers"
    for name in ours:
        findings.add(GROUP, f"{label}: {name}, a frame", _milliseconds(turns[name]), "ms")
        rates = [cached_frame_flops(reference) / seconds for seconds in turns[name]]
        shares = ratios(rates, _matmul_rate(turns, sizes))
        findings.add(GROUP, f"{label}: {name}, share of the matmul rate", shares, "x", at_least=LARGE_SHARE)
    return findings


def _start_ours(reference: Reference, ours: dict[str, OurVariant]) -> tuple[dict[str, Iterator[Tensor]], Tensor]:
    """Without a cache first, then every variant, after its first frame was found to be the same; and that frame."""
    streams = {NO_CACHE: OurFrames(reference, OurVariant()).start_without_cache()}
    expected = next(streams[NO_CACHE])
    for name, variant in ours.items():
        streams[name] = OurFrames(reference, variant).start()
        check_same_frame(next(streams[name]), expected, name)
    return streams, expected


def _first_frame(frames: OurFrames, state: RolloutState | None) -> Tensor:
    return next(frames.start(state))


def _time_frames(streams: dict[str, Iterator[Tensor]], sizes: Sizes, repetitions: int, label: str) -> Turns:
    """A frame of every stream, and the square product that is the matmul rate."""
    variants = {name: _mean_frame(stream, sizes.peers.frames_per_turn) for name, stream in streams.items()}
    variants[MATMUL] = matrix_products([(sizes.matmul,) * 3], torch.float32, CPU)
    warmup = sizes.warmup if repetitions == sizes.repetitions else min(sizes.warmup, 1)
    return take_turns(variants, repetitions, warmup, label)


def _mean_frame(stream: Iterator[Tensor], frames: int) -> Timed:
    """Seconds a frame of the next ones."""

    def draw() -> None:
        for _ in range(frames):
            next(stream)

    whole = timed(draw, CPU)
    return lambda: whole() / frames


def _matmul_rate(turns: Turns, sizes: Sizes) -> list[float]:
    """FLOP/s of every turn."""
    return [2.0 * sizes.matmul**3 / seconds for seconds in turns[MATMUL]]


def _best_peer(turns: Turns, suffix: str) -> list[float]:
    """Seconds of the fastest one with as many tokens as ours, turn by turn."""
    return [min(seconds) for seconds in zip(*(turns[f"{name}{suffix}"] for name in RIVALS), strict=True)]


def _milliseconds(seconds: list[float]) -> list[float]:
    return [1000 * second for second in seconds]
