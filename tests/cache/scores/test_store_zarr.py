"""zarr-python makes the documents that earlier releases made by hand, and shows what lies in a store."""

import json
import subprocess
import sys
import tarfile
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import zarr
from teachclip.cache.scores.format.arrays import TileSpec
from teachclip.cache.scores.format.tensorstore_io import encode_chunks
from teachclip.cache.scores.format.zarr_io import write_array
from teachclip.cache.scores.store import ScoreCache, ScoreStore
from teachclip.cache.scores.tile import TileContents
from teachclip.cache.storage.identity import canonical
from teachclip.errors import CacheError
from zarr.buffer.cpu import Buffer

WORLD = Path(__file__).parents[2] / "world/world-4b3091f.tar.gz"
STORES = ("scores.zarr", "half.zarr", "other.zarr")

# docs/reference/score-cache.md, in JSON
PLAIN = [{"name": "bytes", "configuration": {"endian": "little"}}, {"name": "crc32c"}]
BYTES = [{"name": "bytes"}, {"name": "crc32c"}]


def by_row(videos: int) -> list[dict[str, Any]]:
    configuration = {"chunk_shape": [1, videos], "codecs": PLAIN, "index_codecs": PLAIN, "index_location": "end"}
    return [{"name": "sharding_indexed", "configuration": configuration}]


def document(shape: list[int], dtype: str, chunk: list[int], names: list[str], codecs: list[Any], fill: Any) -> bytes:
    return canonical(
        {
            "zarr_format": 3,
            "node_type": "array",
            "shape": shape,
            "data_type": dtype,
            "chunk_grid": {"name": "regular", "configuration": {"chunk_shape": chunk}},
            "chunk_key_encoding": {"name": "default", "configuration": {"separator": "."}},
            "fill_value": fill,
            "codecs": codecs,
            "dimension_names": names,
            "attributes": {},
        }
    )


@pytest.fixture(scope="module")
def world(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Stores that the release of commit 4b3091f made: a complete one, and its two halves. Not to be written to."""
    folder = tmp_path_factory.mktemp("world")
    with tarfile.open(WORLD) as archive:
        inside = (one for one in archive if one.name.removeprefix("./").startswith("work/") and ".zarr" in one.name)
        archive.extractall(folder, members=inside, filter="data")
    return folder / "work"


def made_anew(old: ScoreCache, path: Path) -> ScoreCache:
    """A store of the same teacher and tiles, without scores."""
    new = ScoreStore.create(path).create_teacher(
        old.name, old.identity, old.scale, old.dtype, old.frames, old.frame_logits, old.checkpoint
    )
    for tile in old.tiles:
        texts = list(zip(tile.text_ids, map(bytes, tile.text_digests), strict=True))
        videos = list(zip(tile.video_ids, map(bytes, tile.video_digests), strict=True))
        contents = TileContents(texts, videos, tile.text_video, tile.frame_times)
        new.create_tile(tile.name, contents, tile.spec.shard_texts)
    return new


# What zarr-python makes


@pytest.mark.parametrize("store", STORES)
def test_a_tile_made_now_has_the_bytes_that_an_earlier_release_wrote(world: Path, tmp_path: Path, store: str) -> None:
    made_anew(ScoreStore.open(world / store).teacher("xclip"), tmp_path / "s.zarr")
    made = {path.relative_to(tmp_path / "s.zarr") for path in (tmp_path / "s.zarr").rglob("*") if path.is_file()}
    assert {path for path in made if path.name == "zarr.json"} == {
        path.relative_to(world / store) for path in (world / store).rglob("zarr.json")
    }
    assert len(made) == 13 + 6  # documents, and the chunks of arrays that come with a tile
    new, old = (
        {path: (folder / path).read_bytes() for path in made} for folder in (tmp_path / "s.zarr", world / store)
    )
    assert [path for path in made if new[path] != old[path]] == []


def test_only_an_empty_member_and_white_space_tell_zarrs_documents_from_stored_ones(world: Path) -> None:
    stored = [path for path in (world / "scores.zarr").rglob("zarr.json") if path.parent.parent.name == "dense"]
    assert len(stored) == 9
    for path in stored:
        written: dict[str, Buffer] = {}
        zarr.create_array(written, **metadata_of(path))
        document = json.loads(written["zarr.json"].to_bytes())
        assert document.pop("storage_transformers") == []
        assert canonical(document) == path.read_bytes()


def metadata_of(path: Path) -> dict[str, Any]:
    """What zarr-python finds in a stored document, as arguments for an array like it."""
    array = zarr.open_array(path.parent, mode="r")
    return {
        "shape": array.shape,
        "dtype": array.dtype,
        "chunks": array.chunks,
        "shards": array.shards,
        "filters": array.filters,
        "serializer": array.serializer,
        "compressors": array.compressors,
        "fill_value": array.fill_value,
        "chunk_key_encoding": {"name": "default", "separator": "."},
        "dimension_names": array.metadata.dimension_names,
    }


@pytest.mark.parametrize("frame_logits", [True, False])
@pytest.mark.parametrize("dtype", ["uint16", "float16", "float32"])
def test_every_array_is_described_as_the_specification_says(dtype: Any, frame_logits: bool) -> None:
    spec = TileSpec(21, 13, 4, frame_logits, dtype, 8, 300, 90)
    fill = 65535 if dtype == "uint16" else "NaN"
    expected = {
        "text_ids": document([300], "uint8", [300], ["byte"], BYTES, 0),
        "video_ids": document([90], "uint8", [90], ["byte"], BYTES, 0),
        "text_digests": document([21, 16], "uint8", [21, 16], ["text", "byte"], BYTES, 0),
        "video_digests": document([13, 16], "uint8", [13, 16], ["video", "byte"], BYTES, 0),
        "text_video": document([21], "int64", [21], ["text"], PLAIN, 0),
        "frame_times": document([13, 4], "float64", [13, 4], ["video", "frame"], PLAIN, "NaN"),
        "coarse": document([21, 13], dtype, [8, 13], ["text", "video"], by_row(13), fill),
    }
    if dtype == "uint16":
        expected["coarse_codec"] = document([21, 2], "float64", [8, 2], ["text", "scale_offset"], PLAIN, "NaN")
    if frame_logits:
        expected["fine"] = document([21, 4], "float32", [8, 4], ["text", "frame"], PLAIN, "NaN")
    assert {name: canonical(metadata) for name, metadata in spec.arrays().items()} == expected


@pytest.mark.parametrize("fill", [False, True])
def test_the_arrays_of_a_tile_are_the_bytes_that_tensorstore_would_write(fill: bool) -> None:
    spec = TileSpec(21, 13, 4, True, "uint16", 8, 300, 90)
    for name, metadata in spec.arrays().items():
        if name not in spec.scored:
            dtype, shape = np.dtype(metadata["data_type"]), metadata["shape"]
            empty = np.nan if dtype.kind == "f" else 0
            values = np.full(shape, empty, dtype) if fill else np.arange(np.prod(shape)).reshape(shape).astype(dtype)
            made = write_array(metadata, values)
            assert list(made) == [f"c.{'.'.join('0' * len(shape))}"]  # of fill values alone, too
            assert made == encode_chunks(metadata, values)


# What zarr-python shows


@pytest.mark.parametrize("far", [False, True])
def test_a_store_is_walked_and_read_as_ordinary_groups_and_arrays(make_store, bucket, far: bool) -> None:
    made = make_store()
    (made.path / "tiny/videos/00").mkdir(parents=True)
    (made.path / "tiny/tiles/dense/.tmp-0-coarse").mkdir()
    if far:
        bucket.put(made.path, "s.zarr")
    store = ScoreStore.open(f"{bucket.url}/s.zarr" if far else made.path)
    group = store.zarr
    assert isinstance(group, zarr.Group)
    assert [name for name, _ in group.groups()] == ["tiny"]
    assert "coarse (21, 13) uint16" in str(group.tree())
    tile = group["tiny/tiles/dense"]
    assert {name: array.shape for name, array in tile.arrays()} == {
        name: tuple(metadata["shape"]) for name, metadata in made.tile.arrays.items()
    }
    assert group["tiny"].attrs["scale"] == 100.0
    codes, codec = tile["coarse"][:], tile["coarse_codec"][:]
    np.testing.assert_allclose(codec[:, 1:] + codes * codec[:, :1], made.coarse, rtol=0, atol=0.4 / 65534)
    np.testing.assert_array_equal(tile["fine"][3:20:4], made.fine[3:20:4])
    np.testing.assert_array_equal(tile["coarse"].oindex[[20, 2], [1, 5]], codes[np.ix_([20, 2], [1, 5])])
    assert bytes(tile["text_ids"][:]).decode().split("\n") == [key for key, _ in made.texts]
    sizes = [path.stat().st_size for path in (made.path / "tiny/tiles/dense/coarse").iterdir()]
    assert (tile["coarse"].nchunks_initialized, tile["coarse"].nbytes_stored()) == (24, sum(sizes))
    assert str(store.path) in str(tile["coarse"])
    teacher = store.teacher("tiny").zarr
    np.testing.assert_array_equal(teacher["tiles/dense/coarse"][:], codes)


def test_it_cannot_be_changed(make_store) -> None:
    group = make_store().cache.zarr
    with pytest.raises(ValueError, match="read-only"):
        group["tiles/dense/coarse"][0] = 0
    with pytest.raises(ValueError, match="read-only"):
        group.attrs["scale"] = 1.0
    with pytest.raises(ValueError, match="read-only"):
        group.create_group("other")
    with pytest.raises(ValueError, match="read-only"):
        del group["tiles"]
    assert group.read_only


def test_what_is_not_scored_yet_is_an_error_not_a_fill_value(make_store) -> None:
    made = make_store(shards=(0, 2))
    coarse = made.cache.zarr["tiles/dense/coarse"]
    assert coarse[:8].max() == coarse[16:].max() == 65534
    assert coarse.nchunks_initialized == 16
    with pytest.raises(CacheError, match="shard 1 is not complete: not scored yet"):
        _ = coarse[8]
    made.write(1)
    assert coarse[:].max() == 65534  # what others add meanwhile is there


def test_damage_and_links_are_errors(make_store) -> None:
    made = make_store()
    tile = made.cache.zarr["tiles/dense"]
    files = {name: made.tile.folder / name for name in ("coarse/c.0.0", "frame_times/c.0.0", "text_video/c.0")}
    raw = bytearray(files["coarse/c.0.0"].read_bytes())
    raw[3] ^= 1
    files["coarse/c.0.0"].write_bytes(raw)
    with pytest.raises(ValueError, match="checksum"):
        _ = tile["coarse"][0]
    files["frame_times/c.0.0"].write_bytes(b"")
    with pytest.raises(CacheError, match="has 0 bytes instead of 420"):
        _ = tile["frame_times"][:]
    aside = files["text_video/c.0"].rename(made.path.with_name("aside"))
    with pytest.raises(CacheError, match="is missing"):
        _ = tile["text_video"][:]
    files["text_video/c.0"].symlink_to(aside)
    with pytest.raises(CacheError, match="links are not followed"):
        _ = tile["text_video"][:]
    (made.path / "tiny/tiles/dense/coarse/zarr.json").write_bytes(b"{}")
    assert tile["coarse"][9].shape == (13,)  # the document that was checked goes on to hold
    with pytest.raises(CacheError, match="do not match the tile's metadata"):
        _ = ScoreStore.open(made.path).zarr


def test_a_tile_that_was_replaced_is_not_read(make_store) -> None:
    made = make_store()
    tile = made.cache.zarr["tiles/dense"]
    path = made.tile.folder / "zarr.json"
    path.rename(path.with_name("old"))
    path.write_bytes(path.with_name("old").read_bytes() + b"")
    with pytest.raises(CacheError, match="removed or replaced"):
        _ = tile["coarse"][0]


# What it costs who does not ask for it

USES_ZARR = """
import sys
from teachclip.cache.scores.store import ScoreStore
from teachclip.cache.scores.reading import label_process
assert "zarr" not in sys.modules, "imported by whoever imports the store"
store = ScoreStore.open(sys.argv[1])
print(store.teacher("tiny").zarr["tiles/dense/coarse"][:].sum())
"""


def test_a_process_that_used_zarr_ends_well_and_says_nothing(make_store) -> None:
    made = make_store()
    command = [sys.executable, "-W", "error", "-c", USES_ZARR, str(made.path)]
    ended = subprocess.run(command, capture_output=True, text=True, timeout=200)
    codes = zarr.open_array(made.tile.folder / "coarse", mode="r")[:]
    assert (ended.returncode, ended.stdout, ended.stderr) == (0, f"{codes.sum()}\n", "")
