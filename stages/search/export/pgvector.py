"""Windows as rows of a PostgreSQL table with a pgvector column."""

from collections.abc import Mapping, Sequence
from contextlib import AbstractContextManager
from typing import Any, Self

import numpy as np
import psycopg
from numpy.typing import NDArray
from psycopg import sql

from .records import Record
from .tables import METRIC, Made, told

_COLUMNS = ("id", "path", "start", "stop", "times", "tags", "stamp", "vector")
_FIND = "SELECT to_regclass(%s)::oid"
_DESCRIBE = """
SELECT obj_description(%s, 'pg_class'),
    (SELECT format_type(atttypid, atttypmod) FROM pg_attribute WHERE attrelid = %s AND attname = 'vector')
"""
_CREATE = sql.SQL("""
CREATE TABLE {table} (
    id bigint PRIMARY KEY, path text NOT NULL, start double precision NOT NULL, stop double precision NOT NULL,
    times double precision[] NOT NULL, tags text[] NOT NULL, stamp text NOT NULL, vector vector({width}) NOT NULL)
""")
_UPSERT = sql.SQL("""
INSERT INTO {table} ({columns}) VALUES (%s, %s, %s, %s, %s, %s, %s, %s::vector)
ON CONFLICT (id) DO UPDATE SET {renewed}
""")


class PgvectorTable:
    """As `Table`. Rows have the record's columns; compared is by `<#>`, pgvector's negative dot product.

    Args:
        connection: that is closed with it.
        where: the address, as messages name it.
        name: of the table.
    """

    metric = METRIC

    def __init__(self, connection: "psycopg.Connection[Any]", where: str, name: str) -> None:
        self._connection, self._where, self._name = connection, where, sql.Identifier(name)
        (oid,) = connection.execute(_FIND, (self._name.as_string(connection),)).fetchone()
        comment, kind = connection.execute(_DESCRIBE, (oid, oid)).fetchone()
        self.made = Made.read(comment)
        number = str(kind or "").removeprefix("vector(").removesuffix(")")
        self.width = int(number) if number.isdigit() else 0

    @classmethod
    def open(cls, where: str, name: str, made: Made) -> Self:
        """As `Table.open`. Passwords are found as PostgreSQL's own programs find them (PGPASSWORD, ~/.pgpass)."""
        with _told(where):
            connection = psycopg.connect(where, autocommit=True)
            try:
                table = sql.Identifier(name)
                found = connection.execute(_FIND, (table.as_string(connection),)).fetchone()
                if found is None or found[0] is None:
                    with connection.transaction():
                        connection.execute("CREATE EXTENSION IF NOT EXISTS vector")
                        connection.execute(_CREATE.format(table=table, width=sql.Literal(made.width)))
                        comment = sql.SQL("COMMENT ON TABLE {} IS {}").format(table, sql.Literal(made.spelt()))
                        connection.execute(comment)
                return cls(connection, where, name)
            except BaseException:
                connection.close()
                raise

    def stamps(self) -> Mapping[int, str]:
        """As `Table.stamps`."""
        with _told(self._where):
            return dict(self._connection.execute(sql.SQL("SELECT id, stamp FROM {}").format(self._name)).fetchall())

    def upsert(self, records: Sequence[Record]) -> None:
        """As `Table.upsert`."""
        columns = [sql.Identifier(column) for column in _COLUMNS]
        renewed = sql.SQL(", ").join(sql.SQL("{0} = EXCLUDED.{0}").format(column) for column in columns[1:])
        query = _UPSERT.format(table=self._name, columns=sql.SQL(", ").join(columns), renewed=renewed)
        rows = [(*record.described.values(), record.stamp, _vector(record.vector)) for record in records]
        with _told(self._where), self._connection.transaction(), self._connection.cursor() as cursor:
            cursor.executemany(query, rows)

    def delete(self, ids: Sequence[int]) -> None:
        """As `Table.delete`."""
        with _told(self._where):
            self._connection.execute(sql.SQL("DELETE FROM {} WHERE id = ANY(%s)").format(self._name), (list(ids),))

    def close(self) -> None:
        """As `Table.close`."""
        self._connection.close()


def _vector(vector: NDArray[np.floating]) -> str:
    """As pgvector spells it; nine digits tell every float32."""
    return "[" + ",".join(f"{number:.9g}" for number in vector.astype(np.float32).tolist()) + "]"


def _told(where: str) -> AbstractContextManager[None]:
    return told("PostgreSQL", where, (psycopg.Error,), _hint)


def _hint(error: Exception) -> str:
    if isinstance(error, psycopg.errors.FeatureNotSupported | psycopg.errors.UndefinedFile):
        return "install pgvector on the database's machine"
    if isinstance(error, psycopg.errors.InsufficientPrivilege):
        return "let its owner give CREATE EXTENSION vector once, and grant this user CREATE on the schema"
    return "see that the database runs, and that this user may write there"
