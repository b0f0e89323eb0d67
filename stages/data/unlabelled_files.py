"""Videos without captions: the video files below a folder, as further ones to train on."""

import os
from collections.abc import Callable, Collection, Iterator
from pathlib import Path

from ...cache.storage.system_files import left_by_system
from ...errors import DataError, printable
from .readers.video_folder import VIDEO_SUFFIXES, bad_id, link_out

PREFIX = "unlabelled:"
"""Their ids begin with it, so that they are no others' ids."""


def read_unlabelled(folder: Path, known: Collection[Path], problem: Callable[[str], None]) -> dict[str, Path]:
    """Every video file below `folder` by its id, in the order of names; folders that are links are not entered.

    An id is `unlabelled:` and the POSIX path below the folder. What is wrong with single files goes to `problem`.

    Args:
        known: real paths of videos that are none of these: those that have captions.

    Raises:
        DataError: there is no such folder, or no video file in it.
    """
    if not folder.is_dir():
        what = "this is a file" if folder.exists() else "no such folder"
        raise DataError(what, where=str(folder), hint="data.unlabelled names a folder of video files without captions")
    files = list(_video_files(folder))
    if not files:
        raise DataError("no video files in this folder", where=str(folder), hint="data.unlabelled names their folder")
    root, found = folder.resolve(), dict[str, Path]()
    for path in files:
        name, real = path.relative_to(folder).as_posix(), path.resolve()
        if real in known:
            continue
        if wrong := bad_id(name) or ("" if real.is_relative_to(root) else link_out(real, "data.unlabelled")):
            problem(f"{printable(str(folder))}: video '{printable(name)}' {wrong}")
        else:
            found[f"{PREFIX}{name}"] = path
    return found


def _video_files(root: Path) -> Iterator[Path]:
    for folder, folders, names in os.walk(root):
        folders[:] = sorted(name for name in folders if not left_by_system(name))
        for name in sorted(names):
            if name.rpartition(".")[2].lower() in VIDEO_SUFFIXES and not left_by_system(name):
                yield Path(folder, name)
