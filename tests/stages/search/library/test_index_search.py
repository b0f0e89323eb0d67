"""What is asked of an index, by sentences, videos and windows: the order of the cosines, filters, what is gone."""

import shutil
import sqlite3
from concurrent.futures import ThreadPoolExecutor
from contextlib import closing
from pathlib import Path

import numpy as np
import pytest
import torch
from teachclip import Filters, IndexSearcher, Searcher
from teachclip.cache.library import library as of_library
from teachclip.cache.library import lists
from teachclip.cache.library.library import Library
from teachclip.configs.schema import NetworkConfig
from teachclip.errors import CacheError, CacheMismatchError, CheckpointError, DataError
from teachclip.remedies import IndexVideos, Remedy
from teachclip.stages.demo.write_h264 import write_h264
from teachclip.stages.models.build import build_network
from teachclip.stages.models.checkpoints.files import load_network, save_network
from teachclip.stages.models.clip.tokens import tokenize
from teachclip.stages.models.student import Student
from teachclip.stages.runtime.reporting import Remembered
from teachclip.stages.search.index_search import VideoFound, search_index
from teachclip.stages.search.library.stage import index_videos
from teachclip.stages.search.serving.open_index import ALL, OpenIndex
from teachclip.stages.search.serving.pictures import Clip

from ..conftest import NETWORK, SIZE
from .conftest import Index

QUERY = "a dog runs on the beach"


def found(root: Path, filters: Filters = ALL, windows: bool = False) -> tuple[VideoFound, ...]:
    result = search_index(root / "index", [QUERY], 9, filters, windows=windows, device="cpu")
    return result.queries[0].answers


def cosines(root: Path) -> dict[str, list[tuple[float, float]]]:
    """By path: cosine and start of each window, best first, computed from the matrix."""
    network = load_network(root / "student").eval()
    with torch.no_grad():
        text = network.encode_texts(tokenize([QUERY], network.config.words)[0])["vector"][0].numpy()
    of: dict[str, list[tuple[float, float]]] = {}
    with Library.open(root / "index") as library:
        scores = library.matrix().astype(np.float32) @ text
        for score, window in zip(scores.tolist(), library.windows(library.rows.tolist()), strict=True):
            of.setdefault(window.path, []).append((score, window.start))
    return {path: sorted(each, reverse=True) for path, each in of.items()}


def own_model(root: Path) -> None:
    """The index's model is the copy's own."""
    connection = sqlite3.connect(root / "index/index.sqlite")
    connection.execute("UPDATE models SET name = ?", (str(root / "student"),))
    connection.commit()
    connection.close()


def test_videos_come_in_the_order_of_their_best_windows(root: Path) -> None:
    wanted = cosines(root)
    answers = found(root)
    assert [answer.path for answer in answers] == sorted(wanted, key=lambda path: wanted[path], reverse=True)
    assert [answer.rank for answer in answers] == [1, 2, 3, 4]
    with Library.open(root / "index") as library:
        for answer in answers:
            score, start = wanted[answer.path][0]
            assert answer.cosine == pytest.approx(score, abs=2e-3)
            assert answer.start == start
            (window,) = [each for each in library.windows_of(answer.path) if each.start == start]
            assert answer.stop == window.stop
            assert answer.second in window.times
            assert answer.windows == ()


def test_every_window_is_told_where_that_is_asked_for(root: Path) -> None:
    wanted = cosines(root)
    for answer in found(root, windows=True):
        assert [window.start for window in answer.windows] == [start for _, start in wanted[answer.path]]
        assert answer.windows[0].second == answer.second


SCENES = {"red": (200, 20, 20), "green": (20, 200, 20), "blue": (20, 20, 200), "white": (230, 230, 230)}
SCENE = 9  # seconds of each


def plain(colour: str, seconds: int) -> np.ndarray:
    return np.broadcast_to(np.uint8(SCENES[colour]), (seconds, SIZE, SIZE, 3))


@pytest.mark.parametrize("layers", [0, 1])
def test_the_second_is_of_the_scene_that_was_asked_for(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, layers: int
) -> None:
    """Of a network that understands the names of colours; with frames that know of each other, too."""
    (tmp_path / "clips").mkdir()
    scenes = np.concatenate([plain(colour, SCENE) for colour in SCENES])
    write_h264(tmp_path / "clips/scenes.mp4", scenes, fps=1)
    write_h264(tmp_path / "clips/long.mp4", np.concatenate([scenes, scenes[::-1]]), fps=1)
    torch.manual_seed(0)
    network = NetworkConfig.model_validate({**NETWORK, "frames": 12, "temporal_layers": layers})
    save_network(build_network(network), tmp_path / "student/best.safetensors")
    index_videos([str(tmp_path / "clips")], tmp_path / "index", str(tmp_path / "student"), device="cpu", workers=1)

    def understood(self: Student, ids: torch.Tensor) -> dict[str, torch.Tensor]:
        frames = torch.from_numpy(plain(asked, 12).copy()).permute(0, 3, 1, 2)[None]
        features = self.encode_with_frames(frames, torch.ones(1, 12, dtype=torch.bool))
        return {"vector": features["frames"].mean(1)}

    monkeypatch.setattr(Student, "encode_texts", understood)
    for place, asked in enumerate(SCENES):
        result = search_index(tmp_path / "index", [asked], windows=True, device="cpu")
        short, long = sorted(result.queries[0].answers, key=lambda answer: answer.path, reverse=True)
        assert place * SCENE <= short.second < (place + 1) * SCENE
        assert list(SCENES)[int(min(long.second, 71 - long.second)) // SCENE] == asked
        for window in long.windows:
            assert window.start <= window.second <= window.stop
        assert long.windows[0].second == long.second
    with closing(OpenIndex.open(tmp_path / "index", device="cpu")) as index:
        green = Clip(np.ascontiguousarray(plain("green", 3).transpose(0, 3, 1, 2)), np.arange(3.0))
        (answer,) = index.clip(green, 1, Filters(under=str(tmp_path / "clips/scenes.mp4"))).found
        assert SCENE <= answer.second < 2 * SCENE


def test_windows_without_frames_tell_the_second_that_counts_most(root: Path) -> None:
    with sqlite3.connect(root / "index/index.sqlite") as connection:
        connection.execute("DROP TABLE frames")
        connection.execute("PRAGMA user_version = 1")
    connection.close()
    with Library.open(root / "index") as library:
        for answer in found(root):
            (window,) = [each for each in library.windows_of(answer.path) if each.start == answer.start]
            assert window.weights is not None
            assert answer.second == window.times[int(np.argmax(window.weights))]


def test_filters(root: Path) -> None:
    with Library.open(root / "index") as library:
        library.add_tag(root / "clips/long.mp4", "sea")
    assert {answer.path for answer in found(root, Filters(under=str(root / "clips/a")))} == {
        str(root / "clips/a/short.mp4"),
        str(root / "clips/a/brief.mp4"),
    }
    assert [answer.path for answer in found(root, Filters(tag="sea"))] == [str(root / "clips/long.mp4")]
    assert found(root, Filters(tag="nothing")) == ()


def test_a_deleted_file_is_no_answer(root: Path) -> None:
    before = [answer.path for answer in found(root)]
    Path(before[0]).unlink()
    assert [answer.path for answer in found(root)] == before[1:]


def test_several_sentences_and_long_ones(root: Path, heard: Remembered) -> None:
    long = "one two three four five six seven eight nine ten eleven"
    result = search_index(root / "index", [QUERY, long], 1, device="cpu", reporter=heard)
    assert [(each.query, len(each.answers)) for each in result.queries] == [(QUERY, 1), (long, 1)]
    assert result.windows == 9
    assert len(heard.warnings) == 1
    assert long in heard.warnings[0]
    with pytest.raises(DataError, match="empty"):
        search_index(root / "index", [QUERY, " "], device="cpu")


def test_a_model_that_is_gone_is_told_and_found_elsewhere(root: Path) -> None:
    before = found(root)
    own_model(root)
    (root / "student").rename(root / "moved")
    with pytest.raises(CheckpointError, match="the model that made this index is gone") as caught:
        found(root)
    assert caught.value.where == str(root / "student")
    assert isinstance(caught.value.hint, Remedy)
    assert caught.value.hint.action == IndexVideos(str(root / "index"))
    moved = search_index(root / "index", [QUERY], 9, model=str(root / "moved"), device="cpu")
    assert moved.queries[0].answers == before


def test_another_model_of_the_same_name_is_refused(root: Path) -> None:
    own_model(root)
    shutil.copy(root / "other/best.safetensors", root / "student/best.safetensors")
    with pytest.raises(CacheMismatchError, match="another model than the one that made the index"):
        found(root)
    with pytest.raises(CacheError, match="no vectors of this model"):
        search_index(root / "index", [QUERY], model=str(root / "other"), device="cpu")


def test_a_folder_without_an_index_is_told(root: Path) -> None:
    with pytest.raises(CacheError):
        search_index(root / "clips", [QUERY], device="cpu")


def test_of_a_large_index_it_is_said_how_much_a_search_finds(
    root: Path, index: Index, heard: Remembered, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Once its windows lie in lists; before, that every one is looked through. With a filter they are."""
    for module in (lists, of_library):
        monkeypatch.setattr(module, "EXACT_UP_TO", 5)
    before = search_index(root / "index", [QUERY], 9, device="cpu", reporter=heard)
    assert before.recall is None
    assert len(heard.warnings) == 1
    made = index()
    assert made.recall is not None
    assert made.recall >= lists.RECALL
    result = search_index(root / "index", [QUERY], 9, device="cpu", reporter=heard)
    assert result.recall == made.recall
    assert result.queries == before.queries
    below = search_index(root / "index", [QUERY], 9, Filters(under=str(root)), device="cpu", reporter=heard)
    assert below.recall is None
    assert len(heard.warnings) == 1


def test_a_video_finds_itself_and_what_is_like_it(root: Path) -> None:
    clip = root / "elsewhere.mp4"
    shutil.copy(root / "clips/a/short.mp4", clip)
    result = search_index(root / "index", [QUERY, clip], 9, device="cpu")
    (sentence, video) = result.queries
    assert (sentence.by, video.by, video.query) == ("sentence", "clip", str(clip))
    assert sentence.answers == found(root)
    assert video.answers[0].path == str(root / "clips/a/short.mp4")
    assert video.answers[0].cosine == pytest.approx(1.0, abs=2e-3)
    assert len(video.answers) == 4


def test_a_video_that_cannot_be_used_is_told_with_its_reason(root: Path) -> None:
    broken = root / "clips/b/broken.mp4"
    with pytest.raises(DataError, match="this clip cannot be used: corrupt, ") as caught:
        search_index(root / "index", [broken], device="cpu")
    assert caught.value.where == str(broken)


def test_like_a_window_by_its_id_or_its_videos_path(root: Path) -> None:
    long = str(root / "clips/long.mp4")
    with IndexSearcher.open(root / "index", device="cpu") as searcher, Library.open(root / "index") as library:
        windows = library.windows_of(long)
        ids = {
            window.id
            for answer in searcher.search([QUERY], 9, windows=True).queries[0].answers
            for window in answer.windows
        }
        assert ids == set(library.rows.tolist())
        for like, row in ((str(windows[2].row), windows[2].row), (long, windows[0].row)):
            (answered,) = searcher.search([], 9, like=like).queries
            assert (answered.query, answered.by) == (like, "window")
            vector = library.vector(row)
            assert vector is not None
            scores = library.matrix().astype(np.float32) @ vector.astype(np.float32)
            best = {window.path: 0.0 for window in library.windows(library.rows.tolist())}
            for score, window in zip(scores.tolist(), library.windows(library.rows.tolist()), strict=True):
                best[window.path] = max(best[window.path], score)
            del best[long]
            assert [each.path for each in answered.answers] == sorted(best, key=lambda path: best[path], reverse=True)
        both = searcher.search([QUERY], 9, like=long).queries
        assert [each.by for each in both] == ["sentence", "window"]


@pytest.mark.parametrize(
    ("like", "what"),
    [
        ("999999", "there is no window 999999"),
        ("9" * 40, "no vector of this video"),
        ("clips/none.mp4", "no vector of this video"),
        ("clips/b/broken.mp4", "no vector of this video: corrupt, "),
    ],
)
def test_like_what_is_not_there_is_told(root: Path, monkeypatch: pytest.MonkeyPatch, like: str, what: str) -> None:
    monkeypatch.chdir(root)
    with pytest.raises(DataError, match=what):
        search_index(root / "index", [], like=like, device="cpu")


def test_like_needs_no_model(root: Path) -> None:
    own_model(root)
    (root / "student").rename(root / "moved")
    long = str(root / "clips/long.mp4")
    with IndexSearcher.open(root / "index", device="cpu") as searcher:
        assert len(searcher.search([], like=long).queries[0].answers) == 3
        with pytest.raises(CheckpointError, match="is gone"):
            searcher.refuse_lacking()


def test_searcher_opens_an_index_by_its_folder(root: Path) -> None:
    """As users do, from several threads, while the index is followed."""
    wanted = search_index(root / "index", [QUERY], 3, Filters(under=str(root / "clips/a")), device="cpu").queries
    with Searcher.open(str(root / "index"), device="cpu") as searcher:
        assert isinstance(searcher, IndexSearcher)
        assert searcher.search([QUERY], top=9).queries[0].answers == found(root)

        def ask(_: int) -> object:
            return searcher.search([QUERY], top=3, filters=Filters(under=str(root / "clips/a"))).queries

        with ThreadPoolExecutor(4) as threads:
            assert list(threads.map(ask, range(20))) == [wanted] * 20
    with pytest.raises(ValueError, match="closed"):
        searcher.search([QUERY])
    with pytest.raises(DataError, match="a list of sentences"), Searcher.open(root / "index", device="cpu") as again:
        again.search("a dog")
    with pytest.raises(CacheError, match="no index here"):
        Searcher.open(root / "clips")


@pytest.mark.parametrize("top", [0, -1, -5])
def test_no_answers_are_not_asked_for(root: Path, top: int) -> None:
    with pytest.raises(DataError, match=f"^{top} answers are asked for"):
        search_index(root / "index", [QUERY], top, device="cpu")
