"""Tags of videos: short texts that people give them, and search for."""

import sqlite3
from collections.abc import Iterable, Sequence

from ...errors import DataError
from .database import stored_path

LONGEST = 200  # letters


def tag_of(text: str) -> str:
    """The tag that is meant: without blanks around it.

    Raises:
        DataError: it is empty, too long, or no text.
    """
    tag = text.strip()
    if not tag:
        raise DataError("an empty tag finds nothing")
    if len(tag) > LONGEST:
        raise DataError(f"this tag has {len(tag)} letters, {LONGEST} is the most", where=f"{tag[:40]}...")
    if not tag.isprintable():
        raise DataError("a tag is one line of text", where=ascii(tag))
    return tag


def tags_of(add: Iterable[str], remove: Iterable[str]) -> tuple[list[str], list[str]]:
    """As `tag_of`, of those to be given and those to be taken away.

    Raises:
        DataError: as there; or one is both.
    """
    given, taken = [tag_of(text) for text in add], [tag_of(text) for text in remove]
    if both := sorted({*given} & {*taken}):
        raise DataError("a tag cannot be given and taken away at once", where=", ".join(both))
    return given, taken


def change_tags(
    connection: sqlite3.Connection, paths: Iterable[str], add: Sequence[str] = (), remove: Sequence[str] = ()
) -> tuple[int, int]:
    """Give tags to the videos of these paths and take others away, inside a transaction; how many of each changed."""
    insert = "INSERT OR IGNORE INTO tags(tag, video) SELECT ?, id FROM videos WHERE path = CAST(? AS TEXT)"
    delete = "DELETE FROM tags WHERE tag = ? AND video = (SELECT id FROM videos WHERE path = CAST(? AS TEXT))"
    stored = [stored_path(path) for path in paths]
    added, removed = (
        connection.executemany(statement, [(tag, path) for tag in tags for path in stored]).rowcount if tags else 0
        for statement, tags in ((insert, add), (delete, remove))
    )
    return added, removed
