"""Very long words: the same tokens as open_clip's own tokenizer finds, in a fraction of its time."""

import time
from itertools import pairwise

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from open_clip.tokenizer import SimpleTokenizer
from teachclip.stages.models.clip import tokens
from teachclip.stages.models.clip.tokens import LONGEST, merged, tokenize

THEIRS = SimpleTokenizer()
"""open_clip's, with OpenAI's names of the special tokens."""
NAMES = {"<|startoftext|>": THEIRS.sot_token_id, "<|endoftext|>": THEIRS.eot_token_id}
THEIRS.encoder.update(NAMES)
THEIRS.cache = {name: name for name in NAMES}
THEIRS.pat = tokens._tokenizer().pattern

BYTES = list(THEIRS.byte_encoder.values())

texts = st.one_of(
    st.text(max_size=300),
    st.text("ab", max_size=300),
    st.text("etaoinshr' !1é日🙂", max_size=300),
    st.text("aehilnorst", min_size=100, max_size=300),
    st.lists(st.sampled_from(["the", "ing", "haha", "!!", "ーー", "é", "&amp;", " ", *NAMES]), max_size=100).map(
        "".join
    ),
    st.tuples(st.text(max_size=4), st.integers(1, 80)).map(lambda each: each[0] * each[1]),
)


def _theirs(caption: str, words: int) -> list[int]:
    return [THEIRS.sot_token_id, *THEIRS.encode(caption)[: words - 2], THEIRS.eot_token_id]


def _ours(caption: str, words: int) -> list[int]:
    ids, mask = tokenize([caption], words)
    return ids[mask].tolist()


@settings(max_examples=300, deadline=None)
@given(texts, st.sampled_from([3, 8, 32, 77, 1000]))
def test_every_text_has_the_tokens_of_the_untruncated_tokenizer(text: str, words: int) -> None:
    assert _ours(text, words) == _theirs(text, words)


@settings(max_examples=150, deadline=None)
@given(texts, st.integers(1, 30))
def test_cut_words_begin_as_whole_words_do(text: str, wanted: int) -> None:
    """With parts of at most 4 letters, as a table of short merges has them, cuts come into play at a few letters."""
    ranks = {pair: rank for pair, rank in THEIRS.bpe_ranks.items() if len("".join(pair).removesuffix("</w>")) <= 4}
    letters = [THEIRS.byte_encoder[byte] for byte in text.encode("utf-8", "replace")] or ["a"]
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(tokens, "LONGEST", 4)
        patch.setattr(tokens._tokenizer().theirs, "bpe_ranks", ranks)
        found = list(tokens._beginning(letters, wanted))
    assert found[:wanted] == merged(letters, ranks)[:wanted]
    assert len(found) >= min(wanted, len(merged(letters, ranks)))


def test_a_beginning_that_hangs_on_the_far_end_is_not_cut() -> None:
    """a1 a2 a3 ...: each pair of a lower rank than the one before, so that the end decides how all letters pair up."""
    names = [f"<{place}>" for place in range(600)]
    for length in (599, 600):
        letters = names[:length]
        ranks = {pair: -place for place, pair in enumerate(pairwise(names))}
        with pytest.MonkeyPatch.context() as patch:
            patch.setattr(tokens, "LONGEST", 2)
            patch.setattr(tokens._tokenizer().theirs, "bpe_ranks", ranks)
            assert tokens._beginning(letters, 5)[0] == ("<0>" if length % 2 else "<0><1>")


def test_the_reasons_given_hold_of_clips_table() -> None:
    """No part is made by two merges, nor before its own parts are; none is longer than LONGEST."""
    made_at = dict.fromkeys([*BYTES, *(f"{letter}</w>" for letter in BYTES)], -1)
    for (first, second), rank in THEIRS.bpe_ranks.items():
        assert made_at[first] < rank
        assert made_at[second] < rank
        assert first + second not in made_at
        made_at[first + second] = rank
    assert max(len(part.removesuffix("</w>")) for part in made_at) == LONGEST


@pytest.mark.parametrize("word", ["a", "the", "日", "!", "abcdefghij", "1", "é x "])
def test_a_word_of_a_million_letters_takes_no_longer_than_a_long_one(word: str) -> None:
    caption = (word * 1_000_000)[:1_000_000]
    start = time.process_time()
    ids, mask = tokenize([caption], 32)
    assert time.process_time() - start < 4
    assert mask.all()
    assert ids.equal(tokenize([caption[:3000]], 32)[0])


def test_special_names_are_read_as_the_published_code_reads_them() -> None:
    ids, _ = tokenize(["<|startoftext|> a <|ENDOFTEXT|>"], 8)
    assert ids.tolist() == [[49406, 49406, 320, 49407, 49407, 0, 0, 0]]
    assert tokenize(["<start_of_text>"], 12)[1].sum() == 9  # < start _ of _ text >, which is open_clip's name alone
