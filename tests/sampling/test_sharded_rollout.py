import multiprocessing as mp
from itertools import islice

import pytest
import torch
from tiny_models import random_latents, tiny_model

from video_mirai.sampling.rollout import RolloutSettings, rollout
from video_mirai.sampling.state import RolloutState


def shard_and_generate(store: str, precision: str, results: mp.SimpleQueue) -> None:
    """In a process of its own, because a process group stays for good."""
    from torch.distributed import destroy_process_group, init_process_group
    from torch.distributed.device_mesh import init_device_mesh
    from torch.distributed.fsdp import MixedPrecisionPolicy, fully_shard

    torch.set_num_threads(1)
    init_process_group("gloo", init_method=f"file://{store}", rank=0, world_size=1)
    model, mesh = tiny_model(), init_device_mesh("cpu", (1,))
    policy = MixedPrecisionPolicy(param_dtype=torch.bfloat16)
    for block in model.blocks:
        fully_shard(block, mesh=mesh, mp_policy=policy)
    fully_shard(model, mesh=mesh, mp_policy=policy)
    state, settings = RolloutState(), RolloutSettings(num_steps=2, window_frames=2, precision=precision)
    chunks = rollout(model, random_latents(4), settings, torch.Generator().manual_seed(0), state=state)
    frames = torch.cat(list(islice(chunks, 4)), dim=1)
    assert state.cache is not None
    try:
        compiled = next(rollout(model, random_latents(4), RolloutSettings(compile=True), torch.Generator())).shape
    except ValueError as error:
        compiled = str(error)
    results.put((frames.numpy(), float(state.cache.layers[0].keys.abs().sum()), compiled))
    destroy_process_group()


@pytest.mark.parametrize("precision", ["fp32", "bf16"])
def test_a_rollout_of_a_model_sharded_in_bf16_fills_its_cache(precision, tmp_path):
    context = mp.get_context("spawn")
    results = context.SimpleQueue()
    process = context.Process(target=shard_and_generate, args=(str(tmp_path / "store"), precision, results))
    process.start()
    process.join(120)
    assert process.exitcode == 0
    frames, keys, compiled = results.get()
    assert keys > 0
    settings = RolloutSettings(num_steps=2, window_frames=2)
    chunks = rollout(tiny_model(), random_latents(4), settings, torch.Generator().manual_seed(0))
    expected = torch.cat(list(islice(chunks, 4)), dim=1)
    assert (torch.from_numpy(frames) - expected).norm() < 0.05 * expected.norm()
    assert "sharded" in compiled
