"""What `evaluate` found query by query, as a file: for comparisons between runs without running networks again.

A `.npz` without pickles. `meta` is UTF-8 JSON in a uint8 array: format, run, split, marks, and the ids of texts and
videos with the texts' captions. The other entries are numbers, see `QueryRanks` and docs/evaluation.md.
"""

import json
import zipfile
from collections.abc import Mapping
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

import numpy as np

from ...cache.storage.publish import publishing
from ...errors import DataError
from ...remedies import Evaluate, Remedy
from .metrics import Array, Metrics, Ranks, Ties, metrics_of, one_caption_each

FORMAT = 1
TOP = 10
_COUNTS = ("better", "equal", "equal_before")


@dataclass(frozen=True)
class QueryRanks:
    """Where each query's own answer stands, for T texts and V videos, each of which has a text.

    Attributes:
        run, split, data: what was measured on what (`data`: name of the test set, where there are several).
        marks: in words, why these numbers do not compare with others.
        text_ids, captions [T]; video_ids [V].
        text_video: index of each text's own video [T].
        texts: ranks of the texts' own videos [T]; videos: of the videos' own groups of texts [V].
        first: the ten best videos of each text, best first [T, min(10, V)]; -1 where there is none.
    """

    run: str
    split: str
    marks: tuple[str, ...]
    text_ids: tuple[str, ...]
    captions: tuple[str, ...]
    video_ids: tuple[str, ...]
    text_video: Array
    texts: Ranks
    videos: Ranks
    first: Array
    data: str = ""

    def metrics(self, ties: Ties = "fair") -> dict[str, Metrics]:
        """The metrics `t2v` and `v2t` of these ranks."""
        return metrics_of(self.texts, self.videos, ties, one_caption_each(self.text_video, len(self.video_ids)))


def save_query_ranks(path: Path, ranks: QueryRanks) -> None:
    """Write `ranks`, complete or not at all."""
    meta = {"format": FORMAT, "run": ranks.run, "data": ranks.data, "split": ranks.split, "marks": ranks.marks}
    meta |= {"text_ids": ranks.text_ids, "captions": ranks.captions, "video_ids": ranks.video_ids}
    arrays: dict[str, Array] = {"meta": np.frombuffer(json.dumps(meta).encode(), np.uint8)}
    for way, counts in (("t2v", ranks.texts), ("v2t", ranks.videos)):
        arrays |= {f"{way}_{name}": value.astype(np.int32) for name, value in asdict(counts).items()}
    arrays |= {"text_video": ranks.text_video.astype(np.int32), "first": ranks.first.astype(np.int32)}
    with publishing(path) as temporary, temporary.open("wb") as file:
        np.savez_compressed(file, allow_pickle=False, **arrays)


def read_query_ranks(path: Path) -> QueryRanks:
    """What `save_query_ranks` wrote.

    Raises:
        DataError: there is no such file, it is damaged, or of another format.
    """
    again = Remedy("evaluate the run again", Evaluate())
    try:
        with path.open("rb") as file, np.load(file, allow_pickle=False) as arrays:
            found = _read(arrays, path)
    except FileNotFoundError:
        raise DataError("no such ranks", where=str(path), hint=again) from None
    except (OSError, ValueError, KeyError, TypeError, EOFError, zipfile.BadZipFile) as error:
        raise DataError("this file of ranks is damaged", where=str(path), hint=again) from error
    if not _whole(found):
        raise DataError("this file of ranks is damaged: its parts do not fit together", where=str(path), hint=again)
    return found


def _read(arrays: Mapping[str, Array], path: Path) -> QueryRanks:
    meta: dict[str, Any] = json.loads(bytes(arrays["meta"]).decode())
    if meta["format"] != FORMAT:
        raise DataError(f"ranks of format {meta['format']}, this release reads {FORMAT}", where=str(path))
    texts, videos = (Ranks(*(arrays[f"{way}_{name}"].astype(np.int64) for name in _COUNTS)) for way in ("t2v", "v2t"))
    return QueryRanks(
        run=str(meta["run"]),
        split=str(meta["split"]),
        marks=tuple(meta["marks"]),
        text_ids=tuple(meta["text_ids"]),
        captions=tuple(meta["captions"]),
        video_ids=tuple(meta["video_ids"]),
        text_video=arrays["text_video"].astype(np.int64),
        texts=texts,
        videos=videos,
        first=arrays["first"].astype(np.int64),
        data=str(meta["data"]),
    )


def _whole(ranks: QueryRanks) -> bool:
    texts, videos = len(ranks.text_ids), len(ranks.video_ids)
    lengths = {len(ranks.captions), len(ranks.text_video), len(ranks.first), *_lengths(ranks.texts)}
    return (
        texts > 0
        and lengths == {texts}
        and _lengths(ranks.videos) == {videos}
        and np.array_equal(np.unique(ranks.text_video), np.arange(videos))
        and int(ranks.first.min(initial=-1)) >= -1
        and int(ranks.first.max(initial=-1)) < videos
    )


def _lengths(ranks: Ranks) -> set[int]:
    return {len(getattr(ranks, name)) for name in _COUNTS}
