"""Databases that keep vectors: one small interface, and how a table is brought up to date with an index."""

import importlib
import json
import re
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import asdict, dataclass
from itertools import batched
from typing import NamedTuple, Protocol, Self, cast

from ....errors import ConfigError, DataError, UnreachableError
from ...runtime.plugins import needs
from ...runtime.reporting import Reporter
from .records import BATCH, IndexRecords, Record

FORMS = "qdrant:URL or qdrant:FOLDER, postgresql://USER@HOST/DATABASE, lancedb:FOLDER"
METRIC = "dot"
"""Of unit vectors it is the cosine; databases that normalise for themselves would move last digits."""
_NAME = re.compile(r"[A-Za-z_][A-Za-z0-9_]{0,62}")


@dataclass(frozen=True)
class Made:
    """What a table's vectors are, kept in the table.

    Attributes:
        width: numbers per vector; digest: of the network that made them: others' cannot be compared with them.
        index: the folder of the index, whose windows have the numbers that the table goes by.
    """

    width: int
    digest: str
    index: str

    def spelt(self) -> str:
        """As JSON, for a database that keeps text beside a table."""
        return json.dumps({"teachclip": asdict(self)})

    @classmethod
    def read(cls, text: str | bytes | None) -> Self | None:
        """What `spelt` has written; None where it is anything else."""
        try:
            found = json.loads(text or "null")["teachclip"]
            return cls(int(found["width"]), str(found["digest"]), str(found["index"]))
        except (ValueError, TypeError, KeyError):
            return None


class Table(Protocol):
    """A table of windows by their numbers, in some database. Each call is done whole or not at all.

    Attributes:
        made: what its vectors are; None where it was not made by this program.
        metric: `dot`, or what it is instead.
    """

    made: Made | None
    width: int
    metric: str

    @classmethod
    def open(cls, where: str, name: str, made: Made) -> Self:
        """The table of this name, made where there is none.

        Raises:
            UnreachableError: the database cannot be reached, or refuses.
        """

    def stamps(self) -> Mapping[int, str]:
        """The stamp of every window that is there, by its number."""

    def upsert(self, records: Sequence[Record]) -> None:
        """Put windows there, in place of those of the same numbers."""

    def delete(self, ids: Sequence[int]) -> None:
        """Take windows away."""

    def close(self) -> None:
        """Let go of the database."""


@dataclass(frozen=True)
class Engine:
    """A database: the module and class that write to it, what these need, and the extra that installs that."""

    title: str
    module: str
    name: str
    needs: str
    extra: str


ENGINES = {
    "qdrant": Engine("Qdrant", "qdrant", "QdrantTable", "qdrant_client", "qdrant"),
    "postgresql": Engine("PostgreSQL", "pgvector", "PgvectorTable", "psycopg", "pgvector"),
    "postgres": Engine("PostgreSQL", "pgvector", "PgvectorTable", "psycopg", "pgvector"),
    "lancedb": Engine("LanceDB", "lance", "LanceTable", "lancedb", "lancedb"),
}


class Synchronised(NamedTuple):
    """What became of a table: windows in it now, put there, taken away, and those that were as they should be."""

    windows: int
    written: int
    deleted: int
    unchanged: int


def is_database(where: str) -> bool:
    """Whether an address names a database, by how it begins."""
    return where.partition(":")[0] in ENGINES


def open_table(where: str, name: str, made: Made) -> Table:
    """The table of this name in a database, made where there is none.

    Args:
        where: as `FORMS` has it.

    Raises:
        ConfigError: what writes to this database is not installed; the name cannot be a table's.
        DataError: there is such a table, and it is of another width, metric or model, or not of this program.
        UnreachableError: the database cannot be reached, or refuses.
    """
    engine = ENGINES[where.partition(":")[0]]
    if not _NAME.fullmatch(name):
        raise ConfigError("this cannot be a table's name", where=name, hint="letters, digits and _ make one")
    needs(engine.needs, engine.extra, shown(where), engine.title)
    kind = cast(type[Table], getattr(importlib.import_module(f".{engine.module}", __package__), engine.name))
    table = kind.open(where, name, made)
    try:
        _refuse_other(table, made, f"{shown(where)}, table {name}")
    except BaseException:
        table.close()
        raise
    return table


def synchronise(table: Table, records: IndexRecords, reporter: Reporter) -> Synchronised:
    """Make a table hold what an index does: what is new or changed is written, what is gone is deleted.

    Killed midway and done again it goes on: what was written has its stamp.

    Raises:
        UnreachableError: the database fails; what was written before stays.
    """
    there = dict(table.stamps())
    written = unchanged = 0
    with reporter.progress("windows", len(records), "window") as progress:
        for part in records.all():
            new = [record for record in part if there.pop(record.id, None) != record.stamp]
            if new:
                table.upsert(new)
            written, unchanged = written + len(new), unchanged + len(part) - len(new)
            progress.advance(len(part))
    for ids in batched(there, BATCH):
        table.delete(ids)
    return Synchronised(written + unchanged, written, len(there), unchanged)


@contextmanager
def told(
    title: str, where: str, failures: tuple[type[Exception], ...], hint: Callable[[Exception], str]
) -> Iterator[None]:
    """Meanwhile, what a database's library raises is a message of ours.

    Args:
        title: the database's name.
        failures: that the library raises; hint: what helps against one of them.

    Raises:
        UnreachableError: in their place.
    """
    try:
        yield
    except failures as error:
        first = str(error).strip().partition("\n")[0] or type(error).__name__
        raise UnreachableError(
            f"{title} does not do it: {first}",
            where=shown(where),
            hint=f"{hint(error)}; what was written stays, and the same command goes on",
        ) from error


def shown(where: str) -> str:
    """An address without its password."""
    return re.sub(r"(://[^/@:]*):[^/@]*@", r"\1:***@", where)


def _refuse_other(table: Table, made: Made, where: str) -> None:
    hint = "name another table, or delete this one in the database if nobody needs it"
    if table.width != made.width:
        raise DataError(
            f"this table has vectors of {table.width} numbers, the index of {made.width}", where=where, hint=hint
        )
    if table.metric != METRIC:
        raise DataError(f"this table compares by {table.metric}, not by the dot product", where=where, hint=hint)
    if table.made is None:
        raise DataError("there is such a table, and it was not made by an export", where=where, hint=hint)
    if table.made.digest != made.digest:
        raise DataError("this table holds vectors of another model, which cannot be compared", where=where, hint=hint)
    if table.made.index != made.index:
        raise DataError(f"this table holds the windows of another index, {table.made.index}", where=where, hint=hint)
