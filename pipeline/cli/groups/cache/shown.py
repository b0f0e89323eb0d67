"""What the verbs of `teachclip cache` show to people."""

import json
from collections.abc import Iterator, Sequence
from datetime import datetime
from typing import TYPE_CHECKING

from rich.console import RenderableType

from .....plurals import counted
from ....wording import duration, size
from ...shell.tables import facts, table

if TYPE_CHECKING:
    from .....cache.scores.exchange.merging import TeacherMerge
    from .....cache.scores.exchange.packing import Packed
    from .....cache.scores.upkeep.catalog import MadeShards, TeacherInfo, TeacherSummary
    from .....cache.scores.upkeep.check import CheckResult
    from .....cache.scores.upkeep.compare import ScoreComparison
    from .....cache.scores.upkeep.removal import Removed
    from .....stages.score.estimate import ScoreEstimate
    from .....stages.score.repair import RepairResult
    from .....stages.score.rescore import Rescored

type Page = Iterator[RenderableType]

_SHOWN = 20


def _some(lines: Sequence[str]) -> Page:
    yield from lines[:_SHOWN]
    if len(lines) > _SHOWN:
        yield f"... and {len(lines) - _SHOWN:,} more; --json lists them all"


def _when(seconds: float | None) -> str:
    return "-" if seconds is None else datetime.fromtimestamp(seconds).strftime("%Y-%m-%d %H:%M")


def _of(complete: int, shards: int) -> str:
    return f"all {shards:,}" if complete == shards and shards else f"{complete:,} of {shards:,}"


def listed(teachers: "Sequence[TeacherSummary]") -> Page:
    """`cache ls`."""
    if not teachers:
        yield "no teacher has scores here"
        return
    heads = ("teacher", "tiles", "texts", "videos", "stored as", "complete", "bytes", "written")
    yield table(*heads, rows=map(_summary, teachers))
    yield from (f"damaged: {each.problem}" for each in teachers if each.problem)


def _summary(each: "TeacherSummary") -> tuple[object, ...]:
    end = (size(each.bytes), _when(each.written))
    if each.problem:
        return (each.teacher, "-", "-", "-", "-", "damaged", *end)
    counts = (f"{each.tiles:,}", f"{each.texts:,}", f"{each.videos:,}")
    return (each.teacher, *counts, each.dtype, _of(each.complete, each.shards), *end)


def described(teachers: "Sequence[TeacherInfo]") -> Page:
    """`cache info`."""
    if not teachers:
        yield "no teacher has scores here"
    for each in teachers:
        summary = each.summary
        yield facts(
            ("teacher", f"{summary.teacher} in {each.store} (format version {each.version})"),
            (
                "scores",
                f"{counted(summary.pairs, 'pair')} of {counted(summary.texts, 'text')} "
                f"and {counted(summary.videos, 'video')}",
            ),
            ("shards", f"{_of(summary.complete, summary.shards)} complete, last written {_when(summary.written)}"),
            ("stored as", f"{summary.dtype}, {size(summary.bytes)} in all"),
            ("scale", f"{each.scale:g} (label = score x scale)"),
            ("frame logits", f"of {each.frames} frame slots" if each.frame_logits else "none"),
            ("own videos", f"{counted(each.own_videos, 'text is', 'texts are')} scored with their own video"),
            ("checkpoint", each.checkpoint or "none"),
            *(("made", _made(made)) for made in each.made),
            ("features", _features(each)),
            *([("leftovers", f"{each.leftovers:,}, of writers at work or killed")] if each.leftovers else []),
        )
        yield "identity"
        yield facts(*((f"  {name}", _value(value)) for name, value in sorted(each.identity.items())))
        heads = ("tile", "texts", "videos", "shards complete", "checksum")
        rows = [(t.name, f"{t.texts:,}", f"{t.videos:,}", _of(t.complete, t.shards), t.checksum) for t in each.tiles]
        yield table(*heads, rows=rows)


def _made(made: "MadeShards") -> str:
    releases = f"torch {made.torch}, teachclip {made.teachclip}"
    return f"{counted(made.shards, 'shard')} on {made.device} in {made.precision}; {releases}"


def _features(each: "TeacherInfo") -> str:
    files = counted(each.feature_files, "file")
    return files if each.feature_bytes is None else f"{files}, {size(each.feature_bytes)}"


def _value(value: object) -> str:
    return value if isinstance(value, str) else json.dumps(value)


def estimated(found: "ScoreEstimate") -> Page:
    """`cache estimate`."""
    heads = ("teacher", "texts", "videos", "pairs", "shards", "to be made", "bytes", "time")
    yield table(
        *heads,
        rows=[
            (
                each.teacher,
                f"{each.texts:,}",
                f"{each.videos:,}",
                f"{each.pairs:,}",
                f"{each.shards:,}",
                f"{each.shards_left:,}",
                f"{each.bytes:,}",
                "not measured" if each.seconds is None else f"about {duration(each.seconds)}",
            )
            for each in found.teachers
        ],
    )
    for each in found.teachers:
        if each.layout == "blocks":
            every = each.texts * each.videos
            yield (
                f"{each.teacher}: blocks of videos, {counted(each.tiles, 'tile')}; "
                f"dense would be {counted(every, 'pair')}"
            )
        if each.bytes_without_frames is not None:
            yield f"{each.teacher}: {each.bytes_without_frames:,} bytes if it gives no frame-text logits"
        if each.measured:
            yield f"{each.teacher}: {each.rate:.3g} pairs/s, from the times of the shards of {each.measured}"
        if each.timed:
            yield f"{each.teacher}: {each.rate:.3g} pairs/s, measured on {counted(each.timed, 'pair')} now"
    yield f"{size(found.bytes)} in {found.store}, and the features of the videos"
    if not found.prepared:
        gone = f"; {counted(found.missing, 'has', 'have')} no file" if found.missing else ""
        yield f"no frames are prepared yet: every video of the caption file is taken for usable{gone}"


def checked(result: "CheckResult") -> Page:
    """`cache verify`."""
    heads = ("teacher", "shards complete", "not scored yet", "damaged", "feature files")
    rows = [
        (
            each.teacher,
            f"{each.complete:,} of {each.shards:,}",
            f"{each.incomplete:,}",
            f"{sum(not finding.foreign for finding in each.findings):,}",
            f"{each.features:,}",
        )
        for each in result.teachers
    ]
    yield table(*heads, rows=rows)
    yield from _some([f"{finding.path}: {finding.why}" for finding in result.findings])
    if any(finding.repairable for finding in result.damage):
        yield "score only what is damaged again: teachclip cache repair CONFIG"
    if beyond := {finding.teacher for finding in result.damage if not finding.repairable} - {""}:
        name = sorted(beyond)[0]
        yield (
            "what was written with a tile cannot be made again in its place: restore it from a copy, or begin again "
            f"with: teachclip cache rm {result.store} {name}"
        )
    if not result.damage:
        yield "nothing is damaged" + ("" if result.full else "; --full reads every byte")


def rescored(teachers: "Sequence[Rescored]") -> Page:
    """`cache verify --rescore`."""
    if not teachers:
        return
    heads = ("teacher", "scored again", "largest error", "mean", "allowed", "frames", "other first video")
    yield table(*heads, rows=map(_rescored, teachers))
    yield "errors are of raw scores; allowed is what rounding and the stored type explain"
    for each in teachers:
        if not each.agrees:
            yield f"{each.teacher} says something else now than the store: was it made on broken hardware, or altered?"


def _rescored(each: "Rescored") -> tuple[object, ...]:
    frames = "-" if each.frames_largest is None else f"{each.frames_largest:.1e}"
    errors = (f"{each.largest:.1e}", f"{each.mean:.1e}", f"{each.allowed:.1e}", frames)
    return (each.teacher, f"{each.texts:,} x {each.videos:,}", *errors, f"{each.rank1_disagree:,} of {each.texts:,}")


def repaired(result: "RepairResult") -> Page:
    """`cache repair`."""
    if not result.repaired:
        yield f"{result.store}: nothing is damaged ({result.checked:,} shards and files checked)"
        return
    yield f"{result.store}: repaired {len(result.repaired):,} of {result.checked:,} shards and files"
    yield from _some([f"{finding.path}: {finding.why}" for finding in result.repaired])


def compared(result: "ScoreComparison") -> Page:
    """`cache diff`."""
    texts, videos = counted(result.changed_texts, "caption"), counted(result.changed_videos, "video")
    changed = f" ({texts} and {videos} of the same id changed)"
    yield facts(
        ("compared", f"{result.first} with {result.second}"),
        (
            "in common",
            f"{counted(result.texts, 'text')}, {counted(result.videos, 'video')}, {counted(result.pairs, 'pair')}"
            + (changed if result.changed_texts or result.changed_videos else ""),
        ),
        ("labels", f"differ by at most {_number(result.largest)}, on average {_number(result.mean)}"),
        ("correlation", "none: one side does not vary" if result.pearson is None else f"{result.pearson:.6f}"),
        ("same best video", "-" if result.same_best is None else f"{100 * result.same_best:.2f}% of the texts"),
        ("frame logits", f"differ by at most {_number(result.frame_largest)}, on average {_number(result.frame_mean)}"),
    )
    if result.fields:
        rows = [(each.name, _value(each.first), _value(each.second)) for each in result.fields]
        yield table("made from", "first", "second", rows=rows)
    else:
        yield "made from the same"
    if result.apart:
        apart = [(pair.text, pair.video, f"{pair.first:.4f}", f"{pair.second:.4f}") for pair in result.apart]
        yield table("furthest apart", "with", "first", "second", rows=apart)


def _number(value: float | None) -> str:
    return "-" if value is None else f"{value:.4g}"


def packed(result: "Packed", done: str) -> Page:
    """`cache export` and `cache import`."""
    if result.already:
        yield f"{result.store} has all of it already"
        return
    yield facts(
        (result.teacher, f"{done} {result.folder}"),
        ("tiles", f"{len(result.tiles):,}, {counted(result.shards, 'shard')}"),
        ("files", f"{result.files:,}, {size(result.bytes)}"),
    )
    yield from _some([f"not complete: {each}" for each in result.left_out])


def merged(teachers: "Sequence[TeacherMerge]") -> Page:
    """`cache merge`."""
    heads = ("teacher", "from", "shards taken", "same", "other bits", "damaged", "in neither")
    rows = [
        (each.teacher, each.source, each.taken, each.same, len(each.unlike), len(each.refused), each.absent)
        for each in teachers
    ]
    yield table(*heads, rows=rows)
    unlike = [
        f"{m.source}: {m.teacher}/{u.tile}: shard {u.shard}: {', '.join(u.files)}, at most {_number(u.largest)} apart"
        for m in teachers
        for u in m.unlike
    ]
    if unlike:
        yield "complete in both, with other bits; the store's own are kept:"
        yield from _some(unlike)
    yield from _some([f"not taken: {r.why}" for m in teachers for r in m.refused])


def collected(result: "Removed", dry: bool) -> Page:
    """`cache gc`."""
    yield from _some([*result.leftovers, *result.features])
    verb = "would be removed" if dry else "removed"
    counts = f"{counted(len(result.leftovers), 'leftover')} and {counted(len(result.features), 'file')} of features"
    yield f"{verb}: {counts}, {size(result.bytes)}"
    yield from (f"{name} is damaged; its features were left alone" for name in result.kept)
