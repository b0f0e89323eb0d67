"""prepare: what a run makes, what the next run does again, what it refuses, what it costs."""

import json
import os
import shutil
import signal
import subprocess
import sys
import tarfile
import time
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from teachclip.cache.frames.cache import FrameCache
from teachclip.cache.frames.record import ReadBy
from teachclip.configs.loading import dump_config, load_config
from teachclip.configs.schema import Config
from teachclip.errors import CacheError, CacheMismatchError, DataError
from teachclip.remedies import Change
from teachclip.stages.data.video.decode import READER
from teachclip.stages.prepare import stage
from teachclip.stages.prepare.estimate import estimate_frames, raw_bytes
from teachclip.stages.prepare.plan import frame_settings
from teachclip.stages.prepare.stage import prepare

STARTED = """
import sys
from teachclip.pipeline.cli.main import main
try:
    main()
finally:
    print("torch" in sys.modules)
"""
SPAWNED = Path(__file__).parents[1] / "data" / "video" / "spawned" / "prepare_slowly.py"


def shards(config: Config) -> dict[str, bytes]:
    return {path.name: path.read_bytes() for path in sorted(config.frames_folder.glob("[0-9]*.h5"))}


def shown(config: Config, shown_number: Any) -> dict[str, list[int]]:
    """Numbers that the kept frames of each usable video show."""
    cache = FrameCache.open(config.frames_folder)
    clips = cache.read(cache.usable)
    return {
        video: [shown_number(image) for image in clips.frames[k, clips.mask[k]]] for k, video in enumerate(cache.usable)
    }


def test_frames_times_masks_and_statuses_of_every_video(collection: Any, shown_number: Any) -> None:
    collection.clip("a.mp4", 24)
    collection.caption("gone.mp4")
    collection.clip("sub/b ü.mp4", 4)
    collection.clip("c.mp4", 40, first=100)
    (collection.videos / "page.mp4").write_text("<html>no</html>")
    collection.caption("page.mp4")
    config = collection.config()
    result = prepare(config)
    assert result.counts == {"ok": 3, "missing": 1, "corrupt": 1}
    assert (result.videos, result.decoded) == (5, 5)
    assert [(left.video, left.reason) for left in result.left_out] == [
        ("gone.mp4", "no such file"),
        ("page.mp4", "an HTML page, not a video"),
    ]
    assert list(shards(config)) == ["00000.h5", "00001.h5", "00002.h5"]
    assert result.bytes == sum(map(len, shards(config).values()))
    assert result.videos_per_second == pytest.approx(5 / result.seconds)

    cache = FrameCache.open(config.frames_folder)
    assert cache.usable == ("a.mp4", "sub/b ü.mp4", "c.mp4")
    assert (cache.max_frames, cache.image_size) == (3, 96)
    assert shown(config, shown_number) == {"a.mp4": [0, 8, 20], "sub/b ü.mp4": [0], "c.mp4": [100, 116, 136]}
    clips = cache.read(["c.mp4", "sub/b ü.mp4"])
    np.testing.assert_array_equal(clips.mask, [[True, True, True], [True, False, False]])
    np.testing.assert_allclose(clips.times, [[0, 4, 9], [0, np.nan, np.nan]])
    assert not clips.frames[1, 1:].any()
    assert cache.statuses["c.mp4"].duration == pytest.approx(10)
    assert cache.statuses["c.mp4"].frames == 3
    assert len({cache.digest(video) for video in cache.usable}) == 3
    with pytest.raises(CacheError, match=r"'gone.mp4' has no frames: missing, no such file"):
        cache.read(["gone.mp4"])
    with pytest.raises(CacheError, match="not in the frame cache"):
        cache.digest("other.mp4")


def test_jpeg_storage_reads_like_raw(collection: Any) -> None:
    for k in range(3):
        collection.clip(f"{k}.mp4", 12, first=10 * k)
    raw, jpeg = collection.config(), collection.config(storage="jpeg", frames="jpeg", jpeg_quality=97)
    prepare(raw)
    prepare(jpeg)
    a, b = FrameCache.open(raw.frames_folder), FrameCache.open(jpeg.frames_folder)
    one, other = a.read(a.usable), b.read(b.usable)
    assert np.abs(one.frames.astype(int) - other.frames).mean() < 3
    np.testing.assert_array_equal(one.mask, other.mask)
    np.testing.assert_array_equal(one.times, other.times)
    assert sum(map(len, shards(jpeg).values())) < sum(map(len, shards(raw).values())) / 3
    assert a.digest("0.mp4") != b.digest("0.mp4")
    assert b.identity["jpeg_quality"] == 97


def test_the_same_videos_elsewhere_give_the_same_bits(collection: Any) -> None:
    for k in range(5):
        collection.clip(f"{k}.mp4", 12, first=10 * k)
    one, other = collection.config(), collection.config(workers=2, frames="other", timeout=99)
    prepare(one)
    prepare(other)
    assert shards(one) == shards(other)


def read_by(config: Config) -> dict[str, ReadBy]:
    """Who read each video, as the shards say."""
    folder = stage.FrameFolder.look(config.frames_folder, frame_settings(config.prepare))
    return {
        status.video: who
        for shard in folder.shards.values()
        for status, who in zip(shard.statuses, shard.read_by, strict=True)
    }


def test_the_decoder_changes_nothing_but_its_name(collection: Any) -> None:
    collection.clip("a.mp4")
    collection.clip("b.avi")
    collection.caption("gone.mp4")
    caches = {}
    for decoder in ("auto", "pyav"):
        config = collection.config(decoder=decoder, frames=decoder)
        prepare(config)
        caches[decoder] = FrameCache.open(config.frames_folder)
        other = "decord" if decoder == "auto" else "pyav"
        assert {video: who.decoder for video, who in read_by(config).items()} == {
            "a.mp4": other, "b.avi": "pyav", "gone.mp4": "pyav",
        }  # fmt: skip
        assert {who.reader for who in read_by(config).values()} == {READER}
    auto, pyav = caches.values()
    assert auto.identity == pyav.identity
    assert auto.statuses == pyav.statuses
    assert [auto.digest(video) for video in auto.usable] == [pyav.digest(video) for video in auto.usable]
    config = collection.config(decoder="decord", frames="auto")
    assert prepare(config).decoded == 0  # what is there serves, whoever read it


def test_frames_of_the_first_release_serve_as_they_are(tmp_path: Path) -> None:
    with tarfile.open(Path(__file__).parents[2] / "world/world-4b3091f.tar.gz") as archive:
        archive.extractall(tmp_path, filter="data")
    config = load_config(tmp_path / "c.yaml")
    before = shards(config)
    shard = stage.FrameFolder.look(config.frames_folder, frame_settings(config.prepare)).shards[0]
    for status, stamp in zip(shard.statuses, shard.stamps, strict=True):  # an archive has whole seconds
        os.utime(config.data.video_folder / status.video, ns=(stamp.mtime_ns, stamp.mtime_ns))
    assert prepare(config).decoded == 0
    assert shards(config) == before
    assert set(read_by(config).values()) == {ReadBy("pyav", 0)}
    cache = FrameCache.open(config.frames_folder)
    assert len(cache.usable) == 14
    clip = config.data.video_folder / cache.usable[0]
    os.utime(clip, ns=(1, 1))
    assert prepare(config).decoded == 1  # the same frames by decord, beside those that were copied
    who = read_by(config)
    assert who.pop(cache.usable[0]) == ReadBy("decord", READER)
    assert set(who.values()) == {ReadBy("pyav", 0)}
    again = FrameCache.open(config.frames_folder)
    assert [again.digest(video) for video in again.usable] == [cache.digest(video) for video in cache.usable]


def test_run_again_decodes_nothing_and_writes_nothing(collection: Any) -> None:
    for k in range(3):
        collection.clip(f"{k}.mp4")
    config = collection.config()
    prepare(config)
    before = {path: path.stat().st_mtime_ns for path in config.frames_folder.iterdir()}
    again = prepare(collection.config(workers=2, timeout=9, shard_videos=7))
    assert (again.decoded, again.counts) == (0, {"ok": 3})
    assert {path: path.stat().st_mtime_ns for path in config.frames_folder.iterdir()} == before


def test_new_videos_are_appended_and_gone_files_keep_their_frames(collection: Any, shown_number: Any) -> None:
    for k in range(3):
        collection.clip(f"{k}.mp4", first=k)
    config = collection.config()
    prepare(config)
    before = shards(config)
    (collection.videos / "1.mp4").unlink()
    collection.rows.insert(0, ("new.mp4", "x"))
    collection.rows.pop(1)  # 0.mp4 is captioned no more
    collection.clip("last.mp4", first=7)
    collection.clip("new.mp4", first=9)
    collection.rows.pop()
    collection.caption()
    result = prepare(config)
    assert (result.videos, result.decoded, result.counts) == (4, 2, {"ok": 4})
    after = shards(config)
    assert {name: after[name] for name in before} == before
    assert list(after) == ["00000.h5", "00001.h5", "00002.h5"]
    assert {video: numbers[0] for video, numbers in shown(config, shown_number).items()} == {
        "0.mp4": 0, "1.mp4": 1, "2.mp4": 2, "new.mp4": 9, "last.mp4": 7,
    }  # fmt: skip


def test_a_changed_file_is_decoded_again_and_its_neighbours_are_copied(
    collection: Any, shown_number: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    for k in range(4):
        collection.clip(f"{k}.mp4", first=k)
    config = collection.config()
    prepare(config)
    before, digests = shards(config), FrameCache.open(config.frames_folder).digest
    shutil.copy(collection.videos / "3.mp4", collection.videos / "0.mp4")
    asked: list[str] = []
    real = stage.decode_videos

    def watched(jobs: Any, *rest: Any) -> Any:
        asked.extend(id for id, _ in jobs)
        return real(jobs, *rest)

    monkeypatch.setattr(stage, "decode_videos", watched)
    old_reader = FrameCache.open(config.frames_folder)
    assert prepare(config).decoded == 1
    assert asked == ["0.mp4"]
    after = shards(config)
    assert after["00001.h5"] == before["00001.h5"]
    cache = FrameCache.open(config.frames_folder)
    assert {video: numbers[0] for video, numbers in shown(config, shown_number).items()} == {
        "0.mp4": 3, "1.mp4": 1, "2.mp4": 2, "3.mp4": 3,
    }  # fmt: skip
    assert cache.digest("0.mp4") == cache.digest("3.mp4") != digests("0.mp4")
    assert cache.digest("1.mp4") == digests("1.mp4")
    with pytest.raises(CacheError, match="replaced while in use"):
        old_reader.read(["1.mp4"])


def test_a_touched_file_keeps_its_digest(collection: Any) -> None:
    collection.clip("0.mp4")
    config = collection.config()
    prepare(config)
    digest = FrameCache.open(config.frames_folder).digest("0.mp4")
    os.utime(collection.videos / "0.mp4", (1, 1))
    touched = prepare(config)
    assert (touched.decoded, touched.renewed) == (0, 1)
    assert FrameCache.open(config.frames_folder).digest("0.mp4") == digest
    assert prepare(config).decoded == 0


def test_missing_and_timed_out_videos_are_tried_again(
    collection: Any, spawned: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    collection.clip("a.mp4")
    collection.caption("later.mp4")
    collection.clip("hang.mp4")
    config = collection.config(timeout=3.0, decoder="pyav")
    misbehave, real = spawned("misbehave"), stage.decode_videos
    with monkeypatch.context() as patch:
        patch.setattr(stage, "decode_videos", lambda jobs, settings, ahead: real(jobs, settings, ahead, misbehave))
        assert prepare(config).counts == {"ok": 1, "missing": 1, "timeout": 1}
        before = shards(config)
        again = prepare(config)
        assert again.decoded == 1  # the one that hung; nothing changed, so nothing is written
        assert shards(config) == before
    shutil.copy(collection.videos / "a.mp4", collection.videos / "later.mp4")
    assert prepare(collection.config(decoder="pyav")).counts == {"ok": 3}
    assert FrameCache.open(config.frames_folder).usable == ("a.mp4", "later.mp4", "hang.mp4")


@pytest.mark.parametrize(
    ("change", "field"),
    [
        ({"image_size": 64}, "image_size: the cache has 96, now it is 64"),
        ({"max_frames": 5}, "max_frames: the cache has 3, now it is 5"),
        ({"sample_fps": 2}, "sample_fps: the cache has 1, now it is 2"),
        ({"choice": "head"}, 'choice: the cache has "uniform", now it is "head"'),
        ({"storage": "jpeg"}, 'storage: the cache has "raw", now it is "jpeg"'),
    ],
)
def test_other_settings_are_refused_by_name(collection: Any, change: dict[str, Any], field: str) -> None:
    collection.clip("a.mp4")
    prepare(collection.config())
    before = shards(collection.config())
    for run in (prepare, estimate_frames):
        with pytest.raises(CacheMismatchError) as caught:
            run(collection.config(**change))
        assert field in caught.value.details
    assert shards(collection.config()) == before


def test_settings_may_change_while_there_is_no_shard(collection: Any) -> None:
    collection.clip("a.mp4")
    config = collection.config()
    stage.FrameFolder.claim(config.frames_folder, frame_settings(config.prepare))
    with pytest.raises(CacheError, match="not complete"):
        FrameCache.open(config.frames_folder)
    assert prepare(collection.config(image_size=64)).counts == {"ok": 1}


def test_nothing_usable_is_an_error_that_names_videos(collection: Any) -> None:
    collection.caption(*(f"{k}.mp4" for k in range(30)))
    with pytest.raises(DataError, match="none of the 30 videos can be used") as caught:
        prepare(collection.config())
    assert caught.value.details[0] == "0.mp4: missing, no such file"
    assert len(caught.value.details) == 20
    assert "data.videos" in (caught.value.hint or "")


def test_a_folder_with_something_else_is_left_alone(collection: Any) -> None:
    collection.clip("a.mp4")
    config = collection.config()
    config.frames_folder.mkdir(parents=True)
    (config.frames_folder / "thesis.tex").write_text("precious")
    with pytest.raises(CacheError, match="no frame cache, and not empty"):
        prepare(config)
    assert [path.name for path in config.frames_folder.iterdir()] == ["thesis.tex"]


def test_the_benchmarks_take_the_disk_that_is_known() -> None:
    gigabyte = 1e9
    assert raw_bytes(10_000, 12, 224) / gigabyte == pytest.approx(18, abs=0.1)  # MSR-VTT
    assert raw_bytes(28_991, 12, 224) / gigabyte == pytest.approx(52, abs=0.5)  # VATEX
    assert raw_bytes(14_926, 64, 224) / gigabyte == pytest.approx(145, rel=0.01)  # ActivityNet, train and val_1


@pytest.mark.parametrize("storage", ["raw", "jpeg"])
def test_the_estimate_is_what_prepare_then_takes(collection: Any, storage: str) -> None:
    for k in range(20):
        collection.clip(f"{k}.mp4", 4 + 4 * (k % 4), first=k)
    config = collection.config(storage=storage, shard_videos=50)
    expected = estimate_frames(config)
    assert not config.work.exists()
    assert (expected.videos, expected.remaining, expected.probed, expected.workers) == (20, 20, 12, 1)
    assert expected.bytes_at_most == (raw_bytes(20, 3, 96) if storage == "raw" else None)
    assert expected.free == pytest.approx(shutil.disk_usage(collection.root).free, rel=0.1)
    assert 0 < expected.seconds < 60
    result = prepare(config)
    tables = 20 * 300 + 5_000
    assert result.bytes == pytest.approx(expected.bytes, rel=0.15, abs=tables)
    again = estimate_frames(config)
    assert (again.remaining, again.bytes, again.seconds, again.probed) == (0, 0, 0, 0)


def test_the_estimate_probes_files_that_are_there_and_counts_the_others(collection: Any) -> None:
    """All that a probe would have met is missing but one: it tells of that one."""
    for k in range(24):
        collection.clip(f"{k:02d}.mp4", 12, first=k)
        if k != 23:
            (collection.config().data.video_folder / f"{k:02d}.mp4").unlink()
    config = collection.config(storage="raw")
    expected = estimate_frames(config)
    assert (expected.videos, expected.remaining, expected.missing, expected.probed) == (24, 1, 23, 1)
    assert expected.bytes == expected.bytes_at_most == raw_bytes(1, 3, 96)
    assert expected.seconds > 0
    prepare(config)
    assert (estimate_frames(config).remaining, estimate_frames(config).missing) == (0, 23)
    (config.data.video_folder / "23.mp4").unlink()
    assert (estimate_frames(config).remaining, estimate_frames(config).missing) == (0, 23)  # its frames are there


def test_a_disk_without_room_is_refused_before_anything_runs(collection: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    for k in range(3):
        collection.clip(f"{k}.mp4", 4)  # one of three frames each
    frame = raw_bytes(1, 1, 96)
    usage = shutil.disk_usage(collection.root)
    monkeypatch.setattr(shutil, "disk_usage", lambda folder: usage._replace(free=2 * frame))
    with pytest.raises(CacheError, match="free") as caught:
        prepare(collection.config())
    assert caught.value.hint.otherwise.action == Change({"prepare.storage": "jpeg"})
    assert shards(collection.config()) == {}
    monkeypatch.setattr(shutil, "disk_usage", lambda folder: usage._replace(free=4 * frame))
    assert prepare(collection.config()).counts == {"ok": 3}  # full clips would not fit, these do


def test_a_full_disk_says_so_and_the_next_run_goes_on(collection: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    for k in range(4):
        collection.clip(f"{k}.mp4", first=k)
    config = collection.config()
    real = stage.FrameFolder.write

    def full(self: Any, number: int, records: Any) -> None:
        if number == 1:
            raise CacheError("the shard cannot be written: [Errno 28] No space left on device")
        real(self, number, records)

    with monkeypatch.context() as patch:
        patch.setattr(stage.FrameFolder, "write", full)
        with pytest.raises(CacheError, match="No space left"):
            prepare(config)
    assert list(shards(config)) == ["00000.h5"]
    with pytest.raises(CacheError, match="not complete"):
        FrameCache.open(config.frames_folder)
    assert prepare(config).decoded == 2


def interrupted(config: Config, after: float, how: signal.Signals) -> int:
    """Run prepare in a process of its own and stop it `after` seconds past its first shard; its exit code."""
    settings = config.work.parent / "config.json"
    settings.write_text(config.model_dump_json())
    process = subprocess.Popen([sys.executable, str(SPAWNED), str(settings)], stderr=subprocess.DEVNULL)
    end = time.monotonic() + 120
    while not shards(config) and process.poll() is None:
        assert time.monotonic() < end
        time.sleep(0.02)
    time.sleep(after)
    process.send_signal(how)
    return process.wait(120)


@pytest.mark.parametrize(("how", "times"), [(signal.SIGINT, 1), (signal.SIGKILL, 2)])
def test_killed_at_any_moment_it_goes_on_and_ends_with_the_same_bits(
    collection: Any, how: signal.Signals, times: int
) -> None:
    for k in range(8):
        collection.clip(f"slow{k}.mp4", first=k)  # 0.4 seconds each
    whole, config = collection.config(frames="whole", workers=2), collection.config(workers=2)
    prepare(whole)
    for k in range(times):
        assert interrupted(config, 0.15 + 0.3 * k, how) != 0
        with pytest.raises(CacheError, match="not complete"):
            FrameCache.open(config.frames_folder)
    kept = shards(config)
    assert 0 < len(kept) < 4
    assert all(shards(whole)[name] == data for name, data in kept.items())
    assert prepare(config).decoded == 2 * (4 - len(kept))
    assert shards(config) == shards(whole)


@pytest.fixture
def real_clips(shared: Path, tmp_path: Path) -> Config:
    """The 27 captioned clips and one damaged file."""
    clips = shared / "data" / "videos"
    lines = (clips / "captions.jsonl").read_text(encoding="utf-8").splitlines()
    lines.append(json.dumps({"video": "decord_corrupted.mp4", "caption": "a file that does not decode"}))
    captions = tmp_path / "captions.jsonl"
    captions.write_text("\n".join(lines), encoding="utf-8")
    return Config.model_validate(
        {"work": tmp_path / "work", "data": {"captions": captions, "videos": clips}, "prepare": {"workers": 2}}
    )


def test_real_clips_of_many_makers(real_clips: Config, capfd: pytest.CaptureFixture[str]) -> None:
    result = prepare(real_clips)
    assert result.counts == {"ok": 27, "corrupt": 1}
    assert [left.video for left in result.left_out] == ["decord_corrupted.mp4"]
    assert "pictures are damaged" in result.left_out[0].reason
    cache = FrameCache.open(real_clips.frames_folder)
    assert len(cache.usable) == 27
    clips = cache.read(cache.usable)
    assert all(cache.statuses[video].reason == "" for video in cache.usable)
    lit = clips.frames.reshape(*clips.mask.shape, -1)
    plain = (lit.std(axis=-1) < 5) & clips.mask  # black, grey or green
    assert [(cache.usable[v], f) for v, f in np.argwhere(plain)] == [("iscc_demo.mp4", 0)]  # which does begin in black
    for k in range(len(cache.usable)):
        frames = lit[k, clips.mask[k]].astype(int)
        assert all((frames[i] != frames[i - 1]).any() for i in range(1, len(frames)))
        times = clips.times[k, clips.mask[k]]
        assert times[0] == 0
        assert (np.diff(times) > 0).all()
    assert capfd.readouterr() == ("", "")
    assert prepare(real_clips).decoded == 0


@pytest.mark.parametrize("option", ["--quiet", "--estimate"])
def test_nobody_waits_for_torch_who_prepares_videos(collection: Any, option: str) -> None:
    """It takes seconds to load."""
    collection.clip("a.mp4")
    path = collection.root / "own.yaml"
    path.write_text(dump_config(collection.config()))
    command = [sys.executable, "-c", STARTED, "prepare", str(path), option]
    done = subprocess.run(command, capture_output=True, text=True, check=False, timeout=200)
    assert (done.returncode, done.stdout.splitlines()[-1]) == (0, "False"), done.stderr
