"""Encoding a folder of videos, and clips cut from the result."""

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import imageio.v2 as imageio
import numpy as np
import pytest
import torch
from diffusers import AutoencoderKLWan, AutoencoderTiny
from text_encoders import write_text_encoder

import encode_latents
import latent_encoding
from video_mirai.data.batch import ClipKey
from video_mirai.data.latent_index import index_of, list_shards
from video_mirai.data.latent_shards import LatentShards, read_samples
from video_mirai.data.video_folder import VideoFolder
from video_mirai.data.video_list import write_manifest
from video_mirai.models.autoencoders import LatentStats
from video_mirai.models.codecs import DiffusersCodec, load_codec

Encode = Callable[..., str]

CAPTIONS = ("a red door opens", "a blue door closes", "two doors", "")
MAX_TOKENS = 6


def write_video(path: Path, num_frames: int, seed: int) -> None:
    """Patches of grey that change from frame to frame; 64x64, at 8 frames per second."""
    patches = np.random.default_rng(seed).integers(0, 255, (num_frames, 4, 4, 3))
    frames = patches.repeat(16, axis=1).repeat(16, axis=2).astype(np.uint8)
    path.parent.mkdir(parents=True, exist_ok=True)
    imageio.mimwrite(path, frames, fps=8, macro_block_size=1)


def write_codec(folder: Path, seed: int = 0) -> None:
    torch.manual_seed(seed)
    tiny = AutoencoderTiny(
        encoder_block_out_channels=(4, 4),
        decoder_block_out_channels=(4, 4),
        num_encoder_blocks=(0, 1),
        num_decoder_blocks=(1, 0),
        latent_channels=5,
    )
    DiffusersCodec(tiny, LatentStats(torch.zeros(5), torch.ones(5))).save_pretrained(folder)


@pytest.fixture(scope="module")
def sources(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Videos of 7, 8, 9, 10 frames in two folders."""
    root = tmp_path_factory.mktemp("sources") / "videos"
    for number in range(4):
        write_video(root / f"sub{number % 2}" / f"{number}.mp4", 7 + number, seed=number)
    return root


@pytest.fixture
def videos(sources: Path, tmp_path: Path) -> Path:
    """The videos, linked into a folder that a test may add to; links are read as files are."""
    for path in sources.rglob("*.mp4"):
        link = tmp_path / "videos" / path.relative_to(sources)
        link.parent.mkdir(parents=True, exist_ok=True)
        link.hardlink_to(path)
    return tmp_path / "videos"


@pytest.fixture
def codec(tmp_path: Path) -> Path:
    write_codec(tmp_path / "codec")
    return tmp_path / "codec"


@pytest.fixture
def encode(videos: Path, codec: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> Encode:
    """Runs the tool in this process; what it printed, or its complaint after asserting the exit code."""

    def run(*more: str, exit_code: int = 0, out: str = "latents") -> str:
        places = ("--videos", str(videos), "--codec", str(codec), "--out", str(tmp_path / out))
        assert encode_latents.main([*places, "--height", "32", "--width", "64", "--processes", "1", *more]) == exit_code
        printed = capsys.readouterr()
        return printed.err.splitlines()[-1] if exit_code else printed.out + printed.err

    return run


def contents(folder: Path) -> dict[str, bytes]:
    return {path.name: path.read_bytes() for path in sorted(folder.iterdir()) if path.name != ".lock"}


def test_clips_are_the_encoded_clips_of_the_video_folder(encode: Encode, videos: Path, codec: Path) -> None:
    encode("--dtype", "float32", "--samples-per-shard", "3")
    shared: dict[str, Any] = {"split": "all", "clips_per_video": 2, "seed": 3}
    pixels = VideoFolder(videos, 4, height=32, width=64, **shared)
    latents = LatentShards(codec.parent / "latents", 4, **shared)
    assert len(latents) == len(pixels) == 8
    assert latents.fps == pytest.approx(pixels.fps)
    for index in range(8):
        clip, expected = latents[ClipKey(1, index)], pixels[ClipKey(1, index)]
        assert (clip["name"], clip["index"]) == (expected["name"], expected["index"])
        torch.testing.assert_close(clip["latents"], load_codec(codec).encode(expected["video"][None])[0])


def test_splits_are_those_of_the_video_folder(encode: Encode, videos: Path, codec: Path) -> None:
    encode()
    for split in ("train", "val", "test"):
        shared: dict[str, Any] = {"split": split, "val_fraction": 0.3, "test_fraction": 0.3, "seed": 1}
        names = []
        for dataset, root in ((VideoFolder, videos), (LatentShards, codec.parent / "latents")):
            try:
                made = dataset(root, 4, **shared)
                names.append([made.clip_name(index) for index in range(len(made))])
            except ValueError as error:
                assert "split" in str(error)
                names.append([])
        assert names[0] == names[1]


def test_a_second_run_encodes_only_what_is_new_or_changed(encode: Encode, videos: Path, codec: Path) -> None:
    out = codec.parent / "latents"
    assert "4 videos encoded, 0 were there" in encode()
    before = contents(out)
    assert "0 videos encoded, 4 were there" in encode()
    assert contents(out) == before

    write_video(videos / "new.mp4", 5, seed=9)
    assert "1 videos encoded, 4 were there" in encode()
    assert {name: content for name, content in contents(out).items() if name in before} == before
    assert [path.name for path in list_shards(out)] == ["shard-000000.tar", "shard-000001.tar"]

    (videos / "sub1" / "1.mp4").unlink()  # a hard link: the original stays
    write_video(videos / "sub1" / "1.mp4", 20, seed=10)
    assert "1 videos encoded, 4 were there" in encode()
    lengths = {sample.header.name: sample.header.num_frames for sample in read_samples(out)}
    assert lengths == {"new.mp4": 5, "sub0/0.mp4": 7, "sub0/2.mp4": 9, "sub1/1.mp4": 20, "sub1/3.mp4": 10}

    printed = encode("--fps", "5")
    assert "5 videos were encoded otherwise before" in printed and "5 videos encoded, 0 were there" in printed
    assert {sample.header.fps for sample in read_samples(out)} == {5}
    assert len(list_shards(out)) == 1  # nothing of what was replaced is left


def test_an_interrupted_run_goes_on_and_ends_as_one_that_was_not(
    encode: Encode, codec: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    settings = ("--samples-per-shard", "1")
    encode(*settings, out="whole")
    encoded = []
    real = encode_latents.encode_on_one_thread

    def interrupted(task: latent_encoding.EncodeTask) -> str:
        if len(encoded) == 2:
            raise KeyboardInterrupt
        encoded.append(task.video.name)
        return real(task)

    monkeypatch.setattr(encode_latents, "encode_on_one_thread", interrupted)
    assert "run the same command again to go on" in encode(*settings, exit_code=130)
    assert len(list_shards(codec.parent / "latents")) == 2
    monkeypatch.setattr(encode_latents, "encode_on_one_thread", real)
    (codec.parent / "latents" / ".shard-000002.tar.1.unfinished").write_bytes(b"killed while it wrote")
    assert "2 videos encoded, 2 were there" in encode(*settings)
    assert contents(codec.parent / "latents") == contents(codec.parent / "whole")


def test_the_number_of_processes_does_not_change_a_byte(encode: Encode, codec: Path) -> None:
    settings = ("--samples-per-shard", "3")
    encode(*settings, "--processes", "1", out="one")
    encode(*settings, "--processes", "2", out="two")
    assert contents(codec.parent / "one") == contents(codec.parent / "two")


def test_a_damaged_shard_is_set_aside_and_its_videos_encoded_anew(encode: Encode, codec: Path) -> None:
    out = codec.parent / "latents"
    encode("--samples-per-shard", "2")
    before = contents(out)
    first = list_shards(out)[0]
    first.write_bytes(first.read_bytes()[:1000])
    assert "2 videos encoded, 2 were there" in encode("--samples-per-shard", "2")
    after = contents(out)
    assert after.pop("shard-000000.tar.damaged") == before["shard-000000.tar"][:1000]
    assert after == before


def test_a_lost_index_is_written_anew(encode: Encode, codec: Path) -> None:
    out = codec.parent / "latents"
    encode()
    before = contents(out)
    index_of(list_shards(out)[0]).unlink()
    assert "0 videos encoded, 4 were there" in encode()
    assert contents(out) == before
    index_of(list_shards(out)[0]).write_text("{")
    assert "index written anew" in encode()
    assert contents(out) == before


def test_verify_says_what_is_damaged(encode: Encode, codec: Path, capsys: pytest.CaptureFixture[str]) -> None:
    out = codec.parent / "latents"
    encode("--samples-per-shard", "2")
    assert encode_latents.main(["--verify", "--out", str(out)]) == 0
    assert "2 shards with 4 samples, everything as it was written" in capsys.readouterr().out
    shard = list_shards(out)[1]
    content = bytearray(shard.read_bytes())
    content[len(content) // 3] ^= 1
    shard.write_bytes(content)
    assert encode_latents.main(["--verify", "--out", str(out)]) == 2
    complaint = capsys.readouterr().err.splitlines()[-1]
    assert "1 problems in 2 shards" in complaint and "shard-000001.tar" in complaint


def test_a_float16_sample_is_half_as_large_and_nearly_the_same(encode: Encode, codec: Path) -> None:
    clips = []
    for dtype in ("float16", "float32"):
        encode("--dtype", dtype, out=dtype)
        clips.append(LatentShards(codec.parent / dtype, 4, split="all")[0]["latents"])
    torch.testing.assert_close(*clips, atol=2e-3, rtol=2e-3)
    assert not torch.equal(*clips)


def test_unreadable_videos_are_named_and_too_many_are_an_error(encode: Encode, videos: Path) -> None:
    (videos / "broken.mp4").write_bytes(b"no video")
    printed = encode("--max-bad-fraction", "0.5")
    assert "4 videos encoded, 0 were there, 1 unreadable" in printed
    assert "broken.mp4: not a readable video" in printed
    complaint = encode(exit_code=2)
    assert "1 of 5 videos cannot be read" in complaint and "broken.mp4" in complaint


def test_pieces_of_a_manifest_become_samples_of_their_own_frames(encode: Encode, videos: Path, codec: Path) -> None:
    manifest = videos / "pieces.jsonl"
    write_manifest(
        manifest,
        [
            {"path": "sub0/0.mp4", "first_frame": 0, "end_frame": 3},
            {"path": "sub0/0.mp4", "first_frame": 3, "end_frame": 7},
            {"path": "sub1/1.mp4", "verdict": "bad", "reason": "static"},
        ],
    )
    encode("--videos", str(manifest), "--dtype", "float32", out="pieces")
    encode("--dtype", "float32", out="whole")
    pieces = read_samples(codec.parent / "pieces")
    assert [(s.header.name, s.header.source, s.header.num_frames) for s in pieces] == [
        ("sub0/0.mp4#0-3", "sub0/0.mp4", 3),
        ("sub0/0.mp4#3-7", "sub0/0.mp4", 4),
    ]
    whole = LatentShards(codec.parent / "whole", 7, split="all")
    first = next(whole[index] for index in range(len(whole)) if whole.clip_name(index) == "sub0/0.mp4")
    piece = LatentShards(codec.parent / "pieces", 4, split="all")[0]
    torch.testing.assert_close(piece["latents"], first["latents"][3:7])
    assert "has frames of sub0/0.mp4#0-3, which is" in encode("--videos", str(manifest), out="whole", exit_code=2)


def test_captions_become_embeddings(encode: Encode, sources: Path, videos: Path, codec: Path) -> None:
    pipeline = codec.parent / "pipeline"
    write_text_encoder(pipeline, CAPTIONS)
    for caption, path in zip(CAPTIONS, sorted(videos.rglob("*.mp4"), key=lambda path: path.name), strict=True):
        path.with_suffix(".txt").write_text(caption)
    settings = ("--captions", "sidecar", "--text-encoder", str(pipeline / "text_encoder"), "--max-tokens", "6")
    assert "1 of 4 videos have no caption and count as the empty text" in encode(*settings, "--dtype", "float32")
    dataset = LatentShards(codec.parent / "latents", 4, split="all")
    clips = {clip["name"]: clip for clip in (dataset[index] for index in range(4))}

    from transformers import AutoTokenizer, T5EncoderModel

    tokenizer = AutoTokenizer.from_pretrained(pipeline / "tokenizer")
    model = T5EncoderModel.from_pretrained(pipeline / "text_encoder").eval()
    for number, caption in enumerate(CAPTIONS):
        clip = clips[f"sub{number % 2}/{number}.mp4"]
        assert clip["caption"] == caption and clip["context"].shape == (MAX_TOKENS, 8)
        tokens = tokenizer(caption, return_tensors="pt")["input_ids"]
        with torch.no_grad():
            expected = model(tokens).last_hidden_state[0]
        torch.testing.assert_close(clip["context"][: tokens.shape[1]], expected)
        assert not clip["context"][tokens.shape[1] :].any()

    videos.joinpath("sub0", "0.txt").write_text("two doors")
    assert "1 videos encoded, 3 were there" in encode(*settings, "--dtype", "float32")
    assert not list(sources.rglob("*.txt"))


def test_actions_and_classes_are_stored(encode: Encode, videos: Path, codec: Path) -> None:
    for path in videos.rglob("*.mp4"):
        lines = [json.dumps({"frame": frame, "turn": frame * 0.5, "fire": frame % 2}) for frame in range(10)]
        num_frames = 7 + int(path.stem)
        path.with_suffix(".jsonl").write_text("\n".join(lines[:num_frames]) + "\n")
    shared: dict[str, Any] = {"split": "all", "seed": 2}
    encode("--actions", "turn", "fire", out="actions")
    pixels = VideoFolder(videos, 4, height=32, width=64, context="actions", actions=["turn", "fire"], **shared)
    latents = LatentShards(codec.parent / "actions", 4, **shared)
    for index in range(4):
        torch.testing.assert_close(latents[index]["context"][1:], pixels[index]["context"][1:])
    encode("--classes", out="classes")
    dataset = LatentShards(codec.parent / "classes", 4, **shared)
    assert dataset.class_names == ("sub0", "sub1")


def test_codecs_that_compress_in_time_are_cut_only_where_a_segment_starts(encode: Encode, codec: Path) -> None:
    torch.manual_seed(0)
    wan = AutoencoderKLWan(base_dim=4, z_dim=2, dim_mult=[1, 1, 1, 1], num_res_blocks=1)
    DiffusersCodec(wan, LatentStats(torch.zeros(2), torch.ones(2))).save_pretrained(codec)
    assert "--clip-frames is needed" in encode(exit_code=2)
    assert "try 5" in encode("--clip-frames", "6", exit_code=2)
    encode("--clip-frames", "5")
    dataset = LatentShards(codec.parent / "latents", 2, split="all", clips_per_video=6)
    assert sorted(sample.header.num_frames for sample in dataset.samples) == [2, 2, 2, 4]  # of 7, 8, 9, 10 frames
    long = [dataset[index]["latents"] for index in range(len(dataset)) if dataset.clip_name(index) == "sub1/3.mp4"]
    assert len({tuple(latents.flatten().tolist()) for latents in long}) == 2
    with pytest.raises(ValueError, match=r"more than the 2 latent frames"):
        LatentShards(codec.parent / "latents", 3, split="all")


def test_long_videos_are_encoded_part_by_part(encode: Encode, codec: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    encode("--dtype", "float32", out="whole")
    monkeypatch.setattr(latent_encoding, "FRAMES_PER_PART", 2)
    encode("--dtype", "float32", out="parts")
    settings: dict[str, Any] = {"split": "all", "num_frames": 7}
    whole, parts = (LatentShards(codec.parent / out, **settings) for out in ("whole", "parts"))
    for index in range(4):
        torch.testing.assert_close(parts[index]["latents"], whole[index]["latents"])


def test_latents_of_another_codec_stay_only_where_the_whole_folder_is_encoded_anew(
    encode: Encode, videos: Path, codec: Path
) -> None:
    encode()
    write_codec(codec, seed=1)
    complaint = encode("--videos", str(videos / "sub0"), exit_code=2)
    assert "holds sub0/0.mp4, which is not in the list and has another codec" in complaint
    assert "4 videos encoded, 0 were there" in encode()
    LatentShards(codec.parent / "latents", 4, split="all").require_codec(load_codec(codec).fingerprint())


def test_two_runs_do_not_write_into_one_folder(encode: Encode, codec: Path) -> None:
    (codec.parent / "latents").mkdir()
    with encode_latents.locked(codec.parent / "latents"):
        assert "another encode_latents is writing into it" in encode(exit_code=2)


@pytest.mark.parametrize(
    ("options", "message"),
    [
        (["--height", "15"], "don't divide"),
        (["--height", "0"], "--height 0 must be positive"),
        (["--clip-frames", "5"], "--clip-frames is for codecs"),
        (["--codec", "nowhere"], "does not exist"),
        (["--videos", "nowhere"], "nowhere"),
        (["--fps", "-1"], "--fps -1 must be above 0"),
        (["--device", "abacus"], "--device 'abacus' cannot be used here"),
        (["--samples-per-shard", "0"], "--samples-per-shard 0 must be positive"),
        (["--processes", "-2"], "--processes -2 must be positive"),
        (["--max-bad-fraction", "2"], "--max-bad-fraction 2 must be from 0 to 1"),
        (
            ["--text-encoder", "nowhere", "--captions", "folder"],
            "nowhere: no folder with a config.json",
        ),
        (["--captions", "sidecar"], "caption"),
        (["--actions", "turn"], "actions"),
    ],
)
def test_wrong_settings_end_with_one_line(encode: Encode, options: list[str], message: str) -> None:
    complaint = encode(*options, exit_code=2)
    assert complaint.startswith("encode_latents: ") and message in complaint


def test_a_text_encoder_whose_weights_must_be_unpickled_is_refused(encode: Encode, codec: Path) -> None:
    pipeline = codec.parent / "pipeline"
    write_text_encoder(pipeline, CAPTIONS)
    (pipeline / "text_encoder" / "model.safetensors").unlink()
    torch.save({}, pipeline / "text_encoder" / "pytorch_model.bin")
    complaint = encode("--captions", "folder", "--text-encoder", str(pipeline / "text_encoder"), exit_code=2)
    assert "weights that must be unpickled are not read" in complaint
