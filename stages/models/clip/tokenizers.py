"""What makes token ids of captions: CLIP's own words (tokens.py), or a tokenizer of the Hugging Face hub."""

import json
from collections.abc import Mapping, Sequence
from functools import cached_property, lru_cache
from pathlib import Path
from typing import Any, Protocol

import torch
from open_clip.tokenizer import HFTokenizer
from torch import Tensor

from ....errors import UnreachableError
from ...runtime.plugins import needs
from .hub import quiet_hub, why_out_of_reach
from .tokens import VOCABULARY, special_ids, tables, tokenize, tokenize_telling


class Tokenizer(Protocol):
    """Captions -> token ids.

    Attributes:
        vocabulary: ids are below it; 0 where nobody knows before it is loaded.
    """

    vocabulary: int

    def __call__(self, captions: Sequence[str], words: int) -> Tensor:
        """Token ids int64 [T, W] of T captions, cut and padded to W = `words` slots."""
        ...

    def telling(self, sentences: Sequence[str], words: int) -> tuple[Tensor, Tensor]:
        """The same ids, and which of the sentences are longer than the slots hold, bool [T]."""
        ...

    def save(self, folder: Path) -> dict[str, object]:
        """Write what other programs make the same ids with; what it is, as JSON values."""
        ...


class ClipTokenizer:
    """CLIP's own."""

    vocabulary = VOCABULARY

    def __call__(self, captions: Sequence[str], words: int) -> Tensor:
        """See `Tokenizer`."""
        return tokenize(captions, words)[0]

    def telling(self, sentences: Sequence[str], words: int) -> tuple[Tensor, Tensor]:
        """See `Tokenizer`."""
        return tokenize_telling(sentences, words)

    def save(self, folder: Path) -> dict[str, object]:
        """See `Tokenizer`: `vocab.json` and `merges.txt`, as the Hugging Face tokenizer of CLIP reads them."""
        tokens, merges = tables()
        (folder / "vocab.json").write_text(json.dumps(tokens, ensure_ascii=False), encoding="utf-8")
        (folder / "merges.txt").write_text("\n".join(["#version: 0.2", *merges, ""]), encoding="utf-8")
        return {"kind": "clip", "files": ["vocab.json", "merges.txt"], **special_ids()}


class HubTokenizer:
    """One of the hub's, as open_clip calls it; read when the first caption comes.

    Args:
        name: its repository, or a folder on the disk.
        settings: those of a model's `text_cfg`: `tokenizer_mode`, `tokenizer_kwargs`.
    """

    vocabulary = 0

    def __init__(self, name: str, settings: Mapping[str, Any]) -> None:
        self.name = name
        self._mode = settings.get("tokenizer_mode")
        self._options = dict(settings.get("tokenizer_kwargs") or {})

    def __call__(self, captions: Sequence[str], words: int) -> Tensor:
        """See `Tokenizer`.

        Raises:
            ConfigError: transformers is not installed.
            UnreachableError: the tokenizer is not here and cannot be fetched.
        """
        ids: Tensor = self._theirs(list(captions), context_length=words) if captions else torch.zeros(0, words)
        return ids.long()

    def telling(self, sentences: Sequence[str], words: int) -> tuple[Tensor, Tensor]:
        """See `Tokenizer`."""
        theirs = self._theirs
        cleaned = [theirs.clean_fn(sentence) for sentence in sentences]
        lengths = [len(ids) for ids in theirs.tokenizer(cleaned).input_ids] if cleaned else []
        return self(sentences, words), torch.tensor(lengths, dtype=torch.int64) > words

    def save(self, folder: Path) -> dict[str, object]:
        """See `Tokenizer`: its own files, as the hub has them."""
        before = set(folder.iterdir())
        self._theirs.tokenizer.save_pretrained(folder)
        files = sorted(path.name for path in set(folder.iterdir()) - before)
        return {"kind": "huggingface", "files": files, "name": self.name, "mode": self._mode, "options": self._options}

    @cached_property
    def _theirs(self) -> HFTokenizer:
        return _hub_tokenizer(self.name, self._mode, tuple(sorted(self._options.items())))


@lru_cache(4)
def _hub_tokenizer(name: str, mode: str | None, options: tuple[tuple[str, Any], ...]) -> HFTokenizer:
    needs("transformers", "hf", "train.network.trunk", f"the tokenizer {name}")
    try:
        with quiet_hub():
            return HFTokenizer(name, tokenizer_mode=mode, **dict(options))
    except Exception as error:  # a missing network shows as many kinds of errors
        reason = why_out_of_reach(name, "tokenizer_config.json") or f"{type(error).__name__}: {error}".split("\n")[0]
        raise UnreachableError(
            f"the tokenizer {name}, whose words this trunk reads, is not here and cannot be fetched",
            where="train.network.trunk",
            details=[reason],
            hint="fetch it where the network is, into the hub's cache (HF_HUB_CACHE), and bring that here",
        ) from error


def tokenizer_of(text: Mapping[str, Any]) -> Tokenizer:
    """The tokenizer of a text tower, by its description (open_clip's `text_cfg`)."""
    name = text.get("hf_tokenizer_name")
    return HubTokenizer(name, text) if name else ClipTokenizer()
