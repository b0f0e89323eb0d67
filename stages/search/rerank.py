"""A heavy teacher re-orders what a student found: one dot product a video finds candidates, the teacher reads only
those.

The teacher's features of a video are kept, a file a video, below `work`: the frames of a candidate go through its trunk
once. They are named by the hash of the frames and lie in a folder of the teacher's weights: nothing stale is ever read;
deleting them costs time alone.
"""

import threading
from collections import OrderedDict
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Self

import numpy as np
import torch
from torch import Tensor

from ...cache.features import Arrays, FeatureShards
from ...cache.frames.cache import FrameCache
from ...configs.schema import Config, TeacherConfig
from ...errors import CheckpointError, DataError
from ...remedies import Change, Remedy
from ..data.teacher_frames import teacher_frames
from ..data.video_inputs import FrameInputs, encoded
from ..models.common.network import Features
from ..models.frozen.teacher import Teacher, load_teacher, may_be_shared, refuse_resized
from ..runtime.device import choose_device
from ..runtime.reporting import Reporter, Silent

CANDIDATES = 100
"""Videos of a sentence that the teacher reads."""

MEMORY = 2**30
"""Bytes of features that stay in memory."""

_FOLDER = "rerank"  # below `work`


class Reranker:
    """A teacher and the features that it made of videos; several threads may ask at once, and wait for each other.

    Args:
        teacher: the teacher.
        frames: what it sees of the videos.
        folder: where its features are kept.
        device: where it runs.
        batch: videos encoded at a time.
        candidates: videos of a sentence that it reads.
        reporter: is told what is encoded.
    """

    def __init__(
        self,
        teacher: Teacher,
        frames: FrameCache,
        folder: Path,
        device: torch.device,
        *,
        batch: int = 32,
        candidates: int = CANDIDATES,
        reporter: Reporter | None = None,
    ) -> None:
        self.name, self.candidates = teacher.name, candidates
        self._teacher, self._frames, self._device, self._batch = teacher, frames, device, batch
        self._reporter = reporter or Silent()
        identity = {"weights": teacher.weights_digest, "score_version": teacher.score_version, "frames": teacher.frames}
        self._kept = FeatureShards(folder, identity, shard_videos=1)
        self._memory = Memory()
        self._alone = threading.Lock()

    @classmethod
    def open(cls, config: Config, teacher: str, reporter: Reporter | None = None) -> Self:
        """The teacher of this name, loaded, with the frames that it sees.

        Args:
            teacher: a name in `score.teachers`, else a run folder or a checkpoint.

        Raises:
            CheckpointError: it cannot be loaded, or takes another number or size of frames than there are.
            CacheError: there are no frames for it, or they are damaged; its features cannot be kept.
            ConfigError, PluginError: as `load_teacher`.
            DataError: no video has frames; the teacher's features are not finite.
        """
        settings = _settings(config, teacher)
        frames = teacher_frames(config, settings, FrameCache.open(config.frames_folder))
        if not frames.usable:
            raise DataError(
                "no video has usable frames: nothing to re-rank", where=str(config.teacher_frames(settings))
            )
        device = choose_device(config.search.device)
        loaded = load_teacher(settings, config.teacher_checkpoint(settings), device, reporter=reporter)
        refuse_resized(loaded, frames.resize_mode, frames.interpolation)
        batch = config.score.video_batch
        found = cls(loaded, frames, config.work / _FOLDER, device, batch=batch, reporter=reporter)
        found.features(frames.usable[:1])  # a teacher that takes other frames says so now
        return found

    @torch.inference_mode()
    def scores(self, sentence: str, videos: Sequence[str]) -> np.ndarray:
        """The teacher's own raw scores float32 [V] of a sentence with V videos; they are reckoned for each sentence by
        itself, so what else is asked does not change them.

        Raises:
            CacheError: a video without frames; frames or features that cannot be read or kept.
            DataError: features of a video, or a score, are not finite.
        """
        with self._alone:
            features = self._features(videos)
            found = self._teacher.score(self._teacher.encode_texts([sentence]), features)[0].float()
        scores: np.ndarray = found.cpu().numpy()
        refuse_not_finite(self.name, videos, np.isfinite(scores))
        return scores

    @torch.inference_mode()
    def features(self, videos: Sequence[str]) -> Features:
        """The teacher's features of videos, kept or made and kept; first dimension V.

        Raises:
            As `scores`.
        """
        with self._alone:
            return self._features(videos)

    def has(self, video: str) -> bool:
        """Whether the teacher has frames of a video."""
        status = self._frames.statuses.get(video)
        return status is not None and status.status == "ok"

    def _features(self, videos: Sequence[str]) -> Features:
        digests = {video: self._frames.digest(video) for video in videos}
        found = {digest: kept for digest in dict.fromkeys(digests.values()) if (kept := self._read(digest)) is not None}
        missing = [video for video, digest in digests.items() if digest not in found]
        self._make(missing, digests, found)
        return stacked([found[digests[video]] for video in videos], self._device)

    def _read(self, digest: bytes) -> Arrays | None:
        if (held := self._memory.get(digest)) is not None:
            return held
        kept = self._kept.read([digest])
        if kept is not None:
            self._memory.put(digest, kept)
        return kept

    def _make(self, videos: Sequence[str], digests: Mapping[str, bytes], found: dict[bytes, Arrays]) -> None:
        """Encode videos; each is kept at once, so that a kill costs a batch at most."""
        if not videos:
            return
        inputs, index = FrameInputs(self._frames, videos), np.arange(len(videos))
        with self._reporter.progress(f"videos through {self.name}", len(videos), "video") as progress:
            encode, several = self._teacher.encode_videos, may_be_shared(self._teacher)
            for part, features in encoded(inputs, index, encode, self._device, self._batch, several=several):
                arrays = {key: plain(value) for key, value in features.items()}
                finite = [np.isfinite(value.reshape(len(part), -1)).all(axis=1) for value in arrays.values()]
                refuse_not_finite(self.name, [videos[k] for k in part], np.logical_and.reduce(finite))
                for row, k in enumerate(part):
                    digest = digests[videos[k]]
                    found[digest] = {key: value[row : row + 1].copy() for key, value in arrays.items()}
                    self._kept.write([digest], found[digest])
                    self._memory.put(digest, found[digest])
                progress.advance(len(part))


class Memory:
    """Features that were used last, by what they are known by, as long as they fit into `MEMORY`."""

    def __init__(self) -> None:
        self._arrays: OrderedDict[bytes, Arrays] = OrderedDict()
        self._bytes = 0

    def get(self, key: bytes) -> Arrays | None:
        if key in self._arrays:
            self._arrays.move_to_end(key)
        return self._arrays.get(key)

    def put(self, key: bytes, arrays: Arrays) -> None:
        if key not in self._arrays:
            self._arrays[key] = arrays
            self._bytes += _size(arrays)
        while self._bytes > MEMORY:
            self._bytes -= _size(self._arrays.popitem(last=False)[1])


def _settings(config: Config, teacher: str) -> TeacherConfig:
    """What the configuration says of a teacher, or that of a checkpoint which it does not name."""
    for settings in config.score.teachers:
        if settings.name == teacher:
            return settings
    path = Path(teacher)
    lies = next((each for each in (path.absolute(), config.work / path) if each.exists()), None)
    if lies is None:
        named = ", ".join(settings.name for settings in config.score.teachers)
        raise CheckpointError(
            f"{teacher!r} is neither a teacher in score.teachers nor a checkpoint",
            details=[f"teachers there: {named}"] if named else [],
            hint=Remedy(
                "name a teacher's run folder or checkpoint, or put it among the teachers",
                Change({"score.teachers": "[{name: xclip, checkpoint: runs/teacher}]"}),
            ),
        )
    return teacher_at(lies)


def teacher_at(path: Path) -> TeacherConfig:
    """Of the teacher whose run folder or checkpoint lies there."""
    name = "".join(letter if letter.isascii() and letter.isalnum() else "-" for letter in path.stem).strip("-")
    return TeacherConfig(name=name or "teacher", checkpoint=path)


def plain(value: Tensor) -> np.ndarray:
    """A feature as it is kept: floats in float32."""
    array: np.ndarray = (value.float() if value.is_floating_point() else value).cpu().numpy()
    return array


def stacked(parts: Sequence[Arrays], device: torch.device) -> Features:
    """Features of videos one behind the other, on a device."""
    return {key: torch.from_numpy(np.concatenate([part[key] for part in parts])).to(device) for key in parts[0]}


def _size(arrays: Arrays) -> int:
    return sum(value.nbytes for value in arrays.values())


def refuse_not_finite(teacher: str, videos: Sequence[str], finite: np.ndarray) -> None:
    """Raise a DataError that names the videos of which something is not finite."""
    if not finite.all():
        raise DataError(
            f"teacher {teacher!r} makes of these videos what is not finite",
            details=[video for video, fine in zip(videos, finite, strict=True) if not fine],
            hint="check the teacher's checkpoint, or re-rank with another",
        )
