"""Text embeddings through transformers: the encoder and the tokenizer that a folder holds."""

from __future__ import annotations

import hashlib
from functools import lru_cache
from importlib.util import find_spec
from pathlib import Path

import numpy as np
import torch

WEIGHTS = "*.safetensors"
TOKENIZER_FOLDER = "tokenizer"  # beside text_encoder/ in diffusers' pipelines
TOKENIZER_FILES = ("tokenizer.json", "tokenizer_config.json", "spiece.model", "vocab.txt", "vocab.json")


class TextEncoder:
    """Captions to embeddings (max_tokens, D) float32, zero after the caption's last token, as Wan has them.

    Longer captions are cut. Nothing is downloaded, no code of the folder's is run, and nothing is unpickled: weights
    are safetensors. Raises ValueError for a folder without encoder, tokenizer or safetensors.
    """

    def __init__(self, folder: Path, max_tokens: int, device: str) -> None:
        check_folder(folder)
        from safetensors import SafetensorError
        from transformers import AutoModelForTextEncoding, AutoTokenizer

        local = {"local_files_only": True, "trust_remote_code": False}
        try:
            self._tokenizer = AutoTokenizer.from_pretrained(tokenizer_folder(folder), padding_side="right", **local)
            model = AutoModelForTextEncoding.from_pretrained(folder, use_safetensors=True, dtype="auto", **local)
        except (OSError, ValueError, LookupError, TypeError, ImportError, RuntimeError, SafetensorError) as error:
            raise ValueError(f"--text-encoder {folder}: transformers cannot load it ({error}).") from error
        self._model = model.eval().requires_grad_(False).to(device)
        self._max_tokens = max_tokens
        self._device = device
        self.encode = lru_cache(maxsize=64)(self._encode)  # captions made from folders are few

    def _encode(self, caption: str) -> np.ndarray:
        tokens = self._tokenizer(
            " ".join(caption.encode(errors="replace").decode().split()),  # JSON can spell what is no Unicode
            padding="max_length",
            max_length=self._max_tokens,
            truncation=True,
            return_attention_mask=True,
            return_tensors="pt",
        ).to(self._device)
        with torch.no_grad():
            hidden = self._model(input_ids=tokens.input_ids, attention_mask=tokens.attention_mask).last_hidden_state
        embedding = hidden[0].float() * tokens.attention_mask[0, :, None]  # (L, D)
        return embedding.cpu().numpy()

    @staticmethod
    def fingerprint(folder: Path, max_tokens: int) -> str:
        """sha256 of all that decides the embeddings: the files of encoder and tokenizer, and the length."""
        check_folder(folder)
        digest = hashlib.sha256(f"{max_tokens}".encode())
        for part in dict.fromkeys((folder, tokenizer_folder(folder))):
            for path in sorted(path for path in part.iterdir() if is_counted(path)):
                digest.update(path.name.encode())
                with path.open("rb") as file:
                    while block := file.read(1 << 20):
                        digest.update(block)
        return digest.hexdigest()


def is_counted(path: Path) -> bool:
    """Whether a file of the folder can decide anything."""
    return path.is_file() and path.suffix != ".md" and not path.name.startswith(".")


def check_folder(folder: Path) -> None:
    """ValueError for what can be seen without opening anything."""
    if find_spec("transformers") is None:
        raise ValueError('--text-encoder needs transformers: pip install "video-mirai[hf]".')
    if not (folder / "config.json").is_file():
        raise ValueError(f"--text-encoder {folder}: no folder with a config.json; nothing is downloaded.")
    if not list(folder.glob(WEIGHTS)):
        raise ValueError(f"--text-encoder {folder}: holds no {WEIGHTS}; weights that must be unpickled are not read.")
    tokenizer_folder(folder)


def tokenizer_folder(folder: Path) -> Path:
    """The folder itself, or its neighbour in a diffusers pipeline."""
    for candidate in (folder, folder.parent / TOKENIZER_FOLDER):
        if any((candidate / name).is_file() for name in TOKENIZER_FILES):
            return candidate
    raise ValueError(f"--text-encoder {folder}: no tokenizer in it, nor in {folder.parent / TOKENIZER_FOLDER}.")
