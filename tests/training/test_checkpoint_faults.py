"""Checkpoints that are damaged, cannot be written, or hold what nobody should read."""

import errno
import json
import logging
import pickle
import resource
import subprocess
import sys
from pathlib import Path

import pytest
from tiny_training import REPOSITORY, TINY, make_trainer, tiny_config

from video_mirai.training import checkpoint, integrity


@pytest.fixture
def saved_twice(tmp_path: Path) -> Path:
    """A run folder with checkpoints of steps 1 and 2."""
    trainer = make_trainer(tiny_config(tmp_path))
    for trainer.step in (1, 2):
        trainer.save()
    return trainer.run_dir


@pytest.mark.parametrize("name", ["objective.safetensors", "state.json", "run.yaml", "generators_0.json", "SHA256SUMS"])
@pytest.mark.parametrize("damage", ["truncated", "one bit", "missing", "empty"])
def test_damaged_newest_checkpoint_is_named_and_the_one_before_is_used(
    saved_twice: Path, caplog: pytest.LogCaptureFixture, name: str, damage: str
) -> None:
    before, newest = checkpoint.list_checkpoints(saved_twice)
    content = (newest / name).read_bytes()
    if damage == "missing":
        (newest / name).unlink()
    else:
        flipped = bytes([content[0] ^ 1]) + content[1:]
        damaged = {"truncated": content[: len(content) // 2], "one bit": flipped, "empty": b""}[damage]
        (newest / name).write_bytes(damaged)
    with caplog.at_level(logging.WARNING):
        assert checkpoint.newest_whole_checkpoint(saved_twice) == before
    assert newest.name in caplog.text
    assert name == "SHA256SUMS" or name in caplog.text


def test_all_checkpoints_damaged_is_an_error_and_nothing_is_removed(saved_twice: Path) -> None:
    for folder in checkpoint.list_checkpoints(saved_twice):
        (folder / "ema.safetensors").write_bytes(b"")
    with pytest.raises(ValueError, match=r"all 2 checkpoints .* are damaged"):
        checkpoint.newest_whole_checkpoint(saved_twice)
    assert len(checkpoint.list_checkpoints(saved_twice)) == 2


def test_damaged_checkpoint_is_replaced_when_its_step_comes_again(saved_twice: Path, tmp_path: Path) -> None:
    before, newest = checkpoint.list_checkpoints(saved_twice)
    (newest / "ema.safetensors").write_bytes(b"")
    trainer = make_trainer(tiny_config(tmp_path))
    trainer.load(before)
    trainer.step = 2
    trainer.save()
    assert checkpoint.newest_whole_checkpoint(saved_twice) == newest


def test_pickle_in_a_checkpoint_is_refused_and_never_run(saved_twice: Path, tmp_path: Path) -> None:
    marker = tmp_path / "executed"
    trainer = make_trainer(tiny_config(tmp_path))
    newest = checkpoint.list_checkpoints(saved_twice)[-1]
    (newest / "ema.safetensors").write_bytes(pickle.dumps(_Touch(marker)))
    (newest / integrity.SUMS_FILE).unlink()
    integrity.write_sums(newest)  # an attacker can write checksums too
    with pytest.raises(ValueError, match=r"ema\.safetensors is damaged or no safetensors file"):
        trainer.load(newest)
    assert not marker.exists()


class _Touch:
    """Unpickling it makes a file."""

    def __init__(self, path: Path) -> None:
        self.path = path

    def __reduce__(self) -> tuple:
        return (Path.touch, (self.path,))


def test_best_checkpoint_is_kept_beside_the_newest(tmp_path: Path) -> None:
    trainer = make_trainer(tiny_config(tmp_path, "train.keep_checkpoints=1"))
    for trainer.step, loss in ((1, 3.0), (2, 1.0), (3, 2.0), (4, None), (5, None)):
        trainer._validated = (trainer.step, loss)
        trainer.save()
    kept = [folder.name for folder in checkpoint.list_checkpoints(trainer.run_dir)]
    assert kept == ["step_00000002", "step_00000005"]
    best = checkpoint.best_checkpoint(trainer.run_dir)
    assert best is not None and best.name == "step_00000002"


@pytest.mark.parametrize("part", ["sync_file", "sync_folder", "remove_folder"])
def test_checkpoint_that_cannot_be_written_leaves_the_earlier_ones_whole(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, part: str
) -> None:
    trainer = make_trainer(tiny_config(tmp_path, "train.keep_checkpoints=1"))
    trainer.step = 1
    good = trainer.save()

    def refuse(path: Path) -> None:
        raise OSError(errno.ENOSPC, "No space left on device", str(path))

    monkeypatch.setattr(checkpoint, part, refuse)
    trainer.step = 2
    with pytest.raises(checkpoint.CheckpointFailed, match=r"step 2 could not be written: .*No space left"):
        trainer.save()
    checkpoint.check_checkpoint(good)
    assert not list((trainer.run_dir / "checkpoints").glob("unfinished_*"))


@pytest.mark.slow
def test_full_disk_stops_with_one_line_and_the_last_good_checkpoint_whole(tmp_path: Path) -> None:
    # The kernel's limit on a file's size stands for the full disk: the write itself fails, in native code too.
    arguments = ["--config", str(TINY), f"output_dir={tmp_path}", "name=run", "train.num_steps=4", "train.batch_size=4",
                 "train.tracker=none", "validation.every_steps=0", "train.checkpoint_every=2"]  # fmt: skip
    command = [sys.executable, str(REPOSITORY / "scripts" / "train_video.py"), *arguments]
    assert subprocess.run([*command, "train.num_steps=2"], cwd=REPOSITORY, timeout=200).returncode == 0
    run = tmp_path / "run"
    (good,) = checkpoint.list_checkpoints(run)
    limit = (good / "objective.safetensors").stat().st_size // 2
    limited = subprocess.run(
        command,
        cwd=REPOSITORY,
        timeout=200,
        capture_output=True,
        text=True,
        preexec_fn=lambda: resource.setrlimit(resource.RLIMIT_FSIZE, (limit, limit)),
    )
    assert limited.returncode == 1
    errors = [line for line in limited.stderr.splitlines() if line.startswith("error: ")]
    assert len(errors) == 1 and "step 4 could not be written" in errors[0] and str(good) in errors[0]
    assert "Traceback" not in limited.stderr
    checkpoint.check_checkpoint(good)
    assert checkpoint.list_checkpoints(run) == [good]


def test_changed_process_count_says_what_is_no_longer_exact(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    trainer = make_trainer(tiny_config(tmp_path))
    saved = trainer.save()
    state = json.loads((saved / "state.json").read_text())
    state["ran_on"] |= {"processes": 4, "threads": 99, "torch": "1.0"}
    (saved / "state.json").write_text(json.dumps(state))
    (saved / integrity.SUMS_FILE).unlink()
    integrity.write_sums(saved)
    with caplog.at_level(logging.WARNING):
        trainer.load(saved)
    assert "1 processes instead of 4" in caplog.text and "order of the data go on exactly" in caplog.text
    assert "instead of 99" in caplog.text and "instead of 1.0" in caplog.text
