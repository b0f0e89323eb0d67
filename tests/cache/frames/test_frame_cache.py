"""The frame cache's files: what is damaged, foreign or hostile is refused in words, and read by several at once."""

import dataclasses
import itertools
import json
import os
import threading
from collections.abc import Callable
from pathlib import Path
from typing import Any

import h5py
import numpy as np
import pytest
from teachclip.cache.frames import shard as frame_shards
from teachclip.cache.frames.cache import FrameCache, FrameFolder, frame_identity, usable_digests
from teachclip.cache.frames.record import FileStamp, ReadBy, VideoRecord, VideoStatus
from teachclip.cache.storage.identity import identity_digest
from teachclip.errors import CacheError, CacheMismatchError
from teachclip.remedies import Prepare

SIZE, FRAMES = 8, 3
IDENTITY = frame_identity(
    sample_fps=1, choice="uniform", max_frames=FRAMES, image_size=SIZE, storage="raw", jpeg_quality=90
)


READERS: tuple[Callable[[Path], object], ...] = (FrameCache.open, usable_digests)


def record(video: str, seed: int, count: int = FRAMES) -> VideoRecord:
    rng = np.random.default_rng(seed)
    images = list(rng.integers(0, 255, (count, 3, SIZE, SIZE), dtype=np.uint8))
    status = VideoStatus(video, "ok", "", count, float(count))
    return VideoRecord.of(status, images, [float(k) for k in range(count)], FileStamp(100 + seed, 5))


def left_out(video: str) -> VideoRecord:
    return VideoRecord(VideoStatus(video, "corrupt", "grün\nund mehr"))


def shard_lists() -> list[list[VideoRecord]]:
    return [[record("a", 0), left_out("bad"), record("b", 1, 1)], [record("c ü", 2, 2)], [left_out("worse")]]


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    made = FrameFolder.claim(tmp_path / "frames", IDENTITY)
    for number, records in enumerate(shard_lists()):
        made.write(number, records)
    made.complete()
    return tmp_path / "frames"


def test_what_is_written_is_read(folder: Path) -> None:
    cache = FrameCache.open(folder)
    assert cache.usable == ("a", "b", "c ü")
    assert cache.identity == IDENTITY
    clips = cache.read(["c ü", "a", "c ü"])
    written = {one.status.video: one for records in shard_lists() for one in records}
    for k, video in enumerate(["c ü", "a", "c ü"]):
        count = len(written[video].images)
        np.testing.assert_array_equal(clips.frames[k, :count], written[video].images)
        np.testing.assert_array_equal(clips.times[k, :count], written[video].times)
        assert clips.mask[k].tolist() == [True] * count + [False] * (FRAMES - count)
        assert not clips.frames[k, count:].any()
        assert np.isnan(clips.times[k, count:]).all()
    assert cache.statuses == {one.status.video: one.status for records in shard_lists() for one in records}
    assert cache.digest("a") == written["a"].digest
    assert len(cache.digest("a")) == 16
    assert cache.read([]).frames.shape == (0, FRAMES, 3, SIZE, SIZE)


def test_a_record_says_who_read_the_video(tmp_path: Path) -> None:
    one, bad = record("a", 0), left_out("bad")
    by_decord = dataclasses.replace(one, read_by=ReadBy("decord", 7))
    records = [by_decord, dataclasses.replace(bad, read_by=ReadBy("pyav", 3)), record("b", 1)]
    folder = FrameFolder.claim(tmp_path / "frames", IDENTITY)
    folder.write(0, records)
    shard = FrameFolder.look(tmp_path / "frames", IDENTITY).shards[0]
    assert shard.read_by == (ReadBy("decord", 7), ReadBy("pyav", 3), ReadBy("pyav", 0))
    assert [shard.record(k, folder.frame_shape).read_by for k in range(3)] == list(shard.read_by)
    assert shard.digests[0] == one.digest  # which depends on the frames alone


def unnamed(path: Path) -> None:
    """Make a shard as the first release did: without a word on who read the videos."""
    with h5py.File(path, "r+", locking=False) as file:
        del file["decoders"], file["readers"]
        start, size = file["frames"].id.get_offset(), file["frames"].nbytes
    frame_shards.seal(path, identity_digest(IDENTITY), (start, start + size), version=1)


def test_a_shard_that_does_not_say_who_read_it_was_read_by_pyav(folder: Path) -> None:
    unnamed(folder / "00000.h5")
    cache = FrameCache.open(folder)
    assert cache.usable == ("a", "b", "c ü")
    shard = FrameFolder.look(folder, IDENTITY).shards[0]
    assert shard.read_by == (ReadBy("pyav", 0),) * 3
    np.testing.assert_array_equal(cache.read(["a"]).frames[0], record("a", 0).images)


def test_digests_are_read_without_the_rest(folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    again = FrameFolder.claim(folder, IDENTITY)
    again.write(3, [record("bad", 3), left_out("b"), record("d", 4)])  # what a later shard says of a video holds
    again.complete()
    cache = FrameCache.open(folder)
    assert cache.usable == ("a", "bad", "c ü", "d")
    monkeypatch.setattr(frame_shards.FrameShard, "open", None)
    identity, digests = usable_digests(folder)
    assert identity == IDENTITY
    assert list(digests.items()) == [(video, cache.digest(video)) for video in cache.usable]


def test_digests_depend_on_pixels_and_times() -> None:
    base = record("a", 0)
    images, times = list(base.images), [0.0, 1.0, 2.0]
    assert VideoRecord.of(base.status, images, times, FileStamp()).digest == base.digest
    assert VideoRecord.of(base.status, images, [0.0, 1.0, 2.5], FileStamp()).digest != base.digest
    changed = [image.copy() for image in images]
    changed[2][0, 0, 0] ^= 1
    assert VideoRecord.of(base.status, changed, times, FileStamp()).digest != base.digest


def test_frames_are_read_into_memory_that_held_others(folder: Path) -> None:
    cache = FrameCache.open(folder)
    videos = ["b", "a", "c ü"]
    used = np.full((3, *cache.clip_shape), 77, np.uint8)
    clips = cache.read(videos, used)
    assert clips.frames is used
    np.testing.assert_array_equal(used, cache.read(videos).frames)
    assert not used[0, 1:].any()


def test_others_can_read_the_shards_with_h5py(folder: Path) -> None:
    with h5py.File(folder / "00000.h5") as file:
        assert list(file["ids"].asstr("utf-8")) == ["a", "bad", "b"]
        assert list(file["statuses"].asstr()) == ["ok", "corrupt", "ok"]
        assert file["frames"].shape == (4, 3, SIZE, SIZE)
        assert file["offsets"][:].tolist() == [0, 3, 3, 4]


def test_many_threads_read_at_once(folder: Path) -> None:
    cache = FrameCache.open(folder)
    wanted = cache.read(cache.usable).frames
    wrong: list[int] = []

    def work(seed: int) -> None:
        rng = np.random.default_rng(seed)
        for _ in range(40):
            order = rng.permutation(3)
            if not np.array_equal(cache.read([cache.usable[k] for k in order]).frames, wanted[order]):
                wrong.append(seed)

    threads = [threading.Thread(target=work, args=(seed,)) for seed in range(6)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert wrong == []


def test_no_cache_and_a_part_of_one(tmp_path: Path) -> None:
    for place, read in itertools.product((tmp_path, tmp_path / "nowhere"), READERS):
        with pytest.raises(CacheError, match="no frame cache here") as caught:
            read(place)
        assert caught.value.hint.action == Prepare()
    FrameFolder.claim(tmp_path / "begun", IDENTITY).write(0, shard_lists()[0])
    for read in READERS:
        with pytest.raises(CacheError, match="not complete"):
            read(tmp_path / "begun")


Change = Callable[[Path], object]


def cut(path: Path, share: float) -> None:
    path.write_bytes(path.read_bytes()[: int(path.stat().st_size * share)])


DAMAGES: dict[str, Change] = {
    "truncated": lambda path: cut(path, 0.5),
    "cut by one byte": lambda path: path.write_bytes(path.read_bytes()[:-1]),
    "empty": lambda path: path.write_bytes(b""),
    "absent": lambda path: path.unlink(),
    "text": lambda path: path.write_text("not HDF5\n" * 500),
    "a folder": lambda path: (path.unlink(), path.mkdir()),
    "another HDF5 file": lambda path: h5py.File(path, "w").close(),
    "zeros": lambda path: path.write_bytes(bytes(path.stat().st_size)),
}


@pytest.mark.parametrize("kind", DAMAGES)
def test_damaged_shards_are_named_with_what_repairs_them(folder: Path, kind: str) -> None:
    path = folder / "00000.h5"
    DAMAGES[kind](path)
    for read in READERS:
        with pytest.raises(CacheError) as caught:
            read(folder)
        assert caught.value.where == str(path)
        assert caught.value.hint.action == Prepare()
    again = FrameFolder.claim(folder, IDENTITY)
    assert sorted(again.shards) == [1, 2]
    if kind != "absent":
        assert again.damaged[0].startswith("00000.h5: ")
    if kind != "a folder":
        again.write(0, shard_lists()[0])
        again.complete()
        assert FrameCache.open(folder).usable == ("a", "b", "c ü")


def test_a_shard_of_another_cache_is_refused(folder: Path, tmp_path: Path) -> None:
    other = FrameFolder.claim(tmp_path / "other", IDENTITY | {"sample_fps": 2})
    other.write(0, shard_lists()[0])
    (folder / "00000.h5").write_bytes((tmp_path / "other" / "00000.h5").read_bytes())
    for read in READERS:
        with pytest.raises(CacheError, match="its identity is "):
            read(folder)
    with pytest.raises(CacheMismatchError) as caught:
        FrameFolder.claim(folder, IDENTITY | {"image_size": 16})
    assert caught.value.details == ("image_size: the cache has 8, now it is 16",)


def test_a_shard_replaced_while_in_use_is_noticed(folder: Path) -> None:
    cache = FrameCache.open(folder)
    writer = FrameFolder.claim(folder, IDENTITY)
    writer.write(1, [record("c ü", 9, 2)])
    with pytest.raises(CacheError, match="replaced while in use"):
        cache.read(["c ü"])
    cache.read(["a"])


def rewritten(path: Path, change: Callable[[h5py.File], object]) -> None:
    """Change a shard as somebody would who knows how shards are sealed."""
    with h5py.File(path, "r+") as file:
        change(file)
    frame_shards.seal(path, identity_digest(IDENTITY), (frame_shards.SEAL_BYTES, frame_shards.SEAL_BYTES))


def replace(name: str, make: Callable[[h5py.File], object]) -> Callable[[h5py.File], None]:
    def change(file: h5py.File) -> None:
        del file[name]
        make(file)

    return change


def outside(file: h5py.File) -> Path:
    """A file with bytes that are nobody's business."""
    path = Path(file.filename).parent.parent / "secret.bin"
    path.write_bytes(os.urandom(100_000))
    return path


def virtual(file: h5py.File) -> None:
    secret = Path(file.filename).parent.parent / "secret.h5"
    with h5py.File(secret, "w") as other:
        other["frames"] = np.zeros((4, 3, SIZE, SIZE), np.uint8)
    layout = h5py.VirtualLayout((4, 3, SIZE, SIZE), "u1")
    layout[:] = h5py.VirtualSource(secret, "frames", (4, 3, SIZE, SIZE))
    file.create_virtual_dataset("frames", layout)


def twin(file: h5py.File) -> str:
    """A copy of the shard elsewhere, which would do in its place."""
    path = Path(file.filename).parent.parent / "twin.h5"
    with h5py.File(path, "w", userblock_size=512) as other:
        for name in file:
            other[name] = file[name][()]
        other["frames"] = np.zeros(RAW, np.uint8)
    return str(path)


RAW = (4, 3, SIZE, SIZE)
HOSTILE: dict[str, Callable[[h5py.File], object]] = {
    "external link": replace("frames", lambda f: f.__setitem__("frames", h5py.ExternalLink(twin(f), "/frames"))),
    "soft link": lambda f: (f.move("times", "more"), f.__setitem__("times", h5py.SoftLink("/more"))),
    "external storage": replace(
        "frames", lambda f: f.create_dataset("frames", RAW, "u1", external=[(str(outside(f)), 0, 100_000)])
    ),
    "virtual data set": replace("frames", virtual),
    "group": replace("frames", lambda f: f.create_group("frames")),
    "absent": replace("frames", lambda f: None),
    "huge and never written": replace("frames", lambda f: f.create_dataset("frames", (4, 3, 1 << 20, 1 << 20), "u1")),
    "bomb": replace("frames", lambda f: f.create_dataset("frames", RAW, "u1", compression="gzip", data=np.zeros(RAW))),
    "never allocated": replace("frames", lambda f: f.create_dataset("frames", RAW, "u1")),
    "float frames": replace("frames", lambda f: f.create_dataset("frames", data=np.zeros(RAW))),
    "object references": replace("ids", lambda f: f.create_dataset("ids", (3,), h5py.ref_dtype)),
    "strings on the heap": replace("ids", lambda f: f.create_dataset("ids", (3,), h5py.string_dtype())),
    "ids of a megabyte": replace("ids", lambda f: f.create_dataset("ids", (3,), "S1000000")),
    "no UTF-8": replace("ids", lambda f: f.create_dataset("ids", data=np.array([b"\xff"] * 3, "S4"))),
    "unknown status": replace("statuses", lambda f: f.create_dataset("statuses", data=np.array([b"fine"] * 3, "S4"))),
    "too many frames": replace("offsets", lambda f: f.create_dataset("offsets", data=np.array([0, 4, 4, 4]))),
    "falling offsets": replace("offsets", lambda f: f.create_dataset("offsets", data=np.array([0, 3, 1, 4]))),
    "offsets past the end": replace("offsets", lambda f: f.create_dataset("offsets", data=np.array([0, 3, 5, 6]))),
    "negative offsets": replace("offsets", lambda f: f.create_dataset("offsets", data=np.array([-1, 3, 3, 4]))),
    "no offsets": replace("offsets", lambda f: f.create_dataset("offsets", data=np.zeros(0, np.int64))),
    "offsets without shape": replace("offsets", lambda f: f.create_dataset("offsets", data=np.int64(3))),
    "a million videos": replace("offsets", lambda f: f.create_dataset("offsets", data=np.zeros(1_000_001, np.int64))),
    "short times": replace("times", lambda f: f.create_dataset("times", data=np.zeros(3))),
    "short hashes of files": replace("contents", lambda f: f.create_dataset("contents", data=np.zeros((3, 8), "u1"))),
    "hashes as text": replace(
        "contents", lambda f: f.create_dataset("contents", data=np.array([b"0" * 16] * 3, "S16"))
    ),
}


OF_IDS = ("object references", "strings on the heap", "ids of a megabyte", "no UTF-8")


@pytest.mark.parametrize("kind", HOSTILE)
def test_hostile_shards_are_refused_before_their_data_is_touched(folder: Path, kind: str) -> None:
    path = folder / "00000.h5"
    rewritten(path, HOSTILE[kind])
    with pytest.raises(CacheError) as caught:
        FrameCache.open(folder)
    assert caught.value.where == str(path)


@pytest.mark.parametrize("kind", OF_IDS)
def test_hostile_ids_are_refused_where_digests_alone_are_read(folder: Path, kind: str) -> None:
    rewritten(folder / "00000.h5", HOSTILE[kind])
    with pytest.raises(CacheError):
        usable_digests(folder)


def test_every_flipped_bit_outside_the_frames_is_noticed(folder: Path) -> None:
    path = folder / "00000.h5"
    data = path.read_bytes()
    start = json.loads(data[:512].rstrip(b"\0"))["frames"][0]
    rng = np.random.default_rng(0)
    for at in [*rng.integers(0, 300, 50), *rng.integers(512, start, 50), *rng.integers(512, len(data), 100)]:
        damaged = bytearray(data)
        damaged[at] ^= 1 << rng.integers(0, 8)
        path.write_bytes(damaged)
        if start <= at < start + 4 * 3 * SIZE * SIZE:
            FrameCache.open(folder).read(["a"])
            assert usable_digests(folder)
        else:
            for read in READERS:
                with pytest.raises(CacheError):
                    read(folder)


def test_another_format_or_version_is_named(folder: Path) -> None:
    path = folder / "00000.h5"
    path.write_bytes(path.read_bytes().replace(b'"version":2', b'"version":7', 1))
    with pytest.raises(CacheError, match=r"its version is 7, not one of \(1, 2\)"):
        FrameCache.open(folder)


MANIFESTS: dict[str, Callable[[dict[str, Any]], object]] = {
    "other format": lambda m: m.update(format="zip"),
    "later version": lambda m: m.update(version=2),
    "no identity": lambda m: m.pop("identity"),
    "size as text": lambda m: m["identity"].update(image_size="8"),
    "absurd size": lambda m: m["identity"].update(image_size=10**9),
    "negative size": lambda m: m["identity"].update(max_frames=-1),
    "a path out of the folder": lambda m: m["shards"].append("../00000.h5"),
    "shards as text": lambda m: m.update(shards="00000.h5"),
    "a shard that is no name": lambda m: m["shards"].append(3),
}


@pytest.mark.parametrize("kind", MANIFESTS)
def test_wrong_manifests_are_refused(folder: Path, kind: str) -> None:
    path = folder / "frames.json"
    manifest = json.loads(path.read_text())
    MANIFESTS[kind](manifest)
    path.write_text(json.dumps(manifest))
    with pytest.raises(CacheError):
        FrameCache.open(folder)


@pytest.mark.parametrize("content", [b"", b"{", b"[]", b"null", b"\xff", b"[" * 100_000, b'{"format": 1}'])
def test_manifests_that_are_no_json_object_are_refused(folder: Path, content: bytes) -> None:
    (folder / "frames.json").write_bytes(content)
    with pytest.raises(CacheError, match="does not describe a frame cache"):
        FrameCache.open(folder)


def test_damaged_jpeg_frames_name_the_video(tmp_path: Path) -> None:
    identity = frame_identity(
        sample_fps=1, choice="uniform", max_frames=FRAMES, image_size=SIZE, storage="jpeg", jpeg_quality=90
    )
    images = [np.frombuffer(b"\xff\xd8\xff no JPEG", np.uint8)]
    made = FrameFolder.claim(tmp_path, identity)
    made.write(0, [VideoRecord.of(VideoStatus("a", "ok", "", 1, 1.0), images, [0.0], FileStamp())])
    made.complete()
    with pytest.raises(CacheError, match="frame 0 of 'a' is damaged"):
        FrameCache.open(tmp_path).read(["a"])


def test_a_shard_that_cannot_be_written_leaves_no_trace(folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def full(*_: object) -> None:
        raise OSError(28, "No space left on device")

    monkeypatch.setattr(frame_shards, "_write_frames", full)
    before = sorted(folder.iterdir())
    with pytest.raises(CacheError, match="No space left"):
        FrameFolder.claim(folder, IDENTITY).write(7, shard_lists()[0])
    assert sorted(folder.iterdir()) == before


def test_leftovers_of_killed_runs_are_removed_once_they_are_old(folder: Path) -> None:
    old, young = folder / ".tmp-1-00009.h5", folder / ".tmp-2-00009.h5"
    old.touch()
    young.touch()
    os.utime(old, (1, 1))
    FrameFolder.claim(folder, IDENTITY)
    assert not old.exists()
    assert young.exists()


def test_identity_names_jpeg_quality_only_where_it_matters() -> None:
    assert "jpeg_quality" not in IDENTITY
    other = frame_identity(
        sample_fps=1, choice="uniform", max_frames=FRAMES, image_size=SIZE, storage="raw", jpeg_quality=50
    )
    assert identity_digest(IDENTITY) == identity_digest(other)


@pytest.mark.parametrize("name", ["._00000.h5", ".DS_Store", "Thumbs.db", ".nfs000000000001", "desktop.ini", "@eaDir"])
def test_what_systems_leave_is_no_part_of_the_cache_and_no_reason_to_refuse_a_folder(tmp_path: Path, name: str) -> None:
    folder = tmp_path / "frames"
    folder.mkdir()
    if name == "@eaDir":
        (folder / name).mkdir()
    else:
        (folder / name).write_bytes(b"\0\5\x16\7")
    made = FrameFolder.claim(folder, IDENTITY)
    for number, records in enumerate(shard_lists()):
        made.write(number, records)
    made.complete()
    again = FrameFolder.claim(folder, IDENTITY)
    assert (sorted(again.shards), again.damaged) == ([0, 1, 2], [])
    assert FrameCache.open(folder).usable == ("a", "b", "c ü")
    assert (folder / name).exists()


def test_a_foreign_file_alone_keeps_a_folder_from_becoming_a_cache(tmp_path: Path) -> None:
    (tmp_path / "thesis.txt").write_text("mine")
    (tmp_path / ".DS_Store").touch()
    with pytest.raises(CacheError, match="this is no frame cache, and not empty"):
        FrameFolder.claim(tmp_path, IDENTITY)
