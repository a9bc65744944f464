"""Compare evaluations: paired differences with 95 % intervals, as tables and a forest plot."""

from pathlib import Path

from _cli import make_parser, run_script

DESCRIPTION = """Compare evaluations that scripts/evaluate.py wrote; every later one minus the first.

Evaluations of the same true clips with the same seed are paired video by video; others are compared as independent
samples, and it is said why. A number that means something else in the two (length, rate, size, detector) is refused.

With --group NAME=FOLDER[:ROW],... for every method, each with a run for every training seed in the same order, seeds
are resampled first, then videos, and every seed is shown. Groups of other seeds, histories or settings are refused.
Writes to OUT: comparison.md, comparison.tex (booktabs), comparison.csv and forest.png; for groups also seeds.csv."""
EXAMPLE = """python scripts/compare.py evaluations/a evaluations/b:foresight --out comparisons/first
  python scripts/compare.py --group baseline=evaluations/b0,evaluations/b1,evaluations/b2 \\
      --group foresight=evaluations/f0,evaluations/f1,evaluations/f2 --out comparisons/seeds"""


def main() -> None:
    """Parse, load, compare, write."""
    parser = make_parser(DESCRIPTION, EXAMPLE)
    parser.add_argument(
        "runs", nargs="*", metavar="FOLDER[:ROW]", help="out=... of an evaluation; the row where it has several models"
    )
    parser.add_argument(
        "--group", action="append", default=[], metavar="NAME=FOLDER[:ROW],...", help="a method's runs, one a seed"
    )
    parser.add_argument("--out", default="comparisons/latest", metavar="DIR", help="default: %(default)s")
    parser.add_argument("--seed", type=int, default=0, help="of the resampling; default: %(default)s")
    arguments = parser.parse_intermixed_args()
    if bool(arguments.runs) == bool(arguments.group):
        parser.error("give evaluations, or --group NAME=FOLDER[:ROW],... for every method, and not both.")

    # Below, because these imports take seconds and --help needs none.
    from video_mirai.evaluation.compare import compare_rows
    from video_mirai.evaluation.compare_groups import compare_groups, load_group
    from video_mirai.evaluation.compare_tables import write_comparison
    from video_mirai.evaluation.evaluated_row import load_row
    from video_mirai.evaluation.protocol import ScoringConfig

    resampling = ScoringConfig(seed=arguments.seed).resampling()
    if arguments.group:
        compared = compare_groups([load_group(text) for text in arguments.group], resampling)
    else:
        compared = compare_rows([load_row(place) for place in arguments.runs], resampling)
    print(write_comparison(compared, Path(arguments.out)))
    print(f"comparison: {arguments.out}")


if __name__ == "__main__":
    run_script(main)
