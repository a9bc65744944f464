"""A rollout's state, saved and gone on from."""

import subprocess
import sys
from dataclasses import replace
from itertools import islice
from pathlib import Path

import pytest
import torch
from safetensors.torch import load_file, save_file
from tiny_models import TEXT_DIM, random_context, random_latents, tiny_model
from torch import Tensor

from video_mirai.sampling.guidance import GuidanceConfig
from video_mirai.sampling.rollout import RolloutSettings, rollout
from video_mirai.sampling.state import RolloutState, load_state, save_state

SETTINGS = RolloutSettings(num_steps=2, chunk_frames=2, window_frames=3, sink_frames=1, history_sigma=0.1)
GO_ON = """
import sys
from itertools import islice
import torch
from safetensors.torch import save_file
from video_mirai.models.causal_dit import CausalVideoDiT
from video_mirai.sampling.rollout import RolloutSettings, rollout
from video_mirai.sampling.state import load_state
torch.set_num_threads(1)
model, state_file, out = sys.argv[1:]
model = CausalVideoDiT.from_pretrained(model)
state, generator, _ = load_state(state_file, model)
settings = RolloutSettings(num_steps=2, chunk_frames=2, window_frames=3, sink_frames=1, history_sigma=0.1)
history = torch.zeros(2, 0, 4, 8, 6)
save_file({"frames": torch.cat(list(islice(rollout(model, history, settings, generator, state=state), 3)), 1)}, out)
"""


def frames_of(chunks, count: int) -> Tensor:
    return torch.cat(list(islice(chunks, count)), dim=1)


@pytest.mark.slow
def test_another_process_goes_on_bit_for_bit(tmp_path: Path) -> None:
    model = tiny_model()
    model.save_pretrained(tmp_path / "model")
    before = torch.get_num_threads()
    torch.set_num_threads(1)
    try:
        whole = frames_of(rollout(model, random_latents(3), SETTINGS, torch.Generator().manual_seed(0)), 6)
        generator, state = torch.Generator().manual_seed(0), RolloutState()
        first = frames_of(rollout(model, random_latents(3), SETTINGS, generator, state=state), 3)
        save_state(tmp_path / "state.safetensors", state, generator)
        names = [str(tmp_path / name) for name in ("model", "state.safetensors", "rest.safetensors")]
        subprocess.run([sys.executable, "-c", GO_ON, *names], check=True)
    finally:
        torch.set_num_threads(before)
    assert torch.equal(torch.cat([first, load_file(names[2])["frames"]], dim=1), whole)


def test_a_loaded_state_goes_on_with_its_context_guidance_and_a_generator_per_sample(tmp_path: Path) -> None:
    model = tiny_model(TEXT_DIM)
    settings = RolloutSettings(num_steps=2, window_frames=3, guidance=GuidanceConfig(context_scale=2.0))

    def generators() -> list[torch.Generator]:
        return [torch.Generator().manual_seed(seed) for seed in (1, 2)]

    whole = frames_of(rollout(model, random_latents(2), settings, generators(), context=random_context()), 5)
    state, sources = RolloutState(), generators()
    first = frames_of(rollout(model, random_latents(2), settings, sources, context=random_context(), state=state), 2)
    save_state(tmp_path / "state.safetensors", state, sources)
    state, sources, _ = load_state(tmp_path / "state.safetensors", model)
    rest = frames_of(rollout(model, random_latents(0), settings, sources, context=random_context(), state=state), 3)
    torch.testing.assert_close(torch.cat([first, rest], dim=1), whole, atol=1e-6, rtol=1e-6)


def test_only_what_a_rollout_saved_is_loaded(tmp_path: Path) -> None:
    model, path = tiny_model(), tmp_path / "state.safetensors"
    with pytest.raises(FileNotFoundError, match="does not exist"):
        load_state(path, model)
    path.write_bytes(b"no such thing")
    with pytest.raises(ValueError, match="no saved rollout state"):
        load_state(path, model)
    save_file({"a": torch.zeros(1)}, path)
    with pytest.raises(ValueError, match="no saved rollout state of this version"):
        load_state(path, model)


def test_a_state_of_another_model_or_batch_is_refused(tmp_path: Path) -> None:
    model, state, generator = tiny_model(), RolloutState(), torch.Generator()
    frames_of(rollout(model, random_latents(2), SETTINGS, generator, state=state), 1)
    save_state(tmp_path / "state.safetensors", state, generator)
    with pytest.raises(ValueError, match="the saved cache does not fit"):
        load_state(tmp_path / "state.safetensors", tiny_model(num_layers=4))
    with pytest.raises(ValueError, match="holds a batch of 2"):
        next(rollout(model, random_latents(0, batch=1), SETTINGS, generator, state=state))
    with pytest.raises(ValueError, match="must be those it was filled with"):
        next(rollout(model, random_latents(0), replace(SETTINGS, window_frames=9), generator, state=state))


def test_an_empty_state_is_not_saved(tmp_path: Path) -> None:
    with pytest.raises(ValueError, match="give it to a rollout"):
        save_state(tmp_path / "state.safetensors", RolloutState(), torch.Generator())
