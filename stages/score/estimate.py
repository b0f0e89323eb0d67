"""What stage one will take, before it runs: bytes exactly, time where something was measured.

No teacher is loaded but a re-ranker of which nothing was measured yet: it takes hours, so that 64 pairs are timed.
"""

from dataclasses import dataclass, replace
from typing import NamedTuple

import numpy as np

from ...cache.frames.cache import MANIFEST
from ...cache.frames.files import place_of
from ...cache.scores.format.arrays import TileSpec
from ...cache.scores.format.sizes import tile_bytes
from ...cache.scores.lookup import look_up
from ...cache.scores.shard import missing_shards
from ...cache.scores.store import ScoreCache, ScoreStore, store_there
from ...cache.scores.upkeep.catalog import pairs_per_second
from ...configs.schema import Config, TeacherConfig
from ...errors import ConfigError, DataError
from ...remedies import Change, Remedy
from ..data.dataset import Dataset
from ..data.readers.video_folder import file_there
from ..data.usable_split import UsableSplit, VideoView
from ..data.views import student_view, texts_of
from ..labels.scored_split import scored_split
from ..labels.teacher_view import teacher_experts, teacher_view
from .sparse import TIMED, time_reranker
from .tile_plan import Layout, block_tiles, choose_layout, plan_tiles, tile_layout


@dataclass(frozen=True)
class TeacherEstimate:
    """What one teacher's scores take.

    Attributes:
        teacher: its name.
        texts, videos, pairs, shards: to be scored in all; shards_left, pairs_left: not complete yet.
        bytes: of the finished tiles; bytes_without_frames: should the teacher give no frame-text logits (None: it is
            known whether it does).
        seconds: for what is left, at the measured rate; rate: pairs per second, measured: where; None when nowhere.
        timed: a re-ranker's pairs that were scored for it now, and not kept.
        layout: dense or blocks; tiles: how many.
    """

    teacher: str
    texts: int
    videos: int
    pairs: int
    shards: int
    shards_left: int
    pairs_left: int
    bytes: int
    bytes_without_frames: int | None
    seconds: float | None
    rate: float | None
    measured: str | None
    layout: Layout = "dense"
    tiles: int = 1
    timed: int = 0


@dataclass(frozen=True)
class ScoreEstimate:
    """The store, each teacher, the sum of their bytes.

    Attributes:
        prepared: whether frames are there; else every video of the caption file is taken for usable.
        missing: of those, how many have no file.
    """

    store: str
    teachers: tuple[TeacherEstimate, ...]
    bytes: int
    prepared: bool
    missing: int = 0


def estimate_scores(config: Config, like: ScoreCache | None = None) -> ScoreEstimate:
    """What scoring with every configured teacher will take; writes nothing.

    Args:
        config: the configuration.
        like: a teacher whose scores were made here, whose speed is taken where a teacher has none of its own yet.

    Raises:
        ConfigError: no teacher is configured.
        DataError: nothing to score.
        CacheError: damaged frames or a damaged store.
        UnreachableError: the store's address has a server that fails, or no such bucket.
    """
    if not config.score.teachers:
        raise ConfigError(
            "score.teachers is empty: there is nobody to score",
            hint=Remedy("name one", Change({"score.teachers": "[{name: xclip, checkpoint: runs/teacher}]"})),
        )
    dataset = texts_of(config)
    of_frames = [each for each in config.score.teachers if teacher_experts(config, each) is None]
    students = [] if config.train.network.on_experts else [config.frames_folder]
    folders = {*students, *map(config.teacher_frames, of_frames)}
    prepared = all((place_of(folder) / MANIFEST).exists() for folder in folders)
    store = ScoreStore.open(config.score_store) if store_there(config.score_store) else None
    teachers = []
    for teacher in config.score.teachers:
        asked, frames = _asked(config, teacher, dataset) if prepared else _asked_of_all(config, dataset)
        teachers.append(_estimate(config, teacher, asked, frames, store, like))
    scored = {text.video for name in config.score.splits for text in dataset.texts_of(name)}
    gone = 0 if prepared else sum(v.id in scored and not file_there(v.path) for v in dataset.videos)
    return ScoreEstimate(str(config.score_store), tuple(teachers), sum(each.bytes for each in teachers), prepared, gone)


class _Asked(NamedTuple):
    """What is to be scored: ids, and the place of each text's own video; with the captions and the frames that the
    teacher sees where they are prepared."""

    texts: list[str]
    videos: list[str]
    text_video: np.ndarray
    split: UsableSplit | None = None
    frames: VideoView | None = None


def _asked(config: Config, teacher: TeacherConfig, dataset: Dataset) -> tuple[_Asked, int]:
    """Texts and videos that are scored, and the frame slots of the cache that the teacher sees."""
    students = student_view(config, dataset)
    own = teacher_view(config, teacher, students, dataset)
    split, _ = scored_split(config, dataset, students, own)
    asked = _Asked([text.id for text in split.texts], list(split.videos), split.text_video, split, own)
    return asked, own.max_frames


def _asked_of_all(config: Config, dataset: Dataset) -> tuple[_Asked, int]:
    texts = [text for name in config.score.splits for text in dataset.texts_of(name)]
    place = {video: k for k, video in enumerate(dict.fromkeys(text.video for text in texts))}
    own = np.array([place[text.video] for text in texts], np.int64)
    unlabelled = [video.id for video in dataset.unlabelled] if "train" in config.score.splits else []
    return _Asked([text.id for text in texts], [*place, *unlabelled], own), config.prepare.max_frames


def _estimate(
    config: Config,
    teacher: TeacherConfig,
    asked: _Asked,
    frames: int,
    store: ScoreStore | None,
    like: ScoreCache | None,
) -> TeacherEstimate:
    if not asked.texts:
        raise DataError(
            f"no captions in the splits that are scored ({', '.join(config.score.splits)})",
            where=str(config.data.origin),
        )
    held = store.teacher(teacher.name) if store and teacher.name in store.teachers else None
    on_frames = teacher.cross_encoder is None and teacher_experts(config, teacher) is None
    frames, logits = (held.frames, held.frame_logits) if held else (frames, on_frames)
    there = [one.tile for one in look_up(held.tiles, asked.texts, asked.videos) if one.pairs] if held else []
    left = [(tile.spec, shard) for tile in there for shard in missing_shards(tile)]
    kind, added = _added(config, teacher, asked, frames, logits, store, held)
    left += [(spec, shard) for spec in added for shard in range(spec.shards)]
    specs = [*(tile.spec for tile in there), *added]
    unsure = held is None and teacher.plugin
    without = [replace(spec, frame_logits=False) for spec in specs] if unsure else None
    pairs_left = sum(len(spec.rows(shard)) * spec.per_text for spec, shard in left)
    rate, measured = _rate(held, like)
    timed = 0
    if rate is None and teacher.cross_encoder is not None and asked.split is not None and asked.frames is not None:
        rate, timed = time_reranker(config, teacher, asked.split, asked.frames), TIMED
    return TeacherEstimate(
        teacher.name,
        len(asked.texts),
        len(asked.videos),
        sum(spec.texts * spec.per_text for spec in specs),
        sum(spec.shards for spec in specs),
        len(left),
        pairs_left,
        sum(map(tile_bytes, specs)),
        sum(map(tile_bytes, without)) if without else None,
        pairs_left / rate if rate else None,
        rate,
        measured,
        kind,
        len(specs),
        timed,
    )


def _added(
    config: Config,
    teacher: TeacherConfig,
    asked: _Asked,
    frames: int,
    frame_logits: bool,
    store: ScoreStore | None,
    held: ScoreCache | None,
) -> tuple[Layout, list[TileSpec]]:
    """The layout, and the tiles that scoring would add."""
    settings, texts, videos, text_video = config.score, asked.texts, asked.videos, asked.text_video
    sparse = teacher.cross_encoder.top if teacher.cross_encoder else 0
    kind = choose_layout(settings, held, tile_layout(settings, texts, videos, frames, frame_logits))
    others = block_tiles(store, teacher.name) if store and kind == "blocks" else ()
    plan = plan_tiles(held, texts, videos, text_video, kind, settings.block_videos, others)
    sizes = [([texts[k] for k in tile.texts], [videos[k] for k in tile.videos]) for tile in plan.tiles]
    return kind, [tile_layout(settings, *ids, frames, frame_logits, sparse) for ids in sizes]


def _rate(held: ScoreCache | None, like: ScoreCache | None) -> tuple[float | None, str | None]:
    for cache in (held, like):
        if cache is not None and (rate := pairs_per_second(cache)):
            return rate, f"{cache.folder.parent}:{cache.name}"
    return None, None
