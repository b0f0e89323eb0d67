"""Shards of a tile: rows of scores that are complete or absent.

A shard is complete when a marker, published after its files, names their sizes and hashes and the checksum of the
tile's own metadata; existing or being readable is not enough. Nothing is appended to or rewritten in part.
"""

from contextlib import suppress
from pathlib import Path
from typing import Any

import numpy as np

from ...errors import CacheError
from ...remedies import Remedy, RepairScores, Score
from ..storage.identity import digest
from ..storage.locations import Location, at_once
from ..storage.publish import TEMPORARY, publish, sync_above, sync_folder
from ..storage.sealed import seal, unseal
from ..storage.untrusted import damaged, file_digest, read_optional, size_problem, unwritable
from .format.codes import encode_scores
from .format.sizes import shard_bytes
from .format.tensorstore_io import encode_chunks
from .tile import Tile, TileFacts

RESCORE = Remedy("score it again", Score())
REPAIR = Remedy("score only what is damaged again", RepairScores())
_ATTEMPTS = 5
_SHOWN = 5


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
    facts = {file: {"size": len(data), "blake2b": digest(data).hex()} for file, data in files.items()}
    files[f"done/{marker_path(tile, shard).name}"] = seal({"shard": shard, "tile": tile.checksum, "files": facts})
    # Another worker may publish the same shard meanwhile. The same machine gives the same bytes; where it does not,
    # whoever comes last finds a file that is not its own and, unless all are the other's, publishes them again.
    for _ in range(_ATTEMPTS):
        tile.refuse_replaced()  # else its folders would be made again, without what says what they hold
        with suppress(FileNotFoundError):  # the other has finished the tile and swept it
            if _publish(tile, files):
                return _settle(tile)
        if not problem(tile, shard, every_byte=True):
            return _settle(tile)
    raise CacheError("what was written does not come back", where=str(tile.folder), hint="check the disk")


def _publish(tile: Tile, files: dict[str, bytes]) -> bool:
    """Whether what is there then is what was written."""
    try:
        for file, data in files.items():
            path = tile.local / file
            publish(path, data)
        return all((tile.local / file).read_bytes() == data for file, data in files.items())
    except FileNotFoundError:
        raise
    except OSError as error:
        raise unwritable(path, error) from error


def _settle(tile: Tile) -> None:
    """Make what is complete survive a power cut: some of it may be another's, who was killed before he synced."""
    try:
        for name in (*tile.spec.scored, "done"):
            sync_folder(tile.local / name)
        sync_above(tile.local / "done")
    except OSError as error:
        raise unwritable(tile.local, error) from error


def sweep(tile: Tile) -> None:
    """Settle a tile whose every shard is complete: nothing of it can be lost, what killed workers left is removed."""
    _settle(tile)
    for path in tile.local.glob(f"*/{TEMPORARY}*"):
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
