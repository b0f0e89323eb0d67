"""The score store: what is written comes back, by id, complete or not at all, with every Zarr library."""

import errno
from pathlib import Path

import numpy as np
import pytest
import tensorstore as ts
import zarr
from teachclip.cache.scores import shard as shards_module
from teachclip.cache.scores.lookup import renumbered
from teachclip.cache.scores.shard import marker_path, missing_shards, problem, write_shard
from teachclip.cache.scores.store import ScoreStore
from teachclip.cache.scores.tile import Key, TileContents
from teachclip.cache.storage.identity import digest, text_digest
from teachclip.errors import CacheError, CacheMismatchError
from teachclip.remedies import RepairScores, Score

STEP = 0.4 / 65534  # the rows of the made store span less


@pytest.mark.parametrize("dtype", ["uint16", "float32"])
def test_batches_come_back_by_id(make_store, dtype: str) -> None:
    made = make_store(dtype=dtype)
    rng = np.random.default_rng(0)
    text_order, video_order = rng.permutation(21)[:17], rng.permutation(13)[:11]
    reader = made.cache.reader([made.texts[i] for i in text_order], [made.videos[j] for j in video_order])
    for _ in range(5):
        text_index, video_index = rng.integers(0, 17, 9), rng.integers(0, 11, 9)
        labels = reader.read(text_index, video_index)
        expected = made.coarse[np.ix_(text_order[text_index], video_order[video_index])]
        assert labels.coarse.dtype == np.float32
        np.testing.assert_allclose(labels.coarse, expected, rtol=0, atol=0 if dtype == "float32" else STEP)
        np.testing.assert_array_equal(labels.frame_logits, made.fine[text_order[text_index]])


def test_batches_may_be_begun_before_others_are_taken(make_store) -> None:
    made = make_store()
    reader, every = made.cache.reader(made.texts, made.videos), np.arange(13)
    begun = [reader.start(texts, every) for texts in (np.arange(9), np.arange(12, 21), np.array([20, 3, 3]))]
    for pending in reversed(begun):
        labels, expected = pending.result(), reader.read(pending.texts, every)
        np.testing.assert_array_equal(labels.coarse, expected.coarse)
        np.testing.assert_array_equal(labels.frame_logits, expected.frame_logits)


def test_a_batch_begun_on_a_harmed_shard_fails_when_it_is_taken(make_store) -> None:
    made = make_store()
    reader = made.cache.reader(made.texts, made.videos)
    (made.tile.folder / "coarse/c.1.0").unlink()
    pending = reader.start(np.arange(21), np.arange(13))
    with pytest.raises(CacheError, match="shard 1 is"):
        pending.result()


def test_what_the_store_says_of_itself(make_store) -> None:
    made = make_store()
    cache = made.cache
    assert (cache.scale, cache.dtype, cache.frames, cache.frame_logits) == (100.0, "uint16", 4, True)
    assert cache.identity["frames.choice"] == "uniform"
    assert cache.complete
    assert ScoreStore.open(made.path).teachers == ("tiny",)
    tile = cache.tiles[0]
    assert tile.text_ids == tuple(key for key, _ in made.texts)
    np.testing.assert_array_equal(tile.text_video, made.own)
    np.testing.assert_array_equal(tile.frame_times[0], [0, 1, np.nan, np.nan])


def test_a_teacher_without_frame_logits(tmp_path: Path) -> None:
    cache = ScoreStore.create(tmp_path / "s.zarr").create_teacher("plain", {}, 1.0, "float32", 4, False)
    keys = [("v#0", text_digest("x"))], [("v", digest(b"v"))]
    tile = cache.create_tile("dense", TileContents(*keys, np.zeros(1), np.zeros((1, 4))), shard_texts=1024)
    write_shard(tile, 0, np.full((1, 1), 0.25, np.float32), None)
    labels = cache.reader(*keys).read(np.array([0, 0]), np.array([0]))
    assert labels.frame_logits is None
    np.testing.assert_array_equal(labels.coarse, [[0.25], [0.25]])
    assert not (tile.folder / "fine").exists()


def test_zarr_python_reads_the_same_store(make_store) -> None:
    made = make_store()
    with zarr.config.set({"array.read_missing_chunks": False}):
        tile = zarr.open_group(made.path, mode="r")["tiny/tiles/dense"]
        codes, codec = tile["coarse"][:], tile["coarse_codec"][:]
        np.testing.assert_allclose(codec[:, 1:] + codes * codec[:, :1], made.coarse, rtol=0, atol=STEP)
        np.testing.assert_array_equal(tile["fine"][:], made.fine)
        assert bytes(tile["text_ids"][:]).decode().split("\n") == [key for key, _ in made.texts]
        assert [bytes(row) for row in tile["video_digests"][:]] == [key for _, key in made.videos]
        np.testing.assert_array_equal(tile["text_video"][:], made.own)
        assert tile["frame_times"].shape == (13, 4)
        assert zarr.open_group(made.path, mode="r")["tiny"].attrs["scale"] == 100.0
        (made.tile.folder / "coarse/c.1.0").unlink()
        with pytest.raises(zarr.errors.ChunkNotFoundError):
            tile["coarse"][9]


def test_tensorstore_reads_it_from_the_files_alone(make_store) -> None:
    made = make_store()
    spec = {
        "driver": "zarr3",
        "kvstore": {"driver": "file", "path": f"{made.tile.folder}/coarse/"},
        "fill_missing_data_reads": False,
    }
    codes = ts.open(spec, open=True).result().read().result()
    assert codes.shape == (21, 13)
    assert codes.max() == 65534


def test_many_tiles_serve_one_request(tmp_path: Path) -> None:
    """Two blocks, and an extension by a video that both blocks' captions were scored with."""
    rng = np.random.default_rng(3)
    coarse, fine = rng.normal(size=(6, 5)).astype(np.float32), rng.normal(size=(6, 4)).astype(np.float32)
    texts = [(f"t{i}", text_digest(f"t{i}")) for i in range(6)]
    videos = [(f"v{j}", digest(f"v{j}".encode())) for j in range(5)]
    own = np.array([0, 1, 1, 2, 3, 4])
    cache = ScoreStore.create(tmp_path / "s.zarr").create_teacher("tiny", {}, 1.0, "float32", 4, True)
    for name, rows, columns in (
        ("block-0", [0, 1, 2], [0, 1]),
        ("block-1", [3, 4], [2, 3]),
        ("extend-videos", [0, 1, 2, 3, 4], [4]),
        ("extend-texts", [5], [0, 1, 2, 3, 4]),
    ):
        column_of = [columns.index(own[row]) if own[row] in columns else -1 for row in rows]
        contents = TileContents(
            [texts[i] for i in rows], [videos[j] for j in columns], np.array(column_of), np.zeros((len(columns), 4))
        )
        tile = cache.create_tile(name, contents, shard_texts=2)
        for shard in range(tile.spec.shards):
            span = tile.spec.rows(shard)
            picked = np.array(rows)[span.start : span.stop]
            here = np.array(column_of)[span.start : span.stop, None] >= 0
            logits = np.where(here, fine[picked], np.float32(99.0))  # without meaning where the own video is elsewhere
            write_shard(tile, shard, coarse[np.ix_(picked, columns)], logits)

    cache = ScoreStore.open(tmp_path / "s.zarr").teacher("tiny")
    assert cache.complete
    reader = cache.reader(texts, videos)
    for rows, columns in (([2, 0, 5], [4, 1, 0]), ([4, 3], [2, 4, 3]), ([5], [3, 1, 4])):
        labels = reader.read(np.array(rows), np.array(columns))
        np.testing.assert_array_equal(labels.coarse, coarse[np.ix_(rows, columns)])
        np.testing.assert_array_equal(labels.frame_logits, fine[rows])
    with pytest.raises(CacheError, match=r"1 pair of this batch has no score, t0 with v3"):
        reader.read(np.array([0, 5]), np.array([0, 3]))


def test_a_changed_caption_is_refused_by_name(make_store) -> None:
    made = make_store()
    texts = [*made.texts[:4], (made.texts[4][0], text_digest("another caption")), *made.texts[5:]]
    with pytest.raises(CacheMismatchError, match="captions changed") as caught:
        made.cache.reader(texts, made.videos)
    assert caught.value.details == (made.texts[4][0],)


def test_changed_frames_are_refused_by_name_and_counted(make_store) -> None:
    made = make_store()
    videos = [(key, digest(b"other")) for key, _ in made.videos]
    with pytest.raises(CacheMismatchError, match="frames changed") as caught:
        made.cache.reader(made.texts, videos)
    assert caught.value.details == (*(key for key, _ in videos[:5]), "... and 8 more")


def test_texts_and_videos_without_scores_are_refused_by_name(make_store) -> None:
    made = make_store()
    with pytest.raises(CacheMismatchError, match="1 video has no scores") as caught:
        made.cache.reader(made.texts, [*made.videos, ("new.mp4", digest(b"new"))])
    assert caught.value.details == ("new.mp4",)
    with pytest.raises(CacheMismatchError, match="1 caption has no scores"):
        made.cache.reader([("new.mp4#0", text_digest("new"))], made.videos)


def test_a_reader_follows_a_store_that_is_being_written(make_store) -> None:
    made = make_store(shards=(1,))
    assert not made.cache.complete
    assert missing_shards(made.tile) == [0, 2]
    reader = made.cache.reader(made.texts[8:16], made.videos)
    np.testing.assert_allclose(reader.read(np.arange(8), np.arange(13)).coarse, made.coarse[8:16], rtol=0, atol=STEP)
    with pytest.raises(CacheError, match="shard 0 is not complete: not scored yet") as caught:
        made.cache.reader(made.texts, made.videos)
    assert caught.value.hint.action == Score()
    made.write(0, 2)
    made.cache.reader(made.texts, made.videos)


@pytest.mark.parametrize("harm", ["deleted", "emptied", "truncated", "grown", "no marker", "foreign marker", "link"])
@pytest.mark.parametrize("file", ["coarse/c.1.0", "coarse_codec/c.1.0", "fine/c.1.0"])
def test_a_harmed_shard_is_incomplete_named_and_redone(make_store, harm: str, file: str, tmp_path: Path) -> None:
    made = make_store()
    path, marker = made.tile.folder / file, marker_path(made.tile, 1)
    data = path.read_bytes()
    if harm == "deleted":
        path.unlink()
    elif harm == "link":
        path.rename(tmp_path / "elsewhere")
        path.symlink_to(tmp_path / "elsewhere")
    elif harm == "no marker":
        marker.unlink()
    elif harm == "foreign marker":
        marker.write_bytes(marker_path(made.tile, 0).read_bytes())
    else:
        path.write_bytes({"emptied": b"", "truncated": data[:-1], "grown": data + b"\0"}[harm])
    assert missing_shards(made.tile) == [1]
    with pytest.raises(CacheError, match="shard 1 is not complete") as caught:
        made.cache.reader(made.texts, made.videos)
    assert caught.value.hint.action == Score()
    made.write(1)
    assert made.cache.complete
    assert path.read_bytes() == data


@pytest.mark.parametrize("harm", ["deleted", "emptied", "flipped"])
def test_harm_under_an_open_reader_is_an_error_that_names_the_shard(make_store, harm: str) -> None:
    made = make_store()
    reader = made.cache.reader(made.texts, made.videos)
    reader.read(np.arange(8), np.arange(8))
    path = made.tile.folder / "coarse/c.1.0"
    data = path.read_bytes()
    path.unlink()
    if harm == "emptied":
        path.write_bytes(b"")
    if harm == "flipped":
        path.write_bytes(data[:30] + bytes([data[30] ^ 16]) + data[31:])
    with pytest.raises(CacheError, match="shard 1 is") as caught:
        reader.read(np.arange(8, 16), np.arange(8))
    assert caught.value.hint.action == (RepairScores() if harm == "flipped" else Score())
    np.testing.assert_allclose(reader.read(np.arange(8), np.arange(8)).coarse, made.coarse[:8, :8], rtol=0, atol=STEP)


@pytest.mark.parametrize("value", [np.nan, np.inf, -np.inf])
def test_scores_that_are_not_finite_are_refused_with_texts_and_videos(make_store, value: float) -> None:
    made = make_store(shards=())
    made.coarse[9, 3] = value
    with pytest.raises(CacheError, match="1 scores that are not finite") as caught:
        made.write(1)
    assert caught.value.details == (f"{made.texts[9][0]} with {made.videos[3][0]}",)
    made.coarse[9, 3] = 0
    made.fine[10, 1] = value
    with pytest.raises(CacheError, match="1 scores that are not finite") as caught:
        made.write(1)
    assert caught.value.details == (f"{made.texts[10][0]} with {made.videos[made.own[10]][0]}",)
    made.coarse[:] = value
    with pytest.raises(CacheError, match="104 scores that are not finite"):
        made.write(1)
    assert missing_shards(made.tile) == [0, 1, 2]
    assert not (made.tile.folder / "coarse/c.1.0").exists()


@pytest.mark.parametrize("at", [0, 1, 2, 3])
def test_a_full_disk_keeps_what_is_finished(make_store, monkeypatch: pytest.MonkeyPatch, at: int) -> None:
    made = make_store(shards=(0,))
    publish, calls = shards_module.publish, iter(range(100))

    def full(path: Path, data: bytes) -> None:
        if next(calls) == at:
            raise OSError(errno.ENOSPC, "No space left on device")
        publish(path, data)

    monkeypatch.setattr(shards_module, "publish", full)
    with pytest.raises(CacheError, match="cannot be written: No space left on device") as caught:
        made.write(1)
    assert caught.value.hint.action == Score()
    assert missing_shards(made.tile) == [1, 2]
    monkeypatch.undo()
    made.write(1, 2)
    assert made.cache.complete


def test_folders_that_are_no_store_are_refused(tmp_path: Path) -> None:
    with pytest.raises(CacheError, match="there is no score store") as caught:
        ScoreStore.open(tmp_path / "absent.zarr")
    assert caught.value.hint.action == Score()
    (tmp_path / "photos").mkdir()
    (tmp_path / "photos/a.jpg").write_bytes(b"x")
    with pytest.raises(CacheError, match="has files that are no score store"):
        ScoreStore.create(tmp_path / "photos")
    assert [p.name for p in (tmp_path / "photos").iterdir()] == ["a.jpg"]
    store = ScoreStore.create(tmp_path / "s.zarr")
    with pytest.raises(CacheError, match=r"no scores of 'big'; there are: none"):
        store.teacher("big")


def test_a_marker_of_another_tile_does_not_count(make_store) -> None:
    made, other = make_store(name="first"), make_store(name="second", texts=20)
    marker_path(made.tile, 0).write_bytes(marker_path(other.tile, 0).read_bytes())
    assert problem(made.tile, 0) == "its marker is of another shard or tile"


def test_a_second_tile_of_the_same_name_must_be_the_same(make_store) -> None:
    made = make_store()
    times = made.tile.frame_times
    same = made.cache.create_tile("dense", TileContents(made.texts, made.videos, made.own, times), shard_texts=8)
    assert same.checksum == made.tile.checksum
    assert missing_shards(same) == []
    with pytest.raises(CacheError, match="other contents"):
        made.cache.create_tile("dense", TileContents(made.texts, made.videos, made.own, times + 1), shard_texts=8)


def test_a_scale_that_is_not_finite_is_refused(tmp_path: Path) -> None:
    with pytest.raises(CacheError, match="teacher 'tiny' has scale inf and 4 frames"):
        ScoreStore.create(tmp_path / "s.zarr").create_teacher("tiny", {}, float("inf"), "uint16", 4, False)


@pytest.mark.parametrize("ids", [("a", "a"), ("a", ""), ("a", "b\nc")])
def test_ids_that_could_be_mistaken_are_refused(tmp_path: Path, ids: tuple[str, str]) -> None:
    cache = ScoreStore.create(tmp_path / "s.zarr").create_teacher("tiny", {}, 1.0, "uint16", 4, False)
    texts, videos = [(key, text_digest(key)) for key in ids], [("v", digest(b"v"))]
    with pytest.raises(CacheError, match="ids must be unique"):
        cache.create_tile("dense", TileContents(texts, videos, np.zeros(2), np.zeros((1, 4))), shard_texts=8)


def test_shards_are_the_same_bytes_whoever_writes_them(make_store) -> None:
    first, second = make_store(name="first"), make_store(name="second", shards=(2, 0, 1))
    files = [p.relative_to(first.path) for p in sorted(first.path.rglob("*")) if p.is_file()]
    assert len(files) > 20
    for file in files:
        assert (first.path / file).read_bytes() == (second.path / file).read_bytes(), file
    assert problem(first.tile, 0, every_byte=True) is None


def in_one_video(made, *captions: int) -> list[Key]:
    """These of the store's captions of one video, numbered anew in this order."""
    first = made.own[0]
    rows = [row for row in range(len(made.texts)) if made.own[row] == first]
    return [(made.texts[rows[k]][0], made.texts[rows[c]][1]) for k, c in enumerate(captions)]


@pytest.mark.parametrize("order", [(0, 1), (1, 0), (1,)])
def test_captions_in_another_order_keep_their_scores(make_store, order: tuple[int, ...]) -> None:
    made = make_store()
    rows = [row for row in range(len(made.texts)) if made.own[row] == made.own[0]]
    others = [row for row in range(len(made.texts)) if row not in rows]
    asked = [*in_one_video(made, *order), *(made.texts[row] for row in others)]
    labels = made.cache.reader(asked, made.videos).read(np.arange(len(asked)), np.arange(len(made.videos)))
    expected = made.cache.reader(made.texts, made.videos).read(
        np.array([*(rows[c] for c in order), *others]), np.arange(len(made.videos))
    )
    np.testing.assert_array_equal(labels.coarse, expected.coarse)
    np.testing.assert_array_equal(labels.frame_logits, expected.frame_logits)


def test_a_new_caption_in_the_place_of_one_that_moved_is_new_and_not_changed(make_store) -> None:
    made = make_store()
    (first, _), (second, moved) = in_one_video(made, 0, 1)
    asked = [(first, moved), (second, text_digest("new")), (f"{first}0", text_digest("newer"))]
    named = [key for key, _ in renumbered(made.cache.tiles, asked)]
    assert named[0] == second
    assert not set(named[1:]) & {key for key, _ in made.texts}
    assert len(set(named)) == 3
    with pytest.raises(CacheMismatchError, match="2 captions have no scores"):
        made.cache.reader(asked, made.videos)
    assert renumbered(made.cache.tiles, made.texts) is made.texts
