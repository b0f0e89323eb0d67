"""WebDataset shards: tar files in which a video and its captions lie side by side, named alike up to the first dot.

Nothing is unpacked: a video is read where it lies in the tar. Links, devices, sparse files and names that leave the
folder are refused.
"""

import json
import posixpath
import tarfile
from collections import defaultdict
from collections.abc import Callable, Iterator
from contextlib import suppress
from pathlib import Path
from typing import Any, get_args

from ....configs.published_sets import SplitName
from ....errors import DataError
from ..video.source import TarPart
from .annotated_video import AnnotatedVideo
from .text_files import kind_of
from .video_folder import VIDEO_SUFFIXES

CAPTION_KEYS = ("caption", "captions", "text")
MAX_TEXT = 1 << 20


def read_shards(folder: Path, problem: Callable[[str], None]) -> list[AnnotatedVideo]:
    """The videos of every .tar below `folder`, in the order of names, then as they lie in them.

    A video's id is the shard's path without .tar, a slash, and the name up to the first dot. Captions are the lines of
    a .txt, or of a .json the string or list of strings `caption` (`captions`, `text`). Its split is the .json's
    `split`; else the shard's name or folder begins with train, val or test; else train.

    What is wrong with single members goes to `problem`.

    Raises:
        DataError: there is no shard, or one is no uncompressed tar, or is cut off.
    """
    paths = sorted(path for path in folder.rglob("*.tar") if path.is_file())
    if not paths:
        what = "no .tar file in this folder" if folder.is_dir() else "no such folder"
        raise DataError(
            "this is a file" if folder.is_file() else what,
            where=str(folder),
            hint="name the folder of the shards: data.videos",
        )
    return [clip for path in paths for clip in _TarShard(path, folder, problem).clips()]


class _TarShard:
    def __init__(self, path: Path, folder: Path, problem: Callable[[str], None]) -> None:
        self.path, self.problem = path, problem
        self.name = path.relative_to(folder).as_posix()
        self.split = _named_split(self.name)

    def clips(self) -> Iterator[AnnotatedVideo]:
        samples: dict[str, _Sample] = defaultdict(_Sample)
        try:
            with tarfile.open(self.path, "r:") as tar:
                for member in tar:
                    self._add(tar, member, samples)
        except (tarfile.TarError, OSError, EOFError, ValueError) as error:
            compressed = _is_gzip(self.path)
            raise DataError(
                "not an uncompressed tar but a gzip file"
                if compressed
                else f"not an uncompressed tar, or cut off: {error}",
                where=str(self.path),
                hint="put what is in it, unpacked by gunzip, in its place" if compressed else "get this shard again",
            ) from None
        for key, sample in samples.items():
            yield from self._clip(key, sample)

    def _add(self, tar: tarfile.TarFile, member: tarfile.TarInfo, samples: "dict[str, _Sample]") -> None:
        if member.isdir():
            return
        if wrong := _unsafe(member):
            self.problem(f"{self.name}: {_shown(member.name)} {wrong}")
            return
        if member.offset_data + member.size > self.path.stat().st_size:
            raise EOFError(f"{member.name} ends beyond the file")
        folder, name = posixpath.split(posixpath.normpath(member.name))
        stem, _, extension = name.partition(".")
        sample, suffix = samples[posixpath.join(folder, stem)], extension.rpartition(".")[2].lower()
        if suffix in VIDEO_SUFFIXES:
            if sample.video is not None:
                self.problem(f"{self.name}: {_shown(member.name)} is a second video beside {sample.name}")
                return
            sample.video, sample.name = TarPart(self.path, member.offset_data, member.size), name
        elif suffix in ("txt", "json"):
            self._read(tar, member, sample, suffix)

    def _read(self, tar: tarfile.TarFile, member: tarfile.TarInfo, sample: "_Sample", suffix: str) -> None:
        where = f"{self.name}: {_shown(member.name)}"
        file = tar.extractfile(member) if member.size <= MAX_TEXT else None
        if file is None:
            self.problem(f"{where} is larger than {MAX_TEXT >> 20} MiB, which no captions are")
            return
        try:
            text = file.read().decode("utf-8-sig")
            if suffix == "txt":
                sample.captions += filter(None, (line.strip() for line in text.split("\n")))
            else:
                self._take(json.loads(text), sample)
        except (ValueError, RecursionError) as error:  # UnicodeDecodeError and JSONDecodeError are ValueErrors
            self.problem(f"{where}: {error}")

    def _take(self, document: Any, sample: "_Sample") -> None:
        if not isinstance(document, dict):
            document = {"caption": document}
        found: Any = next((document[key] for key in CAPTION_KEYS if key in document), [])
        captions = [found] if isinstance(found, str) else found
        if not isinstance(captions, list) or not all(isinstance(caption, str) for caption in captions):
            raise ValueError(f"its caption is {kind_of(found)}, not a string or a list of strings")
        split = document.get("split", self.split)
        if split not in get_args(SplitName):
            raise ValueError(f"its split is {split!r}, not train, val or test")
        sample.captions += captions
        sample.split = split

    def _clip(self, key: str, sample: "_Sample") -> Iterator[AnnotatedVideo]:
        where = f"{self.name}: {_shown(key)}"
        if sample.video is None:
            self.problem(f"{where} has captions and no video")
        elif not sample.captions:
            self.problem(f"{where} has no caption")
        else:
            id = f"{self.name.removesuffix('.tar')}/{key}"
            yield AnnotatedVideo(id, sample.split or self.split, tuple(sample.captions), where, source=sample.video)


class _Sample:
    """The members of one name."""

    def __init__(self) -> None:
        self.video: TarPart | None = None
        self.name = ""
        self.captions: list[str] = []
        self.split: SplitName | None = None


def _is_gzip(path: Path) -> bool:
    with suppress(OSError), path.open("rb") as file:
        return file.read(2) == b"\x1f\x8b"
    return False


def _named_split(name: str) -> SplitName:
    splits: tuple[SplitName, ...] = get_args(SplitName)
    parts = reversed(name.split("/"))
    return next((split for part in parts for split in splits if part.startswith(split)), "train")


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
    return repr(name if len(name) <= 80 else name[:77] + "...")
