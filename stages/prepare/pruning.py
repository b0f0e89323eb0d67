"""Frames of videos that the data no longer names: which they are, and how they go."""

from dataclasses import dataclass

from ...cache.frames.cache import FrameFolder
from ...configs.schema import DataConfig
from ...errors import CacheError
from ...remedies import OTHER, Change, CheckData, Remedy
from ..data.dataset import SPLITS, Dataset, read_dataset


@dataclass(frozen=True)
class Unnamed:
    """Videos in a frame cache that the data does not name, in any split.

    Attributes:
        videos: their ids, in the order of the cache.
        bytes: of their frames.
        places: their positions by the number of the shard.
    """

    videos: tuple[str, ...]
    bytes: int
    places: dict[int, list[int]]


SHOWN = 20
NOTHING = Unnamed((), 0, {})


def find_unnamed(folder: FrameFolder, dataset: Dataset, config: DataConfig) -> Unnamed:
    """What pruning would remove.

    Args:
        dataset: what `config` says, videos without captions among the others; it may be some of the splits, and the
            others are read, too.

    Raises:
        DataError: a split cannot be read.
        CacheError: no frames would remain.
    """
    if set(config.splits) != set(SPLITS):
        dataset = read_dataset(config.model_copy(update={"splits": SPLITS})).with_unlabelled()
    named = {video.id for video in dataset.videos}
    videos: list[str] = []
    size = 0
    places: dict[int, list[int]] = {}
    for number, shard in sorted(folder.shards.items()):
        for position, status in enumerate(shard.statuses):
            if status.video not in named:
                frames = shard.frames_of(position)
                size += int(shard.ends[frames.stop] - shard.ends[frames.start])
                places.setdefault(number, []).append(position)
                videos.append(status.video)
    kept = (one for shard in folder.shards.values() for one in shard.statuses if one.video in named)
    if videos and not any(one.status == "ok" for one in kept):
        raise CacheError(
            "nothing would remain: the data names no video whose frames are here",
            where=str(folder.folder),
            details=videos[:SHOWN],
            hint=Remedy(
                "see whether this is the data that was meant",
                CheckData(),
                otherwise=Remedy("keep these frames and make others", Change({"prepare.frames": OTHER})),
            ),
        )
    return Unnamed(tuple(videos), size, places)


def remove(folder: FrameFolder, unnamed: Unnamed) -> None:
    """Remove them: a shard in which others lie is replaced whole, one without others goes. Scores are not touched.

    Raises:
        CacheError: a shard cannot be written or removed.
    """
    whole = []
    for number, positions in unnamed.places.items():
        shard, gone = folder.shards[number], set(positions)
        left = [k for k in range(len(shard.statuses)) if k not in gone]
        if left:
            folder.write(number, [shard.record(k, folder.frame_shape) for k in left])
        else:
            whole.append(number)
    folder.remove(whole)
