"""WebDataset shards: tar files in which a video and its captions lie side by side, named alike up to the first dot.

Nothing is unpacked: a video is read where it lies in the tar. Links, devices, sparse files and names that leave the
folder are not read.
"""

import json
import math
import posixpath
import re
import tarfile
from collections import defaultdict
from collections.abc import Callable, Iterable, Iterator
from contextlib import suppress
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any

from ....cache.storage.system_files import any_left_by_system
from ....configs.published_sets import SplitName
from ....errors import DataError, printable
from ....plurals import counted
from ..video.source import TarPart
from .annotated_video import AnnotatedVideo
from .split_names import SPLIT_NAMES, nearest_split, split_named
from .text_files import blank, kind_of
from .video_folder import ALSO_BESIDE, VIDEO_SUFFIXES

CAPTION_KEYS = ("caption", "captions", "text")
MAX_TEXT = {"txt": 1 << 20, "json": 1 << 24}
"""Bytes: video2dataset puts all that a site says of a video into its .json, subtitles in every language included."""
_COMPRESSED = re.compile(r"(.+)\.(?:tar\.(?:gz|bz2|xz|zst|lz4)|tgz|tbz2?|txz|tzst)", re.IGNORECASE | re.DOTALL)
_DEV = re.compile(r"dev(?![a-z])")
_NO_CAPTION = ("none", "null", "nan")  # what is written for a caption that there is not
_RULE = "a key ends at the first dot of a name: write dots inside keys as something else"
_EXAMPLES = 3


def shard_paths(folder: Path) -> list[Path]:
    """Every .tar below `folder`, in the order of names; what systems leave does not count."""
    return sorted(path for path in folder.rglob("*.tar") if path.is_file() and not _of_system(path, folder))


def shard_name(path: Path, folder: Path) -> str:
    """What a shard is called in ids; bytes that are not UTF-8 are spelt out, `\\xe9`."""
    return printable(path.relative_to(folder).as_posix())


def read_shards(folder: Path, problem: Callable[[str], None], uncaptioned: bool = False) -> list[AnnotatedVideo]:
    """The videos of every .tar below `folder`, in the order of names, then as they lie in them.

    A video's id is the shard's path without .tar, a slash, and the name up to the first dot; a byte of a name that is
    not UTF-8 is spelt out. Captions are, of a .json, the string or list of strings `caption` (`captions`, `text`), else
    the lines of a .txt; the same one counts once. Its split is the .json's `split`; else the shard's name or folder
    begins with train, val, dev or test; else train.

    What is wrong with single samples goes to `problem`; they are left out. Of a shard that is cut off, what lies before
    the cut is read, and of a file that is no tar nothing, which goes to `problem`, too. Failed downloads and samples
    without a caption are only counted; with `uncaptioned`, training videos without one are among the videos.

    Raises:
        DataError: there is no shard, one is compressed, or there is no sample, and a shard is no tar or cut off.
    """
    paths = shard_paths(folder)
    _refuse_compressed(folder, paths)
    if not paths:
        what = "no .tar file in this folder" if folder.is_dir() else "no such folder"
        raise DataError(
            "this is a file" if folder.is_file() else what,
            where=str(folder),
            hint="name the folder of the shards: data.videos",
        )
    tally = _Tally()
    shards = [_TarShard(path, folder, problem, tally, uncaptioned) for path in paths]
    found = [clip for each in shards for clip in each.clips()]
    broken = [each.broken for each in shards if each.broken]
    if broken and not found:
        raise broken[0]
    for line in (*tally.lines(), *(f"{error.where}: {error.what}; {error.hint}" for error in broken)):
        problem(line)
    return found


def _refuse_compressed(folder: Path, paths: list[Path]) -> None:
    plain = {str(path) for path in paths}
    packed = sorted(
        path
        for path in folder.rglob("*")
        if (named := _COMPRESSED.fullmatch(str(path))) and f"{named[1]}.tar" not in plain
        if path.is_file() and not _of_system(path, folder)
    )
    if packed:
        more = f" and {len(packed) - 1:,} more" if len(packed) > 1 else ""
        raise DataError(
            f"compressed shards cannot be read: {packed[0].relative_to(folder)}{more}",
            where=str(folder),
            hint="uncompress them (gunzip makes a .tar of a .tar.gz): a video is read where it lies in its shard",
        )


def _of_system(path: Path, folder: Path) -> bool:
    return any_left_by_system(path.relative_to(folder).parts)


class _Tally:
    """Samples that are left out for a reason that many have, with the first of each."""

    def __init__(self) -> None:
        self.counts: dict[str, int] = defaultdict(int)
        self.first: dict[str, list[str]] = defaultdict(list)

    def add(self, what: str, where: str) -> None:
        self.counts[what] += 1
        if len(self.first[what]) < _EXAMPLES:
            self.first[what].append(where)

    def lines(self) -> Iterator[str]:
        for what, count in self.counts.items():
            shown = ", ".join(self.first[what]) + ", ..." * (count > _EXAMPLES)
            yield f"{counted(count, what)}: {shown}"


class _TarShard:
    def __init__(
        self, path: Path, folder: Path, problem: Callable[[str], None], tally: _Tally, uncaptioned: bool
    ) -> None:
        self.path, self.problem, self.tally, self.uncaptioned = path, problem, tally, uncaptioned
        self.name = shard_name(path, folder)
        self.split = _split_of_path(self.name)
        self.broken: DataError | None = None  # once `clips` has come to where it is

    def clips(self) -> Iterator[AnnotatedVideo]:
        samples: dict[str, _Sample] = defaultdict(_Sample)
        try:
            size = self.path.stat().st_size
            with tarfile.open(self.path, "r:") as tar:
                for member in tar:
                    if member.offset_data + member.size > size and member.isreg():
                        raise EOFError(f"{member.name} ends beyond the file")
                    self._add(tar, member, samples)
        except (tarfile.TarError, OSError, EOFError, ValueError) as error:
            if _is_gzip(self.path):
                raise DataError(
                    "not an uncompressed tar but a gzip file",
                    where=str(self.path),
                    hint="put what is in it, unpacked by gunzip, in its place",
                ) from None
            what = f"not an uncompressed tar, or cut off: {error}"
            self.broken = DataError(what, where=str(self.path), hint="get this shard again")
        for key, sample in samples.items():
            yield from self._clip(key, sample)

    def _add(self, tar: tarfile.TarFile, member: tarfile.TarInfo, samples: "dict[str, _Sample]") -> None:
        if member.isdir() or any_left_by_system(member.name.split("/")):
            return
        folder, name = posixpath.split(posixpath.normpath(printable(member.name)))
        stem, _, extension = name.partition(".")
        suffix = extension.rpartition(".")[2].lower()
        if suffix not in VIDEO_SUFFIXES and suffix not in MAX_TEXT:
            return
        if wrong := _unsafe(member):
            self.problem(f"{self.name}: {_shown(member.name)} {wrong}")
            return
        sample, own = samples[posixpath.join(folder, stem)], name.rpartition(".")[0]
        if suffix in MAX_TEXT:
            self._read(tar, member, sample, suffix)
        elif suffix in ALSO_BESIDE and sample.video is not None:
            return
        elif sample.video is not None and sample.suffix not in ALSO_BESIDE:
            sample.wrong = f"{_shown(member.name)} is a second video beside {sample.name}" + _rule(own, sample.own)
        else:
            sample.video, sample.name = TarPart(self.path, member.offset_data, member.size), name

    def _read(self, tar: tarfile.TarFile, member: tarfile.TarInfo, sample: "_Sample", suffix: str) -> None:
        own = posixpath.basename(printable(member.name)).rpartition(".")[0]
        file = tar.extractfile(member) if member.size <= MAX_TEXT[suffix] else None
        if file is None:
            wrong = f"{_shown(member.name)} is larger than {MAX_TEXT[suffix] >> 20} MiB, which no captions are"
            sample.texts[suffix][own] = wrong
            return
        try:
            text = file.read().decode("utf-8-sig")
            sample.texts[suffix][own] = _Text.of_json(text) if suffix == "json" else _Text(_lines(text))
        except (ValueError, RecursionError) as error:  # UnicodeDecodeError and JSONDecodeError are ValueErrors
            sample.texts[suffix][own] = f"{_shown(member.name)}: {error}"

    def _clip(self, key: str, sample: "_Sample") -> Iterator[AnnotatedVideo]:
        where = f"{self.name}: {_shown(key)}"
        try:
            text = sample.text()
        except ValueError as error:
            self.problem(f"{self.name}: {error}")
            return
        if text.failed:
            self.tally.add("failed download", where)
        elif sample.wrong:
            self.problem(f"{self.name}: {sample.wrong}")
        elif sample.video is None:
            self.problem(f"{where} has captions and no video")
        elif not text.captions and not (self.uncaptioned and (text.split or self.split) == "train"):
            self.tally.add("uncaptioned video", where)
        else:
            id = f"{self.name.removesuffix('.tar')}/{key}"
            yield AnnotatedVideo(id, text.split or self.split, text.captions, where, source=sample.video)


@dataclass(frozen=True)
class _Text:
    """What a .json or .txt says; `null`: that there is no caption."""

    captions: tuple[str, ...] = ()
    split: SplitName | None = None
    failed: bool = False
    null: bool = False

    @classmethod
    def of_json(cls, text: str) -> "_Text":
        document = json.loads(text)
        if not isinstance(document, dict):
            document = {"caption": document}
        status = document.get("status")
        if isinstance(status, str) and status.lower().startswith("failed"):  # as video2dataset writes it
            return cls(failed=True)
        captions = _captions(document)
        return cls(captions, _split(document), null=not captions and any(key in document for key in CAPTION_KEYS))


@dataclass
class _Sample:
    """The members of one key; `texts`: by extension and what stands before it, what it says or what is wrong."""

    video: TarPart | None = None
    name: str = ""
    wrong: str = ""
    texts: dict[str, dict[str, _Text | str]] = field(default_factory=lambda: {suffix: {} for suffix in MAX_TEXT})

    @property
    def own(self) -> str:
        """The video's name without extension."""
        return self.name.rpartition(".")[0]

    @property
    def suffix(self) -> str:
        """The video's extension."""
        return self.name.rpartition(".")[2].lower()

    def text(self) -> _Text:
        """What the .json says, with the captions of the .txt where it has none.

        Raises:
            ValueError: one that is needed cannot be used.
        """
        json = self._one("json")
        if json.captions or json.failed:
            return json
        captions = self._one("txt").captions
        if json.null:  # which others write into the .txt as a word
            captions = tuple(line for line in captions if line.lower() not in _NO_CAPTION)
        return replace(json, captions=captions)

    def _one(self, suffix: str) -> _Text:
        """What the text of the shortest name says; nothing where there is none."""
        members = self.texts[suffix]
        for own in members if self.video is not None else ():
            if not (f"{own}.".startswith(f"{self.own}.") or f"{self.own}.".startswith(f"{own}.")):
                raise ValueError(f"{_shown(f'{own}.{suffix}')} has the key of {self.name}{_rule(own, self.own)}")
        found = members[min(members, key=len)] if members else _Text()
        if isinstance(found, str):
            raise ValueError(found)
        return found


def _lines(text: str) -> tuple[str, ...]:
    return _once(text.split("\n"))


def _once(captions: Iterable[str]) -> tuple[str, ...]:
    return tuple(dict.fromkeys(caption.strip() for caption in captions if not blank(caption)))


def _captions(document: dict[str, Any]) -> tuple[str, ...]:
    found: Any = next((value for key in CAPTION_KEYS if not _null(value := document.get(key))), [])
    captions = [found] if isinstance(found, str) else found
    if not isinstance(captions, list) or not all(isinstance(caption, str) or _null(caption) for caption in captions):
        raise ValueError(f"its caption is {kind_of(found)}, not a string or a list of strings")
    return _once(caption for caption in captions if not _null(caption))


def _null(value: Any) -> bool:
    return value is None or (isinstance(value, float) and math.isnan(value))


def _split(document: dict[str, Any]) -> SplitName | None:
    given = document.get("split")
    if _null(given):
        return None
    split = split_named(given) if isinstance(given, str) else None
    if split is None:
        near = nearest_split(given) if isinstance(given, str) else ""
        raise ValueError(f"its split is {given!r}, not train, val or test{near}")
    return split


def _rule(own: str, other: str) -> str:
    return f" ({_RULE})" if "." in own or "." in other else ""


def _is_gzip(path: Path) -> bool:
    with suppress(OSError), path.open("rb") as file:
        return file.read(2) == b"\x1f\x8b"
    return False


def _split_of_path(name: str) -> SplitName:
    for part in reversed(name.lower().split("/")):
        if _DEV.match(part):
            return "val"
        for split in SPLIT_NAMES:
            if part.startswith(split):
                return split
    return "train"


def _unsafe(member: tarfile.TarInfo) -> str | None:
    if member.issym() or member.islnk():
        return "is a link, which is not followed"
    if not member.isreg():
        return "is no regular file"
    if member.issparse():
        return "is a sparse file"
    if member.name.startswith("/") or ".." in member.name.split("/"):
        return "is named out of the folder"
    return None


def _shown(name: str) -> str:
    return f"'{short}'" if (short := printable(name if len(name) <= 80 else name[:77] + "...")) != name else repr(name)
