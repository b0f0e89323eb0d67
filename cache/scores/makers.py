"""How shards were made: device, precision, releases. For people: nothing is computed from it, and none of it is in a
store, whose bytes are the same wherever it was made.

    scores.zarr.made/<teacher>/<tile>/00000.json     beside scores.zarr
"""

import json
from collections import Counter
from collections.abc import Sequence
from contextlib import suppress
from dataclasses import asdict, dataclass
from pathlib import Path

from ...errors import CacheError, UnreachableError
from ..storage.locations import Location, at_once
from ..storage.publish import publish, remove
from ..storage.untrusted import read_file
from .tile import Tile, TileFacts

BESIDE = ".made"


@dataclass(frozen=True)
class Maker:
    """What made a shard.

    Attributes:
        device: a GPU's name, or "cpu".
        precision: of what is compared, and of products: "float32, ieee".
        torch, teachclip: their releases.
    """

    device: str
    precision: str
    torch: str
    teachclip: str


def note_maker(tile: Tile, shard: int, maker: Maker) -> None:
    """Note what made a shard that is complete; where that cannot be written, nobody knows."""
    path, data = _folder(tile.folder) / f"{shard:05d}.json", json.dumps(asdict(maker)).encode()
    with suppress(OSError, UnreachableError):
        if isinstance(path, Path):
            publish(path, data)
        elif _store(tile.folder).name:  # beside a whole bucket there is nothing
            path.write(data)


def makers(tiles: Sequence[TileFacts]) -> Counter[Maker]:
    """What made how many shards of these tiles, as far as it was noted, and can be read."""
    found = Counter[Maker]()
    for tile in tiles:
        folder = _folder(tile.folder)
        found.update(maker for maker in at_once(folder, _read, _notes(folder)) if maker)
    return found


def _notes(folder: Location) -> list[Location]:
    if isinstance(folder, Path):
        return list(folder.glob("*.json"))
    with suppress(CacheError, UnreachableError):  # a web server, or one that lists the store alone
        return [folder / name for name in folder.files()]
    return []


def forget_makers(teacher: Path) -> None:
    """Remove what was noted of a teacher, whose folder this was."""
    folder = _beside(teacher.parent) / teacher.name
    if isinstance(folder, Path) and folder.is_dir():
        remove(folder)


def _folder(tile: Location) -> Location:
    """Where the notes of a tile lie; a tile's folder is STORE/TEACHER/tiles/TILE."""
    return _beside(_store(tile)) / tile.parent.parent.name / tile.name


def _store(tile: Location) -> Location:
    return tile.parent.parent.parent


def _beside(store: Location) -> Location:
    return store.parent / f"{store.name}{BESIDE}"


def _read(path: Location) -> Maker | None:
    try:
        facts = json.loads(read_file(path))
        return Maker(*(str(facts[name]) for name in Maker.__dataclass_fields__))
    except (CacheError, UnreachableError, ValueError, KeyError, TypeError):
        return None
