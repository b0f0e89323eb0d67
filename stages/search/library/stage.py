"""A folder of videos -> a library, again and again: only what is new or changed is decoded, what is done stays."""

import os
import time
from collections import Counter
from collections.abc import Callable, Generator, Iterator, Sequence
from contextlib import closing
from dataclasses import dataclass, field
from functools import partial
from pathlib import Path
from typing import BinaryIO, NamedTuple

from ....cache.frames.record import FileStamp, VideoStatus
from ....cache.library.rows import UNKNOWN, Known, NewWindow, Video
from ....cache.library.tags import tags_of
from ....cache.library.writer import LibraryWriter
from ....configs.schema import PrepareConfig
from ....plurals import counted
from ...data.video.content import read_again
from ...data.video.decode import READER
from ...data.video.workers import Arrived, Decoded, decode_in_parts, decode_videos
from ...runtime.background import BackgroundWriter
from ...runtime.device import choose_device, tell_device
from ...runtime.reporting import Reporter, Silent
from .encoding import FRAMES_AT_ONCE, Batch, Keep, WindowEncoder
from .files import File, Found, find_files, total_size
from .models import DeviceName, VideoModel, decoding, load_model, model_of
from .plan import Plan, needs_windows, plan_files
from .reading import read_windows
from .windows import Cut

SHOWN = 20
HELD = 5.0  # seconds that a finished video waits for others to be encoded with


type Encode = Callable[[Sequence[File], VideoModel, PrepareConfig, Keep], object]
"""What decodes files, and hands each with its windows to the last argument, in any order."""


@dataclass(frozen=True)
class VideosIndexed:
    """What was done for the files that were named, and what the library holds.

    Attributes:
        index: the library's folder; model: how its model is called; width: numbers per vector.
        files: that were named or found; counts: of these by status.
        decoded: videos decoded now; windows: made of these.
        unchanged, renewed, moved, copied: files that were not decoded: as they were, with another time, known from
            another place that is empty now, known from another place.
        removed: videos whose file is gone.
        left_out: the first 20 files that cannot be used, those that failed first.
        videos: usable ones in the library, all_windows: of this model.
        seconds: that this took.
        tags_added, tags_removed: of these files.
        recall: share of the ten nearest windows that a search finds in a library so large that it does not look through
            all; None where it does.
    """

    index: str
    model: str
    width: int
    files: int
    counts: dict[str, int]
    decoded: int
    windows: int
    unchanged: int
    renewed: int
    moved: int
    copied: int
    removed: int
    left_out: tuple[VideoStatus, ...]
    videos: int
    all_windows: int
    seconds: float
    tags_added: int = 0
    tags_removed: int = 0
    recall: float | None = None


def index_videos(
    videos: Sequence[str],
    folder: Path,
    model: str | None = None,
    *,
    device: DeviceName = "auto",
    workers: int = 0,
    tags: Sequence[str] = (),
    untags: Sequence[str] = (),
    reporter: Reporter | None = None,
    stdin: BinaryIO | None = None,
    encode: Encode | None = None,
) -> VideosIndexed:
    """Bring a library up to date with files: no captions and no configuration are needed.

    A killed run is gone on with: what is put down is not done again. Files of other folders than those named stay.

    Args:
        videos: folders, files, patterns, `@LIST` or `-`, as `find_files` has them.
        folder: of the library, made where there is none.
        model: a run folder, a checkpoint or `openclip:MODEL/WEIGHTS`; None for the one that the library had last.
        workers: decoding processes, 0 for one a core.
        tags, untags: given to and taken from every file that is meant.
        stdin: what `-` reads.
        encode: what decodes and encodes; by default this process, on `device`.

    Raises:
        DataError: there is no video, or a name means nothing; no model is named and the library has none;
            what cannot be a tag.
        CheckpointError, ConfigError, UnreachableError: the model cannot be had, or is a teacher.
        CacheError: the library cannot be written, is of another format, or another process fills it.
    """
    reporter, begun = reporter or Silent(), time.perf_counter()
    add, remove = tags_of(tags, untags)
    found = find_files(videos, stdin)
    on = choose_device(device)
    if encode is None:
        tell_device(on, reporter)
    found.tell(reporter)
    run = _Run(load_model(model or model_of(folder), on), workers, reporter, encode or encode_here)
    with LibraryWriter.claim(folder, run.described) as writer:
        if writer.network_disk:
            reporter.info(f"{folder} is on a {writer.network_disk} disk: searches wait while a video is put down")
        writer.add_roots(found.roots)
        run.bring_up_to_date(found, writer)
        run.done["tagged"], run.done["untagged"] = writer.change_tags(found.files, add, remove)
        lists = writer.finish(reporter.info)
        known = writer.known()
    return run.result(found, known, folder, time.perf_counter() - begun, None if lists is None else lists.recall)


class Compared(NamedTuple):
    """A file and what it is now; None where it could not be read."""

    file: File
    stamp: FileStamp | None


@dataclass
class _Run:
    """One model at work on files.

    Attributes:
        done: counts of what was done.
    """

    model: VideoModel
    workers: int
    reporter: Reporter
    encode: Encode
    done: Counter[str] = field(default_factory=Counter)

    def __post_init__(self) -> None:
        self.described = self.model.described
        self._config = decoding(self.model.network, self.workers)

    def bring_up_to_date(self, found: Found, writer: LibraryWriter) -> None:
        plan = plan_files(found, writer.known())
        self.done["unchanged"] = len(plan.unchanged)
        jobs = [*plan.decode, *self._compare(plan, writer)]
        for file in plan.missing:
            writer.keep(Video(0, file.path, -1, -1, UNKNOWN, None, "missing", "no such file", READER))
        if jobs:
            self._decode(sorted(jobs, key=lambda file: file.path), writer)

    def _compare(self, plan: Plan, writer: LibraryWriter) -> list[File]:
        """Renew, move and copy what holds what is known, forget what is gone; the rest is to be decoded."""
        left: list[File] = []
        before = {file.path: each for file, each in plan.touched}
        alike = {file.path: others for file, others in plan.like}
        moved: set[int] = set()
        files = [file for file, _ in (*plan.touched, *plan.like)]
        for file, stamp in self._stamps(files):
            if file.path in before:
                again = stamp is not None and self._renew(before[file.path], stamp, writer)
            else:
                again = stamp is not None and self._place(file, stamp, alike[file.path], moved, writer)
            if not again:
                left.append(file)
        gone = [video.id for video in plan.gone if video.id not in moved]
        writer.remove(gone)
        self.done["removed"] = len(gone)
        return left

    def _stamps(self, files: Sequence[File]) -> Iterator[Compared]:
        """What files are now; they are read, not decoded."""
        if not files:
            return
        jobs = [(file.path, Path(file.path)) for file in files]
        no_decoder = self._config.model_copy(update={"decoder": "pyav"})  # which needs nothing to be loaded
        with (
            self.reporter.progress("compare files", len(files), "file") as progress,
            closing(decode_videos(jobs, no_decoder, len(jobs), read_again)) as results,
        ):
            for each in results:
                status, stamp = each.record.status, each.record.stamp
                readable = status.status == "ok" and stamp.content != UNKNOWN
                yield Compared(files[each.index], stamp if readable else None)
                progress.advance(1)

    def _renew(self, known: Known, stamp: FileStamp, writer: LibraryWriter) -> bool:
        """Whether a touched file holds what it held, and needs nothing more."""
        if stamp.content != known.video.content:
            return False
        writer.renew(known.video.id, stamp.size, stamp.mtime_ns, stamp.content)
        if needs_windows(known):
            return False
        self.done["renewed"] += 1
        return True

    def _place(
        self, file: File, stamp: FileStamp, others: Sequence[Known], moved: set[int], writer: LibraryWriter
    ) -> bool:
        """Whether a new file is known from another place, and needs nothing more."""
        same = [each for each in others if each.video.content == stamp.content]
        if not same:
            return False
        away = [each for each in same if each.video.id not in moved and not os.path.lexists(each.video.path)]
        known = (away or same)[0]
        if away:
            moved.add(known.video.id)
            writer.move(known.video.id, file.path, stamp.mtime_ns)
        else:
            writer.copy(known.video.id, file.path, stamp.mtime_ns)
        if needs_windows(known):
            return False
        self.done["moved" if away else "copied"] += 1
        return True

    def _decode(self, files: Sequence[File], writer: LibraryWriter) -> None:
        self.reporter.info(f"{counted(len(files), 'video')} to be decoded, {total_size(files) / 1e9:.2f} GB")
        with self.reporter.progress("index videos", len(files), "video") as progress:

            def keep(video: Video, windows: Sequence[NewWindow]) -> None:
                writer.keep(video, windows)
                self.done["decoded"] += 1
                self.done["windows"] += len(windows)
                progress.advance(1, windows=self.done["windows"])

            self.encode(files, self.model, self._config, keep)

    def result(
        self, found: Found, known: dict[str, Known], folder: Path, seconds: float, recall: float | None
    ) -> VideosIndexed:
        own = [known[path].video for path in found.files if path in known]
        left_out = sorted((video for video in own if video.status != "ok"), key=lambda one: one.status != "failed")
        return VideosIndexed(
            index=str(folder),
            model=self.described.name,
            width=self.described.width,
            files=len(found.files),
            counts=dict(Counter(video.status for video in own)),
            decoded=self.done["decoded"],
            windows=self.done["windows"],
            unchanged=self.done["unchanged"],
            renewed=self.done["renewed"],
            moved=self.done["moved"],
            copied=self.done["copied"],
            removed=self.done["removed"],
            left_out=tuple(_status(video) for video in left_out[:SHOWN]),
            videos=sum(each.windows > 0 for each in known.values()),
            all_windows=sum(each.windows for each in known.values()),
            seconds=seconds,
            tags_added=self.done["tagged"],
            tags_removed=self.done["untagged"],
            recall=recall,
        )


def encode_here(files: Sequence[File], model: VideoModel, config: PrepareConfig, keep: Keep) -> None:
    """Decode files by processes, and encode what comes in this one."""
    cut = Cut.of(model.described)
    jobs = [(file.path, Path(file.path)) for file in files]
    encode_arriving(decode_in_parts(jobs, config, partial(read_windows, cut)), WindowEncoder(model.network, cut, keep))


def encode_arriving(results: Generator[Arrived | Decoded, None, None], encoder: WindowEncoder) -> None:
    """Encode what comes from decoders in lots, while the next comes; they are closed at the end."""
    with BackgroundWriter("encode-windows") as work, closing(results):
        batch, begun = Batch(), time.monotonic()
        for event in results:
            batch.add(event)
            waits = batch.finished and time.monotonic() - begun > HELD
            if batch.frames >= FRAMES_AT_ONCE or waits:
                work.start(partial(encoder.take, batch))
                batch, begun = Batch(), time.monotonic()
        work.start(partial(encoder.take, batch))


def _status(video: Video) -> VideoStatus:
    return VideoStatus(video.path, video.status, video.reason, 0, video.duration)
