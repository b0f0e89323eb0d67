"""A teacher re-orders what a student found in an index: by its own scores of windows that are decoded once."""

import os
import shutil
import signal
import sqlite3
import subprocess
import sys
from collections.abc import Iterator, Sequence
from contextlib import closing
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from teachclip.cache.library import teacher_features
from teachclip.cache.library.library import Library
from teachclip.cache.library.rows import Window
from teachclip.configs.schema import NetworkConfig, PrepareConfig
from teachclip.errors import CheckpointError, DataError
from teachclip.stages.data.video.workers import Arrived, decode_in_parts
from teachclip.stages.models.build import build_network
from teachclip.stages.models.checkpoints.files import load_network, save_network
from teachclip.stages.models.clip.tokens import tokenize
from teachclip.stages.runtime.reporting import Remembered
from teachclip.stages.search import rerank_windows
from teachclip.stages.search.index_search import IndexSearched, VideoFound, search_index
from teachclip.stages.search.library.reading import BEAT, read_frames_at, read_windows
from teachclip.stages.search.library.windows import Cut
from teachclip.stages.search.rerank_windows import WindowReranker
from teachclip.stages.search.serving.open_index import OpenIndex

from ..conftest import NETWORK
from .conftest import FRAMES, Index, draw

QUERY = "clip number 2"
RERANKING = Path(__file__).parent / "spawned/reranking_process.py"


def saved(root: Path, kind: str, name: str = "teacher", **changed: Any) -> Path:
    """A teacher's checkpoint with weights that mean nothing."""
    torch.manual_seed(3)
    settings = {"ts2net": {"shift_layers": [], "selected": 1}} if kind == "ts2net" else {}
    network = build_network(
        NetworkConfig.model_validate({**NETWORK, "frames": FRAMES, "kind": kind, **settings, **changed})
    )
    with torch.no_grad():
        for parameter in network.parameters():  # so that no scores are equal
            if parameter.ndim:
                parameter.add_(0.05 * torch.randn_like(parameter))
    save_network(network, root / f"{name}.safetensors")
    return root / f"{name}.safetensors"


def asked(root: Path, teacher: Path | None, query: str = QUERY, top: int = 9, **options: Any) -> IndexSearched:
    rerank = None if teacher is None else str(teacher)
    return search_index(root / "index", [query], top, rerank=rerank, device="cpu", **options)


def answers(root: Path, teacher: Path | None, **options: Any) -> tuple[VideoFound, ...]:
    return asked(root, teacher, **options).queries[0].answers


def as_indexed(paths: Sequence[str], cut: Cut) -> Iterator[tuple[np.ndarray, np.ndarray]]:
    """All frames of videos and their times, read as for the index."""
    config = PrepareConfig(image_size=32, max_frames=FRAMES, workers=1)
    parts: dict[int, list[np.ndarray]] = {}
    times: dict[int, np.ndarray] = {}
    jobs = [(path, Path(path)) for path in paths]
    with closing(decode_in_parts(jobs, config, partial(read_windows, cut))) as events:
        for event in events:
            if isinstance(event, Arrived):
                parts.setdefault(event.index, []).append(event.part.frames)
            else:
                times[event.index] = event.record.times
    return ((np.concatenate(parts[k]), times[k]) for k in range(len(paths)))


def own_scores(root: Path, teacher: Path, windows: Sequence[Window], cut: Cut) -> list[float]:
    """By the network itself."""
    network, scores = load_network(teacher).eval(), []
    text = network.encode_texts(tokenize([QUERY], 10)[0])
    for window, (frames, times) in zip(windows, as_indexed([each.path for each in windows], cut), strict=True):
        chosen = [int(np.abs(times - second).argmin()) for second in window.times]
        padded = np.zeros((1, FRAMES, *frames.shape[1:]), np.uint8)
        padded[0, : len(chosen)] = frames[chosen]
        mask = torch.arange(FRAMES)[None] < len(chosen)
        with torch.no_grad():
            scores.append(float(network.score(text, network.encode_videos(torch.from_numpy(padded), mask))[0, 0]))
    return scores


@pytest.fixture
def decoded(monkeypatch: pytest.MonkeyPatch) -> list[str]:
    """Files that were decoded for a teacher."""
    seen: list[str] = []

    def counting(jobs: Any, *given: Any) -> Any:
        seen.extend(Path(path).name for _, path in jobs)
        return decode_in_parts(jobs, *given)

    monkeypatch.setattr(rerank_windows, "decode_in_parts", counting)
    return seen


def test_every_window_is_read_as_it_was_indexed(root: Path) -> None:
    """Whoever waits for a late one hears meanwhile that somebody is at work."""
    with Library.open(root / "index") as library:
        windows = [
            window for name in ("long.mp4", "b/whole.mp4") for window in library.windows_of(root / "clips" / name)
        ]
        cut = Cut.of(library.model)
    assert len(windows) > 5
    config = PrepareConfig(image_size=32, max_frames=FRAMES, workers=1)
    jobs = [(str(window.row), Path(window.path)) for window in windows]
    read = partial(read_frames_at, {str(window.row): window.times for window in windows})
    beats = dict.fromkeys(range(len(windows)), 0)
    with closing(decode_in_parts(jobs, config, read)) as events:
        for event in events:
            if isinstance(event, Arrived):
                beats[event.index] += 1
                continue
            window = windows[event.index]
            ((frames, times),) = as_indexed([window.path], cut)
            chosen = [int(np.abs(times - second).argmin()) for second in window.times]
            np.testing.assert_array_equal(event.record.images, frames[chosen])
            np.testing.assert_allclose(event.record.times, window.times, atol=1e-3)
            assert beats[event.index] >= int(window.times[-1] // BEAT) - 1
    assert max(beats.values()) >= 2


@pytest.mark.parametrize("kind", ["xclip", "xpool", "ts2net", "drl"])
def test_the_order_is_the_teachers_own(root: Path, kind: str) -> None:
    teacher = saved(root, kind)
    student = {one.path: one for one in answers(root, None)}
    result = asked(root, teacher)
    found = result.queries[0].answers
    with Library.open(root / "index") as library:
        windows = [
            next(window for window in library.windows_of(path) if window.start == one.start)
            for path, one in student.items()
        ]
        scores = own_scores(root, teacher, windows, Cut.of(library.model))
    wanted = dict(zip(student, scores, strict=True))
    assert [one.path for one in found] == sorted(wanted, key=lambda path: -wanted[path])
    np.testing.assert_allclose([one.teacher for one in found], [wanted[one.path] for one in found], atol=1e-5)
    assert [one.rank for one in found] == [1, 2, 3, 4]
    for one in found:
        before = student[one.path]
        assert (one.cosine, one.start, one.second) == (before.cosine, before.start, before.second)
    assert result.rerank_seconds is not None
    assert {one.teacher for one in student.values()} == {None}


def test_only_candidates_are_re_ordered_and_top_are_shown(root: Path, decoded: list[str]) -> None:
    teacher = saved(root, "xclip")
    every = answers(root, teacher)
    with closing(OpenIndex.open(root / "index", device="cpu")) as index:
        near = [one.window for one in index.sentence(QUERY, 2).found]
        with closing(WindowReranker.open(index.library, str(teacher), "cpu")) as reranker:
            scores = reranker.scores(QUERY, near)
    assert scores == pytest.approx([one.teacher for window in near for one in every if one.path == window.path])
    assert answers(root, teacher, top=1) == every[:1]


def test_windows_are_decoded_once_and_kept(root: Path, index: Index, decoded: list[str]) -> None:
    teacher = saved(root, "xclip")
    first = answers(root, teacher)
    assert sorted(decoded) == ["brief.mp4", "long.mp4", "short.mp4", "whole.mp4"]
    decoded.clear()
    assert answers(root, teacher) == first
    assert decoded == []
    other = saved(root, "xclip", "other-teacher", temporal_layers=0)
    assert [one.teacher for one in answers(root, other)] != [one.teacher for one in first]
    assert len(decoded) == 4  # another teacher's features are its own
    decoded.clear()
    shutil.copy(root / "clips/a/brief.mp4", root / "clips/a/short.mp4")
    (root / "clips/b/whole.mp4").unlink()
    index()
    assert {Path(one.path).name for one in answers(root, teacher)} == {"brief.mp4", "long.mp4", "short.mp4"}
    assert decoded == ["short.mp4"]
    with Library.open(root / "index") as library:
        there = set(library.rows.tolist())
    kept = {}
    for path in (root / "index").glob("teacher-*.sqlite"):
        with sqlite3.connect(path) as connection:
            kept[path] = {row for (row,) in connection.execute("SELECT window FROM features")}
        connection.close()
    assert len(kept) == 2
    assert min(len(rows) for rows in kept.values()) == 3  # opened since, without what is gone
    assert any(rows <= there for rows in kept.values())


def test_an_index_that_is_made_anew_does_not_meet_old_features(root: Path, index: Index, decoded: list[str]) -> None:
    """Its windows have the numbers of others, and their times."""
    teacher = saved(root, "xclip")
    answers(root, teacher)
    for path in (root / "index").glob("index.sqlite*"):
        path.unlink()
    draw(root / "clips/a/brief.mp4", 3, seed=77)
    index()
    decoded.clear()
    again = answers(root, teacher)
    assert "brief.mp4" in decoded
    shutil.rmtree(root / "index")
    index()
    assert answers(root, teacher) == again


def test_a_kill_leaves_what_was_finished(root: Path, decoded: list[str]) -> None:
    teacher = saved(root, "xclip")
    ended = subprocess.run([sys.executable, str(RERANKING), str(root), QUERY], env=os.environ, timeout=200, check=False)
    assert ended.returncode == -signal.SIGKILL
    found = answers(root, teacher)
    assert len(decoded) == 2
    for path in (root / "index").glob("teacher-*.sqlite"):
        path.unlink()
    assert answers(root, teacher) == found


def test_a_window_that_is_not_as_it_was_comes_behind(root: Path, heard: Remembered) -> None:
    teacher = saved(root, "xclip")
    student = [one.path for one in answers(root, None)]
    Path(student[0]).write_bytes(b"<html>not found</html>")
    with Path(student[2]).open("ab") as file:
        file.write(bytes(8))
    found = answers(root, teacher, reporter=heard)
    assert [one.path for one in found[2:]] == [student[0], student[2]]
    assert [one.teacher is None for one in found] == [False, False, True, True]
    (told,) = heard.warnings
    assert told.startswith("2 candidates come behind the others, for want of the frames that were indexed: ")
    assert f"{student[0]} (corrupt: " in told
    assert f"{student[2]} (changed since it was indexed)" in told


def test_an_index_that_may_only_be_read_keeps_features_in_memory(
    root: Path, decoded: list[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    """First without features, then with those of an earlier day."""
    teacher = saved(root, "xclip")
    connected = teacher_features.connected
    monkeypatch.setattr(teacher_features, "connected", lambda path, mode: connected(path, "ro"))
    result = search_index(root / "index", [QUERY, QUERY], 9, rerank=str(teacher), device="cpu")
    assert result.queries[0] == result.queries[1]
    assert len(decoded) == 4
    assert list((root / "index").glob("teacher-*")) == []
    monkeypatch.undo()
    answers(root, teacher)
    monkeypatch.setattr(teacher_features, "connected", lambda path, mode: connected(path, "ro"))
    monkeypatch.setattr(rerank_windows, "decode_in_parts", None)
    assert answers(root, teacher) == result.queries[0].answers


@pytest.mark.parametrize(
    "changed",
    [{"frames": 5}, {"frames": 20, "words": 10}, {"trunk": {**NETWORK["trunk"], "sizes": {  # type: ignore[dict-item]
        **NETWORK["trunk"]["sizes"], "image_size": 48}}}],  # type: ignore[index]
)  # fmt: skip
def test_a_teacher_of_other_frames_has_its_own(root: Path, changed: dict[str, Any]) -> None:
    scores = [one.teacher for one in answers(root, saved(root, "xclip", **changed))]
    assert None not in scores
    assert len(set(scores)) == 4


def test_what_is_no_teacher_is_said(root: Path) -> None:
    with pytest.raises(CheckpointError, match="kind student: it has one vector") as caught:
        answers(root, root / "student")
    assert "X-CLIP" in str(caught.value.hint)
    with pytest.raises(CheckpointError, match="no teacher lies here"):
        answers(root, root / "nobody")


def test_a_teacher_reads_sentences_alone(root: Path) -> None:
    teacher = str(saved(root, "xclip"))
    for asked_with in ({"queries": [root / "clips/a/brief.mp4"]}, {"queries": [], "like": "1"}):
        with pytest.raises(DataError, match="re-orders what sentences find"):
            search_index(root / "index", rerank=teacher, device="cpu", **asked_with)  # type: ignore[arg-type]
