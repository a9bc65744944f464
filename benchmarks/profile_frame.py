"""Where the time of a generated frame goes, by kind of operation and by function of the library.

torch.profiler times the kernels. What belongs to which kind is told by a dispatch mode, which sees every operation's
types and who called it. What the kernels don't take is Python's: wall time without any profiler minus all of them.
"""

import statistics
import sys
from collections import defaultdict
from collections.abc import Iterator
from pathlib import Path

import torch
from torch import Tensor
from torch.autograd.profiler_util import FunctionEvent
from torch.profiler import ProfilerActivity, profile, record_function
from torch.utils._python_dispatch import TorchDispatchMode

import video_mirai
from benchmarks.measure import Findings, timed
from benchmarks.reference_frame import OurFrames, OurVariant, make_reference
from benchmarks.sizes import Sizes

GROUP = "Where a frame's time goes"
MARK = "benchmark: "
LIBRARY = str(Path(video_mirai.__file__).parent)
KINDS = {
    "matrix products": ("mm", "addmm", "bmm", "baddbmm", "linear", "convolution", "mkldnn"),
    "attention": ("scaled_dot_product", "_scaled_dot_product", "_softmax", "flex_attention"),
    "norms": ("native_layer_norm", "_fused_rms_norm", "rms_norm", "mean", "rsqrt", "pow"),
    "activations": ("gelu", "silu"),
    "modulation, residual and solver": ("addcmul", "add", "mul", "sub", "lerp"),
    "copies, concatenation and types": ("cat", "copy", "_to_copy", "clone", "index_put", "stack", "slice_scatter"),
}
BY_FILE = {"ops/rope.py": "rotation", "ops/attention.py": "attention", "models/cache.py": "cache"}
ROTATION = ("polar", "view_as_complex", "view_as_real", "sin", "cos")
REST = "everything else"
PYTHON = "Python and dispatch"
FUNCTION = "kernels called in "


class Labels(TorchDispatchMode):
    """Puts every operation's kind and its caller in the library into the profile, as a range around its kernel."""

    def __torch_dispatch__(self, func, types, args=(), kwargs=None):  # type: ignore[no-untyped-def]
        file, function = _caller()
        first = next((arg for arg in args if isinstance(arg, Tensor)), None)
        kind = kind_of(func.overloadpacket.__name__, file, is_complex=first is not None and first.is_complex())
        with record_function(f"{MARK}{kind}|{FUNCTION}{file} {function}"):
            return func(*args, **(kwargs or {}))


def measure_profile(sizes: Sizes) -> Findings:
    """Milliseconds a frame of every kind of operation and of every function, at the reference size; CPU.

    Frames with and without the profiler take turns. Nothing is compiled: a dispatch mode sees no compiled operation.
    """
    size, device = sizes.peers, torch.device("cpu")
    reference = make_reference(size, size.width, size.num_layers, size.history_frames, device)
    stream = OurFrames(reference, OurVariant()).start()
    frame = timed(lambda: next(stream), device)
    kernels: dict[str, list[float]] = {}
    walls = []
    for number in range(-max(2, sizes.warmup), size.profiled_frames):
        wall = frame()
        found = profile_frame(stream)
        if number >= 0:
            walls.append(1000 * wall)
            for name, seconds in found.items():
                kernels.setdefault(name, [0.0] * number).append(1000 * seconds)
    return _as_findings(walls, kernels)


def profile_frame(stream: Iterator[Tensor]) -> dict[str, float]:
    """Kernel seconds of the next frame, by kind and again by function."""
    with profile(activities=[ProfilerActivity.CPU]) as record, Labels():
        next(stream)
    seconds: dict[str, float] = defaultdict(float)
    for event in record.events():
        if event.name.startswith(MARK):
            for name in event.name.removeprefix(MARK).split("|"):
                seconds[name] += _kernel_seconds(event)
    return dict(seconds)


def _as_findings(walls: list[float], kernels: dict[str, list[float]]) -> Findings:
    findings = Findings()
    findings.add(GROUP, "a frame, no profiler", walls, "ms")
    in_order = sorted(kernels.items(), key=lambda item: -statistics.median(item[1]))
    kinds = [(name, values) for name, values in in_order if not name.startswith(FUNCTION)]
    for name, values in kinds:
        findings.add(GROUP, name, values, "ms")
    rest = [wall - sum(values[turn] for _, values in kinds) for turn, wall in enumerate(walls)]
    findings.add(GROUP, PYTHON, rest, "ms")
    for name, values in in_order:
        if name.startswith(FUNCTION):
            findings.add(GROUP, name, values, "ms")
    return findings


def kind_of(operation: str, file: str, *, is_complex: bool) -> str:
    """Of an ATen operation called from a file of the library."""
    if file in BY_FILE:
        return BY_FILE[file]
    if is_complex or operation in ROTATION:
        return "rotation"
    plain = operation.rstrip("_")
    for kind, names in KINDS.items():
        if plain in names or any(plain.startswith(name) for name in names if len(name) > 5):
            return kind
    return REST


def _kernel_seconds(event: FunctionEvent) -> float:
    return sum(child.cpu_time_total for child in event.cpu_children) / 1e6


def _caller() -> tuple[str, str]:
    """File (from the package on) and function of the library that called the operation."""
    frame = sys._getframe(2)
    while frame is not None:
        path = frame.f_code.co_filename
        if path.startswith(LIBRARY):
            return path[len(LIBRARY) + 1 :], frame.f_code.co_name
        frame = frame.f_back  # type: ignore[assignment]
    return "outside", "the library"
