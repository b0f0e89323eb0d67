"""One teacher's scores as a folder that speaks for itself: to publish, to hand on, to take in.

    OUT/manifest.json     who, from what, and size and BLAKE2b of every file; carries a checksum itself
    OUT/scores.zarr/      a score store of this one teacher, readable as it is

Whatever is taken in is checked first: names, sizes, links, documents; then hashed as it is copied, and published whole.
"""

import os
import re
import shutil
import stat
import uuid
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from ....errors import CacheError
from ....plurals import counted
from ....remedies import Again, ExportScores, MergeScores, Option, Remedy, Score
from ...storage.locations import MANIFEST, Location, Remote, at_once, location_of
from ...storage.locations import folder as local_folder
from ...storage.publish import TEMPORARY, free_bytes, make_folder, publish, put_folder
from ...storage.sealed import METADATA, seal, unseal
from ...storage.system_files import any_left_by_system, left_by_system
from ...storage.untrusted import (
    damaged,
    file_digest,
    foreign,
    holds_nothing,
    keep_system_files,
    read_file,
    size_problem,
    unwritable,
)
from ..format.arrays import valid_name
from ..shard import marker_path, missing_shards, scored_files
from ..store import TILES, ScoreCache, ScoreStore
from ..tile import Tile, tile_files
from .copying import ROOM, Advance, copy_shard, copy_teacher, copy_tile, marker_of
from .upload import Facts, refuse_taken, upload_bytes, upload_store, upload_tile

FORMAT, VERSION = "teachclip-scores-export", 1
STORE = "scores.zarr"

_MAX_MANIFEST = 2**28
_UNLISTED = ": the manifest does not list it"
_SHOWN = 5
_PATH = re.compile(r"[A-Za-z0-9][A-Za-z0-9_.-]{0,99}(/[A-Za-z0-9][A-Za-z0-9_.-]{0,99}){0,5}")
_GET_AGAIN = Remedy("get it again from where it came from, or export it again", ExportScores())


@dataclass(frozen=True)
class Packed:
    """A folder that was written, or taken in.

    Attributes:
        folder: the folder; store: the store; teacher: its name.
        tiles: names of the tiles; left_out: tiles or parts of them that are not complete.
        shards: how many; files, bytes: of everything.
        already: nothing was written, since the store has all of it.
    """

    folder: str
    store: str
    teacher: str
    tiles: tuple[str, ...]
    left_out: tuple[str, ...]
    shards: int
    files: int
    bytes: int
    already: bool = False


class Export:
    """Packs a teacher's complete tiles (`partial`: and what is complete of the others) into a folder or to an address.

    Raises:
        CacheError: there is no such teacher, it is damaged or has nothing that is complete; or `out` exists.
    """

    def __init__(self, path: str | Location, teacher: str, out: str | Location, partial: bool = False) -> None:
        self.store, self.out = ScoreStore.open(path), location_of(out)
        self.cache = self.store.teacher(teacher)
        if isinstance(self.out, Path):
            _refuse_taken(self.out)
        missing = {tile.name: missing_shards(tile) for tile in self.cache.tiles}
        self.left_out = tuple(f"{name}: {counted(len(gone), 'shard')}" for name, gone in missing.items() if gone)
        self.shards = [
            (tile, [shard for shard in range(tile.spec.shards) if shard not in set(missing[tile.name])])
            for tile in self.cache.tiles
            if partial or not missing[tile.name]
        ]
        if self.units == 0:
            raise CacheError(
                "nothing is complete" if partial else "no tile is complete",
                where=str(self.cache.folder),
                details=self.left_out,
                hint=Remedy(
                    "finish it",
                    Score(),
                    otherwise=None if partial else Remedy("export what there is", Again(Option.PARTIAL)),
                ),
            )
        if isinstance(self.out, Remote):
            refuse_taken(self.out, {f"{STORE}/{file}" for file in _expected(self.cache, self.shards)})

    @property
    def units(self) -> int:
        """Shards to copy."""
        return sum(len(shards) for _, shards in self.shards)

    def run(self, advance: Advance = lambda _: None) -> Packed:
        """Write the folder, whole or not at all; at an address its manifest comes last.

        Raises:
            CacheError: a shard is damaged, or the disk cannot be written.
        """
        if isinstance(self.out, Remote):
            facts = self._upload(self.out / STORE, advance)
            manifest = self._manifest(facts)
            upload_bytes(manifest, self.out / MANIFEST)
        else:
            with _making(self.out) as temporary:
                facts = self._pack(temporary, advance)
                manifest = self._manifest(facts)
                publish(temporary / MANIFEST, manifest)
        return Packed(
            str(self.out),
            str(self.store.path),
            self.cache.name,
            tuple(tile.name for tile, _ in self.shards),
            self.left_out,
            self.units,
            len(facts) + 1,
            sum(int(fact["size"]) for fact in facts.values()) + len(manifest),
        )

    def _pack(self, temporary: Path, advance: Advance) -> Facts:
        folder = temporary / STORE
        ScoreStore.create(folder)
        teacher = copy_teacher(self.cache, folder / self.cache.name)
        _copy_tiles(self.shards, teacher, temporary, advance)
        files = {str(path.relative_to(temporary)): path for path in _files(temporary)}
        return {
            name: {"size": (size := path.stat().st_size), "blake2b": file_digest(path, size)}
            for name, path in sorted(files.items())
        }

    def _upload(self, out: Remote, advance: Advance) -> Facts:
        facts = upload_store(self.store, self.cache, out)
        for tile, shards in self.shards:
            below = f"{self.cache.name}/{TILES}/{tile.name}"
            put = upload_tile(tile, shards, out / below, advance)
            facts |= {f"{below}/{name}": fact for name, fact in put.items()}
        return {f"{STORE}/{name}": fact for name, fact in sorted(facts.items())}

    def _manifest(self, facts: Facts) -> bytes:
        made_from = {"teacher": self.cache.name, "identity": self.cache.identity}
        return seal({"format": FORMAT, "version": VERSION, **made_from, "files": facts})


class Import:
    """Takes a folder that `Export` made, or such an address, into a store, which is made when there is none.

    Raises:
        CacheError: the folder is not one of these, was changed, or has links, foreign files or absurd sizes; or the
            store has other scores of this teacher.
    """

    def __init__(self, given: str | Location, path: str | Location) -> None:
        folder = self.folder = location_of(given)
        into = "exports are taken into a folder"
        self.path = local_folder(path, into, "import into a folder, and merge that store into the one at the address")
        _refuse_no_export(folder, self.path)
        raw = read_file(folder / MANIFEST, most=_MAX_MANIFEST)
        manifest = unseal(raw, folder / MANIFEST)[0]
        self.files = _manifest_files(manifest, folder / MANIFEST)
        self.bytes = sum(size for size, _ in self.files.values()) + len(raw)
        if isinstance(folder, Path):
            _refuse_foreign(folder, self.files)
        else:
            _refuse_other_names(folder, self.files)
        name = manifest.get("teacher")
        if not isinstance(name, str) or not valid_name(name):
            raise damaged(folder / MANIFEST, "does not name a teacher", _GET_AGAIN)
        self.cache = ScoreStore.open(folder / STORE).teacher(name)
        self.shards = [
            (tile, sorted(set(range(tile.spec.shards)) - set(missing_shards(tile)))) for tile in self.cache.tiles
        ]
        expected = {f"{STORE}/{file}" for file in _expected(self.cache, self.shards)}
        if expected != self.files.keys():
            odd = sorted(expected ^ self.files.keys())
            raise damaged(folder / MANIFEST, f"does not list what a store has ({odd[0]})", _GET_AGAIN)
        self.already = self._refuse_overwriting()
        self._refuse_lack_of_room()

    @property
    def units(self) -> int:
        """Shards to copy."""
        return 0 if self.already else sum(len(shards) for _, shards in self.shards)

    def _refuse_overwriting(self) -> bool:
        """Whether the store has all of this already."""
        target = self.path / self.cache.name
        if not (target.is_symlink() or target.exists()):
            if self.path.exists() and not holds_nothing(self.path):
                ScoreStore.open(self.path)
            return False
        held = {tile.checksum: tile for tile in ScoreStore.open(self.path).teacher(self.cache.name).tiles}
        if all(tile.checksum in held and _same(tile, held[tile.checksum], shards) for tile, shards in self.shards):
            return True
        raise CacheError(
            f"the store has scores of {self.cache.name!r} already, and not these",
            where=str(self.path),
            hint=Remedy(
                "import into another store, or bring shards of the same tiles together",
                MergeScores(str(self.path), str(self.folder / STORE)),
            ),
        )

    def _refuse_lack_of_room(self) -> None:
        free = free_bytes(self.path)
        if not self.already and self.bytes > free:
            raise CacheError(f"takes {self.bytes:,} bytes, {free:,} are free", where=str(self.path), hint=ROOM)

    def run(self, advance: Advance = lambda _: None) -> Packed:
        """Copy, compare every byte with the manifest, publish.

        Raises:
            CacheError: bytes differ from the manifest's, or the disk cannot be written.
        """
        if not self.already:
            ScoreStore.create(self.path)
            with _making(self.path / self.cache.name) as temporary:
                teacher = copy_teacher(self.cache, temporary)
                _copy_tiles(self.shards, teacher, temporary, advance)
                self._refuse_other_bytes(temporary)
        left_out = tuple(
            f"{tile.name}: {counted(tile.spec.shards - len(shards), 'shard')}"
            for tile, shards in self.shards
            if len(shards) < tile.spec.shards
        )
        return Packed(
            str(self.folder),
            str(self.path),
            self.cache.name,
            tuple(tile.name for tile, _ in self.shards),
            left_out,
            sum(len(shards) for _, shards in self.shards),
            len(self.files) + 1,
            self.bytes,
            self.already,
        )

    def _refuse_other_bytes(self, teacher: Path) -> None:
        prefix = f"{STORE}/{self.cache.name}/"
        for file, (size, blake2b) in self.files.items():
            path = teacher / file.removeprefix(prefix) if file.startswith(prefix) else self.folder / file
            if file_digest(path, size) != blake2b:
                raise damaged(self.folder / file, "its bytes are not those that the manifest names", _GET_AGAIN)
        if len(list(_files(teacher))) != sum(file.startswith(prefix) for file in self.files):
            raise damaged(self.folder, "changed while it was read", _GET_AGAIN)


def _copy_tiles(shards: list[tuple[Tile, list[int]]], teacher: ScoreCache, temporary: Path, advance: Advance) -> None:
    for tile, chosen in shards:
        target = copy_tile(tile, teacher)
        for shard in chosen:
            copy_shard(tile, target, shard)
            os.utime(temporary)  # it is no leftover
            advance(1)


@contextmanager
def _making(path: Path) -> Iterator[Path]:
    """A temporary name for a folder, which is put into place at the end; never over another.

    Raises:
        CacheError: there is one by then, or the disk cannot be written.
    """
    temporary = path.absolute().with_name(f"{TEMPORARY}{uuid.uuid4().hex}-{path.name}")
    try:
        make_folder(path.absolute().parent)
        yield temporary
        keep_system_files(path, temporary)
        put_folder(temporary, path.absolute())
    except OSError as error:
        raise unwritable(path, error, ROOM) from error
    finally:
        shutil.rmtree(temporary, ignore_errors=True)


def _files(folder: Path) -> Iterator[Path]:
    """What is ours of the files below."""
    every = (path for path in folder.rglob("*") if not path.is_dir())
    return (path for path in every if not any_left_by_system(path.relative_to(folder).parts))


def _expected(cache: ScoreCache, shards: list[tuple[Tile, list[int]]]) -> Iterator[str]:
    """The files of a store of this one teacher, features left out."""
    yield METADATA
    yield f"{cache.name}/{METADATA}"
    yield f"{cache.name}/{TILES}/{METADATA}"
    for tile, chosen in shards:
        folder = f"{cache.name}/{TILES}/{tile.name}"
        yield from (f"{folder}/{file}" for file in (METADATA, *tile_files(tile.spec)))
        for shard in chosen:
            yield f"{folder}/done/{marker_path(tile, shard).name}"
            yield from (f"{folder}/{file}" for file in scored_files(tile, shard))


def _manifest_files(manifest: dict[str, Any], path: Location) -> dict[str, tuple[int, str]]:
    """Name -> size and hash; names cannot lead out of the folder."""
    if manifest.get("format") != FORMAT or manifest.get("version") != VERSION:
        found = f"{manifest.get('format')!r} version {manifest.get('version')!r}"
        raise damaged(path, f"is of format {found}, not {FORMAT!r} version {VERSION}", _GET_AGAIN)
    listed = manifest.get("files")
    if not isinstance(listed, dict) or not listed:
        raise damaged(path, "lists no files", _GET_AGAIN)
    files = {}
    for name, facts in listed.items():
        if not _PATH.fullmatch(name) or not name.startswith(f"{STORE}/"):
            raise damaged(path, f"lists {name!r}, which is no file of an export", _GET_AGAIN)
        size, blake2b = (facts.get("size"), facts.get("blake2b")) if isinstance(facts, dict) else (None, None)
        if type(size) is not int or size < 0 or not isinstance(blake2b, str):
            raise damaged(path, f"does not say size and hash of {name}", _GET_AGAIN)
        files[name] = (size, blake2b)
    return files


def _refuse_taken(out: Path) -> None:
    if out.is_symlink() or (out.exists() and not (out.is_dir() and holds_nothing(out))):
        raise CacheError("there is something already", where=str(out), hint="name a folder that does not exist")


def _refuse_no_export(folder: Location, store: Path) -> None:
    if isinstance(folder, Path) and not folder.is_dir():
        raise CacheError("there is no such folder", where=str(folder), hint="name a folder made by an export")
    if (folder / MANIFEST).exists():
        return
    if (folder / METADATA).exists():
        raise CacheError(
            "this is a store, not an export",
            where=str(folder),
            hint=Remedy("bring the two stores together", MergeScores(str(store), str(folder))),
        )
    if isinstance(folder, Remote):
        left = "an upload was interrupted: " if folder.files() else ""
        raise CacheError(
            f"{left}there is no {MANIFEST}, so this is no export", where=str(folder), hint="name where an export lies"
        )


def _refuse_other_names(folder: Remote, files: dict[str, tuple[int, str]]) -> None:
    """Refuse foreign and missing files, and files of other sizes, at an address."""
    strange = sorted(set(folder.files()) - files.keys() - {MANIFEST})
    for name in strange:
        if not any_left_by_system(name.split("/")):
            raise foreign(folder / name, _UNLISTED)
    sizes = at_once(folder, lambda name: size_problem(folder / name, files[name][0]), files)
    for name, why in zip(files, sizes, strict=True):
        if why:
            raise damaged(folder / name, why, _GET_AGAIN)


def _refuse_foreign(folder: Path, files: dict[str, tuple[int, str]]) -> None:
    """Refuse links, files of other sizes, missing and foreign files, before any is read."""
    seen = {MANIFEST}
    for parent, folders, names in os.walk(folder):
        folders[:] = [name for name in folders if not left_by_system(name)]
        for name in (*folders, *names):
            path = Path(parent, name)
            if left_by_system(name):
                continue
            status = path.lstat()
            if stat.S_ISLNK(status.st_mode) or not (stat.S_ISDIR(status.st_mode) or stat.S_ISREG(status.st_mode)):
                raise damaged(path, "not a plain file or folder; links are not followed", _GET_AGAIN)
            if stat.S_ISDIR(status.st_mode):
                continue
            file = str(path.relative_to(folder))
            if file != MANIFEST and file not in files:
                raise foreign(path, _UNLISTED)
            if file != MANIFEST and status.st_size != files[file][0]:
                raise damaged(path, f"has {status.st_size:,} bytes instead of {files[file][0]:,}", _GET_AGAIN)
            seen.add(file)
    if missing := sorted(files.keys() - seen):
        more = f" and {len(missing) - 1:,} more" if len(missing) > 1 else ""
        raise damaged(folder / missing[0], f"missing{more}", _GET_AGAIN)


def _same(tile: Tile, held: Tile, shards: list[int]) -> bool:
    gone = set(missing_shards(held))
    return all(s not in gone and marker_of(tile, s)["files"] == marker_of(held, s)["files"] for s in shards)
