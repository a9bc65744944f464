"""The pipeline as a diffusers user meets it: the same frames as rollout, in every form, and one line per mistake."""

import re
import weakref
from collections.abc import Callable
from dataclasses import asdict, replace
from itertools import islice
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from diffusers import AutoencoderKLWan
from diffusers.callbacks import PipelineCallback
from PIL import Image
from tiny_models import TEXT_DIM, tiny_model, wan_arguments
from tiny_training import REPOSITORY
from torch import Tensor

from video_mirai.models.autoencoders import LatentStats
from video_mirai.models.causal_dit import CausalVideoDiT
from video_mirai.models.codecs import Codec, DiffusersCodec, PixelsCodec
from video_mirai.pipeline import VideoMiraiPipeline
from video_mirai.sampling.guidance import GuidanceConfig
from video_mirai.sampling.rollout import RolloutSettings, rollout
from video_mirai.training.codec_trainer import AutoencoderConfig, make_autoencoder

HEIGHT, WIDTH = 16, 32
SETTINGS = RolloutSettings(num_steps=2, chunk_frames=2, window_frames=4, history_sigma=0.1)


def make_codec(kind: str) -> Codec:
    if kind == "pixels":
        return PixelsCodec()
    if kind == "per-frame":
        small = AutoencoderConfig(latent_channels=4, widths=[8, 8], encoder_blocks=[0, 1], decoder_blocks=[0, 1])
        return DiffusersCodec(make_autoencoder(small), LatentStats(torch.zeros(4), torch.full((4,), 2.0)))
    wan = AutoencoderKLWan(base_dim=4, z_dim=3, dim_mult=[1, 1, 1, 1], num_res_blocks=1)
    return DiffusersCodec(wan, LatentStats(torch.zeros(3), torch.ones(3)))


def make_pipeline(kind: str = "pixels", text_dim: int | None = None) -> VideoMiraiPipeline:
    codec = make_codec(kind)
    patch = {"patch_size": (1, 1, 2) if kind == "wan" else (1, 4, 4)}
    channels = {"in_channels": codec.latent_channels, "out_channels": codec.latent_channels}
    transformer = CausalVideoDiT(**wan_arguments(text_dim) | channels | patch).eval()
    pipe = VideoMiraiPipeline(transformer, codec, asdict(SETTINGS), {"height": HEIGHT, "width": WIDTH, "fps": 8.0})
    pipe.set_progress_bar_config(disable=True)
    return pipe


@pytest.fixture(scope="module")
def pipe() -> VideoMiraiPipeline:
    torch.manual_seed(0)
    return make_pipeline()


@pytest.fixture(scope="module")
def text_pipe() -> VideoMiraiPipeline:
    torch.manual_seed(0)
    return make_pipeline(text_dim=TEXT_DIM)


def random_video(num_videos: int = 1, frames: int = 5) -> Tensor:
    """(B, T, 3, H, W) in [0, 1], on the grid of uint8."""
    generator = torch.Generator().manual_seed(1)
    return torch.randint(256, (num_videos, frames, 3, HEIGHT, WIDTH), generator=generator) / 255


def contexts(count: int = 2, num_videos: int = 1) -> list[Tensor]:
    generator = torch.Generator().manual_seed(2)
    return [torch.randn(num_videos, 3, TEXT_DIM, generator=generator) for _ in range(count)]


@pytest.mark.parametrize("kind", ["pixels", "per-frame", "wan"])
def test_frames_are_those_of_rollout_decoded_bit_for_bit(kind: str) -> None:
    pipe, video = make_pipeline(kind), random_video()
    frames = pipe(video, num_frames=7, seed=3, output_type="pt").frames
    history = pipe.codec.encode(2 * video - 1)
    chunks = rollout(pipe.transformer, history, SETTINGS, [torch.Generator().manual_seed(3)])
    latents = list(islice(chunks, 1 if kind == "wan" else 4))
    parts = list(pipe.codec.decode_stream([history, *latents]))
    assert torch.equal(frames, torch.cat(parts[1:], dim=1)[:, :7] / 2 + 0.5)
    whole = pipe.codec.decode(torch.cat([history, *latents], dim=1))
    torch.testing.assert_close(frames, whole[:, 5 : 5 + 7] / 2 + 0.5, atol=1e-5, rtol=0)
    if kind == "pixels":
        assert torch.equal(frames, whole[:, 5 : 5 + 7] / 2 + 0.5)


@pytest.mark.parametrize("kind", ["pixels", "per-frame", "wan"])
@pytest.mark.parametrize("with_history", [True, False])
def test_streamed_chunks_joined_are_the_frames_of_a_call(kind: str, with_history: bool) -> None:
    pipe = make_pipeline(kind)
    history = random_video() if with_history else None
    called = pipe(history, num_frames=9, seed=3, output_type="pt").frames
    parts = pipe.stream(history, seed=3, output_type="pt")
    streamed = torch.cat([next(parts) for _ in range(5)], dim=1)
    assert called.shape == (1, 9, 3, HEIGHT, WIDTH)
    assert torch.equal(called, streamed[:, :9])


def test_a_stream_keeps_nothing_of_what_it_has_yielded(pipe: VideoMiraiPipeline) -> None:
    parts = pipe.stream(random_video(), seed=3, output_type="latent")
    seen = [weakref.ref(next(parts)) for _ in range(5)]
    assert [part() is None for part in seen] == [True] * 4 + [False]  # the newest is yet to enter the cache


def test_output_types_hold_the_same_frames(pipe: VideoMiraiPipeline) -> None:
    made = {kind: pipe(random_video(2), num_frames=3, seed=3, output_type=kind).frames for kind in ("pt", "np", "pil")}
    assert made["np"].shape == (2, 3, HEIGHT, WIDTH, 3)
    assert np.array_equal(made["np"], made["pt"].permute(0, 1, 3, 4, 2).numpy())
    images = np.stack([[np.asarray(image) for image in video] for video in made["pil"]])
    assert np.array_equal(images, (made["np"] * 255).round().astype(np.uint8))
    latents = pipe(random_video(2), num_frames=3, seed=3, output_type="latent").frames
    assert torch.equal(pipe.codec.decode(latents) / 2 + 0.5, made["pt"])


def test_every_form_of_a_history_means_the_same(pipe: VideoMiraiPipeline) -> None:
    video = random_video(2)
    uint8 = (video * 255).round().to(torch.uint8)
    arrays = uint8.permute(0, 1, 3, 4, 2).numpy()
    images = [[Image.fromarray(frame) for frame in frames] for frames in arrays]
    expected = pipe(video, num_frames=2, seed=3, output_type="pt").frames
    for history in (uint8, arrays, arrays / 255, list(arrays), list(video), images):
        torch.testing.assert_close(pipe(history, num_frames=2, seed=3, output_type="pt").frames, expected)
    for history in (video[0], arrays[0], images[0]):
        torch.testing.assert_close(pipe(history, num_frames=2, seed=3, output_type="pt").frames, expected[:1])
    latents = pipe(history_latents=2 * video - 1, num_frames=2, seed=3, output_type="pt").frames
    assert torch.equal(latents, expected)


def test_frames_returned_can_be_continued(pipe: VideoMiraiPipeline) -> None:
    for kind in ("pil", "np", "pt"):
        frames = pipe(random_video(), num_frames=2, seed=3, output_type=kind).frames
        assert pipe(frames, num_frames=2, seed=3, output_type="np").frames.shape == (1, 2, HEIGHT, WIDTH, 3)


def test_a_batch_equals_each_video_alone(pipe: VideoMiraiPipeline) -> None:
    video = random_video(2)
    together = pipe(video, num_frames=4, seed=3, output_type="latent").frames
    given = [torch.Generator().manual_seed(seed) for seed in (3, 4)]
    assert torch.equal(together, pipe(video, num_frames=4, generator=given, output_type="latent").frames)
    for row in range(2):
        alone = pipe(video[row], num_frames=4, seed=3 + row, output_type="latent").frames
        torch.testing.assert_close(together[row], alone[0], atol=1e-5, rtol=1e-5)


def test_several_generators_start_as_many_videos_from_nothing(pipe: VideoMiraiPipeline) -> None:
    generators = [torch.Generator().manual_seed(seed) for seed in range(3)]
    assert pipe(num_frames=2, generator=generators, output_type="np").frames.shape == (3, 2, HEIGHT, WIDTH, 3)


def test_torchs_global_generator_decides_where_no_other_is_given(pipe: VideoMiraiPipeline) -> None:
    made = []
    for seed in (5, 5, 6):
        torch.manual_seed(seed)
        made.append(pipe(num_frames=2, output_type="latent").frames)
    assert torch.equal(made[0], made[1]) and not torch.equal(made[0], made[2])


@pytest.mark.parametrize("kind", ["pixels", "per-frame", "wan"])
def test_saved_and_loaded_pipeline_generates_the_same(tmp_path: Path, kind: str) -> None:
    pipe = make_pipeline(kind)
    pipe.save_pretrained(tmp_path / "one")
    loaded = VideoMiraiPipeline.from_pretrained(tmp_path / "one").to("cpu")
    loaded.save_pretrained(tmp_path / "two")
    again = VideoMiraiPipeline.from_pretrained(tmp_path / "two", device_map="cpu")
    assert loaded.settings == again.settings == SETTINGS
    assert again.codec.fingerprint() == pipe.codec.fingerprint()
    frames = pipe(random_video(), num_frames=3, seed=3, output_type="pt").frames
    for other in (loaded, again):
        other.set_progress_bar_config(disable=True)
        assert torch.equal(other(random_video(), num_frames=3, seed=3, output_type="pt").frames, frames)


def test_a_part_handed_over_takes_the_place_of_the_saved_one(tmp_path: Path, pipe: VideoMiraiPipeline) -> None:
    pipe.save_pretrained(tmp_path)
    other = CausalVideoDiT.from_config(pipe.transformer.config)
    assert VideoMiraiPipeline.from_pretrained(tmp_path, transformer=other).transformer is other


def test_lower_precision_reaches_the_networks_but_not_the_latents_statistics(tmp_path: Path) -> None:
    make_pipeline("per-frame").save_pretrained(tmp_path)
    loaded = VideoMiraiPipeline.from_pretrained(tmp_path, torch_dtype=torch.bfloat16)
    loaded.set_progress_bar_config(disable=True)
    assert loaded.transformer.dtype == loaded.codec.autoencoder.dtype == torch.bfloat16
    assert loaded.codec.mean.dtype == torch.float32
    assert np.isfinite(loaded(random_video(), num_frames=2, seed=3, output_type="np").frames).all()


def test_a_repository_of_the_hub_is_fetched_whole(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    pipe = make_pipeline("per-frame")
    pipe.save_pretrained(tmp_path)
    asked = []

    def fetch(repository: str, **options: Any) -> str:
        asked.append((repository, options))
        return str(tmp_path)

    monkeypatch.setattr("video_mirai.pipeline.snapshot_download", fetch)
    loaded = VideoMiraiPipeline.from_pretrained("someone/something", revision="v2", torch_dtype=torch.float32)
    assert asked == [("someone/something", {"revision": "v2", "force_download": False})]
    assert loaded.codec.fingerprint() == pipe.codec.fingerprint()


def test_a_repository_in_the_local_cache_is_read_without_a_network(tmp_path: Path) -> None:
    pipe = make_pipeline("per-frame")
    repository = tmp_path / "models--someone--something"
    pipe.save_pretrained(repository / "snapshots" / ("0" * 40))
    (repository / "refs").mkdir()
    (repository / "refs" / "main").write_text("0" * 40)
    loaded = VideoMiraiPipeline.from_pretrained("someone/something", cache_dir=tmp_path, local_files_only=True)
    assert loaded.codec.fingerprint() == pipe.codec.fingerprint()


def test_callback_sees_every_chunk_and_can_stop(pipe: VideoMiraiPipeline) -> None:
    seen = []

    def stop_after_two(pipeline: VideoMiraiPipeline, chunk: int, frames: int, tensors: dict[str, Any]) -> dict:
        seen.append((chunk, frames, *tensors))
        pipeline._interrupt = chunk == 1
        return tensors

    whole = pipe(random_video(), num_frames=8, seed=3, output_type="pt").frames
    part = pipe(random_video(), num_frames=8, seed=3, output_type="pt", callback_on_chunk_end=stop_after_two).frames
    assert seen == [(0, 2, "latents"), (1, 4, "latents")]
    assert torch.equal(part, whole[:, :4])
    streamed = pipe.stream(random_video(), seed=3, output_type="pt", callback_on_chunk_end=stop_after_two)
    assert torch.equal(torch.cat(list(streamed), dim=1), part)


def test_latents_replaced_by_a_callback_are_decoded_and_continued(pipe: VideoMiraiPipeline) -> None:
    def black_first(pipeline: VideoMiraiPipeline, chunk: int, frames: int, tensors: dict[str, Any]) -> dict:
        return {"latents": torch.full_like(tensors["latents"], -1.0)} if chunk == 0 else {}

    options = {"history": random_video(), "num_frames": 6, "output_type": "pt"}
    plain = pipe(seed=3, **options).frames
    changed = pipe(seed=3, callback_on_chunk_end=black_first, **options).frames
    assert changed[:, :2].max() == 0
    assert not torch.equal(changed[:, 2:], plain[:, 2:])
    # As if they had been generated: the same history, the black chunk at its end, and the same noise from there on.
    history = torch.cat([random_video(), changed[:, :2]], dim=1)
    clean = replace(pipe.settings, history_sigma=0.0)  # which draws noise for what it starts from
    changed = pipe(seed=3, callback_on_chunk_end=black_first, settings=clean, **options).frames
    generator = torch.Generator().manual_seed(3)
    pipe(random_video(), num_frames=2, generator=generator, output_type="latent", settings=clean)
    expected = pipe(history, num_frames=4, generator=generator, output_type="pt", settings=clean).frames
    torch.testing.assert_close(changed[:, 2:], expected, atol=1e-5, rtol=0)


def test_latents_of_another_shape_from_a_callback_are_refused(pipe: VideoMiraiPipeline) -> None:
    with pytest.raises(ValueError, match=r"latents: expected \(1, 2, 3, 16, 32\) from the callback, got \(1,\)"):
        pipe(num_frames=2, seed=3, callback_on_chunk_end=lambda *arguments: {"latents": torch.zeros(1)})


def steering(new: Tensor, at_chunk: int) -> Callable[..., dict]:
    def steer(pipeline: VideoMiraiPipeline, chunk: int, frames: int, tensors: dict[str, Any]) -> dict:
        return {"context": new} if chunk == at_chunk else tensors

    return steer


@pytest.mark.parametrize("per_frame", [False, True])
def test_context_replaced_by_a_callback_steers_from_the_next_chunk_on(
    text_pipe: VideoMiraiPipeline, per_frame: bool
) -> None:
    before, after = contexts()
    options = {"num_frames": 8, "seed": 3, "output_type": "latent", "callback_on_chunk_end_tensor_inputs": ["context"]}
    first = before[:, None].expand(-1, 5 + 4, -1, -1) if per_frame else before
    second = after[:, None].expand(-1, 4, -1, -1) if per_frame else after
    steered = text_pipe(
        random_video(), context=first, callback_on_chunk_end=steering(second, at_chunk=1), **options
    ).frames
    plain = text_pipe(
        random_video(), context=before[:, None].expand(-1, 13, -1, -1) if per_frame else before, **options
    ).frames
    assert torch.equal(steered[:, :4], plain[:, :4])
    assert not torch.equal(steered[:, 4:6], plain[:, 4:6])
    given = torch.cat([before[:, None].expand(-1, 9, -1, -1), after[:, None].expand(-1, 4, -1, -1)], dim=1)
    whole = text_pipe(random_video(), context=given, **options).frames
    torch.testing.assert_close(steered, whole, atol=1e-5, rtol=1e-5)


def test_replacing_the_context_by_its_equal_changes_nothing(text_pipe: VideoMiraiPipeline) -> None:
    (context,) = contexts(1)
    options = {"num_frames": 6, "seed": 3, "output_type": "latent", "context": context}
    same = text_pipe(random_video(), callback_on_chunk_end=steering(context.clone(), at_chunk=0), **options).frames
    torch.testing.assert_close(same, text_pipe(random_video(), **options).frames, atol=1e-5, rtol=1e-5)


def test_a_callback_class_of_diffusers_says_itself_which_tensors_it_gets(text_pipe: VideoMiraiPipeline) -> None:
    class Recorder(PipelineCallback):
        tensor_inputs = ("context", "latents")
        seen: tuple = ()

        def callback_fn(self, pipeline: Any, step_index: int, timesteps: int, callback_kwargs: dict) -> dict:
            Recorder.seen += (tuple(callback_kwargs),)
            return callback_kwargs

    (context,) = contexts(1)
    text_pipe(num_frames=4, seed=3, context=context, callback_on_chunk_end=Recorder())
    assert Recorder.seen == (("context", "latents"),) * 2


def test_guidance_on_the_context_is_that_of_rollout(text_pipe: VideoMiraiPipeline) -> None:
    context, null = contexts()
    options = {"num_frames": 2, "seed": 3, "output_type": "latent", "context": context}
    guided = text_pipe(random_video(), guidance_scale=3.0, null_context=null, **options).frames
    settings = replace(SETTINGS, guidance=GuidanceConfig(context_scale=3.0))
    history, generator = 2 * random_video() - 1, [torch.Generator().manual_seed(3)]
    chunks = rollout(text_pipe.transformer, history, settings, generator, context=context, null_context=null)
    assert torch.equal(guided, next(chunks))
    assert not torch.equal(guided, text_pipe(random_video(), **options).frames)


def test_number_of_steps_and_other_settings_replace_the_pipelines_own(pipe: VideoMiraiPipeline) -> None:
    options = {"num_frames": 2, "seed": 3, "output_type": "latent"}
    eight = replace(SETTINGS, num_steps=8)
    by_number = pipe(random_video(), num_inference_steps=8, **options).frames
    assert torch.equal(by_number, pipe(random_video(), settings=eight, **options).frames)
    assert not torch.equal(by_number, pipe(random_video(), **options).frames)
    assert pipe.settings == SETTINGS


def test_a_tuple_is_returned_where_no_output_class_is_wanted(pipe: VideoMiraiPipeline) -> None:
    (frames,) = pipe(num_frames=1, seed=3, return_dict=False)
    assert [len(video) for video in frames] == [1]


def test_progress_counts_chunks_on_diffusers_own_bar(
    pipe: VideoMiraiPipeline, capsys: pytest.CaptureFixture[str]
) -> None:
    pipe.set_progress_bar_config(desc="rollout")
    pipe(num_frames=5, seed=3)
    pipe.set_progress_bar_config(disable=True)
    assert "rollout: 100%" in (shown := capsys.readouterr().err) and "3/3" in shown


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"num_frames": 0}, r"num_frames=0 must be at least 1"),
        ({"num_inference_steps": 0}, r"num_inference_steps=0 must be at least 1"),
        ({"output_type": "mp4"}, r"unknown output_type 'mp4'; known: pil, np, pt, latent"),
        ({"history": torch.zeros(1, 2, 3, 8, 8)}, r"history: frames of \(3, 16, 32\) are needed.*got \(3, 8, 8\)"),
        ({"history": torch.full((1, 2, 3, HEIGHT, WIDTH), -0.5)}, r"history: floats have to lie in \[0, 1\]"),
        ({"history": torch.full((1, 2, 3, HEIGHT, WIDTH), torch.nan)}, r"history: floats have to lie in \[0, 1\]"),
        ({"history": []}, r"history: .*none empty"),
        ({"history": [torch.zeros(n, 3, HEIGHT, WIDTH) for n in (1, 2)]}, r"history: videos of one size and length"),
        ({"history": "clip.mp4"}, r"incorrect format"),
        ({"history_latents": torch.zeros(1, 2, 3, 8, 8)}, r"history_latents: expected \(B, F, 3, 16, 32\), got"),
        ({"history": random_video(), "history_latents": random_video()}, r"give history or history_latents, not both"),
        ({"context": torch.zeros(1, 3, TEXT_DIM)}, r"takes no context, got \(1, 3, 20\)"),
        ({"seed": 1, "generator": torch.Generator()}, r"give seed or generator, not both"),
        ({"history": random_video(2), "generator": [torch.Generator()]}, r"1 generators for 2 videos"),
        (
            {"callback_on_chunk_end": dict, "callback_on_chunk_end_tensor_inputs": ["prompt_embeds"]},
            r"tensor_inputs=\['prompt_embeds'\]; known: latents, context",
        ),
    ],
)
def test_a_mistake_is_one_line(pipe: VideoMiraiPipeline, options: dict[str, Any], message: str) -> None:
    with pytest.raises(ValueError, match=message) as caught:
        pipe(**{"num_frames": 2} | options)
    assert "\n" not in str(caught.value)
    if "num_frames" not in options:
        with pytest.raises(ValueError, match=message):  # at the call, not at the first frame
            pipe.stream(**options)


@pytest.mark.parametrize(
    ("context", "message"),
    [
        (None, r"takes a context of width 20, got None"),
        (torch.zeros(1, 3, 7), r"context: expected \(1, L, 20\) or \(1, F, L, 20\), got \(1, 3, 7\)"),
        (torch.zeros(2, 3, TEXT_DIM), r"context: expected \(1, L, 20\)"),
        (torch.zeros(1, 6, 3, TEXT_DIM), r"context: given for 6 latent frames, but 9 are needed"),
    ],
)
def test_a_context_that_does_not_fit_is_one_line(
    text_pipe: VideoMiraiPipeline, context: Tensor | None, message: str
) -> None:
    with pytest.raises(ValueError, match=message):
        text_pipe(random_video(), num_frames=3, context=context)


@pytest.mark.parametrize(
    ("rollout_settings", "clips", "message"),
    [
        (None, {"height": 8, "width": 8, "fps": 1}, r"give rollout settings and clips"),
        ({}, {"height": 8, "width": 8}, r"give rollout settings and clips of a height, width and fps"),
        ({"warp": 9}, {"height": 8, "width": 8, "fps": 1}, r"unknown rollout settings \['warp'\].*newer"),
        ({"guidance": {"x": 9}}, {"height": 8, "width": 8, "fps": 1}, r"unknown rollout settings \['x'\].*newer"),
    ],
)
def test_a_pipeline_knows_how_and_what_its_transformer_generates(
    rollout_settings: dict | None, clips: dict, message: str
) -> None:
    with pytest.raises(ValueError, match=message):
        VideoMiraiPipeline(tiny_model(), PixelsCodec(), rollout_settings, clips)


@pytest.mark.slow
def test_the_examples_of_the_documentation_run(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    text = (REPOSITORY / "docs" / "pipeline.md").read_text()
    monkeypatch.chdir(tmp_path)
    known: dict[str, Any] = {}
    for example in re.findall(r"```python\n(.*?)```", text, re.DOTALL):
        exec(example, known)
    assert (tmp_path / "long.mp4").stat().st_size > 0
