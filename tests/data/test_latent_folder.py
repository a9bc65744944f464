"""Encoding a folder of videos, and clips cut from the result."""

import os
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path

import pytest
import torch
from diffusers import AutoencoderKLWan, AutoencoderTiny

import encode_latents
from video_mirai.data.batch import ClipKey
from video_mirai.data.latent_folder import LatentFolder, LatentHeader, read_header, write_latents
from video_mirai.data.video_folder import VideoFolder
from video_mirai.data.video_list import write_manifest
from video_mirai.models.autoencoders import LatentStats
from video_mirai.models.codecs import DiffusersCodec, load_codec

MakeVideo = Callable[..., Path]
HEADER = LatentHeader("abc", 8.0, 16, 32, "clip.mp4", 100, 6, 0, False)


@pytest.fixture
def videos(make_video: MakeVideo) -> Path:
    paths = [make_video(f"videos/sub{number % 2}/{number}.mp4", num_frames=7 + number) for number in range(4)]
    return paths[0].parents[1]


@pytest.fixture
def codec(tmp_path: Path) -> Path:
    torch.manual_seed(0)
    tiny = AutoencoderTiny(
        encoder_block_out_channels=(4, 4),
        decoder_block_out_channels=(4, 4),
        num_encoder_blocks=(0, 1),
        num_decoder_blocks=(1, 0),
        latent_channels=5,
    )
    DiffusersCodec(tiny, LatentStats(torch.zeros(5), torch.ones(5))).save_pretrained(tmp_path / "codec")
    return tmp_path / "codec"


@pytest.fixture
def encode(videos: Path, codec: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> Callable[..., str]:
    """Runs the tool; what it printed, or its complaint after asserting exit code 2."""

    def run(*more: str, exit_code: int = 0) -> str:
        size = ("--height", "16", "--width", "32")
        places = ("--videos", str(videos), "--codec", str(codec), "--out", str(tmp_path / "latents"))
        assert encode_latents.main([*places, *size, *more]) == exit_code
        printed = capsys.readouterr()
        return printed.err.splitlines()[-1] if exit_code else printed.out

    return run


def write_files(root: Path, *headers: LatentHeader) -> Path:
    for number, header in enumerate(headers):
        latents = torch.arange(header.num_frames).float().view(-1, 1, 1, 1).expand(-1, 2, 3, 3)
        write_latents(root / f"{number}.safetensors", latents, header)
    return root


def test_clips_are_the_encoded_clips_of_the_video_folder(encode: Callable[..., str], videos: Path, codec: Path) -> None:
    encode("--dtype", "float32")
    settings = {"split": "all", "clips_per_video": 2, "seed": 3}
    pixels = VideoFolder(videos, 4, height=16, width=32, **settings)
    latents = LatentFolder(codec.parent / "latents", 4, **settings)
    assert len(latents) == len(pixels) == 8
    assert latents.fps == pytest.approx(pixels.fps)
    for index in range(8):
        clip, expected = latents[ClipKey(1, index)], pixels[ClipKey(1, index)]
        assert (clip["name"], clip["index"]) == (expected["name"], expected["index"])
        torch.testing.assert_close(clip["latents"], load_codec(codec).encode(expected["video"][None])[0])


def test_splits_are_those_of_the_video_folder(encode: Callable[..., str], videos: Path, codec: Path) -> None:
    encode()
    for split in ("train", "val", "test"):
        settings = {"split": split, "val_fraction": 0.3, "test_fraction": 0.3, "seed": 0}
        names = []
        for make in (
            lambda s=settings: VideoFolder(videos, 4, **s),
            lambda s=settings: LatentFolder(codec.parent / "latents", 4, **s),
        ):
            try:
                dataset = make()
                names.append([dataset[index]["name"] for index in range(len(dataset))])
            except ValueError:
                names.append([])
        assert names[0] == names[1]


def test_a_second_run_encodes_only_what_is_new_or_changed(
    encode: Callable[..., str], videos: Path, codec: Path, make_video: MakeVideo
) -> None:
    assert "4 videos encoded, 0 were there" in encode()
    out = codec.parent / "latents"
    (out / "sub0" / "0.mp4.safetensors").write_bytes(b"cut off")
    make_video("videos/sub1/1.mp4", num_frames=20)
    make_video("videos/new.mp4", num_frames=5)
    assert "3 videos encoded, 2 were there" in encode()
    assert not [path for path in out.rglob("*") if path.name.endswith(".unfinished")]
    assert "5 videos encoded, 0 were there" in encode("--fps", "5")
    assert read_header(out / "new.mp4.safetensors").fps == 5


def test_unreadable_videos_are_named_and_too_many_are_an_error(encode: Callable[..., str], videos: Path) -> None:
    (videos / "broken.mp4").write_bytes(b"no video")
    assert "1 unreadable" in encode("--max-bad-fraction", "0.5")
    message = encode(exit_code=2)
    assert "1 of 5 videos cannot be read" in message
    assert "broken.mp4: not a readable video" in message


def test_codecs_that_compress_in_time_are_cut_only_where_a_segment_starts(
    encode: Callable[..., str], codec: Path
) -> None:
    torch.manual_seed(0)
    wan = AutoencoderKLWan(base_dim=4, z_dim=2, dim_mult=[1, 1, 1, 1], num_res_blocks=1)
    DiffusersCodec(wan, LatentStats(torch.zeros(2), torch.ones(2))).save_pretrained(codec)
    assert "--clip-frames is needed" in encode(exit_code=2)
    assert "try 5" in encode("--clip-frames", "6", exit_code=2)
    encode("--clip-frames", "5")
    dataset = LatentFolder(codec.parent / "latents", 2, split="all", clips_per_video=6)
    assert {read_header(path).num_frames for path in dataset.files} == {2, 4}  # 7, 8, 9 frames; 10 frames
    starts = {tuple(dataset[index]["latents"].flatten().tolist()) for index in range(len(dataset))}
    assert len(starts) == 2  # all videos begin alike; only the longest has a second segment
    with pytest.raises(ValueError, match=r"more than the 2 latent frames"):
        LatentFolder(codec.parent / "latents", 3, split="all")


def test_settings_that_do_not_fit_the_codec_are_refused(encode: Callable[..., str]) -> None:
    assert "don't divide" in encode("--height", "15", exit_code=2)
    assert "--clip-frames is for codecs" in encode("--clip-frames", "5", exit_code=2)
    assert "does not exist" in encode("--codec", "nowhere", exit_code=2)


def test_long_videos_are_encoded_part_by_part(
    encode: Callable[..., str], codec: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    encode("--dtype", "float32")
    out = codec.parent / "latents"
    whole = LatentFolder(out, 7, split="val", val_fraction=0.9, test_fraction=0)[0]
    os.replace(out, codec.parent / "whole")
    monkeypatch.setattr(encode_latents, "FRAMES_PER_READ", 2)
    encode("--dtype", "float32")
    parts = LatentFolder(out, 7, split="val", val_fraction=0.9, test_fraction=0)[0]
    torch.testing.assert_close(parts["latents"], whole["latents"])


def test_a_clip_depends_only_on_seed_epoch_and_index(tmp_path: Path) -> None:
    root = write_files(tmp_path, replace(HEADER, num_frames=50))
    first, second = (LatentFolder(root, 4, split="all", clips_per_video=8) for _ in range(2))
    clips = [first[ClipKey(epoch, index)]["latents"][0, 0, 0, 0].item() for epoch in range(2) for index in range(8)]
    again = [second[ClipKey(epoch, index)]["latents"][0, 0, 0, 0].item() for epoch in (1, 0) for index in range(8)]
    assert clips == again[8:] + again[:8]
    assert len(set(clips)) > 4


@pytest.mark.parametrize(
    ("change", "message"),
    [({"codec": "other"}, "codec=other"), ({"height": 64}, "height=64"), ({"fps": 30.0}, r"fps=30\.0")],
)
def test_mixed_folders_are_refused(change: dict[str, object], message: str, tmp_path: Path) -> None:
    root = write_files(tmp_path, HEADER, replace(HEADER, name="other.mp4", **change))
    with pytest.raises(ValueError, match=message):
        LatentFolder(root, 2)


def test_frame_rates_that_differ_by_rounding_go_together(tmp_path: Path) -> None:
    root = write_files(tmp_path, HEADER, replace(HEADER, name="other.mp4", fps=8.001))
    assert len(LatentFolder(root, 2, split="all")) == 2


def test_another_codec_is_refused(tmp_path: Path) -> None:
    dataset = LatentFolder(write_files(tmp_path, HEADER), 2, split="all")
    dataset.require_codec("abc")
    with pytest.raises(ValueError, match="encoded by codec abc, but this run's codec is xyz"):
        dataset.require_codec("xyz")


def test_bad_folders_and_files_are_named(tmp_path: Path) -> None:
    with pytest.raises(FileNotFoundError, match="no such folder"):
        LatentFolder(tmp_path / "nowhere", 2)
    with pytest.raises(ValueError, match="no latents in this folder"):
        LatentFolder(tmp_path, 2)
    write_files(tmp_path, HEADER)
    with pytest.raises(ValueError, match=r"no file of at least 7 latent frames"):
        LatentFolder(tmp_path, 7, split="all")
    with pytest.raises(ValueError, match="split='dev' is unknown"):
        LatentFolder(tmp_path, 2, split="dev")
    (tmp_path / "zero.safetensors").write_bytes(b"")
    with pytest.raises(ValueError, match=r"zero\.safetensors: not a readable latent file"):
        LatentFolder(tmp_path, 2)


def test_a_manifest_of_pieces_is_refused(encode: Callable[..., str], videos: Path) -> None:
    write_manifest(videos / "pieces.jsonl", [{"path": "sub0/0.mp4", "first_frame": 0, "end_frame": 4}])
    complaint = encode("--videos", str(videos / "pieces.jsonl"), exit_code=2)
    assert "lists pieces of videos" in complaint and "sub0/0.mp4#0-4" in complaint
