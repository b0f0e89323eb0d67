"""Features from a file: which of its names is which video of the data set, and which of its words are whose."""

import posixpath
from collections.abc import Callable, Mapping, Sequence
from typing import Any, Literal

from ....cache.experts.shard import NO_SOURCE, FeatureRecord
from ....cache.storage.identity import JSON
from ....errors import DataError
from ....plurals import counted
from ...data.dataset import Dataset
from ...data.experts.checked import Checked, checked_expert, checked_words
from ...data.experts.feature_files import FeatureFile
from ...data.experts.inputs import captions_by_video, video_captions_digest
from ...runtime.reporting import Reporter
from .maker import refuse_problems

FEW = 3


class FromFile:
    """Features of an expert, or words of captions, as a file has them (`FeatureSource`).

    Args:
        file: the features; title: what they are, for people.
        identity: what stands for the file.
        dataset: whose videos are wanted.
        captions: `single`: it holds words, as many arrays a video as the data set has captions of it, in their order;
            `fused`: any number of arrays a video; None: it holds an expert's features.
        theirs: the captions that its words are of, by its names: ours are found among them by their text.

    Raises:
        DataError: the file knows none of the videos.
    """

    def __init__(
        self,
        file: FeatureFile,
        title: str,
        identity: Mapping[str, JSON],
        dataset: Dataset,
        captions: Literal["single", "fused"] | None = None,
        theirs: Mapping[str, Sequence[str]] | None = None,
    ) -> None:
        self.theirs = theirs
        self.fused = captions == "fused"
        self.file, self.title, self.where, self.identity = file, title, str(file.path), dict(identity)
        self.videos: Sequence[str] = [video.id for video in dataset.with_unlabelled().videos]
        self.captions = captions_by_video(dataset) if captions else None
        if self.captions is not None:
            self.videos = [video for video in self.videos if video in self.captions]
            self.sources: Sequence[bytes] = [video_captions_digest(self.captions[video]) for video in self.videos]
        else:
            self.sources = [NO_SOURCE] * len(self.videos)
        self.names = names_in(file.values, self.videos)
        if not self.names:
            known = ", ".join(list(file.values)[:FEW]) or "none"
            raise DataError(
                f"{title}: the file has other videos than the captions",
                where=self.where,
                details=[f"the captions are of {', '.join(self.videos[:FEW])}", f"the file's are {known}"],
            )

    def tell_other_videos(self, reporter: Reporter) -> None:
        """Say how many videos the file lacks, and how many it has that nobody asks for."""
        absent = [video for video in self.videos if video not in self.names]
        if absent:
            shown = ", ".join(absent[:FEW]) + (", ..." if len(absent) > FEW else "")
            reporter.warn(f"{self.title}: {len(absent):,} of {counted(len(self.videos), 'video')} are absent: {shown}")
        if others := len(self.file.values) - len(self.names):
            reporter.info(f"{self.title}: {counted(others, 'video')} of the file are not in the data set")

    def make(self, videos: Sequence[str]) -> list[FeatureRecord]:
        """See `FeatureSource`."""
        problems: list[str] = []
        records = [self._record(video, problems.append) for video in videos]
        refuse_problems(problems, self.title, self.where)
        return records

    def _record(self, video: str, problem: Callable[[str], None]) -> FeatureRecord:
        if (name := self.names.get(video)) is None:
            return FeatureRecord(video, "absent", "the file does not know it")
        value = self.file.read(name)
        try:
            found = self._checked(value, video, name)
        except ValueError as error:
            problem(f"{video}: {error}")
            return FeatureRecord(video, "absent")
        return FeatureRecord(video, found.status, found.reason, found.parts)

    def _checked(self, value: Any, video: str, name: str) -> Checked:
        if self.captions is None:
            return checked_expert(value)
        found, wanted = checked_words(value), len(self.captions[video])
        if self.theirs is not None and not self.fused:
            chosen = places_among(self.captions[video], self.theirs.get(name, ()), len(found.parts))
            return found._replace(parts=tuple(found.parts[k] for k in chosen))
        if len(found.parts) != wanted and not self.fused:
            have = len(found.parts)
            raise ValueError(f"words of {counted(have, 'caption')}, and the data set has {wanted}")
        return found


def places_among(captions: Sequence[str], theirs: Sequence[str], words: int) -> list[int]:
    """Where each caption stands among others, which are written as tokens.

    Args:
        words: of how many captions there are words.

    Raises:
        ValueError: it is not there, or the others are not those that there are words of.
    """
    if len(theirs) != words:
        raise ValueError(f"words of {counted(words, 'caption')}, for which there are the texts of {len(theirs)}")
    places: dict[str, int] = {}
    for k, caption in enumerate(theirs):
        places.setdefault(_letters(caption), k)
    if absent := [caption for caption in captions if _letters(caption) not in places]:
        raise ValueError(f"there are no words of the caption {absent[0]!r}")
    return [places[_letters(caption)] for caption in captions]


def _letters(caption: str) -> str:
    return "".join(char for char in caption.casefold() if char.isalnum())


def names_in(names: Mapping[str, Any], videos: Sequence[str]) -> dict[str, str]:
    """What a file calls each video that it knows: its id; else, as ids of own videos are paths, its id without the
    extension, or without the folders too, where no other video is called so."""
    found: dict[str, str] = {video: video for video in videos if video in names}
    for short in (_without_extension, _file_name):
        called: dict[str, list[str]] = {}
        for video in videos:
            called.setdefault(short(video), []).append(video)
        taken = set(found.values())
        for name, those in called.items():
            if len(those) == 1 and those[0] not in found and name in names and name not in taken:
                found[those[0]] = name
    return found


def _without_extension(video: str) -> str:
    return posixpath.splitext(video)[0]


def _file_name(video: str) -> str:
    return posixpath.basename(_without_extension(video))
