"""Generation: time per frame against frame index, and what the cache saves."""

import statistics
import time
from collections.abc import Iterator
from itertools import islice

import torch
from torch import Tensor

from benchmarks.measure import Findings, progress_bar, ratios, timed, wait
from benchmarks.objective import make_model, read_config
from benchmarks.sizes import Sizes
from video_mirai.flow.schedule import denoising_sigmas
from video_mirai.models.causal_dit import CausalVideoDiT
from video_mirai.ops.masks import chunk_causal_mask
from video_mirai.sampling.rollout import PRECISIONS, RolloutSettings, rollout
from video_mirai.sampling.solvers import SOLVERS

GROUP = "Rollout"
FLAT = 1.05


def measure_rollout(sizes: Sizes, device: torch.device) -> Findings:
    """Milliseconds a frame of every chunk, one clip, after a history that fills window and sink."""
    size = sizes.rollout
    config = read_config(sizes.run)
    settings = config.rollout
    torch.manual_seed(0)
    model = make_model(config, sizes.run).to(device).eval()
    held = settings.sink_frames + settings.window_frames
    history = torch.randn(1, held, sizes.run.channels, sizes.run.latent_size, sizes.run.latent_size, device=device)
    full_pass = timed(lambda: full_chunk(model, history, settings), device)
    for _ in islice(generate(model, history, settings), 2):
        full_pass()

    per_frame = 1000 / settings.chunk_frames
    with_cache: list[list[float]] = []
    without_cache: list[list[float]] = []
    firsts: list[float] = []
    bar = progress_bar(size.runs, "rollout")
    for _ in range(size.runs):
        times = time_chunks(model, history, settings, size.chunks, device)
        firsts.append(1000 * times[0])
        with_cache.append([per_frame * seconds for seconds in times[1:]])
        without_cache.append([per_frame * full_pass() for _ in range(size.full_chunks)])
        bar.update()
    bar.close()
    return _as_findings(with_cache, without_cache, firsts, held)


def generate(model: CausalVideoDiT, history: Tensor, settings: RolloutSettings) -> Iterator[Tensor]:
    """The library's rollout, seeded."""
    return rollout(model, history, settings, torch.Generator(history.device).manual_seed(0))


def time_chunks(
    model: CausalVideoDiT, history: Tensor, settings: RolloutSettings, count: int, device: torch.device
) -> list[float]:
    """Seconds until each chunk was there, since the one before; the first includes reading the history."""
    stream = generate(model, history, settings)
    seconds = []
    wait(device)
    before = time.perf_counter()
    for _ in islice(stream, count):
        wait(device)
        now = time.perf_counter()
        seconds.append(now - before)
        before = now
    return seconds


@torch.no_grad()
def full_chunk(model: CausalVideoDiT, history: Tensor, settings: RolloutSettings) -> Tensor:
    """One chunk without a cache: every denoising step computes the whole window again."""
    chunk, held = settings.chunk_frames, history.shape[1]
    tokens = model.tokens_per_frame(*history.shape[-2:])
    # History in the first chunks, and the new chunk after them; a remainder of the history is left out.
    history = history[:, held % chunk :]
    mask = chunk_causal_mask(history.shape[1] + chunk, tokens, chunk, device=history.device)
    history_sigmas = torch.full(history.shape[:2], settings.history_sigma, device=history.device)
    dtype = PRECISIONS[settings.precision]

    def velocity_of(x: Tensor, sigma: Tensor) -> Tensor:
        given = torch.cat([history, x], dim=1)
        sigmas = torch.cat([history_sigmas, sigma.expand(x.shape[:2])], dim=1)
        with torch.autocast(x.device.type, dtype=dtype, enabled=dtype != torch.float32):
            return model(given, sigmas, mask=mask).velocity[:, -chunk:].to(x.dtype)

    sigmas = denoising_sigmas(settings.num_steps, settings.shift, device=history.device)
    return SOLVERS[settings.solver](velocity_of, torch.randn_like(history[:, :chunk]), sigmas)


def _as_findings(
    with_cache: list[list[float]], without_cache: list[list[float]], firsts: list[float], held: int
) -> Findings:
    """Milliseconds a frame of every chunk, by run; a ratio is made within a run."""
    findings = Findings()
    window = f"{held} history frames"
    cached = [statistics.median(times) for times in with_cache]
    full = [statistics.median(times) for times in without_cache]
    findings.add(GROUP, f"a frame with the cache, {window}", cached, "ms")
    findings.add(GROUP, f"a frame without a cache, {window}", full, "ms")
    findings.add(GROUP, "without a cache / with", ratios(full, cached), "x")
    drift = [flatness(times) for times in with_cache]
    findings.add(GROUP, "last tenth of the chunks / first tenth", drift, "x", at_most=FLAT)
    findings.add(GROUP, f"first chunk, {held} history frames read", firsts, "ms")
    findings.series |= {
        f"rollout run {number}, ms a frame, by chunk": times for number, times in enumerate(with_cache, 1)
    }
    return findings


def flatness(times: list[float]) -> float:
    """Median of the last tenth over the median of the first tenth."""
    tenth = max(1, len(times) // 10)
    return statistics.median(times[-tenth:]) / statistics.median(times[:tenth])
