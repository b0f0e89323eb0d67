"""What every reader returns, and how it finds and opens the files it reads."""

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from functools import cache
from pathlib import Path

from ....configs.published_sets import SplitName
from ....errors import DataError
from ....remedies import Change, CheckData, Remedy
from ..video.source import VideoSource
from .caption_tables import Captions, read_captions


@dataclass(frozen=True)
class AnnotatedVideo:
    """A video and its captions, in order.

    Attributes:
        id: what the data set calls it.
        where: the line or key that it stands at.
        names: what its file may be called beside its id, extension apart.
        source: where its bytes are, when the data set says so; else a file is looked for.
        instead: what is there when the source is not, in words.
    """

    id: str
    split: SplitName
    captions: tuple[str, ...]
    where: str
    names: tuple[str, ...] = ()
    source: VideoSource | None = None
    instead: str = ""


class Annotations:
    """The folder of a published data set's annotations.

    Attributes:
        problem: told everything that is wrong with a single video, as `file:line: ...`.
        read: files read so far.
        short: tables that lack captions of videos, all of those that were looked into together.
    """

    def __init__(self, folder: Path, problem: Callable[[str], None]) -> None:
        self.folder, self.problem = folder, problem
        self.read: list[Path] = []
        self.short: set[tuple[str, ...]] = set()
        self.table = cache(self._table)

    def file(self, *names: str) -> Path:
        """The first of `names` that is there.

        Raises:
            DataError: none is.
        """
        path = self.optional(*names)
        if path is None:
            if not self.folder.is_dir():
                raise DataError(
                    "this is a file" if self.folder.exists() else "no such folder",
                    where=str(self.folder),
                    hint="data.annotations names the folder of the data set's files",
                )
            raise DataError(
                f"no {names[0]}" if len(names) == 1 else f"none of {', '.join(names)}",
                where=str(self.folder),
                hint=Remedy(
                    "look which files are missing and where they come from",
                    CheckData(),
                    otherwise=Remedy("read the files of the test split alone", Change({"data.splits": "[test]"})),
                ),
            )
        return path

    def optional(self, *names: str) -> Path | None:
        """The first of `names` that is there, or None."""
        path = next((self.folder / name for name in names if (self.folder / name).exists()), None)
        if path is not None and path not in self.read:
            self.read.append(path)
        return path

    def captioned(
        self, clips: Sequence[tuple[str, str]], split: SplitName, tables: Sequence[str]
    ) -> list[AnnotatedVideo]:
        """The clips (id, where), whose captions are in one of `tables`; tables are opened as they are needed.

        A clip without captions is a problem.

        Raises:
            DataError: there is none of the tables, or one cannot be read.
        """
        self.file(*tables)
        found = []
        for id, where in clips:
            captions = next((captions for name in tables if (captions := self.table(name).get(id))), ())
            if not captions:
                self.short.add(tuple(tables))
                named = ", ".join(name for name in tables if (self.folder / name).exists())
                self.problem(f"{where}: {id!r} has no caption in {named}")
            found.append(AnnotatedVideo(id, split, captions, where))
        return found

    def _table(self, name: str) -> Captions:
        path = self.optional(name)
        return {} if path is None else read_captions(path)
