"""An evaluation of checkpoints as `publish` takes it: what was compared with what, facts, and galleries."""

from collections.abc import Mapping, Sequence
from dataclasses import asdict

from video_mirai.data.video_folder import VideoFolder
from video_mirai.evaluation.contestants import TRUTH, Contestant
from video_mirai.evaluation.findings import Comparison, Findings
from video_mirai.evaluation.generation import settings_hash
from video_mirai.evaluation.metric_table import UNPAIRED
from video_mirai.evaluation.networks import describe_encoders
from video_mirai.evaluation.report import Gallery, Strip
from video_mirai.evaluation.results import ClipsInfo, ModelInfo, VBenchInfo
from video_mirai.evaluation.row_scores import RowScores
from video_mirai.evaluation.run import Evaluation, video_file


def checkpoint_findings(
    evaluation: Evaluation,
    models: Mapping[str, Contestant],
    notes: Sequence[str] = (),
    vbench: Sequence[VBenchInfo] = (),
) -> Findings:
    """What `publish` needs of an evaluation of checkpoints.

    Args:
        notes: sentences to show above the results, beside the warnings that the numbers give rise to.
        vbench: what VBench found on the models' videos.
    """
    config = evaluation.config
    return Findings(
        config=config,
        settings=asdict(config) | {"horizon_frames": evaluation.horizon_frames},
        protocol=evaluation.protocol,
        detectors=evaluation.detectors,
        rows=evaluation.rows,
        comparisons=_comparisons(evaluation.rows),
        clips=_clips_info(evaluation, models),
        rules={
            "pairing": "every model continues the same true histories with the same noise; all differences are paired",
            "history": f"the {config.history_frames} given frames are left out of every score",
            "size and rate": "those of the training clips; nothing is resized or resampled after generation",
            "samples": f"{config.samples_per_clip} of every history; paired numbers are means over them, distances and "
            "galleries have the first",
        }
        | describe_encoders(evaluation.encoders),
        galleries=_galleries(evaluation),
        models=_model_infos(evaluation, models),
        vbench=list(vbench),
        notes=list(notes),
    )


def _comparisons(rows: list[RowScores]) -> list[Comparison]:
    """Every later model minus the first one, then every model minus copy-last-frame."""
    models = [row for row in rows if row.kind == "model"]
    copies = [row for row in rows if row.kind == "copy"]
    comparisons = [Comparison(row, models[0]) for row in models[1:]]
    return comparisons + [Comparison(row, copy, UNPAIRED) for copy in copies for row in models]


def _clips_info(evaluation: Evaluation, models: Mapping[str, Contestant]) -> ClipsInfo:
    config, dataset = evaluation.config, evaluation.held_out.dataset
    name = f"video folder {dataset.config.root}" if isinstance(dataset, VideoFolder) else "synthetic scenes"
    window, stride = config.window_frames, config.stride_frames
    return ClipsInfo(
        dataset=name,
        split=config.split,
        fps=float(dataset.fps),
        height=dataset.config.height,
        width=dataset.config.width,
        num_clips=len(evaluation.held_out.compared),
        num_source_videos=len({score.video for score in evaluation.rows[0].scores}),
        num_real_clips=len(evaluation.held_out.others),
        history_frames=config.history_frames,
        horizon_frames=evaluation.horizon_frames,
        training_frames=max(model.training_frames for model in models.values()),
        clip_rule=f"clips of {window} frames starting every {stride} after the history; windows start every {window}",
        seed=config.seed,
        clips_sha256=settings_hash(evaluation.held_out.identity()),
    )


def _model_infos(evaluation: Evaluation, models: Mapping[str, Contestant]) -> list[ModelInfo]:
    return [
        ModelInfo(
            name,
            model.path,
            evaluation.weights[name],
            model.training_frames,
            asdict(model.rollout),
            f"{type(model.codec).__name__} {model.codec.fingerprint()[:16]}",
            evaluation.speeds[name],
            model.training_seed,
        )
        for name, model in models.items()
    ]


def _galleries(evaluation: Evaluation) -> list[Gallery]:
    """The first clips whatever they look like, then those where the last model does worst."""
    config = evaluation.config
    last = [row for row in evaluation.rows if row.kind == "model"][-1]
    fixed = [score.clip for score in last.scores[: config.fixed_videos]]
    by_psnr = sorted(last.scores, key=lambda score: score.numbers["psnr"])
    worst = [score.clip for score in by_psnr if score.clip not in fixed][: config.worst_videos]
    return [
        Gallery(
            "Same histories, side by side",
            f"The first {len(fixed)} histories of the seeded order, chosen before anything was generated. All videos "
            "of a strip share their first frames; from then on the models are on their own.",
            [_strip(evaluation, clip) for clip in fixed],
            pause_button=True,
        ),
        Gallery(
            f"Worst {len(worst)}",
            f"The other histories on which {last.name} has its lowest mean PSNR.",
            [_strip(evaluation, clip) for clip in worst],
        ),
    ]


def _strip(evaluation: Evaluation, clip: int) -> Strip:
    rows = [row for row in evaluation.rows if row.kind == "model"]
    score = rows[0].scores[clip]
    scores = ", ".join(f"{row.name} {row.scores[clip].numbers['psnr']:.1f} dB" for row in rows)
    videos = [
        (name, video_file(evaluation.config, name, clip).read_bytes()) for name in (TRUTH, *(row.name for row in rows))
    ]
    return Strip(f"Clip {clip}, {score.video} · {scores} ·", videos)
