"""Frozen pretrained encoders of transformers (extra `hf`): DINOv2 frame by frame, VideoMAE and V-JEPA 2 over time."""

from collections.abc import Callable
from dataclasses import dataclass
from importlib.util import find_spec
from typing import Any, ClassVar

import torch
from einops import rearrange
from torch import Tensor, nn
from torch.nn import functional

from video_mirai.models.codecs import Codec
from video_mirai.models.teachers import resolve_layer
from video_mirai.models.token_grid import nearest_frames, resample_grid, space_weights, time_weights

# Of ImageNet, with which all of these encoders were trained.
PIXEL_MEAN, PIXEL_STD = (0.485, 0.456, 0.406), (0.229, 0.224, 0.225)


@dataclass(frozen=True)
class EncoderFamily:
    """What differs between encoders.

    Attributes:
        size_key: of its config: height and width of what it reads.
        fixed_size: its positions are a table for that size.
        frames: (config, frames of the clip) -> frames that it is given of a clip; None: one frame at a time.
        run: (network, frames) runs it up to its last block; frames are (B, n, 3, S, S).
        unused: parts that `run` leaves out.
    """

    size_key: str
    fixed_size: bool
    frames: Callable[[Any, int], int] | None
    run: Callable[[Any, Tensor], object]
    unused: tuple[str, ...] = ()


_DINOV2 = EncoderFamily(
    size_key="image_size",
    fixed_size=False,
    frames=None,
    run=lambda network, frames: network(pixel_values=frames.flatten(0, 1)),
)

ENCODERS: dict[str, EncoderFamily] = {
    "dinov2": _DINOV2,
    "dinov2_with_registers": _DINOV2,
    "videomae": EncoderFamily(
        size_key="image_size",
        fixed_size=True,
        frames=lambda config, given: config.num_frames,
        run=lambda network, frames: network(pixel_values=frames),
    ),
    "vjepa2": EncoderFamily(
        size_key="crop_size",
        fixed_size=False,
        frames=lambda config, given: -(-given // config.tubelet_size) * config.tubelet_size,
        run=lambda network, frames: network.encoder(pixel_values_videos=frames),
        unused=("predictor",),
    ),
}


class PixelTeacher:
    """A pretrained encoder on pixels: the data's own where a batch has them, else decoded latents.

    Frames are resized to the encoder's square, and its tokens resampled to the student's grid as `token_grid` says.

    Args:
        network: of a family in ENCODERS, as `load_encoder` gives it.
        layer: as `TeacherConfig.layer`.
        grid: the student's: (latent height, width) -> token rows and columns.
    """

    reads_pixels: ClassVar[bool] = True

    def __init__(
        self, network: nn.Module, layer: float, codec: Codec, grid: Callable[[int, int], tuple[int, int]]
    ) -> None:
        config: Any = network.config
        blocks: Any = network.encoder.layer  # type: ignore[union-attr]
        self.layer = resolve_layer("foresight.teacher.layer", layer, len(blocks))
        self.family = ENCODERS[config.model_type]
        del blocks[self.layer :]
        for part in self.family.unused:
            delattr(network, part)
        blocks[-1].register_forward_hook(self._keep)
        self.network = network.eval().requires_grad_(False)
        self.codec = codec
        self.student_grid = grid
        self.feature_dim: int = config.hidden_size
        self.image_size = _square(config, self.family)
        self.side = self.image_size // config.patch_size  # tokens along each side of a frame
        self._states: Tensor | None = None

    def grid(self, height: int, width: int) -> tuple[int, int]:
        """The student's, to which its tokens are resampled."""
        return self.student_grid(height, width)

    @torch.no_grad()
    def encode(self, latents: Tensor, context: Tensor | None, video: Tensor | None = None) -> Tensor:
        """(B, F, C, H, W) -> (B, F, N, D)."""
        if video is None:
            video = self.codec.decode(latents)
        rows, columns = self.grid(*latents.shape[-2:])
        features = self.read(video)
        edges = [self.codec.num_pixel_frames(frame) for frame in range(latents.shape[1] + 1)]
        resampled = resample_grid(
            features,
            time_weights(features.shape[1], edges),
            space_weights(self.side, rows),
            space_weights(self.side, columns),
        )
        return resampled.flatten(2, 3)  # (B, F, N, D)

    @torch.no_grad()
    def read(self, video: Tensor) -> Tensor:
        """(B, T, 3, H, W) in [-1, 1] -> (B, time steps, side, side, D), on the encoder's own grid."""
        config: Any = self.network.config
        steps = video.shape[1]
        if self.family.frames is not None:
            count = self.family.frames(config, steps)
            video = video[:, nearest_frames(steps, count).to(video.device)]
            steps = count // config.tubelet_size
        self.family.run(self.network, self._prepare(video))
        assert self._states is not None
        states, self._states = self._states, None
        steps_per_pass = 1 if self.family.frames is None else steps
        states = states[:, -steps_per_pass * self.side**2 :]  # before the patches come class token and registers
        shape = {"b": len(video), "t": steps, "h": self.side}
        if self.family.frames is None:
            return rearrange(states, "(b t) (h w) d -> b t h w d", **shape)
        return rearrange(states, "b (t h w) d -> b t h w d", **shape)

    def _prepare(self, video: Tensor) -> Tensor:
        """Resized to the encoder's square, bilinear with antialiasing, and normalised as it was trained."""
        frames = rearrange(video.float(), "b t c h w -> (b t) c h w")
        frames = functional.interpolate(frames, (self.image_size, self.image_size), mode="bilinear", antialias=True)
        mean, std = (frames.new_tensor(values)[:, None, None] for values in (PIXEL_MEAN, PIXEL_STD))
        frames = ((frames + 1) / 2 - mean) / std
        weight = next(self.network.parameters())
        return rearrange(frames, "(b t) c h w -> b t c h w", b=len(video)).to(weight.dtype)

    def _keep(self, module: nn.Module, inputs: object, output: Any) -> None:
        self._states = output[0] if isinstance(output, tuple) else output


def load_encoder(
    checkpoint: str, image_size: int | None, device: torch.device, dtype: torch.dtype, *, untrained: bool
) -> nn.Module:
    """A network of ENCODERS from a local folder or the hub; on the meta device no weights are read.

    Raises:
        FileNotFoundError: neither a folder nor on the hub. ModuleNotFoundError: transformers is missing.
        ValueError: an unknown family, a size that it can't read, or weights that leave parts of it random.
    """
    if find_spec("transformers") is None:
        raise ModuleNotFoundError("pretrained encoders need transformers; pip install 'video-mirai[hf]'.")
    from transformers import AutoConfig, AutoModel

    try:
        config = AutoConfig.from_pretrained(checkpoint)
    except OSError as error:
        raise FileNotFoundError(f"encoder {checkpoint}: no such folder, and not to be had from the hub.") from error
    if config.model_type not in ENCODERS:
        raise ValueError(f"{checkpoint} is a {config.model_type!r}; known encoders: {', '.join(ENCODERS)}.")
    family = ENCODERS[config.model_type]
    if image_size is not None:
        _check_image_size(image_size, config, family)
        setattr(config, family.size_key, image_size)
    if untrained or device.type == "meta":
        with torch.device("meta" if device.type == "meta" else "cpu"):  # the same weights on every device
            return AutoModel.from_config(config).to(device)
    network, report = AutoModel.from_pretrained(
        checkpoint, config=config, dtype=dtype, ignore_mismatched_sizes=False, output_loading_info=True
    )
    if report["missing_keys"]:
        raise ValueError(
            f"encoder {checkpoint}: {len(report['missing_keys'])} weights are missing, "
            f"such as {min(report['missing_keys'])}."
        )
    return network.to(device)


def _check_image_size(image_size: int, config: Any, family: EncoderFamily) -> None:
    if family.fixed_size and image_size != _square(config, family):
        raise ValueError(
            f"foresight.teacher.image_size={image_size}: a {config.model_type} reads {_square(config, family)} only."
        )
    if image_size < config.patch_size or image_size % config.patch_size:
        raise ValueError(
            f"foresight.teacher.image_size={image_size} is not a multiple of the encoder's patch {config.patch_size}."
        )


def _square(config: Any, family: EncoderFamily) -> int:
    """Height and width of what it reads, which have to be the same."""
    size = getattr(config, family.size_key)
    sides = set(size) if isinstance(size, list | tuple) else {size}
    if len(sides) > 1:
        raise ValueError(f"an encoder of {size} pixels is not square.")
    return int(sides.pop())
