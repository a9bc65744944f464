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
from torch.distributed.tensor import DTensor

from video_mirai.models.causal_block import CacheSlot, CausalBlock, Known, autocasts
from video_mirai.models.layer_cache import Commit, LayerCache
from video_mirai.models.modulation import Modulation

MOST_KINDS = 8  # of passes; a rollout has two, and two more for every other length of its context
logger = logging.getLogger(__name__)

# Weights, hidden, rope, every layer's tensors, the commit's. Rotations are pairs of real numbers: no code is made for
# complex ones.
Passed = tuple[list[Tensor], Tensor, Tensor, list[list[Tensor]], list[Tensor]]


class CompiledPasses:
    """One model's passes with a cache, compiled when a new kind comes: other shapes, or another plan.

    The weights are passed to the code as they are at that moment, so it can't be out of date. Kinds beyond MOST_KINDS
    run uncompiled, because each compilation takes half a minute or more.
    """

    def __init__(self, blocks: nn.ModuleList, backend: str) -> None:
        """ValueError where nothing can be compiled."""
        _check_compiler()
        if any(isinstance(weight, DTensor) for weight in blocks.parameters()):
            raise ValueError(
                "compile=true: the model's weights are sharded; rollouts of sharded models run uncompiled."
            )
        self._blocks = blocks
        # There is no mask, so flex attention is attention like any other; it can't be exported.
        self._backend = "native" if backend == "flex" else backend
        # Where to find them: `parameters()` walks all modules, which takes a fiftieth of a small pass.
        self._weights = [(module, name) for module in blocks.modules() for name in module._parameters]
        self._compiled: dict[Hashable, Callable[..., Tensor]] = {}

    def __reduce__(self) -> tuple[type[None], tuple[()]]:
        """None in place of it where a model is copied or saved: the copy compiles its own."""
        return type(None), ()

    @torch.no_grad()
    def __call__(self, hidden: Tensor, rope: Tensor, known: Sequence[Known], slots: Sequence[CacheSlot]) -> Tensor:
        """The residual stream (B, F*N, D) after all blocks; the cache is written in place."""
        passed = self._flatten(hidden, rope, known, slots)
        kind = _kind(passed, slots)
        run = self._compiled.get(kind)
        if run is None:
            run = WithWeights(AllBlocks(self._blocks, slots, self._backend))
            if len(self._compiled) < MOST_KINDS:
                run = self._compiled[kind] = _compile(run, passed)
        return run(*passed)

    def _flatten(self, hidden: Tensor, rope: Tensor, known: Sequence[Known], slots: Sequence[CacheSlot]) -> Passed:
        weights: list[Tensor] = []
        weights += [weight for module, name in self._weights if (weight := module._parameters[name]) is not None]
        layers: list[list[Tensor]] = [
            [*slot.cache, *of_block.modulation, *(of_block.context_keys or ())]
            for of_block, slot in zip(known, slots, strict=True)
        ]
        commit = slots[0].plan.commit
        committed = [] if commit is None else [commit.slots, torch.view_as_real(commit.factors)]
        return weights, hidden, torch.view_as_real(rope), layers, committed


class AllBlocks(nn.Module):
    """What is compiled: all that isn't a tensor is fixed."""

    def __init__(self, blocks: nn.ModuleList, slots: Sequence[CacheSlot], backend: str) -> None:
        super().__init__()
        self.blocks = blocks
        plan = slots[0].plan
        self._plan = plan._replace(commit=None)
        self._commit = plan.commit[:3] if plan.commit is not None else None  # its tensors are others in every pass
        self._ended_frames = [slot.ended_frames for slot in slots]
        self._backend = backend

    def forward(self, hidden: Tensor, rope: Tensor, layers: list[list[Tensor]], committed: list[Tensor]) -> Tensor:
        """The parts of `Passed` but the weights."""
        plan = self._plan
        if self._commit is not None:
            plan = plan._replace(commit=Commit(*self._commit, *committed))
        for block, tensors, ended_frames in zip(self.blocks, layers, self._ended_frames, strict=True):
            assert isinstance(block, CausalBlock)
            cache, modulation, keys = LayerCache(*tensors[:3]), Modulation(*tensors[3:9]), None
            if block.has_context:
                keys = (tensors[9], tensors[10])
            slot = CacheSlot(cache, plan, ended_frames)
            hidden = block.run(hidden, Known(modulation, keys), rope, None, self._backend, slot)
        return hidden


class WithWeights(nn.Module):
    """A module whose weights are given with every call, and are no part of it."""

    def __init__(self, module: nn.Module) -> None:
        super().__init__()
        self._hidden_module = (module,)  # in a tuple nobody looks for parameters
        self._names = [name for name, _ in module.named_parameters()]

    def forward(self, weights: list[Tensor], *args: object) -> Tensor:
        named = dict(zip(self._names, weights, strict=True))
        return torch.func.functional_call(self._hidden_module[0], named, args)


def _kind(passed: Passed, slots: Sequence[CacheSlot]) -> Hashable:
    """Passes of one kind run the same code; all layers have the same shapes, and weights don't change theirs."""
    weights, hidden, rope, layers, committed = passed
    plan = slots[0].plan
    fixed = plan.commit[:3] if plan.commit is not None else None
    tensors = tuple((x.shape, x.stride(), x.dtype, x.device) for x in (hidden, rope, *layers[0], *committed))
    autocast = torch.get_autocast_dtype(hidden.device.type) if autocasts(hidden) else None
    return plan.held_frames, plan.tokens_per_frame, fixed, slots[-1].ended_frames, autocast, weights[0].dtype, tensors


def _compile(module: nn.Module, passed: Passed) -> Callable[..., Tensor]:
    from torch._inductor import aoti_compile_and_package, aoti_load_package  # heavy, and few need it

    start = time.perf_counter()
    logger.info("compiling a pass of %d tokens ...", passed[1].shape[1])
    with tempfile.TemporaryDirectory() as folder, torch.inference_mode(False), torch.no_grad():
        with warnings.catch_warnings():
            warnings.simplefilter("ignore", FutureWarning)  # torch's own
            program = torch.export.export(module, _like(passed), strict=False)
            package = aoti_compile_and_package(program, package_path=str(Path(folder) / "pass.pt2"))
        run = aoti_load_package(package)
    logger.info("compiled in %.0f s", time.perf_counter() - start)
    return run


def _like(passed: Passed) -> Passed:
    """Tensors of the same layout to compile with: those of inference mode won't do."""

    def like(x: Tensor) -> Tensor:
        return torch.empty_strided(x.shape, x.stride(), dtype=x.dtype, device=x.device)

    def all_like(tensors: list[Tensor]) -> list[Tensor]:
        return [like(x) for x in tensors]

    weights, hidden, rope, layers, committed = passed
    return all_like(weights), like(hidden), like(rope), [all_like(layer) for layer in layers], all_like(committed)


def _check_compiler() -> None:
    """Raise ValueError now, not in mid-stream, where torch will find no compiler."""
    compiler = os.environ.get("CXX", "clang++" if sys.platform == "darwin" else "g++")
    if shutil.which(compiler) is None:
        raise ValueError(
            f"compile=true needs a C++ compiler, and there is no {compiler}; install one, or set CXX to it."
        )
