"""Captions as CLIP's token ids (specs: TeachCLIP 6, text)."""

from collections.abc import Sequence
from functools import cache
from typing import Any

import regex
import torch
from open_clip.tokenizer import SimpleTokenizer
from torch import Tensor

PAD = 0  # also the id of "!"; the mask tells them apart
VOCABULARY = 49408


def tokenize(captions: Sequence[str], words: int) -> tuple[Tensor, Tensor]:
    """Token ids of captions, cut to fit and padded.

    Args:
        captions: T sentences.
        words: W slots a caption; a caption keeps its first W - 2 tokens between SOT and EOT.

    Returns:
        ids int64 [T, W], padded with 0, and the mask of real tokens, bool [T, W].
    """
    tokenizer = _tokenizer()
    ids = torch.full((len(captions), words), PAD, dtype=torch.int64)
    lengths = torch.zeros(len(captions), 1, dtype=torch.int64)
    for row, caption in enumerate(captions):
        tokens = [tokenizer.sot_token_id, *tokenizer.encode(caption)[: words - 2], tokenizer.eot_token_id]
        ids[row, : len(tokens)] = torch.tensor(tokens)
        lengths[row] = len(tokens)
    return ids, torch.arange(words) < lengths


@cache
def _tokenizer() -> Any:
    """open_clip's tokenizer, with the names that OpenAI gives the two special tokens, so that captions which contain
    them are read as the published code reads them."""
    tokenizer = SimpleTokenizer()
    ids = (tokenizer.sot_token_id, tokenizer.eot_token_id)
    names = ("<|startoftext|>", "<|endoftext|>")
    tokenizer.encoder.update(zip(names, ids, strict=True))
    tokenizer.cache = {name: name for name in names}
    special = "|".join(regex.escape(name) for name in names)
    tokenizer.pat = regex.compile(
        rf"{special}|'s|'t|'re|'ve|'m|'ll|'d|[\p{{L}}]+|[\p{{N}}]|[^\s\p{{L}}\p{{N}}]+", regex.IGNORECASE
    )
    return tokenizer
