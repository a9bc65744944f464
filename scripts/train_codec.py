"""Train a small per-frame codec on your own videos."""

from pathlib import Path

from _cli import add_config_arguments, log_to_stderr, make_parser, parse_device, run_script

DESCRIPTION = """Train a small per-frame codec (one of diffusers' autoencoder classes) on your own videos.

Writes the folder output_dir: config.json and weights, latent statistics, the training's settings, and a report on
held-out videos (report.json, report.png). Use it as codec.kind=diffusers codec.path=OUTPUT_DIR."""
EXAMPLE = "python scripts/train_codec.py --config configs/codec/tiny64.yaml data.root=my_videos output_dir=data/codec"
HELD_OUT_SHARE = 8  # of the memory for training frames, the part of one in so many goes to held-out ones


def main() -> None:
    """Parse, read frames, train, report."""
    parser = make_parser(DESCRIPTION, EXAMPLE)
    add_config_arguments(parser)
    parser.add_argument("--overwrite", action="store_true", help="replace a codec that is already in output_dir")
    arguments = parser.parse_intermixed_args()

    # Below, because these imports take seconds and --help needs none.
    from dataclasses import asdict, replace

    from video_mirai.config import load_config, save_config
    from video_mirai.data.output_folder import make_output_folder
    from video_mirai.data.video_folder import VideoFolder
    from video_mirai.training.codec_report import report_codec, write_report
    from video_mirai.training.codec_trainer import (
        CodecDiverged,
        CodecTrainConfig,
        check_codec_config,
        read_frames,
        train_codec,
    )

    config = load_config(CodecTrainConfig, arguments.config, arguments.overrides)
    check_codec_config(config)
    parse_device(config.device)
    output_dir = Path(config.output_dir)
    if (output_dir / "config.json").exists() and not arguments.overwrite:
        raise ValueError(f"{output_dir} already holds a codec; name another output_dir or pass --overwrite.")
    log_to_stderr()
    pool_bytes = config.pool_megabytes * 2**20
    held_out_set = VideoFolder(**asdict(replace(config.data, split="val")))
    train_set = VideoFolder(**asdict(config.data))
    make_output_folder(output_dir)
    frames = read_frames(train_set, pool_bytes, config.seed)
    held_out = read_frames(held_out_set, pool_bytes // HELD_OUT_SHARE, config.seed)
    print(f"{len(frames)} frames to train on, {len(held_out)} held out")
    try:
        codec = train_codec(config, frames)
    except CodecDiverged as error:
        raise SystemExit(f"error: {error}") from error  # exit code 1
    codec.save_pretrained(output_dir)
    save_config(config, output_dir / "train_codec.yaml")
    report = report_codec(codec, held_out)
    write_report(output_dir, codec, held_out, report)
    print(
        f"{output_dir}: {report.psnr:.2f} dB on {report.num_frames} held-out frames (worst tenth below "
        f"{report.psnr_p10:.2f}; {report.psnr_noisy:.2f} with noisy latents), {report.num_parameters / 1e6:.2f} M "
        f"parameters, decodes {report.decode_fps:.0f} frames/s"
    )


if __name__ == "__main__":
    run_script(main)
