"""What verbs show of what the stages return; only the stages are stand-ins."""

import json
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
from teachclip.cache.frames.record import VideoStatus
from teachclip.configs.schema import Config
from teachclip.stages.models.checkpoints.inspect import Refusal
from teachclip.stages.search.gone import Gone
from teachclip.stages.search.library.stage import VideosIndexed
from teachclip.stages.search.searcher import QueryAnswers, SearchResult

from .conftest import Invoke, shown
from .stand_ins import (
    ANSWERS,
    CHECKED,
    ESTIMATED,
    EVALUATED,
    FOUND,
    INDEXED,
    INSPECTED,
    METRICS,
    PREPARED,
    TRAINED,
    Calls,
)


def test_prepare_shows_what_is_left_out_and_why(invoke: Invoke, stages: object) -> None:
    assert shown(invoke("prepare", "own_videos.yaml")) == [
        "frames   18.1 MB in work/frames",
        "videos   28: 27 ok, 1 corrupt",
        "decoded  5 in 3.2 s",
        "1 video is left out:",
        "video  status   reason",
        "x.mp4  corrupt  no video stream",
    ]


def test_prepare_says_what_to_do_where_the_machine_failed(
    invoke: Invoke, stages: object, monkeypatch: pytest.MonkeyPatch
) -> None:
    failed = VideoStatus("y.mp4", "failed", "out of memory")
    result = replace(PREPARED, counts={"ok": 27, "failed": 1}, left_out=(failed,))
    monkeypatch.setattr("teachclip.stages.prepare.stage.prepare", lambda *_: result)
    assert shown(invoke("prepare", "own_videos.yaml"))[-1] == (
        "1 failed: the machine failed, not these files; they are tried again, one at a time with: "
        "teachclip prepare own_videos.yaml --set prepare.workers=1"
    )


def test_estimate_counts_what_is_asked_again(invoke: Invoke, stages: object, monkeypatch: pytest.MonkeyPatch) -> None:
    found = replace(ESTIMATED, asked_again=7)
    monkeypatch.setattr("teachclip.stages.prepare.estimate.estimate_frames", lambda *_: found)
    assert shown(invoke("prepare", "own_videos.yaml", "--estimate"))[0] == (
        "videos  9000, 8990 of them still to be decoded; 7 of those an older version called damaged"
    )


def test_prepare_counts_what_was_renewed(invoke: Invoke, stages: object, monkeypatch: pytest.MonkeyPatch) -> None:
    result = replace(PREPARED, decoded=0, renewed=1800)
    monkeypatch.setattr("teachclip.stages.prepare.stage.prepare", lambda *_: result)
    assert shown(invoke("prepare", "own_videos.yaml"))[2:4] == [
        "decoded  none, all were there",
        "renewed  1800: their files have another time and the same content",
    ]


def test_estimate_counts_what_is_compared_apart(
    invoke: Invoke, stages: object, monkeypatch: pytest.MonkeyPatch
) -> None:
    found = replace(ESTIMATED, compared=1800, bytes_compared=2_100_000_000)
    monkeypatch.setattr("teachclip.stages.prepare.estimate.estimate_frames", lambda *_: found)
    assert shown(invoke("prepare", "own_videos.yaml", "--estimate"))[0] == (
        "videos  9000, 8990 of them still to be decoded; 1800 to be compared (2.1 GB): their files have another time"
    )


def test_pruning_is_passed_on_and_lists_what_goes(
    invoke: Invoke, stages: Calls, monkeypatch: pytest.MonkeyPatch
) -> None:
    lines = shown(invoke("prepare", "own_videos.yaml", "--prune"))
    assert stages[-1][1][-1] is True
    assert lines[3] == "pruned   0 videos, 0 B freed"
    ids = tuple(f"{k}.mp4" for k in range(22))
    named = ", ".join(ids[:20]) + " and 2 more"
    result = replace(PREPARED, pruned=ids, freed=4_500_000)
    monkeypatch.setattr("teachclip.stages.prepare.stage.prepare", lambda *_: result)
    assert shown(invoke("prepare", "own_videos.yaml", "--prune"))[3:5] == [
        "pruned   22 videos, 4.5 MB freed",
        f"Frames were removed of what the data no longer names; scores stay: {named}",
    ]
    found = replace(ESTIMATED, pruned=ids[:1], bytes_pruned=1_500_000)
    monkeypatch.setattr("teachclip.stages.prepare.estimate.estimate_frames", lambda *_: found)
    assert shown(invoke("prepare", "own_videos.yaml", "--prune", "--estimate"))[4:] == [
        "prune   1 video, 1.5 MB",
        "Pruning removes these frames for every configuration that shares the cache. The data names none of them: "
        "0.mp4",
    ]


def test_search_says_which_videos_are_gone_and_what_to_do(
    invoke: Invoke, stages: object, monkeypatch: pytest.MonkeyPatch
) -> None:
    gone = (Gone("x.mp4", unnamed=False), *(Gone(f"{k}.mp4", unnamed=True) for k in range(6)))
    monkeypatch.setattr("teachclip.stages.search.stage.search", lambda *_: replace(FOUND, gone=gone))
    assert shown(invoke("search", "own_videos.yaml", "a dog"))[-2:] == [
        "1 nearer video is left out (x.mp4): no such file; put it back, or take it out of the data and prune: "
        "teachclip prepare own_videos.yaml --prune",
        "6 nearer videos are left out (0.mp4, 1.mp4, 2.mp4, 3.mp4, 4.mp4 and 1 more): not in the data; "
        "unless another configuration shares these frames, what was prepared of it goes with: "
        "teachclip prepare own_videos.yaml --prune",
    ]


def test_estimate_shows_disk_and_time(invoke: Invoke, stages: object, folder: Path) -> None:
    assert shown(invoke("prepare", "own_videos.yaml", "--estimate")) == [
        "videos  9000, 8990 of them still to be decoded",
        f"disk    about 16 GB, at most 18.1 GB (500 GB free) in {folder}/work/frames",
        "time    about 30 min 30 s on 2 processes",
        "probed  12 videos",
    ]


def test_check_shows_counts_beside_the_papers_and_what_is_amiss(
    invoke: Invoke, stages: object, monkeypatch: pytest.MonkeyPatch
) -> None:
    lines = [
        "data set     DiDeMo, paragraphs",
        "annotations  annotations",
        "videos       videos",
        "validation   its own 1065 validation videos",
        "split  videos  paper  texts  paper  on disk  prepared  read from",
        "train    8362   8392   8362   8392     8361  8360      train_data.json",
        "test        0   1004      0   1004        0  -         cannot be read: a.json:3:",
        "                                                       not JSON",
        "differs: train: 30 fewer",
        "1 problem:",
        "  a.txt:1: odd",
        "21 videos have no file, the first 2:",
        "  b",
        "  c",
        "28 videos in the frame cache: 1 cannot be used",
        "  x.mp4: corrupt, no video stream",
        "in two splits: 7 texts of test are texts of train, too",
        "1 pair of videos in two splits with the same frames:",
        "  a (train) and b (test)",
        "to get: a.txt or b.txt, for test, from somebody",
        "the data set's own page: the.page",
    ]
    assert shown(invoke("data", "check", "own_videos.yaml")) == lines
    monkeypatch.setattr("teachclip.stages.data.check.check_data", lambda *_: replace(CHECKED, refused="no captions"))
    refused = invoke("data", "check", "own_videos.yaml")
    assert (refused.exit_code, refused.stdout.splitlines()) == (1, lines)
    assert refused.stderr.splitlines()[0] == "error: this data cannot be used: no captions"
    assert json.loads(invoke("data", "check", "own_videos.yaml", "--json").stdout)["refused"] == "no captions"
    assert invoke("data", "check", "own_videos.yaml", "--decode", "-1").exit_code == 2


def test_score_shows_how_own_videos_rank(invoke: Invoke, stages: object) -> None:
    assert [line.split() for line in shown(invoke("score", "own_videos.yaml"))] == [
        ["work/scores.zarr:", "10", "min", "01", "s;", "3", "videos", "left", "out"],
        ["teacher", "captions", "videos", "shards", "made", "now", *["MdR", "R@1", "R@10", "ranked", "among"]],
        ["xclip", "180000", "9000", "176", "76", "3", "41.2", "80.0", "1024", "9000"],
        ["b", "1", "1", "1", "1", "-", "-", "-", "-", "-"],
    ]


def test_denoise_shows_what_is_dropped_and_whose_rule_it_is(invoke: Invoke, stages: object) -> None:
    assert shown(invoke("denoise", "own_videos.yaml")) == [
        "mask               captions-mask.json",
        "teachers           xclip, drl",
        "rule               own video ranks at 100 or better (teachclip's own rule, not TeachText's)",
        "ranked             180,000 captions among 9,000 videos, median 4; 3 videos without usable frames",
        "kept               179000",
        "dropped            1000",
        "last caption kept  1 video: a.mp4",
        "videos left out    0 videos",
        "to use it          --set train.captions_mask=captions-mask.json",
        "worst captions:",
        "  rank  video  caption",
        "8999.5  b.mp4  something happens",
    ]


def test_train_shows_what_was_chosen(invoke: Invoke, stages: object) -> None:
    assert shown(invoke("train", "own_videos.yaml")) == [
        "network     runs/student/best.safetensors",
        "trained on  5,000 captions of 1,000 videos, 2 videos left out",
        "teachers    xclip",
        "steps       600 in 1 min 12 s",
        "chosen      step 550, by sumr: 104.1",
    ]


def test_train_shows_how_batches_are_drawn(invoke: Invoke, stages: object, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("teachclip.stages.train.stage.train", lambda *_: replace(TRAINED, blocks=3, left_over=70))
    words = "each of one of 3 blocks of videos; 70 of 5,000 captions of an epoch are left to others"
    assert f"batches     {words}" in shown(invoke("train", "own_videos.yaml"))


def test_evaluate_shows_a_table(invoke: Invoke, stages: object) -> None:
    assert shown(invoke("evaluate", "own_videos.yaml")) == [
        "runs/student: test, 1,000 captions, 1,000 videos; 3 videos left out",
        "                R@1   R@5  R@10   SumR  MdR   MnR",
        "text to video  48.0  73.0  82.9  203.9  2.0  13.1",
        "video to text  48.0  73.0  82.9  203.9  2.0  13.1",
    ]
    assert json.loads(invoke("evaluate", "own_videos.yaml", "--json").stdout)["t2v"] == METRICS


def test_search_shows_rank_cosine_and_file(invoke: Invoke, stages: Calls) -> None:
    assert shown(invoke("search", "own_videos.yaml", "a dog", "a cat")) == [
        '"a dog"',
        "rank  cosine  video",
        "   1  0.310   /v/a.mp4",
        "   2  0.200   /v/b.mp4",
    ]
    assert [name for name, _ in stages] == ["stages.search.stage.search"]
    assert stages[0][1][1] == ["a dog", "a cat"]


def test_search_shows_what_a_teacher_made_of_it(invoke: Invoke, monkeypatch: pytest.MonkeyPatch) -> None:
    asked: list[str | None] = []

    def run(config: Config, queries: Any, reporter: Any, rerank: str | None) -> SearchResult:
        asked.append(rerank)
        answers = (replace(ANSWERS[0], teacher=0.4567), ANSWERS[1])
        return SearchResult((QueryAnswers("a dog", answers),), 9, 0.1, rerank_seconds=0.2)

    monkeypatch.setattr("teachclip.stages.search.stage.search", run)
    assert shown(invoke("search", "own_videos.yaml", "a dog", "--rerank", "runs/teacher")) == [
        '"a dog"',
        "rank  teacher  cosine  video",
        "   1  0.457    0.310   /v/a.mp4",
        "   2  -        0.200   /v/b.mp4",
    ]
    result = json.loads(invoke("search", "own_videos.yaml", "a dog", "--rerank", "x", "--json").stdout)
    assert [answer["teacher"] for answer in result["queries"][0]["answers"]] == [0.4567, None]
    assert asked == ["runs/teacher", "x"]


def test_demo_shows_models_searches_and_what_to_do_next(invoke: Invoke, stages: Calls) -> None:
    lines = shown(invoke("demo", "my demo"))
    assert lines[1:4] == [
        "                 R@1   R@5  R@10   SumR  MdR  SumR v2t",
        "X-CLIP teacher  48.0  73.0  82.9  203.9  2.0     203.9",
        "student taught  48.0  73.0  82.9  203.9  2.0     203.9",
    ]
    assert '"a dog"' in lines
    assert [line for line in lines if line.startswith("report")] == ["report    demo/report.html"]
    assert "ask more  teachclip search 'my demo/demo.yaml' \"a blue box goes down\"" in lines
    assert "    teachclip prepare own_videos.yaml" in lines
    assert stages[0][1][0] == Path("my demo")
    assert json.loads(invoke("demo", "--json").stdout)["models"][1]["t2v"] == METRICS


def test_inspect_shows_what_is_known(invoke: Invoke, stages: object) -> None:
    assert shown(invoke("checkpoint", "inspect", "model.bin")) == [
        "file         model.bin (torch, 391 MB)",
        "what         TS2-Net with token shift in blocks 10, 11",
        "image        224 pixels, patches of 32",
        "image tower  12 layers, width 768, heads: 12",
        "D            512",
        "temporal     4 layers",
        "frames       12, recorded",
        "words        32, assumed",
        "settings     mask_padding no, shift_layers 10, 11",
        "tensors      366: 150 float16, 216 float32",
        "parameters   164,189,442",
        "logit scale  4.6052, exp 100.00",
        f"digest       {'cd' * 32}",
        "odd          half",
        "             not recorded",
    ]


@pytest.mark.parametrize("as_json", [False, True])
def test_a_refused_file_is_explained_and_ends_with_an_error(
    invoke: Invoke, monkeypatch: pytest.MonkeyPatch, as_json: bool
) -> None:
    refused = replace(INSPECTED, refused=Refusal("not whole", ("1 missing:", "  clip.logit_scale"), "do this"))
    monkeypatch.setattr("teachclip.stages.models.checkpoints.inspect.inspect", lambda *_: refused)
    result = invoke("checkpoint", "inspect", "model.bin", *(["--json"] if as_json else []))
    assert result.exit_code == 1
    assert result.stderr.splitlines() == [
        "error: model.bin: not whole", "  1 missing:", "    clip.logit_scale", "do this",
    ]  # fmt: skip
    if as_json:
        assert json.loads(result.stdout)["refused"]["what"] == "not whole"
    else:
        assert result.stdout.startswith("file         model.bin")


def test_convert_shows_what_was_written(invoke: Invoke, stages: object) -> None:
    assert shown(invoke("checkpoint", "convert", "model.bin", "xclip.safetensors")) == [
        "written  xclip.safetensors, with teachclip's names",
        "what     X-CLIP",
        "slots    12 frames, 32 words",
        "tensors  366, 7 of them kept though nothing uses them",
        f"digest   {'cd' * 32}",
    ]


def test_what_train_accepts_reaches_the_configuration_and_is_shown(
    invoke: Invoke, stages: Calls, monkeypatch: pytest.MonkeyPatch
) -> None:
    assert invoke("train", "own_videos.yaml", "--accept", "pixels").exit_code == 0
    assert stages[-1][1][0].train.accept == ("pixels",)
    result = invoke("train", "own_videos.yaml", "--accept", "times")
    assert result.exit_code == 2
    assert "'times' is not one of pixels" in result.stderr
    monkeypatch.setattr("teachclip.stages.train.stage.train", lambda *_: replace(TRAINED, other_pixels={"xclip": 3}))
    assert "accepted for xclip  other pixels than were scored, in 3 of 1,000 videos" in shown(
        invoke("train", "own_videos.yaml")
    )


@pytest.mark.parametrize(
    ("low", "high", "told"),
    [(0.0, 33.3, "text to video 0.0 to 33.3"), (0.0, 0.0, "text to video none, as every query fared alike")],
)
def test_evaluate_tells_no_interval_where_all_queries_fared_alike(
    invoke: Invoke, stages: object, monkeypatch: pytest.MonkeyPatch, low: float, high: float, told: str
) -> None:
    found = replace(EVALUATED, confidence={"t2v": {"r1": {"value": 0.0, "low": low, "high": high}}})
    monkeypatch.setattr("teachclip.stages.evaluate.stage.evaluate", lambda *_: found)
    assert f"95 % interval of R@1 over queries: {told}" in shown(invoke("evaluate", "own_videos.yaml"))


def test_index_shows_what_was_done(invoke: Invoke, stages: object, monkeypatch: pytest.MonkeyPatch) -> None:
    assert shown(invoke("index", "clips/", "--model", "runs/a")) == [
        "index    index: 30 videos, 44 windows",
        "model    openclip:ViT-B-32/openai, 512 numbers a window",
        "files    29: 28 ok, 1 corrupt",
        "decoded  5 in 9.0 s, 7 windows",
        "renewed  2: their files have another time and the same content",
        "moved    1",
        "copied   1",
        "removed  3",
        "1 file is left out:",
        "video  status   reason",
        "x.mp4  corrupt  no video stream",
    ]
    failed = replace(INDEXED, counts={"ok": 28, "failed": 1}, decoded=0, windows=0)
    monkeypatch.setattr("teachclip.stages.search.library.stage.index_videos", lambda *_, **__: failed)
    lines = shown(invoke("index", "my clips"))
    assert lines[3] == "decoded  none, all were there"
    assert lines[-1] == "What failed or ran out of time is tried again with: teachclip index 'my clips'"


def test_index_gives_tags(invoke: Invoke, stages: object, monkeypatch: pytest.MonkeyPatch) -> None:
    asked: dict[str, Any] = {}

    def run(*_: Any, **given: Any) -> VideosIndexed:
        asked.update(given)
        return replace(INDEXED, tags_added=3)

    monkeypatch.setattr("teachclip.stages.search.library.stage.index_videos", run)
    lines = shown(invoke("index", "clips", "--tag", "sea", "--tag", "2019", "--untag", "new"))
    assert "tags     3 given, 0 taken away" in lines
    assert (asked["tags"], asked["untags"]) == (["sea", "2019"], ["new"])
    for words in (["clips", "--estimate", "--untag", "x"], ["own_videos.yaml", "--tag", "x"]):
        result = invoke("index", *words)
        assert result.exit_code == 2
        assert "tag" in result.stderr


def test_index_estimates(invoke: Invoke, stages: object) -> None:
    assert shown(invoke("index", "clips/", "--out", "x", "--estimate")) == [
        "videos  50000, 49000 of them to be decoded; 12 to be compared with what is known; 3 in the index are gone",
        "time    about 1 h 23 min on 2 processes",
        "disk    about 120 MB in x",
        "probed  6 videos",
    ]


def test_index_of_a_configuration(invoke: Invoke, stages: object) -> None:
    assert shown(invoke("index", "own_videos.yaml")) == [
        "index    work/index",
        "videos   28, 512 numbers each",
        "made     3 in 4.0 s",
        "removed  1",
    ]
    for words in (["own_videos.yaml", "--model", "x"], ["clips", "--set", "work=x"]):
        result = invoke("index", *words)
        assert result.exit_code == 2
        assert "configuration" in result.stderr
