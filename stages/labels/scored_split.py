"""What is scored with what: captions with their own videos, and with training videos that have none."""

from ...configs.schema import Config
from ...errors import DataError
from ...remedies import Prepare, Remedy
from ..data.dataset import Dataset
from ..data.usable_split import UsableSplit, UsableUnlabelled, VideoView, usable_split, usable_unlabelled


def scored_split(config: Config, dataset: Dataset, *views: VideoView) -> tuple[UsableSplit, UsableUnlabelled]:
    """The captions of `score.splits` and the videos that they are scored with: their own, and behind these those
    without captions, as far as all have frames in every one of the caches; and the latter by themselves.

    Raises:
        DataError: there is no usable caption.
    """
    split = usable_split(dataset, config.score.splits, *views)
    if not split.texts:
        raise DataError(
            f"no usable captions in the splits that are scored ({', '.join(config.score.splits)})",
            where=str(config.data.origin),
            hint=Remedy("look which videos cannot be used, and why", Prepare()),
        )
    unlabelled = usable_unlabelled(dataset, *views) if "train" in config.score.splits else UsableUnlabelled()
    return split.beside(unlabelled.videos), unlabelled
