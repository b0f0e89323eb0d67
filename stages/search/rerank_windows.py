"""A heavy teacher re-orders what a student found in an index: it reads the best windows of the nearest videos alone.

The frames of a window are decoded when it is a candidate first; what the teacher makes of them is kept beside the index
(`cache/library/teacher_features.py`), so that later questions encode words alone.
"""

import threading
from collections.abc import Mapping, Sequence
from contextlib import closing
from functools import partial
from pathlib import Path
from typing import Self

import numpy as np
import torch

from ...cache.features import Arrays
from ...cache.frames.record import VideoRecord
from ...cache.library.library import Library
from ...cache.library.rows import Window
from ...cache.library.teacher_features import TeacherFeatures, key_of
from ...configs.schema import PrepareConfig
from ...errors import CheckpointError
from ...plurals import counted
from ..data.video.decode import READER
from ..data.video.workers import Decoded, decode_in_parts
from ..models.frozen.teacher import NetworkTeacher, load_teacher
from ..runtime.device import choose_device
from ..runtime.reporting import Reporter, Silent
from .library.models import TIMEOUT, DeviceName
from .library.reading import read_frames_at
from .rerank import CANDIDATES, Memory, plain, refuse_not_finite, stacked, teacher_at

_SHOWN = 5
_OTHERS = "name the run folder or the checkpoint of an X-CLIP, TS2-Net, X-Pool or DRL"


class WindowReranker:
    """A teacher and the features that it made of an index's windows; several threads may ask, and wait for each other.

    Args:
        library: the index, which stays open as long as this is used.
        teacher: the teacher.
        workers: decoding processes, 0 for one a core.
        candidates: videos of a sentence that it reads.
        reporter: is told what is decoded, and what cannot be.

    Raises:
        CacheError: features of it that are there are damaged.
    """

    def __init__(
        self,
        library: Library,
        teacher: NetworkTeacher,
        *,
        workers: int = 0,
        candidates: int = CANDIDATES,
        reporter: Reporter | None = None,
    ) -> None:
        self.library, self.name, self.candidates = library, teacher.name, candidates
        self._teacher, self._reporter = teacher, reporter or Silent()
        self._device, frames = teacher.network.logit_scale.device, teacher.network.trunk.prepared
        self._decoding = PrepareConfig(**frames, max_frames=teacher.frames, workers=workers, timeout=TIMEOUT)
        identity = {"weights": teacher.weights_digest, "score_version": teacher.score_version, "frames": teacher.frames}
        self._kept = TeacherFeatures.open(library, identity | {"reader": READER})
        self._memory = Memory()
        self._unusable: set[int] = set()
        self._alone = threading.Lock()

    @classmethod
    def open(
        cls,
        library: Library,
        teacher: str,
        device: DeviceName = "auto",
        reporter: Reporter | None = None,
    ) -> Self:
        """The teacher of a run folder or a checkpoint, loaded.

        Raises:
            CheckpointError: it is not there, cannot be loaded, or has one vector of a video, as a student has.
            CacheError: features of it that are there are damaged.
        """
        return cls(library, _loaded(teacher, choose_device(device)), reporter=reporter)

    @torch.inference_mode()
    def scores(self, sentence: str, windows: Sequence[Window]) -> list[float | None]:
        """The teacher's own raw score of a sentence with each window; None of those that cannot be decoded any more.

        Raises:
            CacheError: features cannot be read or kept.
            DataError: features of a window, or a score, are not finite.
        """
        with self._alone:
            features = self._features(windows)
            seen = [window for window in windows if window.row in features]
            if not seen:
                return [None] * len(windows)
            videos = stacked([features[window.row] for window in seen], self._device)
            made = self._teacher.score(self._teacher.encode_texts([sentence]), videos)[0].float().cpu().numpy()
        refuse_not_finite(self.name, [window.path for window in seen], np.isfinite(made))
        scores = {window.row: float(score) for window, score in zip(seen, made, strict=True)}
        return [scores.get(window.row) for window in windows]

    def close(self) -> None:
        """Let go of the features."""
        self._kept.close()

    def _features(self, windows: Sequence[Window]) -> dict[int, Arrays]:
        """By the windows' numbers, what is kept and what can be made."""
        keys = {window.row: key_of(self.library, window) for window in windows}
        found = {row: held for row, key in keys.items() if (held := self._memory.get(key)) is not None}
        read = self._kept.read({row: key for row, key in keys.items() if row not in found})
        for row, arrays in read.items():
            self._memory.put(keys[row], arrays)
        found |= read
        missing = [each for each in windows if each.row not in found and each.row not in self._unusable]
        return found | self._made(missing, keys)

    def _made(self, windows: Sequence[Window], keys: Mapping[int, bytes]) -> dict[int, Arrays]:
        """Decode windows and encode each by itself, so that nothing depends on its neighbours; each is kept at once."""
        found: dict[int, Arrays] = {}
        if not windows:
            return found
        jobs = [(str(window.row), Path(window.path)) for window in windows]
        seconds = {str(window.row): _seconds(window, self._teacher.frames) for window in windows}
        unusable: list[str] = []
        with (
            self._reporter.progress(f"windows through {self.name}", len(windows), "window") as progress,
            closing(decode_in_parts(jobs, self._decoding, partial(read_frames_at, seconds))) as decoding,
        ):
            for event in decoding:
                if not isinstance(event, Decoded):
                    continue
                window = windows[event.index]
                if why := self._unfit(window, event.record):
                    self._unusable.add(window.row)
                    unusable.append(f"{window.path} ({why})")
                else:
                    found[window.row] = self._encoded(window, event.record)
                    self._kept.write(window.row, keys[window.row], found[window.row])
                    self._memory.put(keys[window.row], found[window.row])
                progress.advance(1)
        self._tell(unusable)
        return found

    def _unfit(self, window: Window, record: VideoRecord) -> str | None:
        """Why what was decoded is not the window; None where it is."""
        if record.status.status != "ok":
            return f"{record.status.status}: {record.status.reason}"
        video, stamp = self.library.video(window.path), record.stamp
        known = None if video is None else (video.size, video.mtime_ns)
        return None if known == (stamp.size, stamp.mtime_ns) else "changed since it was indexed"

    def _encoded(self, window: Window, record: VideoRecord) -> Arrays:
        """The teacher's features of one window, the first dimension 1."""
        slots, size = self._teacher.frames, self._decoding.image_size
        frames, times = np.zeros((1, slots, 3, size, size), np.uint8), np.full((1, slots), np.nan)
        frames[0, : len(record.images)], times[0, : len(record.times)] = record.images, record.times
        inputs = (torch.from_numpy(each).to(self._device) for each in (frames, np.isfinite(times), times))
        arrays = {name: plain(value) for name, value in self._teacher.encode_videos(*inputs).items()}
        finite = all(np.isfinite(value).all() for value in arrays.values())
        refuse_not_finite(self.name, [window.path], np.array([finite]))
        return arrays

    def _tell(self, unusable: Sequence[str]) -> None:
        if not unusable:
            return
        shown, more = ", ".join(unusable[:_SHOWN]), len(unusable) - _SHOWN
        what = counted(len(unusable), "candidate comes", "candidates come")
        told = f"{what} behind the others, for want of the frames that were indexed: {shown}"
        self._reporter.warn(f"{told} and {more} more" if more > 0 else told)


def _seconds(window: Window, frames: int) -> tuple[float, ...]:
    """A window's times, or so many of them, evenly, as the teacher takes frames."""
    count = len(window.times)
    if count <= frames:
        return window.times
    return tuple(window.times[place] for place in np.linspace(0, count - 1, frames).round().astype(int))


def _loaded(name: str, device: torch.device) -> NetworkTeacher:
    if not Path(name).exists():
        raise CheckpointError("no teacher lies here", where=name, hint=_OTHERS)
    settings = teacher_at(Path(name).absolute())
    teacher = load_teacher(settings, settings.checkpoint, device)
    assert isinstance(teacher, NetworkTeacher)
    if teacher.network.one_vector:
        kind = teacher.network.config.kind
        raise CheckpointError(
            f"this is a network of kind {kind}: it has one vector of a video, as the index has, and re-orders nothing",
            where=name,
            hint=_OTHERS,
        )
    return teacher
