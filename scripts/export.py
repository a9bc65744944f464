"""Export the averaged student of a run from its newest checkpoint, or from given ones."""

from pathlib import Path

from _cli import log_to_stderr, make_parser, run_script

NEWEST = "newest"


def main() -> None:
    """Read a checkpoint, write the export."""
    parser = make_parser(
        "Write RUN/export/ from a checkpoint of a run, as the end of its training does, and prove that it costs what\n"
        "a student trained without foresight costs.",
        "python scripts/export.py --run runs/scenes_tiny",
    )
    parser.add_argument("--run", required=True, type=Path, metavar="RUN", help="run folder")
    parser.add_argument(
        "--checkpoint", type=Path, nargs="+", metavar="PATH", help="checkpoints of it; default: the newest"
    )
    parser.add_argument(
        "--out", type=Path, metavar="DIR", help="write DIR/CHECKPOINT/export for each instead, and leave RUN as it is"
    )
    parser.add_argument("--name", help="what the model card and run.yaml call it; default: as the run")
    parser.add_argument("--license", help="of the weights, such as apache-2.0, for the card; default: as the run")
    arguments = parser.parse_args()
    if arguments.checkpoint is not None and len(arguments.checkpoint) > 1 and arguments.out is None:
        raise ValueError("a run has one export; give several checkpoints only with --out DIR.")

    # Below, because these imports take seconds and --help needs none.
    from video_mirai import build

    log_to_stderr()
    for checkpoint in arguments.checkpoint or [None]:
        out = None if arguments.out is None else arguments.out / (NEWEST if checkpoint is None else checkpoint.name)
        folder = build.export_checkpoint(arguments.run, checkpoint, out, name=arguments.name, license=arguments.license)
        print(f"exported to {folder}")


if __name__ == "__main__":
    run_script(main)
