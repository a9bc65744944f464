"""RunConfig: every setting of a training run, from YAML and key=value overrides, checked key by key.

This file only composes: each dataclass, and so each default, sits beside the class that it configures.
"""

from dataclasses import dataclass, field, fields, is_dataclass
from pathlib import Path
from typing import Any, Literal, TypeVar

import yaml
from omegaconf import DictConfig, MissingMandatoryValue, OmegaConf
from omegaconf.errors import ConfigAttributeError, ConfigKeyError, OmegaConfBaseException

from video_mirai.data.latent_shards import LatentShardsConfig
from video_mirai.data.scenes import ScenesConfig
from video_mirai.data.video_folder import VideoFolderConfig
from video_mirai.models.codecs import CodecConfig
from video_mirai.objectives.flow_matching import ObjectiveConfig
from video_mirai.objectives.foresight import ForesightConfig
from video_mirai.sampling.rollout import RolloutSettings
from video_mirai.training.trainer import TrainConfig
from video_mirai.training.validation import ValidationConfig

Config = TypeVar("Config")


@dataclass
class DataConfig:
    """A data set: `kind` names the block below that is read; the others may stay filled."""

    kind: Literal["video_folder", "scenes", "latent_shards"]
    video_folder: VideoFolderConfig | None = None
    scenes: ScenesConfig | None = None
    latent_shards: LatentShardsConfig | None = None


@dataclass
class ModelConfig:
    """Size and kind of the student; None = CausalVideoDiT's own default.

    Attributes:
        text_dim: width of the context; null for a model without one.
        in_channels: None = the codec's latent channels; given, it is checked against them.
        init_from: a run, its export folder, `asset:<name>` or a diffusers Wan transformer to start from.
    """

    patch_size: tuple[int, int, int]
    num_attention_heads: int
    attention_head_dim: int
    ffn_dim: int
    num_layers: int
    text_dim: int | None
    prediction_type: Literal["velocity", "data"]
    in_channels: int | None = None
    freq_dim: int | None = None
    sigma_floor: float | None = None
    attention_backend: str | None = None
    init_from: str | None = None


@dataclass
class RunConfig:
    """One training run, written to `output_dir`/`name`.

    Attributes:
        validation_data: None = the training data's own held-out part (split "val").
        foresight: None = no predictor, no teacher.
        resume: "auto" (the newest checkpoint, if there is one), "none", or a checkpoint folder.
        rollout: how this model generates, in validation and, from the export, everywhere else.
        license: of the exported weights, for their model card: an identifier of the Hub, such as apache-2.0.
    """

    name: str
    data: DataConfig
    model: ModelConfig
    codec: CodecConfig = field(default_factory=CodecConfig)
    objective: ObjectiveConfig = field(default_factory=ObjectiveConfig)
    foresight: ForesightConfig | None = None
    train: TrainConfig = field(default_factory=TrainConfig)
    validation_data: DataConfig | None = None
    validation: ValidationConfig = field(default_factory=ValidationConfig)
    rollout: RolloutSettings = field(default_factory=RolloutSettings)
    output_dir: str = "runs"
    resume: str = "auto"
    seed: int = 0
    license: str = "unknown"


def load_config(cls: type[Config], path: str | Path | None, overrides: list[str] | None = None) -> Config:
    """An instance of the dataclass `cls` from a YAML file and `key.path=value` overrides.

    A YAML file may name another, relative to itself, as `base: other.yaml`; its own keys win. Without a file (None) the
    dataclass's defaults are what the overrides change.

    Raises:
        FileNotFoundError: the file, or one it is based on, is missing.
        ValueError: unknown key, wrong type or missing value; the message starts with its full path.
    """
    tree = {} if path is None else _read_with_bases(Path(path), seen=())
    merged = _merge_tree(OmegaConf.structured(cls), tree, origin=str(path))
    for override in overrides or []:
        key, separator, text = override.partition("=")
        if not separator or not key:
            raise ValueError(f"override {override!r} is not of the form key.path=value.")
        merged = _merge_one(merged, key, _parse_value(key, text), origin="command line")
    try:
        return OmegaConf.to_object(merged)  # type: ignore[return-value]
    except MissingMandatoryValue as error:
        raise ValueError(
            f"{error.full_key}: no value given in {path or 'key=value'} and there is no default."
        ) from error
    except OmegaConfBaseException as error:
        raise ValueError(f"{path}: {_first_line(error)}") from error


def save_config(config: Any, path: str | Path) -> None:
    """Write a dataclass instance as YAML that `load_config` reads back equal."""
    Path(path).write_text(OmegaConf.to_yaml(OmegaConf.structured(config)))


def config_to_yaml(config: Any) -> str:
    """The YAML of a dataclass instance."""
    return OmegaConf.to_yaml(OmegaConf.structured(config))


def changed_settings(before: str, now: str) -> dict[str, str]:
    """{full key: "key=new (was old)"} of every setting in which two resolved YAML texts differ.

    Raises:
        ValueError: one of them is no YAML of keys and values.
    """
    old, new = (dict(_leaves(_read_tree(text))) for text in (before, now))
    keys = [*new, *(key for key in old if key not in new)]
    return {key: f"{key}={new.get(key)} (was {old.get(key)})" for key in keys if new.get(key) != old.get(key)}


def _read_tree(text: str) -> dict[str, Any]:
    try:
        return _plain(OmegaConf.create(text))
    except (yaml.YAMLError, OmegaConfBaseException) as error:
        raise ValueError(f"not valid YAML: {_first_line(error)}") from error


def _read_with_bases(path: Path, seen: tuple[Path, ...]) -> dict[str, Any]:
    """The YAML tree of a file, merged onto that of its base."""
    if not path.is_file():
        what = "is a folder; name a file in it" if path.is_dir() else "does not exist"
        raise FileNotFoundError(f"config file {path} {what}.")
    if path.resolve() in seen:
        raise ValueError(f"{path}: its chain of `base` files leads back to itself.")
    try:
        loaded = OmegaConf.load(path)
    except (yaml.YAMLError, UnicodeDecodeError) as error:
        raise ValueError(f"{path}: not valid YAML: {_first_line(error)}") from error
    if not isinstance(loaded, DictConfig):
        raise ValueError(f"{path}: expected keys and values at the top level.")
    base = loaded.pop("base", None)
    if base is None:
        return _plain(loaded)
    below = _read_with_bases(path.parent / str(base), (*seen, path.resolve()))
    return _plain(OmegaConf.merge(below, loaded))


def _plain(tree: Any) -> dict[str, Any]:
    return OmegaConf.to_container(tree, resolve=False)  # type: ignore[return-value]


def _leaves(tree: dict[str, Any], prefix: str = "") -> list[tuple[str, Any]]:
    """(full key, value) of everything that is not a non-empty mapping."""
    found: list[tuple[str, Any]] = []
    for key, value in tree.items():
        full_key = f"{prefix}{key}"
        if isinstance(value, dict) and value:
            found += _leaves(value, f"{full_key}.")
        else:
            found.append((full_key, value))
    return found


def _merge_tree(merged: Any, tree: dict[str, Any], origin: str) -> Any:
    """All at once, a fraction of the time; value by value only where one of them has to be found and named."""
    try:
        return OmegaConf.merge(merged, tree)
    except (OmegaConfBaseException, TypeError, ValueError):
        for key, value in _leaves(tree):
            merged = _merge_one(merged, key, value, origin)
        return merged


def _merge_one(merged: Any, key: str, value: Any, origin: str) -> Any:
    """Merge a single value, so that any error can name exactly its key."""
    nested: Any = value
    for part in reversed(key.split(".")):
        nested = {part: nested}
    try:
        return OmegaConf.merge(merged, nested)
    except (ConfigKeyError, ConfigAttributeError) as error:
        unknown = error.full_key or key
        raise ValueError(f"{unknown}: unknown key ({origin}); known here: {_known_keys(error)}.") from error
    except (OmegaConfBaseException, TypeError, ValueError) as error:
        raise ValueError(f"{key}: {_first_line(error)} ({origin}).") from error


def _known_keys(error: OmegaConfBaseException) -> str:
    cls = error.object_type
    if isinstance(cls, type) and is_dataclass(cls):
        return ", ".join(entry.name for entry in fields(cls))
    return "nothing"


def _parse_value(key: str, text: str) -> Any:
    try:
        return OmegaConf.to_container(OmegaConf.from_dotlist([f"value={text}"]))["value"]  # type: ignore[index,call-overload]
    except (yaml.YAMLError, OmegaConfBaseException) as error:
        raise ValueError(f"{key}: cannot read the value {text!r} (command line): {_first_line(error)}") from error


def _first_line(error: BaseException) -> str:
    return str(error).strip().splitlines()[0].rstrip(".") if str(error).strip() else type(error).__name__
