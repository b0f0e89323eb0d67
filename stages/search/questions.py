"""What is asked with: sentences, lists of them, and videos, told apart by what a word names."""

import os
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import BinaryIO

from ...errors import DataError
from ...remedies import Remedy, Search
from ..data.readers.text_files import blank, decoded
from .library.files import is_video_name, lines_of

type Question = str | Path
"""A sentence, or a video to find others like it."""


def questions(words: Sequence[str], stdin: BinaryIO | None = None) -> list[Question]:
    """What words ask: the path of a video (it has a video's ending, or a slash in it), a list of questions, `@FILE` or
    `-` (the standard input), one a line, or else a sentence. Empty lines are passed over.

    Raises:
        DataError: a list cannot be read, is not UTF-8 or empty; there is no such video.
    """
    return [question for word in words for question in _asked(word, stdin)]


def refuse_empty(queries: Sequence[object]) -> None:
    """Refuse what finds nothing.

    Raises:
        DataError: no sentence, or an empty one.
    """
    hint = Remedy("ask with words", Search())
    if isinstance(queries, str):
        raise DataError("a list of sentences is searched for, and this is one", hint=f"ask for [{queries!r}]")
    if not queries:
        raise DataError("nothing to search for", hint=hint)
    empty = [f"sentence {number}" for number, query in enumerate(queries, start=1) if blank(str(query))]
    if empty:
        raise DataError("an empty sentence finds nothing", details=empty if len(queries) > 1 else (), hint=hint)


def _asked(word: str, stdin: BinaryIO | None) -> Iterator[Question]:
    try:
        lines = lines_of(word, stdin)
    except DataError as error:
        hint = "@ names a file with a sentence a line; a sentence that begins with @ is asked as a line of such a file"
        raise DataError(error.what, where=error.where, hint=hint) from error
    if lines is None:
        yield _question(word)
        return
    name = "standard input" if word == "-" else word[1:]
    asked = [line.strip() for line in decoded(b"\n".join(lines), Path(name)).split("\n") if not blank(line)]
    if not asked:
        raise DataError("there is no sentence in it", where=name, hint="write one a line")
    yield from map(_question, asked)


def _question(word: str) -> Question:
    ending = is_video_name(word) and not word.rpartition(".")[2].isdecimal()  # a sentence may end in 0.264
    if (ending or "/" in word) and os.path.isfile(word):
        return Path(word)
    if ending:
        hint = "a sentence is asked without a video's ending"
        raise DataError("there is no such video", where=word, hint=hint)
    return word
