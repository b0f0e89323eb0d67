"""A frozen teacher at work: videos encoded once, texts in blocks, shards handed to a thread that writes them."""

from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import Future, ThreadPoolExecutor
from dataclasses import dataclass
from types import TracebackType
from typing import Self

import numpy as np
import torch
from torch import Tensor

from ..cache.features import FeatureShards
from ..cache.frames import FrameCache
from ..cache.score_shards import write_shard
from ..cache.scores import ScoreCache
from ..cache.stream import read_ahead
from ..cache.tiles import Tile
from ..errors import DataError
from .models.network import Features
from .models.teachers import Teacher
from .part import WHOLE, Part
from .reporting import Reporter

VIDEOS_AT_ONCE = 1024
"""Columns scored at a time: fixed, since the last bits of a score can depend on it."""

type _Rows = tuple[np.ndarray, np.ndarray | None]
"""Raw scores float32 [rows,V], and frame-text logits [rows,F] or None."""


def _join(parts: Sequence[dict[str, np.ndarray]]) -> dict[str, np.ndarray]:
    return {key: np.concatenate([part[key] for part in parts]) for key in parts[0]}


@dataclass(frozen=True)
class _Group:
    """A file of features: the videos it holds by digest, and which of them, `at`, belong at `places` of a request."""

    digests: tuple[bytes, ...]
    at: np.ndarray
    places: np.ndarray


class VideoEncoder:
    """The teacher's features of videos, from the store where they are there, else made and kept.

    They are kept in float32, as they are scored with: a resumed run scores with the same bits as one that was never
    interrupted. A video is found in the files of every tile of the cache: another tile does not encode it again.
    """

    def __init__(
        self,
        teacher: Teacher,
        cache: ScoreCache,
        frames: FrameCache,
        device: torch.device,
        batch: int,
        part: Part = WHOLE,
    ) -> None:
        self.teacher, self.frames, self.device, self.batch, self.part = teacher, frames, device, batch, part
        identity = {key: cache.identity[key] for key in ("weights", "score_version", "frames")}
        self.shards = FeatureShards(cache.videos_folder, identity)
        self._tiles = cache.tiles

    @torch.inference_mode()
    def encode(self, videos: Sequence[str], reporter: Reporter) -> Features:
        """Features of `videos` on the device; first dimension V.

        Raises:
            DataError: a video's features are not finite; names it.
        """
        # In torch's own memory: its alignment, which last bits can depend on, is then the same in every run.
        features: Features = {}
        with reporter.progress(f"videos through {self.teacher.name}", len(videos), "video") as progress:
            for group in self.part.first(self._groups(videos)):
                values = self._read(group)
                if values is None:
                    own = [videos[place] for place in group.places]
                    values = self._make(own)
                    self.shards.write([self.frames.digest(video) for video in own], values)
                for key, value in values.items():
                    if key not in features:
                        dtype = torch.from_numpy(value[:0]).dtype
                        features[key] = torch.empty((len(videos), *value.shape[1:]), dtype=dtype)
                    features[key][torch.from_numpy(group.places)] = torch.from_numpy(value)
                progress.advance(len(group.places))
        return {key: value.to(self.device) for key, value in features.items()}

    def _groups(self, videos: Sequence[str]) -> list[_Group]:
        """The files that hold these videos, and those that are to be made."""
        digests = [self.frames.digest(video) for video in videos]
        wanted: dict[bytes, list[int]] = {}  # places by digest: videos may have the same frames
        for place in reversed(range(len(digests))):
            wanted.setdefault(digests[place], []).append(place)
        groups = []
        for tile in self._tiles:
            if not any(video in tile.video_columns for video in videos):
                continue
            held = [bytes(row) for row in tile.video_digests]
            for span in self.shards.groups(held):
                file = tuple(held[span])
                if self.shards.path(file).exists():
                    found = [(at, wanted[digest].pop()) for at, digest in enumerate(file) if wanted.get(digest)]
                    if found:
                        at, places = np.array(found).T
                        groups.append(_Group(file, at, places))
        rest = sorted(place for places in wanted.values() for place in places)
        for span in self.shards.groups([digests[place] for place in rest]):
            file = tuple(digests[place] for place in rest[span])
            groups.append(_Group(file, np.arange(len(file)), np.array(rest[span])))
        return groups

    def _read(self, group: _Group) -> dict[str, np.ndarray] | None:
        values = self.shards.read(group.digests)
        return None if values is None else {key: value[group.at] for key, value in values.items()}

    def _make(self, videos: Sequence[str]) -> dict[str, np.ndarray]:
        batches = [videos[start : start + self.batch] for start in range(0, len(videos), self.batch)]
        parts = []
        with read_ahead(self.frames.read, batches, depth=2) as clips:
            for batch, clip in zip(batches, clips, strict=True):
                arrays = (torch.from_numpy(array).to(self.device) for array in (clip.frames, clip.mask, clip.times))
                features = self.teacher.encode_videos(*arrays)
                part = {key: _plain(value) for key, value in features.items()}
                _refuse_not_finite(self.teacher.name, batch, part)
                parts.append(part)
        return _join(parts)


def _plain(value: Tensor) -> np.ndarray:
    return (value.float() if value.is_floating_point() else value).cpu().numpy()


def _refuse_not_finite(teacher: str, videos: Sequence[str], features: dict[str, np.ndarray]) -> None:
    bad = np.zeros(len(videos), dtype=bool)
    for values in features.values():
        bad |= ~np.isfinite(values.reshape(len(videos), -1)).all(axis=1)
    if bad.any():
        raise DataError(
            f"teacher {teacher!r} makes features of these videos that are not finite",
            details=[video for video, wrong in zip(videos, bad, strict=True) if wrong],
            hint="check the teacher's checkpoint, or take these videos out of the caption file",
        )


class Scorer:
    """Scores the shards of one tile.

    Texts are encoded and scored in blocks of `batch` rows, counted from the tile's first row, and every block is
    computed whole whichever of its rows a shard needs: the last bits of a row depend on the rows computed with it, and
    so they depend neither on the size of shards nor on which of them were there before.

    Args:
        teacher: the teacher.
        tile: the tile.
        videos: features of the tile's videos, in order.
        captions: caption of every row's text; any string for rows that are in no block of the shards to be scored.
        batch: texts of a block.
    """

    def __init__(self, teacher: Teacher, tile: Tile, videos: Features, captions: Sequence[str], batch: int) -> None:
        self.teacher, self.tile, self.captions, self.batch = teacher, tile, captions, batch
        self.videos = videos
        self.columns = list(_blocks(videos, tile.layout.videos))
        self._last: tuple[int, _Rows] | None = None  # neighbouring shards share a block

    def score(self, shard: int, advance: Callable[[int], None]) -> _Rows:
        """Raw scores float32 [rows,V] and frame-text logits [rows,F] of a shard; `advance` is told of pairs."""
        rows = self.tile.layout.rows(shard)
        coarse, fine = [], []
        for first in range(rows.start - rows.start % self.batch, rows.stop, self.batch):
            wanted = slice(max(rows.start - first, 0), rows.stop - first)
            scores, logits = self._block(first)
            coarse.append(scores[wanted])
            if logits is not None:
                fine.append(logits[wanted])
            advance(coarse[-1].size)
        return np.concatenate(coarse), np.concatenate(fine) if fine else None

    @torch.inference_mode()
    def _block(self, first: int) -> _Rows:
        """Scores and frame-text logits of the block of texts that begins at row `first`."""
        if self._last is None or self._last[0] != first:
            rows = slice(first, min(first + self.batch, self.tile.layout.texts))
            texts = self.teacher.encode_texts(self.captions[rows])
            scores = torch.cat([self.teacher.score(texts, columns).float() for columns in self.columns], dim=1)
            fine = self._frame_logits(texts, rows) if self.tile.layout.frame_logits else None
            self._last = first, (scores.cpu().numpy(), fine)
        return self._last[1]

    def _frame_logits(self, texts: Features, rows: slice) -> np.ndarray:
        own = torch.from_numpy(self.tile.text_video[rows].clip(min=0))
        videos = {key: value[own.to(value.device)] for key, value in self.videos.items()}
        logits = self.teacher.frame_logits(texts, videos)
        assert logits is not None
        return logits.float().cpu().numpy()


def _blocks(videos: Features, count: int) -> Iterator[Features]:
    for start in range(0, count, VIDEOS_AT_ONCE):
        yield {key: value[start : start + VIDEOS_AT_ONCE] for key, value in videos.items()}


@torch.inference_mode()
def gives_frame_logits(teacher: Teacher, frames: FrameCache, video: str, caption: str, device: torch.device) -> bool:
    """Whether a teacher has frame-text scores: found by asking for those of one caption."""
    clips = frames.read([video])
    features = teacher.encode_videos(*(torch.from_numpy(a).to(device) for a in (clips.frames, clips.mask, clips.times)))
    return teacher.frame_logits(teacher.encode_texts([caption]), features) is not None


class ShardWriter:
    """Writes shards in one background thread, so that the disk never keeps the teacher waiting.

    Leaving the `with` block waits for what was handed over; an error of the disk is raised by the next call.
    """

    def __init__(self) -> None:
        self._pool = ThreadPoolExecutor(1, thread_name_prefix="write-shard")
        self._pending: Future[None] | None = None

    def write(self, tile: Tile, shard: int, coarse: np.ndarray, fine: np.ndarray | None) -> None:
        """Hand a shard over once the one before is written: of what was scored, a kill costs that one at most."""
        self.finish()
        self._pending = self._pool.submit(write_shard, tile, shard, coarse, fine)

    def finish(self) -> None:
        """Wait until everything handed over is written."""
        pending, self._pending = self._pending, None
        if pending is not None:
            pending.result()

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self._pool.shutdown(wait=True)
        if error is None:
            self.finish()
