"""Training on folders of videos with a class or with actions as the context."""

import json
from collections.abc import Callable
from pathlib import Path

import imageio.v2 as imageio
import numpy as np
import pytest
import torch
from tiny_training import make_trainer, next_batches, student_weights, tiny_config

from video_mirai import build
from video_mirai.config import RunConfig
from video_mirai.data.batch import VideoBatch
from video_mirai.models.codecs import PixelsCodec
from video_mirai.pipeline import VideoMiraiPipeline
from video_mirai.training.batches import encode_batch, split_batch
from video_mirai.training.tracking import read_metrics

pytest.importorskip("decord")

NUM_FRAMES = 12
CLASS = ["data.video_folder.context=class", "model.text_dim=2"]
ACTIONS = ["data.video_folder.context=actions", "data.video_folder.actions=[turn,forward]", "model.text_dim=2"]


@pytest.fixture(scope="module")
def videos(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Twelve videos of noise in two folders, with actions beside each."""
    root = tmp_path_factory.mktemp("videos")
    generator = np.random.default_rng(0)
    for number in range(12):
        path = root / ("run", "walk")[number % 2] / f"{number}.mp4"
        path.parent.mkdir(exist_ok=True)
        frames = generator.integers(0, 256, (NUM_FRAMES, 16, 16, 3)).astype(np.uint8)
        quiet = {"codec": "libx264", "macro_block_size": 2, "ffmpeg_log_level": "error"}
        imageio.mimwrite(path, list(frames), format="FFMPEG", fps=10, **quiet)
        lines = [{"frame": i, "turn": float(turn), "forward": 10.0} for i, turn in enumerate(generator.normal(size=12))]
        path.with_suffix(".jsonl").write_text("\n".join(json.dumps(line) for line in lines))
    return root


@pytest.fixture
def make_config(tmp_path: Path, videos: Path) -> Callable[..., RunConfig]:
    def make(*overrides: str) -> RunConfig:
        folder = {"root": videos, "num_frames": 8, "height": 16, "width": 16, "val_fraction": 0.3, "fps": 10}
        settings = [f"data.video_folder.{name}={value}" for name, value in folder.items()]
        return tiny_config(tmp_path, "data.kind=video_folder", *settings, "train.num_steps=2", *overrides)

    return make


@pytest.mark.parametrize("context", [CLASS, ACTIONS], ids=["class", "actions"])
@pytest.mark.parametrize("kind", ["teacher_forcing", "diffusion_forcing", "bidirectional"])
def test_two_steps_move_the_weights_that_read_the_context(
    make_config: Callable[..., RunConfig], context: list[str], kind: str
) -> None:
    trainer = make_trainer(make_config(*context, f"objective.kind={kind}"))
    before = student_weights(trainer)
    trainer.fit(2)
    after = student_weights(trainer)
    for name in ("condition_embedder.text_embedder.linear_1.weight", "blocks.0.attn2.to_v.weight"):
        assert not torch.equal(before[name], after[name])
    assert all(torch.isfinite(value).all() for value in after.values())


@pytest.mark.parametrize("context", [CLASS, ACTIONS], ids=["class", "actions"])
@pytest.mark.parametrize("chunk_frames", [1, 4])
def test_validation_rolls_out_with_the_context(
    make_config: Callable[..., RunConfig], context: list[str], chunk_frames: int
) -> None:
    chunks = [f"{part}.chunk_frames={chunk_frames}" for part in ("objective", "rollout")]
    looks = ["every_steps=2", "num_clips=2", "rollout_clips=1", "history_frames=2", "rollout_frames=6"]
    trainer = make_trainer(
        make_config(*context, *chunks, "rollout.window_frames=4", *(f"validation.{look}" for look in looks))
    )
    trainer.fit(2)
    (numbers,) = [line for line in read_metrics(trainer.run_dir) if "validation/rollout_psnr" in line]
    assert np.isfinite(numbers["validation/loss"]) and np.isfinite(numbers["validation/rollout_psnr"])


def test_accumulation_steps_get_the_contexts_of_their_clips(make_config: Callable[..., RunConfig]) -> None:
    (batch,) = next_batches(make_trainer(make_config(*ACTIONS)), 1)
    assert batch["context"].shape == (4, 8, 1, 2)
    parts = list(split_batch(batch, 2))
    assert torch.equal(torch.cat([part["context"] for part in parts]), batch["context"])


def test_a_context_per_frame_and_a_codec_that_packs_frames_is_one_clear_error() -> None:
    batch = VideoBatch(latents=torch.zeros(1, 3, 4, 2, 2), context=torch.zeros(1, 9, 1, 2))
    with pytest.raises(ValueError, match="context for each of 9 video frames, but the codec makes 3 latent frames"):
        encode_batch(batch, PixelsCodec(), torch.device("cpu"))


@pytest.mark.parametrize("context", [CLASS, ACTIONS], ids=["class", "actions"])
def test_export_of_a_model_with_context_is_proven_and_generates_with_it(
    make_config: Callable[..., RunConfig], context: list[str]
) -> None:
    config = make_config(*context)
    trainer = make_trainer(config)
    folder = build.export_run(config, trainer)
    assert folder is not None and "baseline" in (folder / "README.md").read_text()
    pipe = VideoMiraiPipeline.from_pretrained(folder)
    clip = trainer.train_set[0]["context"][None]
    assert pipe(num_frames=3, seed=0, context=clip, output_type="np").frames.shape == (1, 3, 16, 16, 3)
