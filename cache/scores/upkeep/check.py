"""Is a score store what was written? Structure, markers and sizes; or every byte and every value.

What has not been scored yet is told apart from what is damaged, and a store may be written meanwhile.
"""

from collections.abc import Callable
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path

import numpy as np

from ....errors import CacheError
from ...features import feature_files, feature_name, feature_problem
from ...storage.locations import Location, Remote, at_once, location_of
from ...storage.publish import remove, sync_folder
from ...storage.untrusted import ForeignError, file_stamp, foreign, real_folder
from ..format.codes import NOT_SCORED
from ..format.tensorstore_io import read_whole
from ..reading.tile_rows import TileRows
from ..shard import marker_path, problem, scored_files
from ..store import ScoreCache, ScoreStore, members
from ..tile import Tile

_BLOCK_VALUES = 2**21
_ATTEMPTS = 5


@dataclass(frozen=True)
class Finding:
    """Something that is damaged, or foreign.

    Attributes:
        teacher: whose scores.
        path: the file or folder.
        why: what is wrong with it.
        tile, shard: the shard that it belongs to, if it is one.
        repairable: whether it can be made again in its place: shards and features of videos can.
        foreign: whether it is no damage but somebody else's file, which is to be moved elsewhere.
    """

    teacher: str
    path: str
    why: str
    tile: str | None = None
    shard: int | None = None
    repairable: bool = True
    foreign: bool = False


@dataclass(frozen=True)
class TeacherCheck:
    """What was found of one teacher.

    Attributes:
        teacher: its name.
        shards: all of its tiles that could be opened; complete: those that are, and are not damaged; incomplete: not
            scored yet; the rest is damaged.
        features: files of videos' features that are as they were written.
        findings: what is damaged or foreign.
    """

    teacher: str
    shards: int
    complete: int
    incomplete: int
    features: int
    findings: tuple[Finding, ...]


@dataclass(frozen=True)
class CheckResult:
    """What was found; `full`: every byte and value was looked at."""

    store: str
    full: bool
    teachers: tuple[TeacherCheck, ...]
    findings: tuple[Finding, ...]

    @property
    def damage(self) -> tuple[Finding, ...]:
        """The findings that are damage: all but foreign files."""
        return tuple(finding for finding in self.findings if not finding.foreign)


class Check:
    """A check of a store, or of one of its teachers: opened here, run by `run`.

    Args:
        path: the store; at an address, features of videos are looked at where it is full.
        teacher: only this one.
        full: compare the hash of every file, decode every chunk and look at every value, not only at sizes.

    Raises:
        CacheError: there is no such store or teacher, or the store's own document is damaged.
    """

    def __init__(self, path: str | Location, teacher: str | None = None, full: bool = False) -> None:
        self.store, self.full = ScoreStore.open(path), full
        strangers: list[CacheError] = []
        names = members(self.store.path, strangers)
        if teacher is not None and teacher not in names:
            self.store.teacher(teacher)
        self._strangers = [] if teacher else [_finding("", error) for error in strangers]
        self._teachers = [_Teacher(self.store, name, full) for name in names if teacher in (None, name)]

    @property
    def units(self) -> int:
        """Shards and files of features: how often `advance` is called."""
        return sum(each.units for each in self._teachers)

    def run(self, advance: Callable[[int], None] = lambda _: None) -> CheckResult:
        """Look at everything; damage is told in the result, not raised."""
        checked = tuple(each.run(advance) for each in self._teachers)
        findings = (*self._strangers, *(finding for each in checked for finding in each.findings))
        return CheckResult(str(self.store.path), self.full, checked, findings)


def _finding(teacher: str, error: CacheError) -> Finding:
    is_foreign = isinstance(error, ForeignError)
    return Finding(teacher, error.where or "", error.what, repairable=False, foreign=is_foreign)


class _Teacher:
    """One teacher's part of a check."""

    def __init__(self, store: ScoreStore, name: str, full: bool) -> None:
        self.name, self.full = name, full
        harmed: list[CacheError] = []
        self.tiles: tuple[Tile, ...] = ()
        self.features: list[Location] = []
        try:
            cache = store.teacher(name, harmed)
            self.tiles = cache.tiles
            self.features = feature_files(cache.videos_folder)
        except CacheError as error:
            harmed.append(error)
        self.findings = [_finding(name, error) for error in harmed]
        self.units = sum(tile.spec.shards for tile in self.tiles) + len(self.features)

    def run(self, advance: Callable[[int], None]) -> TeacherCheck:
        complete = shards = incomplete = 0
        for tile in self.tiles:
            check = TileCheck(tile, self.full)
            self.findings += [Finding(self.name, str(tile.folder), why, repairable=False) for why in check.static()]

            def look(shard: int, check: TileCheck = check) -> str | None:
                why = check.shard(shard)
                advance(1)
                return why

            for shard, why in enumerate(at_once(tile.folder, look, range(tile.spec.shards))):
                shards += 1
                complete += why is None
                incomplete += why == ""
                if why:
                    self.findings.append(Finding(self.name, str(marker_path(tile, shard)), why, tile.name, shard))
        bad = []
        for path in self.features:
            if not feature_name(path.name):
                bad.append(_finding(self.name, foreign(path)))
            elif why := feature_problem(path, self.full):
                bad.append(Finding(self.name, str(path), why))
            advance(1)
        self.findings += bad
        good = len(self.features) - len(bad)
        return TeacherCheck(self.name, shards, complete, incomplete, good, tuple(self.findings))


class TileCheck:
    """Checks the shards of one tile; memory does not grow with the size of a shard."""

    def __init__(self, tile: Tile, full: bool) -> None:
        self.tile, self.full = tile, full

    @cached_property
    def _rows(self) -> TileRows:
        return TileRows(self.tile)

    def static(self) -> list[str]:
        """What is wrong with the arrays that came with the tile (their hashes have been compared)."""
        found = []
        try:
            _ = self.tile.text_video
        except CacheError as error:
            found.append(f"{Path(error.where or '').name}: {error.what}")
        for name in self.tile.spec.static_bytes() if self.full else ():
            try:
                read_whole(self.tile.folder / name, self.tile.arrays[name])
            except (ValueError, OSError) as error:
                found.append(f"{name} cannot be decoded: {error}")
        return found

    def shard(self, shard: int) -> str | None:
        """Why a shard is damaged, "" when it is not scored yet, None when it is complete."""
        marker = marker_path(self.tile, shard)
        for _ in range(_ATTEMPTS):
            before = file_stamp(marker)
            if before is None:
                return ""
            why = self._damage(shard)
            if why is None or file_stamp(marker) == before:  # else it is being written again
                return why
        return why

    def _damage(self, shard: int) -> str | None:
        try:
            if why := problem(self.tile, shard, every_byte=self.full):
                return why
            return self._values(shard) if self.full else None
        except CacheError as error:
            return error.what
        except OSError as error:
            return f"cannot be read: {error.strerror or error}"

    def _values(self, shard: int) -> str | None:
        """What is wrong with the values of a shard, each chunk decoded under its crc32c."""
        spec = self.tile.spec
        rows = spec.rows(shard)
        step = max(1, _BLOCK_VALUES // spec.videos)
        for start in range(rows.start, rows.stop, step):
            block = np.arange(start, min(start + step, rows.stop))
            wrong = self._wrong_rows(block)
            if wrong.any():
                return f"the scores of {self.tile.text_ids[block[wrong.argmax()]]} are not all there, or not finite"
        return None

    def _wrong_rows(self, block: np.ndarray) -> np.ndarray:
        spec = self.tile.spec
        coarse = self._rows.read("coarse", block)
        if spec.dtype == "uint16":
            scale, offset = self._rows.read("coarse_codec", block).T
            with np.errstate(over="ignore", invalid="ignore"):
                most = (offset + scale * (NOT_SCORED - 1)).astype(np.float32)
            absent = coarse == NOT_SCORED
            wrong = ~np.isfinite(most) | ~np.isfinite(offset) | ~(scale >= 0)
        else:
            absent = np.isnan(coarse)
            wrong = np.isinf(coarse).any(axis=1)
        wrong |= absent.all(axis=1) if spec.sparse else absent.any(axis=1)
        if spec.frame_logits:
            own = self.tile.text_video[block] >= 0
            wrong |= own & ~np.isfinite(self._rows.read("fine", block)).all(axis=1)
        result: np.ndarray = wrong
        return result


def take_out(cache: ScoreCache, finding: Finding) -> None:
    """Remove a damaged shard (its marker first: from then on it counts as absent) or file of features.

    Raises:
        ValueError: it cannot be repaired.
    """
    if not finding.repairable:
        raise ValueError(finding.path)
    if finding.shard is None:
        _remove(location_of(finding.path))
        return
    tile = next(tile for tile in cache.tiles if tile.name == finding.tile)
    _remove(marker_path(tile, finding.shard))
    for file in scored_files(tile, finding.shard):
        _remove(tile.folder / file)


def _remove(path: Location) -> None:
    if isinstance(path, Remote):
        path.remove()
        return
    remove(path)
    if real_folder(path.parent):
        sync_folder(path.parent)
