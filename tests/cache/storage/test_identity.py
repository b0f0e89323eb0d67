"""Digests and identities: what they stand for, to the bit, and how a difference is told."""

import hashlib
import json

import numpy as np
import pytest
from teachclip.cache.storage.identity import (
    array_digest,
    canonical,
    differences,
    digest,
    digest_of,
    flatten,
    identity_digest,
    refuse_difference,
    text_digest,
)
from teachclip.errors import CacheMismatchError


def blake(data: bytes) -> bytes:
    return hashlib.blake2b(data, digest_size=16).digest()


def test_a_digest_is_blake2b_of_the_parts_in_their_order() -> None:
    assert digest(b"one", memoryview(b"two")) == blake(b"onetwo")
    assert digest() == blake(b"")


def test_where_a_part_ends_counts() -> None:
    """Each part stands behind its length in eight bytes, little-endian."""
    assert digest_of(["ab", b"c"]) == blake(b"\2\0\0\0\0\0\0\0ab" + b"\1\0\0\0\0\0\0\0c").hex()
    assert digest_of(["ab", "c"]) == digest_of([b"ab", b"c"])
    assert digest_of(["a", "bc"]) != digest_of(["ab", "c"])
    assert digest_of(["é\udcff"]) == digest_of([b"\xc3\xa9\xed\xb3\xbf"])  # a name that is no UTF-8 on disk


def test_a_caption_is_its_utf8_bytes() -> None:
    assert text_digest(" Ein Hund läuft ") == blake(" Ein Hund läuft ".encode())
    assert text_digest("\ud800") == blake(b"\xed\xa0\x80")


def test_an_array_is_its_type_shape_and_values() -> None:
    values = np.arange(6, dtype="<i4").reshape(2, 3)
    expected = blake(b"<i4[2, 3];" + values.tobytes())
    assert array_digest(values) == expected
    assert array_digest(values.astype(">i4")) == expected
    assert array_digest(np.asfortranarray(values)) == expected
    assert array_digest(values[:, ::-1]) == blake(b"<i4[2, 3];" + values[:, ::-1].tobytes())
    half = np.ones(2, np.float16)
    assert array_digest(values, half) == blake(b"<i4[2, 3];" + values.tobytes() + b"<f2[2];" + half.tobytes())


def test_a_document_is_written_in_one_way() -> None:
    document = {"b": [1, 2.5, None, True], "a": {"z": "é", "y": 0}}
    assert canonical(document) == b'{"a":{"y":0,"z":"\\u00e9"},"b":[1,2.5,null,true]}'
    assert identity_digest(document) == blake(canonical(document)).hex()
    with pytest.raises(ValueError, match="JSON"):
        canonical({"a": float("nan")})


def test_nested_identities_become_flat() -> None:
    nested = {"frames": {"choice": "head", "times": {"first": 0}}, "seed": 1, "list": [{"a": 1}]}
    assert flatten(nested) == {"frames.choice": "head", "frames.times.first": 0, "seed": 1, "list": [{"a": 1}]}
    assert flatten({"a": 1}, "network.") == {"network.a": 1}


def test_differences_name_each_field_with_both_values_in_order() -> None:
    assert differences({"a": 1, "b": "x", "d": None, "e": 5}, {"e": 5, "c": [2], "b": "y", "d": None}) == [
        "a: the cache has none, now it is 1",
        'b: the cache has "y", now it is "x"',
        "c: the cache has [2], now it is not set",
    ]
    assert differences({"a": None}, {}) == ["a: the cache has none, now it is null"]
    assert differences({"a": 1}, {"a": True}) == ["a: the cache has true, now it is 1"]
    assert differences({"a": 1}, {"a": 2}, "the run") == ["a: the run has 2, now it is 1"]
    assert differences({"a": 1}, {}, "this store", "the other has") == ["a: this store has none, the other has 1"]


def test_a_cache_of_something_else_is_refused_by_field() -> None:
    refuse_difference({"a": 1}, {"a": 1}, "here")
    expected, found = {"a": 1, "b": 2, "c": 3}, {"a": 1, "b": 3, "c": 4}
    with pytest.raises(CacheMismatchError, match=r"made from something else \(b, c\)") as caught:
        refuse_difference(expected, found, "here", "make it again")
    assert caught.value.where == "here"
    assert caught.value.hint == "make it again"
    assert list(caught.value.details) == differences(expected, found)
    with pytest.raises(CacheMismatchError) as caught:
        refuse_difference(expected, found, "here")
    assert caught.value.hint is None


def test_what_is_flattened_can_be_written() -> None:
    assert json.loads(canonical(flatten({"a": {"b": 1}}))) == {"a.b": 1}
