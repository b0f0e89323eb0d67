"""The teachers' report card, from the score cache alone: what each knows, where they agree, which captions they doubt.

Everything is of the captions that were scored, as a rule the training set: what a teacher was trained on it ranks
better than anything new. Rows are read in blocks: memory grows with texts + videos and the block, never with T x V.
Notation: T texts, V videos, t texts of a block.
"""

import time
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from itertools import combinations

import numpy as np

from ...cache.scores.joined import Area, AreaRows, find_areas
from ...cache.scores.store import ScoreStore
from ...cache.storage.identity import text_digest
from ...configs.schema import Config
from ...errors import CacheError
from ...remedies import Remedy, Score
from ..data.dataset import Dataset
from ..retrieval.metrics import Metrics, Ranks, count_ranks, fair_metrics
from ..runtime.reporting import Progress, Reporter, Silent
from .agreement import Agreement, Meeting, Rows
from .teacher_weights import suggested_weights
from .teacher_worth import TeachersWorth, teachers_worth

PAIRS_AT_ONCE = 1 << 20  # of each teacher
WORST = 20
QUANTILES = tuple(range(0, 101, 5))


@dataclass(frozen=True)
class Flatness:
    """How flat y_f is, the softmax of frame-text logits at temperature 1 that the fine loss teaches.

    Attributes:
        texts: captions whose video has at least two frames.
        mean: of the normalised entropy, that of y_f over that of equal weights: 1 is flat, 0 is a single frame.
        quantiles: of it, percent of captions -> value.
        peak: mean of the largest weight times the number of frames: 1 is flat.
    """

    texts: int
    mean: float
    quantiles: dict[int, float]
    peak: float


@dataclass(frozen=True)
class TeacherCard:
    """One teacher on the captions it scored.

    Attributes:
        texts: captions ranked; left_out: those whose pair with their own video is not scored (yet).
        fewest, most: videos that a caption's own was ranked among.
        t2v, v2t: metrics (metrics.py, fair ties); None when there is nothing to rank.
        normalised: mean of captions' normalised ranks: 0 the first place, 1 the last, 0.5 chance.
        separation: mean of how many standard deviations the own video's score lies above the mean of its row.
        flatness: None without frame-text logits.
    """

    teacher: str
    texts: int
    left_out: int
    fewest: int
    most: int
    t2v: Metrics | None
    v2t: Metrics | None
    normalised: float | None
    separation: float | None
    flatness: Flatness | None


@dataclass(frozen=True)
class Misplaced:
    """Where a teacher ranks a caption's own video, among how many, and what it ranks first instead.

    Attributes:
        instead: id of that video, None when it is the own one; says: one of its captions, when captions are given.
    """

    teacher: str
    rank: float
    candidates: int
    instead: str | None
    says: str | None


@dataclass(frozen=True)
class DoubtfulCaption:
    """A caption whose own video ranks badly with all teachers: its text may belong to another video.

    Attributes:
        id, video: ids of the caption and of its own video; caption: its text, when captions are given.
        place: geometric mean over the teachers of rank / candidates: near 1 where all of them rank the video last; a
            single one that ranks it well brings it down.
        teachers: teacher by teacher.
    """

    id: str
    video: str
    caption: str | None
    place: float
    teachers: tuple[Misplaced, ...]


@dataclass(frozen=True)
class ReportCard:
    """What `report_card` found.

    Attributes:
        store: where; texts, videos: of all teachers together.
        teachers: one by one; agreement: of each two.
        doubtful: the captions that rank worst, worst first.
        weights: suggested for `train.loss.teacher_weights` (teacher_weights.py), sum 1; None for fewer than two.
        other_captions: captions that were given, but have changed since they were scored.
        worth: whether the teachers are any good for a data set; None where none was given, or it was not scored.
    """

    store: str
    texts: int
    videos: int
    teachers: tuple[TeacherCard, ...]
    agreement: tuple[Agreement, ...]
    doubtful: tuple[DoubtfulCaption, ...]
    weights: dict[str, float] | None
    other_captions: int
    seconds: float
    worth: TeachersWorth | None = None


def report_card(
    store: ScoreStore,
    captions: Mapping[str, str] | None = None,
    reporter: Reporter | None = None,
    asked: tuple[Config, Dataset] | None = None,
) -> ReportCard:
    """The report card of every teacher in a store; what is not scored yet is left out.

    Args:
        store: the score store.
        captions: text by id, to show beside ids.
        asked: a configuration and its data set, which the teachers may be good for.

    Raises:
        CacheError: no teacher has scores, or they are damaged.
    """
    begun, reporter = time.monotonic(), reporter or Silent()
    caches = [store.teacher(name) for name in store.teachers]
    areas = find_areas(caches)
    if not areas:
        raise CacheError(
            "no teacher has scores here", where=str(store.path), hint=Remedy("score the videos first", Score())
        )
    tallies = [_Tally(cache.name, areas) for cache in caches]
    meetings = {pair: Meeting(*pair) for pair in combinations([cache.name for cache in caches], 2)}
    # Ranking reads each row twice, comparing once.
    total = sum(len(area.texts) * (1 + 2 * len(area.tiles)) for area in areas)
    with reporter.progress("report card", total, "row") as progress:
        for number, area in enumerate(areas):
            rows = {tally.teacher: area.rows(tally.teacher) for tally in tallies if tally.teacher in area.tiles}
            for tally in tallies:
                if tally.teacher in rows:
                    tally.rank(number, rows[tally.teacher], progress)
            _look(number, area, rows, tallies, meetings, progress)
    agreement = tuple(meeting.result() for meeting in meetings.values())
    known, changed = _known_captions(areas, captions or {})
    if captions and not known:
        reporter.warn("none of the captions that were given is as it was scored: ids are shown without text")
    cards = tuple(tally.card() for tally in tallies)
    return ReportCard(
        str(store.path),
        sum(len(area.texts) for area in areas),
        sum(len(area.videos) for area in areas),
        cards,
        agreement,
        _doubtful(areas, tallies, known),
        suggested_weights({card.teacher: card.separation for card in cards}, agreement),
        changed,
        time.monotonic() - begun,
        teachers_worth(store, *asked, {card.teacher: (card.t2v, card.v2t) for card in cards}) if asked else None,
    )


class _Tally:
    """What is found of one teacher, text by text; areas one after the other. NaN (or -1) where there is nothing."""

    def __init__(self, teacher: str, areas: Sequence[Area]) -> None:
        self.teacher = teacher
        sizes = [len(area.texts) for area in areas]
        self.starts = np.cumsum([0, *sizes])
        self.held = np.zeros(self.starts[-1], dtype=bool)  # texts of this teacher's tiles
        self.rank_of, self.separation, self.entropy, self.peak = (np.full(self.starts[-1], np.nan) for _ in range(4))
        self.candidates, self.first = (np.full(self.starts[-1], -1) for _ in range(2))
        self.text_ranks: list[Ranks] = []
        self.video_ranks: list[Ranks] = []

    def rank(self, number: int, rows: AreaRows, progress: Progress) -> None:
        """Ranks in an area of the captions' own videos, and of the videos' own captions."""
        ranked = np.flatnonzero(rows.own)
        self.held[self.starts[number] : self.starts[number + 1]] = rows.held
        if not len(ranked):
            return
        videos = len(rows.area.videos)

        def scores(texts: np.ndarray, columns: slice) -> np.ndarray:
            progress.advance(len(texts))
            found = rows.scores(ranked[texts])[:, columns]
            return np.where(np.isnan(found), np.float32(-np.inf), found)

        block = max(1, PAIRS_AT_ONCE // videos)
        texts, groups = count_ranks(scores, rows.area.own[ranked], videos, block, videos)
        self.rank_of[self.starts[number] + ranked] = texts.expected
        self.text_ranks.append(texts)
        self.video_ranks.append(groups)

    def look(self, number: int, texts: np.ndarray, rows: Rows, area: Area, logits: np.ndarray | None) -> None:
        """Take in a block of texts of an area."""
        places = self.starts[number] + texts
        self.candidates[places] = rows.known.sum(axis=1)
        self.first[places] = np.where(rows.known.any(axis=1), rows.ordered.argmax(axis=1), -1)
        own = area.own[texts]
        here = np.flatnonzero(own >= 0)
        self.separation[places[here]] = rows.deviations(here, own[here])
        if logits is not None:
            self.entropy[places], self.peak[places] = frame_entropy(logits)

    def card(self) -> TeacherCard:
        ranked = ~np.isnan(self.rank_of)
        candidates = self.candidates[ranked]
        several = candidates > 1
        normalised = self.normalised()[ranked][several]
        return TeacherCard(
            self.teacher,
            int(ranked.sum()),
            int((self.held & ~ranked).sum()),
            int(candidates.min(initial=np.iinfo(np.int64).max)) if ranked.any() else 0,
            int(candidates.max(initial=0)),
            fair_metrics(_joined(self.text_ranks)) if self.text_ranks else None,
            fair_metrics(_joined(self.video_ranks)) if self.video_ranks else None,
            float(normalised.mean()) if len(normalised) else None,
            float(self.separation[ranked][several].mean()) if several.any() else None,
            _flatness(self.entropy, self.peak),
        )

    def normalised(self) -> np.ndarray:
        """(rank - 1) / (candidates - 1) [T]; NaN where nothing is ranked."""
        return (self.rank_of - 1) / np.where(self.candidates > 1, self.candidates - 1, np.nan)


def _joined(ranks: Sequence[Ranks]) -> Ranks:
    fields = ("better", "equal", "equal_before")
    return Ranks(*(np.concatenate([getattr(part, name) for part in ranks]) for name in fields))


def _look(
    number: int,
    area: Area,
    rows: Mapping[str, AreaRows],
    tallies: Sequence[_Tally],
    meetings: Mapping[tuple[str, str], Meeting],
    progress: Progress,
) -> None:
    """Read an area once more, all of its teachers side by side."""
    step = max(1, PAIRS_AT_ONCE // len(area.videos))
    for start in range(0, len(area.texts), step):
        texts = np.arange(start, min(start + step, len(area.texts)))
        block = {name: Rows(each.scores(texts)) for name, each in rows.items()}
        for tally in tallies:
            if tally.teacher in block:
                logits = rows[tally.teacher].frame_logits(texts)
                tally.look(number, texts, block[tally.teacher], area, logits)
        for (first, second), meeting in meetings.items():
            if first in block and second in block:
                meeting.add(block[first], block[second])
        progress.advance(len(texts))


def frame_entropy(logits: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """Normalised entropy [t] of y_f = softmax(logits) over the frames that there are, and the largest weight times
    their number [t]; NaN for fewer than two frames. `logits` [t,F], NaN where there is no frame."""
    valid = ~np.isnan(logits)
    frames = valid.sum(axis=1)
    entropy, peak = (np.full(len(logits), np.nan) for _ in range(2))
    several = frames > 1
    values = np.where(valid, logits, -np.inf)[several].astype(np.float64)
    weights = np.exp(values - values.max(axis=1, keepdims=True))
    weights /= weights.sum(axis=1, keepdims=True)
    logarithms = np.log(np.where(weights > 0, weights, 1))
    entropy[several] = -(weights * logarithms).sum(axis=1) / np.log(frames[several])
    peak[several] = weights.max(axis=1) * frames[several]
    return entropy, peak


def _flatness(entropy: np.ndarray, peak: np.ndarray) -> Flatness | None:
    known = entropy[~np.isnan(entropy)].clip(0, 1)
    if not len(known):
        return None
    quantiles = dict(zip(QUANTILES, map(float, np.percentile(known, QUANTILES)), strict=True))
    return Flatness(len(known), float(known.mean()), quantiles, float(np.nanmean(peak)))


def _known_captions(areas: Sequence[Area], captions: Mapping[str, str]) -> tuple[dict[str, str], int]:
    """The captions that are as they were scored; and how many are not."""
    keys = [key for area in areas for key in area.texts if key[0] in captions]
    known = {key: captions[key] for key, digest in keys if text_digest(captions[key]) == digest}
    return known, len({key for key, _ in keys}) - len(known)


def _doubtful(
    areas: Sequence[Area], tallies: Sequence[_Tally], captions: Mapping[str, str]
) -> tuple[DoubtfulCaption, ...]:
    logarithms = np.array([np.log(tally.rank_of / tally.candidates.clip(1)) for tally in tallies])
    ranked = ~np.isnan(logarithms)
    means = np.exp(np.where(ranked, logarithms, 0).sum(axis=0) / ranked.sum(axis=0).clip(1))
    # A caption whose own video all rank first is beyond doubt.
    beaten = (np.array([tally.rank_of for tally in tallies]) > 1).any(axis=0)
    starts = tallies[0].starts
    says = _first_captions(areas, captions)
    worst = []
    for place in np.argsort(np.where(beaten, -means, 1), kind="stable")[:WORST]:
        if beaten[place]:
            number = int(np.searchsorted(starts, place, side="right")) - 1
            area, row = areas[number], int(place - starts[number])
            key = area.texts[row][0]
            misplaced = tuple(
                _misplaced(tally, int(place), area, int(area.own[row]), says)
                for tally in tallies
                if not np.isnan(tally.rank_of[place])
            )
            own = area.videos[area.own[row]]
            worst.append(DoubtfulCaption(key, own, captions.get(key), float(means[place]), misplaced))
    return tuple(worst)


def _misplaced(tally: _Tally, place: int, area: Area, own: int, says: Mapping[str, str]) -> Misplaced:
    first = int(tally.first[place])
    instead = area.videos[first] if first not in (own, -1) else None
    rank, candidates = float(tally.rank_of[place]), int(tally.candidates[place])
    return Misplaced(tally.teacher, rank, candidates, instead, says.get(instead) if instead is not None else None)


def _first_captions(areas: Sequence[Area], captions: Mapping[str, str]) -> dict[str, str]:
    """One caption of each video."""
    found: dict[str, str] = {}
    for area in areas if captions else ():
        for (key, _), own in zip(area.texts, area.own.tolist(), strict=True):
            if own >= 0 and key in captions:
                found.setdefault(area.videos[own], captions[key])
    return found
