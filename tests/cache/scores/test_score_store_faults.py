"""Flipped bits and hostile stores: each is refused; none runs code, leads out of the store or asks for memory."""

import json
import random
import resource
import shutil
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from teachclip.cache.scores.shard import problem
from teachclip.cache.scores.store import ScoreStore
from teachclip.cache.storage.sealed import seal
from teachclip.errors import CacheError


def read_everything(made) -> None:
    """Open the store, and read all that is in it."""
    store = ScoreStore.open(made.path)
    for name in store.teachers:
        cache = store.teacher(name)
        reader = cache.reader(made.texts, made.videos)
        reader.read(np.arange(len(made.texts)), np.arange(len(made.videos)))


@pytest.mark.parametrize("dtype", ["uint16", "float32"])
def test_no_flipped_bit_goes_unnoticed(make_store, dtype: str) -> None:
    made = make_store(texts=11, videos=5, dtype=dtype)
    read_everything(made)
    rng = random.Random(7)
    files = sorted(p for p in made.path.rglob("*") if p.is_file())
    assert {"zarr.json", "00000.json", "c.0", "c.0.0", "c.1.0"} == {p.name for p in files} - {"00001.json"}
    flips = 0
    for path in files:
        data = path.read_bytes()
        for bit in rng.sample(range(8 * len(data)), 20):
            flipped = bytearray(data)
            flipped[bit // 8] ^= 1 << bit % 8
            path.write_bytes(flipped)
            with pytest.raises(CacheError):
                read_everything(made)
            flips += 1
        path.write_bytes(data)
    assert flips > 400
    read_everything(made)


def test_a_deep_check_compares_every_byte(make_store) -> None:
    made = make_store()
    path = made.tile.folder / "coarse/c.2.0"
    data = bytearray(path.read_bytes())
    data[5] ^= 1
    path.write_bytes(data)
    assert problem(made.tile, 2) is None
    assert problem(made.tile, 2, every_byte=True) == "coarse/c.2.0 has other bytes than were written"


def rewrite(path: Path, change: Callable[[dict[str, Any]], object]) -> None:
    """Change a document as somebody would who knows the format: with the right checksum."""
    document = json.loads(path.read_bytes())
    change(document)
    path.write_bytes(seal(document))


def set_attribute(key: str, value: object) -> Callable[[dict[str, Any]], object]:
    return lambda document: document["attributes"].__setitem__(key, value)


@pytest.mark.parametrize(
    ("file", "key", "value", "message"),
    [
        ("zarr.json", "format", "other", "its format is 'other'"),
        ("zarr.json", "version", 2, "its format version is 2"),
        ("tiny/zarr.json", "scale", 3e300 * 1e10, "damaged|scale"),
        ("tiny/zarr.json", "scale", "100", "scale is '100'"),
        ("tiny/zarr.json", "dtype", "object", "does not describe"),
        ("tiny/zarr.json", "identity", [], "does not describe"),
        ("tiny/zarr.json", "frames", 10**9, "not a whole number"),
        ("tiny/zarr.json", "scale", 99.0, "belongs to another teacher"),
        ("tiny/tiles/dense/zarr.json", "texts", 10**12, "not a whole number"),
        ("tiny/tiles/dense/zarr.json", "texts", 2**26, "bytes|whole number"),
        ("tiny/tiles/dense/zarr.json", "texts", True, "not a whole number"),
        ("tiny/tiles/dense/zarr.json", "texts", 0, "not a whole number"),
        ("tiny/tiles/dense/zarr.json", "texts", 20, "not the array"),
        ("tiny/tiles/dense/zarr.json", "videos", 2**20, "bytes|whole number"),
        ("tiny/tiles/dense/zarr.json", "videos", -1, "not a whole number"),
        ("tiny/tiles/dense/zarr.json", "shard_texts", 2**40, "not a whole number"),
        ("tiny/tiles/dense/zarr.json", "files", {"../../../secret": "0" * 32}, "list of files"),
        ("tiny/tiles/dense/zarr.json", "files", None, "list of files"),
    ],
)
def test_absurd_metadata_is_refused(make_store, file: str, key: str, value: object, message: str) -> None:
    made = make_store()
    before = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    if isinstance(value, float) and not np.isfinite(value):
        path = made.path / file
        path.write_bytes(path.read_bytes().replace(b'"scale":100.0', b'"scale":1e999'))
    else:
        rewrite(made.path / file, set_attribute(key, value))
    with pytest.raises(CacheError, match=message):
        read_everything(made)
    assert resource.getrusage(resource.RUSAGE_SELF).ru_maxrss - before < 100_000  # KiB


@pytest.mark.parametrize(
    "codec",
    [
        {"name": "numcodecs.pickle", "configuration": {}},
        {"name": "vlen-utf8"},
        {"name": "bytes", "configuration": {"endian": "big"}},
    ],
)
def test_foreign_codecs_are_refused_even_where_the_hashes_fit(make_store, codec: dict[str, object]) -> None:
    made = make_store()
    path = made.tile.folder / "coarse/zarr.json"
    document = json.loads(path.read_bytes())
    document["codecs"][0]["configuration"]["codecs"] = [codec]
    fit(made, "coarse/zarr.json", json.dumps(document).encode())
    with pytest.raises(CacheError, match="not the array that this format describes"):
        read_everything(made)


def test_object_arrays_and_other_shapes_are_refused(make_store) -> None:
    for change in ({"data_type": "object"}, {"shape": [21, 14]}, {"shape": [2**40, 13]}, {"zarr_format": 2}):
        made = make_store(name=next(iter(change)) + str(len(str(change))))
        document = json.loads((made.tile.folder / "coarse/zarr.json").read_bytes())
        fit(made, "coarse/zarr.json", json.dumps(document | change).encode())
        with pytest.raises(CacheError, match="not the array that this format describes"):
            read_everything(made)


def fit(made, file: str, data: bytes) -> None:
    """Put `data` in place of one of the tile's own files, with the hash that fits it."""
    from teachclip.cache.storage.identity import digest

    folder = made.path / "tiny/tiles/dense"
    (folder / file).write_bytes(data)
    rewrite(folder / "zarr.json", lambda document: document["attributes"]["files"].update({file: digest(data).hex()}))


def test_zarr_v2_stores_are_refused(tmp_path: Path) -> None:
    folder = tmp_path / "old.zarr"
    folder.mkdir()
    (folder / ".zgroup").write_text('{"zarr_format": 2}')
    with pytest.raises(CacheError, match="Zarr v2"):
        ScoreStore.open(folder)


@pytest.mark.parametrize("name", ["../tiny", "tiny/tiles", "/etc", "", ".", "..", ".tmp-x", "a b", "tiny\n", "x" * 200])
def test_names_that_are_paths_are_refused(make_store, name: str) -> None:
    made = make_store()
    store = ScoreStore.open(made.path)
    with pytest.raises(CacheError):
        store.teacher(name)
    with pytest.raises(CacheError):
        store.create_teacher(name, {}, 1.0, "uint16", 4, False)
    assert sorted(p.name for p in made.path.parent.iterdir()) == [made.path.name]


@pytest.mark.parametrize("link", ["tiny", "tiny/tiles", "tiny/tiles/dense", "tiny/tiles/dense/coarse"])
def test_folders_that_are_links_are_refused(make_store, link: str, tmp_path: Path) -> None:
    made = make_store()
    shutil.move(made.path / link, tmp_path / "outside")
    (made.path / link).symlink_to(tmp_path / "outside")
    with pytest.raises(CacheError, match="links are not followed"):
        read_everything(made)


@pytest.mark.parametrize("file", ["zarr.json", "tiny/zarr.json", "text_ids/c.0", "coarse/zarr.json", "coarse/c.0.0"])
def test_files_that_are_links_are_refused(make_store, file: str, tmp_path: Path) -> None:
    made = make_store()
    path = made.path / file if file.count("zarr.json") and "coarse" not in file else made.tile.folder / file
    shutil.move(path, tmp_path / "outside")
    path.symlink_to(tmp_path / "outside")
    with pytest.raises(CacheError, match="links are not followed"):
        read_everything(made)


@pytest.mark.parametrize(
    "raw", [b"", b"[]", b"null", b"{" * 5000, b"[" * 100_000, b"\xff\xfe", b'{"a": 1}', b" " * 2**21]
)
@pytest.mark.parametrize("file", ["zarr.json", "tiny/zarr.json", "tiny/tiles/dense/zarr.json"])
def test_documents_that_are_none_are_refused(make_store, file: str, raw: bytes) -> None:
    made = make_store()
    (made.path / file).write_bytes(raw)
    with pytest.raises(CacheError):
        read_everything(made)


@pytest.mark.parametrize("files", [{}, [], None, {"coarse/c.0.0": 3}, {"coarse/c.0.0": {"size": "x"}}])
def test_markers_that_are_none_do_not_count(make_store, files: object) -> None:
    made = make_store()
    marker = made.tile.folder / "done/00000.json"
    rewrite(marker, lambda document: document.update({"files": files}))
    assert problem(made.tile, 0) is not None
    deep = dict.fromkeys(json.loads(seal({}))) | {"shard": 0, "tile": made.tile.checksum}
    marker.write_bytes(seal(deep | {"files": {f"{n}/c.0.0": {} for n in ("coarse", "coarse_codec", "fine")}}))
    assert problem(made.tile, 0) is not None


def test_a_stranger_in_the_store_is_named(make_store) -> None:
    made = make_store()
    (made.path / "tiny/tiles/notes.txt").write_text("x")
    with pytest.raises(CacheError, match=r"notes\.txt"):
        made.cache  # noqa: B018
    (made.path / "tiny/tiles/notes.txt").unlink()
    (made.path / "tiny/tiles/.tmp-1-dense").mkdir()  # what a kill leaves is no stranger
    read_everything(made)


def test_ids_that_are_not_text_or_not_unique_are_refused(make_store) -> None:
    made = make_store()
    data = (made.tile.folder / "text_ids/c.0").read_bytes()
    fit(made, "text_ids/c.0", b"\xff" + data[1:])
    with pytest.raises(CacheError, match="not UTF-8"):
        read_everything(made)
    first, second = made.texts[0][0].encode(), made.texts[1][0].encode()
    assert len(first) == len(second)
    fit(made, "text_ids/c.0", data.replace(second, first, 1))
    with pytest.raises(CacheError, match="other numbers of ids"):
        read_everything(made)
