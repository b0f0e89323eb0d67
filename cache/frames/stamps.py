"""Modification times that video files have got since their shard was written, while their bytes stayed the same.

Copying a project gives every file another time. Writing every shard anew for that would copy all frames, and stop
whoever reads them; so the times are put beside: `00000.stamps.json` for `00000.h5`. It names its shard by the hash of
the tables, and holds for no other. Without it, the shard's own times hold, and files are compared once more.
"""

import json
from collections.abc import Sequence
from dataclasses import replace
from typing import Any

from ..storage.locations import Location
from .files import put, read_document
from .record import FileStamp
from .shard import FrameShard

FORMAT, VERSION = "teachclip frame stamps", 1
MAX_BYTES = 2**22


def stamps_path(shard: Location) -> Location:
    """Where the times beside a shard lie."""
    return shard.parent / f"{shard.name.removesuffix('.h5')}.stamps.json"


def publish_times(shard: Location, tables: str, mtimes: Sequence[int]) -> None:
    """Put times [V], nanoseconds, beside a shard whose tables have the hash `tables`."""
    document = {"format": FORMAT, "version": VERSION, "tables": tables, "mtimes": list(mtimes)}
    put(stamps_path(shard), json.dumps(document).encode())


def stamps_of(shard: FrameShard) -> tuple[FileStamp, ...]:
    """The shard's stamps, with the times beside it, if there are any for it."""
    try:
        document = read_document(stamps_path(shard.path), MAX_BYTES)
        if document is None:
            return shard.stamps
        mtimes = _mtimes(json.loads(document), shard)
    except (OSError, ValueError, TypeError, KeyError, RecursionError):
        return shard.stamps
    return tuple(replace(stamp, mtime_ns=mtime) for stamp, mtime in zip(shard.stamps, mtimes, strict=True))


def _mtimes(document: Any, shard: FrameShard) -> list[int]:
    mtimes: list[int] = document["mtimes"]
    if (document["format"], document["version"], document["tables"]) != (FORMAT, VERSION, shard.tables):
        raise ValueError("of another shard")
    right = type(mtimes) is list and len(mtimes) == len(shard.stamps)
    if not (right and all(type(one) is int and abs(one) < 2**63 for one in mtimes)):
        raise ValueError("no times of its videos")
    return mtimes
