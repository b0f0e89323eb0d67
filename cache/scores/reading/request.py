"""What the tiles of a store hold of a request; what changed since, or was never scored, is refused."""

from collections.abc import Sequence

import numpy as np

from ....errors import CacheMismatchError
from ....plurals import counted
from ....remedies import AcceptPixels, DescribeScores, Remedy, Score
from ...storage.locations import Location
from ..lookup import Held, look_up, renumbered
from ..tile import Key, Tile

_SHOWN = 5
_ELSEWHERE = Score({"score.store": "OTHER.zarr"})
_OTHER_CAPTIONS = Remedy("undo the change, or score into another store", _ELSEWHERE)
_SCORE_THEM = Remedy("score what is new, nothing that is there changes", Score())
_OTHER_FRAMES = Remedy(
    "undo the change, name the frame cache of a teacher that saw other frames as its `prepared`, or score into another "
    "store",
    _ELSEWHERE,
    otherwise=Remedy("let scores of the same data set teach, prepared elsewhere at the same times", AcceptPixels()),
)
SAME_TIME = 1e-6
"""Seconds by which two decoders' times of one frame may differ."""


def some_of(chosen: np.ndarray, keys: Sequence[Key]) -> list[str]:
    ids = [keys[i][0] for i in np.flatnonzero(chosen)[:_SHOWN]]
    more = np.count_nonzero(chosen) - len(ids)
    return [*ids, *([f"... and {more:,} more"] if more else [])]


def changed(keys: Sequence[Key], held: Sequence[tuple[np.ndarray, np.ndarray]]) -> np.ndarray:
    """Whose digest is another: bool [N].

    Args:
        keys: N texts or videos.
        held: per tile, the places of those that it holds, and its digests of them [n,16].
    """
    expected = np.frombuffer(b"".join(key for _, key in keys), dtype=np.uint8).reshape(len(keys), 16)
    found = np.zeros(len(keys), dtype=bool)
    for places, digests in held:
        found[places] |= (digests != expected[places]).any(axis=1)
    return found


def _refuse_changed(folder: Location, what: str, keys: Sequence[Key], changed: np.ndarray) -> None:
    if changed.any():
        raise CacheMismatchError(
            f"{what} changed since the scores were made",
            where=str(folder),
            hint=_OTHER_FRAMES if what == "frames" else _OTHER_CAPTIONS,
            details=some_of(changed, keys),
        )


def refuse_unscored(folder: Location, what: str, keys: Sequence[Key], held: list[np.ndarray]) -> None:
    absent = np.ones(len(keys), dtype=bool)
    for places in held:
        absent[places] = False
    if absent.any():
        raise CacheMismatchError(
            f"{counted(int(absent.sum()), f'{what[:-1]} has', f'{what} have')} no scores",
            where=str(folder),
            hint=_SCORE_THEM,
            details=some_of(absent, keys),
        )


def _refuse_other_times(
    folder: Location, videos: Sequence[Key], other: np.ndarray, held: Sequence[Held], times: np.ndarray
) -> None:
    """Refuse videos with other pixels whose frames are not of the moments that the teacher saw."""
    moved = np.zeros(len(videos), dtype=bool)
    for one in held:
        chosen = other[one.videos]
        here = one.videos[chosen]
        seen = one.tile.frame_times[one.columns[chosen]]
        same = seen.shape == times[here].shape and np.isclose(seen, times[here], rtol=0, atol=SAME_TIME, equal_nan=True)
        moved[here] |= ~np.broadcast_to(same, seen.shape).all(axis=1)
    if moved.any():
        raise CacheMismatchError(
            f"frames of {counted(int(moved.sum()), 'video')} are "
            "of other moments than those that were scored: more than "
            "their pixels differs",
            where=str(folder),
            hint=Remedy(
                "prepare the frames with the settings that the scores were made with",
                DescribeScores(str(folder.parent), folder.name),
            ),
            details=some_of(moved, videos),
        )


def find(
    folder: Location,
    tiles: Sequence[Tile],
    texts: Sequence[Key],
    videos: Sequence[Key],
    times: np.ndarray | None = None,
) -> list[Held]:
    """What each tile holds of these texts and videos; `times` as in `ScoreCache.reader`.

    Texts that stand in another order in their file now are found by what they say.

    Raises:
        CacheMismatchError: captions or frames changed; names them.
    """
    texts = renumbered(tiles, texts)
    held = look_up(tiles, [key for key, _ in texts], [key for key, _ in videos])
    other = changed(texts, [(one.texts, one.tile.text_digests[one.rows]) for one in held])
    _refuse_changed(folder, "captions", texts, other)
    other = changed(videos, [(one.videos, one.tile.video_digests[one.columns]) for one in held])
    if times is None:
        _refuse_changed(folder, "frames", videos, other)
    else:
        _refuse_other_times(folder, videos, other, held, times)
    return held
