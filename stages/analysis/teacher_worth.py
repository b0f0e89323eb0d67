"""Is a teacher any good? How it ranks captions that nobody trained on, from cached scores, beside the student alone.

Held-out captions are those of the validation split, else of the test split, whichever the store has; each is ranked
among the videos of its split, as `evaluate` does, so that it compares with a student. Where the store has training
captions alone, their ranks are told and compared with nobody: whoever was trained on them knows them.
"""

import math
from collections.abc import Mapping, Sequence
from contextlib import suppress
from dataclasses import dataclass, field
from typing import Any, Literal

import numpy as np

from ...cache.scores.joined import Area, find_areas
from ...cache.scores.store import ScoreStore
from ...cache.storage.identity import text_digest
from ...configs.schema import Config
from ...errors import CacheError, DataError
from ..data.dataset import Dataset, Text
from ..labels.caption_mask import captions_digest
from ..retrieval.confidence import Interval, confidence, difference
from ..retrieval.metrics import Metrics, rank
from ..retrieval.query_ranks import TOP, QueryRanks, read_query_ranks
from ..runtime.run_folder import RunFolder
from .teaching_curve import EVIDENCE, Experience, nearest

HELD_OUT: tuple[Literal["val", "test"], ...] = ("val", "test")
RUNS = ("runs/*/run.json", "runs/*/*/run.json")
BLOCK = 1024  # texts ranked at a time

type Split = Literal["train", "val", "test"]
type Verdict = Literal["better", "hardly better", "worse", "unknown"]


@dataclass(frozen=True)
class Alone:
    """A student that nobody taught, of the same training captions: the best on validation of those that there are.

    Attributes:
        run: its folder.
        sumr: text to video, on the captions that the teacher is asked; None where it was not measured on these.
    """

    run: str
    sumr: float | None


@dataclass(frozen=True)
class TeacherWorth:
    """One teacher.

    Attributes:
        split: whose captions it ranks; texts, videos: how many, among how many.
        t2v, v2t: metrics; None when nothing is ranked.
        interval: of SumR, text to video, 95 % over videos; None for training captions.
        alone: the student without a teacher, where there is one.
        difference: SumR, text to video, of the teacher less the student alone, paired; None where ranks are not kept.
        verdict: beside the student alone; `hardly better` where the interval holds its SumR (0, of the difference).
        expected: the nearest size at which teaching was measured, by a teacher like this one.
    """

    teacher: str
    split: Split
    texts: int
    videos: int
    t2v: Metrics | None
    v2t: Metrics | None
    interval: Interval | None
    alone: Alone | None
    difference: Interval | None
    verdict: Verdict
    expected: Experience | None


@dataclass(frozen=True)
class TeachersWorth:
    """What a store says of its teachers.

    Attributes:
        texts, videos: training captions that teach, and their videos.
        evidence: what the expectations rest on.
    """

    texts: int
    videos: int
    teachers: tuple[TeacherWorth, ...]
    evidence: str = field(default=EVIDENCE)


def teachers_worth(
    store: ScoreStore, config: Config, dataset: Dataset, known: Mapping[str, tuple[Metrics | None, Metrics | None]]
) -> TeachersWorth | None:
    """How good the teachers of a store are for this data set; None where it has none of its training captions.

    Args:
        config: says where runs lie, among which the student alone is looked for.
        known: per teacher `t2v` and `v2t` of everything it scored (`TeacherCard`), told where nothing else can be.

    Raises:
        CacheError: scores are damaged.
    """
    areas = find_areas([store.teacher(name) for name in known])
    there = {key for area in areas for key in area.texts}
    own = _scored(dataset.texts_of("train"), there)
    if not own:
        return None
    videos = len({text.video for text in own})
    asked = {split: _scored(dataset.texts_of(split), there) for split in HELD_OUT}
    alone = alone_run(config, captions_digest(own))
    candidates = sum(len(area.videos) for area in areas)
    found = [
        _worth(name, _held_out(name, asked, areas), on_all, alone, (len(own), videos), candidates)
        for name, on_all in known.items()
    ]
    return TeachersWorth(len(own), videos, tuple(found))


def alone_run(config: Config, captions: str) -> RunFolder | None:
    """The finished run below `work` of a student without a teacher that was trained on these captions; of several the
    one that is best on the validation split.

    Args:
        captions: `captions_digest` of the training captions.
    """
    found: list[tuple[float, RunFolder]] = []
    for path in sorted(each for pattern in RUNS for each in config.work.glob(pattern)):
        with suppress(CacheError, ValueError, LookupError, TypeError):  # a damaged run is none
            folder = RunFolder(path.parent)
            made = folder.made_from()
            if _nobody_taught(made) and made.get("data.train captions") == captions and folder.result is not None:
                value = _validated(folder)
                found.append((-math.inf if value is None else value, folder))
    return max(found, key=lambda each: each[0])[1] if found else None


def _nobody_taught(made: Mapping[str, Any]) -> bool:
    one_hot = made.get("train.loss.coarse_target") == "one-hot" and made.get("train.loss.coarse")
    return made.get("train.network.kind") == "student" and not made.get("train.teachers") and not one_hot


def _validated(folder: RunFolder) -> float | None:
    """SumR, text to video, of the chosen network on the validation videos."""
    chosen = [line for line in folder.metrics() if line.get("kind") == "val" and line.get("selected")]
    return float(chosen[-1]["t2v"]["sumr"]) if chosen else None


def _scored(texts: Sequence[Text], there: set[tuple[str, bytes]]) -> list[Text]:
    return [text for text in texts if (text.id, text_digest(text.caption)) in there]


def _held_out(
    name: str, asked: Mapping[Literal["val", "test"], list[Text]], areas: Sequence[Area]
) -> QueryRanks | None:
    """How a teacher ranks captions of the first split that it has scored whole."""
    ranked = (_ranks(name, split, texts, areas) for split, texts in asked.items())
    return next((found for found in ranked if found is not None), None)


def _ranks(name: str, split: str, texts: Sequence[Text], areas: Sequence[Area]) -> QueryRanks | None:
    """Ranks of a split's captions among its videos; None where not every pair of them is scored."""
    videos = tuple(dict.fromkeys(text.video for text in texts))
    keys = [(text.id, text_digest(text.caption)) for text in texts]
    area = next((each for each in areas if texts and name in each.tiles and keys[0] in set(each.texts)), None)
    if area is None or len(videos) < 2:
        return None
    rows, place = area.rows(name), {key: k for k, key in enumerate(area.texts)}
    column = {video: k for k, video in enumerate(area.videos)}
    if not (set(keys) <= place.keys() and set(videos) <= column.keys()):
        return None
    lines, columns = np.array([place[key] for key in keys]), np.array([column[video] for video in videos])
    index = {video: k for k, video in enumerate(videos)}
    own = np.array([index[text.video] for text in texts])

    def scores(chosen: np.ndarray, part: slice) -> np.ndarray:
        return rows.scores(lines[chosen])[:, columns[part]]

    try:
        ranking = rank(scores, own, len(videos), block=BLOCK, columns=len(videos), top=TOP)
    except DataError:  # a pair that is not scored is not a number
        return None
    ids, captions = tuple(text.id for text in texts), tuple(text.caption for text in texts)
    return QueryRanks(name, split, (), ids, captions, videos, own, ranking.texts, ranking.videos, ranking.first)


def _worth(
    name: str,
    ranks: QueryRanks | None,
    on_all: tuple[Metrics | None, Metrics | None],
    alone: RunFolder | None,
    own: tuple[int, int],
    candidates: int,
) -> TeacherWorth:
    texts, videos = own
    if ranks is None:
        t2v, v2t = on_all
        student = Alone(str(alone.folder), None) if alone else None
        expected = nearest(videos, texts, equal=False)
        queries = t2v.queries if t2v else 0
        return TeacherWorth(name, "train", queries, candidates, t2v, v2t, None, student, None, "unknown", expected)
    metrics, interval = ranks.metrics(), confidence(ranks)["t2v"]["sumr"]
    student, less = (None, None) if alone is None else _beside(ranks, alone)
    verdict = _verdict(interval, less, student)
    expected = nearest(videos, texts, equal=verdict in ("hardly better", "worse"))
    split: Split = "val" if ranks.split == "val" else "test"
    sizes = len(ranks.text_ids), len(ranks.video_ids)
    return TeacherWorth(name, split, *sizes, metrics["t2v"], metrics["v2t"], interval, student, less, verdict, expected)


def _beside(ranks: QueryRanks, alone: RunFolder) -> tuple[Alone, Interval | None]:
    """The student alone on the same captions, and the difference where its ranks are kept."""
    run, path = str(alone.folder), alone.folder / f"ranks-{ranks.split}.npz"
    if path.exists():
        with suppress(DataError):  # damaged, or it was asked something else
            kept = read_query_ranks(path)
            return Alone(run, kept.metrics()["t2v"].sumr), difference(ranks, kept)["t2v"]["sumr"]
    same = alone.made_from().get("data.val captions") == captions_digest(_texts(ranks))
    return Alone(run, _validated(alone) if ranks.split == "val" and same else None), None


def _texts(ranks: QueryRanks) -> list[Text]:
    own = ranks.text_video.tolist()
    return [
        Text(id, ranks.video_ids[video], caption)
        for id, video, caption in zip(ranks.text_ids, own, ranks.captions, strict=True)
    ]


def _verdict(interval: Interval, less: Interval | None, alone: Alone | None) -> Verdict:
    if less is not None:
        low, high = less.low, less.high
    elif alone is not None and alone.sumr is not None:
        low, high = interval.low - alone.sumr, interval.high - alone.sumr
    else:
        return "unknown"
    return "better" if low > 0 else "worse" if high < 0 else "hardly better"
