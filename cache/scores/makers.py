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

from ..storage.publish import publish, remove
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
    with suppress(OSError):
        publish(_folder(tile.local) / f"{shard:05d}.json", json.dumps(asdict(maker)).encode())


def makers(tiles: Sequence[TileFacts]) -> Counter[Maker]:
    """What made how many shards of these tiles, as far as it was noted; nothing where they are at an address."""
    found = Counter[Maker]()
    for tile in tiles:
        if isinstance(tile.folder, Path):
            found.update(maker for path in _folder(tile.folder).glob("*.json") if (maker := _read(path)))
    return found


def forget_makers(teacher: Path) -> None:
    """Remove what was noted of a teacher, whose folder this was."""
    folder = _beside(teacher.parent) / teacher.name
    if folder.is_dir():
        remove(folder)


def _folder(tile: Path) -> Path:
    """Where the notes of a tile lie; a tile's folder is STORE/TEACHER/tiles/TILE."""
    teacher = tile.parents[1]
    return _beside(teacher.parent) / teacher.name / tile.name


def _beside(store: Path) -> Path:
    return store.with_name(f"{store.name}{BESIDE}")


def _read(path: Path) -> Maker | None:
    try:
        facts = json.loads(path.read_bytes())
        return Maker(*(str(facts[name]) for name in Maker.__dataclass_fields__))
    except (OSError, ValueError, KeyError, TypeError):
        return None
