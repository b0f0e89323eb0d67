"""Rows of a caption file, CSV or JSONL, each with its line number."""

import json
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from ....errors import DataError
from ....remedies import Change, Remedy
from .csv_rows import csv_rows, header_of, no_column, other_separator
from .text_files import blank, kind_of, text_of


@dataclass(frozen=True)
class CaptionRow:
    """One row as written: nothing checked yet but its form. `line` counts from 1; `split` is "" when absent."""

    line: int
    video: str
    captions: tuple[str, ...]
    split: str


def read_rows(path: Path, problem: Callable[[str], None]) -> Iterator[CaptionRow]:
    """Rows of `path`; what is wrong with a single row goes to `problem`, as `captions.csv:12: ...`.

    Raises:
        DataError: the file as a whole cannot be read: absent, not UTF-8, no header, broken quotes.
    """
    readers = {".csv": _csv_rows, ".jsonl": _jsonl_rows}
    if path.suffix.lower() not in readers:
        raise DataError(
            f"captions are read from .csv or .jsonl files, not {path.suffix or 'files without extension'}",
            where=str(path),
            hint="save a table as CSV in UTF-8, with commas between the fields",
        )
    text = text_of(path, "caption file", Remedy("name yours", Change({"data.captions": "/path/to/captions.csv"})))
    return readers[path.suffix.lower()](path, text, problem)


def _csv_rows(path: Path, text: str, problem: Callable[[str], None]) -> Iterator[CaptionRow]:
    rows = csv_rows(text, path)
    first, names = header_of(rows)
    columns = _columns(f"{path}:{first}", names)
    for line, fields in rows:
        if len(fields) == len(names):
            values = {name: fields[at].strip() for name, at in columns.items()}
            yield CaptionRow(line, values["video"], (values["caption"],), values.get("split", ""))
        else:
            told = f"{len(fields)} fields where the header names {len(names)}"
            problem(f"{path.name}:{line}: {told} ({_why(fields, names)})")


def _why(fields: list[str], names: list[str]) -> str:
    other = other_separator(fields)
    if len(fields) < len(names) and other:
        return f"it holds {other}: fields are separated by commas"
    return "a field that holds a comma needs double quotes"


def _columns(where: str, names: list[str]) -> dict[str, int]:
    missing = [name for name in ("video", "caption") if name not in names]
    if missing:
        named = "the first line names the columns: video,caption or video,caption,split"
        raise no_column(missing, names, where, named)
    wanted = [name for name in ("video", "caption", "split") if name in names]
    twice = [name for name in wanted if names.count(name) > 1]
    if twice:
        raise DataError(f"two columns named {twice[0]}", where=where)
    return {name: names.index(name) for name in wanted}


def _jsonl_rows(path: Path, text: str, problem: Callable[[str], None]) -> Iterator[CaptionRow]:
    # not splitlines: JSON strings may hold U+2028, U+0085 and other line ends of Unicode
    for number, line in enumerate(text.split("\n"), start=1):
        if blank(line):
            continue
        try:
            yield _jsonl_row(number, json.loads(line))
        except json.JSONDecodeError as error:
            problem(f"{path.name}:{number}: not JSON: {error.msg} (column {error.colno})")
        except RecursionError:
            problem(f"{path.name}:{number}: not JSON that can be read: nested too deeply")
        except ValueError as error:
            problem(f"{path.name}:{number}: {error}")


def _jsonl_row(number: int, row: Any) -> CaptionRow:
    if not isinstance(row, dict):
        raise ValueError('each line is an object: {"video": "a.mp4", "caption": "..."}')
    video, caption, split = row.get("video"), row.get("caption", []), row.get("split")
    if not isinstance(video, str):
        raise ValueError('no "video"' if video is None else f'"video" is {kind_of(video)}, not a string')
    captions = [caption] if isinstance(caption, str) else caption
    if not isinstance(captions, list) or not all(isinstance(one, str) for one in captions):
        raise ValueError(f'"caption" is {kind_of(caption)}, not a string or a list of strings')
    if not (split is None or isinstance(split, str)):
        raise ValueError(f'"split" is {kind_of(split)}, not a string')
    return CaptionRow(number, video.strip(), tuple(captions), (split or "").strip())
