"""A library whose files are decoded and encoded by whoever takes them: the rows of a run of one process."""

import shutil
import sqlite3
from collections.abc import Callable, Iterator
from contextlib import closing
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from teachclip.cache.frames.record import VideoRecord, VideoStatus
from teachclip.cache.library.rows import NewWindow, Video
from teachclip.configs.schema import PrepareConfig
from teachclip.errors import ConfigError
from teachclip.stages.data.video.workers import Arrived, Decoded, Part
from teachclip.stages.runtime.cluster import OnCluster
from teachclip.stages.search.library import cluster
from teachclip.stages.search.library.cluster import grouped, index_on_cluster, indexing_worker
from teachclip.stages.search.library.encoding import Batch, WindowEncoder
from teachclip.stages.search.library.files import File
from teachclip.stages.search.library.models import VideoModel
from teachclip.stages.search.library.stage import VideosIndexed
from teachclip.stages.search.library.windows import Cut

from .conftest import rows

HOW = OnCluster("nowhere")


@pytest.fixture(autouse=True)
def _here(without_ray: Callable[[Any], None]) -> None:
    without_ray(cluster)


def numbers(folder: Path) -> set[int]:
    with closing(sqlite3.connect(folder / "index.sqlite")) as connection:
        return {number for (number,) in connection.execute("SELECT id FROM videos")}


def shared_out(root: Path, folder: str = "shared", **options: Any) -> VideosIndexed:
    given = {"model": str(root / "student"), "how": HOW, "device": "cpu", **options}
    return index_on_cluster([str(root / "clips")], root / folder, **given)


def test_the_library_is_that_of_one_process(root: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """One file a group; given again, in a folder that changed, nothing is done but what has to be."""
    monkeypatch.setattr(cluster, "GROUP_FILES", 1)
    expected = rows(root / "index")
    assert len(expected) == 9 + 1
    result = shared_out(root, tags=["new"])
    assert (result.counts, result.decoded, result.windows, result.tags_added) == ({"ok": 4, "corrupt": 1}, 5, 9, 5)
    assert [each.reason for each in result.left_out] == ["an HTML page, not a video"]
    assert rows(root / "shared") == expected
    assert numbers(root / "shared") == numbers(root / "index")
    (root / "clips/a/short.mp4").rename(root / "clips/moved.mp4")
    (root / "clips/a/brief.mp4").unlink()
    shutil.copy(root / "clips/b/whole.mp4", root / "clips/copy.mp4")
    again = shared_out(root, model=None)
    assert (again.decoded, again.moved, again.copied, again.removed, again.unchanged) == (0, 1, 1, 1, 3)


def test_what_was_put_down_is_not_done_again(root: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """The command ends in the middle, and is given again."""
    here, done = cluster.on_cluster, list[Any]()

    def ends(*given: Any) -> Iterator[Any]:
        for number, made in enumerate(here(*given)):
            if number == 2:
                raise KeyboardInterrupt
            done.extend(made)
            yield made

    monkeypatch.setattr(cluster, "GROUP_FILES", 1)
    with monkeypatch.context() as patch:
        patch.setattr(cluster, "on_cluster", ends)
        with pytest.raises(KeyboardInterrupt):
            shared_out(root)
    assert len(done) == 2
    result = shared_out(root)
    assert (result.unchanged, result.decoded) == (2, 3)
    assert rows(root / "shared") == rows(root / "index")


def test_a_vector_does_not_depend_on_what_is_encoded_beside_it(root: Path) -> None:
    """Of a video with one frame, alone and among others: groups of files are not the lots of a plain run."""
    model = cluster.load_model(str(root / "student"), torch.device("cpu"))
    random = np.random.default_rng(0)
    frames = [random.integers(0, 256, (count, 3, 32, 32), np.uint8) for count in (1, 12, 40, 1, 2, 1, 2)]

    def vectors(*lots: list[int]) -> dict[str, bytes]:
        made: dict[str, bytes] = {}

        def keep(video: Video, windows: list[NewWindow]) -> None:
            made[video.path] = windows[0].vector.tobytes()

        encoder = WindowEncoder(model.network, Cut.of(model.described), keep)
        for lot in lots:
            batch = Batch()
            for k in lot:
                batch.add(Arrived(k, Part(frames[k], True)))
                times = np.arange(float(len(frames[k])))
                record = VideoRecord(VideoStatus(str(k), "ok", "", len(times), float(len(times))), times=times)
                batch.add(Decoded(k, record, 0.0))
            encoder.take(batch)
        return made

    alone = vectors(*([k] for k in range(len(frames))))
    assert alone == vectors([2, *range(2), *range(3, len(frames))]) == vectors([0, 1], [2, 3], [4, 5, 6])


def test_another_model_of_the_same_name_makes_no_vectors(root: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    real = cluster.load_model

    def load(name: str, *given: Any) -> VideoModel:
        return real(name.replace("student", "other"), *given)

    monkeypatch.setattr(cluster, "load_model", load)
    with pytest.raises(ConfigError, match="has another model of this name") as raised:
        shared_out(root)
    assert raised.value.where == str(root / "student")
    assert rows(root / "shared") == []


def test_a_file_that_a_worker_does_not_see_is_not_missing(root: Path) -> None:
    model = cluster.load_model(str(root / "student"), torch.device("cpu"))
    settings = PrepareConfig(max_frames=12, image_size=32, workers=1)
    work = indexing_worker(str(root / "student"), model.digest, "cpu", settings)
    with pytest.raises(ConfigError, match="does not see 1 file that the command sees") as raised:
        work([str(root / "clips/long.mp4"), str(root / "clips/elsewhere.mp4")])
    assert raised.value.details == (str(root / "clips/elsewhere.mp4"),)


def test_groups_are_many_and_none_is_too_large() -> None:
    sizes = lambda files, groups: [len(group) for group in grouped(files, groups)]  # noqa: E731
    small = [File(f"{k}.mp4", 10**6) for k in range(100)]
    assert sizes(small, 16) == [7] * 14 + [2]
    assert sizes(small, 1) == [32, 32, 32, 4]
    assert sizes(small[:3], 16) == [1, 1, 1]
    assert sizes([], 16) == []
    films = [File("a", 5 * 10**9), File("b", 10**9), File("c", 10**9), File("d", 10**9)]
    assert list(grouped(films, 1)) == [["a"], ["b", "c"], ["d"]]
