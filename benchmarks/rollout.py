"""Generation: time per frame against frame index, and what the cache saves."""

import statistics
import time
from collections.abc import Iterator
from itertools import islice

import torch
from torch import Tensor

from benchmarks.measure import Findings, progress_bar, ratios, timed, wait
from benchmarks.objective import make_model
from benchmarks.sizes import ClipSize, Sizes
from video_mirai.flow.schedule import denoising_sigmas
from video_mirai.models.causal_dit import CausalVideoDiT
from video_mirai.ops.masks import chunk_causal_mask
from video_mirai.sampling.rollout import RolloutSettings, rollout
from video_mirai.sampling.solvers import SOLVERS

GROUP = "Rollout"
FLAT = 1.05


def measure_rollout(sizes: Sizes, device: torch.device) -> Findings:
    """Milliseconds of every frame in fp32, one clip, frame by frame, after a history that fills the window."""
    clip, size = sizes.clip, sizes.rollout
    torch.manual_seed(0)
    model = make_model(clip).to(device).eval()
    settings = RolloutSettings(num_steps=clip.num_steps, window_frames=clip.window_frames)
    shape = (1, clip.window_frames, clip.channels, clip.latent_size, clip.latent_size)
    history = torch.randn(shape, device=device)
    full_pass = timed(lambda: full_frame(model, history, settings), device)
    for _ in islice(generate(model, history, settings), 2):
        full_pass()

    with_cache: list[list[float]] = []
    without_cache: list[list[float]] = []
    firsts: list[float] = []
    bar = progress_bar(size.runs, "rollout")
    for _ in range(size.runs):
        times = time_frames(model, history, settings, size.frames, device)
        firsts.append(1000 * times[0])
        with_cache.append([1000 * seconds for seconds in times[1:]])
        without_cache.append([1000 * full_pass() for _ in range(size.full_frames)])
        bar.update()
    bar.close()
    return _as_findings(with_cache, without_cache, firsts, clip)


def generate(model: CausalVideoDiT, history: Tensor, settings: RolloutSettings) -> Iterator[Tensor]:
    """The library's rollout, seeded."""
    return rollout(model, history, settings, torch.Generator(history.device).manual_seed(0))


def time_frames(
    model: CausalVideoDiT, history: Tensor, settings: RolloutSettings, frames: int, device: torch.device
) -> list[float]:
    """Seconds until each frame was there, since the one before; the first includes reading the history."""
    stream = generate(model, history, settings)
    seconds = []
    wait(device)
    before = time.perf_counter()
    for _ in islice(stream, frames):
        wait(device)
        now = time.perf_counter()
        seconds.append(now - before)
        before = now
    return seconds


@torch.no_grad()
def full_frame(model: CausalVideoDiT, history: Tensor, settings: RolloutSettings) -> Tensor:
    """One frame without a cache: every denoising step computes the whole window again."""
    frames = history.shape[1] + 1
    tokens = model.tokens_per_frame(*history.shape[-2:])
    mask = chunk_causal_mask(frames, tokens, 1, device=history.device)
    clean = torch.zeros(history.shape[:2], device=history.device)

    def velocity_of(x: Tensor, sigma: Tensor) -> Tensor:
        given = torch.cat([history, x], dim=1)
        sigmas = torch.cat([clean, sigma.expand(x.shape[:2])], dim=1)
        return model(given, sigmas, mask=mask).velocity[:, -1:]

    sigmas = denoising_sigmas(settings.num_steps, settings.shift, device=history.device)
    return SOLVERS[settings.solver](velocity_of, torch.randn_like(history[:, :1]), sigmas)


def _as_findings(
    with_cache: list[list[float]], without_cache: list[list[float]], firsts: list[float], clip: ClipSize
) -> Findings:
    """Milliseconds of every frame, by run; a ratio is made within a run."""
    findings = Findings()
    window = f"window of {clip.window_frames} frames full"
    cached = [statistics.median(times) for times in with_cache]
    full = [statistics.median(times) for times in without_cache]
    findings.add(GROUP, f"a frame with the cache, {window}", cached, "ms")
    findings.add(GROUP, f"a frame without a cache, {window}", full, "ms")
    findings.add(GROUP, "without a cache / with", ratios(full, cached), "x")
    drift = [flatness(times) for times in with_cache]
    findings.add(GROUP, "last tenth of the frames / first tenth", drift, "x", at_most=FLAT)
    findings.add(GROUP, f"first frame, {clip.window_frames} history frames read", firsts, "ms")
    findings.series |= {f"rollout run {number}, ms per frame": times for number, times in enumerate(with_cache, 1)}
    return findings


def flatness(times: list[float]) -> float:
    """Median of the last tenth over the median of the first tenth."""
    tenth = max(1, len(times) // 10)
    return statistics.median(times[-tenth:]) / statistics.median(times[:tenth])
