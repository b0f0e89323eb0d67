"""What is in a score store: for lists and pages, without reading a score."""

from dataclasses import asdict, dataclass
from itertools import pairwise
from pathlib import Path
from statistics import median

import numpy as np

from ....errors import CacheError
from ...features import feature_files
from ...storage.identity import JSON
from ...storage.locations import Location
from ...storage.publish import TEMPORARY
from ...storage.untrusted import real_folder
from ..format.arrays import VERSION
from ..format.sizes import tile_bytes, whole_shard_bytes
from ..makers import makers
from ..shard import marker_path, missing_shards
from ..store import ScoreCache, ScoreStore
from ..tile import Tile

_LEAST_RATES = 3


@dataclass(frozen=True)
class TeacherSummary:
    """One line of a store's list.

    Attributes:
        teacher: its name; problem: why it cannot be opened, else None (then all else is of no meaning).
        tiles, texts, videos: how many; texts and videos that are in several tiles count once.
        pairs: of texts and videos that have or will have a score.
        dtype: what scores are stored as.
        shards, complete: all, and those that are complete.
        bytes: on the disk, features of videos included; at an address, of tiles and complete shards.
        written: when something was last written, in seconds since 1970; None at an address.
    """

    teacher: str
    problem: str | None
    tiles: int
    texts: int
    videos: int
    pairs: int
    dtype: str
    shards: int
    complete: int
    bytes: int
    written: float | None


@dataclass(frozen=True)
class TileSummary:
    """One tile: its sizes, and the checksum that stands for its teacher, ids, digests and frame times."""

    name: str
    texts: int
    videos: int
    shard_texts: int
    shards: int
    complete: int
    checksum: str


@dataclass(frozen=True)
class MadeShards:
    """So many shards, and what made them (`makers.Maker`)."""

    shards: int
    device: str
    precision: str
    torch: str
    teachclip: str


@dataclass(frozen=True)
class TeacherInfo:
    """Everything that a teacher's scores say of themselves.

    Attributes:
        store, version: where, and the format's version.
        summary: as in the list.
        identity: what the scores depend on besides texts and videos; scale: exp(logit_scale).
        frames: frame slots; frame_logits: whether there are frame-text logits.
        checkpoint: hash of the file that the teacher was loaded from.
        own_videos: texts whose own video is scored in the same tile.
        tiles: one by one.
        feature_files, feature_bytes: what is kept of the videos; None: an address does not tell.
        leftovers: temporary files and folders, of writers at work or killed.
        made: what made the shards, as far as it was noted beside the store.
    """

    store: str
    version: int
    summary: TeacherSummary
    identity: dict[str, JSON]
    scale: float
    frames: int
    frame_logits: bool
    checkpoint: str
    own_videos: int
    tiles: tuple[TileSummary, ...]
    feature_files: int
    feature_bytes: int | None
    leftovers: int
    made: tuple[MadeShards, ...] = ()


def summaries(store: ScoreStore) -> list[TeacherSummary]:
    """Every teacher of the store; one that is damaged is told, not raised."""
    return [_summary_or_problem(store, name) for name in store.teachers]


def _summary_or_problem(store: ScoreStore, name: str) -> TeacherSummary:
    try:
        return _summary(store.teacher(name))
    except CacheError as error:
        folder = store.path / name
        size, written = _disk(folder) if isinstance(folder, Path) else (0, None)
        return TeacherSummary(name, f"{error.where}: {error.what}", 0, 0, 0, 0, "", 0, 0, size, written)


def _summary(cache: ScoreCache) -> TeacherSummary:
    tiles = cache.tiles
    size, written = _disk(cache.folder) if isinstance(cache.folder, Path) else (_tile_bytes(cache), None)
    shards = sum(tile.spec.shards for tile in tiles)
    return TeacherSummary(
        cache.name,
        None,
        len(tiles),
        len(set().union(*(tile.text_rows for tile in tiles))),
        len(set().union(*(tile.video_columns for tile in tiles))),
        sum(tile.spec.texts * tile.spec.videos for tile in tiles),
        cache.dtype,
        shards,
        shards - sum(len(missing_shards(tile)) for tile in tiles),
        size,
        written,
    )


def teacher_info(store: ScoreStore, name: str) -> TeacherInfo:
    """Everything about one teacher.

    Raises:
        CacheError: it is absent or damaged.
    """
    cache = store.teacher(name)
    folder, videos = cache.folder, cache.videos_folder
    features = _files(videos) if isinstance(videos, Path) else feature_files(videos)
    features = [path for path in features if path.name.endswith(".safetensors")]
    here = [path for path in features if isinstance(path, Path)]
    temporary = list(folder.rglob(f"{TEMPORARY}*")) if isinstance(folder, Path) else []
    return TeacherInfo(
        str(store.path),
        VERSION,
        _summary(cache),
        cache.identity,
        cache.scale,
        cache.frames,
        cache.frame_logits,
        cache.checkpoint,
        sum(int(np.count_nonzero(tile.text_video >= 0)) for tile in cache.tiles),
        tuple(map(_tile_facts, cache.tiles)),
        len(features),
        sum(path.lstat().st_size for path in here) if isinstance(videos, Path) else None,
        len(temporary),
        tuple(MadeShards(count, **asdict(maker)) for maker, count in makers(cache.tiles).most_common()),
    )


def _tile_facts(tile: Tile) -> TileSummary:
    spec = tile.spec
    complete = spec.shards - len(missing_shards(tile))
    return TileSummary(tile.name, spec.texts, spec.videos, spec.shard_texts, spec.shards, complete, tile.checksum)


def _files(folder: Path) -> list[Location]:
    if not real_folder(folder):
        return []
    return [path for path in folder.rglob("*") if not path.name.startswith(TEMPORARY) and path.is_file()]


def _tile_bytes(cache: ScoreCache) -> int:
    """Bytes of the tiles' documents and ids and of their complete shards, known without asking for sizes."""
    size = 0
    for tile in cache.tiles:
        gone = missing_shards(tile)
        size += tile_bytes(tile.spec) - sum(whole_shard_bytes(tile.spec, shard) for shard in gone)
    return size


def _disk(folder: Path) -> tuple[int, float]:
    """Bytes of all files below `folder`, and when one was last written."""
    size, written = 0, folder.lstat().st_mtime
    for path in folder.rglob("*"):
        try:
            status = path.lstat()
        except FileNotFoundError:  # a writer has just put it into place
            continue
        if not path.is_dir():
            size += status.st_size
            written = max(written, status.st_mtime)
    return size, written


def pairs_per_second(cache: ScoreCache) -> float | None:
    """How fast this teacher was scored here, from when its markers were written; None when too little was.

    The median over successive shards, so that pauses between two runs do not count.
    """
    rates: list[float] = []
    for tile in cache.tiles if isinstance(cache.folder, Path) else ():
        times = []
        for shard in set(range(tile.spec.shards)) - set(missing_shards(tile)):
            marker, pairs = marker_path(tile, shard), len(tile.spec.rows(shard)) * tile.spec.per_text
            assert isinstance(marker, Path)
            times.append((marker.lstat().st_mtime, pairs))
        times.sort()
        rates += [pairs / (late - early) for (early, _), (late, pairs) in pairwise(times) if late > early]
    return median(rates) if len(rates) >= _LEAST_RATES else None
