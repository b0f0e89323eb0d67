"""Videos that an index holds and nobody can look at any more: they are no answers."""

from collections.abc import Callable, Sequence
from dataclasses import dataclass

from ...configs.schema import DataConfig
from ...errors import DataError
from ...remedies import Prune, Remedy
from ..data.dataset import file_finder, named_videos
from ..runtime.reporting import Reporter

UNNAMED = Remedy(
    "not in the data; unless another configuration shares these frames, what was prepared of it goes with", Prune()
)
MISSING = Remedy("no such file; put it back, or take it out of the data and prune", Prune())


@dataclass(frozen=True)
class Gone:
    """A video that is no answer: the data no longer names it (`unnamed`), or else its file is not there."""

    video: str
    unnamed: bool


type Look = Callable[[str], Gone | None]


def look_in(config: DataConfig, reporter: Reporter) -> Look:
    """Tells by its id whether a video is gone. What the data names is read now, files are looked for when asked."""
    named: set[str] | None = None
    try:
        named = named_videos(config)
    except DataError as error:
        reporter.warn(f"the data cannot be read, so videos that it no longer names are answers, too: {error.what}")
    find = file_finder(config)

    def look(video: str) -> Gone | None:
        if named is not None and video not in named:
            return Gone(video, unnamed=True)
        return Gone(video, unnamed=False) if find(video) is None else None

    return look


def nothing_left(gone: Sequence[Gone], config: DataConfig) -> DataError:
    """The error when all that could be found is gone; names the first 20."""
    return DataError(
        "every video that could be found is gone",
        where=str(config.video_folder),
        details=[f"{one.video}: {'not in the data' if one.unnamed else 'no such file'}" for one in gone[:20]],
        hint=UNNAMED if gone[0].unnamed else "data.videos names the folder that the video paths start from",
    )
