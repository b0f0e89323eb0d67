"""Which of the texts and videos that somebody asks for a cache's tiles hold, and which pairs of them.

Everything here takes time and memory that grow with the request and the tiles, not with their product.
"""

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np

from .tile import Tile


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
