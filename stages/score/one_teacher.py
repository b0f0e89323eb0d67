"""One teacher's part of stage one: open or extend its tiles, make what is missing, check its ranks."""

import math
import time
from collections.abc import Sequence
from dataclasses import dataclass, replace
from functools import cached_property, partial

import numpy as np
import torch

from ... import __version__
from ...cache.scores.lookup import Held, renumbered
from ...cache.scores.makers import Maker, makers, note_maker
from ...cache.scores.reading.tile_rows import TileRows
from ...cache.scores.shard import missing_shards, problem, sweep, write_shard
from ...cache.scores.store import ScoreCache, ScoreStore
from ...cache.scores.tile import Key, Tile, TileContents
from ...cache.storage.identity import JSON, digest_of, refuse_difference, text_digest
from ...configs.schema import Config, TeacherConfig
from ...errors import CacheError, CacheMismatchError
from ...plurals import counted
from ...remedies import Change, Remedy
from ..data.dataset import Dataset
from ..data.usable_split import UsableSplit
from ..data.views import ExpertView, View, view_identity
from ..labels.frame_scores import gives_frame_logits
from ..labels.teacher_view import teacher_words
from ..models.checkpoints.files import checkpoint_digest
from ..models.common.network import Features
from ..models.frozen.dual_encoder import DualEncoder
from ..models.frozen.teacher import Teacher, load_teacher, refuse_resized, trained_alone
from ..runtime.background import BackgroundWriter
from ..runtime.device import choose_device, device_name, precision_of
from ..runtime.reporting import Reporter
from .chance_check import OwnRanks, own_ranks
from .scorer import BlockScorer, Scorer
from .tile_plan import Layout, NewTile, TilePlan, block_tiles, choose_layout, plan_tiles, tile_layout
from .video_encoder import VideoEncoder
from .worker_part import WHOLE, WorkerPart

_OTHER_STORE = Remedy(
    "undo the change, give the teacher another name, or keep both", Change({"score.store": "OTHER.zarr"})
)
_SHOWN = 5
_WRITTEN_AT_ONCE = 2  # shards: a fast teacher makes one in less time than its codes and hashes take
_SAME_SCALE = 1e-6  # devices differ in the last bit of exp
_TEACHER = ("weights", "score_version", "words", "frames")


@dataclass(frozen=True)
class TeacherScores:
    """What one teacher's scores are, and how much of them this run made.

    Attributes:
        teacher: its name in the store.
        texts, videos: captions and videos scored; shards: into how many parts.
        left_out_videos: those without usable frames, here or in the frame cache that the teacher sees.
        shards_before: complete when this run began; shards_now: made by it; shards_left: still to be made, by others.
        seconds: what it took.
        own_ranks: how the captions' own videos rank in one shard; None when there is nothing to rank.
        layout: dense or blocks.
        new_pairs: added by this run to what the store was to hold; all of them in a new store.
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
    shards_left: int = 0
    layout: Layout = "dense"
    new_pairs: int = 0


def together(parts: Sequence[TeacherScores]) -> TeacherScores:
    """What several workers made of one teacher's scores at the same time."""
    return replace(
        parts[0],
        shards_before=min(part.shards_before for part in parts),
        shards_now=sum(part.shards_now for part in parts),
        shards_left=min(part.shards_left for part in parts),
        seconds=max(part.seconds for part in parts),
        own_ranks=next((part.own_ranks for part in parts if part.own_ranks), None),
        new_pairs=max(part.new_pairs for part in parts),
    )


@dataclass(frozen=True)
class Work:
    """What is asked for of one tile: its shards that hold any of it, and those of them that this worker is to make."""

    held: Held
    shards: frozenset[int]
    mine: frozenset[int]

    @property
    def tile(self) -> Tile:
        return self.held.tile

    def missing(self) -> list[int]:
        """The shards that are not complete."""
        return [shard for shard in missing_shards(self.tile) if shard in self.shards]

    def missing_here(self) -> list[int]:
        """Those that this worker is to make."""
        return [shard for shard in self.missing() if shard in self.mine]


class OneTeacher:
    """One teacher's part of the stage: `frames` is what it sees, `split` what it scores, of `dataset`."""

    def __init__(
        self,
        config: Config,
        settings: TeacherConfig,
        split: UsableSplit,
        frames: View,
        store: ScoreStore,
        reporter: Reporter,
        part: WorkerPart,
        dataset: Dataset,
    ) -> None:
        self.config, self.settings, self.split, self.frames = config, settings, split, frames
        self.store, self.reporter, self.part, self.dataset = store, reporter, part, dataset
        self.name = settings.name
        self.checkpoint = config.teacher_checkpoint(settings)
        self.device = choose_device(config.score.device)
        self.captions = {text.id: text.caption for text in split.texts}
        self.texts: list[Key] = [(text.id, text_digest(text.caption)) for text in split.texts]
        self.videos: list[Key] = [(video, frames.digest(video)) for video in split.videos]
        self._encoder: VideoEncoder | None = None
        self._encoded: tuple[str, Features] | None = None  # of the tile that was scored last

    @cached_property
    def teacher(self) -> Teacher:
        """Loaded when it is first needed: a finished store never needs it."""
        words = teacher_words(self.config, self.settings, self.dataset)
        teacher = load_teacher(self.settings, self.checkpoint, self.device, self.reporter, words=words)
        if isinstance(self.frames, ExpertView):
            return teacher
        refuse_resized(teacher, self.frames.resize_mode, self.frames.interpolation)
        if isinstance(teacher, DualEncoder):
            stored = f"the stored {self.frames.identity['image_size']}-pixel frames, cut to their middle"
            self.reporter.info(f"{self.name} sees {teacher.pixels}; made from {stored}")
        return teacher

    def run_part(self, part: WorkerPart) -> TeacherScores:
        """As `run`, of another part than before, by the teacher that is loaded already."""
        self.part = part
        return self.run()

    def run(self) -> TeacherScores:
        begun = time.monotonic()
        cache = self._open()
        layout, new_pairs = self._extend(cache)
        work = self._work(cache)
        shards, missing = sum(len(each.shards) for each in work), sum(len(each.missing()) for each in work)
        ranks = self._check_ranks(work) if missing < shards else None
        now = 0
        if not missing:
            self.reporter.info(f"{self.name}: all {counted(shards, 'shard is', 'shards are')} complete, nothing to do")
        else:
            now, ranks = self._score(cache, work, ranks)
        left = sum(len(each.missing()) for each in work) if self.part != WHOLE else 0
        for each in work:
            if not missing_shards(each.tile):
                sweep(each.tile)
        return TeacherScores(
            self.name,
            len(self.texts),
            len(self.videos),
            shards,
            shards - missing,
            now,
            time.monotonic() - begun,
            ranks,
            self.split.left_out,
            left,
            layout,
            new_pairs,
        )

    def _open(self) -> ScoreCache:
        """The teacher's cache, made when there is none, and refused when it was made from something else."""
        digest = self._checkpoint_digest()
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
        if not same_file and not math.isclose(self._scale(), cache.scale, rel_tol=_SAME_SCALE):
            now, then = {"scale": self._scale()}, {"scale": cache.scale}
            refuse_difference(now, then, where=str(cache.folder), hint=_OTHER_STORE)
        return cache

    def _checkpoint_digest(self) -> str:
        """Stands for the checkpoint's bytes and for the slots that the configuration gives where it records none."""
        if not self.checkpoint:
            return ""
        with trained_alone(self.name):
            found, slots = checkpoint_digest(self.checkpoint), (self.settings.frames, self.settings.words)
        return found if slots == (None, None) else digest_of([found, *map(str, slots)])

    def _extend(self, cache: ScoreCache) -> tuple[Layout, int]:
        """Add the tiles that are not there yet; the layout, and how many pairs were added.

        Raises:
            CacheMismatchError: captions or frames changed; names them.
        """
        captions = self.captions.values()
        self.texts = list(renumbered(cache.tiles, self.texts))
        self.captions = {key: caption for (key, _), caption in zip(self.texts, captions, strict=True)}
        cache.look_up(self.texts, self.videos)
        settings, texts, videos = self.config.score, [text for text, _ in self.texts], self.split.videos
        layout = choose_layout(settings, cache, tile_layout(settings, texts, videos, cache.frames, cache.frame_logits))
        others = block_tiles(self.store, self.name) if layout == "blocks" else ()
        plan = plan_tiles(cache, texts, videos, self.split.text_video, layout, settings.block_videos, others)
        self._tell(cache, layout, plan)
        for tile in plan.tiles:
            cache.create_tile(tile.name(self.texts, self.videos), self._contents(tile), settings.shard_texts)
        return layout, plan.pairs

    def _tell(self, cache: ScoreCache, layout: Layout, plan: TilePlan) -> None:
        added = f"{counted(plan.pairs, 'pair')} in {counted(len(plan.tiles), 'tile')}"
        if plan.unasked_texts or plan.unasked_videos:
            unasked = f"{counted(plan.unasked_texts, 'caption')} and {counted(plan.unasked_videos, 'video')}"
            self.reporter.info(f"{self.name}: {unasked} of the store are not asked for now; their scores stay")
        if plan.tiles and cache.tiles:
            new = f"{counted(plan.new_texts, 'caption')} and {counted(plan.new_videos, 'video is', 'videos are')} new"
            self.reporter.info(f"{self.name}: {new}; {added} are added, nothing that is there changes")
        elif plan.tiles and layout == "blocks":
            every = len(self.texts) * len(self.videos)
            self.reporter.info(f"{self.name}: blocks of videos, {added}; dense would be {counted(every, 'pair')}")

    def _contents(self, tile: NewTile) -> TileContents:
        own = self.split.text_video[tile.texts]
        column = np.searchsorted(tile.videos, own).clip(max=len(tile.videos) - 1)
        return TileContents(
            [self.texts[place] for place in tile.texts],
            [self.videos[place] for place in tile.videos],
            np.where(tile.videos[column] == own, column, -1),
            self.frames.times([self.split.videos[place] for place in tile.videos]),
        )

    def _work(self, cache: ScoreCache) -> list[Work]:
        """Shards are counted over all tiles, by name: every worker counts the same."""
        work, first = [], 0
        for held in cache.look_up(self.texts, self.videos):
            layout = held.tile.spec
            if held.pairs:
                shards = frozenset(np.unique(held.rows // layout.shard_texts).tolist())
                work.append(Work(held, shards, frozenset(k for k in shards if self.part.has(first + k))))
            first += layout.shards
        return work

    def _create(self, checkpoint: str) -> None:
        teacher = self.teacher
        self.store.create_teacher(
            self.name,
            self._teacher_identity() | self._frames_identity(),
            teacher.scale,
            self.config.score.coarse,
            teacher.frames,
            self._gives_frame_logits(teacher),
            checkpoint,
        )

    def _gives_frame_logits(self, teacher: Teacher) -> bool:
        if isinstance(self.frames, ExpertView):
            return False
        video, caption = self.split.videos[0], self.split.texts[0].caption
        return gives_frame_logits(teacher, self.frames, video, caption, self.device)

    def _scale(self) -> float:
        return self.teacher.scale

    def _teacher_identity(self) -> dict[str, JSON]:
        teacher = self.teacher
        values = (teacher.weights_digest, teacher.score_version, teacher.words, teacher.frames)
        return dict(zip(_TEACHER, values, strict=True))

    def _frames_identity(self) -> dict[str, JSON]:
        return view_identity(self.frames)

    def _score(self, cache: ScoreCache, work: Sequence[Work], ranks: OwnRanks | None) -> tuple[int, OwnRanks | None]:
        """Make this worker's shards that are missing; how many, and the ranks in the first."""
        done, maker = 0, self._maker(cache)
        for each in work:
            tile, missing = each.tile, each.missing_here()
            if not missing:
                continue
            scorer = self._scorer(cache, tile, self._captions(each, missing))
            total = tile.spec.texts * tile.spec.per_text
            before = total - sum(len(tile.spec.rows(shard)) for shard in missing) * tile.spec.per_text
            with (
                self.reporter.progress(f"scores of {self.name}", total, "pair", before) as progress,
                BackgroundWriter("write-shard", _WRITTEN_AT_ONCE) as writer,
            ):
                # What another worker has made meanwhile is left out.
                still = (shard for shard in missing if problem(tile, shard))
                for shard, rows in scorer.score(still, progress.advance):
                    # Of what was scored, a kill costs these shards, and the blocks that were computed ahead.
                    writer.start(partial(_write, tile, shard, *rows, maker))
                    done += 1
                    if ranks is None:
                        writer.finish()
                        ranks = self._check_ranks(work)
        return done, ranks

    def _scorer(self, cache: ScoreCache, tile: Tile, captions: Sequence[str]) -> BlockScorer:
        """What scores a tile, its videos encoded."""
        if self._encoder is None:
            batch = self.config.score.video_batch
            self._encoder = VideoEncoder(self.teacher, cache, self.frames, self.device, batch, self.part)
        if self._encoded is None or self._encoded[0] != tile.name:
            self._encoded = None  # two tiles' features would take memory for nothing
            self._encoded = tile.name, self._encoder.encode(tile.video_ids, self.reporter)
        return Scorer(self.teacher, tile, self._encoded[1], captions, self.config.score.text_batch)

    def _maker(self, cache: ScoreCache) -> Maker:
        """What makes shards now; shards that are there in another precision are told."""
        maker = Maker(device_name(self.device), precision_of(self.device), torch.__version__, __version__)
        for other, count in makers(cache.tiles).items():
            if other.precision != maker.precision:
                made = counted(count, "shard was", "shards were")
                self.reporter.warn(f"{self.name}: {made} made in {other.precision}; now it is {maker.precision}")
        return maker

    def _captions(self, work: Work, shards: Sequence[int]) -> list[str]:
        """Captions of a tile's rows; "" for those that are gone and not needed for these shards.

        Raises:
            CacheMismatchError: captions that are needed, or videos, are gone; names them.
        """
        tile, batch = work.tile, self.config.score.text_batch
        needed: set[int] = set()
        for shard in shards:
            rows = tile.spec.rows(shard)
            stop = min(-(-rows.stop // batch) * batch, tile.spec.texts)
            needed |= set(range(rows.start // batch * batch, stop))  # blocks are computed whole
        videos = set(self.split.videos)
        wanted = {
            "captions": [tile.text_ids[row] for row in sorted(needed) if tile.text_ids[row] not in self.captions],
            "videos": [key for key in tile.video_ids if key not in videos],
        }
        for what, gone in wanted.items():
            if gone:
                raise CacheMismatchError(
                    f"{counted(len(gone), f'{what[:-1]} of this store is', f'{what} of this store are')} "
                    "gone from what is scored now, before they were scored",
                    where=str(tile.folder),
                    hint=_OTHER_STORE,
                    details=[*gone[:_SHOWN], *(["..."] if len(gone) > _SHOWN else [])],
                )
        return [self.captions.get(key, "") for key in tile.text_ids]

    def _check_ranks(self, work: Sequence[Work]) -> OwnRanks | None:
        """Ranks of the captions' own videos in the first complete shard that has any.

        Raises:
            CacheError: they are near chance, and `score.chance_check` is on.
        """
        for tile, shard in ((each.tile, shard) for each in work for shard in sorted(each.shards)):
            rows = np.array(tile.spec.rows(shard))
            if (tile.text_video[rows] >= 0).any() and not problem(tile, shard):
                return self._ranks(tile, rows)
        return None

    def _ranks(self, tile: Tile, rows: np.ndarray) -> OwnRanks | None:
        ranks = own_ranks(TileRows(tile).scores(rows), tile.text_video[rows])
        if ranks is None:
            return None
        recalls = "/".join(f"{recall:.1f}" for recall in (ranks.r1, ranks.r5, ranks.r10))
        found = (
            f"own videos of {counted(ranks.texts, 'caption')} among {ranks.videos:,}: median rank {ranks.median:g}, "
            f"mean {ranks.mean:.1f} (chance {(ranks.videos + 1) / 2:g}), R@1/5/10 {recalls}"
        )
        self.reporter.info(f"{self.name}: {found}")
        if ranks.near_chance and self.config.score.chance_check:
            raise CacheError(
                f"teacher {self.name!r} ranks the captions' own videos near chance: was it loaded rightly?",
                where=str(self.checkpoint or self.settings.plugin or f"score.teachers.{self.name}"),
                details=[found],
                hint=Remedy(
                    "check it, and how its frames were prepared",
                    otherwise=Remedy("score all the same", Change({"score.chance_check": False})),
                ),
            )
        return ranks


def _write(tile: Tile, shard: int, coarse: np.ndarray, fine: np.ndarray | None, maker: Maker) -> None:
    write_shard(tile, shard, coarse, fine)
    note_maker(tile, shard, maker)
