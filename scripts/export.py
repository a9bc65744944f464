"""Export the averaged student of a run that has not finished, from its newest or a given checkpoint."""

from pathlib import Path

from _cli import log_to_stderr, make_parser, run_script


def main() -> None:
    """Read a checkpoint, write the export."""
    parser = make_parser(
        "Write RUN/export/ from a checkpoint of a run, as the end of its training does, and prove that it costs what\n"
        "a student trained without foresight costs.",
        "python scripts/export.py --run runs/scenes_tiny",
    )
    parser.add_argument("--run", required=True, type=Path, metavar="RUN", help="run folder")
    parser.add_argument("--checkpoint", type=Path, metavar="PATH", help="a checkpoint of it; default: the newest")
    parser.add_argument("--out", type=Path, metavar="DIR", help="write DIR/export/ instead, and leave RUN as it is")
    arguments = parser.parse_args()

    # Below, because these imports take seconds and --help needs none.
    from video_mirai import build

    log_to_stderr()
    print(f"exported to {build.export_checkpoint(arguments.run, arguments.checkpoint, arguments.out)}")


if __name__ == "__main__":
    run_script(main)
