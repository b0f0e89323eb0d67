"""Captions as CLIP's token ids (specs: TeachCLIP 6, text)."""

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from functools import cache, lru_cache
from heapq import heapify, heappop, heappush
from itertools import islice, pairwise

import regex
import torch
from open_clip.tokenizer import SimpleTokenizer
from torch import Tensor

PAD = 0  # also the id of "!"; the mask tells them apart
VOCABULARY = 49408

LONGEST = 32
"""Letters (bytes) of the longest part in CLIP's table."""

_END = "</w>"  # of a word, on its last letter
_SPECIAL = ("<|startoftext|>", "<|endoftext|>")


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
        tokens = [tokenizer.sot, *islice(tokenizer.tokens(caption, words - 2), words - 2), tokenizer.eot]
        ids[row, : len(tokens)] = torch.tensor(tokens)
        lengths[row] = len(tokens)
    return ids, torch.arange(words) < lengths


def tokenize_telling(sentences: Sequence[str], words: int) -> tuple[Tensor, Tensor]:
    """As `tokenize`, for sentences that people ask with: ids int64 [T, W], and which of the T sentences are longer than
    W slots hold, bool [T]."""
    ids, mask = tokenize(sentences, words + 1)
    cut = mask.all(dim=1)  # one token more than the model reads
    ids[cut, -2] = ids[cut, -1]  # the end of the sentence comes where the model stops reading
    return ids[:, :-1].contiguous(), cut


def lengths(ids: Tensor) -> Tensor:
    """How many of each caption's token ids [T, W] are words [T]: up to EOT, the largest id, the first of them."""
    return ids.argmax(-1) + 1


def without_padding(ids: Tensor) -> Tensor:
    """Token ids [T, W] on the CPU without the columns behind the longest caption; a GPU would have to be waited for."""
    return ids[:, : int(lengths(ids).max())] if len(ids) else ids


def tables() -> tuple[dict[str, int], list[str]]:
    """CLIP's words: the id of every token, with the two special ones under OpenAI's names, and the pairs of parts that
    become one, by rank, `a b`."""
    theirs = _tokenizer().theirs
    special = {_tokenizer().sot: _SPECIAL[0], _tokenizer().eot: _SPECIAL[1]}
    tokens = {special.get(number, token): number for token, number in theirs.encoder.items()}
    return tokens, [" ".join(pair) for pair in sorted(theirs.bpe_ranks, key=theirs.bpe_ranks.__getitem__)]


def special_ids() -> dict[str, int]:
    """The ids before, behind and beyond a caption's words."""
    return {"start": _tokenizer().sot, "end": _tokenizer().eot, "padding": PAD}


def merged(letters: Sequence[str], ranks: Mapping[tuple[str, str], int]) -> list[str]:
    """Parts of a word after byte-pair encoding: of all neighbours the pair of the lowest rank becomes one, the leftmost
    first, until no pair has a rank.

    open_clip looks through the whole word for each merge, which takes 5 to 17 s for 20,000 letters. Here a heap of
    (rank, place) yields the same merges in the same order, in n log n: a rank's pairs are made of letters and of what
    lower ranks made, and no two ranks make the same part (a test goes through CLIP's table), so a merge never brings
    about a pair of its own rank or a lower one.
    """
    parts: list[str | None] = list(letters)
    before, after = list(range(-1, len(parts) - 1)), list(range(1, len(parts) + 1))
    heap = [(ranks[pair], place, *pair) for place, pair in enumerate(pairwise(letters)) if pair in ranks]
    heapify(heap)
    while heap:
        _, place, first, second = heappop(heap)
        following = after[place]
        if parts[place] != first or following == len(parts) or parts[following] != second:
            continue  # one of the two has been merged with another meanwhile
        parts[place], parts[following] = first + second, None
        after[place] = following = after[following]
        if following < len(parts):
            before[following] = place
        for left, right in ((before[place], place), (place, following)):
            if left >= 0 and right < len(parts):
                pair = (str(parts[left]), str(parts[right]))
                if pair in ranks:
                    heappush(heap, (ranks[pair], left, *pair))
    return [part for part in parts if part is not None]


@dataclass(frozen=True)
class _Tokenizer:
    """open_clip's tokenizer, with the names that OpenAI gives the two special tokens, so that captions which contain
    them are read as the published code reads them."""

    theirs: SimpleTokenizer
    pattern: "regex.Pattern[str]"
    sot: int
    eot: int

    def tokens(self, caption: str, wanted: int) -> Iterator[int]:
        """Ids of a caption's tokens, one word after the other, as far as they are asked for; at least `wanted`, where
        there are so many."""
        for found in self.pattern.finditer(self.theirs.clean_fn(caption)):
            yield from _word(found.group(), wanted)


@cache
def _tokenizer() -> _Tokenizer:
    theirs = SimpleTokenizer()
    special = "|".join(regex.escape(name) for name in _SPECIAL)
    pattern = regex.compile(
        rf"{special}|'s|'t|'re|'ve|'m|'ll|'d|[\p{{L}}]+|[\p{{N}}]|[^\s\p{{L}}\p{{N}}]+", regex.IGNORECASE
    )
    return _Tokenizer(theirs, pattern, theirs.sot_token_id, theirs.eot_token_id)


@lru_cache(2**16)
def _word(word: str, wanted: int) -> tuple[int, ...]:
    """Ids of the tokens of one word; of a very long one perhaps only the first `wanted`."""
    tokenizer = _tokenizer()
    if word in _SPECIAL:
        return ((tokenizer.sot, tokenizer.eot)[_SPECIAL.index(word)],)
    theirs = tokenizer.theirs
    letters = [theirs.byte_encoder[byte] for byte in word.encode()]
    letters[-1] += _END
    return tuple(theirs.encoder[part] for part in _beginning(letters, wanted))


def _beginning(letters: Sequence[str], wanted: int) -> Sequence[str]:
    """The first `wanted` parts of a word, or all of them.

    The first thousand letters alone would not do: how a word begins can depend on its end, however far (a chain of
    pairs, each of a lower rank than the one before, is merged from the right). But where one part of the word ends and
    another begins, no merge went across; so what lies before was merged as if nothing followed. No part is longer than
    LONGEST letters: at one of any LONGEST letters in a row a part ends. If the word cut after each of these begins with
    the same parts, so does the whole word. Fewer than twice the letters it has are spent on this; where cuts do not
    agree, the whole word is merged.
    """
    ranks = _tokenizer().theirs.bpe_ranks
    cut = 2 * LONGEST
    while cut * LONGEST < len(letters):
        found = {tuple(merged(letters[:end], ranks)[:wanted]) for end in range(cut - LONGEST + 1, cut + 1)}
        if len(found) == 1 and len(first := found.pop()) == wanted:
            return first
        cut *= 2
    return merged(letters, ranks)
