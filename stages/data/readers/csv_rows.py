"""CSV as spreadsheets write it: rows that hold something, each with the line that it begins in."""

import csv
import io
from collections.abc import Iterator, Sequence
from pathlib import Path

from ....errors import DataError
from .text_files import blank

FIELD_LIMIT = 1_000_000  # characters of one field
_OTHERS = {";": "semicolons", "\t": "tabs", "|": "vertical bars"}
_FOR_EXCEL = ["sep=", ""]  # `sep=,` in the first line
WITH_COMMAS = "save it with commas between the fields (Excel writes what the country's settings say), or as JSONL"


def csv_rows(text: str, path: Path) -> Iterator[tuple[int, list[str]]]:
    """Rows of `text`, the contents of `path`; the first one is the header. Blank ones are left out, and so are blank
    fields behind those that the header names.

    Raises:
        DataError: broken quotes, or a field that is too long; names the line.
    """
    csv.field_size_limit(FIELD_LIMIT)
    reader = csv.reader(io.StringIO(text, newline=""), strict=True)
    line, width = 1, 0
    try:
        for fields in reader:
            if not all(map(blank, fields)) and not (width == 0 and fields == _FOR_EXCEL):
                while width and len(fields) > width and blank(fields[-1]):
                    fields.pop()
                width = width or len(fields)
                yield line, fields
            line = reader.line_num + 1
    except csv.Error as error:
        if not width and "," not in (first := text.partition("\n")[0]) and (other := other_separator([first])):
            raise DataError(_separated(other), where=f"{path}:{line}", hint=WITH_COMMAS) from None
        raise DataError(
            f"not a readable CSV from here on: {error}",
            where=f"{path}:{line}",
            hint="quote fields that hold commas or quotes, and double the quotes inside them",
        ) from None


def header_of(rows: Iterator[tuple[int, list[str]]]) -> tuple[int, list[str]]:
    """The first row: its line and the names of the columns; none in an empty file."""
    line, names = next(rows, (1, []))
    return line, [name.strip() for name in names]


def other_separator(names: Sequence[str]) -> str:
    """`semicolons`, when these names of columns hold them in place of commas; "" when nothing of the kind is seen."""
    return next((word for mark, word in _OTHERS.items() if any(mark in name for name in names)), "")


def _separated(other: str) -> str:
    return f"its fields are separated by {other}, not by commas"


def no_column(missing: Sequence[str], names: Sequence[str], where: str, hint: str | None = None) -> DataError:
    """The error of a header that lacks columns."""
    what, other = f"no column {' and no column '.join(missing)}", other_separator(names)
    return DataError(
        f"{what}: {_separated(other)}" if other else what,
        where=where,
        hint=WITH_COMMAS if other else hint,
        details=[f"found: {', '.join(names) or 'an empty file'}"],
    )
