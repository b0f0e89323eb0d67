"""Stores made to harm: refused by every way of reading, with little memory, in little time, and no code runs."""

import json
import os
import pickle
import re
import shutil
import struct
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path

import pytest
from teachclip.cache.storage.identity import digest

TILE = "tiny/tiles/dense"
READING = frozenset({"read", "resume", "info", "ls", "verify", "verify full", "export"})
SHARD = frozenset({"read", "verify", "verify full", "export"})
FEATURES = frozenset({"resume", "verify", "verify full"})
HUGE = 2**35


def sealed(raw: bytes) -> bytes:
    """A document whose bytes were changed by somebody who knows how to make its checksum."""
    blank = re.sub(rb'"checksum": ?"[0-9a-f]{32}"', b'"checksum":"' + b"0" * 32 + b'"', raw)
    return blank.replace(b'"checksum":"' + b"0" * 32, b'"checksum":"' + digest(blank).hex().encode())


def change(file: str, old: bytes, new: bytes) -> Callable[[Path], object]:
    """Replace bytes in a document."""

    def harm(store: Path) -> None:
        raw = (store / file).read_bytes()
        assert raw.count(old) == 1
        (store / file).write_bytes(sealed(raw.replace(old, new)))

    return harm


def score_version(value: bytes) -> Callable[[Path], object]:
    return change("tiny/zarr.json", b'"score_version":1', b'"score_version":' + value)


def grow(path: Path, size: int) -> None:
    """Make a file huge without writing to it."""
    with path.open("r+b") as file:
        file.truncate(size)


def huge_shard(name: str) -> Callable[[Path], object]:
    """A file that is as huge as its marker says."""

    def harm(store: Path) -> None:
        size = (store / TILE / f"{name}/c.0.0").stat().st_size
        files = f'"{name}/c.0.0":{{"blake2b":"'.encode()
        raw = (store / TILE / "done/00000.json").read_bytes()
        at = raw.index(b'"size":%d' % size, raw.index(files))
        end = at + len(b'"size":%d' % size)
        (store / TILE / "done/00000.json").write_bytes(sealed(raw[:at] + b'"size":%d' % HUGE + raw[end:]))
        grow(store / TILE / f"{name}/c.0.0", HUGE)

    return harm


def huge_ids(store: Path) -> None:
    raw = (store / TILE / "zarr.json").read_bytes()
    raw = re.sub(rb'"text_id_bytes":\d+', b'"text_id_bytes":%d' % HUGE, raw)
    raw = re.sub(rb'"texts":\d+', b'"texts":%d' % 2**25, raw)
    (store / TILE / "zarr.json").write_bytes(sealed(raw))
    grow(store / TILE / "text_ids/c.0", HUGE + 4)


def feature(store: Path) -> Path:
    return min((store / "tiny/videos").rglob("*.safetensors"))


def safetensors(header: object, data: bytes = b"", size: int | None = None) -> Callable[[Path], object]:
    def harm(store: Path) -> None:
        text = json.dumps(header).encode()
        feature(store).write_bytes(struct.pack("<Q", len(text) if size is None else size) + text + data)

    return harm


def huge_features(store: Path) -> None:
    tensor = {"dtype": "F32", "shape": [4, HUGE // 16], "data_offsets": [0, HUGE]}
    safetensors({"__metadata__": {"checksum": "0" * 32}, "vector": tensor})(store)
    grow(feature(store), feature(store).stat().st_size + HUGE)


def two_tensors(first: list[int], second: list[int]) -> dict[str, object]:
    return {name: {"dtype": "F32", "shape": [2], "data_offsets": span} for name, span in (("a", first), ("b", second))}


def pipe(find: Callable[[Path], Path]) -> Callable[[Path], object]:
    def harm(store: Path) -> None:
        path = find(store)
        path.unlink()
        os.mkfifo(path)

    return harm


def link(find: Callable[[Path], Path]) -> Callable[[Path], object]:
    def harm(store: Path) -> None:
        path, outside = find(store), store.with_suffix(".outside")
        shutil.move(path, outside)
        path.symlink_to(outside)

    return harm


class Touch:
    def __reduce__(self) -> tuple[object, tuple[str]]:
        return os.mkdir, (f"{os.getcwd()}/was-run",)


def pickled(store: Path) -> None:
    """Codecs that unpickle, hashes that fit, and a payload."""
    metadata = json.loads((store / TILE / "coarse/zarr.json").read_bytes())
    metadata["codecs"] = [{"name": "numcodecs.pickle", "configuration": {}}]
    old = digest((store / TILE / "coarse/zarr.json").read_bytes()).hex().encode()
    raw = json.dumps(metadata).encode()
    (store / TILE / "coarse/zarr.json").write_bytes(raw)
    change(f"{TILE}/zarr.json", old, digest(raw).hex().encode())(store)
    for path in (store / TILE / "coarse").glob("c.*"):
        path.write_bytes(pickle.dumps(Touch()).ljust(path.stat().st_size, b"."))


CASES: dict[str, tuple[Callable[[Path], object], frozenset[str]]] = {
    "NaN": (score_version(b"NaN"), READING),
    "infinity": (score_version(b"-Infinity"), READING),
    "too large a number": (score_version(b"1e999"), READING),
    "too long a number": (score_version(b"9" * 5000), READING),
    "a key twice": (change("tiny/zarr.json", b'"scale":100.0', b'"scale":1.0,"scale":100.0'), READING),
    "deep": (score_version(b"[" * 500_000 + b"]" * 500_000), READING),
    "just not too deep": (score_version(b"[" * 900 + b"]" * 900), READING),
    "an object for a value": (score_version(b'{"a":1}'), READING),
    "half a character": (score_version(rb'"\ud800"'), READING),
    "other numbers in the marker": (change(f"{TILE}/done/00000.json", b'"shard":0', b'"shard":1e0'), SHARD),
    "absurd sizes": (change(f"{TILE}/zarr.json", b'"shard_texts":8', b'"shard_texts":1e18'), READING),
    "pickled": (pickled, READING),
    "huge ids": (huge_ids, READING),
    **{f"huge {name}": (huge_shard(name), SHARD) for name in ("coarse", "coarse_codec", "fine")},
    "huge document": (lambda store: grow(store / "tiny/zarr.json", HUGE), READING),
    "huge marker": (lambda store: grow(store / TILE / "done/00000.json", HUGE), SHARD),
    "huge features": (huge_features, FEATURES),
    "huge header": (safetensors({}, size=2**62), FEATURES),
    "longer header than file": (safetensors({}, size=90 * 2**20), FEATURES),
    "overlapping tensors": (safetensors(two_tensors([0, 8], [4, 12]), bytes(12)), FEATURES),
    "a hole between tensors": (safetensors(two_tensors([0, 8], [12, 20]), bytes(20)), FEATURES),
    "tensors beyond the end": (safetensors(two_tensors([0, 8], [8, 16]), bytes(8)), FEATURES),
    "more than can be counted": (
        safetensors({"a": {"dtype": "F32", "shape": [2**40, 2**40], "data_offsets": [0, 8]}}, bytes(8)),
        FEATURES,
    ),
    "nothing, very often": (
        safetensors({"a": {"dtype": "F32", "shape": [4, 2**60, 0], "data_offsets": [0, 0]}}),
        FEATURES,
    ),
    "pipe for the store's document": (pipe(lambda store: store / "zarr.json"), READING),
    "pipe for a document": (pipe(lambda store: store / TILE / "zarr.json"), READING),
    "pipe for ids": (pipe(lambda store: store / TILE / "text_ids/c.0"), READING),
    "pipe for a shard": (pipe(lambda store: store / TILE / "coarse/c.1.0"), SHARD),
    "pipe for a marker": (pipe(lambda store: store / TILE / "done/00001.json"), SHARD),
    "pipe for features": (pipe(feature), FEATURES),
    "pipe for their identity": (
        pipe(lambda store: feature(store).with_name("identity.json")),
        frozenset({"verify", "verify full"}),
    ),
    "link for a marker": (link(lambda store: store / TILE / "done/00001.json"), SHARD),
    "link for the markers": (link(lambda store: store / TILE / "done"), READING),
    "link for features": (link(feature), FEATURES),
    "link for a folder of features": (link(lambda store: feature(store).parent), FEATURES),
    "link for all features": (link(lambda store: store / "tiny/videos"), FEATURES),
    # What nobody reads, and where the user said that it is
    "another version's files": (
        lambda store: (store / TILE / "coarse/.zarray").write_text('{"filters":[{"id":"pickle"}]}'),
        frozenset(),
    ),
    "link for the store": (link(lambda store: store), frozenset()),
}


@pytest.fixture(scope="module")
def outcomes(writers, reference, tmp_path_factory: pytest.TempPathFactory) -> dict[str, dict[str, list[str]]]:
    """What each way of reading said of each store."""
    folder = tmp_path_factory.mktemp("hostile")
    stores = [folder / f"{number:02}.zarr" for number in range(len(CASES))]
    for store, (harm, _) in zip(stores, CASES.values(), strict=True):
        shutil.copytree(reference, store)
        harm(store)
    program = Path(writers.__file__).with_name("hostile_reader.py")
    done = subprocess.run(
        [sys.executable, program, *stores], capture_output=True, text=True, timeout=250, cwd=folder, check=False
    )
    found = dict(zip(CASES, map(json.loads, done.stdout.splitlines()), strict=False))
    assert len(found) == len(CASES), (list(CASES)[len(found)], done.returncode, done.stderr[-500:])
    assert not list(folder.rglob("was-run"))
    assert not (Path.cwd() / "was-run").exists()
    return found


@pytest.mark.parametrize("case", CASES)
def test_a_hostile_store_is_refused_in_one_line(outcomes, case: str) -> None:
    said = outcomes[case]
    assert {kind for kind, _ in said.values()} <= {"read", "refused", "told"}
    assert {way for way, (kind, _) in said.items() if kind != "read"} >= CASES[case][1]
    assert all(kind == "read" for way, (kind, _) in said.items()) == (not CASES[case][1])
    for _, text in said.values():
        assert len(text.splitlines()) <= 1
        assert len(text) < 1000
