"""Files that are deleted, emptied, cut, grown, zeroed, exchanged or another store's: who notices, and what heals."""

import shutil
from pathlib import Path

import pytest
from teachclip.cache.scores.store import ScoreStore
from teachclip.cache.scores.upkeep.check import Check, take_out

SHARD = ("coarse", "coarse_codec", "fine", "done")


@pytest.fixture
def foreign(writers, tmp_path: Path) -> Path:
    """A store of the same captions and videos with other scores."""
    writers.work(tmp_path / "foreign.zarr", other=0.5)
    return tmp_path / "foreign.zarr"


def harm(path: Path, how: str) -> None:
    data = path.read_bytes()
    if how == "deleted":
        path.unlink()
        return
    changed = {"emptied": b"", "cut": data[:-1], "half": data[: len(data) // 2], "grown": data + b"\0"}
    path.write_bytes(changed.get(how, bytes(len(data))))


@pytest.mark.parametrize("how", ["deleted", "emptied", "cut", "half", "grown", "zeroed"])
def test_every_file_of_a_store(writers, reference, tmp_path: Path, how: str) -> None:
    store = tmp_path / "s.zarr"
    shutil.copytree(reference, store)
    files = sorted(p for p in store.rglob("*") if p.is_file())
    assert len(files) > 30
    for file in files:
        data = file.read_bytes()
        harm(file, how)
        who = writers.first_to_notice(store)
        file.write_bytes(data)
        if "videos" in file.parts:  # features may be deleted: they are made again
            assert who in (("nobody",) if how == "deleted" else ("resume", "verify")), file
        else:
            late = how == "zeroed" and file.parent.name == "coarse" and file.name != "zarr.json"
            assert who == ("read" if late else "open"), file
    assert writers.first_to_notice(store) == "nobody"


@pytest.mark.parametrize("how", ["exchanged", "another store's"])
@pytest.mark.parametrize("name", SHARD)
def test_whole_files_of_the_same_size(
    writers, reference, contents, tmp_path: Path, foreign: Path, how: str, name: str
) -> None:
    """Each byte is one that was written, only elsewhere: a full verification compares hashes, and repair heals."""
    store = tmp_path / "s.zarr"
    shutil.copytree(reference, store)
    names = ("00000.json", "00001.json") if name == "done" else ("c.0.0", "c.1.0")
    first, second = (store / "tiny/tiles/dense" / name / each for each in names)
    if how == "exchanged":
        held = first.read_bytes(), second.read_bytes()
        assert held[0] != held[1]
        first.write_bytes(held[1])
        second.write_bytes(held[0])
    else:
        data = (foreign / "tiny/tiles/dense" / name / names[0]).read_bytes()
        assert data != first.read_bytes()
        first.write_bytes(data)
    findings = Check(store, full=True).run().findings
    assert [finding.shard for finding in findings] == [0, 1] if how == "exchanged" else [0]
    assert (writers.first_to_notice(store) == "open") == (name == "done" and how == "exchanged")
    for finding in findings:
        take_out(ScoreStore.open(store).teacher("tiny"), finding)
    writers.work(store)
    assert contents(store) == contents(reference)


def test_a_shard_copied_under_another_number_does_not_count(writers, reference, tmp_path: Path) -> None:
    """As when somebody fills a gap by hand."""
    store = tmp_path / "s.zarr"
    shutil.copytree(reference, store)
    tile = store / "tiny/tiles/dense"
    for name in SHARD[:3]:
        shutil.copy(tile / name / "c.0.0", tile / name / "c.1.0")
    shutil.copy(tile / "done/00000.json", tile / "done/00001.json")
    assert writers.first_to_notice(store) == "open"
    (finding,) = Check(store).run().findings
    assert finding.why == "its marker is of another shard or tile"
