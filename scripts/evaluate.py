"""Score checkpoints, which are rolled out on held-out clips, or folders of any model's videos, and write a report."""

import argparse
import subprocess
from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING

from _cli import add_config_arguments, log_to_stderr, make_parser, parse_device, run_script

if TYPE_CHECKING:
    import torch
    from accelerate import PartialState

    from video_mirai.build import LoadedRun
    from video_mirai.data.scenes import Scenes, ScenesConfig
    from video_mirai.data.video_folder import VideoFolder, VideoFolderConfig
    from video_mirai.evaluation.contestants import Contestant, Processes
    from video_mirai.evaluation.findings import Findings
    from video_mirai.evaluation.protocol import EvaluateConfig
    from video_mirai.evaluation.results import VBenchInfo
    from video_mirai.evaluation.video_sets import FolderConfig

DESCRIPTION = """Score videos against real ones and write a report.

checkpoints: --checkpoint [NAME=]RUN [--checkpoint ...] [key=value ...], or --config FILE models.NAME=RUN ...
  Rolls the models out on the same held-out clips; RUN is a run folder, an export or asset:<name>, and the first one is
  what the others are compared with. Start it with plain python for one process, or with accelerate
  launch for any number, which must share the file system. Finished videos are kept: the same call goes on where an
  interrupted one stopped.
folders: --real DIR --fake [NAME=]DIR [--fake [NAME=]DIR2 ...] [key=value ...]
  Any model's videos, in folders or manifests. Frame counts, sizes and rates may differ:
  rate     brought to the lowest rate of any file, or fps=N, by taking the frames nearest in time; every_frame=true
           takes them as they are
  length   as many frames as the shortest file has, or num_frames=N: then shorter files are left out
  size     that of the real videos, or height=H width=W: resized (bilinear, antialiased) to cover it, centre kept
  pairing  videos of the same relative path, whatever the suffix, are compared frame by frame too; pair=false: as sets
  clips    clip_rule=sliding (every stride_frames), first or random (one a video); history_frames=K are not scored
  samples  --fake NAME=DIR again with the same NAME: other samples of the same videos; mean, best and worst of them

Writes to OUT (out=...): report.html (one self-contained page), results.json, per_video.csv, curves.csv, plots, videos.
All settings: video_mirai/evaluation/protocol.py and video_sets.py."""
EXAMPLE = """accelerate launch scripts/evaluate.py --config configs/eval/long.yaml \\
      models.baseline=runs/baseline models.foresight=runs/foresight out=evaluations/first
  python scripts/evaluate.py --checkpoint asset:occlusion_baseline --checkpoint asset:occlusion_foresight \\
      num_clips=8
  python scripts/evaluate.py --real videos/real --fake ours=videos/a --fake theirs=videos/b \\
      detectors=[transnet,random3d] clip_rule=first out=evaluations/second"""

# A rollout is long when it is at least so many times what the model was trained on.
DEFAULT_HORIZON_CLIPS = 4


def main() -> None:
    """Parse, load, evaluate, publish."""
    arguments = parse()

    # Below, because these imports take seconds and --help needs none.
    from accelerate import PartialState

    from video_mirai.config import load_config
    from video_mirai.evaluation.protocol import EvaluateConfig
    from video_mirai.evaluation.publish import publish
    from video_mirai.evaluation.results import headline_table
    from video_mirai.evaluation.vbench import read_vbench
    from video_mirai.evaluation.video_sets import FolderConfig

    is_folders = arguments.real is not None or bool(arguments.fake)
    config: FolderConfig | EvaluateConfig
    if is_folders:
        of_folders = load_config(FolderConfig, arguments.config, arguments.overrides)
        fakes, samples = named_folders(arguments.fake)
        config = replace(of_folders, real=arguments.real, fakes=fakes, samples=samples)
    else:
        settings = load_config(EvaluateConfig, arguments.config, arguments.overrides)
        config = replace(settings, models=settings.models | named_checkpoints(arguments.checkpoint, settings.models))
    state = PartialState(cpu=config.device == "cpu")
    device = state.device if config.device == "auto" else parse_device(config.device)
    log_to_stderr(is_main_process=state.is_main_process)
    rows = config.models if isinstance(config, EvaluateConfig) else config.fakes
    for name, _ in map(named, arguments.vbench_results):
        if name not in rows:
            raise ValueError(f"--vbench-results {name}=...: no such row; the rows are {', '.join(rows)}.")
    vbench = tuple(read_vbench(*named(text), arguments.vbench_flags) for text in arguments.vbench_results)
    if isinstance(config, EvaluateConfig):
        findings = checkpoints(config, state, device, vbench, allow_import=arguments.allow_import)
    else:
        findings = folders(config, state, device, vbench, allow_import=arguments.allow_import)
    if state.is_main_process:
        published = publish(findings, git_revision(), device)
        print(headline_table(published.result))
        for warning in published.result.warnings:
            print(f"note: {warning}")
        if arguments.vbench_export is not None:
            export(config, Path(arguments.vbench_export), published.result.clips.fps)
        print(f"report: {published.report}")


def parse() -> argparse.Namespace:
    """The command line; argparse's own exit where it makes no sense."""
    parser = make_parser(DESCRIPTION, EXAMPLE)
    add_config_arguments(parser, required=False)
    parser.add_argument(
        "--checkpoint", action="append", default=[], metavar="[NAME=]RUN",
        help="a model to roll out: run folder, export or asset:<name>, named after its last part; repeatable",
    )  # fmt: skip
    parser.add_argument("--real", metavar="DIR", help="folder or manifest of real videos")
    parser.add_argument(
        "--fake", action="append", default=[], metavar="[NAME=]DIR",
        help="generated ones; repeatable, and NAME= again for other samples of the same videos",
    )  # fmt: skip
    parser.add_argument(
        "--allow-import", action="store_true", help="a detector may be module:callable, code of yours that is run"
    )
    parser.add_argument(
        "--vbench-export", metavar="DIR", help="also write the generated videos as VBench reads them, with prompts"
    )
    parser.add_argument(
        "--vbench-results", action="append", default=[], metavar="NAME=FILE",
        help="show the *_eval_results.json that VBench or VBench-Long wrote for NAME; repeatable",
    )  # fmt: skip
    parser.add_argument(
        "--vbench-flags", default="", metavar="TEXT", help="how VBench was called; its file does not say"
    )
    arguments = parser.parse_intermixed_args()
    if arguments.fake and arguments.real is None:
        parser.error("--fake needs --real DIR, the videos to compare with.")
    if arguments.real is not None and not arguments.fake:
        parser.error("--real needs --fake [NAME=]DIR, the videos to score.")
    if arguments.checkpoint and arguments.real is not None:
        parser.error("--checkpoint rolls models out, --real and --fake score videos that are there; choose one.")
    if arguments.real is None and arguments.config is None and not arguments.checkpoint:
        parser.error(
            "give --checkpoint RUN or --config FILE to roll models out, or --real DIR and --fake DIR for folders of "
            "videos."
        )
    return arguments


def named(text: str) -> tuple[str, str]:
    """NAME=PATH, parted; a path alone is named after its last part."""
    name, separator, path = text.partition("=")
    return (name, path) if separator else (Path(text).resolve().name, text)


def named_checkpoints(texts: list[str], taken: dict[str, str]) -> dict[str, str]:
    """What --checkpoint gave, by name; none of those that the config has taken."""
    from video_mirai.export_folder import ASSET_PREFIX

    found: dict[str, str] = {}
    for text in texts:
        name, path = named(text)
        name = name.removeprefix(ASSET_PREFIX)
        if name in found or name in taken:
            raise ValueError(
                f"--checkpoint: two models are named {name}; name them yourself: --checkpoint NAME={path}."
            )
        found[name] = path
    return found


def named_folders(texts: list[str]) -> tuple[dict[str, str], dict[str, list[str]]]:
    """What --fake gave, by name, and the further samples of a name that was given again."""
    fakes: dict[str, str] = {}
    samples: dict[str, list[str]] = {}
    for text in texts:
        name, path = named(text)
        if name not in fakes:
            fakes[name] = path
        elif "=" in text:
            samples.setdefault(name, []).append(path)
        else:
            raise ValueError(f"--fake: two folders are named {name}; name them yourself: --fake NAME={path}.")
    return fakes, samples


def folders(
    config: "FolderConfig", state: "PartialState", device: "torch.device", vbench: "tuple[VBenchInfo, ...]",
    *, allow_import: bool,
) -> "Findings":  # fmt: skip
    """Score folders of videos."""
    from video_mirai.evaluation.contestants import check_names
    from video_mirai.evaluation.folder_run import evaluate_folders

    check_names(config.fakes, "--fake ")
    return evaluate_folders(config, processes_of(state), device, allow_import=allow_import, vbench=vbench)


def checkpoints(
    config: "EvaluateConfig", state: "PartialState", device: "torch.device", vbench: "tuple[VBenchInfo, ...]",
    *, allow_import: bool,
) -> "Findings":  # fmt: skip
    """Roll models out and score them."""
    from video_mirai.build import load_run
    from video_mirai.evaluation.checkpoint_findings import checkpoint_findings
    from video_mirai.evaluation.contestants import check_names
    from video_mirai.evaluation.held_out import open_held_out
    from video_mirai.evaluation.run import evaluate

    check_names(config.models)
    runs = {name: load_run(path, device) for name, path in config.models.items()}
    models = {name: contestant(name, config.models[name], run) for name, run in runs.items()}
    horizon_frames = config.horizon_frames
    if horizon_frames is None:
        horizon_frames = DEFAULT_HORIZON_CLIPS * max(model.training_frames for model in models.values())
    data = held_out_data(config, next(iter(runs.values())))
    notes = [note for name, run in runs.items() if (note := leak_note(name, run, data, config.split))]
    held_out = open_held_out(data, config.split, config.history_frames, horizon_frames, config.num_clips, config.seed)
    for name, run in runs.items():
        check_clip_format(name, run, held_out.dataset)
    evaluation = evaluate(
        config, held_out, horizon_frames, models, processes_of(state), device, allow_import=allow_import
    )
    return checkpoint_findings(evaluation, models, notes, vbench)


def export(config: "EvaluateConfig | FolderConfig", folder: Path, fps: float) -> None:
    """The generated videos for VBench, one folder for each row."""
    from video_mirai.evaluation.vbench import export_videos, videos_of_folder, videos_of_store
    from video_mirai.evaluation.video_sets import FolderConfig

    if isinstance(config, FolderConfig):
        videos = {name: videos_of_folder(Path(root)) for name, root in config.fakes.items()}
    else:
        frames = Path(config.out) / "frames"
        videos = {name: videos_of_store(frames / name, config.history_frames, fps) for name in config.models}
    for name, of_row in videos.items():
        print(f"VBench folder: {export_videos(folder / name, of_row)}")


def contestant(name: str, path: str, run: "LoadedRun") -> "Contestant":
    """A loaded run as the evaluation sees it."""
    from video_mirai.build import check_generation
    from video_mirai.evaluation.contestants import Contestant

    check_generation(run, run.rollout)
    if run.model.config.text_dim is not None:
        raise ValueError(f"models.{name}: {path} is conditioned on a context, which held-out clips do not have.")
    return Contestant(path, run.model, run.codec, run.rollout, training_frames(run), run.config.seed)


def training_frames(run: "LoadedRun") -> int:
    """Length of the clips a run was trained on, in pixel frames."""
    data = run.config.data
    if data.kind == "latent_shards" and data.latent_shards is not None:
        return run.codec.num_pixel_frames(data.latent_shards.num_frames)
    chosen = data.video_folder if data.kind == "video_folder" else data.scenes
    assert chosen is not None
    return chosen.num_frames


def held_out_data(config: "EvaluateConfig", run: "LoadedRun") -> "VideoFolderConfig | ScenesConfig":
    """The data set that the config names, or else the one that the first model was trained on."""
    if config.data.video_folder is not None and config.data.scenes is not None:
        raise ValueError("data.video_folder and data.scenes are both given; choose one.")
    named = config.data.video_folder or config.data.scenes
    if named is not None:
        return named
    data = run.config.data
    trained_on = {"video_folder": data.video_folder, "scenes": data.scenes}.get(data.kind)
    if trained_on is None:
        raise ValueError("the first model was trained on latents; name the videos: data.video_folder.root=FOLDER.")
    return trained_on


def leak_note(name: str, run: "LoadedRun", data: "VideoFolderConfig | ScenesConfig", split: str) -> str:
    """What to say when a model may have been trained on the held-out clips; empty when it was not.

    Raises:
        ValueError: it certainly was, at least in part.
    """
    from video_mirai.data.scenes import ScenesConfig

    kind = run.config.data.kind
    trained_on = getattr(run.config.data, kind)
    if isinstance(data, ScenesConfig) != (kind == "scenes"):
        return ""
    if isinstance(data, ScenesConfig):
        same_source = trained_on.seed == data.seed
        different = []
    else:
        same_source = kind == "video_folder" and Path(trained_on.root).resolve() == Path(data.root).resolve()
        different = [s for s in ("seed", "val_fraction", "test_fraction") if vars(trained_on)[s] != vars(data)[s]]
    said = ", ".join(f"{s}={vars(data)[s]} (there {vars(trained_on)[s]})" for s in different)
    if split == trained_on.split or "all" in (split, trained_on.split):
        if same_source:
            raise ValueError(
                f"split={split!r} holds clips that models.{name} was trained on (split {trained_on.split!r}); choose "
                f"another."
            )
        return f"{name} was trained on split {trained_on.split!r}. If it was on these videos, they are not held out."
    if different and same_source:
        raise ValueError(
            f"the split differs from that of models.{name}'s training, so clips would not be held out: {said}."
        )
    if different:
        return f"{name} was trained with another split: {said}. If it saw these videos, they are not held out."
    return ""


def check_clip_format(name: str, run: "LoadedRun", clips: "VideoFolder | Scenes") -> None:
    """ValueError unless the held-out clips have the size and the frame rate that the model was trained on."""
    from video_mirai.data.video_folder import RATE_TOLERANCE

    trained = run.clips
    same_rate = abs(clips.fps / trained.fps - 1) <= RATE_TOLERANCE
    height, width = clips.config.height, clips.config.width
    if (height, width) != (trained.height, trained.width) or not same_rate:
        raise ValueError(
            f"the held-out clips are {width}x{height} at {clips.fps:g} frames a second, models.{name} was trained on "
            f"{trained.width}x{trained.height} at {trained.fps:g}; set the data's height, width and fps."
        )


def processes_of(state: "PartialState") -> "Processes":
    """Accelerate's processes, as the evaluation sees them."""
    from accelerate.utils import gather_object

    from video_mirai.evaluation.contestants import Processes

    return Processes(state.process_index, state.num_processes, state.wait_for_everyone, gather_object)


def git_revision() -> str:
    """The commit of this checkout, marked where files differ from it."""
    root = Path(__file__).resolve().parents[1]
    try:
        described = subprocess.run(
            ["git", "describe", "--always", "--dirty", "--abbrev=40", "--exclude=*"],
            cwd=root, capture_output=True, text=True, check=True,
        )  # fmt: skip
    except (OSError, subprocess.CalledProcessError):
        return "unknown (no git checkout)"
    return described.stdout.strip()


if __name__ == "__main__":
    run_script(main)
