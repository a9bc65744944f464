"""A text encoder with random weights, in the folders of a diffusers pipeline."""

from collections.abc import Sequence
from pathlib import Path

import pytest


def write_text_encoder(folder: Path, captions: Sequence[str]) -> None:
    """A pipeline's folders text_encoder/ and tokenizer/, tiny, with a vocabulary of the captions' words."""
    transformers = pytest.importorskip("transformers")
    tokenizers = pytest.importorskip("tokenizers")
    words = sorted({word for caption in captions for word in caption.split()})
    vocabulary = {word: number for number, word in enumerate(["<pad>", "</s>", "<unk>", *words])}
    model = tokenizers.Tokenizer(tokenizers.models.WordLevel(vocabulary, unk_token="<unk>"))
    model.pre_tokenizer = tokenizers.pre_tokenizers.Whitespace()
    model.post_processor = tokenizers.processors.TemplateProcessing(single="$A </s>", special_tokens=[("</s>", 1)])
    tokenizer = transformers.PreTrainedTokenizerFast(
        tokenizer_object=model, pad_token="<pad>", eos_token="</s>", unk_token="<unk>"
    )
    tokenizer.save_pretrained(folder / "tokenizer")
    config = transformers.T5Config(
        vocab_size=len(vocabulary), d_model=8, d_kv=4, d_ff=8, num_layers=1, num_heads=2, pad_token_id=0
    )
    transformers.T5EncoderModel(config).save_pretrained(folder / "text_encoder")
