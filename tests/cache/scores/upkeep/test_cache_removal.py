"""rm and gc: what goes, what stays, and what happens to whoever has it open."""

import os
import shutil
import time
from pathlib import Path

import numpy as np
import pytest
from teachclip.cache.features import FeatureShards
from teachclip.cache.scores.shard import marker_path
from teachclip.cache.scores.store import ScoreStore
from teachclip.cache.scores.upkeep.check import Check
from teachclip.cache.scores.upkeep.removal import collect_garbage, refuse_removal, remove_teacher
from teachclip.cache.storage.identity import digest
from teachclip.errors import CacheError


def make_older(path: Path, seconds: float = 7200.0) -> None:
    """As if everything below `path` had been written `seconds` ago."""
    then = time.time() - seconds
    for each in (path, *path.rglob("*")):
        os.utime(each, (then, then), follow_symlinks=False)


def files(folder: Path) -> set[str]:
    return {str(p.relative_to(folder)) for p in folder.rglob("*") if not p.is_dir()}


def test_a_teacher_is_removed_and_the_others_stay(make_store) -> None:
    made = make_store()
    shutil.copytree(made.path / "tiny", made.path / "second")
    size = sum(p.stat().st_size for p in (made.path / "tiny").rglob("*") if p.is_file())
    assert remove_teacher(made.path, "tiny") == size
    assert ScoreStore.open(made.path).teachers == ("second",)
    assert not list(made.path.rglob(".tmp-*"))
    assert ScoreStore.open(made.path).teacher("second").complete
    with pytest.raises(CacheError, match="no scores of 'tiny'; there are: second"):
        remove_teacher(made.path, "tiny")


@pytest.mark.parametrize("name", ["..", ".", "", "tiny/tiles", "../s.zarr"])
def test_only_teachers_can_be_removed(make_store, name: str) -> None:
    made = make_store()
    with pytest.raises(CacheError):
        remove_teacher(made.path, name)
    assert made.cache.complete


def test_a_link_is_not_followed(make_store, tmp_path: Path) -> None:
    made = make_store()
    (made.path / "tiny").rename(tmp_path / "elsewhere")
    (made.path / "tiny").symlink_to(tmp_path / "elsewhere")
    with pytest.raises(CacheError, match="links are not followed"):
        remove_teacher(made.path, "tiny")
    assert (tmp_path / "elsewhere/zarr.json").exists()


def test_a_damaged_teacher_can_be_removed(make_store) -> None:
    made = make_store()
    (made.path / "tiny/zarr.json").write_bytes(b"")
    remove_teacher(made.path, "tiny")
    assert ScoreStore.open(made.path).teachers == ()


def test_what_is_being_written_is_not_removed(make_store) -> None:
    made = make_store(shards=(0,))
    with pytest.raises(CacheError, match="seems to be being written: not complete, and last written to 0 s ago"):
        remove_teacher(made.path, "tiny")
    make_older(made.path)
    (made.path / "tiny/videos").mkdir()
    (made.path / "tiny/videos/.tmp-1-x").write_bytes(b"x")
    with pytest.raises(CacheError, match="being written"):
        refuse_removal(made.path, "tiny")
    make_older(made.path)
    remove_teacher(made.path, "tiny")
    made = make_store(shards=(0,))
    remove_teacher(made.path, "tiny", age=0)


def test_an_open_reader_gets_an_error_and_never_other_numbers(make_store) -> None:
    """Not when the scores go, and not when others of the same shape take their place."""
    made, other = make_store(), make_store(name="other")
    other.coarse += 1
    for shard in range(3):
        marker_path(other.tile, shard).unlink()
    other.write(0, 1, 2)
    reader = made.cache.reader(made.texts, made.videos)
    every = np.arange(13)
    reader.read(np.arange(4), every)
    remove_teacher(made.path, "tiny")
    for rows in (np.arange(4), np.arange(8, 16)):
        with pytest.raises(CacheError, match="removed"):
            reader.read(rows, every)
    shutil.copytree(other.path / "tiny", made.path / "tiny")
    for rows in (np.arange(4), np.arange(8, 16)):
        with pytest.raises(CacheError, match="replaced"):
            reader.read(rows, every)
    made.cache.reader(made.texts, made.videos).read(np.arange(4), every)


def features(made, videos: list[bytes], **other: object) -> list[str]:
    """Features of these videos, in files whose names are returned."""
    made_by = {key: made.cache.identity[key] for key in ("weights", "score_version")} | other
    shards = FeatureShards(made.cache.videos_folder, made_by)
    for start in range(0, len(videos), 256):
        group = videos[start : start + 256]
        shards.write(group, {"vector": np.zeros((len(group), 2), np.float32)})
    names = [shards.path(videos[start : start + 256]) for start in range(0, len(videos), 256)]
    return [str(path.relative_to(made.path)) for path in (*names, shards.folder / "identity.json")]


def test_garbage_is_what_no_tile_needs_and_old_enough(make_store) -> None:
    made = make_store(videos=300, texts=9)
    digests = [key for _, key in made.videos]
    needed = features(made, digests)
    assert len(needed) == 3
    stranger = features(made, [digest(b"gone")])[0]
    foreign = features(made, digests, weights="bb" * 16)
    left = ["tiny/tiles/dense/coarse/.tmp-1-c.0.0", "tiny/tiles/.tmp-2-dense", ".tmp-3-removed-old"]
    (made.path / left[0]).write_bytes(b"abc")
    for folder in left[1:]:
        (made.path / folder).mkdir()
        (made.path / folder / "zarr.json").write_bytes(b"defg")
    everything = files(made.path)

    young = collect_garbage(made.path)
    assert (young.leftovers, young.features, young.bytes) == ((), (), 0)
    make_older(made.path)
    dry = collect_garbage(made.path, dry=True)
    assert files(made.path) == everything
    assert dry.leftovers == tuple(sorted(left))
    assert dry.features == tuple(sorted([stranger, *foreign]))
    gone = [*left[:1], *(f"{folder}/zarr.json" for folder in left[1:]), stranger, *foreign]
    assert dry.bytes == sum((made.path / name).stat().st_size for name in gone)
    assert collect_garbage(made.path) == dry
    assert files(made.path) == everything - set(gone)
    assert not (made.path / foreign[0]).parent.exists()
    assert Check(made.path, full=True).run().findings == ()
    assert collect_garbage(made.path).bytes == 0


def test_a_young_leftover_and_a_young_feature_are_left_to_their_writer(make_store) -> None:
    made = make_store()
    name = features(made, [digest(b"new")])[0]
    make_older(made.path)
    os.utime(made.path / name)
    (made.tile.folder / "fine/.tmp-1-c.0.0").write_bytes(b"")
    assert collect_garbage(made.path).bytes == 0
    assert (made.path / name).exists()
    assert (made.tile.folder / "fine/.tmp-1-c.0.0").exists()


def test_features_of_a_damaged_teacher_are_left_alone(make_store) -> None:
    made = make_store()
    name = features(made, [digest(b"gone")])[0]
    (made.tile.folder / "text_ids/c.0").write_bytes(b"")
    make_older(made.path)
    assert collect_garbage(made.path).kept == ("tiny",)
    assert (made.path / name).exists()
