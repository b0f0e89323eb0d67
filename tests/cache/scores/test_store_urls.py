"""A store at an address: read, checked, exported and imported with the same care as a folder."""

import json
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import numpy as np
import pytest
from teachclip.cache.scores.exchange import upload
from teachclip.cache.scores.exchange.merging import Merge
from teachclip.cache.scores.exchange.packing import Export, Import
from teachclip.cache.scores.shard import marker_path, missing_shards
from teachclip.cache.scores.store import ScoreStore
from teachclip.cache.scores.tile import TileContents
from teachclip.cache.scores.upkeep.catalog import summaries, teacher_info
from teachclip.cache.scores.upkeep.check import Check
from teachclip.cache.scores.upkeep.compare import Diff, open_caches
from teachclip.cache.scores.upkeep.removal import collect_garbage, remove_teacher
from teachclip.cache.storage import locations
from teachclip.cache.storage.sealed import seal
from teachclip.errors import CacheError, UnreachableError
from teachclip.pipeline.cli.main import app
from typer.testing import CliRunner

DENSE = "s.zarr/tiny/tiles/dense"


def contents(folder: Path) -> dict[str, bytes]:
    return {str(p.relative_to(folder)): p.read_bytes() for p in folder.rglob("*") if p.is_file()}


# Reading


@pytest.mark.parametrize("dtype", ["uint16", "float32"])
def test_what_is_read_at_an_address_is_what_lies_in_the_folder(put, dtype: str) -> None:
    made, url = put(dtype=dtype)
    there = ScoreStore.open(url).teacher("tiny")
    assert ScoreStore.open(url).teachers == ("tiny",)
    assert there.complete
    assert (there.identity, there.scale) == (made.cache.identity, made.cache.scale)
    here, far = (cache.reader(made.texts, made.videos) for cache in (made.cache, there))
    rng = np.random.default_rng(0)
    for _ in range(3):
        texts, videos = rng.permutation(21)[:9], rng.permutation(13)[:5]
        mine, theirs = here.read(texts, videos), far.read(texts, videos)
        np.testing.assert_array_equal(mine.coarse, theirs.coarse)
        np.testing.assert_array_equal(mine.frame_logits, theirs.frame_logits)
    np.testing.assert_array_equal(here.frame_times, far.frame_times)


def test_several_tiles_and_shards_that_are_still_to_come(put, bucket) -> None:
    made, url = put(shards=(0, 2))
    made.cache.create_tile("more", TileContents(made.texts[:3], made.videos, made.own[:3], np.zeros((13, 4))), 8)
    bucket.put(made.path, "s.zarr")
    there = ScoreStore.open(url).teacher("tiny")
    assert [tile.name for tile in there.tiles] == ["dense", "more"]
    assert missing_shards(there.tiles[0]) == [1]
    assert not there.complete
    with pytest.raises(CacheError, match="shard 1 is not complete: not scored yet"):
        ScoreStore.open(url).teacher("tiny").reader(made.texts[8:9], made.videos)
    made.write(1)
    bucket.put(made.path / "tiny/tiles/dense", DENSE)
    assert missing_shards(there.tiles[0]) == []  # an open store sees what has been added


def test_what_is_there_is_listed(put) -> None:
    made, url = put(shards=(0, 1))
    (mine,), (theirs,) = summaries(ScoreStore.open(made.path)), summaries(ScoreStore.open(url))
    assert theirs.bytes == sum(len(data) for name, data in contents(made.path / "tiny/tiles/dense").items())
    assert theirs.written is None
    for name in ("teacher", "tiles", "texts", "videos", "pairs", "dtype", "shards", "complete"):
        assert getattr(mine, name) == getattr(theirs, name)
    info = teacher_info(ScoreStore.open(url), "tiny")
    assert info.tiles == teacher_info(ScoreStore.open(made.path), "tiny").tiles
    assert info.store == url


def test_a_store_is_compared_with_its_copy_elsewhere(put) -> None:
    made, url = put()
    result = Diff(*open_caches(str(made.path), f"{url}:tiny")).run()
    assert (result.largest, result.same_best, result.pairs, result.frame_largest) == (0, 1, 21 * 13, 0)
    assert result.second == f"{url}:tiny"
    assert open_caches(url, url)[0].name == "tiny"


def test_a_store_is_merged_from_an_address(put, make_store) -> None:
    made, url = put()
    other = make_store(name="other", shards=(1,))
    (found,) = Merge(other.path, [url]).run()
    assert (found.taken, found.same) == (2, 1)
    assert contents(other.path) == contents(made.path)


# Damage


def flip(data: bytes) -> bytes:
    return data[:20] + bytes([data[20] ^ 1]) + data[21:]


@contextmanager
def changed(bucket, key: str, change) -> Iterator[None]:
    """One object with other bytes, or (None) without it; then as it was."""
    data = bucket.request("GET", key)
    bucket.request("DELETE" if change is None else "PUT", key, None if change is None else change(data))
    yield
    bucket.request("PUT", key, data)


def test_shards_that_are_damaged_are_found_and_never_read(put, bucket) -> None:
    made, url = put(texts=16)
    every = np.arange(16), np.arange(13)
    for change, full, why in (
        (flip, True, "coarse/c.1.0 has other bytes than were written"),
        (None, False, "coarse/c.1.0 is missing"),
        (lambda data: data[:-1], False, "coarse/c.1.0 has fewer than"),
        (lambda data: data + b"x", False, "coarse/c.1.0 has more than"),
    ):
        reader = ScoreStore.open(url).teacher("tiny").reader(made.texts, made.videos)
        with changed(bucket, f"{DENSE}/coarse/c.1.0", change):
            assert [why in finding.why for finding in Check(url, full=full).run().findings] == [True], why
            with pytest.raises(CacheError, match=r"shard 1 is (damaged|not complete)"):
                reader.read(*every)
            with pytest.raises(CacheError, match="shard 1 is"):
                ScoreStore.open(url).teacher("tiny").reader(made.texts, made.videos).read(*every)


def test_documents_and_ids_that_are_damaged_are_found_and_never_read(put, bucket) -> None:
    _, url = put(texts=8)
    for file, change, why in (
        ("done/00000.json", flip, "do not match its checksum"),
        ("zarr.json", flip, "do not match its checksum"),
        ("text_ids/c.0", flip, "do not match the tile's metadata"),
        ("text_ids/c.0", None, "missing"),
        ("coarse/zarr.json", lambda data: data + b" ", "do not match the tile's metadata"),
        ("coarse_codec/c.0.0", lambda data: b"", "coarse_codec/c.0.0 has fewer than"),
    ):
        with changed(bucket, f"{DENSE}/{file}", change):
            assert [why in finding.why for finding in Check(url).run().findings] == [True], why


def test_nothing_is_found_where_nothing_is_damaged(put) -> None:
    made, url = put(shards=(0, 2))
    advanced: list[int] = []
    result = Check(url, full=True).run(advanced.append)
    assert result.findings == ()
    assert (result.teachers[0].complete, result.teachers[0].incomplete, sum(advanced)) == (2, 1, 3)
    assert Check(made.path).run().teachers == result.teachers


def test_another_tile_in_the_same_place_is_not_mixed_with_the_open_one(put, bucket, make_store) -> None:
    made, url = put()
    reader = ScoreStore.open(url).teacher("tiny").reader(made.texts, made.videos)
    bucket.put(make_store(name="other", texts=22).path, "s.zarr")
    with pytest.raises(CacheError, match="removed or replaced while it was open"):
        reader.read(np.arange(4), np.arange(4))


def test_sizes_that_no_file_has_are_refused_before_anything_is_read(put, bucket) -> None:
    made, url = put()
    marker = json.loads(marker_path(made.tile, 0).read_bytes())
    marker["files"]["coarse/c.0.0"]["size"] = 2**70
    bucket.request("PUT", f"{DENSE}/done/00000.json", seal(marker))
    assert missing_shards(ScoreStore.open(url).teacher("tiny").tiles[0]) == [0]
    bucket.request("PUT", "s.zarr/zarr.json", b" " * (2**20 + 1))
    with pytest.raises(CacheError, match="has more than 1,048,576 bytes"):
        ScoreStore.open(url)


# Export and import


def test_an_export_goes_to_an_address_and_comes_back_bit_for_bit(make_store, bucket, tmp_path, monkeypatch) -> None:
    monkeypatch.setattr(locations, "_BLOCK", 150)  # larger files come in pieces
    made, out = make_store(), f"{bucket.url}/published/tiny"
    packed = Export(made.path, "tiny", out).run()
    local = Export(made.path, "tiny", tmp_path / "out").run()
    assert (packed.files, packed.bytes, packed.shards) == (local.files, local.bytes, local.shards)
    manifest = bucket.request("GET", "published/tiny/manifest.json")
    assert manifest == (tmp_path / "out/manifest.json").read_bytes()
    assert Check(f"{out}/scores.zarr", full=True).run().findings == ()
    taken = Import(out, tmp_path / "new.zarr")
    counted: list[int] = []
    assert taken.run(counted.append).bytes == local.bytes
    assert sum(counted) == taken.units == 3
    assert contents(tmp_path / "new.zarr") == contents(tmp_path / "out/scores.zarr")
    assert Import(out, tmp_path / "new.zarr").run().already
    with pytest.raises(CacheError, match="there is something already"):
        Export(made.path, "tiny", out)


def test_an_export_is_made_of_a_store_at_an_address(put, bucket, tmp_path: Path) -> None:
    made, url = put(texts=8)
    Export(url, "tiny", tmp_path / "out").run()
    assert contents(tmp_path / "out/scores.zarr") == contents(made.path)
    Export(url, "tiny", f"{bucket.url}/copy").run()
    assert bucket.request("GET", "copy/manifest.json") == (tmp_path / "out/manifest.json").read_bytes()


def test_an_upload_that_was_interrupted_is_no_export_and_goes_on(
    make_store, bucket, tmp_path: Path, monkeypatch
) -> None:
    made, out = make_store(), f"{bucket.url}/out"
    once = upload.upload_bytes

    def until(data: bytes, target: locations.Remote) -> dict[str, int | str]:
        if target.name == "c.2.0":
            raise KeyboardInterrupt
        return once(data, target)

    with monkeypatch.context() as patched:
        patched.setattr(upload, "upload_bytes", until)
        with pytest.raises(KeyboardInterrupt):
            Export(made.path, "tiny", out).run()
    with pytest.raises(CacheError, match=r"an upload was interrupted: there is no manifest\.json"):
        Import(out, tmp_path / "new.zarr")
    Export(made.path, "tiny", out).run()
    assert Import(out, tmp_path / "new.zarr").run().shards == 3
    bucket.request("DELETE", "out/manifest.json")
    bucket.request("PUT", "out/scores.zarr/foreign", b"x")
    with pytest.raises(CacheError, match=r"there is something already \(scores.zarr/foreign\)"):
        Export(made.path, "tiny", out)


def test_what_does_not_come_back_is_told(make_store, bucket, monkeypatch) -> None:
    monkeypatch.setattr(locations.Remote, "write", lambda self, data: None)
    with pytest.raises(CacheError, match="what was written does not come back"):
        Export(make_store().path, "tiny", f"{bucket.url}/out").run()


def test_an_export_that_was_changed_is_refused(make_store, bucket, tmp_path: Path) -> None:
    Export(make_store(texts=8).path, "tiny", tmp_path / "out").run()
    bucket.put(tmp_path / "out", "out")
    fine = "scores.zarr/tiny/tiles/dense/fine/c.0.0"
    for key, change, why in (
        ("manifest.json", flip, "do not match its checksum"),
        (fine, None, "is missing"),
        (fine, lambda data: data[:-1], "has fewer than"),
        (fine, flip, "its bytes are not those that"),
    ):
        with changed(bucket, f"out/{key}", change), pytest.raises(CacheError, match=why):
            Import(f"{bucket.url}/out", tmp_path / "new.zarr").run()
    bucket.request("PUT", "out/scores.zarr/tiny/extra", b"x")
    with pytest.raises(CacheError, match="the manifest does not list it"):
        Import(f"{bucket.url}/out", tmp_path / "new.zarr")
    assert not (tmp_path / "new.zarr/tiny").exists()


def test_a_store_is_not_taken_for_an_export(put, tmp_path: Path) -> None:
    _, url = put()
    with pytest.raises(CacheError, match="this is a store, not an export"):
        Import(url, tmp_path / "new.zarr")


# Addresses that cannot be


def test_what_is_only_done_in_folders_is_told_with_what_to_do(put) -> None:
    made, url = put(shards=(0,))
    for refused, what_to_do in (
        (lambda: remove_teacher(url, "tiny"), "the tool that comes with the server"),
        (lambda: collect_garbage(url), "the tool that comes with the server"),
        (lambda: Import(made.path, url), "import into a folder, and merge that store"),
    ):
        with pytest.raises(CacheError, match="an address, but") as caught:
            refused()
        assert what_to_do in str(caught.value.hint)


@pytest.mark.parametrize(
    ("url", "why"),
    [
        ("ftp://host/scores.zarr", "addresses of the kind ftp:// are not known"),
        ("s3://", "not an address of a folder"),
        ("s3://UPPER_case!/x", "not an address of a folder"),
        ("s3://bucket-one/../x", "not an address of a folder"),
        ("https://host/scores.zarr?key=1", "not an address of a folder"),
    ],
)
def test_addresses_that_are_none(url: str, why: str) -> None:
    with pytest.raises(CacheError, match=why):
        ScoreStore.open(url)


def test_nothing_there(bucket) -> None:
    with pytest.raises(CacheError, match="there is no score store"):
        ScoreStore.open(f"{bucket.url}/absent.zarr")
    with pytest.raises(UnreachableError, match="NoSuchBucket") as caught:
        ScoreStore.open("s3://no-such-bucket/s.zarr")
    assert "AWS_ENDPOINT_URL" in caught.value.hint


def test_a_teacher_that_is_not_there(put) -> None:
    with pytest.raises(CacheError, match="no scores of 'other'; there are: tiny"):
        ScoreStore.open(put()[1]).teacher("other")


# The command line


def test_the_verbs_take_addresses(put, bucket, tmp_path: Path) -> None:
    made, url = put(texts=8)

    def run(*words: str, code: int = 0) -> str:
        result = CliRunner().invoke(app, ["cache", *words], env={"COLUMNS": "200", "TERMINAL_WIDTH": "200"})
        assert result.exit_code == code, result.output
        return result.output

    listed = json.loads(run("ls", url, "--json"))
    assert (listed["store"], listed["teachers"][0]["complete"], listed["teachers"][0]["written"]) == (url, 1, None)
    assert f"tiny in {url}" in run("info", url)
    assert "nothing is damaged" in run("verify", url, "--full")
    assert json.loads(run("report", url, "--json"))["teachers"][0]["teacher"] == "tiny"
    assert "made from the same" in run("diff", f"{url}:tiny", str(made.path))
    run("export", url, "tiny", f"{bucket.url}/out")
    assert json.loads(run("import", f"{bucket.url}/out", str(tmp_path / "new.zarr"), "--json"))["shards"] == 1
    assert json.loads(run("merge", str(tmp_path / "new.zarr"), url, "--json"))["teachers"][0]["same"] == 1
    for words in (["rm", url, "tiny", "--yes"], ["gc", url], ["import", f"{bucket.url}/out", f"{url}-new"]):
        assert f"{url}" in run(*words, code=1)
    bucket.request("PUT", f"{DENSE}/fine/c.0.0", b"")
    assert "fine/c.0.0 has fewer than" in run("verify", url, code=1)
    bucket.request("DELETE", f"{DENSE}/zarr.json")
    assert "s.zarr/tiny/tiles/dense/zarr.json: missing" in run("ls", url)
