"""A rollout's passes through all blocks as compiled code: one call each, whatever the number of layers."""

import logging
import os
import shutil
import sys
import tempfile
import time
import warnings
from collections.abc import Callable, Hashable, Sequence
from pathlib import Path

import torch
from torch import Tensor, nn

from video_mirai.models.causal_block import CacheSlot, CausalBlock, Known, autocasts
from video_mirai.models.layer_cache import LayerCache
from video_mirai.models.modulation import Modulation

logger = logging.getLogger(__name__)

# hidden, rope, every layer's tensors, the commit's. Rotations are pairs of real numbers: no code is made for complex.
Passed = tuple[Tensor, Tensor, list[list[Tensor]], list[Tensor]]


class CompiledPasses:
    """Passes with a cache, compiled when a new kind comes: other shapes, or another plan.

    The code refers to the model's own weights where they lie: there is no second copy, and what changes in them counts.
    """

    def __init__(self, blocks: nn.ModuleList, backend: str) -> None:
        _check_compiler()
        self._blocks = blocks
        self._backend = backend
        self._weights = _places(blocks)
        self._compiled: dict[Hashable, Callable[..., Tensor]] = {}

    def __deepcopy__(self, memo: object) -> None:
        """A copied model has weights of its own, and compiles its own passes."""

    def is_of(self, blocks: nn.ModuleList) -> bool:
        """Whether these blocks' weights lie where they lay when this was made."""
        return _places(blocks) == self._weights

    @torch.no_grad()
    def __call__(self, hidden: Tensor, rope: Tensor, known: Sequence[Known], slots: Sequence[CacheSlot]) -> Tensor:
        """The residual stream (B, F*N, D) after all blocks; the cache is written in place."""
        passed = _flatten(hidden, rope, known, slots)
        kind = _kind(passed, slots)
        if kind not in self._compiled:
            self._compiled[kind] = _compile(AllBlocks(self._blocks, known[0], slots, self._backend), passed)
        return self._compiled[kind](*passed)


class AllBlocks(nn.Module):
    """What is compiled: all that isn't a tensor is fixed."""

    def __init__(self, blocks: nn.ModuleList, known: Known, slots: Sequence[CacheSlot], backend: str) -> None:
        super().__init__()
        self.blocks = blocks
        self._has_context = known.context_keys is not None
        self._plan = slots[0].plan._replace(commit=None)
        commit = slots[0].plan.commit
        # Without its tensors, which are another chunk's in every pass.
        self._commit = commit._replace(slots=None, factors=None) if commit is not None else None  # type: ignore[arg-type]
        self._ended_frames = [slot.ended_frames for slot in slots]
        self._backend = backend

    def forward(self, hidden: Tensor, rope: Tensor, layers: list[list[Tensor]], committed: list[Tensor]) -> Tensor:
        """The parts of `Passed`."""
        plan = self._plan
        if self._commit is not None:
            plan = plan._replace(commit=self._commit._replace(slots=committed[0], factors=committed[1]))
        for block, tensors, ended_frames in zip(self.blocks, layers, self._ended_frames, strict=True):
            assert isinstance(block, CausalBlock)
            cache, modulation, keys = LayerCache(*tensors[:3]), Modulation(*tensors[3:9]), None
            if self._has_context:
                keys = (tensors[9], tensors[10])
            slot = CacheSlot(cache, plan, ended_frames)
            hidden = block.run(hidden, Known(modulation, keys), rope, None, self._backend, slot)
        return hidden


def _flatten(hidden: Tensor, rope: Tensor, known: Sequence[Known], slots: Sequence[CacheSlot]) -> Passed:
    layers = [
        [*slot.cache, *of_block.modulation, *(of_block.context_keys or ())]
        for of_block, slot in zip(known, slots, strict=True)
    ]
    commit = slots[0].plan.commit
    committed = [] if commit is None else [commit.slots, torch.view_as_real(commit.factors)]
    return hidden, torch.view_as_real(rope), layers, committed


def _kind(passed: Passed, slots: Sequence[CacheSlot]) -> Hashable:
    """Passes of one kind run the same code; all layers have the same shapes."""
    hidden, rope, layers, committed = passed
    plan = slots[0].plan
    fixed = None if plan.commit is None else (plan.commit.num_frames, plan.commit.kept, plan.commit.held_frames)
    tensors = tuple((x.shape, x.stride(), x.dtype, x.device) for x in (hidden, rope, *layers[0], *committed))
    autocast = torch.get_autocast_dtype(hidden.device.type) if autocasts(hidden) else None
    return plan.held_frames, plan.tokens_per_frame, fixed, slots[-1].ended_frames, autocast, tensors


def _compile(blocks: AllBlocks, passed: Passed) -> Callable[..., Tensor]:
    from torch._inductor import aoti_compile_and_package, aoti_load_package  # heavy, and few need it

    start = time.perf_counter()
    logger.info("compiling a pass of %d tokens ...", passed[0].shape[1])
    with tempfile.TemporaryDirectory() as folder, torch.inference_mode(False), torch.no_grad():
        with warnings.catch_warnings():
            warnings.simplefilter("ignore", FutureWarning)  # torch's own
            program = torch.export.export(blocks, _like(passed), strict=False)
            package = aoti_compile_and_package(
                program,
                package_path=str(Path(folder) / "pass.pt2"),
                inductor_configs={"aot_inductor.package_constants_in_so": False},
            )
        run = aoti_load_package(package)
    weights: dict[str, Tensor] = {name: blocks.get_parameter(name) for name in run.get_constant_fqns()}
    run.load_constants(weights, check_full_update=True, user_managed=True)
    logger.info("compiled in %.0f s", time.perf_counter() - start)
    return run


def _like(passed: Passed) -> Passed:
    """Tensors of the same layout to compile with: those of inference mode won't do."""

    def like(x: Tensor) -> Tensor:
        return torch.empty_strided(x.shape, x.stride(), dtype=x.dtype, device=x.device)

    hidden, rope, layers, committed = passed
    return like(hidden), like(rope), [[like(x) for x in layer] for layer in layers], [like(x) for x in committed]


def _check_compiler() -> None:
    """Raise ValueError now, not in mid-stream, where torch will find no compiler."""
    compiler = os.environ.get("CXX", "clang++" if sys.platform == "darwin" else "g++")
    if shutil.which(compiler) is None:
        raise ValueError(
            f"compile=true needs a C++ compiler, and there is no {compiler}; install one, or set CXX to it."
        )


def _places(blocks: nn.ModuleList) -> tuple[int, ...]:
    return tuple(parameter.data_ptr() for parameter in blocks.parameters())
