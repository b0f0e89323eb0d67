"""`teachclip search`: what its first argument is, told by what lies there; what is said of an index's videos."""

import json
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
from teachclip.configs.schema import Config
from teachclip.stages.search.searcher import QueryAnswers, SearchResult
from teachclip.stages.search.serving.open_index import Filters

from .conftest import Invoke, shown
from .stand_ins import IN_INDEX


@pytest.fixture
def asked(folder: Path, monkeypatch: pytest.MonkeyPatch) -> list[tuple[tuple[Any, ...], dict[str, Any]]]:
    """An index `index`, a demo `demo`, a folder `clips`; what the stages are called with."""
    (folder / "index").mkdir()
    (folder / "index/index.sqlite").touch()
    (folder / "demo").mkdir()
    (folder / "demo/demo.yaml").write_text("work: here")
    (folder / "clips").mkdir()
    calls: list[tuple[tuple[Any, ...], dict[str, Any]]] = []

    def of_index(*given: Any, **options: Any) -> Any:
        calls.append((given, options))
        return IN_INDEX

    def of_config(*given: Any) -> SearchResult:
        calls.append((given, {}))
        return SearchResult((QueryAnswers("a dog", ()),), 0, 0.1)

    monkeypatch.setattr("teachclip.stages.search.index_search.search_index", of_index)
    monkeypatch.setattr("teachclip.stages.search.stage.search", of_config)
    return calls


def test_an_index_shows_when_a_video_fits(invoke: Invoke, asked: list[Any]) -> None:
    assert shown(invoke("search", "index", "a dog", "a cat")) == [
        '"a dog"',
        "rank  cosine   id  window              look at  video",
        "   1  0.310    12  0:30 to 1:00        0:42     /v/a.mp4",
        "   1  0.100   250  1:00:00 to 1:00:30  1:00:05  /v/a.mp4",
        "   2  0.200     3  0:00 to 0:08        0:00     /v/b.mp4",
        '"a cat"',
        "no video of the index fits",
    ]
    given, options = asked[0]
    assert given == (Path("index"), ["a dog", "a cat"], 5, Filters())
    assert (options["model"], options["windows"]) == (None, False)


def test_a_search_through_lists_says_how_much_it_finds(
    invoke: Invoke, asked: list[Any], monkeypatch: pytest.MonkeyPatch
) -> None:
    found = replace(IN_INDEX, windows=3_000_000, recall=0.9578)
    monkeypatch.setattr("teachclip.stages.search.index_search.search_index", lambda *_, **__: found)
    last = shown(invoke("search", "index", "a dog"))[-1]
    assert last == "searched 3,000,000 windows through lists, which finds 95.8 % of the ten nearest windows"
    assert json.loads(invoke("search", "index", "a dog", "--json").stdout)["recall"] == 0.9578


def test_options_of_an_index_reach_it(invoke: Invoke, asked: list[Any]) -> None:
    words = ("--top", "3", "--under", "a", "--tag", "b", "--windows", "--model", "runs/x", "--rerank", "t", "--json")
    document = json.loads(invoke("search", "index", "a dog", *words).stdout)
    given, options = asked[0]
    assert given[2:] == (3, Filters("a", tag="b"))
    assert (options["model"], options["windows"], options["rerank"]) == ("runs/x", True, "t")
    first = document["queries"][0]["answers"][0]
    assert (first["path"], first["start"], first["stop"], first["second"]) == ("/v/a.mp4", 30.0, 60.0, 42.5)
    assert [window["start"] for window in first["windows"]] == [30.0, 3600.0]


def test_a_teachers_scores_stand_beside_the_cosines(
    invoke: Invoke, asked: list[Any], monkeypatch: pytest.MonkeyPatch
) -> None:
    queries = IN_INDEX.queries
    first, second = queries[0].answers
    answers = (replace(first, teacher=0.4567), second)
    scored = replace(IN_INDEX, queries=(replace(queries[0], answers=answers),), rerank_seconds=0.2)
    monkeypatch.setattr("teachclip.stages.search.index_search.search_index", lambda *_, **options: scored)
    assert shown(invoke("search", "index", "a dog", "--rerank", "runs/teacher")) == [
        '"a dog"',
        "rank  teacher  cosine   id  window              look at  video",
        "   1  0.457    0.310    12  0:30 to 1:00        0:42     /v/a.mp4",
        "   1           0.100   250  1:00:00 to 1:00:30  1:00:05  /v/a.mp4",
        "   2  -        0.200     3  0:00 to 0:08        0:00     /v/b.mp4",
    ]
    document = json.loads(invoke("search", "index", "a dog", "--rerank", "x", "--json").stdout)
    assert [answer["teacher"] for answer in document["queries"][0]["answers"]] == [0.4567, None]


def test_a_demos_folder_is_its_configuration(invoke: Invoke, asked: list[Any]) -> None:
    assert invoke("search", "demo", "a dog", "--top=3", "--set", "search.top=9").exit_code == 0
    config = asked[0][0][0]
    assert isinstance(config, Config)
    assert config.work.name == "here"
    assert config.search.top == 3


def test_what_is_asked_with_reaches_the_index(invoke: Invoke, asked: list[Any], folder: Path) -> None:
    (folder / "asked.txt").write_text("a dog\n\na cat\n")
    (folder / "dog.mp4").touch()
    assert invoke("search", "index", "@asked.txt", "dog.mp4", "--like", "12").exit_code == 0
    given, options = asked[0]
    assert given[1] == ["a dog", "a cat", Path("dog.mp4")]
    assert options["like"] == "12"
    assert invoke("search", "index", "--like", "12").exit_code == 0
    assert asked[1][0][1] == []


def test_one_line_says_that_nothing_fits(invoke: Invoke, asked: list[Any], monkeypatch: pytest.MonkeyPatch) -> None:
    first, second = IN_INDEX.queries
    found = replace(IN_INDEX, queries=(replace(first, fits=False), replace(first, fits=True), second))
    monkeypatch.setattr("teachclip.stages.search.index_search.search_index", lambda *_, **__: found)
    lines = shown(invoke("search", "index", "a dog", "a cat"))
    assert [k for k, line in enumerate(lines) if line.startswith("nothing fits well: ")] == [5]
    document = json.loads(invoke("search", "index", "a dog", "--json").stdout)
    assert [each["fits"] for each in document["queries"]] == [False, True, None]


def test_a_configuration_is_asked_with_lists_of_sentences(invoke: Invoke, asked: list[Any], folder: Path) -> None:
    (folder / "asked.txt").write_text("a dog\n\na cat\n")
    assert invoke("search", "own_videos.yaml", "@asked.txt", "a cow").exit_code == 0
    assert asked[0][0][1] == ["a dog", "a cat", "a cow"]


def test_other_questions_than_sentences_are_shown_as_such(
    invoke: Invoke, asked: list[Any], monkeypatch: pytest.MonkeyPatch
) -> None:
    queries = (replace(IN_INDEX.queries[1], query="12", by="window"),)
    found = replace(IN_INDEX, queries=queries)
    monkeypatch.setattr("teachclip.stages.search.index_search.search_index", lambda *_, **__: found)
    assert shown(invoke("search", "index", "--like", "12")) == ["like 12", "no video of the index fits"]
    document = json.loads(invoke("search", "index", "--like", "12", "--json").stdout)
    assert document["queries"] == [{"query": "12", "answers": [], "by": "window", "fits": None}]


@pytest.mark.parametrize(
    ("words", "told"),
    [
        (("index",), "Missing argument 'QUERY...': a sentence in quotes, @FILE or - for one a line, or --like ID."),
        (("own_videos.yaml",), "Missing argument 'QUERY...'"),
        (("own_videos.yaml", "a", "--like", "3"), "--like: for an index, not for a CONFIG"),
        (("own_videos.yaml", "clips/dog.mp4"), "clips/dog.mp4: an index is searched by a video"),
        (("index", "a", "--set", "search.top=3"), "--set: for a CONFIG, not for an index"),
        (("own_videos.yaml", "a", "--under", "x", "--windows"), "--under, --windows: for an index, not for a CONFIG"),
        (("demo", "a", "--tag", "x"), "--tag: for an index, not for a CONFIG"),
        (("index", "a", "--top", "0"), "--top"),
        (("clips", "a"), "no index lies here\nif it holds videos, make an index of them, and search that: "
         "teachclip index clips --model MODEL --out index\n"),
    ],
)  # fmt: skip
def test_what_does_not_belong_together_is_told(
    invoke: Invoke, asked: list[Any], folder: Path, words: tuple[str, ...], told: str
) -> None:
    (folder / "clips/dog.mp4").touch()
    result = invoke("search", *words)
    assert result.exit_code == 2
    assert told in result.stderr
    assert not asked


def test_a_misspelt_index_is_told_as_one(invoke: Invoke, asked: list[Any]) -> None:
    told = invoke("search", "indx", "a dog")
    assert told.exit_code == 2
    assert told.stderr.splitlines() == [
        "error: indx: there is neither an index nor a configuration; did you mean index?",
        "make an index: teachclip index VIDEOS --model MODEL --out indx",
    ]
    assert asked == []
