"""A feature cache: what is written comes back, complete or not at all, and no other byte passes unnoticed."""

import errno
import json
import os
from collections.abc import Iterator
from contextlib import suppress
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from safetensors import safe_open
from teachclip.cache.experts.cache import MANIFEST, FeatureCache, FeatureFolder
from teachclip.cache.experts.shard import FeatureRecord, FeatureShard
from teachclip.cache.storage.identity import JSON, identity_digest
from teachclip.errors import CacheError, CacheMismatchError

IDENTITY: dict[str, JSON] = {"made by": "file", "file": "ab"}
RNG = np.random.default_rng(2)


def vectors(*rows: int, width: int = 6) -> tuple[Any, ...]:
    return tuple(RNG.random((count, width)).astype(np.float32) for count in rows)


RECORDS = [
    [
        FeatureRecord("a", "ok", parts=vectors(3)),
        FeatureRecord("b", "missing", "the file says so"),
        FeatureRecord("c", "ok", parts=vectors(2, 0, 4), source=b"0123456789abcdef"),
    ],
    [FeatureRecord("é/d.mp4", "absent", "unknown"), FeatureRecord("e", "ok", parts=vectors(1))],
]


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    made = FeatureFolder.claim(tmp_path / "audio", IDENTITY)
    for number, records in enumerate(RECORDS):
        made.write(number, records)
    made.complete(len(RECORDS))
    return tmp_path / "audio"


def each() -> Iterator[FeatureRecord]:
    return (record for records in RECORDS for record in records)


def test_everything_comes_back(folder: Path) -> None:
    cache = FeatureCache.open(folder)
    assert cache.width == 6
    assert cache.identity == IDENTITY
    assert cache.videos == ("a", "b", "c", "é/d.mp4", "e")
    for record in each():
        assert cache.statuses[record.video] == record.status
        assert cache.reasons[record.video] == record.reason
        assert cache.source(record.video) == record.source
        found = cache.read(record.video)
        assert len(found) == len(record.parts)
        for one, other in zip(found, record.parts, strict=True):
            assert one.dtype == np.float32
            np.testing.assert_array_equal(one, other)
        for k, part in enumerate(record.parts):
            np.testing.assert_array_equal(cache.read_part(record.video, k), part)
    assert cache.has("a")
    assert not cache.has("b")
    assert not cache.has("nobody")
    assert list(cache.problems()) == [None] * 5
    assert len({cache.digest(video) for video in "ace"}) == 3


def test_a_shard_is_a_safetensors_file(folder: Path) -> None:
    with safe_open(folder / "00000.safetensors", framework="numpy") as file:
        rows = file.get_tensor("rows")
        assert json.loads(file.metadata()["teachclip"])["ids"] == ["a", "b", "c"]
    np.testing.assert_array_equal(rows, np.concatenate([part for record in RECORDS[0] for part in record.parts]))


def test_what_is_not_there_is_told_with_the_reason(folder: Path) -> None:
    cache = FeatureCache.open(folder)
    with pytest.raises(CacheError, match="'b' has no such features: the file says so"):
        cache.read_part("b", 0)
    with pytest.raises(CacheError, match="'c' has no such features: there is no part 3"):
        cache.read_part("c", 3)
    with pytest.raises(CacheError, match="'nobody' is not among the features"):
        cache.read_part("nobody", 0)


def test_half_precision_stays_so_and_mixtures_become_single(tmp_path: Path) -> None:
    made = FeatureFolder.claim(tmp_path / "x", IDENTITY)
    half = np.ones((2, 3), np.float16)
    made.write(0, [FeatureRecord("a", "ok", parts=(half,))])
    made.write(1, [FeatureRecord("b", "ok", parts=(half, np.ones((1, 3), np.float32)))])
    cache = made.complete(2)
    assert cache.read("a")[0].dtype == np.float16
    assert {part.dtype for part in cache.read("b")} == {np.dtype(np.float32)}


def test_shards_that_are_there_are_found_only_for_the_same_videos_as_they_are_now(folder: Path) -> None:
    made = FeatureFolder.claim(folder, IDENTITY)
    sources = [record.source for record in RECORDS[0]]
    found = made.found(0, ["a", "b", "c"], sources)
    assert found is not None
    assert found.width == 6
    assert made.found(0, ["a", "b", "x"], sources) is None
    assert made.found(0, ["a", "b", "c"], [*sources[:2], bytes(16)]) is None
    assert made.found(2, ["f"], [bytes(16)]) is None
    made.path(0).write_bytes(made.path(0).read_bytes()[:-1])
    assert made.found(0, ["a", "b", "c"], sources) is None


def test_another_file_of_features_is_refused_by_name(folder: Path) -> None:
    with pytest.raises(CacheMismatchError, match="made from something else \\(file\\)") as told:
        FeatureFolder.claim(folder, IDENTITY | {"file": "cd"})
    assert told.value.details == ('file: what is there has "ab", now it is "cd"',)


def test_a_folder_of_something_else_is_not_taken(tmp_path: Path) -> None:
    (tmp_path / "thesis.tex").touch()
    with pytest.raises(CacheError, match="no feature cache, and not empty"):
        FeatureFolder.claim(tmp_path, IDENTITY)
    assert [path.name for path in tmp_path.iterdir()] == ["thesis.tex"]


def test_nothing_is_read_before_it_is_complete(tmp_path: Path) -> None:
    with pytest.raises(CacheError, match="no features here"):
        FeatureCache.open(tmp_path / "none")
    made = FeatureFolder.claim(tmp_path / "x", IDENTITY)
    made.write(0, RECORDS[0])
    with pytest.raises(CacheError, match="not complete"):
        FeatureCache.open(tmp_path / "x")
    with pytest.raises(CacheError, match="a shard of the features is missing"):
        made.complete(2)


def test_a_smaller_data_set_leaves_no_shard_behind(folder: Path) -> None:
    FeatureFolder.claim(folder, IDENTITY).complete(1)
    assert sorted(path.name for path in folder.iterdir()) == ["00000.safetensors", MANIFEST]


def test_a_full_disk_loses_nothing(folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    before = {path.name: path.read_bytes() for path in folder.iterdir()}

    def full(*_: object) -> bytes:
        raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))

    monkeypatch.setattr("teachclip.cache.experts.shard._header", full)  # once the file is open
    with pytest.raises(CacheError, match="No space left on device") as told:
        FeatureFolder.claim(folder, IDENTITY).write(1, RECORDS[0])
    assert told.value.where == str(folder / "00001.safetensors")
    assert {path.name: path.read_bytes() for path in folder.iterdir()} == before


def test_every_byte_counts(folder: Path) -> None:
    """Of a shard: each flipped bit is noticed where it is read, and a file that is cut anywhere is no shard."""
    path, digest = folder / "00000.safetensors", identity_digest(IDENTITY)
    whole = path.read_bytes()
    for at in range(0, len(whole), 5):
        path.write_bytes(whole[:at] + bytes([whole[at] ^ 4]) + whole[at + 1 :])
        try:
            shard = FeatureShard.open(path, digest)
            found = [shard.read(k) for k in range(3)]
        except CacheError:
            continue
        assert (shard.videos, shard.statuses, shard.reasons) == (
            tuple(record.video for record in RECORDS[0]),
            tuple(record.status for record in RECORDS[0]),
            tuple(record.reason for record in RECORDS[0]),
        )
        for parts, record in zip(found, RECORDS[0], strict=True):
            assert all(np.array_equal(one, other) for one, other in zip(parts, record.parts, strict=True))
    for length in range(0, len(whole), 7):
        path.write_bytes(whole[:length])
        with pytest.raises(CacheError):
            FeatureShard.open(path, digest)
    path.write_bytes(whole)
    with pytest.raises(CacheError, match="of another cache"):
        FeatureShard.open(path, identity_digest({"made by": "somebody"}))


def test_damaged_features_are_told_by_video_and_file(folder: Path) -> None:
    path = folder / "00001.safetensors"
    data = bytearray(path.read_bytes())
    shard = FeatureShard.open(path, identity_digest(IDENTITY))
    data[shard.start] ^= 1
    path.write_bytes(data)
    problems = [problem for problem in FeatureCache.open(folder).problems() if problem]
    assert problems == ["00001.safetensors: the features of 'e' are not those that were written"]


def test_a_shard_replaced_while_in_use_is_noticed(folder: Path) -> None:
    cache = FeatureCache.open(folder)
    FeatureFolder.claim(folder, IDENTITY).write(0, RECORDS[0])
    with pytest.raises(CacheError, match="replaced while in use"):
        cache.read("a")


@pytest.mark.parametrize("change", [{"version": 2}, {"format": "x"}, {"shards": ["../x"]}, {"identity": 3}])
def test_a_manifest_that_is_none_is_refused(folder: Path, change: dict[str, Any]) -> None:
    document = json.loads((folder / MANIFEST).read_text())
    (folder / MANIFEST).write_text(json.dumps(document | change))
    with pytest.raises(CacheError, match="does not describe features"):
        FeatureCache.open(folder)


def test_hostile_shards_are_refused_and_take_no_memory(folder: Path) -> None:
    path, digest = folder / "00000.safetensors", identity_digest(IDENTITY)
    whole = path.read_bytes()
    length = int.from_bytes(whole[:8], "little")
    for old, new in (
        (b'"shape":[9,6]', b'"shape":[9,9999999]'), (b'"dtype":"F32"', b'"dtype":"F99"'), (b'"I64"', b'"U8"'),
    ):  # fmt: skip
        assert old in whole[: 8 + length]
        header = whole[8 : 8 + length].replace(old, new, 1)
        path.write_bytes(len(header).to_bytes(8, "little") + header + whole[8 + length :])
        with pytest.raises(CacheError):
            FeatureShard.open(path, digest)
    path.write_bytes((2**62).to_bytes(8, "little") + whole[8:])
    with suppress(CacheError):
        FeatureShard.open(path, digest)
