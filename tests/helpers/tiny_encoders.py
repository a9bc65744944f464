"""Random checkpoints of pretrained encoders' architectures, small enough to read in milliseconds."""

from pathlib import Path

import torch
from transformers import AutoModel, Dinov2Config, PreTrainedModel, VideoMAEConfig, VJEPA2Config

WIDTH, LAYERS = 24, 3
SIZES = {"hidden_size": WIDTH, "num_hidden_layers": LAYERS, "num_attention_heads": 2}
CONFIGS = {
    "dinov2": Dinov2Config(**SIZES, image_size=28, patch_size=7, mlp_ratio=2),
    "videomae": VideoMAEConfig(**SIZES, image_size=16, patch_size=4, num_frames=4, intermediate_size=48),
    "vjepa2": VJEPA2Config(
        **SIZES,
        crop_size=16,
        patch_size=4,
        frames_per_clip=8,
        mlp_ratio=2,
        pred_hidden_size=24,
        pred_num_attention_heads=2,
        pred_num_hidden_layers=1,
        num_pooler_layers=1,
    ),
}


def tiny_encoder(family: str) -> PreTrainedModel:
    torch.manual_seed(3)
    return AutoModel.from_config(CONFIGS[family]).eval()


def write_encoder(family: str, folder: Path) -> Path:
    tiny_encoder(family).save_pretrained(folder)
    return folder
