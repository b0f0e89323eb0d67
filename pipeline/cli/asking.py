"""What `teachclip search` is asked: again and again at a terminal; words that were meant otherwise."""

import io
import sys
from collections.abc import Callable, Iterable, Sequence
from contextlib import suppress
from pathlib import Path
from typing import TYPE_CHECKING

from rich.console import RenderableType

from ...errors import ConfigError, TeachclipError
from .shell.errors import Terminated, explain
from .shell.output import Output
from .shell.paths import DEMO
from .shell.remedies import Given, joined

if TYPE_CHECKING:
    from ...stages.search.questions import Question

PROMPT = "? "


def at_terminal() -> bool:
    """Whether a person can be asked, and sees the answers."""
    return sys.stdin.isatty() and sys.stdout.isatty()


def ask_at_terminal(
    output: Output, answer: "Callable[[list[Question]], Iterable[RenderableType]]", given: Given
) -> None:
    """Ask a person again and again, until an empty line, Ctrl-D or Ctrl-C. What goes wrong with a question costs it
    alone.

    Args:
        answer: what is shown of a line's questions.
        given: what the verb was given, for the commands that help.
    """
    from ...stages.search.questions import questions

    if isinstance(sys.stdin, io.TextIOWrapper):
        sys.stdin.reconfigure(errors="surrogateescape")  # as words of a command line are read
    output.info("Ask with a sentence; an empty line ends it.")
    try:
        while line := _line():
            try:
                output.result(None, *answer(questions([line], io.BytesIO())))
            except TeachclipError as error:
                failure = explain(error, "search", "", given)
                output.failure(failure.kind, failure.lines, failure.hint, None)
    except KeyboardInterrupt as stopped:
        if isinstance(stopped, Terminated):
            raise
        output.info("")  # the shell's prompt begins a line


def _line() -> str:
    with suppress(ImportError):  # with it, a line can be changed and called back
        import readline  # noqa: F401
    try:
        return input(PROMPT).strip()
    except EOFError:
        return ""


def only_sentences(asked: "Sequence[Question]") -> list[str]:
    """The same questions.

    Raises:
        ConfigError: one is a video.
    """
    videos = [str(each) for each in asked if isinstance(each, Path)]
    if videos:
        hint = "ask with a sentence, or make an index: teachclip index VIDEOS --model MODEL"
        raise ConfigError("an index is searched by a video, a CONFIG by sentences alone", where=videos[0], hint=hint)
    return [each for each in asked if isinstance(each, str)]


def refuse_swapped(where: Path, words: Sequence[str]) -> None:
    """Refuse sentences in front of what is to be searched.

    Raises:
        ConfigError: nothing is at `where`, and one of the words is an index, a demo's folder or a YAML file; with the
            right order.
    """
    if where.exists() or not (searched := [word for word in words if _is_searched(Path(word))]):
        return
    line, first = sys.argv[1:], searched[0]
    if str(where) in line and line.index(str(where)) < line.index(first):
        line.insert(line.index(str(where)), line.pop(line.index(first)))
    else:
        line = ["search", first, str(where), *(word for word in words if word != first)]
    hint = f"what is searched comes first: {joined(['teachclip', *line])}"
    raise ConfigError("there is no such index or configuration", where=str(where), hint=hint)


def remark_on_words(output: Output, where: Path, words: Sequence[str]) -> None:
    """Say how a sentence is quoted, where each of its words may have been taken for one."""
    if len(words) > 1 and not any(len(word.split()) > 1 or word[:1] in "-@" or Path(word).is_file() for word in words):
        sentence = joined(["teachclip", "search", str(where), " ".join(words)])
        output.info(f"each of the {len(words)} words was a sentence of its own; one sentence is quoted: {sentence}")


def _is_searched(path: Path) -> bool:
    from ...cache.library.database import is_library

    if path.is_dir():
        return is_library(path) or (path / DEMO).is_file()
    return path.suffix in (".yaml", ".yml") and path.is_file()
