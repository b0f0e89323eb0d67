"""Search through lists: it finds what it says it finds, follows what is written, and is exact where it must be."""

import shutil
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from teachclip.cache.library import library as of_library
from teachclip.cache.library import lists
from teachclip.cache.library.library import Library
from teachclip.cache.library.lists import RECALL
from teachclip.cache.library.rows import Model, NewWindow, Video
from teachclip.cache.library.writer import LibraryWriter

WIDTH, VIDEOS, EACH, LIMIT = 32, 100, 40, 3000
MODEL = Model("runs/a", "a" * 64, WIDTH, 4)


def windows(seed: int, count: int = EACH) -> list[NewWindow]:
    """Of one video: around a vector of its own, near that of a topic."""
    random = np.random.default_rng(seed)
    centre = np.random.default_rng(1000 + seed % 20).normal(size=WIDTH) + random.normal(size=WIDTH)
    made = centre + 0.7 * random.normal(size=(count, WIDTH))
    made /= np.linalg.norm(made, axis=1, keepdims=True)
    return [NewWindow(15.0 * k, 15.0 * k + 30, np.arange(4.0), None, row) for k, row in enumerate(made)]


def keep(writer: LibraryWriter, root: Path, number: int, count: int = EACH) -> int:
    path = root / f"{number % 4}/{number}.mp4"
    path.parent.mkdir(exist_ok=True)
    path.touch()
    video = Video(0, str(path), 10, number, number.to_bytes(16, "little"), 60.0, "ok", "", 2)
    return writer.keep(video, windows(number, count))


@pytest.fixture(autouse=True)
def small(monkeypatch: pytest.MonkeyPatch) -> None:
    limit(monkeypatch, LIMIT)


def limit(monkeypatch: pytest.MonkeyPatch, windows: int) -> None:
    for module in (lists, of_library):
        monkeypatch.setattr(module, "EXACT_UP_TO", windows)


@pytest.fixture(scope="session")
def root(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Files, and a library `index` of their 4,000 windows."""
    root = tmp_path_factory.mktemp("lists")
    said: list[str] = []
    with pytest.MonkeyPatch.context() as monkeypatch, LibraryWriter.claim(root / "index", MODEL) as writer:
        limit(monkeypatch, LIMIT)
        for number in range(VIDEOS):
            keep(writer, root, number)
        assert writer.finish(said.append) is not None
    assert said == ["putting 4,000 windows in lists, so that searches are fast"]
    return root


@pytest.fixture
def folder(root: Path, tmp_path: Path) -> Path:
    """A copy of the library."""
    shutil.copytree(root / "index", tmp_path / "index")
    return tmp_path / "index"


def asked(library: Library, count: int = 100) -> np.ndarray:
    """As far from the windows as sentences are, and others than those that recall was measured with."""
    random = np.random.default_rng(77)
    near = library.matrix()[random.choice(len(library), count)].astype(np.float32)
    away = random.normal(size=near.shape).astype(np.float32)
    away -= (away * near).sum(1, keepdims=True) * near
    vectors = 0.25 * near + 0.97 * away / np.linalg.norm(away, axis=1, keepdims=True)
    result: np.ndarray = vectors / np.linalg.norm(vectors, axis=1, keepdims=True)
    return result


def rows(library: Library, vector: np.ndarray, **options: Any) -> list[int]:
    return [hit.window.row for hit in library.search(vector, 10, **options)]


def recall(library: Library, vectors: np.ndarray) -> float:
    """Of the ten best by numpy."""
    best = np.argsort(-(vectors @ library.matrix().astype(np.float32).T), 1)[:, :10]
    found = [rows(library, vector) for vector in vectors]
    hits = [len({*one} & {*library.rows[places].tolist()}) for one, places in zip(found, best, strict=True)]
    return sum(hits) / (10 * len(vectors))


def spoil(folder: Path, change: Callable[[dict[str, np.ndarray]], object]) -> None:
    (path,) = folder.glob("lists-*.npz")
    with np.load(path) as file:
        content = dict(file)
    change(content)
    np.savez(path, **content)  # type: ignore[arg-type]


def test_it_finds_what_it_says(folder: Path) -> None:
    with Library.open(folder) as library:
        assert library.recall is not None
        assert library.recall >= RECALL
        assert not library.slow
        vectors = asked(library, 300)
        assert recall(library, vectors) == pytest.approx(library.recall, abs=0.03)
        assert recall(library, library.matrix()[::40].astype(np.float32)) >= RECALL
        hit = library.search(vectors[0], 1)[0]
        wanted = library.vector(hit.window.row)
        assert wanted is not None
        assert hit.score == pytest.approx(float(wanted.astype(np.float32) @ vectors[0]), abs=1e-3)


def test_recall_falls_where_fewer_lists_are_gone_through(folder: Path) -> None:
    """The measure tells: with one list most of what is near a sentence is missed."""
    spoil(folder, lambda content: content["facts"].__setitem__(0, 1))
    with Library.open(folder) as library:
        assert recall(library, asked(library)) < 0.6


def test_filters_and_large_questions_are_exact(folder: Path, root: Path) -> None:
    with Library.open(folder) as library:
        vectors, matrix = asked(library, 10), library.matrix().astype(np.float32)
        below = library.select(under=root / "2")
        library.add_tag(root / "1/1.mp4", "sea")
        tagged = library.select(tag="sea")
        for vector in vectors:
            order = library.rows[np.argsort(-(matrix @ vector))]
            assert rows(library, vector, exact=True) == order[:10].tolist()
            assert rows(library, vector, under=root / "2") == order[np.isin(order, below)][:10].tolist()
            assert rows(library, vector, tag="sea") == order[np.isin(order, tagged)][:10].tolist()
        everything = library.search(vectors[0], 5000)
        assert [hit.window.row for hit in everything] == library.rows[np.argsort(-(matrix @ vectors[0]))].tolist()


def test_a_small_library_has_no_lists(folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    limit(monkeypatch, 4000)
    with Library.open(folder) as library:
        assert library.recall is None
        assert not library.slow
    with LibraryWriter.claim(folder, MODEL) as writer:
        assert writer.finish() is None
    assert list(folder.glob("lists-*")) == []


def test_what_comes_later_is_found_and_what_is_gone_is_not(folder: Path, root: Path, tmp_path: Path) -> None:
    """By a reader that follows, by one that opens before `finish`, and by one after; nothing is trained again."""
    said: list[str] = []
    with Library.open(folder) as follows:
        assert recall(follows, asked(follows, 20)) > 0.9
        with LibraryWriter.claim(folder, MODEL) as writer:
            before = follows.windows_of(root / "3/3.mp4")
            writer.remove([before[0].video])
            keep(writer, tmp_path, 500)
            follows.refresh()
            with Library.open(folder) as opens:
                check_new(follows, tmp_path)
                check_new(opens, tmp_path)
            now = writer.finish(said.append)
        with Library.open(folder) as after:
            check_new(after, tmp_path)
            assert after.recall == follows.recall
    assert now is not None
    assert now.joined == EACH
    assert said == []
    assert len(list(folder.glob("lists-*.npz"))) == 1


def check_new(library: Library, root: Path) -> None:
    assert len(library) == VIDEOS * EACH
    assert library.recall is not None
    own = library.windows_of(root / "0/500.mp4")
    for window in own[::5]:
        vector = library.vector(window.row)
        assert vector is not None
        assert rows(library, vector.astype(np.float32))[0] == window.row


def test_where_much_is_new_they_are_made_again(folder: Path, tmp_path: Path) -> None:
    said: list[str] = []
    with Library.open(folder) as follows, LibraryWriter.claim(folder, MODEL) as writer:
        for number in range(500, 512):
            keep(writer, tmp_path, number)
        follows.refresh()
        assert follows.slow
        assert follows.recall is None
        assert recall(follows, asked(follows, 20)) == 1.0
        now = writer.finish(said.append)
    assert now is not None
    assert now.joined == 0
    assert len(said) == 1


@pytest.mark.parametrize(
    "damage",
    [
        lambda folder, path: path.write_bytes(path.read_bytes()[:-300]),
        lambda folder, path: path.write_bytes(b"something else"),
        lambda folder, path: path.write_bytes(b""),
        lambda folder, path: spoil(folder, lambda content: content.pop("facts")),
        lambda folder, path: spoil(folder, lambda content: content["list_of"].__setitem__(7, 10**6)),
        lambda folder, path: spoil(folder, lambda content: content["list_of"].__setitem__(7, -1)),
        lambda folder, path: spoil(folder, lambda content: content["centres"].__setitem__((0, 0), np.nan)),
        lambda folder, path: spoil(folder, lambda content: content.update(centres=content["centres"][:, :5])),
        lambda folder, path: spoil(folder, lambda content: content["facts"].__setitem__(0, np.nan)),
        lambda folder, path: path.rename(path.with_name("lists-1-100-0123456789abcdef.npz")),
        lambda folder, path: path.unlink(),
    ],
    ids=["cut", "other", "empty", "part", "beyond", "below", "nan", "width", "probes", "stranger", "deleted"],
)
def test_what_is_not_whole_is_not_used_and_made_again(folder: Path, damage: Callable[[Path, Path], object]) -> None:
    (path,) = folder.glob("lists-*.npz")
    damage(folder, path)
    with Library.open(folder) as library:
        assert library.slow
        assert library.recall is None
        assert recall(library, asked(library, 10)) == 1.0
    with LibraryWriter.claim(folder, MODEL) as writer:
        assert writer.finish() is not None
    assert [each.name for each in folder.glob("lists-*")] == [path.name]
    with Library.open(folder) as library:
        assert library.recall is not None


def test_a_full_disk_costs_the_lists_alone(folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    next(folder.glob("lists-*.npz")).unlink()

    def full(path: Path) -> Any:
        raise OSError(28, "No space left on device", str(path))

    monkeypatch.setattr(lists, "publishing", full)
    with LibraryWriter.claim(folder, MODEL) as writer:
        assert writer.finish() is None
    with Library.open(folder) as library:
        assert library.slow
        assert len(library.search(asked(library, 1)[0], 10)) == 10
