"""Token ids and masks, exactly those of the published tokenizer."""

import numpy as np
import pytest
from teachclip.stages.models.clip.tokens import tokenize


def _strings(golden) -> list[str]:
    data, lengths = golden["in/strings_utf8"].tobytes(), golden["in/strings_len"]
    ends = np.cumsum(lengths)
    return [data[end - length : end].decode() for end, length in zip(ends, lengths, strict=True)]


@pytest.mark.golden("tokens")
def test_tokens_equal_the_published_tokenizer(golden) -> None:
    strings = _strings(golden)
    lengths = [int(key.removeprefix("out/ids_")) for key in golden.keys if key.startswith("out/ids_")]
    assert lengths
    for words in lengths:
        ids, mask = tokenize(strings, words)
        np.testing.assert_array_equal(ids.numpy(), golden[f"out/ids_{words}"])
        np.testing.assert_array_equal(mask.numpy(), golden[f"out/mask_{words}"].astype(bool))


@pytest.mark.golden("tokens")
def test_uncut_tokens_equal_the_published_tokenizer(golden) -> None:
    strings, longest = _strings(golden), int(golden["out/full_len"].max())
    ids, mask = tokenize(strings, longest + 2)
    np.testing.assert_array_equal(mask.sum(1).numpy() - 2, golden["out/full_len"])
    bare = np.concatenate([row[1 : n + 1] for row, n in zip(ids.numpy(), golden["out/full_len"], strict=True)])
    np.testing.assert_array_equal(bare, golden["out/full_flat"])
