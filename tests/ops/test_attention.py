import pytest
import torch

from video_mirai.ops.attention import CPU_BACKENDS, attend, check_backend, prepare_mask
from video_mirai.ops.masks import chunk_causal_mask


def random_heads(batch: int = 2, length: int = 6, heads: int = 2, head_dim: int = 16) -> torch.Tensor:
    return torch.randn(batch, length, heads, head_dim, generator=torch.Generator().manual_seed(0))


@pytest.mark.parametrize("backend", CPU_BACKENDS)
@pytest.mark.parametrize("batch", [1, 2, 6])
def test_future_values_do_not_change_past_outputs(backend, batch):
    """Also with a batch as large as the sequence, where a 2-D mask would pass for a padding mask."""
    x = random_heads(batch=batch)
    mask = prepare_mask(chunk_causal_mask(6, 1, 2), backend, x.dtype)
    changed = x.clone()
    changed[:, 4:] += 1.0
    before, after = attend(x, x, x, mask, backend), attend(x, changed, changed, mask, backend)
    assert torch.equal(before[:, :4], after[:, :4])
    assert not torch.allclose(before[:, 4:], after[:, 4:])


@pytest.mark.parametrize("backend", CPU_BACKENDS)
@pytest.mark.parametrize("mask", [chunk_causal_mask(6, 1, 2, window_frames=2), None], ids=["masked", "unmasked"])
def test_backends_agree(backend, mask):
    x = random_heads()
    reference = attend(x, x, x, prepare_mask(mask, "_native_math", x.dtype), "_native_math")
    torch.testing.assert_close(attend(x, x, x, prepare_mask(mask, backend, x.dtype), backend), reference)


def test_matmul_backend_has_the_gradient_of_the_native_one():
    mask = chunk_causal_mask(6, 1, 2)
    gradients = []
    for backend in ("native", "matmul"):
        x = random_heads().requires_grad_()
        attend(x, x, x, prepare_mask(mask, backend, x.dtype), backend).square().sum().backward()
        gradients.append(x.grad)
    torch.testing.assert_close(*gradients)


@pytest.mark.parametrize(
    "backend, masked, backward, message",
    [
        ("flash", True, False, "takes no mask"),
        ("xformers", True, False, "does not run on CPU"),
        ("flex", True, True, "no backward pass on CPU"),
        ("fastest", False, False, "known: "),
    ],
)
def test_backend_that_cannot_do_it_says_so_at_start_up(backend, masked, backward, message):
    with pytest.raises(ValueError, match=message):
        check_backend(backend, torch.device("cpu"), masked=masked, backward=backward)


def test_usable_backends_pass_the_check():
    for backend in CPU_BACKENDS:
        assert check_backend(backend, torch.device("cpu"), masked=True, backward=False) is None
