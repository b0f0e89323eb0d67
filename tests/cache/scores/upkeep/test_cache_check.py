"""`Check`: every kind of harm is found and told apart from what is not scored yet; nothing else is reported."""

import os
import random
import shutil
from pathlib import Path

import numpy as np
import pytest
from teachclip.cache.features import FeatureShards
from teachclip.cache.scores.format.sizes import shard_bytes, tile_bytes
from teachclip.cache.scores.shard import marker_path
from teachclip.cache.scores.store import ScoreStore
from teachclip.cache.scores.upkeep import check as check_module
from teachclip.cache.scores.upkeep.catalog import pairs_per_second, summaries, teacher_info
from teachclip.cache.scores.upkeep.check import Check, CheckResult, take_out
from teachclip.cache.scores.upkeep.removal import collect_garbage
from teachclip.cache.storage.identity import digest
from teachclip.cache.storage.sealed import seal
from teachclip.errors import CacheError
from teachclip.pipeline.cli.groups.cache.shown import checked


def findings(made, full: bool = True):
    return Check(made.path, full=full).run().findings


def with_features(made) -> list[Path]:
    """Features of the store's videos; their files."""
    made_by = {key: made.cache.identity[key] for key in ("weights", "score_version")}
    shards = FeatureShards(made.cache.videos_folder, made_by)
    digests = [key for _, key in made.videos]
    shards.write(digests, {"vector": np.random.default_rng(0).normal(size=(len(digests), 6)).astype(np.float32)})
    return [shards.folder / "identity.json", shards.path(digests)]


@pytest.mark.parametrize("full", [False, True])
@pytest.mark.parametrize("dtype", ["uint16", "float32"])
def test_a_store_as_it_was_written_is_whole(make_store, dtype: str, full: bool) -> None:
    made = make_store(dtype=dtype)
    with_features(made)
    check, counted = Check(made.path, full=full), []
    result = check.run(counted.append)
    assert result.findings == ()
    (each,) = result.teachers
    assert (each.shards, each.complete, each.incomplete, each.features) == (3, 3, 0, 2)
    assert sum(counted) == check.units == 5


def test_what_is_not_scored_yet_is_no_damage(make_store) -> None:
    made = make_store(shards=(1,))
    (made.tile.folder / "coarse/c.2.0").write_bytes(b"no marker yet")
    (made.tile.folder / "coarse/.tmp-1-c.0.0").write_bytes(b"part")
    result = Check(made.path, full=True).run()
    assert result.findings == ()
    assert (result.teachers[0].complete, result.teachers[0].incomplete) == (1, 2)
    made.write(0)  # a store that is being written is followed
    assert Check(made.path, full=True).run().teachers[0].complete == 2


@pytest.mark.parametrize("harm", ["deleted", "truncated", "emptied", "link", "flipped"])
@pytest.mark.parametrize("file", ["coarse/c.1.0", "coarse_codec/c.1.0", "fine/c.1.0", "done/00001.json"])
def test_each_bad_shard_is_named_with_file_and_reason(make_store, harm: str, file: str, tmp_path: Path) -> None:
    made = make_store()
    path = made.tile.folder / file
    data = path.read_bytes()
    if file.startswith("done") and harm == "deleted":
        path.unlink()
        assert findings(made) == ()
        assert Check(made.path).run().teachers[0].incomplete == 1
        return
    path.unlink()
    if harm == "link":
        (tmp_path / "elsewhere").write_bytes(data)
        path.symlink_to(tmp_path / "elsewhere")
    elif harm != "deleted":
        flipped = bytes([data[0] ^ 1]) + data[1:]
        path.write_bytes({"truncated": data[:-3], "emptied": b"", "flipped": flipped}[harm])
    (found,) = findings(made)
    assert (found.teacher, found.tile, found.shard, found.repairable) == ("tiny", "dense", 1, True)
    assert found.why
    assert found.path == str(marker_path(made.tile, 1))
    seen_by_size = harm != "flipped" or file.startswith("done")
    assert len(findings(made, full=False)) == seen_by_size


def test_no_flipped_bit_anywhere_goes_unnoticed(make_store) -> None:
    made = make_store(texts=11, videos=5)
    with_features(made)
    rng = random.Random(11)
    files = sorted(p for p in made.path.rglob("*") if p.is_file())
    flips = 0
    for path in files:
        data = path.read_bytes()
        for bit in rng.sample(range(8 * len(data)), 8):
            flipped = bytearray(data)
            flipped[bit // 8] ^= 1 << bit % 8
            path.write_bytes(flipped)
            if path == made.path / "zarr.json":
                with pytest.raises(CacheError):
                    findings(made)
            else:
                assert findings(made), (path, bit)
            flips += 1
        path.write_bytes(data)
    assert flips > 200
    assert findings(made) == ()


def test_harm_to_one_tile_or_teacher_does_not_hide_the_others(make_store) -> None:
    made = make_store()
    shutil.copytree(made.path / "tiny", made.path / "other")
    (made.path / "other/tiles/dense/text_ids/c.0").write_bytes(b"x")
    shutil.copytree(made.path / "tiny", made.path / "third")
    (made.path / "third/zarr.json").write_bytes(b"{}")
    (made.path / "notes.txt").write_text("x")
    (made.tile.folder / "fine/c.2.0").unlink()
    result = Check(made.path).run()
    assert [(f.teacher, Path(f.path).name, f.repairable) for f in result.findings] == [
        ("", "notes.txt", False),
        ("other", "c.0", False),
        ("third", "zarr.json", False),
        ("tiny", "00002.json", True),
    ]
    assert [f.why for f in Check(made.path, "tiny").run().findings] == ["fine/c.2.0 is missing"]
    (made.path / "notes.txt").unlink()
    with pytest.raises(CacheError, match="no scores of 'absent'"):
        Check(made.path, "absent")


def reseal(made, shard: int, **values: bytes) -> None:
    """Put other bytes into a shard, with a marker that fits them."""
    import json

    marker = json.loads(marker_path(made.tile, shard).read_bytes())
    for name, data in values.items():
        file = f"{name}/c.{shard}.0"
        (made.tile.folder / file).write_bytes(data)
        marker["files"][file] = {"size": len(data), "blake2b": digest(data).hex()}
    marker_path(made.tile, shard).write_bytes(seal(marker))


def test_chunks_are_decoded_and_values_looked_at_even_where_the_hashes_fit(make_store) -> None:
    from teachclip.cache.scores.format.tensorstore_io import encode_chunks

    made = make_store()
    arrays, rows = made.tile.arrays, made.tile.spec.rows(1)
    codes = np.zeros((8, 13), np.uint16)
    codes[3, 4] = 65535
    reseal(made, 1, coarse=encode_chunks(arrays["coarse"], codes, rows.start)["c.1.0"])
    assert findings(made, full=False) == ()
    (found,) = findings(made)
    assert found.why == f"the scores of {made.texts[11][0]} are not all there, or not finite"
    made.write(1)
    codec = np.ones((8, 2))
    codec[2, 0] = np.inf
    reseal(made, 1, coarse_codec=encode_chunks(arrays["coarse_codec"], codec, rows.start)["c.1.0"])
    assert made.texts[10][0] in findings(made)[0].why
    made.write(1)
    fine = made.fine[rows.start : rows.stop].copy()
    fine[7, 0] = np.nan
    reseal(made, 1, fine=encode_chunks(arrays["fine"], fine, rows.start)["c.1.0"])
    assert made.texts[15][0] in findings(made)[0].why
    made.write(1)
    data = bytearray((made.tile.folder / "coarse/c.1.0").read_bytes())
    data[5] ^= 4
    reseal(made, 1, coarse=bytes(data))
    assert "cannot be read" in findings(made)[0].why
    made.write(1)
    reseal(made, 1, fine=(made.tile.folder / "fine/c.1.0").read_bytes() + b"\0")
    assert "what such a shard takes" in findings(made, full=False)[0].why


@pytest.mark.parametrize("harm", ["flipped", "truncated", "emptied"])
def test_features_are_checked(make_store, harm: str) -> None:
    made = make_store()
    _, path = with_features(made)
    data = path.read_bytes()
    path.write_bytes({"flipped": data[:-1] + bytes([data[-1] ^ 1]), "truncated": data[:-4], "emptied": b""}[harm])
    (found,) = findings(made)
    assert (found.path, found.shard, found.repairable) == (str(path), None, True)
    assert bool(findings(made, full=False)) == (harm != "flipped")
    take_out(made.cache, found)
    assert findings(made) == ()


@pytest.mark.parametrize(
    "place",
    ["notes.txt", "notes", "backup/", "tiny/tiles/notes.txt", "tiny/tiles/old/", "features", "tiny/videos/x.zip"],
)
def test_a_foreign_file_is_called_so_and_is_neither_damage_nor_taken_out(make_store, place: str) -> None:
    made = make_store()
    cache, identity = made.cache, with_features(made)[0]
    path = identity.with_name("notes.txt") if place == "features" else made.path / place
    if place.endswith("/"):
        path.mkdir()
        (path / "thesis.txt").write_text("mine")
    else:
        path.write_text("mine")
    result = Check(made.path).run()
    (found,) = result.findings
    assert (found.path, found.foreign, found.repairable) == (str(path), True, False)
    assert found.why == "foreign, it does not belong here"
    assert result.damage == ()
    with pytest.raises(ValueError, match=path.name):
        take_out(cache, found)
    collect_garbage(made.path, age=-1)
    assert path.exists()
    assert "\n".join(page_of(result)).count("nothing is damaged") == 1
    assert "cache r" not in "\n".join(page_of(result))


def page_of(result: CheckResult) -> list[str]:
    return [line for line in checked(result) if isinstance(line, str)]


def test_a_teacher_that_lost_its_document_is_damaged_not_foreign(make_store) -> None:
    made = make_store()
    (made.path / "tiny/zarr.json").unlink()
    (found,) = Check(made.path).run().damage
    assert not found.foreign


@pytest.mark.parametrize("name", ["._tiny", ".DS_Store", "Thumbs.db", ".nfs000000000001", "desktop.ini", "@eaDir"])
def test_what_systems_leave_is_ignored_everywhere_in_a_store(make_store, name: str) -> None:
    made = make_store()
    with_features(made)
    for folder in [made.path, *(each for each in made.path.rglob("*") if each.is_dir())]:
        if name == "@eaDir":
            (folder / name).mkdir()
            (folder / name / "c.0@SynoEAStream").write_bytes(b"x")
        else:
            (folder / name).write_bytes(b"\0\5\x16\7")
    result = Check(made.path, full=True).run()
    assert result.findings == ()
    assert (result.teachers[0].complete, result.teachers[0].features) == (3, 2)
    assert ScoreStore.open(made.path).teachers == ("tiny",)
    assert ScoreStore.open(made.path).teacher("tiny").complete
    assert summaries(ScoreStore.open(made.path))[0].problem is None
    assert collect_garbage(made.path, age=-1, dry=True).features == ()


def test_a_shard_that_is_taken_out_is_absent_and_comes_back_with_the_same_bytes(make_store) -> None:
    made = make_store()
    path = made.tile.folder / "coarse/c.1.0"
    data = path.read_bytes()
    path.write_bytes(data[:-1])
    (found,) = findings(made, full=False)
    take_out(made.cache, found)
    assert Check(made.path).run().teachers[0].incomplete == 1
    assert not path.exists()
    assert not (made.tile.folder / "fine/c.1.0").exists()
    made.write(1)
    assert path.read_bytes() == data


def test_a_shard_that_is_rewritten_while_it_is_looked_at_is_looked_at_again(make_store, monkeypatch) -> None:
    made = make_store()
    path = made.tile.folder / "fine/c.1.0"
    path.write_bytes(b"x")
    real, calls = check_module.problem, []

    def problem(tile, shard, every_byte=False):
        why = real(tile, shard, every_byte)
        if why and not calls:
            calls.append(why)
            made.write(1)
        return why

    monkeypatch.setattr(check_module, "problem", problem)
    assert findings(made, full=False) == ()
    assert calls


def test_memory_does_not_grow_with_a_shard(make_store, monkeypatch) -> None:
    made = make_store()
    monkeypatch.setattr(check_module, "_BLOCK_VALUES", 26)  # two rows
    assert findings(made) == ()
    (made.tile.folder / "coarse/c.2.0").write_bytes(b"")
    assert len(findings(made)) == 1


@pytest.mark.parametrize("dtype", ["uint16", "float32"])
@pytest.mark.parametrize("texts", [1, 8, 21, 24])
def test_bytes_are_known_before_anything_is_written(make_store, dtype: str, texts: int) -> None:
    made = make_store(texts=texts, dtype=dtype)
    tile = made.tile
    for shard in range(tile.spec.shards):
        for file, size in shard_bytes(tile.spec, shard).items():
            assert (tile.folder / file).stat().st_size == size
    assert tile_bytes(tile.spec) == sum(p.stat().st_size for p in tile.folder.rglob("*") if p.is_file())


def test_the_list_and_the_page_of_a_store(make_store) -> None:
    made = make_store(shards=(0, 2))
    files = with_features(made)
    shutil.copytree(made.path / "tiny", made.path / "broken")
    (made.path / "broken/tiles/dense/zarr.json").write_bytes(b"")
    broken, tiny = summaries(ScoreStore.open(made.path))
    assert "damaged" in (broken.problem or "")
    assert (tiny.tiles, tiny.texts, tiny.videos, tiny.pairs, tiny.shards, tiny.complete) == (1, 21, 13, 273, 3, 2)
    assert tiny.bytes == sum(p.stat().st_size for p in (made.path / "tiny").rglob("*") if p.is_file())
    info = teacher_info(ScoreStore.open(made.path), "tiny")
    assert info.summary == tiny
    assert (info.identity, info.scale, info.own_videos) == (made.cache.identity, 100.0, 21)
    assert (info.feature_files, info.feature_bytes) == (1, files[1].stat().st_size)
    assert info.tiles[0].checksum == made.tile.checksum


def test_the_speed_is_that_of_the_shards_and_pauses_do_not_count(make_store) -> None:
    made = make_store(texts=48)
    for shard, time in enumerate((100, 102, 104, 9000, 9002, 9004)):
        os.utime(marker_path(made.tile, shard), (time, time))
    assert pairs_per_second(made.cache) == pytest.approx(8 * 13 / 2)
    assert pairs_per_second(make_store(texts=8, name="short").cache) is None
