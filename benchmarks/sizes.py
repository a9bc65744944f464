"""How large everything that is measured is. FULL gives the published figures; QUICK only shows that all of it runs."""

from dataclasses import dataclass


@dataclass(frozen=True)
class StepSize:
    """One clip through both transformers; frames x (latent_size / patch)^2 tokens.

    Attributes:
        widths: model widths, each measured by itself; feed-forward 4 x width.
        latent_size: height and width of the latents.
        context_tokens: text tokens, so that ours has cross-attention as Wan does.
    """

    widths: tuple[int, ...] = (256, 512)
    num_layers: int = 6
    head_dim: int = 64
    frames: int = 16
    latent_size: int = 16
    patch: int = 2
    channels: int = 16
    context_tokens: int = 8
    text_dim: int = 64


@dataclass(frozen=True)
class RunSize:
    """A training run whose step and rollout are measured, on random latents of its codec's shape.

    Attributes:
        config: with foresight; from the root of the checkout. The teacher is given the student's architecture.
        channels, latent_size: of the codec's latents.
    """

    config: str = "configs/train/doom_finetune_foresight.yaml"
    channels: int = 16
    latent_size: int = 8


@dataclass(frozen=True)
class SourceSize:
    """Foresight's sources, each beside the plain step of the same run.

    Attributes:
        encoders: {family: its config in transformers, where it differs from that of the published base size}; random
            weights, which cost the same.
        encoder_image_sizes: {family: foresight.teacher.image_size}, where the shipped configs set one.
        encoder_batch, encoder_repetitions: encoders are larger than the student by far, so fewer clips and turns.
    """

    encoders: tuple[tuple[str, dict[str, int]], ...] = (
        ("dinov2", {"hidden_size": 384, "num_attention_heads": 6, "image_size": 518, "patch_size": 14}),
        ("videomae", {}),
        ("vjepa2", {}),
    )
    encoder_image_sizes: tuple[tuple[str, int], ...] = (("dinov2", 112),)
    encoder_batch: int = 2
    encoder_repetitions: int = 3


@dataclass(frozen=True)
class RolloutSize:
    """Of the run's model: chunks generated in each of `runs` rollouts with the cache and `full_chunks` without."""

    chunks: int = 200
    full_chunks: int = 5
    runs: int = 9


@dataclass(frozen=True)
class PeerSize:
    """A rollout of ours beside other implementations': frame-wise, one clip, (latent_size / patch)^2 tokens a frame.

    Attributes:
        width, num_layers: of the reference; feed-forward 4 x width.
        latent_size: height and width.
        num_steps: denoising passes a frame; ours commits it in one more.
        history_frames: seen by every frame that is timed.
        long_history_frames: where ours is held against itself without a cache.
        large_width, large_layers: of the size whose share of the matmul rate is measured.
        slow_repetitions: turns that long history and large size get.
        frames_per_turn: one after the other, as in a rollout; a turn's time is their mean.
        profiled_frames: under the profiler.
    """

    width: int = 256
    num_layers: int = 6
    head_dim: int = 64
    latent_size: int = 16
    patch: int = 2
    channels: int = 16
    context_tokens: int = 8
    text_dim: int = 64
    num_steps: int = 4
    history_frames: int = 16
    long_history_frames: int = 64
    large_width: int = 768
    large_layers: int = 12
    slow_repetitions: int = 3
    frames_per_turn: int = 3
    profiled_frames: int = 10


@dataclass(frozen=True)
class LoaderSize:
    """Videos that the benchmark writes itself, cut into clips that tile them.

    Attributes:
        key_frame_every: frames from one key frame to the next; also the frame rate.
        clip_pixels: height and width that the loader resizes to.
        clips_per_place: of repeated sampling, each measured.
        target: whether the ratio to a plain decode is held against the target.
    """

    videos: int = 4
    clips_per_video: int = 16
    clip_frames: int = 16
    height: int = 240
    width: int = 320
    key_frame_every: int = 30
    clip_pixels: int = 64
    batch: int = 4
    clips_per_place: tuple[int, ...] = (2, 4)
    target: bool = True


@dataclass(frozen=True)
class FrechetSize:
    """Two sets of features. exact_*: of the small ones whose distance is computed with 50 digits too."""

    samples: int = 2048
    widths: tuple[int, ...] = (400, 768)
    exact_samples: int = 24
    exact_width: int = 8
    exact_cases: int = 9


@dataclass(frozen=True)
class Sizes:
    """Everything together.

    Attributes:
        repetitions: turns that each variant gets; medians are over these.
        warmup: turns before them that don't count.
        matmul: rows and columns of the square product that is the machine's own rate.
    """

    repetitions: int = 9
    warmup: int = 2
    matmul: int = 2048
    step: StepSize = StepSize()
    run: RunSize = RunSize()
    sources: SourceSize = SourceSize()
    rollout: RolloutSize = RolloutSize()
    peers: PeerSize = PeerSize()
    loaders: tuple[LoaderSize, ...] = (
        LoaderSize(),
        LoaderSize(videos=1, height=720, width=1280, batch=1),
        LoaderSize(key_frame_every=8, target=False),
    )
    frechet: FrechetSize = FrechetSize()


FULL = Sizes()
SMALLEST = {"hidden_size": 24, "num_hidden_layers": 2, "num_attention_heads": 2, "image_size": 16, "patch_size": 8}
SMALLEST_CROP = {name: value for name, value in SMALLEST.items() if name != "image_size"} | {"crop_size": 16}
QUICK = Sizes(
    repetitions=2,
    warmup=1,
    matmul=128,
    step=StepSize(widths=(32,), num_layers=2, head_dim=16, frames=2, latent_size=4, channels=4, text_dim=16),
    run=RunSize(config="configs/train/scenes_tiny_foresight.yaml", channels=3, latent_size=16),
    sources=SourceSize(
        encoders=(("dinov2", SMALLEST), ("videomae", {**SMALLEST, "num_frames": 4}), ("vjepa2", SMALLEST_CROP)),
        encoder_image_sizes=(),
        encoder_repetitions=1,
    ),
    rollout=RolloutSize(chunks=11, full_chunks=1, runs=2),
    peers=PeerSize(
        width=32,
        num_layers=2,
        head_dim=16,
        latent_size=4,
        channels=4,
        context_tokens=2,
        text_dim=16,
        num_steps=2,
        history_frames=4,
        long_history_frames=6,
        large_width=48,
        large_layers=3,
        slow_repetitions=1,
        frames_per_turn=2,
        profiled_frames=2,
    ),
    frechet=FrechetSize(samples=32, widths=(8,), exact_samples=8, exact_width=4, exact_cases=2),
    loaders=(
        LoaderSize(
            videos=2,
            clips_per_video=2,
            clip_frames=4,
            height=48,
            width=64,
            clip_pixels=16,
            batch=2,
            clips_per_place=(2,),
        ),
    ),
)
