"""Read the future from a causal model's frozen states: how much of frame t + D is in the state of frame t?"""

from pathlib import Path
from typing import TYPE_CHECKING

from _cli import add_config_arguments, log_to_stderr, make_parser, parse_device, run_script
from evaluate import check_clip_format, git_revision, leak_note

if TYPE_CHECKING:
    from video_mirai.build import LoadedRun
    from video_mirai.evaluation.probe_data import DataSetConfig, ProbeClips
    from video_mirai.evaluation.probe_run import ProbeConfig, ProbedModel

DESCRIPTION = """Read the future from a causal model's frozen states: how much of frame t + D is in that of frame t?

Readouts (ridge, small networks) are fitted, chosen and scored on different videos. With --baseline the difference of R2
is the number that counts. Features that have seen a later frame are refused.
Writes to OUT: report.html (one self-contained page), results.json, scores.csv, per_video.csv, plots and pictures."""
EXAMPLE = """python scripts/probe.py --checkpoint runs/foresight --baseline runs/baseline \\
      --config configs/eval/probe.yaml out=probes/first"""


def main() -> None:
    """Parse, load, probe, publish."""
    parser = make_parser(DESCRIPTION, EXAMPLE)
    parser.add_argument("--checkpoint", required=True, help="run folder, export, or asset:<name>")
    parser.add_argument("--baseline", help="what it is compared with: likewise, of the same codec and chunk length")
    add_config_arguments(parser)
    arguments = parser.parse_intermixed_args()

    # Below, because these imports take seconds and --help needs none.
    import torch

    from video_mirai.build import load_run
    from video_mirai.config import load_config
    from video_mirai.evaluation.probe_data import open_clips
    from video_mirai.evaluation.probe_publish import publish_probe
    from video_mirai.evaluation.probe_result import BASELINE, CHECKPOINT, headline_table
    from video_mirai.evaluation.probe_run import ProbeConfig, run_probe

    config = load_config(ProbeConfig, arguments.config, arguments.overrides)
    log_to_stderr()
    best = "cuda" if torch.cuda.is_available() else "cpu"
    device = parse_device(best if config.device == "auto" else config.device)
    paths = {CHECKPOINT: arguments.checkpoint} | ({BASELINE: arguments.baseline} if arguments.baseline else {})
    runs = {name: load_run(path, device) for name, path in paths.items()}
    models = {name: probed_model(name, paths[name], run) for name, run in runs.items()}
    checkpoint = runs[CHECKPOINT]
    data = probe_data(config, checkpoint)
    notes = [note for name, run in runs.items() if (note := leak_note_of_any(name, run, data, config.split))]
    num_frames = config.clip_frames(checkpoint.rollout.chunk_frames)
    shares = (config.val_share, config.test_share)
    clips = open_clips(data, config.split, num_frames, config.num_clips, shares, config.seed, checkpoint.codec)
    for name, run in runs.items():
        check_format(name, run, clips)
    probe = run_probe(config, clips, models[CHECKPOINT], models.get(BASELINE), device)
    published = publish_probe(probe, git_revision(), device, notes)
    print(headline_table(published.result))
    for warning in published.result.warnings:
        print(f"note: {warning}")
    print(f"report: {published.report}")


def probed_model(name: str, path: str, run: "LoadedRun") -> "ProbedModel":
    """A loaded run as the probe sees it."""
    from video_mirai.evaluation.probe_run import ProbedModel

    if run.config.objective.kind == "bidirectional":
        raise ValueError(
            f"--{name} {path} was trained to see the future (objective.kind=bidirectional); give a causal model."
        )
    if run.model.config.text_dim is not None:
        raise ValueError(f"--{name} {path} is conditioned on a context, which held-out clips do not have.")
    return ProbedModel(path, run.model, run.codec, run.rollout)


def probe_data(config: "ProbeConfig", run: "LoadedRun") -> "DataSetConfig":
    """The data set that the config names, or else the one that the checkpoint was trained on."""
    named = config.data.named()
    if named is not None:
        return named
    trained_on = run.config.data
    chosen = {
        "video_folder": trained_on.video_folder,
        "scenes": trained_on.scenes,
        "latent_shards": trained_on.latent_shards,
    }[trained_on.kind]
    assert chosen is not None, "a run's config has the block of its kind"
    if trained_on.kind != "scenes" and not Path(vars(chosen)["root"]).exists():
        raise ValueError(
            f"the checkpoint's own data {vars(chosen)['root']} is not here; name videos or latents: "
            f"data.video_folder.root=FOLDER (with height and width) or data.latent_shards.root=FOLDER."
        )
    return chosen


def leak_note_of_any(name: str, run: "LoadedRun", data: "DataSetConfig", split: str) -> str:
    """`leak_note` of evaluate.py, for latents too."""
    from video_mirai.data.latent_shards import LatentShardsConfig

    if not isinstance(data, LatentShardsConfig):
        return leak_note(name, run, data, split)
    trained_on = run.config.data.latent_shards if run.config.data.kind == "latent_shards" else None
    if trained_on is None:
        return ""
    same = Path(trained_on.root).resolve() == Path(data.root).resolve()
    different = [key for key in ("seed", "val_fraction", "test_fraction") if vars(trained_on)[key] != vars(data)[key]]
    if not different and "all" not in (split, trained_on.split) and split != trained_on.split:
        return ""
    other = f", with another {', '.join(different)}" if different else ""
    if same:
        raise ValueError(
            f"split={split!r} holds clips that --{name} was trained on (split {trained_on.split!r} of the same "
            f"latents{other}); choose another."
        )
    return (
        f"{name} was trained on split {trained_on.split!r}{other}. If it was on these latents, they are not held out."
    )


def check_format(name: str, run: "LoadedRun", clips: "ProbeClips") -> None:
    """ValueError unless the clips are what the model was trained on; latents say by their codec that they are."""
    from video_mirai.data.latent_shards import LatentShards

    if isinstance(clips.dataset, LatentShards):
        clips.dataset.require_codec(run.codec.fingerprint())
    else:
        check_clip_format(name, run, clips.dataset)


if __name__ == "__main__":
    run_script(main)
