"""Compare evaluations: paired differences with 95 % intervals, as tables and a forest plot."""

from pathlib import Path

from _cli import make_parser, run_script

DESCRIPTION = """Compare evaluations that scripts/evaluate.py wrote; every later one minus the first.

Evaluations of the same true clips with the same seed are paired video by video; others are compared as independent
samples, and it is said why. A number that means something else in the two (length, rate, size, detector) is refused.
Writes to OUT: comparison.md, comparison.tex (booktabs), comparison.csv and forest.png."""
EXAMPLE = "python scripts/compare.py evaluations/a evaluations/b:foresight --out comparisons/first"


def main() -> None:
    """Parse, load, compare, write."""
    parser = make_parser(DESCRIPTION, EXAMPLE)
    parser.add_argument(
        "runs", nargs="+", metavar="FOLDER[:ROW]", help="out=... of an evaluation; the row where it has several models"
    )
    parser.add_argument("--out", default="comparisons/latest", metavar="DIR", help="default: %(default)s")
    parser.add_argument("--seed", type=int, default=0, help="of the resampling; default: %(default)s")
    arguments = parser.parse_args()

    # Below, because these imports take seconds and --help needs none.
    from video_mirai.evaluation.compare import compare_rows, load_row
    from video_mirai.evaluation.compare_tables import write_comparison
    from video_mirai.evaluation.protocol import ScoringConfig

    resampling = ScoringConfig(seed=arguments.seed).resampling()
    compared = compare_rows([load_row(place) for place in arguments.runs], resampling)
    print(write_comparison(compared, Path(arguments.out)))
    print(f"comparison: {arguments.out}")


if __name__ == "__main__":
    run_script(main)
