"""A trained teacher that foresight tests can name."""

from collections.abc import Iterator
from pathlib import Path

import pytest
from tiny_training import forget_accelerator, make_trainer, tiny_config

from video_mirai import build


@pytest.fixture(autouse=True)
def on_the_cpu(monkeypatch: pytest.MonkeyPatch) -> Iterator[None]:
    """Bit for bit claims are about the CPU."""
    monkeypatch.setenv("ACCELERATE_USE_CPU", "1")
    yield
    forget_accelerator()


@pytest.fixture(scope="session")
def teacher(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Run folder of an untrained bidirectional model."""
    config = tiny_config(tmp_path_factory.mktemp("teacher"), "name=teacher", "objective.kind=bidirectional", "seed=7")
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("ACCELERATE_USE_CPU", "1")
        build.export_run(config, make_trainer(config))
    return build.run_dir(config)
