"""Caption denoising: captions that the teachers cannot place are left out of training (specs: TeachText 5, 8.4).

TeachText trained on masks of captions and published them, but not the rule that made them. The rule here is teachclip's
own: a caption is kept when its own video ranks at K or better among all training videos, by the mean of the cached
similarities of one or several teachers.
"""

import time
from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np

from ...cache.scores.reading.reader import ScoreReader
from ...cache.scores.store import ScoreStore
from ...cache.storage.identity import identity_digest
from ...configs.schema import Config, DenoiseConfig
from ...errors import CacheError, ConfigError, DataError
from ...plurals import counted
from ...remedies import Change, Remedy, Score
from ..data.teacher_frames import TeacherFrames
from ..data.usable_split import UsableSplit, usable_split
from ..data.views import student_view, texts_of
from ..runtime.reporting import Reporter, Silent
from .caption_mask import CaptionMask, captions_digest
from .named_teachers import made_from, told_how_to_score
from .open_scores import open_reader

PAIRS_AT_ONCE = 1 << 22  # scores held at a time, of each teacher
WORST = 5


@dataclass(frozen=True)
class RankedCaption:
    """A caption, its own video, and that video's rank; 1 is best, equal scores share their mean rank."""

    id: str
    video: str
    caption: str
    rank: float


@dataclass(frozen=True)
class DenoiseResult:
    """What was ranked, and what is left out.

    Attributes:
        mask: where the mask lies, as `train.captions_mask` names it, below `work`.
        keep: worst rank that is kept; last: what became of videos that would have lost all captions.
        texts, videos: captions and videos ranked; left_out_videos: those without usable frames.
        kept, dropped: numbers of captions.
        kept_last: videos of which one caption was kept all the same; removed: videos that lost all their captions.
        median: of all ranks.
        worst: captions that rank worst, for a look.
    """

    mask: str
    teachers: tuple[str, ...]
    keep: int
    last: str
    texts: int
    videos: int
    left_out_videos: int
    kept: int
    dropped: int
    kept_last: tuple[str, ...]
    removed: tuple[str, ...]
    median: float
    worst: tuple[RankedCaption, ...]
    seconds: float


def denoise(config: Config, reporter: Reporter | None = None) -> DenoiseResult:
    """Rank the captions of the training split by cached scores, and write the mask that `train.captions_mask` names.

    Raises:
        ConfigError: no teacher is named.
        DataError: fewer than two captions, or fewer than two would be left.
        CacheError: scores are missing, incomplete or damaged, or of blocks of videos.
        CacheMismatchError: captions or frames changed since they were made.
    """
    reporter, begun, settings = reporter or Silent(), time.monotonic(), config.denoise
    names = _teachers(config)
    dataset = texts_of(config)
    store = ScoreStore.open(config.score_store)
    seen = TeacherFrames(config, names, student_view(config, dataset), made_from(store, names))
    split = usable_split(dataset, ["train"], *seen.views)
    if len(split.texts) < 2:
        raise DataError("fewer than two usable captions to rank", where=str(config.data.origin))
    caches, readers = [], []
    for name in names:
        with told_how_to_score(config, store, "denoise.teachers", names, name):
            caches.append(store.teacher(name))
            readers.append(open_reader(caches[-1], split, seen[name], config.train.accept, reporter)[0])
    if any(reader.groups is not None for reader in readers):
        raise CacheError(
            "scores within blocks of videos: ranks among all videos need every pair",
            where=str(config.score_store),
            hint=Remedy("add the pairs that are missing", Score({"score.layout": "dense"})),
        )
    ranks = own_video_ranks(readers, split.text_video, len(split.videos), settings, reporter)
    dropped, kept_last, removed = choose_dropped(ranks, split.text_video, settings)
    if len(ranks) - dropped.sum() < 2:
        raise DataError(
            f"of {counted(len(ranks), 'caption')} {len(ranks) - dropped.sum()} would be left",
            hint=Remedy("keep worse ranks", Change({"denoise.keep": max(settings.keep, int(np.median(ranks)) + 1)})),
        )
    mask = CaptionMask(
        settings.keep,
        settings.combine,
        settings.last,
        {cache.name: identity_digest(cache.identity) for cache in caches},
        len(split.texts),
        len(split.videos),
        captions_digest(dataset.texts_of("train")),
        _ids(split, ranks, dropped),
        _ids(split, ranks, kept_last),
        tuple(split.videos[video] for video in removed),
    )
    mask.write(config.denoise_mask)
    if len(split.videos) <= settings.keep:
        reporter.warn(
            f"denoise.keep is {settings.keep}, of {counted(len(split.videos), 'video')}: no caption can rank worse"
        )
    return _result(config, mask, names, split, ranks, time.monotonic() - begun)


def own_video_ranks(
    readers: Sequence[ScoreReader], text_video: np.ndarray, videos: int, settings: DenoiseConfig, reporter: Reporter
) -> np.ndarray:
    """Rank [T] of each caption's own video among all V, by the mean of the readers' scores; ties share their mean rank.

    Rows are read in blocks: memory grows with V, never with T x V.
    """
    count = max(1, PAIRS_AT_ONCE // videos)
    ranks, every = np.empty(len(text_video)), np.arange(videos)
    with reporter.progress("ranks of captions' own videos", len(ranks), "caption") as progress:
        for start in range(0, len(ranks), count):
            texts = np.arange(start, min(start + count, len(ranks)))
            mean = np.zeros((len(texts), videos))
            for reader in readers:
                scores = reader.read(texts, every).coarse.astype(np.float64)
                mean += _standardised(scores) if settings.combine == "standardised" else scores
            own = np.take_along_axis(mean, text_video[texts, None], axis=1)
            ranks[texts] = 1 + (mean > own).sum(axis=1) + ((mean == own).sum(axis=1) - 1) / 2
            progress.advance(len(texts))
    return ranks


def choose_dropped(
    ranks: np.ndarray, text_video: np.ndarray, settings: DenoiseConfig
) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """Which captions are left out [T], which are kept only as their videos' last [T], and the videos that lose all."""
    dropped, kept_last = ranks > settings.keep, np.zeros(len(ranks), np.bool_)
    emptied = np.setdiff1d(text_video, text_video[~dropped])
    if settings.last == "drop-video":
        return dropped, kept_last, emptied
    best_first = np.lexsort((ranks, text_video))
    kept_last[best_first[np.searchsorted(text_video[best_first], emptied)]] = True
    return dropped & ~kept_last, kept_last, emptied[:0]


def _standardised(scores: np.ndarray) -> np.ndarray:
    """Each caption's scores [t, V] at mean 0 and deviation 1, so that no teacher outweighs another by its spread."""
    deviation = scores.std(axis=1, keepdims=True)
    return (scores - scores.mean(axis=1, keepdims=True)) / np.where(deviation > 0, deviation, 1)


def _teachers(config: Config) -> tuple[str, ...]:
    names = config.denoise.teachers or config.train.teachers or tuple(one.name for one in config.score.teachers)
    if not names:
        raise ConfigError(
            "no teacher is named whose scores could rank captions",
            hint=Remedy("name one that has scored", Change({"denoise.teachers": "[xclip]"})),
        )
    return names


def _ids(split: UsableSplit, ranks: np.ndarray, chosen: np.ndarray) -> dict[str, float]:
    return {split.texts[text].id: float(ranks[text]) for text in np.flatnonzero(chosen)}


def _result(
    config: Config, mask: CaptionMask, names: tuple[str, ...], split: UsableSplit, ranks: np.ndarray, seconds: float
) -> DenoiseResult:
    worst = [split.texts[text] for text in np.argsort(-ranks, kind="stable")[:WORST]]
    by_id = {text.id: float(rank) for text, rank in zip(split.texts, ranks, strict=True)}
    return DenoiseResult(
        mask=str(config.denoise.mask),
        teachers=names,
        keep=mask.keep,
        last=mask.last,
        texts=mask.texts,
        videos=mask.videos,
        left_out_videos=split.left_out,
        kept=mask.texts - len(mask.dropped),
        dropped=len(mask.dropped),
        kept_last=tuple(text.video for text in split.texts if text.id in mask.kept_last),
        removed=mask.removed_videos,
        median=float(np.median(ranks)),
        worst=tuple(RankedCaption(text.id, text.video, text.caption, by_id[text.id]) for text in worst),
        seconds=seconds,
    )
