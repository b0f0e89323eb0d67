"""The score store: frozen teachers' raw scores of texts x videos, in a format that outlives this code.

    scores.zarr/zarr.json                 format and version
      <teacher>/zarr.json                 identity, scale, dtype, frames
        tiles/<tile>/                     an immutable rectangle of texts x videos (tile.py)
        videos/                           what the teacher made of each video (features.py)

A store is read while others write it: what is complete is there whole, the rest is absent. The specification
is docs/reference/score-cache.md.
"""

import math
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING, TypeGuard

import numpy as np

from ...errors import CacheError
from ...plurals import counted
from ...remedies import Remedy, Score
from ..storage.identity import JSON, identity_digest
from ..storage.locations import Location, Remote, at_once, location_of, refuse_read_only
from ..storage.publish import TEMPORARY
from ..storage.sealed import METADATA, group, open_group, whole_number
from ..storage.system_files import any_left_by_system
from ..storage.untrusted import damaged, foreign, listed, publish_folder, real_folder
from .format.arrays import FORMAT, ITEM_BYTES, MAX_FRAMES, MAX_VIDEOS, VERSION, comes_first, valid_name
from .format.codes import Dtype
from .lookup import Held, look_up
from .reading.reader import ScoreReader
from .reading.request import changed, find
from .shard import missing_shards
from .tile import Key, TeacherFacts, Tile, TileContents, create_tile
from .zarr_view import Files, as_group, store_files, teacher_files

if TYPE_CHECKING:
    from .format.checked_store import Group

TILES = "tiles"
VIDEOS = "videos"
SPARSE = "sparse"
"""In the identity of a teacher that scores few videos of each text: at most how many, the own one beside."""
_FACTS = ("identity", "scale", "dtype", "frames", "frame_logits")
_SCORE_FIRST = Remedy("score the videos first", Score())


def members(folder: Location, harmed: list[CacheError] | None = None) -> tuple[str, ...]:
    """Names of the folders in a store or among tiles.

    Args:
        folder: where.
        harmed: takes the errors for what does not belong there, which are raised else.
    """
    names = _finished(folder) if isinstance(folder, Remote) else listed(folder)
    found = []
    for name in [name for name in names if not name.startswith(TEMPORARY) and name != METADATA]:
        with _collecting(harmed):
            if not valid_name(name) or not _belongs(folder / name):
                raise foreign(folder / name)
            found.append(name)
    return tuple(found)


def _finished(folder: Remote) -> list[str]:
    """Names of what is at an address, but for folders in the making, or whose writer was killed: that have nothing but
    what comes before their own document."""
    below: dict[str, list[str]] = {}
    for file in folder.files():
        if not any_left_by_system(file.split("/")):
            name, _, rest = file.partition("/")
            below.setdefault(name, []).append(rest)
    return sorted(name for name, files in below.items() if not all(map(comes_first, files)))


def _belongs(folder: Location) -> bool:
    """Whether something is a teacher's or a tile's folder, though it may have lost files."""
    if isinstance(folder, Remote) or folder.is_symlink():
        return real_folder(folder)  # which refuses links
    return any((folder / name).exists() for name in (METADATA, TILES, "done"))


@contextmanager
def _collecting(harmed: list[CacheError] | None) -> Iterator[None]:
    try:
        yield
    except CacheError as error:
        if harmed is None:
            raise
        harmed.append(error)


def store_there(store: str | Location) -> bool:
    """Whether something lies where a store may be.

    Raises:
        UnreachableError: the server of an address fails, or has no such bucket.
    """
    store = location_of(store)
    if isinstance(store, Path):
        return store.is_dir()
    return (store / METADATA).exists() or bool(store.files())  # a bucket that does not exist is told when it is listed


def _holds(store: Location, name: str) -> bool:
    return (store / name / METADATA).exists() if isinstance(store, Remote) else real_folder(store / name)


def _is_identity(value: object) -> TypeGuard[dict[str, JSON]]:
    return isinstance(value, dict) and not any(isinstance(field, (dict, list)) for field in value.values())


class ScoreCache:
    """One teacher's scores.

    Attributes:
        sparse: at most so many videos of each text are scored, and its own beside; 0: every one is.

    Args:
        folder: the teacher's folder in the store.
        harmed: takes the errors for tiles that cannot be opened, which are raised else.

    Raises:
        CacheError: it is absent, damaged or not of this format.
    """

    def __init__(self, folder: Location, harmed: list[CacheError] | None = None) -> None:
        self.folder = folder
        self.name = folder.name
        path = folder / METADATA
        attributes, _ = open_group(folder)
        identity, scale, dtype = (attributes.get(key) for key in ("identity", "scale", "dtype"))
        frame_logits, checkpoint = attributes.get("frame_logits"), attributes.get("checkpoint")
        if not _is_identity(identity) or not isinstance(frame_logits, bool) or dtype not in tuple(ITEM_BYTES):
            raise damaged(path, "does not describe a teacher's scores")
        if not isinstance(scale, float) or not math.isfinite(scale):
            raise damaged(path, f"scale is {scale!r}")
        self.identity = identity
        self.scale = scale
        self.dtype: Dtype = next(known for known in ITEM_BYTES if known == dtype)
        self.frames = whole_number(attributes, "frames", 1, MAX_FRAMES, path)
        self.frame_logits = frame_logits
        self.checkpoint = checkpoint if isinstance(checkpoint, str) else ""
        self.sparse = whole_number(identity, SPARSE, 1, MAX_VIDEOS, path) if SPARSE in identity else 0
        known = {key: attributes[key] for key in _FACTS}
        self._facts = TeacherFacts(identity_digest(known), self.frames, self.frame_logits, self.dtype, self.sparse)
        self.tiles: tuple[Tile, ...] = self._open_tiles(harmed)

    def _open_tiles(self, harmed: list[CacheError] | None) -> tuple[Tile, ...]:
        if not real_folder(self.folder / TILES):
            raise damaged(self.folder / TILES, "missing")
        open_group(self.folder / TILES)
        tiles = []

        def open_tile(name: str) -> None:
            with _collecting(harmed):
                tiles.append(Tile(self.folder / TILES / name, self._facts))

        at_once(self.folder, open_tile, members(self.folder / TILES, harmed))
        return tuple(sorted(tiles, key=lambda tile: tile.name))

    @property
    def videos_folder(self) -> Location:
        """Where the teacher's features of each video are kept.

        Raises:
            CacheError: it is a link.
        """
        real_folder(self.folder / VIDEOS)
        return self.folder / VIDEOS

    @property
    def complete(self) -> bool:
        """Whether there is a tile, and every shard of every tile is complete."""
        return bool(self.tiles) and not any(missing_shards(tile) for tile in self.tiles)

    def create_tile(self, name: str, contents: TileContents, shard_texts: int) -> Tile:
        """Add a tile without shards (or open the one of the same contents that another worker has just made).

        Raises:
            CacheError: the contents do not fit this format, or there is another tile of this name.
        """
        if not valid_name(name):
            raise CacheError(f"{name!r} cannot be a tile's name", where=str(self.folder))
        tile = create_tile(self.folder / TILES / name, self._facts, contents, shard_texts)
        others = (other for other in self.tiles if other.name != name)
        self.tiles = tuple(sorted((*others, tile), key=lambda tile: tile.name))
        return tile

    def look_up(self, texts: Sequence[Key], videos: Sequence[Key]) -> list[Held]:
        """What each tile holds of these texts and videos, whether or not its shards are complete.

        Raises:
            CacheMismatchError: captions or frames changed; names them.
        """
        return find(self.folder, self.tiles, texts, videos)

    def changed_videos(self, videos: Sequence[Key]) -> np.ndarray:
        """Whose stored frames are others than those that were scored: bool [V]."""
        held = look_up(self.tiles, (), [video for video, _ in videos])
        return changed(videos, [(one.videos, one.tile.video_digests[one.columns]) for one in held])

    def reader(
        self, texts: Sequence[Key], videos: Sequence[Key], times: np.ndarray | None = None, *, holes: bool = False
    ) -> ScoreReader:
        """A reader of the scores of these texts and videos.

        Args:
            texts: (id, `identity.text_digest` of the caption), in the order that `read` counts them.
            videos: (id, digest of the stored frames and times), likewise.
            times: float64 [V,F], seconds of the videos' frames as they are stored now, NaN in padded slots. With them,
                a video whose digest differs is taken all the same where these are the times that the teacher saw: the
                same data set prepared elsewhere, its pixels from another decoder. Whoever asks for that must compare
                `identity` by itself.
            holes: NaN will do for pairs that a sparse teacher did not score.

        Raises:
            CacheMismatchError: captions or frames changed, or texts and videos that have no scores; names them.
            CacheError: shards that are needed are not complete or damaged; names the command. Or its scores are sparse,
                and who asks needs every pair.
        """
        if self.sparse and not holes:
            raise CacheError(
                f"{self.name} scored {counted(self.sparse, 'video')} of each caption, and this needs every pair",
                where=str(self.folder),
                hint="name a teacher that scores all",
            )
        return ScoreReader.open(self.folder, self.tiles, self.scale, texts, videos, times, bool(self.sparse))

    @property
    def zarr(self) -> "Group":
        """The teacher's groups and arrays as zarr-python's own, to look at: `cache.zarr["tiles/dense/coarse"][:10]`.

        They are of the tiles that are there now, can only be read, and give what is stored: codes, where scores are
        coded. Reading from a shard that is not complete is an error, as with a reader.
        """
        return as_group(self.folder, self.zarr_files())

    def zarr_files(self) -> Files:
        """What zarr-python sees of the teacher's folder, by path."""
        return teacher_files(self.folder, TILES, self.tiles)


class ScoreStore:
    """A store of several teachers' scores.

    Args:
        path: its folder, ending in `.zarr` by custom, or an address (`s3://bucket/scores.zarr`).

    Raises:
        CacheError: there is none, or not one of ours.
        UnreachableError: the server of an address refuses or does not answer; so does whatever reads the store later.
    """

    def __init__(self, path: str | Location) -> None:
        self.path = path = location_of(path)
        if not store_there(path):
            raise CacheError("there is no score store", where=str(path), hint=_SCORE_FIRST)
        for old in (".zgroup", ".zarray", ".zmetadata"):
            if isinstance(path, Path) and (path / old).exists():
                raise damaged(path / old, "a Zarr v2 store, not a score store", _SCORE_FIRST)
        attributes, _ = open_group(path)
        if attributes.get("format") != FORMAT:
            raise damaged(path, f"its format is {attributes.get('format')!r}, not {FORMAT!r}")
        if attributes.get("version") != VERSION:
            why = f"its format version is {attributes.get('version')!r}, this release reads {VERSION}"
            raise damaged(path, why, "use the release that made it, or score again into another store")

    @classmethod
    def open(cls, path: str | Location) -> "ScoreStore":
        """The store in `path`: a folder, or an address."""
        return cls(path)

    @classmethod
    def create(cls, path: str | Location) -> "ScoreStore":
        """The store in `path`, a folder or an address, made when there is none.

        Raises:
            CacheError: there is something else, or it is on a web server, which is only read.
            UnreachableError: the server of an address fails, or has no such bucket.
        """
        path = location_of(path)
        refuse_read_only(path)
        document = {METADATA: group({"format": FORMAT, "version": VERSION})}
        taken = isinstance(path, Remote) and not (path / METADATA).exists() and path.files()
        if not taken:
            publish_folder(path, document)
        if not (path / METADATA).exists():
            raise CacheError("has files that are no score store", where=str(path), hint="choose another folder")
        return cls(path)

    @property
    def teachers(self) -> tuple[str, ...]:
        """Names of the teachers that have scores here."""
        return members(self.path)

    def teacher(self, name: str, harmed: list[CacheError] | None = None) -> ScoreCache:
        """The scores of one teacher.

        Args:
            name: its name.
            harmed: takes the errors for tiles that cannot be opened, which are raised else.

        Raises:
            CacheError: it has none here, or they are damaged.
        """
        if not valid_name(name) or not _holds(self.path, name):
            have = ", ".join(self.teachers) or "none"
            raise CacheError(f"no scores of {name!r}; there are: {have}", where=str(self.path), hint=_SCORE_FIRST)
        return ScoreCache(self.path / name, harmed)

    @property
    def zarr(self) -> "Group":
        """All teachers' groups and arrays as zarr-python's own, to look at; as `ScoreCache.zarr`.

        Raises:
            CacheError: a teacher's scores are damaged.
        """
        files = store_files(self.path, {name: self.teacher(name).zarr_files() for name in self.teachers})
        return as_group(self.path, files)

    def create_teacher(
        self,
        name: str,
        identity: Mapping[str, JSON],
        scale: float,
        dtype: Dtype,
        frames: int,
        frame_logits: bool,
        checkpoint: str = "",
    ) -> ScoreCache:
        """Add a teacher without tiles (or open the one of the same name that another worker has just made).

        Args:
            name: its name in the store.
            identity: flat dict of everything that its scores depend on besides texts and videos.
            scale: exp(logit_scale): label = score x scale.
            dtype: what its scores are stored as.
            frames: its frame slots.
            frame_logits: whether it gives frame-text logits.
            checkpoint: digest of the file it was loaded from; another file may hold the same teacher, but while the
                file is the same, nobody needs to load it to know so.
        """
        if not valid_name(name):
            raise CacheError(f"{name!r} cannot be a teacher's name", where=str(self.path))
        if not math.isfinite(scale) or not 1 <= frames <= MAX_FRAMES:
            raise CacheError(f"teacher {name!r} has scale {scale} and {frames} frames", where=str(self.path))
        attributes = {
            "identity": dict(identity),
            "scale": float(scale),
            "dtype": dtype,
            "frames": frames,
            "frame_logits": frame_logits,
            "checkpoint": checkpoint,
        }
        files = {f"{TILES}/{METADATA}": group({}), METADATA: group(attributes)}
        publish_folder(self.path / name, files)
        return self.teacher(name)
