"""A folder of videos becomes a library: right vectors and times, nothing done twice, nothing lost."""

import os
import shutil
import signal
import subprocess
import sys
import time
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from teachclip.cache.library.library import Library
from teachclip.cache.library.rows import Known
from teachclip.cache.library.writer import LibraryWriter
from teachclip.configs.schema import PrepareConfig
from teachclip.errors import CacheError, CheckpointError, DataError
from teachclip.stages.data.video.decode import read_video
from teachclip.stages.models.checkpoints.files import load_network
from teachclip.stages.models.student import Student
from teachclip.stages.search.library import encoding, stage
from teachclip.stages.search.library.estimate import estimate_videos
from teachclip.stages.search.library.stage import VideosIndexed

from .conftest import FRAMES, SECONDS, SIZE, Index, draw

PROCESS = Path(__file__).parent / "spawned/indexing_process.py"


@pytest.fixture
def no_decoding(monkeypatch: pytest.MonkeyPatch) -> None:
    def refused(*_: Any) -> Any:
        raise AssertionError("a video is decoded")

    monkeypatch.setattr(stage, "decode_in_parts", refused)


def done(result: VideosIndexed) -> dict[str, int]:
    names = ("decoded", "windows", "unchanged", "renewed", "moved", "copied", "removed")
    return {name: number for name in names if (number := getattr(result, name))}


def frames_of(path: Path, numbers: list[int]) -> torch.Tensor:
    """Every picture of a clip of one picture a second, and of these some."""
    config = PrepareConfig(image_size=SIZE, max_frames=1000, decoder="pyav")
    return torch.from_numpy(read_video("x", path, config).images)[numbers]


def encoded(root: Path, frames: torch.Tensor) -> tuple[np.ndarray, np.ndarray]:
    """The student's own vector and weights of a window."""
    student = load_network(root / "student").eval()
    assert isinstance(student, Student)
    padded = torch.zeros(1, FRAMES, *frames.shape[1:], dtype=torch.uint8)
    padded[0, : len(frames)] = frames
    mask = torch.arange(FRAMES)[None] < len(frames)
    with torch.no_grad():
        features = student.encode_videos(padded, mask)
        weights = student.pooling_weights(features, mask)
    return features["vector"][0].numpy(), weights[0, : len(frames)].numpy()


def test_what_the_first_run_says(indexed_once: tuple[Path, VideosIndexed]) -> None:
    root, result = indexed_once
    assert result.counts == {"ok": 4, "corrupt": 1}
    assert done(result) == {"decoded": 5, "windows": 9}
    assert (result.videos, result.all_windows, result.width, result.files) == (4, 9, 64, 5)
    assert [(each.video, each.status, each.reason) for each in result.left_out] == [
        (str(root / "clips/b/broken.mp4"), "corrupt", "an HTML page, not a video")
    ]


@pytest.mark.parametrize("name", ["a/short.mp4", "a/brief.mp4", "b/whole.mp4"])
def test_a_short_video_is_one_window_with_the_frames_that_prepare_takes(root: Path, name: str) -> None:
    path = root / "clips" / name
    record = read_video("x", path, PrepareConfig(image_size=SIZE, max_frames=FRAMES))
    vector, weights = encoded(root, torch.from_numpy(record.images))
    with Library.open(root / "index") as library:
        (window,) = library.windows_of(path)
        assert (window.start, window.stop) == (0.0, SECONDS[name])
        np.testing.assert_allclose(window.times, record.times, atol=1e-6)
        np.testing.assert_allclose(library.vector(window.row), vector, atol=1e-3)
        assert window.weights is not None
        np.testing.assert_allclose(window.weights, weights, atol=1e-5)


def test_a_long_video_is_cut_into_windows(root: Path) -> None:
    path = root / "clips/long.mp4"
    with Library.open(root / "index") as library:
        windows = library.windows_of(path)
        assert [window.start for window in windows] == [0, 15, 30, 45, 60, 70]
        assert [window.stop for window in windows] == [30, 45, 60, 75, 90, 100]
        for window in windows:
            numbers = [int(second) for second in window.start + np.arange(FRAMES) * 2.5]
            assert list(window.times) == numbers
            vector, weights = encoded(root, frames_of(path, numbers))
            np.testing.assert_allclose(library.vector(window.row), vector, atol=1e-3)
            assert window.weights is not None
            np.testing.assert_allclose(window.weights, weights, atol=1e-5)
        hit = library.search(vector, 1)[0]
        assert (hit.window.path, hit.window.start) == (str(path), 70)


@pytest.mark.usefixtures("no_decoding")
def test_again_nothing_is_decoded(index: Index, root: Path) -> None:
    assert done(index()) == {"unchanged": 5}
    assert done(index(str(root / "clips/a"), model=None)) == {"unchanged": 2}


@pytest.mark.usefixtures("no_decoding")
def test_tags_are_given_and_taken_without_decoding(index: Index, root: Path) -> None:
    clips = root / "clips"
    made = index(str(clips / "a"), tags=["sea", " 2019 "])
    assert (made.tags_added, made.tags_removed, made.unchanged) == (4, 0, 2)
    made = index(str(clips / "a/short.mp4"), str(clips / "long.mp4"), tags=["2019"], untags=["sea", "none"])
    assert (made.tags_added, made.tags_removed) == (1, 1)
    with Library.open(root / "index") as library:
        tags = {Path(each.path).name: library.tags(each.path) for each in library.videos()}
    assert {name: each for name, each in tags.items() if each} == {
        "short.mp4": ["2019"], "brief.mp4": ["2019", "sea"], "long.mp4": ["2019"],
    }  # fmt: skip
    for wrong in ({"tags": [" "]}, {"tags": ["x"], "untags": ["x"]}):
        with pytest.raises(DataError, match="tag"):
            index(**wrong)


def test_new_videos_are_tagged(index: Index, root: Path) -> None:
    draw(root / "clips/new.mp4", 3, 9)
    assert index(str(root / "clips/new.mp4"), tags=["sea"]).tags_added == 1
    with Library.open(root / "index") as library:
        assert library.tags(root / "clips/new.mp4") == ["sea"]


@pytest.mark.usefixtures("no_decoding")
def test_touched_moved_and_copied_files_are_recognised(index: Index, root: Path) -> None:
    clips = root / "clips"
    os.utime(clips / "long.mp4", (5, 5))
    (clips / "a/short.mp4").rename(clips / "moved.mp4")
    shutil.copy(clips / "b/whole.mp4", clips / "copy.mp4")
    shutil.copy(clips / "b/broken.mp4", clips / "also broken.mp4")
    with Library.open(root / "index") as library:
        library.add_tag(clips / "a/short.mp4", "sea")
        before = library.windows_of(clips / "a/short.mp4")
    result = index()
    assert done(result) == {"unchanged": 3, "renewed": 1, "moved": 1, "copied": 2}
    assert result.counts == {"ok": 5, "corrupt": 2}
    with Library.open(root / "index") as library:
        assert [window.row for window in library.windows_of(clips / "moved.mp4")] == [window.row for window in before]
        assert library.tags(clips / "moved.mp4") == ["sea"]
        assert library.video(clips / "a/short.mp4") is None
        (one,), (other,) = (library.windows_of(clips / name) for name in ("copy.mp4", "b/whole.mp4"))
        assert one.row != other.row
        np.testing.assert_array_equal(library.vector(one.row), library.vector(other.row))
    assert done(index()) == {"unchanged": 7}


def test_a_whole_folder_moves(index: Index, root: Path, no_decoding: None) -> None:
    (root / "clips").rename(root / "holidays")
    assert done(index(str(root / "holidays"))) == {"moved": 5}
    with Library.open(root / "index") as library:
        assert {Path(video.path).parts[-2] for video in library.videos()} <= {"holidays", "a", "b"}
        assert len(library) == 9


def test_new_changed_and_deleted_files(index: Index, root: Path) -> None:
    clips = root / "clips"
    (clips / "a/brief.mp4").unlink()
    draw(clips / "b/whole.mp4", 10, 77)
    draw(clips / "new.mp4", 5, 78)
    (clips / "b/broken.mp4").write_bytes(b"something else")
    result = index()
    assert done(result) == {"decoded": 3, "windows": 2, "unchanged": 2, "removed": 1}
    assert result.counts == {"ok": 4, "corrupt": 1}
    with Library.open(root / "index") as library:
        assert library.video(clips / "a/brief.mp4") is None
        (window,) = library.windows_of(clips / "b/whole.mp4")
        assert window.stop == 10


@pytest.mark.usefixtures("no_decoding")
def test_what_lies_elsewhere_stays(index: Index, root: Path) -> None:
    """Its disk may not be there today; a folder that is empty, as one whose disk is not there, changes nothing."""
    shutil.rmtree(root / "clips/b")
    assert done(index(str(root / "clips/a"))) == {"unchanged": 2}
    (root / "clips/a").rename(root / "away")
    (root / "clips/a").mkdir()
    with pytest.raises(DataError, match="there is no video"):
        index(str(root / "clips/a"))
    with Library.open(root / "index") as library:
        assert len(library) == 9
    (root / "away/short.mp4").rename(root / "clips/a/short.mp4")
    assert done(index(str(root / "clips/a"))) == {"unchanged": 1, "removed": 1}
    with Library.open(root / "index") as library:
        assert library.video(root / "clips/b/whole.mp4") is not None


def test_another_model_and_back(index: Index, root: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (root / "clips/long.mp4").unlink()
    result = index(model=str(root / "other"))
    assert done(result) == {"decoded": 3, "windows": 3, "unchanged": 1, "removed": 1}
    with Library.open(root / "index") as library:
        assert library.model.name == str(root / "other")
        assert len(library) == 3
    monkeypatch.setattr(stage, "decode_in_parts", None)
    assert done(index()) == {"unchanged": 4}
    assert done(index(model=None)) == {"unchanged": 4}
    with Library.open(root / "index") as library:
        assert library.model.name == str(root / "student")
        assert len(library) == 3


def known_in(folder: Path) -> dict[str, Known] | None:
    """What a library knows; None while there is none."""
    try:
        with Library.open(folder) as library:
            return library.known()
    except CacheError:
        return None


def test_killed_and_given_again_it_comes_to_the_same(index: Index, root: Path) -> None:
    """What was put down before a kill is not decoded again, and the end is that of a run that nobody stopped."""
    with Library.open(root / "index") as library:
        wanted = {
            (window.path, window.start): library.vector(window.row) for window in library.windows(library.rows.tolist())
        }
    shutil.rmtree(root / "index")
    with subprocess.Popen([sys.executable, str(PROCESS), str(root)]) as process:
        while process.poll() is None and not known_in(root / "index"):
            time.sleep(0.05)
        process.send_signal(signal.SIGKILL)
    known = known_in(root / "index")
    assert known
    assert all(each.windows for each in known.values() if each.video.status == "ok")
    assert index().unchanged == len(known)
    with Library.open(root / "index") as library:
        assert library.counts() == {"corrupt": 1, "ok": 4}
        found = {(window.path, window.start): window.row for window in library.windows(library.rows.tolist())}
        assert found.keys() == wanted.keys()
        for key, row in found.items():
            np.testing.assert_allclose(library.vector(row), wanted[key], atol=1e-3)


def test_every_video_is_put_down_as_soon_as_it_is_encoded(
    index: Index, root: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """And frames are encoded in small lots, each once: of 100 seconds 40 frames for 6 windows."""
    monkeypatch.setattr(stage, "FRAMES_AT_ONCE", 16)
    sizes: list[int] = []
    whole = encoding.WindowEncoder.take

    def take(self: encoding.WindowEncoder, batch: encoding.Batch) -> int:
        sizes.append(batch.frames)
        return whole(self, batch)

    monkeypatch.setattr(encoding.WindowEncoder, "take", take)
    shutil.rmtree(root / "index")
    assert done(index(str(root / "clips/long.mp4"), str(root / "clips/b"))) == {"decoded": 3, "windows": 7}
    assert sum(sizes) == 40 + 12
    assert max(sizes) <= 31
    assert len(sizes) > 2


def test_a_missing_file_of_a_list_is_told_and_looked_for_again(index: Index, root: Path) -> None:
    words = root / "list.txt"
    words.write_text(f"{root}/clips/a/short.mp4\n{root}/later.mp4\n")
    result = index(f"@{words}")
    assert result.counts == {"ok": 1, "missing": 1}
    assert [each.status for each in result.left_out] == ["missing"]
    shutil.copy(root / "clips/a/brief.mp4", root / "later.mp4")
    assert done(index(f"@{words}")) == {"unchanged": 1, "copied": 1}
    (root / "later.mp4").unlink()
    result = index(f"@{words}")
    assert done(result) == {"unchanged": 1, "removed": 1}
    assert result.counts == {"ok": 1, "missing": 1}


def test_mistakes_are_told_before_anything_is_done(index: Index, root: Path, tmp_path: Path) -> None:
    with pytest.raises(DataError, match="no model is named"):
        stage.index_videos([str(root / "clips")], tmp_path / "new")
    with pytest.raises(CheckpointError, match="no such checkpoint"):
        stage.index_videos([str(root / "clips")], tmp_path / "new", str(tmp_path / "none"))
    assert not (tmp_path / "new").exists()
    (tmp_path / "file").touch()
    with pytest.raises((CacheError, OSError)):
        stage.index_videos([str(root / "clips")], tmp_path / "file/below", str(root / "student"), device="cpu")


def test_a_model_of_no_numbers_is_told(index: Index, root: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def broken(self: Student, frames: torch.Tensor, mask: torch.Tensor) -> dict[str, torch.Tensor]:
        nothing = torch.full((len(mask), 64), float("nan"))
        return {"vector": nothing, "frames": nothing[:, None]}

    monkeypatch.setattr(Student, "encode_with_frames", broken)
    draw(root / "clips/new.mp4", 3, 50)
    with pytest.raises(CheckpointError, match="not finite"):
        index()
    with Library.open(root / "index") as library:
        assert len(library) == 9


def test_a_full_disk_ends_it_and_keeps_what_is_there(index: Index, root: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def full(*_: Any) -> Any:
        raise CacheError("no space left on the disk")

    draw(root / "clips/new.mp4", 3, 50)
    monkeypatch.setattr(stage.LibraryWriter, "keep", full)
    with pytest.raises(CacheError, match="no space left"):
        index()
    monkeypatch.undo()
    assert done(index()) == {"decoded": 1, "windows": 1, "unchanged": 5}


def files_in(root: Path) -> set[Path]:
    """All but those that readers share with writers while a database is open."""
    return {path for path in root.rglob("*") if not path.name.startswith("index.sqlite-")}


def test_the_estimate_writes_nothing(root: Path) -> None:
    clips, before = root / "clips", files_in(root)
    found = estimate_videos([str(clips)], root / "new", str(root / "student"), device="cpu", workers=1)
    assert (found.files, found.remaining, found.compared, found.probed, found.workers) == (5, 5, 0, 5, 1)
    assert found.bytes == sum(path.stat().st_size for path in clips.rglob("*.mp4"))
    assert found.seconds > 0
    assert found.disk > 9 * 2 * 64
    os.utime(clips / "long.mp4", (5, 5))
    (clips / "a/short.mp4").unlink()
    again = estimate_videos([str(clips)], root / "index", device="cpu")
    assert (again.files, again.remaining, again.compared, again.gone, again.seconds) == (4, 0, 1, 1, 0)
    assert files_in(root) == before - {clips / "a/short.mp4"}


def test_a_library_is_told_to_be_in_use(index: Index, root: Path) -> None:
    with Library.open(root / "index") as library:
        model = library.model
    with LibraryWriter.claim(root / "index", model), pytest.raises(CacheError, match=f"process {os.getpid()} on"):
        index()
