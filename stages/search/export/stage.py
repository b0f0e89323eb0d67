"""An index -> a file of vectors, or a table of a database."""

import time
from contextlib import closing
from dataclasses import dataclass
from pathlib import Path

import numpy as np

from ....cache.library.library import Library
from ....errors import ConfigError, DataError
from ...runtime.reporting import Reporter, Silent
from .files import FORMS as FILES
from .files import form_of, vector_file
from .records import IndexRecords
from .tables import FORMS as DATABASES
from .tables import Made, Synchronised, is_database, open_table, shown, synchronise

TABLE = "teachclip"
"""The table's name where none is given."""


@dataclass(frozen=True)
class Exported:
    """What was written.

    Attributes:
        to: the file, or the database and its table.
        model: that made the vectors; width: numbers per vector.
        windows: that are there now; written, deleted: now; unchanged: that were there as they should be.
    """

    to: str
    model: str
    width: int
    windows: int
    written: int
    deleted: int
    unchanged: int
    seconds: float


def export_index(
    folder: Path,
    to: str,
    table: str | None = None,
    model: str | None = None,
    reporter: Reporter | None = None,
    width: int | None = None,
) -> Exported:
    """Write an index's windows and their vectors.

    A file is complete or absent; a table is brought up to date, and a killed export goes on when it is given again.

    Args:
        folder: of the index.
        to: a file by its ending, or a database, as `files.FORMS` and `tables.FORMS` have them.
        table: of the database; `TABLE` by default.
        model: whose vectors are meant, as the index names it; None for the one that it had last.
        width: to which they are cut; None leaves them whole.

    Raises:
        CacheError: there is no index, or it is damaged.
        ConfigError: `to` is neither; what writes it is not installed; a table is named for a file; vectors have not so
            many numbers.
        DataError: the index is empty, or has no such model; the table is of another width, metric, model or index.
        UnreachableError: the database cannot be reached, or fails.
    """
    reporter, began = reporter or Silent(), time.perf_counter()
    _refuse_unknown(to, table)
    with Library.open(folder, _digest(folder, model)) as library:
        records = IndexRecords(library, width)
        made_by = records.model
        if not len(records):
            raise DataError("this index has no windows", where=str(folder), hint="index videos there first")
        if is_database(to):
            name = table or TABLE
            made = Made(made_by.width, made_by.digest, str(folder.absolute()))
            with closing(open_table(to, name, made)) as opened:
                done = synchronise(opened, records, reporter)
            target = f"{shown(to)}, table {name}"
        else:
            written, target = _to_file(Path(to), records, reporter), to
            done = Synchronised(written, written, 0, 0)
        return Exported(target, made_by.name, made_by.width, *done, time.perf_counter() - began)


def _refuse_unknown(to: str, table: str | None) -> None:
    """Refuse what is neither a file nor a database before anything is opened."""
    if is_database(to):
        return
    begins = to.partition(":")[0]
    if ":" in to and "/" not in begins and not Path(to).suffix:
        raise ConfigError(f"vectors are not written to {begins}", where=shown(to), hint=f"databases are {DATABASES}")
    if not Path(to).suffix:
        raise ConfigError("this names neither a file nor a database", where=to, hint=f"{FILES}; or {DATABASES}")
    form_of(Path(to))
    if table is not None:
        raise ConfigError("a file has no tables", where=to, hint="leave the table's name away")


def _digest(folder: Path, model: str | None) -> str | None:
    if model is None:
        return None
    with Library.open(folder) as library:
        known = {each.name: each.digest for each in library.models()}
    found = {digest for name, digest in known.items() if model in (name, Path(name).name) or _same_path(model, name)}
    if len(found) != 1:
        raise DataError(
            "this index has no vectors of a model of this name",
            where=model,
            details=list(known),
            hint="name one of these",
        )
    return found.pop()


def _same_path(model: str, name: str) -> bool:
    return str(Path(model).absolute()) == name


def _to_file(path: Path, records: IndexRecords, reporter: Reporter) -> int:
    model, written = records.model, 0
    about = {"model": model.name, "digest": model.digest, "width": model.width, "metric": "dot product of unit vectors"}
    with (
        vector_file(path, model.width, about) as file,
        reporter.progress("windows", len(records), "window") as progress,
    ):
        for part in records.all():
            if part:
                file.add([record.described for record in part], np.stack([record.vector for record in part]))
            written += len(part)
            progress.advance(len(part))
    return written
