"""Frames at an address: the same objects as in a folder, complete or absent, and servers that fail."""

import http.server
import io
import json
import threading
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from PIL import Image
from teachclip.cache.frames.cache import FrameCache, FrameFolder, frame_identity, usable_digests
from teachclip.cache.frames.record import FileStamp, VideoRecord, VideoStatus
from teachclip.cache.storage import locations
from teachclip.errors import CacheError, CacheMismatchError, UnreachableError

SIZE, FRAMES = 32, 3
IDENTITY = frame_identity(
    sample_fps=1, choice="uniform", max_frames=FRAMES, image_size=SIZE, storage="raw", jpeg_quality=90
)


def record(video: str, seed: int, count: int = FRAMES) -> VideoRecord:
    rng = np.random.default_rng(seed)
    images = list(rng.integers(0, 255, (count, 3, SIZE, SIZE), dtype=np.uint8))
    status = VideoStatus(video, "ok", "", count, float(count))
    return VideoRecord.of(status, images, [float(k) for k in range(count)], FileStamp(100 + seed, 5))


def left_out(video: str) -> VideoRecord:
    return VideoRecord(VideoStatus(video, "corrupt", "grün\nund mehr"))


MANY = [record(f"v{k}", 10 + k) for k in range(12)]  # more than is fetched with the tables
SHARDS = [[record("a", 0), left_out("bad"), record("b", 1, 1)], MANY, [left_out("worse")]]


def fill(place: Path | str, shards: list[list[VideoRecord]] = SHARDS) -> FrameFolder:
    made = FrameFolder.claim(place, IDENTITY)
    for number, records in enumerate(shards):
        made.write(number, records)
    made.complete()
    return made


def files(folder: Path) -> dict[str, bytes]:
    return {path.name: path.read_bytes() for path in folder.iterdir()}


def objects(url: str) -> dict[str, bytes]:
    place = locations.location_of(url)
    return {name: (place / name).read() for name in place.files()}


@pytest.fixture
def url(bucket) -> str:
    return f"{bucket.url}/some/frames"


def test_the_objects_are_a_folders_files(url: str, tmp_path: Path) -> None:
    for place in (tmp_path / "frames", url):
        made = fill(place)
        made.renew(0, {2: 77})
        assert FrameFolder.look(place, IDENTITY).shards[0].stamps[2].mtime_ns == 77
        made.renew(2, {0: 88})
        made.write(2, [left_out("worse"), record("d", 40)])
        made.write(3, [record("e", 50)])
        made.renew(3, {0: 99})
        made.complete()
        made.remove([3])
    assert objects(url) == files(tmp_path / "frames")
    assert sorted(objects(url)) == ["00000.h5", "00000.stamps.json", "00001.h5", "00002.h5", "frames.json"]


def test_what_is_read_is_what_a_folder_gives(url: str, tmp_path: Path) -> None:
    fill(tmp_path / "frames")
    fill(url)
    here, there = FrameCache.open(tmp_path / "frames"), FrameCache.open(url)
    assert (there.usable, there.statuses, there.identity) == (here.usable, here.statuses, here.identity)
    assert usable_digests(url) == usable_digests(tmp_path / "frames")
    wanted = ["v11", "b", "a", "v0", "a"]
    mine, theirs = here.read(wanted), there.read(wanted)
    for name in ("frames", "mask", "times"):
        np.testing.assert_array_equal(getattr(mine, name), getattr(theirs, name))
    assert there.read([]).frames.shape == (0, FRAMES, 3, SIZE, SIZE)
    with pytest.raises(CacheError, match="has no frames: corrupt"):
        there.read(["bad"])


def test_jpeg_is_read_from_an_address(url: str, tmp_path: Path) -> None:
    identity = frame_identity(
        sample_fps=1, choice="uniform", max_frames=FRAMES, image_size=SIZE, storage="jpeg", jpeg_quality=90
    )
    images = []
    for k in range(2):
        target = io.BytesIO()
        Image.fromarray(np.full((SIZE, SIZE, 3), 80 * k, np.uint8)).save(target, "JPEG")
        images.append(np.frombuffer(target.getvalue(), np.uint8))
    one = VideoRecord.of(VideoStatus("a", "ok", "", 2, 2.0), images, [0.0, 1.0], FileStamp(1, 2))
    for place in (tmp_path / "frames", url):
        made = FrameFolder.claim(place, identity)
        made.write(0, [one, left_out("bad")])
        made.complete()
    mine, theirs = FrameCache.open(tmp_path / "frames").read(["a"]), FrameCache.open(url).read(["a"])
    np.testing.assert_array_equal(mine.frames, theirs.frames)


def test_a_batch_reads_its_videos_bytes_alone(url: str, relay) -> None:
    fill(url)
    relay.requests.clear()
    cache = FrameCache.open(url)
    assert len([path for _, path in relay.requests if path.endswith("00001.h5")]) == 3
    relay.requests.clear()
    cache.read(["v3", "v9"])
    assert relay.requests == [("GET", "/" + url.removeprefix("s3://") + "/00001.h5")] * 2


# Complete or absent


def test_begun_is_not_complete_and_is_gone_on_with(url: str) -> None:
    begun = FrameFolder.claim(url, IDENTITY)
    begun.write(0, SHARDS[0])
    with pytest.raises(CacheError, match="not complete"):
        FrameCache.open(url)
    again = FrameFolder.claim(url, IDENTITY)
    assert list(again.shards) == [0]
    again.write(1, SHARDS[1])
    again.complete()
    assert FrameCache.open(url).usable == ("a", "b", *(one.status.video for one in MANY))


def test_a_shard_replaced_while_in_use_is_noticed(url: str) -> None:
    made = fill(url)
    cache = FrameCache.open(url)
    made.write(0, [record("a", 90), left_out("bad"), record("b", 91)])
    with pytest.raises(CacheError, match="it was replaced while in use") as caught:
        cache.read(["a"])
    assert caught.value.hint == "start again"
    cache.read(["v1"])
    made.remove([0])
    with pytest.raises(CacheError, match=r"00000\.h5: the shard cannot be read"):
        cache.read(["a"])


DAMAGES: list[Callable[[bytes], bytes]] = [
    lambda data: data[:-1],
    lambda data: data[:3000],  # in its tables
    lambda data: data[:100],  # in its seal
    lambda data: b"",
    lambda data: data + b"\0",
    lambda data: data[:4000] + bytes([data[4000] ^ 1]) + data[4001:],
    lambda data: b"<html>not found</html>" * 10_000,
]


@pytest.mark.parametrize("number", [0, 1])  # smaller and larger than what is fetched at once
def test_damaged_shards_are_told_and_made_again(url: str, number: int) -> None:
    fill(url)
    whole, name = objects(url), f"{number:05d}.h5"
    for damage in DAMAGES:
        (locations.location_of(url) / name).write(damage(whole[name]))
        for reader in (FrameCache.open, usable_digests):
            with pytest.raises(CacheError, match=rf"{name}: a damaged shard of the frame cache"):
                reader(url)
    again = FrameFolder.claim(url, IDENTITY)
    assert [line.partition(":")[0] for line in again.damaged] == [name]
    again.write(number, SHARDS[number])
    again.complete()
    assert objects(url) == whole


def test_a_seal_that_lies_is_damage(url: str) -> None:
    fill(url)
    shard = locations.location_of(url) / "00001.h5"
    data = shard.read()
    for lies in (
        {"bytes": 10**30, "frames": [512, 10**30 - 10]},
        {"bytes": 10**12, "frames": [2**27, 10**12]},
        {"bytes": -1},
        {"bytes": float("inf")},
        {"bytes": "many"},
        {"frames": [512]},
        {"frames": [float("inf"), 5]},
        {"frames": [10**9, 0]},
    ):
        document = json.loads(data[:512].rstrip(b"\0")) | lies
        shard.write((json.dumps(document).encode() + b"\n").ljust(512, b"\0") + data[512:])
        with pytest.raises(CacheError, match=r"00001\.h5: a damaged shard of the frame cache"):
            FrameCache.open(url)


def test_a_missing_shard_is_told(url: str) -> None:
    fill(url)
    (locations.location_of(url) / "00001.h5").remove()
    with pytest.raises(CacheError, match=r"00001\.h5: a shard of the frame cache is missing"):
        FrameCache.open(url)


def test_other_settings_and_other_things_are_refused(url: str, bucket) -> None:
    fill(url)
    with pytest.raises(CacheMismatchError, match="max_frames"):
        FrameFolder.claim(url, {**IDENTITY, "max_frames": 5})
    bucket.request("PUT", "other/notes.txt", b"mine")
    with pytest.raises(CacheError, match="this is no frame cache, and not empty"):
        FrameFolder.claim(f"{bucket.url}/other", IDENTITY)
    with pytest.raises(CacheError, match="no frame cache here"):
        FrameCache.open(f"{bucket.url}/other")
    bucket.request("PUT", "odd/frames.json", b"{}")
    with pytest.raises(CacheError, match="this does not describe a frame cache"):
        FrameCache.open(f"{bucket.url}/odd")


# Two at once


def test_two_that_begin_at_once_with_other_settings_do_not_mix(url: str, monkeypatch) -> None:
    other = {**IDENTITY, "max_frames": 5}
    create = locations.Remote.create

    def created(file: locations.Remote, data: bytes) -> bool:
        monkeypatch.setattr(locations.Remote, "create", create)
        FrameFolder.claim(url, other)  # faster
        return file.create(data)

    monkeypatch.setattr(locations.Remote, "create", created)
    with pytest.raises(CacheMismatchError, match="max_frames"):
        FrameFolder.claim(url, IDENTITY)


def test_two_at_once_make_what_one_makes(url: str, tmp_path: Path) -> None:
    fill(tmp_path / "frames")
    first, second = FrameFolder.claim(url, IDENTITY), FrameFolder.claim(url, IDENTITY)

    def work(folder: FrameFolder, numbers: list[int]) -> None:
        for number in numbers:
            folder.write(number, SHARDS[number])
        folder.complete()

    threads = [threading.Thread(target=work, args=each) for each in ((first, [0, 1, 2]), (second, [2, 1, 0]))]
    for each in threads:
        each.start()
    for each in threads:
        each.join()
    assert objects(url) == files(tmp_path / "frames")
    assert set(second.shards) == {0, 1, 2}


def test_two_at_once_with_other_videos_lose_none(url: str) -> None:
    first, second = FrameFolder.claim(url, IDENTITY), FrameFolder.claim(url, IDENTITY)
    first.write(0, [record("a", 0)])
    first.write(1, [record("b", 1)])
    second.write(0, [record("c", 2)])
    second.write(1, [record("d", 3)])
    first.complete()
    second.complete()
    cache = FrameCache.open(url)
    assert sorted(cache.usable) == ["a", "b", "c", "d"]
    np.testing.assert_array_equal(cache.read(["c"]).frames[0], record("c", 2).images)


def test_of_two_that_saw_the_same_videos_the_first_is_kept(url: str) -> None:
    """As where their files have other times."""
    first, second = FrameFolder.claim(url, IDENTITY), FrameFolder.claim(url, IDENTITY)
    first.write(0, [record("a", 0)])
    before = objects(url)["00000.h5"]
    second.write(0, [replace(record("a", 0), stamp=FileStamp(100, 6))])
    assert objects(url)["00000.h5"] == before
    assert second.shards[0].stamps == first.shards[0].stamps


# Servers


FAULTS = [
    (403, r"the server refuses \(PERMISSION_DENIED: "),
    (409, "the server cannot be reached or fails"),
    (503, "the server cannot be reached or fails"),
    ("gone", "the server cannot be reached or fails"),
    ("silent", "the server does not answer in time"),
]


@pytest.mark.parametrize(("fault", "why"), FAULTS)
def test_a_server_that_fails_is_told_and_the_same_goes_on(url: str, relay, monkeypatch, fault: Any, why: str) -> None:
    made = fill(url, SHARDS[:2])
    cache = FrameCache.open(url)
    asked: list[Callable[[], object]] = [
        lambda: FrameCache.open(url),
        lambda: usable_digests(url),
        lambda: cache.read(["a", "v1"]),
        lambda: FrameFolder.claim(url, IDENTITY),
        lambda: made.write(0, SHARDS[0]),
        lambda: made.write(2, SHARDS[2]),
        lambda: made.renew(0, {0: 1}),
        lambda: made.complete(),
        lambda: made.remove([1]),
    ]
    relay.fault = fault
    monkeypatch.setattr(locations, "PATIENCE", 0.5 if fault == "silent" else 100.0)
    for ask in asked if fault == 503 else asked[2:6]:
        with pytest.raises(UnreachableError, match=why) as caught:
            ask()
        assert "give the same command again" in str(caught.value.hint)
    relay.fault = None
    monkeypatch.setattr(locations, "PATIENCE", 100.0)
    relay.released.set()
    fill(url)
    np.testing.assert_array_equal(cache.read(["v1"]).frames[0], MANY[1].images)


def test_a_busy_server_is_asked_again(url: str, relay, tmp_path: Path) -> None:
    fill(tmp_path / "frames")
    relay.fault, relay.only = 503, lambda method, path: len(relay.requests) % 4 == 0
    fill(url)
    assert FrameCache.open(url).usable == FrameCache.open(tmp_path / "frames").usable
    relay.fault = None
    assert objects(url) == files(tmp_path / "frames")


def test_bodies_cut_short_are_no_damage(url: str, relay) -> None:
    fill(url)
    cache = FrameCache.open(url)
    relay.fault, relay.only = "short", lambda method, path: method == "GET" and path.endswith("h5")
    for ask in (lambda: FrameCache.open(url), lambda: cache.read(["v1"]), lambda: FrameFolder.look(url, IDENTITY)):
        with pytest.raises(UnreachableError, match="cannot be reached or fails"):
            ask()


def test_answers_that_get_lost_after_the_write_lose_nothing(url: str, relay, tmp_path: Path) -> None:
    fill(tmp_path / "frames")
    left = {"00000.h5": 1, "00001.h5": 1, "frames.json": 2}

    def once(method: str, path: str) -> bool:
        name = path.rpartition("/")[2]
        if method != "PUT" or not left.get(name):
            return False
        left[name] -= 1
        return True

    relay.fault, relay.only = "lost", once
    fill(url)
    assert not any(left.values())
    assert objects(url) == files(tmp_path / "frames")


def test_a_server_that_goes_away_loses_nothing_finished(url: str, relay, tmp_path: Path) -> None:
    fill(tmp_path / "frames")
    made = FrameFolder.claim(url, IDENTITY)
    made.write(0, SHARDS[0])
    relay.fault, relay.only = "lost", lambda method, path: True  # done, and never answered
    with pytest.raises(UnreachableError):
        made.write(1, SHARDS[1])
    relay.fault = None
    again = FrameFolder.claim(url, IDENTITY)
    assert {0} <= set(again.shards) <= {0, 1}
    for number in {0, 1, 2} - set(again.shards):
        again.write(number, SHARDS[number])
    again.complete()
    assert objects(url) == files(tmp_path / "frames")


def test_no_bucket_and_no_rights_are_told(bucket, monkeypatch) -> None:
    for ask in (FrameCache.open, usable_digests, lambda url: FrameFolder.claim(url, IDENTITY)):
        with pytest.raises(UnreachableError, match="NoSuchBucket"):
            ask("s3://no-such-bucket/frames")
    fill(f"{bucket.url}/frames")
    monkeypatch.delenv("AWS_ACCESS_KEY_ID")
    monkeypatch.setenv("AWS_SHARED_CREDENTIALS_FILE", "/nonexistent")
    with pytest.raises(UnreachableError, match="the server refuses") as caught:
        FrameCache.open(f"{bucket.url}/frames")
    assert "AWS_ACCESS_KEY_ID" in str(caught.value.hint)
    with pytest.raises(CacheError, match="addresses of the kind ftp:// are not known"):
        FrameCache.open("ftp://host/frames")


class Web(http.server.BaseHTTPRequestHandler):
    """Shows the files of `server.folder` in parts, and lists none."""

    def do_GET(self) -> None:
        path = self.server.folder / self.path.strip("/")
        data = path.read_bytes() if path.is_file() else b""
        first, _, last = self.headers.get("Range", "bytes=0-").removeprefix("bytes=").partition("-")
        part = data[int(first) : int(last) + 1 if last else None]
        self.send_response(404 if not path.is_file() else 206 if part else 416)
        self.send_header("Content-Length", str(len(part)))
        self.send_header("Content-Range", f"bytes {first}-{int(first) + len(part) - 1}/{len(data)}")
        self.send_header("ETag", f'"{hash(data):x}"')
        self.end_headers()
        self.wfile.write(part)

    def log_message(self, *_: object) -> None:
        pass


def test_a_web_server_is_read_and_not_written(bucket, tmp_path: Path) -> None:
    fill(tmp_path / "frames")
    with http.server.ThreadingHTTPServer(("127.0.0.1", 0), Web) as server:
        server.folder = tmp_path
        threading.Thread(target=server.serve_forever, args=(0.02,), daemon=True).start()
        web = f"http://127.0.0.1:{server.server_port}/frames"
        here, there = FrameCache.open(tmp_path / "frames"), FrameCache.open(web)
        np.testing.assert_array_equal(there.read(here.usable).frames, here.read(here.usable).frames)
        assert usable_digests(web) == usable_digests(tmp_path / "frames")
        with pytest.raises(CacheError, match="no frame cache here"):
            FrameCache.open(f"{web}/none")
        with pytest.raises(CacheError, match="a web server is only read"):
            FrameFolder.claim(web, IDENTITY)
        server.shutdown()
