"""Settings that every test shares: one thread a process and a fixed seed."""

import pytest
import torch


def pytest_configure() -> None:
    # Tests run one process a core (pytest-xdist); more threads would only wait for each other.
    torch.set_num_threads(1)


@pytest.fixture(autouse=True)
def fixed_seed() -> None:
    """Weights that a test initialises are the same in every run and in any order of the tests."""
    torch.manual_seed(0)
