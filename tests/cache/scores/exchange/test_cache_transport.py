"""Merge, export and import: what arrives has the bits that were written, or is refused; nothing is replaced."""

import errno
import json
import os
import shutil
from pathlib import Path

import numpy as np
import pytest
from teachclip.cache.scores.exchange import packing
from teachclip.cache.scores.exchange.merging import Merge
from teachclip.cache.scores.exchange.packing import Export, Import
from teachclip.cache.scores.shard import marker_path, missing_shards
from teachclip.cache.scores.store import ScoreStore
from teachclip.cache.scores.tile import TileContents
from teachclip.cache.scores.upkeep.check import Check
from teachclip.cache.storage import publish as files_module
from teachclip.cache.storage.sealed import seal
from teachclip.errors import CacheError, CacheMismatchError
from teachclip.remedies import Again, MergeScores, Option


def contents(folder: Path) -> dict[str, bytes]:
    return {str(p.relative_to(folder)): p.read_bytes() for p in folder.rglob("*") if p.is_file()}


# Merge


def test_shards_of_several_machines_come_together_bit_for_bit(make_store) -> None:
    whole, empty = make_store(name="whole"), make_store(name="a", shards=())
    parts = [make_store(name="b", shards=(0,)), make_store(name="c", shards=(0, 2)), make_store(name="d", shards=(1,))]
    merge, counted = Merge(empty.path, [part.path for part in parts]), []
    found = merge.run(counted.append)
    assert [(m.taken, m.same, m.absent, m.added, m.unlike, m.refused) for m in found] == [
        (1, 0, 2, False, (), ()),
        (1, 1, 1, False, (), ()),
        (1, 0, 0, False, (), ()),
    ]
    assert sum(counted) == merge.units == 9
    assert contents(empty.path) == contents(whole.path)
    again = Merge(empty.path, [whole.path]).run()
    assert (again[0].taken, again[0].same) == (0, 3)


def test_teachers_and_tiles_that_are_new_come_whole(make_store) -> None:
    made, store = make_store(), make_store(name="other", texts=9)
    (store.path / "tiny").rename(store.path / "second")
    (found,) = Merge(made.path, [store.path]).run()
    assert (found.teacher, found.added, found.tiles_added, found.taken) == ("second", True, ("dense",), 2)
    assert contents(made.path / "second") == contents(store.path / "second")
    keys = TileContents(store.texts[:3], store.videos, store.own[:3], np.zeros((13, 4)))
    ScoreStore.open(store.path).teacher("second").create_tile("more", keys, 8)
    (found,) = Merge(made.path, [store.path]).run()
    assert (found.added, found.tiles_added, found.taken, found.same, found.absent) == (False, ("more",), 0, 2, 1)
    assert Check(made.path, full=True).run().findings == ()


def test_other_bits_are_reported_and_ones_own_are_kept(make_store) -> None:
    made, other = make_store(shards=(0, 1)), make_store(name="other", shards=())
    other.coarse[10] += 1e-3
    other.write(1, 2)
    before = contents(made.path)
    (found,) = Merge(made.path, [other.path]).run()
    assert [(u.tile, u.shard, u.files) for u in found.unlike] == [("dense", 1, ("coarse/c.1.0", "coarse_codec/c.1.0"))]
    assert found.unlike[0].largest == pytest.approx(1e-3, rel=0.05)
    assert (found.taken, found.same, found.absent) == (1, 0, 0)
    assert before.items() <= contents(made.path).items()


def test_damaged_shards_are_not_taken_and_damaged_ones_are_replaced(make_store) -> None:
    made, other = make_store(), make_store(name="other")
    data = (made.tile.folder / "fine/c.0.0").read_bytes()
    (made.tile.folder / "fine/c.0.0").write_bytes(b"")
    marker_path(made.tile, 1).unlink()
    path = other.tile.folder / "coarse/c.1.0"
    path.write_bytes(path.read_bytes()[:-1] + b"?")
    (found,) = Merge(made.path, [other.path]).run()
    assert (found.taken, found.same) == (1, 1)
    assert (made.tile.folder / "fine/c.0.0").read_bytes() == data
    (refused,) = found.refused
    assert refused.shard == 1
    assert "coarse/c.1.0: damaged" in refused.why
    assert missing_shards(made.tile) == [1]
    assert not list(made.path.rglob(".tmp-*"))


def test_other_scores_are_refused_naming_the_fields_and_nothing_is_written(make_store, tmp_path: Path) -> None:
    made, good = make_store(shards=()), make_store(name="good")
    facts = {"scale": 99.0, "dtype": "float32", "frames": 4, "frame_logits": True}
    store = ScoreStore.create(tmp_path / "other.zarr")
    store.create_teacher("tiny", {**made.cache.identity, "words": 9}, **facts)
    with pytest.raises(CacheMismatchError, match=r"\(dtype, scale, words\)") as caught:
        Merge(made.path, [good.path, store.path])
    assert caught.value.details[-1] == "words: this store has 8, the other has 9"
    assert missing_shards(made.tile) == [0, 1, 2]
    other = make_store(name="fewer", texts=20)
    with pytest.raises(
        CacheMismatchError, match=r"tile 'dense' is of other texts, videos or frames \(texts, "
    ) as caught:
        Merge(made.path, [other.path])
    assert f"texts: 21 in {made.tile.folder}, 20 in {other.tile.folder}" in caught.value.details
    assert "text_digests: other contents" in caught.value.details
    with pytest.raises(CacheError, match="with itself"):
        Merge(made.path, [made.path])
    with pytest.raises(CacheError, match="there is no score store"):
        Merge(made.path, [tmp_path / "absent"])
    with pytest.raises(CacheMismatchError):  # two that give must fit each other, too
        Merge(ScoreStore.create(tmp_path / "new.zarr").path, [good.path, other.path])


# Export and import


def test_a_store_comes_back_from_an_export_bit_for_bit(make_store, tmp_path: Path) -> None:
    made = make_store()
    (made.cache.videos_folder).mkdir()
    packed = Export(made.path, "tiny", tmp_path / "out").run()
    assert (packed.tiles, packed.left_out, packed.shards) == (("dense",), (), 3)
    manifest = json.loads((tmp_path / "out/manifest.json").read_bytes())
    assert manifest["identity"] == made.cache.identity
    assert packed.files == len(manifest["files"]) + 1
    assert packed.bytes == sum(p.stat().st_size for p in (tmp_path / "out").rglob("*") if p.is_file())
    assert contents(tmp_path / "out/scores.zarr") == contents(made.path)
    assert Check(tmp_path / "out/scores.zarr", full=True).run().findings == ()
    taken = Import(tmp_path / "out", tmp_path / "new.zarr").run()
    assert (taken.teacher, taken.shards, taken.already) == ("tiny", 3, False)
    assert contents(tmp_path / "new.zarr") == contents(made.path)
    assert Import(tmp_path / "out", made.path).run().already
    times = [
        marker_path(tile, 0).stat().st_mtime_ns
        for tile in (made.tile, ScoreStore.open(tmp_path / "new.zarr").teacher("tiny").tiles[0])
    ]
    assert times[0] == times[1]
    assert not list(tmp_path.rglob(".tmp-*"))


def test_only_finished_tiles_are_packed_unless_asked(make_store, tmp_path: Path) -> None:
    made = make_store(shards=(0, 2))
    with pytest.raises(CacheError, match="no tile is complete") as caught:
        Export(made.path, "tiny", tmp_path / "out")
    assert caught.value.hint.otherwise.action == Again(Option.PARTIAL)
    packed = Export(made.path, "tiny", tmp_path / "out", partial=True).run()
    assert (packed.shards, packed.left_out) == (2, ("dense: 1 shard",))
    taken = Import(tmp_path / "out", tmp_path / "new.zarr").run()
    assert taken.left_out == packed.left_out
    (found,) = Merge(make_store(name="x", shards=(1,)).path, [tmp_path / "out/scores.zarr"]).run()
    assert (found.taken, found.absent) == (2, 0)
    with pytest.raises(CacheError, match="nothing is complete"):
        Export(make_store(name="none", shards=()).path, "tiny", tmp_path / "none", partial=True)


def test_neither_replaces_anything(make_store, tmp_path: Path) -> None:
    made, other = make_store(shards=(0, 1)), make_store(name="other")
    (tmp_path / "out").mkdir()
    (tmp_path / "out/mine.txt").write_text("x")
    with pytest.raises(CacheError, match="there is something already"):
        Export(other.path, "tiny", tmp_path / "out")
    Export(other.path, "tiny", tmp_path / "packed").run()
    before = contents(made.path)
    with pytest.raises(CacheError, match="has scores of 'tiny' already, and not these") as caught:
        Import(tmp_path / "packed", made.path)
    assert caught.value.hint.action == MergeScores(str(made.path), str(tmp_path / "packed/scores.zarr"))
    assert contents(made.path) == before
    with pytest.raises(CacheError):
        Import(tmp_path / "packed", tmp_path / "out")
    assert contents(tmp_path / "out") == {"mine.txt": b"x"}
    with pytest.raises(CacheError, match="this is a store, not an export"):
        Import(other.path, made.path)


@pytest.fixture
def packed(make_store, tmp_path: Path) -> Path:
    Export(make_store(texts=11, videos=5).path, "tiny", tmp_path / "packed").run()
    return tmp_path / "packed"


def refused(packed: Path, match: str = ".") -> CacheError:
    """The error of taking `packed` in; nothing is left of the attempt."""
    target = packed.parent / "target.zarr"
    with pytest.raises(CacheError, match=match) as caught:
        Import(packed, target).run()
    assert not (target / "tiny").exists()
    assert not list(packed.parent.rglob(".tmp-*"))
    return caught.value


def test_every_changed_file_is_refused(packed: Path) -> None:
    for path in sorted(p for p in packed.rglob("*") if p.is_file()):
        data = path.read_bytes()
        for changed in (data[:-1], data + b"x", b"", bytes([data[len(data) // 2] ^ 1]) + data[1:]):
            path.write_bytes(changed if changed != data else b"?" + data[1:])
            refused(packed)
        path.unlink()
        refused(packed)
        path.write_bytes(data)
    Import(packed, packed.parent / "target.zarr").run()


def change(packed: Path, **values: object) -> None:
    """Change the manifest as somebody would who knows the format."""
    path = packed / "manifest.json"
    path.write_bytes(seal(json.loads(path.read_bytes()) | values))


@pytest.mark.parametrize(
    "name", ["../../secret", "/etc/passwd", "scores.zarr/../../x", "scores.zarr//x", "scores.zarr/.hidden", "notes", ""]
)
def test_names_that_lead_elsewhere_are_refused(packed: Path, name: str) -> None:
    files = json.loads((packed / "manifest.json").read_bytes())["files"]
    change(packed, files=files | {name: {"size": 1, "blake2b": "0" * 32}})
    refused(packed, "which is no file of an export")


@pytest.mark.parametrize("facts", [None, {}, {"size": "1", "blake2b": ""}, {"size": -1, "blake2b": ""}, {"size": True}])
def test_manifests_that_are_none_are_refused(packed: Path, facts: object) -> None:
    files = json.loads((packed / "manifest.json").read_bytes())["files"]
    change(packed, files=files | {"scores.zarr/zarr.json": facts})
    refused(packed, "does not say size and hash")
    change(packed, files=[])
    refused(packed, "lists no files")
    change(packed, format="zip")
    refused(packed, "is of format 'zip'")


def test_links_foreign_files_and_absurd_sizes_are_refused(packed: Path, monkeypatch) -> None:
    outside = packed.parent / "outside"
    outside.mkdir()
    (packed / "scores.zarr/extra").symlink_to(outside)
    refused(packed, "links are not followed")
    (packed / "scores.zarr/extra").unlink()
    os.mkfifo(packed / "pipe")
    refused(packed, "not a plain file")
    (packed / "pipe").unlink()
    (packed / "setup.py").write_text("print()")
    refused(packed, "foreign, it does not belong here: the manifest does not list it")
    (packed / "setup.py").unlink()
    path = packed / "scores.zarr/tiny/tiles/dense/coarse/c.0.0"
    path.rename(outside / "coarse")
    path.symlink_to(outside / "coarse")
    refused(packed, "links are not followed")
    path.unlink()
    with path.open("wb") as file:
        file.truncate(2**43)  # 8 TB of holes
    refused(packed, "bytes instead of")
    files = json.loads((packed / "manifest.json").read_bytes())["files"]
    files["scores.zarr/tiny/tiles/dense/coarse/c.0.0"]["size"] = 2**43
    change(packed, files=files)
    refused(packed)
    files["scores.zarr/tiny/tiles/dense/more"] = files.pop("scores.zarr/tiny/tiles/dense/coarse/c.0.0")
    path.rename(path.parents[1] / "more")
    change(packed, files=files)
    refused(packed, "does not list what a store has")


def test_what_systems_leave_is_neither_packed_nor_refused(make_store, tmp_path: Path) -> None:
    made, out, store = make_store(), tmp_path / "out", tmp_path / "taken.zarr"
    for folder in (made.path, made.path / "tiny", made.tile.folder, made.tile.folder / "done", out, store):
        folder.mkdir(exist_ok=True)
        (folder / ".DS_Store").write_bytes(b"Bud1")
        (folder / "@eaDir").mkdir()
        (folder / "@eaDir/x@SynoEAStream").write_bytes(b"x")
    Export(made.path, "tiny", out).run()
    manifest = json.loads((out / "manifest.json").read_bytes())
    assert not [name for name in manifest["files"] if ".DS_Store" in name or "@eaDir" in name]
    (out / "scores.zarr/tiny/._zarr.json").write_bytes(b"AppleDouble")
    Import(out, store).run()
    assert ScoreStore.open(store).teacher("tiny").complete
    assert (store / "@eaDir/x@SynoEAStream").exists()
    assert Check(store, full=True).run().findings == ()
    (found,) = Merge(store, [made.path]).run()
    assert found.same == 3


def test_a_disk_that_is_too_small_is_told_before_anything_is_copied(packed: Path, monkeypatch) -> None:
    monkeypatch.setattr(packing.shutil, "disk_usage", lambda _: shutil._ntuple_diskusage(9, 8, 1))  # type: ignore[attr-defined]
    refused(packed, "bytes, 1 are free")
    assert not (packed.parent / "target.zarr").exists()


@pytest.mark.parametrize("at", [0, 3, 6])
def test_a_full_disk_leaves_nothing_half_done(make_store, tmp_path: Path, monkeypatch, at: int) -> None:
    made, target = make_store(), make_store(name="target", shards=())
    Export(made.path, "tiny", tmp_path / "packed").run()
    real, calls = files_module.os.fsync, iter(range(1000))

    def full(handle: int) -> None:
        if next(calls) >= at:
            raise OSError(errno.ENOSPC, "No space left on device")
        real(handle)

    for work in (
        lambda: Export(made.path, "tiny", tmp_path / "out").run(),
        lambda: Import(tmp_path / "packed", tmp_path / "new.zarr").run(),
        lambda: Merge(target.path, [made.path]).run(),
    ):
        calls = iter(range(1000))
        with monkeypatch.context() as patch:
            patch.setattr(files_module.os, "fsync", full)
            with pytest.raises(CacheError, match="No space left on device"):
                work()
        assert not list(tmp_path.rglob(".tmp-*"))
        assert Check(target.path, full=True).run().findings == ()
    assert not (tmp_path / "out").exists()
    assert not (tmp_path / "new.zarr/tiny").exists()
    Merge(target.path, [made.path]).run()
    assert contents(target.path) == contents(made.path)


def test_a_kill_of_an_import_leaves_nothing_that_counts(packed: Path, monkeypatch) -> None:
    """Whatever step is the last: the store has all of the teacher or none of it."""
    real = packing.copy_shard
    calls = []

    def stopped(*arguments) -> None:
        calls.append(arguments)
        if len(calls) == 2:
            raise KeyboardInterrupt
        real(*arguments)

    monkeypatch.setattr(packing, "copy_shard", stopped)
    target = packed.parent / "target.zarr"
    with pytest.raises(KeyboardInterrupt):
        Import(packed, target).run()
    assert ScoreStore.open(target).teachers == ()
    Import(packed, target).run()
    assert ScoreStore.open(target).teacher("tiny").complete


def test_scores_that_fit_each_other_but_not_the_manifest_are_refused(make_store, packed: Path) -> None:
    """A shard swapped with its marker: complete for the store, but not what was packed."""
    other = make_store(texts=11, videos=5, name="other", shards=())
    other.coarse += np.float32(0.01) * np.arange(5)
    other.write(0, 1)
    tile = packed / "scores.zarr/tiny/tiles/dense"
    for file in ("coarse/c.0.0", "coarse_codec/c.0.0", "fine/c.0.0", "done/00000.json"):
        shutil.copyfile(other.tile.folder / file, tile / file)
    assert Check(packed / "scores.zarr", full=True).run().findings == ()
    refused(packed, "its bytes are not those that the manifest names")
