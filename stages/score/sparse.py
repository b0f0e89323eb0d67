"""A re-ranker's part of stage one: few pairs of each caption, those that another teacher finds best, and the own one.

A tile is the same rectangle as a dense teacher's; what is not scored is marked in it (65535, or NaN). Which pairs are
scored depends on the tile and the other teacher's stored scores alone: a killed run, another worker and another shard
size score the same.
"""

import time
from collections.abc import Iterator, Sequence
from functools import cached_property
from itertools import batched
from typing import Protocol

import numpy as np
from PIL import Image

from ...cache.frames.cache import FrameCache
from ...cache.scores.reading.reader import ScoreReader
from ...cache.scores.store import SPARSE, ScoreCache
from ...cache.scores.tile import Tile
from ...cache.storage.identity import JSON, digest_of, identity_digest
from ...configs.schema import Config, CrossEncoderConfig, TeacherConfig
from ...errors import CacheError, ConfigError, DataError
from ...plurals import counted
from ...remedies import Remedy, Score
from ..data.teacher_frames import TeacherFrames
from ..data.usable_split import UsableSplit, VideoView
from ..data.views import View, student_view
from ..models.frozen.cross_encoder import CrossEncoder, Document
from ..runtime.device import choose_device
from .chance_check import OwnRanks
from .one_teacher import OneTeacher, Work
from .scorer import Block, BlockScorer

_PAIRS = 256  # whose pictures are in memory at a time
TIMED = 64
"""Pairs that are scored to know how fast a re-ranker is."""
_SHOWN = 5


class Documents(Protocol):
    """What videos are to a re-ranker; `digest` stands for what scores depend on beside captions and frames."""

    digest: str

    def read(self, pairs: Sequence[tuple[str, str]]) -> list[Document]:
        """The document of each pair of a text and a video, by their ids."""
        ...


class OtherCaptions:
    """A video is its captions but for the one that it is compared with, joined.

    Raises:
        DataError: videos with fewer than two captions, whose own pair would say nothing.
    """

    def __init__(self, split: UsableSplit, where: str) -> None:
        self._captions: dict[str, list[tuple[str, str]]] = {video: [] for video in split.videos}
        for text, place in zip(split.texts, split.text_video.tolist(), strict=True):
            self._captions[split.videos[place]].append((text.id, text.caption))
        if few := [video for video, captions in self._captions.items() if len(captions) < 2]:
            raise DataError(
                f"{counted(len(few), 'video has', 'videos have')} fewer than two captions: without the one that is "
                "compared, nothing says what they show",
                where=f"{where}.video",
                details=[*few[:_SHOWN], *(["..."] if len(few) > _SHOWN else [])],
                hint="set it to frames, with a model that reads pictures",
            )
        said = (part for video, each in self._captions.items() for part in (video, *(text for _, text in each)))
        self.digest = digest_of(said)

    def read(self, pairs: Sequence[tuple[str, str]]) -> list[Document]:
        return [". ".join(said for key, said in self._captions[video] if key != text) for text, video in pairs]


class Pictures:
    """A video is its stored frames, as pictures."""

    digest = "frames"

    def __init__(self, frames: FrameCache) -> None:
        self._frames = frames

    def read(self, pairs: Sequence[tuple[str, str]]) -> list[Document]:
        videos = list(dict.fromkeys(video for _, video in pairs))
        clips = self._frames.read(videos)
        shown: dict[str, list[Image.Image]] = {
            video: [Image.fromarray(image.transpose(1, 2, 0)) for image in frames[mask]]
            for video, frames, mask in zip(videos, clips.frames, clips.mask, strict=True)
        }
        return [shown[video] for _, video in pairs]


def documents_of(settings: CrossEncoderConfig, split: UsableSplit, frames: VideoView, where: str) -> Documents:
    """What the videos of a split are to a re-ranker.

    Raises:
        ConfigError: it is to see pictures, and there are features alone.
    """
    if settings.video == "captions":
        return OtherCaptions(split, where)
    if not isinstance(frames, FrameCache):
        raise ConfigError("there are no frames for it to see, features alone", where=f"{where}.video")
    return Pictures(frames)


class SparseTeacher(OneTeacher):
    """One re-ranker's part of the stage.

    Raises (`run`):
        CacheError: the teacher that chooses has not scored these captions and videos.
        ConfigError: it is a re-ranker, too.
    """

    @property
    def _where(self) -> str:
        return f"score.teachers.{self.name}.cross_encoder"

    @property
    def _asked(self) -> CrossEncoderConfig:
        assert self.settings.cross_encoder is not None
        return self.settings.cross_encoder

    @cached_property
    def reranker(self) -> CrossEncoder:
        """Loaded when it is first needed."""
        return CrossEncoder(self.settings, self.device)

    @cached_property
    def documents(self) -> Documents:
        return documents_of(self._asked, self.split, self.frames, self._where)

    @cached_property
    def chooser(self) -> ScoreCache:
        """The scores that candidates are chosen by."""
        by = self._asked.by
        if by not in self.store.teachers:
            what = f"{self.name} scores what {by} finds best, and {by} has no scores yet"
            hint = Remedy(f"name {by} before it in score.teachers, or score with {by} first", Score())
            raise CacheError(what, where=str(self.store.path), hint=hint)
        found = self.store.teacher(by)
        if found.sparse:
            raise ConfigError(
                f"{by} scored few pairs itself: name a teacher that scores all", where=f"{self._where}.by"
            )
        return found

    def _create(self, checkpoint: str) -> None:
        identity = self._teacher_identity() | self._frames_identity()
        scale, dtype = self._asked.scale, self.config.score.coarse
        self.store.create_teacher(self.name, identity, scale, dtype, self.frames.max_frames, False, checkpoint)

    def _scale(self) -> float:
        return self._asked.scale

    def _teacher_identity(self) -> dict[str, JSON]:
        return {
            "weights": self.reranker.weights_digest,
            "score_version": self.reranker.score_version,
            "words": 0,
            "frames": self.frames.max_frames,
            SPARSE: self._asked.top,
            "chosen by": f"{self._asked.by} {identity_digest(self.chooser.identity)}",
            "documents": self.documents.digest,
        }

    @cached_property
    def _chooser_saw(self) -> View:
        """What the other teacher saw of the videos."""
        by, students = self._asked.by, student_view(self.config, self.dataset)
        return TeacherFrames(self.config, [by], students, {by: self.chooser.identity})[by]

    def _score(self, cache: ScoreCache, work: Sequence[Work], ranks: OwnRanks | None) -> tuple[int, OwnRanks | None]:
        self._tell_hours(work)
        return super()._score(cache, work, ranks)

    def _scorer(self, cache: ScoreCache, tile: Tile, captions: Sequence[str]) -> BlockScorer:
        choose = Candidates(self._chooser_of(tile), tile, self._asked.top)
        return SparseScorer(self.reranker, self.documents, choose, tile, captions, self.config.score.text_batch)

    def _chooser_of(self, tile: Tile) -> ScoreReader:
        """The other teacher's scores of a tile's texts and videos, by the frames that it saw."""
        texts = list(zip(tile.text_ids, map(bytes, tile.text_digests), strict=True))
        return self.chooser.reader(texts, [(video, self._chooser_saw.digest(video)) for video in tile.video_ids])

    def _tell_hours(self, work: Sequence[Work]) -> None:
        """Say what is ahead of this worker, before anything is scored."""
        rows = [(each.tile.spec, each.tile.spec.rows(shard)) for each in work for shard in each.missing_here()]
        texts = sum(len(of) for _, of in rows)
        if not texts:
            return
        pairs = sum(len(of) * spec.per_text for spec, of in rows)
        rate = time_pairs(self.reranker, self.documents, self.split)
        chosen = f"the {counted(self._asked.top, 'video')} that {self._asked.by} finds best, and the own one"
        self.reporter.info(
            f"{self.name}: about {counted(pairs, 'pair')}, of {counted(texts, 'caption')} {chosen}; "
            f"{pairs / rate / 3600:.2g} hours at {rate:,.0f} a second, measured on {TIMED}"
        )


def time_reranker(config: Config, teacher: TeacherConfig, split: UsableSplit, frames: VideoView) -> float:
    """Pairs per second of a re-ranker, which is loaded for it."""
    assert teacher.cross_encoder is not None
    documents = documents_of(teacher.cross_encoder, split, frames, f"score.teachers.{teacher.name}.cross_encoder")
    return time_pairs(CrossEncoder(teacher, choose_device(config.score.device)), documents, split)


def time_pairs(reranker: CrossEncoder, documents: Documents, split: UsableSplit) -> float:
    """Pairs per second of a re-ranker, on 64 of a split; the first pass, which is slower, does not count."""
    texts = [split.texts[k % len(split.texts)] for k in range(TIMED)]
    pairs = [(text.id, split.videos[k % len(split.videos)]) for k, text in enumerate(texts)]
    for _ in range(2):
        begun = time.perf_counter()
        read = documents.read(pairs)
        reranker.predict([(text.caption, document) for text, document in zip(texts, read, strict=True)])
    return TIMED / max(time.perf_counter() - begun, 1e-9)


class Candidates:
    """Which videos of a tile are scored for each text: the `top` best by another teacher, and its own."""

    def __init__(self, reader: ScoreReader, tile: Tile, top: int) -> None:
        self._reader, self._tile, self._top = reader, tile, top

    def of(self, rows: np.ndarray) -> np.ndarray:
        """bool [rows, V]; of equal scores the first counts as best."""
        videos = self._tile.spec.videos
        scores = self._reader.read(rows, np.arange(videos)).coarse
        chosen = np.zeros(scores.shape, bool)
        best = np.argsort(-scores, axis=1, kind="stable")[:, : self._top]
        np.put_along_axis(chosen, best, True, axis=1)
        own = self._tile.text_video[rows]
        here = np.flatnonzero(own >= 0)
        chosen[here, own[here]] = True
        return chosen


class SparseScorer(BlockScorer):
    """Scores the chosen pairs of a tile; the others are NaN.

    Args:
        captions: caption of every row's text.
        batch: texts of a block.
    """

    def __init__(
        self,
        reranker: CrossEncoder,
        documents: Documents,
        candidates: Candidates,
        tile: Tile,
        captions: Sequence[str],
        batch: int,
    ) -> None:
        super().__init__(tile, batch)
        self._reranker, self._documents, self._candidates, self._captions = reranker, documents, candidates, captions

    def _made(self, firsts: Iterator[int]) -> Iterator[Block]:
        return map(self._block, firsts)

    def _block(self, first: int) -> Block:
        rows = np.arange(first, min(first + self.batch, self.tile.spec.texts))
        chosen = self._candidates.of(rows)
        scores = np.full(chosen.shape, np.nan, np.float32)
        for part in batched(np.argwhere(chosen).tolist(), _PAIRS):
            keys = [(self.tile.text_ids[first + row], self.tile.video_ids[column]) for row, column in part]
            read = zip(part, self._documents.read(keys), strict=True)
            found = self._reranker.predict([(self._captions[first + row], document) for (row, _), document in read])
            self._refuse_not_finite(keys, found)
            scores[tuple(np.array(part).T)] = found
        return first, scores, None

    def _refuse_not_finite(self, keys: Sequence[tuple[str, str]], scores: np.ndarray) -> None:
        if bad := [
            f"{text} with {video}" for (text, video), fine in zip(keys, np.isfinite(scores), strict=True) if not fine
        ]:
            raise CacheError(
                f"the teacher gave {counted(len(bad), 'score that is', 'scores that are')} not finite",
                where=str(self.tile.folder),
                hint="nothing of this shard was kept; check the teacher's model and these videos",
                details=bad[:_SHOWN],
            )
