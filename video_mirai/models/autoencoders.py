"""The diffusers autoencoders a codec can wrap: loading from local folders, and what differs between the classes."""

from __future__ import annotations

import json
import math
from pathlib import Path
from typing import Any, NamedTuple

import torch
from diffusers import AutoencoderDC, AutoencoderKL, AutoencoderKLWan, AutoencoderTiny, ModelMixin
from safetensors import SafetensorError
from safetensors.torch import load_file
from torch import Tensor

AUTOENCODERS: dict[str, type[ModelMixin]] = {
    "AutoencoderDC": AutoencoderDC,
    "AutoencoderKL": AutoencoderKL,
    "AutoencoderKLWan": AutoencoderKLWan,
    "AutoencoderTiny": AutoencoderTiny,
}
STATS_JSON = "latent_stats.json"
STATS_SAFETENSORS = "latent_stats.safetensors"


class LatentStats(NamedTuple):
    """Mean and standard deviation of an autoencoder's raw latents, each (C,)."""

    mean: Tensor
    std: Tensor


def load_autoencoder(path: str | Path, dtype: torch.dtype | None = None) -> ModelMixin:
    """The autoencoder in a local folder (config.json and weights), in the class its config names; nothing is fetched.

    dtype: None = fp32, whatever the file's.
    Raises FileNotFoundError where the folder, config or weights are missing, ValueError for a class that isn't known.
    """
    folder = Path(path)
    if not folder.is_dir():
        raise FileNotFoundError(f"codec folder '{folder}' does not exist.")
    config_file = folder / "config.json"
    if not config_file.is_file():
        hint = (
            f" (its subfolder 'vae' has one: use '{folder / 'vae'}')" if (folder / "vae/config.json").is_file() else ""
        )
        raise FileNotFoundError(f"codec folder '{folder}' has no config.json{hint}.")
    class_name = read_json(config_file).get("_class_name")
    if class_name not in AUTOENCODERS:
        raise ValueError(f"'{config_file}' names class '{class_name}'; known: {', '.join(sorted(AUTOENCODERS))}.")
    if not any(folder.glob("diffusion_pytorch_model*.safetensors")):
        raise FileNotFoundError(f"codec folder '{folder}' has no weights diffusion_pytorch_model*.safetensors.")
    try:
        return AUTOENCODERS[class_name].from_pretrained(
            str(folder), torch_dtype=dtype, local_files_only=True, low_cpu_mem_usage=False
        )
    except (OSError, SafetensorError) as error:
        raise ValueError(f"the weights in codec folder '{folder}' cannot be read: {error}") from error


def save_autoencoder(autoencoder: ModelMixin, path: str | Path) -> None:
    """Writes config.json and the weights."""
    autoencoder.save_pretrained(str(path))
    if isinstance(autoencoder, AutoencoderTiny):
        # diffusers writes a key into this class's config that it warns about at every load.
        settings = read_json(Path(path) / "config.json")
        settings.pop("block_out_channels", None)
        (Path(path) / "config.json").write_text(json.dumps(settings, indent=2) + "\n")


def is_video_autoencoder(autoencoder: ModelMixin) -> bool:
    """Whether it takes whole videos (B, C, T, H, W) and not single frames (B, C, H, W)."""
    return isinstance(autoencoder, AutoencoderKLWan)


def latent_channels(autoencoder: ModelMixin) -> int:
    config = autoencoder.config
    return config.z_dim if is_video_autoencoder(autoencoder) else config.latent_channels


def spatial_factor(autoencoder: ModelMixin) -> int:
    """Pixels per latent position along each side."""
    config = autoencoder.config
    if isinstance(autoencoder, AutoencoderKLWan):
        return config.scale_factor_spatial
    has_one_list = isinstance(autoencoder, AutoencoderKL)
    channels = config.block_out_channels if has_one_list else config.encoder_block_out_channels
    return 2 ** (len(channels) - 1)


def temporal_factor(autoencoder: ModelMixin) -> int:
    """Frames per latent frame, after a first one that stands alone."""
    return autoencoder.config.scale_factor_temporal if is_video_autoencoder(autoencoder) else 1


def raw_latents(autoencoder: ModelMixin, pixels: Tensor) -> Tensor:
    """Deterministic latents, not yet normalised: the mode of the posterior where there is one."""
    encoded = autoencoder.encode(pixels)
    if isinstance(autoencoder, AutoencoderDC):
        return encoded.latent
    return encoded.latents if isinstance(autoencoder, AutoencoderTiny) else encoded.latent_dist.mode()


def read_latent_stats(path: str | Path, autoencoder: ModelMixin) -> LatentStats:
    """Statistics from latent_stats.json or .safetensors (keys mean and std) in the folder, else from the config.

    In the config: latents_mean and latents_std, else scaling_factor and shift_factor, which say the same for all
    channels at once: (z - shift) x scaling.
    """
    config = autoencoder.config
    channels = latent_channels(autoencoder)
    if (Path(path) / STATS_JSON).is_file():
        source, stats = Path(path) / STATS_JSON, read_json(Path(path) / STATS_JSON)
    elif (Path(path) / STATS_SAFETENSORS).is_file():
        source, stats = Path(path) / STATS_SAFETENSORS, load_file(Path(path) / STATS_SAFETENSORS)
    elif config.get("latents_mean") is not None and config.get("latents_std") is not None:
        source, stats = Path(path) / "config.json", {"mean": config.latents_mean, "std": config.latents_std}
    else:
        shift = config.get("shift_factor") or 0.0
        return LatentStats(torch.full((channels,), shift), torch.full((channels,), 1 / config.scaling_factor))
    if not {"mean", "std"} <= set(stats):
        raise ValueError(f"'{source}' needs the keys mean and std; it has {sorted(stats)}.")
    return check_latent_stats(stats["mean"], stats["std"], channels, source)


def check_latent_stats(mean: Any, std: Any, channels: int, source: str | Path) -> LatentStats:
    """The statistics as float32 tensors; ValueError naming the source unless there is one finite pair per channel."""
    stats = LatentStats(torch.as_tensor(mean, dtype=torch.float32), torch.as_tensor(std, dtype=torch.float32))
    fits = all(values.shape == (channels,) and bool(values.isfinite().all()) for values in stats)
    if not fits or not bool((stats.std > 0).all()):
        raise ValueError(
            f"latent statistics from '{source}' need a finite mean and a positive std for each of {channels} channels; "
            f"got shapes {tuple(stats.mean.shape)} and {tuple(stats.std.shape)}, smallest std "
            f"{min(stats.std.flatten().tolist(), default=math.nan):.3g}."
        )
    return stats


def write_latent_stats(path: str | Path, stats: LatentStats) -> None:
    values = {"mean": stats.mean.tolist(), "std": stats.std.tolist()}
    (Path(path) / STATS_JSON).write_text(json.dumps(values, indent=2) + "\n")


def read_json(path: Path) -> dict[str, Any]:
    """A JSON object from a file; ValueError naming the file when it isn't one."""
    try:
        value = json.loads(path.read_text())
    except (json.JSONDecodeError, UnicodeDecodeError) as error:
        raise ValueError(f"'{path}' is not valid JSON: {error}.") from error
    if not isinstance(value, dict):
        raise ValueError(f"'{path}' holds a JSON {type(value).__name__}, not an object.")
    return value
