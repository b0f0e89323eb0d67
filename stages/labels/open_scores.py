"""Opening a teacher's cached scores for a split; whether scores made of other pixels will do is decided here."""

from collections.abc import Sequence
from typing import Literal

import numpy as np

from ...cache.scores.reading.reader import ScoreReader
from ...cache.scores.store import ScoreCache
from ...cache.storage.identity import refuse_difference, text_digest
from ...plurals import counted
from ..data.usable_split import UsableSplit
from ..data.views import ExpertView, View
from ..runtime.reporting import Reporter


def open_reader(
    cache: ScoreCache,
    split: UsableSplit,
    frames: View,
    accept: Sequence[Literal["pixels"]],
    reporter: Reporter,
    *,
    holes: bool = False,
) -> tuple[ScoreReader, np.ndarray]:
    """A reader of the scores of a split, and which of its videos have other frames than were scored (bool [V]).

    Args:
        frames: what the teacher would see now.
        accept: with `pixels`, scores that were made of other frames will do: the same data set prepared elsewhere,
            whose pixels come from another decoder. Everything else that is known of the frames must agree: when they
            were taken (to a microsecond), and how they were chosen, sized and stored.

        holes: NaN will do for pairs that a sparse teacher did not score.

    Raises:
        CacheMismatchError: captions or frames changed since, and how; or something has no scores.
        CacheError: shards are not complete, or damaged; or scores are sparse, and every pair is needed.
    """
    texts = [(text.id, text_digest(text.caption)) for text in split.texts]
    videos = [(video, frames.digest(video)) for video in split.videos]
    other = cache.changed_videos(videos)
    if "pixels" not in accept or not other.any() or isinstance(frames, ExpertView):
        return cache.reader(texts, videos, holes=holes), other
    refuse_difference(
        {f"prepare.{key}": value for key, value in frames.identity.items()},
        {key: value for key, value in cache.identity.items() if key.startswith("prepare.")},
        where=str(cache.folder),
        hint="`pixels` accepts other pixels of the same frames only: prepare them with the cache's settings",
    )
    reader = cache.reader(texts, videos, frames.times(split.videos), holes=holes)
    reporter.warn(
        f"{cache.name}: scores of other pixels are accepted for "
        f"{np.count_nonzero(other):,} of {counted(len(videos), 'video')}"
    )
    return reader, other
