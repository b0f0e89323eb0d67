"""Stage one: frozen teachers -> score cache (DESIGN: the cache holds raw scores; softmax belongs to training).

Each teacher sees each video and each caption once. What is complete is never made again; a store made from other
captions, frames or weights is refused, naming what differs.
"""

import time
from dataclasses import dataclass
from functools import cached_property

import numpy as np

from ..cache.files import remove_leftovers
from ..cache.frames import FrameCache
from ..cache.identity import JSON, refuse_difference, text_digest
from ..cache.reader import TileRows
from ..cache.score_shards import missing_shards, problem, sweep
from ..cache.scores import ScoreCache, ScoreStore
from ..cache.tiles import Key, Tile, TileContents
from ..configs.schema import Config, TeacherConfig
from ..errors import CacheError, CacheMismatchError, ConfigError, DataError
from .data.captions import Dataset, read_dataset
from .device import choose_device
from .models.checkpoints import checkpoint_digest
from .models.teachers import Teacher, load_teacher
from .own_ranks import OwnRanks, own_ranks
from .reporting import Reporter, Silent
from .scoring import Scorer, ShardWriter, VideoEncoder, gives_frame_logits
from .splits import Split, usable_split
from .teacher_frames import teacher_frames

DENSE = "dense"
_OTHER_STORE = "undo the change, or keep both: --set score.store=OTHER.zarr"
_SHOWN = 5
_TEACHER = ("weights", "score_version", "words", "frames")


@dataclass(frozen=True)
class TeacherScores:
    """What one teacher's scores are, and how much of them this run made.

    Attributes:
        teacher: its name in the store.
        texts, videos: captions and videos scored; shards: into how many parts.
        left_out_videos: those without usable frames, here or in the frame cache that the teacher sees.
        shards_before: complete when this run began; shards_now: made by it.
        seconds: what it took.
        own_ranks: how the captions' own videos rank in one shard; None when there is nothing to rank.
    """

    teacher: str
    texts: int
    videos: int
    shards: int
    shards_before: int
    shards_now: int
    seconds: float
    own_ranks: OwnRanks | None
    left_out_videos: int = 0


@dataclass(frozen=True)
class ScoreResult:
    """The store, each teacher's scores in it, and the videos that have no usable frames in `prepare.frames`."""

    store: str
    teachers: tuple[TeacherScores, ...]
    left_out_videos: int
    seconds: float


def score(config: Config, reporter: Reporter | None = None) -> ScoreResult:
    """Score the captions and videos of `config.score.splits` with every configured teacher.

    A killed run goes on where it was; a finished one is only reported. Several may run at once. A teacher that sees
    frames of its own (`prepared`) scores the videos that have frames in both caches: stage two needs the student's.

    Raises:
        ConfigError: no teacher is configured, or there is no such model or class.
        DataError: nothing to score, features that are not finite.
        CheckpointError: a teacher cannot be loaded.
        PluginError: a teacher of the user's own fails, or is none.
        CacheMismatchError: the store was made from other captions, frames or weights; names what differs.
        CacheError: no frames, a damaged store, a disk that cannot be written, scores that are not finite, or ranks
            near chance.
    """
    reporter = reporter or Silent()
    begun = time.monotonic()
    if not config.score.teachers:
        raise ConfigError(
            "score.teachers is empty: there is nobody to score",
            hint='name one: --set "score.teachers=[{name: xclip, checkpoint: runs/teacher}]"',
        )
    frames = FrameCache.open(config.frames_folder)
    dataset = read_dataset(config.data)
    split = _texts(config, dataset, frames)
    if split.left_out:
        reporter.warn(f"{split.left_out} videos have no usable frames and are left out")
    seen = [(teacher, teacher_frames(config, teacher, frames)) for teacher in config.score.teachers]
    store = ScoreStore.create(config.score_store)
    remove_leftovers(store.path)
    results = []
    for teacher, own in seen:
        scored = split if own is frames else _texts(config, dataset, frames, own)
        if more := scored.left_out - split.left_out:
            folder = config.teacher_frames(teacher)
            reporter.warn(f"{teacher.name}: {more} more videos have no usable frames in {folder} and are left out")
        results.append(_Stage(config, teacher, scored, own, store, reporter).run())
    return ScoreResult(str(store.path), tuple(results), split.left_out, time.monotonic() - begun)


def _texts(config: Config, dataset: Dataset, *frames: FrameCache) -> Split:
    """The captions that are scored."""
    split = usable_split(dataset, config.score.splits, *frames)
    if not split.texts:
        raise DataError(
            f"no usable captions in the splits that are scored ({', '.join(config.score.splits)})",
            where=str(config.data.captions),
            hint="`teachclip prepare` lists the videos that cannot be used, and why",
        )
    return split


class _Stage:
    """One teacher's part of the stage: `frames` is the cache that it sees, `split` what it scores."""

    def __init__(
        self,
        config: Config,
        settings: TeacherConfig,
        split: Split,
        frames: FrameCache,
        store: ScoreStore,
        reporter: Reporter,
    ) -> None:
        self.config, self.settings, self.split, self.frames = config, settings, split, frames
        self.store, self.reporter = store, reporter
        self.name = settings.name
        self.checkpoint = config.teacher_checkpoint(settings)
        self.device = choose_device(config.score.device)
        self.texts: list[Key] = [(text.id, text_digest(text.caption)) for text in split.texts]
        self.videos: list[Key] = [(video, frames.digest(video)) for video in split.videos]

    @cached_property
    def teacher(self) -> Teacher:
        """Loaded when it is first needed: a finished store never needs it."""
        return load_teacher(self.settings, self.checkpoint, self.device)

    def run(self) -> TeacherScores:
        begun = time.monotonic()
        cache = self._open()
        shards = sum(tile.layout.shards for tile in cache.tiles)
        missing = sum(len(missing_shards(tile)) for tile in cache.tiles)
        ranks = self._check_ranks(cache) if missing < shards else None
        now = 0
        if missing:
            now, ranks = self._score(cache, ranks)
        else:
            self.reporter.info(f"{self.name}: all {shards} shards are complete, nothing to do")
        for tile in cache.tiles:
            if not missing_shards(tile):
                sweep(tile)
        texts, videos = len(self.texts), len(self.videos)
        seconds = time.monotonic() - begun
        left_out = self.split.left_out
        return TeacherScores(self.name, texts, videos, shards, shards - missing, now, seconds, ranks, left_out)

    def _open(self) -> ScoreCache:
        """The teacher's cache, made when there is none, and refused when it was made from something else."""
        digest = checkpoint_digest(self.checkpoint) if self.checkpoint else ""
        if self.name not in self.store.teachers:
            self._create(digest)
        cache = self.store.teacher(self.name)
        same_file = bool(digest) and cache.checkpoint == digest
        known = {key: cache.identity.get(key) for key in _TEACHER} if same_file else self._teacher_identity()
        refuse_difference(
            {**known, **self._frames_identity(), "score.coarse": self.config.score.coarse},
            {**cache.identity, "score.coarse": cache.dtype},
            where=str(cache.folder),
            hint=_OTHER_STORE,
        )
        if not cache.tiles:
            times = self.frames.times(self.split.videos)
            contents = TileContents(self.texts, self.videos, self.split.text_video, times)
            cache.create_tile(DENSE, contents, self.config.score.shard_texts)
        cache.refuse_unfit(self.texts, self.videos)
        return cache

    def _create(self, checkpoint: str) -> None:
        teacher = self.teacher
        self.store.create_teacher(
            self.name,
            self._teacher_identity() | self._frames_identity(),
            teacher.scale,
            self.config.score.coarse,
            teacher.frames,
            gives_frame_logits(teacher, self.frames, self.split.videos[0], self.split.texts[0].caption, self.device),
            checkpoint,
        )

    def _teacher_identity(self) -> dict[str, JSON]:
        teacher = self.teacher
        values = (teacher.weights_digest, teacher.score_version, teacher.words, teacher.frames)
        return dict(zip(_TEACHER, values, strict=True))

    def _frames_identity(self) -> dict[str, JSON]:
        return {f"prepare.{key}": value for key, value in self.frames.identity.items()}

    def _score(self, cache: ScoreCache, ranks: OwnRanks | None) -> tuple[int, OwnRanks | None]:
        """Score what is missing; how many shards, and the ranks in the first."""
        encoder = VideoEncoder(self.teacher, cache, self.frames, self.device, self.config.score.video_batch)
        done = 0
        for tile in cache.tiles:
            if missing := missing_shards(tile):
                scorer = self._scorer(tile, encoder)
                rows = sum(len(tile.layout.rows(shard)) for shard in missing)
                total = tile.layout.texts * tile.layout.videos
                before = total - rows * tile.layout.videos
                with (
                    self.reporter.progress(f"scores of {self.name}", total, "pair", before) as progress,
                    ShardWriter() as writer,
                ):
                    for shard in missing:
                        if not problem(tile, shard):
                            continue  # another worker has made it
                        writer.write(tile, shard, *scorer.score(shard, progress.advance))
                        done += 1
                        if ranks is None:
                            writer.finish()
                            ranks = self._check_ranks(cache)
        return done, ranks

    def _scorer(self, tile: Tile, encoder: VideoEncoder) -> Scorer:
        captions = {text.id: text.caption for text in self.split.texts}
        videos = set(self.split.videos)
        wanted = {
            "captions": [key for key in tile.text_ids if key not in captions],
            "videos": [key for key in tile.video_ids if key not in videos],
        }
        for what, gone in wanted.items():
            if gone:
                raise CacheMismatchError(
                    f"{len(gone):,} {what} of this store are gone from what is scored now",
                    where=str(tile.folder),
                    hint=_OTHER_STORE,
                    details=[*gone[:_SHOWN], *(["..."] if len(gone) > _SHOWN else [])],
                )
        features = encoder.encode(tile.video_ids, self.reporter)
        batch = self.config.score.text_batch
        return Scorer(self.teacher, tile, features, [captions[key] for key in tile.text_ids], batch)

    def _check_ranks(self, cache: ScoreCache) -> OwnRanks | None:
        """Ranks of the captions' own videos in the first complete shard.

        Raises:
            CacheError: they are near chance, and `score.chance_check` is on.
        """
        tile, shard = next((t, s) for t in cache.tiles for s in range(t.layout.shards) if not problem(t, s))
        rows = np.array(tile.layout.rows(shard))
        ranks = own_ranks(TileRows(tile).scores(rows), tile.text_video[rows])
        if ranks is None:
            return None
        recalls = "/".join(f"{recall:.1f}" for recall in (ranks.r1, ranks.r5, ranks.r10))
        found = (
            f"own videos of {ranks.texts:,} captions among {ranks.videos:,}: median rank {ranks.median:g}, "
            f"mean {ranks.mean:.1f} (chance {(ranks.videos + 1) / 2:g}), R@1/5/10 {recalls}"
        )
        self.reporter.info(f"{self.name}: {found}")
        if ranks.near_chance and self.config.score.chance_check:
            raise CacheError(
                f"teacher {self.name!r} ranks the captions' own videos near chance: was it loaded rightly?",
                where=str(self.checkpoint or self.settings.plugin or f"score.teachers.{self.name}.openclip"),
                details=[found],
                hint="check it and prepare.*; to score all the same: --set score.chance_check=false",
            )
        return ranks
