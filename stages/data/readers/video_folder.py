"""Which file is a video's: data sets name videos without folder and extension."""

import os
import posixpath
import unicodedata
from collections import defaultdict
from collections.abc import Iterable
from pathlib import Path

# fmt: off
VIDEO_SUFFIXES = frozenset((
    "mp4", "avi", "mkv", "webm", "mov", "qt", "m4v", "mpg", "mpeg", "mpe", "3gp", "3gpp", "3g2", "wmv", "asf", "flv",
    "f4v", "ogv", "ogg", "mts", "m2ts", "ts", "vob", "divx", "null",  # DiDeMo has all sorts
))
# fmt: on


class VideoFolder:
    """The files below a folder, by their names without extension; folders that are links are not entered.

    A name may have two extensions (x.mov.mp4) or none.
    """

    def __init__(self, root: Path) -> None:
        self.root = root
        self._real = root.resolve()
        self._files: dict[str, list[Path]] = defaultdict(list)
        for folder, folders, names in os.walk(root):
            folders.sort()
            for name in sorted(names):
                for key in _keys(name):
                    self._files[key].append(Path(folder, name))

    def find(self, names: Iterable[str]) -> tuple[Path | None, str]:
        """The one file that has any of `names`; else None, and why when it is more than that it is not there."""
        found = list(dict.fromkeys(path for name in names for path in self._files.get(name, ())))
        if len(found) > 1:
            shown = " and ".join(str(path.relative_to(self.root)) for path in found[:3])
            return None, f"has {len(found)} files: {shown}; keep one of them"
        if not found:
            return None, ""
        if found[0].is_symlink() and not found[0].resolve().is_relative_to(self._real):
            return None, "is a link out of the video folder"
        return found[0], ""


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
    if not id:
        return "is empty"
    if any(unicodedata.category(char) in ("Cc", "Zl", "Zp") for char in id):
        return "holds a control character or a line break"
    if not encodes(id):
        return "holds half a character (a lone surrogate)"
    if posixpath.isabs(id):
        return "is an absolute path; give it relative to the video folder"
    if ".." in id.split("/"):
        return "leaves the video folder (..)"
    if id != posixpath.normpath(id):
        return f"should be written {posixpath.normpath(id)!r}, so that a video has one name"
    return None


def encodes(text: str) -> bool:
    """Whether `text` can be written as UTF-8."""
    try:
        text.encode()
    except UnicodeEncodeError:
        return False
    return True
