"""Windows as rows of an embedded LanceDB table."""

from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from typing import Any, Self

import lancedb
import numpy as np
import pyarrow as arrow
from numpy.typing import NDArray

from ....errors import UnreachableError
from .records import Record
from .tables import METRIC, Made

_MADE = b"teachclip"
_READ = 10_000  # rows at a time


def _schema(made: Made) -> Any:
    columns = [
        ("id", arrow.int64()),
        ("path", arrow.string()),
        ("start", arrow.float64()),
        ("stop", arrow.float64()),
        ("times", arrow.list_(arrow.float64())),
        ("tags", arrow.list_(arrow.string())),
        ("stamp", arrow.string()),
        ("vector", arrow.list_(arrow.float32(), made.width)),
    ]
    return arrow.schema(columns, metadata={_MADE: made.spelt()})


class LanceTable:
    """As `Table`. What is compared by is chosen in a search, not kept: `metric` is the dot product.

    Args:
        table: that is written to.
        where: the address, as messages name it.
    """

    metric = METRIC

    def __init__(self, table: Any, where: str) -> None:
        self._table, self._where = table, where
        schema = table.schema
        kind = schema.field("vector").type if "vector" in schema.names else None
        self.width = kind.list_size if kind is not None and arrow.types.is_fixed_size_list(kind) else 0
        self.made = Made.read((schema.metadata or {}).get(_MADE))

    @classmethod
    def open(cls, where: str, name: str, made: Made) -> Self:
        """As `Table.open`."""
        with _told(where):
            database = lancedb.connect(where.partition(":")[2])
            try:
                table = database.open_table(name)
            except (FileNotFoundError, ValueError):  # there is none
                table = database.create_table(name, schema=_schema(made))
            return cls(table, where)

    def stamps(self) -> Mapping[int, str]:
        """As `Table.stamps`."""
        found: dict[int, str] = {}
        with _told(self._where):
            for batch in self._table.search().select(["id", "stamp"]).to_batches(_READ):
                found.update(zip(batch["id"].to_pylist(), batch["stamp"].to_pylist(), strict=True))
        return found

    def upsert(self, records: Sequence[Record]) -> None:
        """As `Table.upsert`."""
        rows = [{**record.described, "stamp": record.stamp, "vector": _vector(record)} for record in records]
        with _told(self._where):
            given = arrow.Table.from_pylist(rows, schema=self._table.schema)
            merge = self._table.merge_insert("id").when_matched_update_all().when_not_matched_insert_all()
            merge.execute(given)

    def delete(self, ids: Sequence[int]) -> None:
        """As `Table.delete`."""
        with _told(self._where):
            self._table.delete(f"id IN ({', '.join(map(str, ids))})")

    def nearest(self, vector: NDArray[np.floating], top: int) -> list[tuple[int, float]]:
        """As `Table.nearest`."""
        with _told(self._where):
            search = self._table.search(vector.astype(np.float32)).distance_type(METRIC).select(["id", "_distance"])
            return [(row["id"], 1 - row["_distance"]) for row in search.limit(top).to_list()]

    def close(self) -> None:
        """As `Table.close`; there is nothing open."""


def _vector(record: Record) -> list[float]:
    numbers: list[float] = record.vector.astype(np.float32).tolist()
    return numbers


@contextmanager
def _told(where: str) -> Iterator[None]:
    """What LanceDB raises, as a message."""
    try:
        yield
    except (OSError, RuntimeError, ValueError, arrow.ArrowException) as error:
        first = str(error).strip().partition("\n")[0] or type(error).__name__
        raise UnreachableError(
            f"LanceDB does not do it: {first}",
            where=where,
            hint="see that the folder can be written and has room; what was written stays, and the same command "
            "goes on",
        ) from error
