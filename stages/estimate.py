"""What stage one will take, before it runs: bytes exactly, time where something was measured. Loads no teacher."""

from dataclasses import dataclass

from ..cache.catalog import pairs_per_second
from ..cache.frames import MANIFEST, FrameCache
from ..cache.layout import TileLayout
from ..cache.score_shards import missing_shards
from ..cache.scores import ScoreCache, ScoreStore
from ..cache.sizes import tile_bytes
from ..configs.schema import Config, TeacherConfig
from ..errors import ConfigError, DataError
from .data.captions import Dataset, read_dataset
from .splits import usable_split


@dataclass(frozen=True)
class TeacherEstimate:
    """What one teacher's scores take.

    Attributes:
        teacher: its name.
        texts, videos, pairs, shards: to be scored in all; shards_left, pairs_left: not complete yet.
        bytes: of the finished tile; bytes_without_frames: should the teacher give no frame-text logits (None: it is
            known whether it does).
        seconds: for what is left, at the measured rate; rate: pairs per second, measured: where; None when nowhere.
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


@dataclass(frozen=True)
class ScoreEstimate:
    """The store, each teacher, the sum of their bytes.

    Attributes:
        prepared: whether frames are there; else every video of the caption file is taken for usable.
    """

    store: str
    teachers: tuple[TeacherEstimate, ...]
    bytes: int
    prepared: bool


def estimate_scores(config: Config, like: ScoreCache | None = None) -> ScoreEstimate:
    """What scoring with every configured teacher will take; writes nothing.

    Args:
        config: the configuration.
        like: a teacher whose scores were made here, whose speed is taken where a teacher has none of its own yet.

    Raises:
        ConfigError: no teacher is configured.
        DataError: nothing to score.
        CacheError: damaged frames or a damaged store.
    """
    if not config.score.teachers:
        raise ConfigError(
            "score.teachers is empty: there is nobody to score",
            hint='name one: --set "score.teachers=[{name: xclip, checkpoint: runs/teacher}]"',
        )
    dataset = read_dataset(config.data)
    folders = {config.frames_folder, *map(config.teacher_frames, config.score.teachers)}
    prepared = all((folder / MANIFEST).exists() for folder in folders)
    store = ScoreStore.open(config.score_store) if config.score_store.exists() else None
    teachers = []
    for teacher in config.score.teachers:
        held = store.teacher(teacher.name) if store and teacher.name in store.teachers else None
        ids, frames = _ids(config, teacher, dataset) if prepared else _ids_of_all(config, dataset)
        teachers.append(_estimate(config, teacher, ids, frames, held, like))
    return ScoreEstimate(str(config.score_store), tuple(teachers), sum(each.bytes for each in teachers), prepared)


type _Ids = tuple[list[str], list[str]]


def _ids(config: Config, teacher: TeacherConfig, dataset: Dataset) -> tuple[_Ids, int]:
    """Texts and videos that are scored, and the frame slots of the cache that the teacher sees."""
    caches = [FrameCache.open(folder) for folder in {config.frames_folder, config.teacher_frames(teacher)}]
    own = FrameCache.open(config.teacher_frames(teacher))
    split = usable_split(dataset, config.score.splits, *caches)
    return ([text.id for text in split.texts], list(split.videos)), own.max_frames


def _ids_of_all(config: Config, dataset: Dataset) -> tuple[_Ids, int]:
    texts = [text for name in config.score.splits for text in dataset.texts_of(name)]
    return ([text.id for text in texts], list({text.video: None for text in texts})), config.prepare.max_frames


def _estimate(
    config: Config,
    teacher: TeacherConfig,
    ids: _Ids,
    frames: int,
    held: ScoreCache | None,
    like: ScoreCache | None,
) -> TeacherEstimate:
    texts, videos = ids
    if not texts:
        raise DataError(
            f"no captions in the splits that are scored ({', '.join(config.score.splits)})",
            where=str(config.data.captions),
        )
    logits = True if held is None else held.frame_logits
    layout = _layout(config, ids, held.frames if held else frames, logits)
    without = _layout(config, ids, frames, False) if held is None and teacher.plugin else None
    shards, pairs = layout.shards, len(texts) * len(videos)
    shards_left, pairs_left = shards, pairs
    if held and held.tiles:
        left = [(tile, shard) for tile in held.tiles for shard in missing_shards(tile)]
        shards_left = len(left)
        pairs_left = sum(len(tile.layout.rows(shard)) * tile.layout.videos for tile, shard in left)
    rate, measured = _rate(held, like)
    return TeacherEstimate(
        teacher.name,
        len(texts),
        len(videos),
        pairs,
        shards,
        shards_left,
        pairs_left,
        tile_bytes(layout),
        tile_bytes(without) if without else None,
        pairs_left / rate if rate else None,
        rate,
        measured,
    )


def _layout(config: Config, ids: _Ids, frames: int, frame_logits: bool) -> TileLayout:
    texts, videos = ids
    sizes = [len("\n".join(names).encode(errors="surrogatepass")) for names in ids]
    shard_texts = min(config.score.shard_texts, len(texts))
    return TileLayout(len(texts), len(videos), frames, frame_logits, config.score.coarse, shard_texts, *sizes)


def _rate(held: ScoreCache | None, like: ScoreCache | None) -> tuple[float | None, str | None]:
    for cache in (held, like):
        if cache is not None and (rate := pairs_per_second(cache)):
            return rate, f"{cache.folder.parent}:{cache.name}"
    return None, None
