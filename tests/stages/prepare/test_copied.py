"""Copied and touched files: compared by their bytes, decoded only where these differ or were never hashed."""

import json
import os
import shutil
import tarfile
from collections.abc import Callable
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import h5py
import numpy as np
import pytest
from teachclip.cache.frames import shard as frame_shards
from teachclip.cache.frames.cache import FrameCache
from teachclip.cache.frames.stamps import stamps_path
from teachclip.cache.storage.identity import digest, identity_digest
from teachclip.configs.schema import Config, DataConfig, PrepareConfig
from teachclip.stages.prepare import renewal, stage
from teachclip.stages.prepare.estimate import estimate_frames
from teachclip.stages.prepare.plan import frame_settings
from teachclip.stages.prepare.stage import PrepareResult, prepare
from teachclip.stages.runtime.reporting import Silent


@dataclass
class Watched:
    """A reporter that remembers warnings, and what progress was told of; it may stop the run after so many steps."""

    stop_after: int = -1
    warnings: list[str] = field(default_factory=list)
    totals: dict[str, int | None] = field(default_factory=dict)
    steps: int = 0

    def info(self, message: str) -> None:
        pass

    def warn(self, message: str) -> None:
        self.warnings.append(message)

    def progress(self, title: str, total: int | None, unit: str, done: int = 0) -> "Watched":
        self.totals[title] = total
        return self

    def advance(self, n: int = 1, **_: float | str) -> None:
        self.steps += n
        if self.steps == self.stop_after:
            raise KeyboardInterrupt

    def __enter__(self) -> "Watched":
        return self

    def __exit__(self, *_: object) -> None:
        pass


def shards(config: Config) -> dict[str, tuple[bytes, int]]:
    """What the shards hold, and which files they are."""
    paths = sorted(config.frames_folder.glob("[0-9]*.h5"))
    return {path.name: (path.read_bytes(), path.stat().st_ino) for path in paths}


def digests(config: Config) -> dict[str, bytes]:
    cache = FrameCache.open(config.frames_folder)
    return {video: cache.digest(video) for video in cache.usable}


def touch(*paths: Path) -> None:
    for path in paths:
        found = path.stat()
        os.utime(path, ns=(found.st_atime_ns, found.st_mtime_ns + 1_000_000_007))


def change(path: Path) -> None:
    """Another video in a file of the same size, with another time: an MP4's brand counts for nothing."""
    data = path.read_bytes()
    assert data[4:8] == b"ftyp"
    path.write_bytes(data[:12] + b"\1" + data[13:])
    touch(path)


def done(result: PrepareResult) -> tuple[int, int]:
    return result.decoded, result.renewed


@pytest.fixture
def six(collection: Any) -> Any:
    """Six clips in three shards, a page in a fourth and a video that is not there."""
    for k in range(6):
        collection.clip(f"{k}.mp4", first=k)
    (collection.videos / "page.mp4").write_text("<html>no</html>")
    collection.caption("page.mp4", "gone.mp4")
    assert prepare(collection.config()).counts == {"ok": 6, "corrupt": 1, "missing": 1}
    return collection


@pytest.fixture
def never_decoded(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(stage, "decode_videos", None)


def test_a_copied_project_is_compared_and_not_decoded(six: Any, tmp_path: Path, never_decoded: None) -> None:
    before, known = shards(six.config()), digests(six.config())
    shutil.copytree(six.root, tmp_path / "copy", copy_function=shutil.copyfile)
    copied = type(six).__new__(type(six))
    copied.root, copied.videos = tmp_path / "copy", tmp_path / "copy" / "videos"
    config, watched = copied.config(), Watched()
    expected = estimate_frames(config)
    size = sum(path.stat().st_size for path in copied.videos.iterdir())
    assert (expected.remaining, expected.probed, expected.compared, expected.bytes_compared) == (0, 0, 7, size)
    result = prepare(config, watched)
    assert (result.decoded, result.renewed, result.counts) == (0, 7, {"ok": 6, "corrupt": 1, "missing": 1})
    assert watched.totals == {"compare files": 7}
    assert {name: data for name, (data, _) in shards(config).items()} == {name: d for name, (d, _) in before.items()}
    assert digests(config) == known
    assert done(prepare(config)) == (0, 0)
    assert estimate_frames(config).compared == 0


def test_whole_seconds_of_an_archive_are_no_change(six: Any, tmp_path: Path, never_decoded: None) -> None:
    with tarfile.open(tmp_path / "a.tar", "w", format=tarfile.USTAR_FORMAT) as archive:
        archive.add(six.videos, "videos")
    shutil.rmtree(six.videos)
    with tarfile.open(tmp_path / "a.tar") as archive:
        archive.extractall(six.root, filter="data")
    assert (prepare(six.config()).renewed, prepare(six.config()).renewed) == (7, 0)


def test_who_reads_the_frames_goes_on(six: Any) -> None:
    cache, before = FrameCache.open(six.config().frames_folder), shards(six.config())
    touch(*six.videos.iterdir())
    assert prepare(six.config()).renewed == 7
    assert shards(six.config()) == before  # the very files
    assert cache.read(cache.usable).mask.any()


def test_a_file_that_holds_something_else_is_decoded_though_its_size_is_the_same(six: Any) -> None:
    config, before, known = six.config(), shards(six.config()), digests(six.config())
    touch(*(six.videos / f"{k}.mp4" for k in (0, 1, 2)))
    change(six.videos / "1.mp4")
    assert done(prepare(config)) == (1, 3)
    assert digests(config) == known  # what was changed is not a picture
    after = shards(config)
    assert {name for name in after if after[name] != before[name]} == {"00000.h5"}
    assert not stamps_path(config.frames_folder / "00000.h5").exists()  # the new shard has the new times itself
    assert stamps_path(config.frames_folder / "00001.h5").exists()
    assert done(prepare(config)) == (0, 0)


def test_other_pictures_of_the_same_size_are_noticed(six: Any, shown_number: Any) -> None:
    one, other = six.videos / "0.mp4", six.videos / "5.mp4"
    size = max(one.stat().st_size, other.stat().st_size) + 8
    for path in (one, other):
        data = path.read_bytes()
        path.write_bytes(data + (size - len(data)).to_bytes(4, "big") + b"free" + bytes(size - len(data) - 8))
    assert prepare(six.config()).decoded == 2
    shutil.copyfile(other, one)
    touch(one)
    assert done(prepare(six.config())) == (1, 0)
    cache = FrameCache.open(six.config().frames_folder)
    assert shown_number(cache.read(["0.mp4"]).frames[0, 0]) == 5


def without_contents(config: Config) -> None:
    """Make the shards as earlier versions did, which did not hash the files."""
    identity = frame_settings(config.prepare)
    for path in config.frames_folder.glob("*.h5"):
        with h5py.File(path, "r+", locking=False) as file:
            del file["contents"]
            frames = file["frames"]
            start = frames.id.get_offset() if frames.size else frame_shards.SEAL_BYTES
            span = start, start + frames.nbytes
        frame_shards.seal(path, identity_digest(identity), span)


def test_what_was_never_hashed_is_decoded_once(six: Any) -> None:
    config = six.config()
    without_contents(config)
    assert done(prepare(config)) == (0, 0)  # as it is while nothing is touched
    known = digests(config)
    touch(*six.videos.iterdir())
    assert (estimate_frames(config).remaining, estimate_frames(config).compared) == (7, 0)
    assert done(prepare(config)) == (7, 7)  # the same frames came out
    assert digests(config) == known
    touch(*six.videos.iterdir())
    assert done(prepare(config)) == (0, 7)
    assert digests(config) == known


def test_a_shard_keeps_the_hashes_of_its_files(six: Any) -> None:
    config = six.config()
    folder = stage.FrameFolder.look(config.frames_folder, frame_settings(config.prepare))
    kept = {
        status.video: stamp.content
        for shard in folder.shards.values()
        for status, stamp in zip(shard.statuses, shard.stamps, strict=True)
    }
    assert kept.pop("gone.mp4") == bytes(16)
    assert kept == {path.name: digest(path.read_bytes()) for path in six.videos.iterdir()}


def test_an_interrupted_comparison_is_gone_on_with(six: Any) -> None:
    config = six.config()
    touch(*six.videos.iterdir())
    with pytest.raises(KeyboardInterrupt):
        prepare(config, Watched(stop_after=4))
    assert estimate_frames(config).compared == 3  # two shards are put down
    assert done(prepare(config)) == (0, 3)


def test_what_cannot_be_read_now_keeps_its_frames(
    six: Any, spawned: Callable[[str], Any], monkeypatch: pytest.MonkeyPatch
) -> None:
    config, known = six.config(), digests(six.config())
    touch(six.videos / "0.mp4", six.videos / "1.mp4")
    watched = Watched()
    with monkeypatch.context() as patch:
        patch.setattr(renewal, "read_again", spawned("unreadable_0"))
        result = prepare(config, watched)
    assert (result.decoded, result.renewed, result.counts["ok"]) == (0, 1, 6)
    assert watched.warnings == [
        "1 touched file could not be read, or not within prepare.timeout: its frames are kept, and the next prepare "
        "looks again"
    ]
    assert digests(config) == known
    assert prepare(config).renewed == 1


def test_times_of_another_shard_or_none_at_all_are_not_believed(six: Any) -> None:
    config = six.config()
    touch(*six.videos.iterdir())
    prepare(config)
    beside = stamps_path(config.frames_folder / "00000.h5")
    good = beside.read_bytes()
    other = json.loads(stamps_path(config.frames_folder / "00001.h5").read_bytes())["tables"]
    ours = json.loads(good)["tables"]
    wrong = [
        good.replace(ours.encode(), other.encode()),
        b"",
        b"[]",
        b"{",
        b"\xff",
        b"[" * 100_000,
        good.replace(b"mtimes", b"times"),
        good[:-3] + b'"]}',
    ]
    wrong += [good.replace(b'"version": 1', b'"version": 2'), good[: good.index(b"[")] + b"[1]}", good + b" " * 2**22]
    for content in wrong:
        beside.write_bytes(content)
        assert estimate_frames(config).compared == 2, content[:80]
    beside.unlink()
    assert prepare(config).renewed == 2
    assert beside.read_bytes() == good


def test_videos_in_a_touched_tar_are_compared_each_by_itself(collection: Any) -> None:
    tars = collection.root / "tars"
    tars.mkdir()
    for k in range(3):
        (collection.root / "c.txt").write_text(f"clip {k}")
        with tarfile.open(tars / "train-0.tar", "a") as archive:
            archive.add(collection.clip(f"{k}.mp4", first=k), f"{k}.mp4")
            archive.add(collection.root / "c.txt", f"{k}.txt")
    data = DataConfig(set="webdataset", videos=tars)
    config = Config(work=collection.root / "work", data=data, prepare=PrepareConfig(workers=1, image_size=32))
    assert prepare(config).decoded == 3
    touch(tars / "train-0.tar")
    size = sum((collection.videos / f"{k}.mp4").stat().st_size for k in range(3))
    assert estimate_frames(config).bytes_compared == size
    assert done(prepare(config)) == (0, 3)


def test_nothing_is_asked_of_a_decoder_that_is_not_there(six: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    seen: list[PrepareConfig] = []
    real = renewal.decode_videos

    def watched(jobs: Any, config: PrepareConfig, *rest: Any) -> Any:
        seen.append(config)
        return real(jobs, config, *rest)

    monkeypatch.setattr(renewal, "decode_videos", watched)
    touch(six.videos / "3.mp4")
    assert prepare(six.config(decoder="decord"), Silent()).renewed == 1
    assert [config.decoder for config in seen] == ["pyav"]
    assert np.all(FrameCache.open(six.config().frames_folder).read(["3.mp4"]).mask)
