"""The machine itself: what it is, and how fast it multiplies matrices, which is the yardstick of everything else."""

import os
import platform
from datetime import datetime, timezone
from importlib.metadata import version
from pathlib import Path

import torch

from benchmarks.measure import Findings, Timed, take_turns, timed
from benchmarks.sizes import Sizes

GROUP = "Machine"
DTYPES = {"fp32": torch.float32, "bf16": torch.bfloat16}
PACKAGES = ("torch", "diffusers", "accelerate")


def describe_machine(device: torch.device) -> dict[str, str | int | float]:
    """Everything that a figure depends on besides the code."""
    return {
        "device": torch.cuda.get_device_name(device) if device.type == "cuda" else _processor(),
        "cores": os.cpu_count() or 0,
        "threads": torch.get_num_threads(),
        "load before": load(),
        "system": f"{platform.system()} {platform.machine()}",
        "python": platform.python_version(),
        **{package: version(package) for package in PACKAGES},
        "time": datetime.now(timezone.utc).isoformat(timespec="seconds"),
    }


def load() -> float:
    """Processes that wanted a core, averaged over the last minute; -1 where the system doesn't say."""
    return round(os.getloadavg()[0], 2) if hasattr(os, "getloadavg") else -1.0


def measure_machine(sizes: Sizes, device: torch.device) -> Findings:
    """FLOP/s of a large square product, and of a transformer layer's own products at each width, in fp32 and bf16."""
    variants: dict[str, Timed] = {}
    flops: dict[str, float] = {}
    tokens = sizes.step.frames * (sizes.step.latent_size // sizes.step.patch) ** 2
    for precision, dtype in DTYPES.items():
        square = (sizes.matmul, sizes.matmul, sizes.matmul)
        shapes = {f"{sizes.matmul} x {sizes.matmul} matrices": [square]}
        for width in sizes.step.widths:
            layer = [(tokens, width, width)] * 4 + [(tokens, width, 4 * width), (tokens, 4 * width, width)]
            shapes[f"linear layers of width {width}, {tokens} tokens"] = layer
        for what, products in shapes.items():
            name = f"{precision}, {what}"
            variants[name] = matrix_products(products, dtype, device)
            flops[name] = sum(2.0 * n * k * m for n, k, m in products)
    turns = take_turns(variants, sizes.repetitions, sizes.warmup, "matmul")
    findings = Findings()
    for name, seconds in turns.items():
        findings.add(GROUP, f"matmul, {name}", [flops[name] / second / 1e9 for second in seconds], "GFLOP/s")
    return findings


def matrix_products(shapes: list[tuple[int, int, int]], dtype: torch.dtype, device: torch.device) -> Timed:
    """One after another, (n, k) times (k, m) each."""
    pairs = [
        (torch.randn(n, k, dtype=dtype, device=device), torch.randn(k, m, dtype=dtype, device=device))
        for n, k, m in shapes
    ]

    def run() -> None:
        for left, right in pairs:
            torch.matmul(left, right)

    return timed(run, device)


def _processor() -> str:
    """The model's name; Python's own answer is empty on Linux."""
    info = Path("/proc/cpuinfo")
    lines = info.read_text(encoding="utf-8").splitlines() if info.is_file() else []
    names = [line.split(":", 1)[1].strip() for line in lines if line.startswith("model name")]
    return names[0] if names else platform.processor() or platform.machine()
