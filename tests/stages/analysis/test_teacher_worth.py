"""Whether a teacher is any good: its ranks of held-out captions against plain numpy, beside the student alone."""

import json
from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from teachclip.cache.scores.shard import write_shard
from teachclip.cache.scores.store import ScoreStore
from teachclip.cache.scores.tile import TileContents
from teachclip.cache.storage.identity import digest, text_digest
from teachclip.configs.schema import Config
from teachclip.stages.analysis.report_card import report_card
from teachclip.stages.analysis.teacher_worth import TeachersWorth, TeacherWorth
from teachclip.stages.analysis.teaching_curve import CURVE, nearest
from teachclip.stages.data.dataset import Dataset, Text, Video
from teachclip.stages.labels.caption_mask import captions_digest
from teachclip.stages.retrieval.confidence import difference
from teachclip.stages.retrieval.metrics import rank, retrieval_metrics
from teachclip.stages.retrieval.query_ranks import QueryRanks, save_query_ranks

TRAIN, HELD, EACH = 30, 40, 2


def dataset(split: Any = "val") -> Dataset:
    """30 training videos and 40 of another split, two captions each."""
    videos = tuple(
        Video(f"{name}{k}", Path(f"{name}{k}"), name) for name, n in (("train", TRAIN), (split, HELD)) for k in range(n)
    )
    texts = tuple(
        Text(f"{video.id}#{k}", video.id, f"what {video.id} shows, {k}") for video in videos for k in range(EACH)
    )
    return Dataset(videos, texts)


def scores_of(skill: float, data: Dataset, seed: int = 0) -> np.ndarray:
    """Scores [T,V] that set own videos apart by `skill` standard deviations."""
    scores = np.random.default_rng(seed).normal(0, 1, (len(data.texts), len(data.videos))).astype(np.float32)
    scores[np.arange(len(data.texts)), np.arange(len(data.texts)) // EACH] += skill
    return scores


def stored(path: Path, data: Dataset, skill: float, texts: Sequence[int], videos: Sequence[int]) -> ScoreStore:
    """A store of teacher `tutor` with these texts and videos, by index."""
    store = ScoreStore.create(path)
    column = {data.videos[place].id: k for k, place in enumerate(videos)}
    contents = TileContents(
        [(data.texts[k].id, text_digest(data.texts[k].caption)) for k in texts],
        [(data.videos[k].id, digest(b"%d" % k)) for k in videos],
        np.array([column[data.texts[k].video] for k in texts]),
        np.tile(np.arange(3.0), (len(videos), 1)),
    )
    tile = store.create_teacher("tutor", {"weights": "w"}, 20.0, "float32", 3, False).create_tile(
        "dense", contents, 999
    )
    write_shard(tile, 0, scores_of(skill, data)[np.ix_(texts, videos)], None)
    return store


def whole(path: Path, data: Dataset, skill: float) -> ScoreStore:
    return stored(path, data, skill, range(len(data.texts)), range(len(data.videos)))


def held_ranks(data: Dataset, skill: float, seed: int, run: str = "alone", split: str = "val") -> QueryRanks:
    """What a model of this skill finds among the held-out videos."""
    texts, videos = data.texts[TRAIN * EACH :], data.videos[TRAIN:]
    scores = scores_of(skill, data, seed)[TRAIN * EACH :, TRAIN:]
    own = np.arange(len(texts)) // EACH
    found = rank(lambda rows, columns: scores[rows][:, columns], own, len(videos), top=10)
    ids, captions = tuple(text.id for text in texts), tuple(text.caption for text in texts)
    names = tuple(video.id for video in videos)
    return QueryRanks(run, split, (), ids, captions, names, own, found.texts, found.videos, found.first)


def write_run(work: Path, name: str, data: Dataset, ranks: QueryRanks | None, validated: float, **made: Any) -> Path:
    """A finished run; by default that of a student alone."""
    folder = work / "runs" / name
    folder.mkdir(parents=True)
    known = {
        "train.network.kind": "student",
        "train.teachers": [],
        "train.loss.coarse": 1.0,
        "train.loss.coarse_target": "teacher",
        "data.train captions": captions_digest(data.texts_of("train")),
        "data.val captions": captions_digest(data.texts_of("val")),
    }
    (folder / "run.json").write_text(json.dumps(known | made))
    (folder / "result.json").write_text("{}")
    line = {"kind": "val", "step": 1, "selected": True, "t2v": {"sumr": validated}}
    (folder / "metrics.jsonl").write_text(json.dumps(line) + "\n")
    if ranks is not None:
        save_query_ranks(folder / f"ranks-{ranks.split}.npz", ranks)
    return folder


def worth_of(store: ScoreStore, data: Dataset, work: Path) -> TeachersWorth:
    found = report_card(store, asked=(Config(work=work), data)).worth
    assert found is not None
    return found


def only(found: TeachersWorth) -> TeacherWorth:
    (one,) = found.teachers
    return one


@pytest.mark.parametrize("split", ["val", "test"])
def test_held_out_captions_are_ranked_among_the_videos_of_their_split(tmp_path: Path, split: str) -> None:
    data = dataset(split)
    found = worth_of(whole(tmp_path / "s.zarr", data, 2.0), data, tmp_path)
    expected = retrieval_metrics(scores_of(2.0, data)[TRAIN * EACH :, TRAIN:], np.arange(HELD * EACH) // EACH, HELD)
    one = only(found)
    assert (one.split, one.texts, one.videos, one.t2v, one.v2t) == (
        split, HELD * EACH, HELD, expected["t2v"], expected["v2t"],
    )  # fmt: skip
    assert (found.texts, found.videos) == (TRAIN * EACH, TRAIN)
    assert one.interval is not None
    assert one.interval.low < expected["t2v"].sumr < one.interval.high
    assert (one.alone, one.verdict) == (None, "unknown")


def test_a_teacher_that_knows_more_is_told_from_one_that_is_hardly_better_and_from_one_that_is_worse(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("teachclip.stages.analysis.teaching_curve.FAR", 99.0)
    data = dataset()
    for number, (skill, verdict) in enumerate(((3.0, "better"), (1.5, "hardly better"), (0.2, "worse"))):
        work = tmp_path / str(number)
        alone = held_ranks(data, 1.5, seed=7)
        folder = write_run(work, "alone", data, alone, 1.0)
        one = only(worth_of(whole(work / "s.zarr", data, skill), data, work))
        assert one.verdict == verdict
        assert one.alone is not None
        assert (one.alone.run, one.alone.sumr) == (str(folder), alone.metrics()["t2v"].sumr)
        teacher = held_ranks(data, skill, seed=0, run="tutor")
        assert one.difference == difference(teacher, alone)["t2v"]["sumr"]
        assert one.expected is not None
        assert one.expected.equal == (verdict != "better")


def test_only_training_captions_are_told_and_compared_with_nobody(tmp_path: Path) -> None:
    data = dataset()
    write_run(tmp_path, "alone", data, held_ranks(data, 1.0, 1), 1.0)
    store = stored(tmp_path / "s.zarr", data, 2.0, range(TRAIN * EACH), range(TRAIN))
    card = report_card(store, asked=(Config(work=tmp_path), data))
    assert card.worth is not None
    one = only(card.worth)
    assert (one.split, one.texts, one.videos, one.verdict) == ("train", TRAIN * EACH, TRAIN, "unknown")
    assert one.t2v == card.teachers[0].t2v
    assert one.alone is not None
    assert (one.interval, one.difference, one.alone.sumr) == (None, None, None)


def test_captions_of_which_a_pair_is_not_scored_are_not_ranked(tmp_path: Path) -> None:
    data = dataset()
    store = whole(tmp_path / "s.zarr", data, 2.0)
    found = report_card(store, asked=(Config(work=tmp_path), replace(data, texts=data.texts[: TRAIN * EACH]))).worth
    assert found is not None
    assert only(found).split == "train"
    elsewhere = replace(data, texts=tuple(replace(text, caption="other") for text in data.texts))
    assert report_card(store, asked=(Config(work=tmp_path), elsewhere)).worth is None
    half = stored(tmp_path / "half.zarr", data, 2.0, range(len(data.texts) - EACH), range(len(data.videos) - 1))
    assert only(worth_of(half, data, tmp_path)).texts == (HELD - 1) * EACH


def test_without_ranks_the_student_has_what_its_training_measured_on_the_same_captions(tmp_path: Path) -> None:
    data, store = dataset(), None
    folder = write_run(tmp_path, "alone", data, None, 12.0)
    store = whole(tmp_path / "s.zarr", data, 2.0)
    one = only(worth_of(store, data, tmp_path))
    assert one.alone is not None
    assert (one.alone.sumr, one.difference, one.verdict) == (12.0, None, "better")
    assert one.interval is not None
    for sumr, verdict in ((one.interval.low + 1, "hardly better"), (one.interval.high + 1, "worse")):
        line = {"kind": "val", "step": 1, "selected": True, "t2v": {"sumr": sumr}}
        (folder / "metrics.jsonl").write_text(json.dumps(line) + "\n")
        assert only(worth_of(store, data, tmp_path)).verdict == verdict
    made = json.loads((folder / "run.json").read_text()) | {"data.val captions": "others"}
    (folder / "run.json").write_text(json.dumps(made))
    other = only(worth_of(store, data, tmp_path))
    assert other.alone is not None
    assert (other.alone.sumr, other.verdict) == (None, "unknown")


def test_the_student_alone_is_the_best_of_those_that_nobody_taught_on_the_same_captions(tmp_path: Path) -> None:
    data = dataset()
    store = whole(tmp_path / "s.zarr", data, 2.0)
    for name, more in (
        ("taught", {"train.teachers": ["tutor"]}),
        ("one-hot", {"train.loss.coarse_target": "one-hot"}),
        ("tutor", {"train.network.kind": "xclip"}),
        ("others", {"data.train captions": "x"}),
    ):
        write_run(tmp_path, name, data, None, 99.0, **more)
    write_run(tmp_path, "unfinished", data, None, 99.0)
    (tmp_path / "runs/unfinished/result.json").unlink()
    (write_run(tmp_path, "damaged", data, None, 99.0) / "run.json").write_text("{")
    (write_run(tmp_path, "torn", data, None, 99.0) / "metrics.jsonl").write_text("{\n")
    assert only(worth_of(store, data, tmp_path)).alone is None
    write_run(tmp_path, "alone", data, None, 30.0)
    write_run(tmp_path, "sweep/alone-2", data, None, 31.0)
    write_run(tmp_path, "alone-3", data, None, 29.0)
    alone = only(worth_of(store, data, tmp_path)).alone
    assert alone is not None
    assert (alone.run, alone.sumr) == (str(tmp_path / "runs/sweep/alone-2"), 31.0)
    (tmp_path / "runs/sweep/alone-2/ranks-val.npz").write_bytes(b"damaged")
    again = only(worth_of(store, data, tmp_path)).alone
    assert again == alone


@pytest.mark.parametrize(
    ("clips", "texts", "equal", "expected"),
    [
        (400, 400, False, (400, 1, 8)),
        (380, 420, False, (400, 1, 8)),
        (900, 900, False, (800, 1, 6)),
        (550, 2700, False, (500, 5, 4)),
        (700, 700, True, (400, 1, 8)),
        (1200, 6000, True, (1000, 5, 6)),
        (100_000, 100_000, False, None),
        (3, 3, True, None),
    ],
)
def test_the_nearest_size_by_doublings(
    clips: int, texts: int, equal: bool, expected: tuple[int, int, int] | None
) -> None:
    found = nearest(clips, texts, equal=equal)
    assert (None if found is None else (found.clips, found.captions, len(found.gains))) == expected
    assert nearest(0, 0, equal=equal) is None


def test_the_table_says_where_its_numbers_come_from() -> None:
    assert all(one.source and one.gains and one.clips > 0 and one.captions > 0 for one in CURVE)
    draws = next(one for one in CURVE if (one.clips, one.captions, one.equal) == (400, 1, False))
    assert round(draws.gain, 1) == 14.0
    assert (min(draws.gains), max(draws.gains)) == (6.25, 18.25)
