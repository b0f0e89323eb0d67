"""What a report holds: dataclasses, and what its metrics are called."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import TYPE_CHECKING

import numpy as np

if TYPE_CHECKING:
    from ...stages.analysis.report_card import ReportCard
    from ...stages.retrieval.confidence import Interval, Intervals

METRICS = {
    "r1": ("R@1", ".1f"),
    "r5": ("R@5", ".1f"),
    "r10": ("R@10", ".1f"),
    "sumr": ("SumR", ".1f"),
    "mdr": ("MdR", "g"),
    "mnr": ("MnR", ".1f"),
}

type Points = Sequence[tuple[float, float]]
"""(x, y) of a curve, such as steps and losses."""


@dataclass(frozen=True)
class Cost:
    """What a model's search costs.

    Args:
        bytes_per_video: kept per video, in float16.
        seconds_per_query: measured over `videos` videos; None where it was not.
        pair_flops, video_flops: counted, to compare one text with one video and to encode a video.
        parameters: of the whole network.
    """

    bytes_per_video: int
    seconds_per_query: float | None = None
    videos: int = 0
    pair_flops: int | None = None
    video_flops: int | None = None
    parameters: int | None = None


@dataclass(frozen=True)
class ModelReport:
    """One model.

    Args:
        name: unique; its colour is the same all over the page.
        note: what it is, in a few words.
        t2v: text-to-video metrics, keys as in `METRICS`, R@K in percent; empty while it is not evaluated.
        v2t: the same, video-to-text.
        against: name of the model whose SumR the page compares it with.
        curves: chart title -> (step, value); models with the same title share a chart.
        chosen: step of the checkpoint that was evaluated.
        cost: of a search.
        facts: how it was trained; label -> value.
        config: its configuration, as YAML.
        intervals: of the metrics, per way `t2v` and `v2t`.
        ranks: of the texts' own videos [T], 1 is best; among `candidates` videos.
        marks: what readers of its numbers must know.
    """

    name: str
    note: str
    t2v: Mapping[str, float] = field(default_factory=dict)
    v2t: Mapping[str, float] = field(default_factory=dict)
    against: str | None = None
    curves: Mapping[str, Points] = field(default_factory=dict)
    chosen: float | None = None
    cost: Cost | None = None
    facts: Mapping[str, str] = field(default_factory=dict)
    config: str = ""
    intervals: "Intervals" = field(default_factory=dict)
    ranks: Sequence[float] = ()
    candidates: int = 0
    marks: Sequence[str] = ()


@dataclass(frozen=True)
class Gain:
    """A model's metrics less those of another: paired over queries, with intervals; per way `t2v` and `v2t`."""

    model: str
    against: str
    differences: "Intervals"

    @property
    def sumr(self) -> "Interval":
        """Of SumR, text to video."""
        return self.differences["t2v"]["sumr"]


@dataclass(frozen=True)
class FoundVideo:
    """One answer: cosine (None: not kept), video id, some of its frames uint8 [n, H, W, 3], what its captions say.

    Args:
        by: the models that found it.
        right: whether it is the query's own video.
        mp4: the video itself, small and of a kind that browsers play (H.264); empty where the page has frames alone.
    """

    cosine: float | None
    video: str
    frames: np.ndarray
    caption: str = ""
    by: Sequence[str] = ()
    right: bool = False
    mp4: bytes = b""


@dataclass(frozen=True)
class QueryClip:
    """A query with its video.

    Args:
        title: why it is shown ("gained most from teaching").
        caption: the query.
        video: id of its video.
        frames: uint8 [F, H, W, 3], padding left out; none where there is no frame cache.
        times: seconds [F].
        weights: model (or teacher) name -> frame weights [F] that sum to 1.
        ranks: model name -> rank of the video, 1 is best.
        found: what models ranked first.
    """

    title: str
    caption: str
    video: str
    frames: np.ndarray
    times: Sequence[float]
    weights: Mapping[str, Sequence[float]]
    ranks: Mapping[str, float]
    found: Sequence[FoundVideo] = ()


@dataclass(frozen=True)
class Search:
    """A sentence and the videos it found, best first."""

    query: str
    found: Sequence[FoundVideo]


@dataclass(frozen=True)
class RunComparison:
    """Keys, and each model's value of them: settings that differ, digests of data.

    Args:
        title, note: what they are.
        models: the columns; rows: key -> a value for each of them.
    """

    title: str
    note: str
    models: Sequence[str]
    rows: Mapping[str, Sequence[str]]


@dataclass(frozen=True)
class Report:
    """Everything the page shows.

    Args:
        title: its heading.
        lead: paragraphs that say what came out.
        models: in the order of the tables.
        data: the data set; label -> value.
        machine: where and with what it ran; label -> value.
        clips: example queries.
        clips_note: how they were chosen and what the bars are.
        searches: searches with one of the models.
        footer: the last line.
        gains: paired differences between models.
        card: of the teachers that taught.
        teachers: the names of those teachers that are models of the page -> the models' names.
        comparisons: of what the models were made from.
        notices: what a reader must know before the numbers; left_out: what the page does not show, and why.
    """

    title: str
    lead: Sequence[str]
    models: Sequence[ModelReport]
    data: Mapping[str, str] = field(default_factory=dict)
    machine: Mapping[str, str] = field(default_factory=dict)
    clips: Sequence[QueryClip] = ()
    clips_note: str = ""
    searches: Sequence[Search] = ()
    footer: str = ""
    gains: Sequence[Gain] = ()
    card: "ReportCard | None" = None
    teachers: Mapping[str, str] = field(default_factory=dict)
    comparisons: Sequence[RunComparison] = ()
    notices: Sequence[str] = ()
    left_out: Sequence[str] = ()
