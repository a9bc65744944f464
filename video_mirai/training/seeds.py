"""Independent random streams from one seed."""

import hashlib

import torch


def derive_seed(seed: int, *labels: str | int) -> int:
    """A 63-bit seed that depends on the run's seed and on what it is for, such as ("noise", rank)."""
    text = "/".join(str(part) for part in (seed, *labels))
    return int.from_bytes(hashlib.sha256(text.encode()).digest()[:8], "big") >> 1


def make_generator(device: torch.device | str, seed: int, *labels: str | int) -> torch.Generator:
    """A generator of its own, seeded by `derive_seed`."""
    return torch.Generator(device).manual_seed(derive_seed(seed, *labels))
