"""Which file is a video's: data sets name videos without folder and extension. And what is there when none is."""

import os
import posixpath
import unicodedata
from collections import defaultdict
from collections.abc import Iterable, Iterator
from functools import cached_property
from pathlib import Path
from urllib.parse import unquote

from ....cache.storage.system_files import left_by_system
from ....errors import printable
from ....plurals import counted
from .text_files import blank, code_points

# fmt: off
VIDEO_SUFFIXES = frozenset((
    "mp4", "avi", "mkv", "webm", "mov", "qt", "m4v", "mpg", "mpeg", "mpe", "3gp", "3gpp", "3g2", "3gp2", "3gpp2", "wmv",
    "asf", "flv", "f4v", "ogv", "ogg", "ogm", "mts", "m2ts", "m2t", "ts", "trp", "vob", "mod", "tod", "divx", "xvid",
    "mp4v", "mpv", "m1v", "m2v", "mk3d", "mxf", "dv", "rm", "rmvb", "wtv", "nut", "ivf", "gif",
    "null",  # DiDeMo has all sorts
    "y4m", "mjpeg", "mjpg", "h264", "264", "avc", "h265", "265", "hevc", "obu",  # streams without a container
))
ALSO_BESIDE = frozenset(("ogg", "gif"))  # may hold sound alone, or a preview, beside the video
# fmt: on
RENAME = "rename the file in UTF-8 (convmv -f latin1 -t utf8)"
_SHOWN = 3


class VideoFolder:
    """The files below a folder, by their names without extension; folders that are links are not entered.

    A name may have two extensions (x.mov.mp4) or none. Names are the same in either of Unicode's forms (an accented
    letter as one character, as macOS does not write it, or as two). What systems leave does not count.

    Attributes:
        linked: the folders that were not entered.
    """

    def __init__(self, root: Path) -> None:
        self.root = root
        self._real = root.resolve()
        self._files: dict[str, list[Path]] = defaultdict(list)
        self.linked: list[Path] = []
        for folder, folders, names in os.walk(root):
            folders[:] = sorted(name for name in folders if not left_by_system(name))
            self.linked += (Path(folder, name) for name in folders if Path(folder, name).is_symlink())
            for name in sorted(name for name in names if not left_by_system(name)):
                for key in _keys(name):
                    self._files[_one_form(key)].append(Path(folder, name))

    def find(self, names: Iterable[str]) -> tuple[Path | None, str]:
        """The one file that has any of `names`; else None, and why when it is more than that it is not there."""
        names = tuple(names)
        found = list(dict.fromkeys(path for name in names for path in self._files.get(_one_form(name), ())))
        found = [path for path in found if path.suffix[1:].lower() not in ALSO_BESIDE] or found
        if len(found) > 1:  # two files may differ in the form alone
            found = [path for path in found if not set(names).isdisjoint(_keys(path.name))] or found
        if len(found) > 1:
            shown = " and ".join(str(path.relative_to(self.root)) for path in found[:3])
            return None, f"has {counted(len(found), 'file')}: {shown}; keep one of them"
        if not found:
            return None, ""
        if wrong := self.leads_out(found[0]):
            return None, wrong
        return found[0], ""

    def leads_out(self, path: Path) -> str:
        """That a file is a link out of the folder, and where to; else nothing."""
        real = path.resolve()
        return "" if real.is_relative_to(self._real) else link_out(real)

    def same(self, id: str) -> Path | None:
        """The file at the path `id`, written in another of Unicode's forms, if it does not lead out of the folder."""
        found = self._files.get(_one_form(posixpath.basename(id)), ())
        every = (path for path in found if _one_form(self._below(path)) == _one_form(id))
        return next((path for path in every if not self.leads_out(path)), None)

    def instead(self, id: str, any_extension: bool = False) -> str:
        """What is there in place of a video that is not, and the setting that helps; nothing when nothing is alike."""
        alike = [self._described(id, path, any_extension) for path in self._alike.get(_plain(id), ())[:_SHOWN]]
        if alike:
            return f"there is {' and '.join(alike)}"
        return "; ".join(filter(None, (self._without_text(), self._not_entered())))

    def _without_text(self) -> str:
        """That files have names that are not UTF-8, one of which may be the video's."""
        every = dict.fromkeys(path for paths in self._files.values() for path in paths if not encodes(path.name))
        if not every:
            return ""
        first = printable(self._below(next(iter(every))))
        return f"{len(every)} of the names there {'is' if len(every) == 1 else 'are'} not UTF-8, as {first}; {RENAME}"

    def _not_entered(self) -> str:
        """The folders that are links, where files may be missing for it."""
        if not self.linked:
            return ""
        links = " and ".join(f"{self._below(link)} (to {link.resolve()})" for link in self.linked[:_SHOWN])
        more = f" and {len(self.linked) - _SHOWN} more" if len(self.linked) > _SHOWN else ""
        return f"folders that are links are not entered: {links}{more}; data.videos can name where they lead to"

    @cached_property
    def _alike(self) -> dict[str, list[Path]]:
        found: dict[str, dict[Path, None]] = defaultdict(dict)
        for paths in self._files.values():
            for path in paths:
                found[_plain(path.name)][path] = None
        return {key: list(paths) for key, paths in found.items()}

    def _below(self, path: Path) -> str:
        return path.relative_to(self.root).as_posix()

    def _described(self, id: str, path: Path, any_extension: bool) -> str:
        """A file that is nearly the one asked for, and in what it differs."""
        there, asked = _one_form(self._below(path)), _one_form(id)
        if there.endswith(f"/{asked}"):
            return f"{there!r} (data.videos: {self.root / there[: -len(asked) - 1]})"
        if asked == f"{self._real.name}/{there}":
            return f"{there!r} (data.videos: {self._real.parent})"
        if not encodes(there):
            return f"'{printable(there)}' (not UTF-8; {RENAME})"
        differs = ", ".join(_differences(asked, there, any_extension))
        return f"{there!r} ({differs or 'in another folder'})"


def file_there(path: Path) -> bool:
    """Whether there is a file; a name that is too long is none, and no error."""
    try:
        return path.is_file()
    except OSError:
        return False


def link_out(real: Path, key: str = "data.videos") -> str:
    """The words for a link that leads out of the video folder, which `key` names, to `real`."""
    return f"is a link out of the video folder, to {real}; name the folder that it leads to: {key}"


def _one_form(name: str) -> str:
    return name if name.isascii() else unicodedata.normalize("NFC", name)


def _plain(id: str) -> str:
    """What is alike: the name alone, without extension, in small letters, without %20; as Latin-1 where it is none."""
    text = id if encodes(id) else id.encode(errors="surrogateescape").decode("latin-1")
    name = posixpath.basename(unquote(_one_form(text).replace("\\", "/")))
    return min(_keys(name), key=len).casefold()


def _differences(asked: str, there: str, any_extension: bool) -> Iterator[str]:
    """In what the name of a file that is there differs from the one asked for."""
    if "\\" in asked:
        yield "/ in place of \\"
        asked = asked.replace("\\", "/")
    if (plain := unquote(asked)) != asked or unquote(there) != there:
        yield "without %20 and the like" if plain != asked else "with %20 and the like"
        asked, there = plain, unquote(there)
    (stem, suffix), (own, ending) = posixpath.splitext(asked), posixpath.splitext(there)
    if any_extension:
        there = own
    elif suffix.lower() != ending.lower():
        yield "another extension"
        asked, there = stem, own
    if asked != there and posixpath.basename(asked) != posixpath.basename(there):
        yield "small and capital letters"


def _keys(name: str) -> Iterable[str]:
    """The ids that a file of this name may be the video of."""
    yield name
    for _ in range(2):
        stem, dot, suffix = name.rpartition(".")
        if not (stem and dot) or (suffix and suffix.lower() not in VIDEO_SUFFIXES):
            return
        yield stem
        name = stem


def bad_id(id: str) -> str | None:
    """Why `id` cannot be the name of a file below the video folder, or None."""
    if blank(id):
        return f"cannot be seen ({code_points(id)})" if id.strip() else "is empty"
    if not id.isprintable() and any(unicodedata.category(char) in ("Cc", "Zl", "Zp") for char in id):
        return "holds a control character or a line break"
    if not encodes(id):
        return f"is not text (half a character, or a byte that is not UTF-8: {printable(id)}); {RENAME}"
    if posixpath.isabs(id):
        return "is an absolute path; give it relative to the video folder"
    if ".." in id.split("/"):
        return "leaves the video folder (..)"
    if id != posixpath.normpath(id):
        return f"should be written {posixpath.normpath(id)!r}, so that a video has one name"
    return None


def encodes(text: str) -> bool:
    """Whether `text` can be written as UTF-8."""
    return printable(text) == text
