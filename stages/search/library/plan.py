"""What is to be done for files, beside what a library knows: nothing, compare, move, copy, decode, forget."""

import os
from collections import defaultdict
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field
from typing import Literal

from ....cache.library.rows import UNKNOWN, Known, Video
from ...data.video.decode import DAMAGED, READER
from .files import File, Found

Need = Literal["decode", "compare", "nothing"]


@dataclass
class Plan:
    """Files by what they need.

    Attributes:
        unchanged: are as they were, and have their windows.
        decode: are new or changed, or this model has no windows of them.
        touched: have another time and the same size: compared first.
        like: new files, each with videos of the same size, which may hold the same.
        missing: were named, and are not there.
        gone: videos whose file is no longer there.
    """

    unchanged: list[File] = field(default_factory=list)
    decode: list[File] = field(default_factory=list)
    touched: list[tuple[File, Known]] = field(default_factory=list)
    like: list[tuple[File, list[Known]]] = field(default_factory=list)
    missing: list[File] = field(default_factory=list)
    gone: list[Video] = field(default_factory=list)


def plan_files(found: Found, known: Mapping[str, Known]) -> Plan:
    """What each file needs; nothing is read but what the file system says."""
    plan = Plan()
    by_size: dict[int, list[Known]] = defaultdict(list)
    for each in known.values():
        if each.video.content != UNKNOWN and each.video.status in ("ok", *DAMAGED):
            by_size[each.video.size].append(each)
    for file in found.files.values():
        before = known.get(file.path)
        if file.size < 0:
            plan.missing.append(file)
        elif before is None or before.video.size != file.size:
            alike = by_size.get(file.size, [])
            plan.like.append((file, alike)) if alike else plan.decode.append(file)
        elif (need := _need(file, before)) == "compare":
            plan.touched.append((file, before))
        else:
            (plan.decode if need == "decode" else plan.unchanged).append(file)
    plan.gone += _gone(found, known)
    return plan


def needs_windows(known: Known) -> bool:
    """Whether a file that is as it was is to be decoded all the same."""
    video = known.video
    if video.status == "ok":
        return known.windows == 0
    return video.status not in DAMAGED or video.reader < READER


def _need(file: File, before: Known) -> Need:
    video = before.video
    if video.mtime_ns == file.mtime_ns:
        return "decode" if needs_windows(before) else "nothing"
    return "decode" if video.content == UNKNOWN or video.status not in ("ok", *DAMAGED) else "compare"


def _gone(found: Found, known: Mapping[str, Known]) -> Iterable[Video]:
    """Videos of the folders that were walked through, or named, whose file is not there; those of other folders stay,
    whose disk may not be there today."""
    for path, each in known.items():
        if (file := found.files.get(path)) is None:
            gone = found.walked(path) and not os.path.lexists(path)
        else:
            gone = file.size < 0 and each.video.status != "missing"
        if gone:
            yield each.video
