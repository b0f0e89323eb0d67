"""Windows as rows of an embedded LanceDB table."""

from collections.abc import Mapping, Sequence
from contextlib import AbstractContextManager
from typing import Any, Self

import lancedb
import numpy as np
import pyarrow as arrow

from .records import Record
from .tables import METRIC, Made, told

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

    def close(self) -> None:
        """As `Table.close`; there is nothing open."""


def _vector(record: Record) -> list[float]:
    numbers: list[float] = record.vector.astype(np.float32).tolist()
    return numbers


def _told(where: str) -> AbstractContextManager[None]:
    failures = (OSError, RuntimeError, ValueError, arrow.ArrowException)
    return told("LanceDB", where, failures, lambda _: "see that the folder can be written and has room")
