"""Which of the texts and videos that somebody asks for a cache's tiles hold, and which pairs of them.

Everything here takes time and memory that grow with the request and the tiles, not with their product.
"""

from collections import defaultdict
from collections.abc import Sequence
from dataclasses import dataclass
from itertools import count

import numpy as np

from .tile import Key, Tile


@dataclass(frozen=True)
class Held:
    """What one tile holds of a request.

    Attributes:
        tile: the tile.
        texts, videos: places in the request, ascending; rows, columns: where these lie in the tile.
    """

    tile: Tile
    texts: np.ndarray
    rows: np.ndarray
    videos: np.ndarray
    columns: np.ndarray

    @property
    def pairs(self) -> bool:
        """Whether there is any pair among them."""
        return bool(len(self.texts) and len(self.videos))


def look_up(tiles: Sequence[Tile], texts: Sequence[str], videos: Sequence[str]) -> list[Held]:
    """What each tile holds of these texts and videos, whose ids are unique."""
    text_places = {key: place for place, key in enumerate(texts)}
    video_places = {key: place for place, key in enumerate(videos)}
    found = []
    for tile in tiles:
        rows = _places(tile.text_ids, text_places)
        columns = _places(tile.video_ids, video_places)
        found.append(Held(tile, *rows, *columns))
    return found


def renumbered(tiles: Sequence[Tile], texts: Sequence[Key]) -> Sequence[Key]:
    """The same texts under the ids that the tiles have them under.

    An id is `{video}#{k}` by the order of a file, which may be another now, or have fewer captions. Where a text is not
    what the tiles have under its id, that video's texts are matched by digest. A text that is in no tile keeps its id,
    unless another text has it now: then it gets the next that is free.
    """
    stored: dict[str, bytes] = {}
    for tile in tiles:
        stored |= zip(tile.text_ids, map(bytes, tile.text_digests), strict=True)
    moved = {_video(key) for key, digest in texts if stored.get(key, digest) != digest}
    if not moved:
        return texts
    there: dict[str, dict[bytes, list[str]]] = defaultdict(lambda: defaultdict(list))
    for key, digest in stored.items():
        if (video := _video(key)) in moved:
            there[video][digest].append(key)
    asked = {key: digest for key, digest in texts if _video(key) in moved}
    named = {key: key for key, digest in asked.items() if stored.get(key) == digest}
    taken = set(named)
    for key, digest in asked.items():
        free = (other for other in there[_video(key)][digest] if other not in taken)
        if key not in named and (found := next(free, None)):
            named[key] = found
            taken.add(found)
    for key in asked.keys() - named.keys():
        if key not in taken:
            named[key] = key  # new, or a caption that was changed
            taken.add(key)
    for key in asked:
        if key not in named:
            free = (f"{_video(key)}#{k}" for k in count())
            named[key] = next(other for other in free if other not in taken and other not in stored)
            taken.add(named[key])
    return [(named.get(key, key), digest) for key, digest in texts]


def _video(text: str) -> str:
    return text.rpartition("#")[0]


def _places(ids: Sequence[str], places: dict[str, int]) -> tuple[np.ndarray, np.ndarray]:
    """Places of those `ids` that have one, ascending; and their indices in `ids`."""
    place = np.fromiter((places.get(key, -1) for key in ids), np.int64, len(ids))
    inside = np.flatnonzero(place >= 0)
    order = inside[np.argsort(place[inside], kind="stable")]
    return place[order], order


class Coverage:
    """Which pairs of a request some tile holds.

    Texts fall into classes: those of one class have places in tiles with the same videos.

    Attributes:
        text_class: the class of each text, int64 [T].
        videos: by class, the videos that all its texts are held with, ascending.
    """

    def __init__(self, held: Sequence[Held], texts: int) -> None:
        label, tiles_of = np.zeros(texts, np.int64), [()]  # type: tuple[np.ndarray, list[tuple[int, ...]]]
        for number, one in enumerate(held):
            before, which = np.unique(label[one.texts], return_inverse=True)
            label[one.texts] = len(tiles_of) + which
            tiles_of += [(*tiles_of[old], number) for old in before]
        labels, text_label = np.unique(label, return_inverse=True)
        none = np.empty(0, np.int64)
        by_videos: dict[bytes, int] = {}
        self.videos: list[np.ndarray] = []
        class_of = np.empty(len(labels), np.int64)
        for place, one_label in enumerate(labels):
            parts = [held[number].videos for number in tiles_of[one_label]]
            union = np.unique(np.concatenate(parts)) if parts else none
            class_of[place] = by_videos.setdefault(union.tobytes(), len(self.videos))
            if class_of[place] == len(self.videos):
                self.videos.append(union)
        self.text_class = class_of[text_label]
