"""What a study's numbers say, in sentences that claim no more than they do."""

from video_mirai.evaluation.results import Estimate, format_number
from video_mirai.study.config import PrimaryMetric
from video_mirai.study.numbers import StudyNumbers
from video_mirai.study.statistics import Effect, difference

FEW_SEEDS = 5


def intro(numbers: StudyNumbers) -> str:
    config = numbers.config
    return (
        "Every arm is trained from the same seeds, on the same data in the same order, for the same "
        f"{numbers.num_steps} steps, and is compared with {config.reference}, paired by seed and video. "
        "Intervals are 95 %: resampled over seeds, then over videos. Primary metrics are those of the study's config."
    )


def chips(numbers: StudyNumbers) -> list[str]:
    """Facts in a few words each."""
    config, clips = numbers.config, numbers.facts.get("clips", {})
    found = [f"{len(config.arms)} arms", f"seeds {', '.join(map(str, config.seeds))}", f"{numbers.num_steps} steps"]
    if clips:
        found += [
            f"{clips['num_clips']} evaluated videos",
            f"{clips['history_frames']} frames given, {clips['horizon_frames']} generated",
        ]
        if clips["training_frames"]:
            found.append(f"trained on {clips['training_frames']} frames")
    if "probe_clips" in numbers.facts:
        found.append(f"{numbers.facts['probe_clips']['num_videos']['test']} probe test videos")
    return found


def warnings(numbers: StudyNumbers) -> list[str]:
    """What a reader has to know before the numbers."""
    config = numbers.config
    kinds = [k for k, there in (("train", True), ("evaluate", config.evaluate), ("probe", config.probe)) if there]
    missing = [
        f"{kind}/{arm}/seed{seed}"
        for arm in config.arms
        for seed in config.seeds
        for kind in kinds
        if numbers.cost(arm, seed, kind) is None and not (kind == "probe" and arm == config.reference)
    ]
    found = []
    if missing:
        more = f" and {len(missing) - 4} more" if len(missing) > 4 else ""
        found.append(f"Not finished: {', '.join(missing[:4])}{more}. What is shown is of the others.")
    if len(config.seeds) < FEW_SEEDS:
        found.append(
            f"{len(config.seeds)} seeds are few: a resampled interval over so few is too narrow. Look at every seed's "
            f"value, and at Student's interval, which knows how few they are."
        )
    return found


def metric_sentences(numbers: StudyNumbers) -> list[str]:
    """One sentence per primary metric, about every arm against the reference after the whole training."""
    found = []
    for metric in numbers.config.primary:
        effects = {arm: e for arm in numbers.other_arms() if (e := difference(numbers, metric, arm)) is not None}
        if not effects:
            found.append(f"{metric.name}: nothing to compare yet.")
            continue
        first = next(iter(effects.values()))
        value = format_number(first.reference_value, metric.decimals)
        videos = f", {first.num_videos} videos" if first.num_videos else ""
        parts = [f"{arm} {_outcome(metric, effect)}" for arm, effect in effects.items()]
        found.append(
            f"{metric.name} ({metric.better} is better; {len(first.by_seed)} seeds{videos}, {numbers.num_steps} steps; "
            f"{numbers.config.reference} has {value}): {'; '.join(parts)}. Interval over {first.over}."
        )
    return found


def contrast_sentences(numbers: StudyNumbers) -> list[str]:
    """One sentence per pair of arms that the config names: every primary metric after the whole training."""
    found = []
    for pair in numbers.config.contrasts:
        effects = [(metric, difference(numbers, metric, pair.arm, pair.against)) for metric in numbers.config.primary]
        parts = [f"{metric.name} {_outcome(metric, effect)}" for metric, effect in effects if effect is not None]
        if parts:
            num_seeds = min(len(effect.by_seed) for _, effect in effects if effect is not None)
            found.append(f"{pair.arm} against {pair.against}, {num_seeds} seeds: {'; '.join(parts)}.")
    return found


def outcome(metric: PrimaryMetric, effect: Effect) -> str:
    """ "better", "worse", "unclear", or "unknown" where there is no interval.

    A difference is shown only where both intervals leave 0 out: that of three resampled seeds does so whenever the
    three agree, which is one time in four by chance; Student's knows that.
    """
    estimate = effect.estimate
    if estimate.low is None or estimate.high is None:
        return "unknown"
    if not estimate.excludes_zero or (effect.student is not None and effect.student[0] <= 0 <= effect.student[1]):
        return "unclear"
    return "better" if (estimate.value > 0) == (metric.better == "higher") else "worse"


def interval_text(estimate: Estimate, decimals: int) -> str:
    """The interval in brackets; empty where there is none."""
    if estimate.low is None or estimate.high is None:
        return ""
    low, high = (format_number(end, decimals, signed=True) for end in (estimate.low, estimate.high))
    return f"[{low}, {high}]"


def _outcome(metric: PrimaryMetric, effect: Effect) -> str:
    words = {
        "better": "is better by",
        "worse": "is worse by",
        "unclear": "no difference shown:",
        "unknown": "differs, without an interval, by",
    }[outcome(metric, effect)]
    value = format_number(effect.estimate.value, metric.decimals, signed=True)
    dropped = f", {effect.dropped} videos left out: undefined there" if effect.dropped else ""
    leans = effect.estimate.excludes_zero and outcome(metric, effect) == "unclear"
    doubt = " (leaves 0 out, but Student's interval over seeds does not)" if leans else ""
    return f"{words} {value} {interval_text(effect.estimate, metric.decimals)}".rstrip() + doubt + dropped
