"""Lists of video ids: CSV files with a column video_id and perhaps sentence, and text files with an id a line."""

from collections import defaultdict
from dataclasses import dataclass
from pathlib import Path

from ....errors import DataError
from .csv_rows import csv_rows, header_of, no_column
from .text_files import list_of, text_of


@dataclass(frozen=True)
class Listed:
    """A list of ids: where each stands (file:line), and the captions by id where the list brings them."""

    where: dict[str, str]
    captions: dict[str, tuple[str, ...]]

    @property
    def clips(self) -> list[tuple[str, str]]:
        return list(self.where.items())


def read_list(path: Path) -> Listed:
    """The ids in `path`, .csv or .txt.

    Raises:
        DataError: it cannot be read, or names an id twice.
    """
    return _csv(path) if path.suffix == ".csv" else _lines(path)


def _lines(path: Path) -> Listed:
    where: dict[str, str] = {}
    for number, id in list_of(path):
        if id in where:
            raise DataError(f"the id {id!r} again, as in {where[id]}", where=f"{path}:{number}")
        where[id] = f"{path.name}:{number}"
    return Listed(_not_empty(where, path), {})


def _csv(path: Path) -> Listed:
    where: dict[str, str] = {}
    captions: dict[str, list[str]] = defaultdict(list)
    rows = csv_rows(text_of(path), path)
    first, names = header_of(rows)
    video = column_of(names, "video_id", f"{path}:{first}")
    sentence = names.index("sentence") if "sentence" in names else None
    for line, fields in rows:
        if len(fields) != len(names):
            raise DataError(f"{len(fields)} fields where the header names {len(names)}", where=f"{path}:{line}")
        id = fields[video].strip()
        if id in where and sentence is None:
            raise DataError(f"the id {id!r} again, as in {where[id]}", where=f"{path}:{line}")
        where.setdefault(id, f"{path.name}:{line}")
        if sentence is not None:
            captions[id].append(fields[sentence].strip())
    return Listed(_not_empty(where, path), {id: tuple(texts) for id, texts in captions.items()})


def column_of(names: list[str], name: str, where: str) -> int:
    """The place of a column.

    Raises:
        DataError: there is none.
    """
    if name not in names:
        raise no_column([name], names, where)
    return names.index(name)


def _not_empty(where: dict[str, str], path: Path) -> dict[str, str]:
    if not where:
        raise DataError("names no video", where=str(path))
    return where
