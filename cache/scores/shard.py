"""Shards of a tile: rows of scores that are complete or absent.

A shard is complete when a marker, published after its files, names their sizes and hashes and the checksum of the
tile's own metadata; existing or being readable is not enough. Nothing is appended to or rewritten in part.

On a disk, whoever writes a shard last has it. At an address, where a file is made only where there is none, whoever
makes a file first has it: it is never replaced by the same scores, be they rounded otherwise, and the marker is made of
what lies there. So all who write a shard write the same marker, whatever the moment in which one of them is killed.
"""

from contextlib import suppress
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np

from ...errors import CacheError
from ...remedies import Remedy, RepairScores, Score
from ..storage.creating import lying, not_back, put
from ..storage.identity import digest
from ..storage.locations import Location, Remote, at_once
from ..storage.publish import TEMPORARY, publish, sync_above, sync_folder
from ..storage.sealed import seal, unseal
from ..storage.untrusted import damaged, file_digest, read_optional, size_problem, unwritable
from .format.codes import decode_scores, encode_scores
from .format.sizes import shard_bytes
from .format.tensorstore_io import decode_chunks, encode_chunks
from .tile import Tile, TileFacts

RESCORE = Remedy("score it again", Score())
REPAIR = Remedy("score only what is damaged again", RepairScores())
_ATTEMPTS = 5
_SHOWN = 5
_ROUNDING = 1e-3
"""Of the largest score: the same scores, rounded or coded otherwise, are nearer than that."""


def marker_path(tile: TileFacts, shard: int) -> Location:
    """The file whose presence says that a shard is complete."""
    return tile.folder / "done" / f"{shard:05d}.json"


def _files(tile: TileFacts, shard: int) -> dict[str, str]:
    return {name: f"{name}/c.{shard}.0" for name in tile.spec.scored}


def scored_files(tile: TileFacts, shard: int) -> tuple[str, ...]:
    """The files of a shard, in the order in which they are published."""
    return tuple(_files(tile, shard).values())


def problem(tile: TileFacts, shard: int, every_byte: bool = False) -> str | None:
    """Why a shard does not count as complete, or None.

    Args:
        tile: the shard's tile.
        shard: its number.
        every_byte: compare the files' hashes too, not only their sizes.
    """
    path = marker_path(tile, shard)
    try:
        raw = read_optional(path)
        if raw is None:
            return "not scored yet"
        marker, _ = unseal(raw, path)
        return _marker_problem(tile, shard, marker) or _files_problem(tile, marker["files"], every_byte)
    except CacheError as error:
        return f"{Path(error.where or str(path)).name}: {error.what}"
    except OSError as error:
        return f"{Path(error.filename or str(path)).name}: cannot be read: {error.strerror}"


def _marker_problem(tile: TileFacts, shard: int, marker: dict[str, Any]) -> str | None:
    files = marker.get("files")
    if marker.get("shard") != shard or marker.get("tile") != tile.checksum or not isinstance(files, dict):
        return "its marker is of another shard or tile"
    if files.keys() != set(_files(tile, shard).values()):
        return "its marker names other files"
    if not all(isinstance(facts, dict) and facts.keys() == {"size", "blake2b"} for facts in files.values()):
        return "its marker does not say sizes and hashes"
    for file, size in shard_bytes(tile.spec, shard).items():  # before anything reads a file of any size
        if files[file]["size"] != size:
            return f"{file} has {files[file]['size']} bytes; {size} are what such a shard takes"
    return None


def _files_problem(tile: TileFacts, files: dict[str, dict[str, Any]], every_byte: bool) -> str | None:
    for file, facts in files.items():
        if why := size_problem(tile.folder / file, facts["size"]):
            return f"{file} {why}"
        try:
            if every_byte and file_digest(tile.folder / file, facts["size"]) != facts["blake2b"]:
                return f"{file} has other bytes than were written"
        except OSError as error:
            return f"{file} cannot be read: {error.strerror}"
    return None


def missing_shards(tile: Tile) -> list[int]:
    """The shards that are not complete."""
    found = at_once(tile.folder, lambda shard: problem(tile, shard), range(tile.spec.shards))
    return [shard for shard, why in enumerate(found) if why]


def incomplete(tile: TileFacts, shard: int) -> CacheError:
    """The error for a shard that is not complete."""
    return damaged(tile.folder, f"shard {shard} is not complete: {problem(tile, shard)}", RESCORE)


def unreadable(tile: TileFacts, rows: np.ndarray, error: Exception) -> CacheError:
    """The error for rows that could not be read: names the shard that is missing or damaged, and what to do."""
    for shard in sorted(set((rows // tile.spec.shard_texts).tolist())):
        if problem(tile, shard):
            return incomplete(tile, shard)
        if why := problem(tile, shard, every_byte=True):
            return damaged(tile.folder, f"shard {shard} is damaged: {why}", REPAIR)
    return CacheError(f"cannot be read: {error}", where=str(tile.folder), hint=RESCORE)


def write_shard(tile: Tile, shard: int, coarse: np.ndarray, fine: np.ndarray | None) -> None:
    """Publish one shard: its files, then its marker.

    Args:
        tile: the shard's tile.
        shard: its number.
        coarse: float32 [rows,V] raw scores of the shard's rows; NaN where a sparse teacher did not score.
        fine: float32 [rows,F] frame-text logits of the texts' own videos (any value where that is in another tile), or
            None when the teacher gives none.

    Raises:
        CacheError: scores that are not finite (texts and videos are named) or too large for float16, or a disk that
            cannot be written.
        UnreachableError: the server of an address fails.
    """
    _refuse_not_finite(tile, shard, coarse, fine)
    stored, codec = encode_scores(coarse, tile.spec.dtype)
    _refuse_overflow(tile, shard, coarse, stored)
    values = {"coarse": stored}
    if codec is not None:
        values["coarse_codec"] = codec
    if fine is not None:
        values["fine"] = fine
    first = tile.spec.rows(shard).start
    files = {
        file: encode_chunks(tile.arrays[name], values[name], first)[Path(file).name]
        for name, file in _files(tile, shard).items()
    }
    publish_shard(tile, shard, files)


def publish_shard(tile: Tile, shard: int, files: dict[str, bytes]) -> None:
    """Publish the files of a shard, by `scored_files`, then its marker.

    Raises:
        CacheError: the tile was removed, or what was written does not come back.
        UnreachableError: the server of an address fails.
    """
    if isinstance(tile.folder, Remote):
        _create(tile, tile.folder, shard, files)
    else:
        _overwrite(tile, tile.folder, shard, {**files, _marker_file(tile, shard): _marker(tile, shard, files)})


def _marker_file(tile: Tile, shard: int) -> str:
    return f"done/{marker_path(tile, shard).name}"


def _marker(tile: Tile, shard: int, files: dict[str, bytes]) -> bytes:
    facts = {file: {"size": len(data), "blake2b": digest(data).hex()} for file, data in files.items()}
    return seal({"shard": shard, "tile": tile.checksum, "files": facts})


def _create(tile: Tile, folder: Remote, shard: int, files: dict[str, bytes]) -> None:
    marker = folder / _marker_file(tile, shard)
    for _ in range(_ATTEMPTS):
        tile.refuse_replaced()
        if not problem(tile, shard, every_byte=True):
            return  # another has made it
        marker.remove()  # one that describes files that are gone must not describe those that come in their place
        there = {}
        for file, data in files.items():
            there[file] = put(folder / file, data, partial(_same_scores, tile, shard, files, file))
        told = _marker(tile, shard, there)
        marker.create(told)
        if lying(marker, len(told)) == told:
            return
    raise not_back(marker)


def _same_scores(tile: Tile, shard: int, files: dict[str, bytes], file: str, other: bytes) -> bool:
    """Whether `other`, which somebody has put in the place of one of these files, is of the same scores."""
    if len(other) != len(files[file]):
        return False
    try:
        pairs = list(zip(_values(tile, shard, {**files, file: other}), _values(tile, shard, files), strict=True))
    except (ValueError, OSError):  # damaged
        return False
    return all(
        np.allclose(theirs, ours, rtol=0, atol=_ROUNDING * np.nanmax(abs(ours), initial=0), equal_nan=True)
        for theirs, ours in pairs
    )


def _values(tile: Tile, shard: int, files: dict[str, bytes]) -> list[np.ndarray]:
    """What a shard's files say: scores, and frame-text logits of own videos."""
    rows = tile.spec.rows(shard)
    values = {
        name: decode_chunks(tile.arrays[name], {Path(file).name: files[file]}, rows)
        for name, file in _files(tile, shard).items()
    }
    found = [decode_scores(values["coarse"], values.get("coarse_codec"))]
    if "fine" in values:
        found.append(values["fine"][tile.text_video[rows.start : rows.stop] >= 0])
    return found


def _overwrite(tile: Tile, folder: Path, shard: int, files: dict[str, bytes]) -> None:
    # Another worker may publish the same shard meanwhile. The same machine gives the same bytes; where it does not,
    # whoever comes last finds a file that is not its own and, unless all are the other's, publishes them again.
    for _ in range(_ATTEMPTS):
        tile.refuse_replaced()  # else its folders would be made again, without what says what they hold
        with suppress(FileNotFoundError):  # the other has finished the tile and swept it
            if _publish(folder, files):
                return _settle(tile, folder)
        if not problem(tile, shard, every_byte=True):
            return _settle(tile, folder)
    raise CacheError("what was written does not come back", where=str(folder), hint="check the disk")


def _publish(folder: Path, files: dict[str, bytes]) -> bool:
    """Whether what is there then is what was written."""
    try:
        for file, data in files.items():
            path = folder / file
            publish(path, data)
        return all((folder / file).read_bytes() == data for file, data in files.items())
    except FileNotFoundError:
        raise
    except OSError as error:
        raise unwritable(path, error) from error


def _settle(tile: Tile, folder: Path) -> None:
    """Make what is complete survive a power cut: some of it may be another's, who was killed before he synced."""
    try:
        for name in (*tile.spec.scored, "done"):
            sync_folder(folder / name)
        sync_above(folder / "done")
    except OSError as error:
        raise unwritable(folder, error) from error


def sweep(tile: Tile) -> None:
    """Settle a tile whose every shard is complete: nothing of it can be lost, what killed workers left is removed.

    At an address there is nothing to be done.
    """
    if isinstance(tile.folder, Path):
        _settle(tile, tile.folder)
        for path in tile.folder.glob(f"*/{TEMPORARY}*"):
            path.unlink(missing_ok=True)


def _refuse_not_finite(tile: Tile, shard: int, coarse: np.ndarray, fine: np.ndarray | None) -> None:
    rows = tile.spec.rows(shard)
    if coarse.shape != (len(rows), tile.spec.videos) or (fine is not None) != tile.spec.frame_logits:
        raise ValueError(f"shard {shard}: scores {coarse.shape} for {len(rows)} texts, {tile.spec.videos} videos")
    bad = ~np.isfinite(coarse)
    if tile.spec.sparse:
        scored = ~np.isnan(coarse)
        bad &= scored | ~scored.any(axis=1, keepdims=True)
    if fine is not None:
        own = tile.text_video[rows.start : rows.stop]
        here = np.flatnonzero(own >= 0)
        bad[here, own[here]] |= ~np.isfinite(fine[here]).all(axis=1)
    count = int(np.count_nonzero(bad))
    if count:
        # Few of many: argwhere of a whole shard of NaN would be larger than the shard.
        first = np.flatnonzero(bad.any(axis=1))[:_SHOWN]
        pairs = [(row, column) for row in first for column in np.flatnonzero(bad[row])[:_SHOWN]][:_SHOWN]
        lines = [f"{tile.text_ids[rows[row]]} with {tile.video_ids[column]}" for row, column in pairs]
        raise CacheError(
            f"the teacher gave {count:,} scores that are not finite",
            where=f"{tile.folder}, shard {shard}",
            hint="nothing of this shard was kept; check the teacher's checkpoint and these videos",
            details=[*lines, *(["..."] if count > len(lines) else [])],
        )


def _refuse_overflow(tile: Tile, shard: int, coarse: np.ndarray, stored: np.ndarray) -> None:
    if tile.spec.dtype != "float16" or not np.isinf(stored).any():
        return
    row, column = np.unravel_index(np.nanargmax(np.abs(coarse)), coarse.shape)
    text = tile.text_ids[tile.spec.rows(shard)[int(row)]]
    raise CacheError(
        f"{np.count_nonzero(np.isinf(stored)):,} scores are too large for float16, which ends at 65504",
        where=f"{tile.folder}, shard {shard}",
        hint=Remedy(
            "codes fit any range: score so into another store",
            Score({"score.coarse": "uint16", "score.store": "OTHER.zarr"}),
        ),
        details=[f"the largest is {coarse[row, column]:g}, {text} with {tile.video_ids[int(column)]}"],
    )
