"""A training step of CausalVideoDiT against diffusers' WanTransformer3DModel: the same weights, tokens and dtypes."""

from collections.abc import Callable
from typing import NamedTuple

import torch
from diffusers import ModelMixin, WanTransformer3DModel
from torch import Tensor

from benchmarks.machine import matrix_products
from benchmarks.measure import Findings, Timed, Turns, ratios, take_turns, timed
from benchmarks.sizes import Sizes, StepSize
from video_mirai.models.causal_dit import CausalVideoDiT
from video_mirai.training.estimate import forward_flops, size_of

GROUP = "Training step"
OURS = ("native", "matmul")  # attention backends
SIGMA = 0.5
SAME_OUTPUT = 1e-5
ENOUGH_OF_MATMUL = 0.6
ENOUGH_FROM_WIDTH = 512


class Inputs(NamedTuple):
    """latents (1, F, C, H, W); context (1, L, D_text)."""

    latents: Tensor
    context: Tensor


def measure_steps(sizes: Sizes, device: torch.device, *, compiled: bool) -> Findings:
    """Forward and backward pass in bf16 autocast over fp32 weights, at every width, also through torch.compile."""
    findings = Findings()
    for width in sizes.step.widths:
        # Else the next width would count as "dynamic" and get slower code.
        torch.compiler.reset()
        findings.extend(_measure_width(sizes, width, device, compiled=compiled))
    return findings


def _measure_width(sizes: Sizes, width: int, device: torch.device, *, compiled: bool) -> Findings:
    inputs = make_inputs(sizes.step, device)
    findings = Findings()
    steps: dict[str, Timed] = {}
    for with_compile in (False, True) if compiled else (False,):
        for name, (model, forward) in make_models(sizes.step, width, inputs, device).items():
            full_name = f"{name}, compiled" if with_compile else name
            steps[full_name] = timed(training_step(model, forward), device)
            if with_compile:
                model.compile_repeated_blocks()
                first = steps[full_name]()
                findings.add(GROUP, f"width {width}: {full_name}, first step", [first], "s")
    product = matrix_products([(sizes.matmul,) * 3], torch.bfloat16, device)
    turns = take_turns(steps | {"matmul": product}, sizes.repetitions, sizes.warmup, f"step, width {width}")
    _add_rows(findings, turns, sizes, width)
    findings.series |= {f"step, width {width}: {name}": seconds for name, seconds in turns.items()}
    return findings


def make_inputs(size: StepSize, device: torch.device) -> Inputs:
    """Random numbers; a step's time does not depend on them."""
    shape = (1, size.frames, size.channels, size.latent_size, size.latent_size)
    return Inputs(torch.randn(shape, device=device), torch.randn(1, size.context_tokens, size.text_dim, device=device))


def make_models(
    size: StepSize, width: int, inputs: Inputs, device: torch.device
) -> dict[str, tuple[ModelMixin, Callable[[], Tensor]]]:
    """{name: (model, its forward pass on the inputs)}, all with diffusers' weights.

    Raises RuntimeError when their fp32 outputs differ: then a comparison of their times means nothing.
    """
    settings = architecture(size, width)
    theirs = WanTransformer3DModel(**settings).to(device)
    models: dict[str, tuple[ModelMixin, Callable[[], Tensor]]] = {"diffusers": (theirs, diffusers_pass(theirs, inputs))}
    with torch.no_grad():
        expected = models["diffusers"][1]()
    for backend in OURS:
        model = CausalVideoDiT(**settings, attention_backend=backend).to(device)
        model.load_state_dict(theirs.state_dict())
        models[f"ours ({backend})"] = (model, our_pass(model, inputs))
        with torch.no_grad():
            error = (models[f"ours ({backend})"][1]() - expected).abs().max() / expected.abs().max()
        if error > SAME_OUTPUT:
            raise RuntimeError(
                f"width {width}, {backend}: output differs from diffusers' by {error:.2e} of its maximum."
            )
    return models


def architecture(size: StepSize, width: int) -> dict:
    """Keyword arguments that both classes take."""
    return {
        "patch_size": (1, size.patch, size.patch),
        "num_attention_heads": width // size.head_dim,
        "attention_head_dim": size.head_dim,
        "in_channels": size.channels,
        "out_channels": size.channels,
        "text_dim": size.text_dim,
        "ffn_dim": 4 * width,
        "num_layers": size.num_layers,
    }


def our_pass(model: CausalVideoDiT, inputs: Inputs) -> Callable[[], Tensor]:
    """One sigma per frame, full mask; the velocity, (1, F, C, H, W)."""
    sigmas = torch.full(inputs.latents.shape[:2], SIGMA, device=inputs.latents.device)
    return lambda: model(inputs.latents, sigmas, inputs.context).velocity


def diffusers_pass(model: WanTransformer3DModel, inputs: Inputs) -> Callable[[], Tensor]:
    """One timestep for the clip; frames after channels, and back."""
    timestep = torch.full((1,), 1000 * SIGMA, device=inputs.latents.device)
    frames_last = inputs.latents.transpose(1, 2).contiguous()
    return lambda: model(frames_last, timestep, inputs.context, return_dict=False)[0].transpose(1, 2)


def training_step(model: ModelMixin, forward: Callable[[], Tensor]) -> Callable[[], None]:
    """Forward, a squared error, backward. No optimiser: it would be the same for both."""
    device_type = model.device.type
    parameters = list(model.parameters())

    def run() -> None:
        with torch.autocast(device_type, dtype=torch.bfloat16):
            output = forward()
        output.float().square().mean().backward()
        for parameter in parameters:
            parameter.grad = None

    return run


def step_flops(size: StepSize, width: int) -> float:
    """Counted by training.estimate, the same for both: matrix products and attention, backward twice the forward pass.

    torch's FlopCounterMode agrees on backend "matmul" (tests/test_benchmark.py); it doesn't see into a CPU's fused
    attention.
    """
    with torch.device("meta"):
        model = CausalVideoDiT(**architecture(size, width))
    tokens = size.frames * model.tokens_per_frame(size.latent_size, size.latent_size)
    return 3 * forward_flops(size_of(model), tokens, size.frames, size.context_tokens)


def _add_rows(findings: Findings, turns: Turns, sizes: Sizes, width: int) -> None:
    matmul_rate = [2.0 * sizes.matmul**3 / seconds for seconds in turns["matmul"]]
    flops = step_flops(sizes.step, width)
    enough = ENOUGH_OF_MATMUL if width >= ENOUGH_FROM_WIDTH else None
    for name, seconds in turns.items():
        if name == "matmul":
            continue
        findings.add(GROUP, f"width {width}: {name}", seconds, "s")
        share = ratios([flops / second for second in seconds], matmul_rate)
        ours = name.startswith("ours")
        target = enough if ours else None
        findings.add(GROUP, f"width {width}: {name}, share of the matmul rate", share, "x", at_least=target)
        if ours:
            reference = "diffusers, compiled" if name.endswith("compiled") else "diffusers"
            ratio = ratios(seconds, turns[reference])
            findings.add(GROUP, f"width {width}: {name} / {reference}", ratio, "x", at_most=1.0)
