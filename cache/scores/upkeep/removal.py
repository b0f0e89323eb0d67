"""Removing scores and what nobody needs any more, without pulling anything from under a writer.

A store has no locks, so what was written to within the last hour counts as in the making. A reader that has removed
scores open gets an error that says so, never other numbers.
"""

import time
import uuid
from dataclasses import dataclass
from pathlib import Path

from ....errors import CacheError
from ....remedies import Again, Option, Remedy, TidyScores
from ...features import IDENTITY, feature_files, feature_name, needed_files
from ...storage.locations import Location
from ...storage.locations import folder as local_folder
from ...storage.publish import IN_USE, TEMPORARY, leftovers, remove, remove_leftover, sync_folder
from ...storage.sealed import parse
from ...storage.untrusted import read_file, real_folder, unwritable
from ..format.arrays import valid_name
from ..makers import forget_makers
from ..store import ScoreCache, ScoreStore, members

_REMOVED = "only what lies in a folder is removed"
_BY_HAND = "remove objects with the tool that comes with the server, while nobody scores there"


@dataclass(frozen=True)
class Removed:
    """What was removed (or would be, in a dry run): paths in the store, with their bytes.

    Attributes:
        store: where.
        leftovers: of killed writers; features: of videos, that no tile needs.
        bytes: of all of it.
        kept: teachers that are damaged, whose features were left alone.
    """

    store: str
    leftovers: tuple[str, ...]
    features: tuple[str, ...]
    bytes: int
    kept: tuple[str, ...] = ()


def remove_teacher(path: str | Location, name: str, age: float = IN_USE) -> int:
    """Remove one teacher's scores; how many bytes. They are renamed first: whoever opens the store sees all or none.

    Args:
        path, name: the store and the teacher, which may be damaged.
        age: seconds; what is not complete and was written to more recently is taken for being written.

    Raises:
        CacheError: there is no such teacher, it seems to be being written, or the folder may not be changed.
    """
    refuse_removal(path, name, age)
    path = local_folder(path, _REMOVED, _BY_HAND)
    folder = path / name
    size = _bytes(folder)
    away = path / f"{TEMPORARY}{uuid.uuid4().hex}-removed-{name}"
    try:
        folder.rename(away)
        sync_folder(path)
        remove(away)
        forget_makers(folder)
    except OSError as error:
        hint = Remedy("make the store writable for you, then take away what is half removed", TidyScores(str(path)))
        raise unwritable(folder, error, hint) from error
    return size


def refuse_removal(path: str | Location, name: str, age: float = IN_USE) -> None:
    """What `remove_teacher` would refuse, without removing anything.

    Raises:
        CacheError: there is no such teacher, or it seems to be being written.
    """
    path = local_folder(path, _REMOVED, _BY_HAND)
    store = ScoreStore.open(path)
    if not valid_name(name) or not real_folder(path / name):
        store.teacher(name)  # says what there is
    since = _written_lately(store, path / name, age)
    if since is not None:
        raise CacheError(
            f"seems to be being written: not complete, and last written to {since:.0f} s ago",
            where=str(path / name),
            hint=Remedy("stop whoever scores", otherwise=Remedy("remove it all the same", Again(Option.ANY_AGE))),
        )


def _written_lately(store: ScoreStore, folder: Path, age: float) -> float | None:
    """Seconds since something unfinished was written to, if fewer than `age`."""
    times = [path.lstat().st_mtime for path in folder.rglob(f"{TEMPORARY}*")]
    try:
        if not store.teacher(folder.name).complete:
            times += [path.lstat().st_mtime for path in folder.glob("tiles/*/done")]
    except CacheError:
        pass  # damaged: only what is visibly being written counts
    since = time.time() - max(times, default=0.0)
    return max(since, 0.0) if since < age else None


def collect_garbage(path: str | Location, age: float = IN_USE, dry: bool = False) -> Removed:
    """Remove what killed writers left, and features of videos that no tile needs.

    Args:
        path: the store.
        age: seconds; what was written to more recently is left alone.
        dry: only say what would be removed.

    Raises:
        CacheError: no store, or it may not be changed.
    """
    path = local_folder(path, _REMOVED, _BY_HAND)
    store = ScoreStore.open(path)
    left = leftovers(path, age)
    unneeded: list[Path] = []
    kept = []
    for name in members(path, harmed=[]):  # what is foreign is left alone
        try:
            unneeded += [file for file in _unneeded(store.teacher(name)) if _older(file, age)]
        except CacheError:
            kept.append(name)
    size = sum(map(_bytes, (*left, *unneeded)))
    if not dry:
        for each in (*left, *unneeded):
            try:
                remove_leftover(each)
            except OSError as error:
                raise unwritable(each, error, "make the store writable for you") from error
        for folder in {file.parent for file in unneeded}:
            if not any(folder.iterdir()):
                folder.rmdir()
    return Removed(str(path), _within(path, left), _within(path, unneeded), size, tuple(kept))


def _unneeded(cache: ScoreCache) -> list[Path]:
    """Feature files of other weights than the scores', or of videos that are in no tile."""
    needed = set()
    for tile in cache.tiles:
        needed |= needed_files([bytes(row) for row in tile.video_digests])
    files = [path for path in feature_files(cache.videos_folder) if isinstance(path, Path)]
    foreign = {file.parent for file in files if file.name == IDENTITY and _of_others(file, cache)}
    ours = (file for file in files if feature_name(file.name))
    return [file for file in ours if file.parent in foreign or file.name not in needed | {IDENTITY}]


def _of_others(file: Path, cache: ScoreCache) -> bool:
    made_by = parse(read_file(file), file)
    return any(cache.identity.get(key, value) != value for key, value in made_by.items())


def _older(path: Path, age: float) -> bool:
    try:
        return time.time() - path.lstat().st_mtime > age
    except FileNotFoundError:
        return False


def _bytes(path: Path) -> int:
    return sum(p.lstat().st_size for p in (path, *path.rglob("*")) if p.is_symlink() or p.is_file())


def _within(store: Path, paths: list[Path]) -> tuple[str, ...]:
    return tuple(sorted(str(path.relative_to(store)) for path in paths))
