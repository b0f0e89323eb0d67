"""One model on one test split: load, rank, mark, keep."""

import json
import math
from collections.abc import Callable, Iterator, Sequence
from dataclasses import asdict, dataclass, field, replace
from functools import cached_property
from pathlib import Path
from typing import Any

import numpy as np

from ...cache.frames.cache import FrameCache
from ...cache.storage.publish import publish
from ...configs.schema import Config, EvaluateConfig
from ...errors import DataError
from ...plurals import counted
from ...remedies import Change, Remedy
from ..data.dataset import Text
from ..data.usable_split import UsableSplit, VideoView, usable_split
from ..data.video_inputs import TextInputs
from ..data.views import View, network_experts, open_words, texts_of, view_inputs
from ..models.checkpoints.files import load_network
from ..models.common.network import VideoTextNetwork
from ..models.shortened import shorten, split_width
from ..retrieval.confidence import Intervals, confidence
from ..retrieval.encode import comparing
from ..retrieval.fits import check_fits
from ..retrieval.metrics import Ranking, Scores, rank
from ..retrieval.query_ranks import TOP, QueryRanks, save_query_ranks
from ..retrieval.rerank import BANK_TEMPERATURE, dual_softmax, query_bank
from ..retrieval.teachtext import averaged_captions
from ..runtime.device import choose_device
from ..runtime.reporting import Reporter
from ..runtime.run_folder import RunFolder


@dataclass(frozen=True)
class EvaluateResult:
    """Text-to-video and video-to-text metrics: r1, r5, r10, r50, sumr (percent), mdr, mnr (1-based), queries.

    Attributes:
        marks: in words, why these numbers do not compare with others: the network was chosen on the test split, or
            scores were re-ranked; empty for plain numbers.
        chosen_by: how training chose the network that was measured; None when the run does not say.
        confidence: per way and metric the 95 % interval over queries: value, low, high (`bootstrap.confidence`).
        ranks: the file with the ranks of single queries; None when a checkpoint file was measured.
        data: name of the test set, where there are several.
        not_kept: why metrics and ranks could not be written to the run folder; empty when they are there.
    """

    run: str
    split: str
    ties: str
    texts: int
    videos: int
    left_out_videos: int
    t2v: dict[str, Any]
    v2t: dict[str, Any]
    marks: tuple[str, ...] = ()
    chosen_by: str | None = None
    confidence: dict[str, Any] = field(default_factory=dict)
    ranks: str | None = None
    data: str = ""
    not_kept: str = ""


def measured_split(config: Config, frames: VideoView) -> UsableSplit:
    """The videos and captions of `config.evaluate.split`.

    Raises:
        DataError: none of its captions has a video with frames.
    """
    name = config.evaluate.split
    split = usable_split(texts_of(config), [name], frames)
    if not split.texts:
        other = "test" if name == "val" else "val"
        raise DataError(
            f"the {name} split has no usable captions",
            where=str(config.data.origin),
            hint=Remedy("choose another", Change({"evaluate.split": other})),
        )
    return split


class OneModel:
    """A network that is measured, as `config` says how, on the test sets of any configurations."""

    def __init__(self, config: Config, run: Path, reporter: Reporter) -> None:
        self.config, self.run, self.reporter = config, run, reporter
        self.settings = config.evaluate
        name, self.width = split_width(run)
        self.network = load_network(Path(name)).to(choose_device(self.settings.device))
        shorten(self.network, self.width, str(run))
        self.folder = RunFolder(Path(name)) if Path(name).is_dir() else None
        result = self.folder.result if self.folder else None
        self.chosen_by: str | None = result["best"].get("chosen_by") if result else None

    def measure(self, of: Config, name: str = "") -> EvaluateResult:
        """Metrics on the test set of a configuration; written down when it is a run that is measured and can be."""
        frames = self._view(of)
        split = self._split(of, frames)
        found, rerank_mark = self._rank(of, split, frames)
        if self.settings.captions == "mean":
            split = split.one_text_each()
        marks = tuple(filter(None, (_mark_of_choice(self.chosen_by), rerank_mark, *_marks_of_queries(self.settings))))
        queries = QueryRanks(
            run=str(self.run),
            split=of.evaluate.split,
            marks=marks,
            text_ids=tuple(text.id for text in split.texts),
            captions=tuple(split.captions),
            video_ids=split.videos,
            text_video=split.text_video,
            texts=found.texts,
            videos=found.videos_by(self.settings.ties),
            first=found.first,
            data=name,
        )
        metrics = queries.metrics(self.settings.ties)
        kept = self._file_names(of.evaluate.split, name if of is not self.config else "")
        result = EvaluateResult(
            run=str(self.run),
            split=of.evaluate.split,
            ties=self.settings.ties,
            texts=len(split.texts),
            videos=len(split.videos),
            left_out_videos=split.left_out,
            t2v=asdict(metrics["t2v"]),
            v2t=asdict(metrics["v2t"]),
            marks=marks,
            chosen_by=self.chosen_by,
            confidence=_plain(confidence(queries)),
            ranks=str(kept[1]) if kept else None,
            data=name,
        )
        return _kept(result, queries, kept) if kept else result

    def _view(self, of: Config) -> View:
        """What the network sees of a test set."""
        if not isinstance(self.network, VideoTextNetwork):
            return network_experts(of, self.network.config.experts, texts_of(of), self.settings.text)
        frames = FrameCache.open(of.frames_folder)
        check_fits(self.network, frames, of.frames_folder)
        return frames

    def _split(self, of: Config, frames: View) -> UsableSplit:
        split = measured_split(of, frames)
        if split.left_out:
            self.reporter.warn(f"{split.left_out} {of.evaluate.split} videos have no usable frames and are left out")
        return split

    def _rank(self, of: Config, split: UsableSplit, frames: View) -> tuple[Ranking, str | None]:
        """Ranks, and what to say of scores that were changed."""
        videos, together = len(split.videos), self.settings.captions == "mean"

        def ranked(scores: Scores) -> Ranking:
            own = np.arange(videos) if together else split.text_video
            scores = averaged_captions(scores, split.text_video) if together else scores
            one_by_one = self.settings.ties == "teachtext"
            return rank(scores, own, videos, block=self.settings.block, top=TOP, captions=one_by_one)

        with comparing(self.network, view_inputs(frames, split.videos), self.reporter) as scores_of:
            scores = scores_of(self._texts(of, split.texts))
            texts_ask, videos_ask, mark = self._changed(scores, scores_of, len(split.texts), videos)
            found = ranked(texts_ask)
            if videos_ask is not texts_ask:
                other = ranked(videos_ask)
                found = replace(found, videos=other.videos, captions=other.captions)
        return found, mark

    def _changed(
        self, scores: Scores, scores_of: Callable[[TextInputs], Scores], texts: int, videos: int
    ) -> tuple[Scores, Scores, str | None]:
        """The scores when texts ask and when videos ask, and what to say of them."""
        settings = self.settings
        if settings.rerank == "none":
            return scores, scores, None
        if settings.rerank == "dual-softmax":
            temperature = settings.rerank_temperature or math.exp(-float(self.network.logit_scale.detach()))
            mark = f"re-ranked by dual softmax at temperature {temperature:.3g}, which looks at the other test queries"
            return *dual_softmax(scores, texts, videos, temperature, settings.block), mark
        bank, temperature = self._bank, settings.rerank_temperature or BANK_TEMPERATURE
        mark = (
            "text to video re-ranked with a bank of "
            f"{counted(len(bank), 'training caption')} at temperature {temperature:.3g}"
        )
        of_bank = scores_of(self._texts(self.config, bank))
        return query_bank(scores, texts, of_bank, len(bank), videos, temperature, settings.block), scores, mark

    @cached_property
    def _bank(self) -> list[Text]:
        """Training captions, of the data that the configuration names."""
        texts = texts_of(self.config).texts_of("train")
        if not texts:
            raise DataError(
                "there are no training captions to make a query bank of",
                where=str(self.config.data.origin),
                hint=Remedy("evaluate as it is", Change({"evaluate.rerank": "none"})),
            )
        size = min(self.settings.bank_captions, len(texts))
        return [texts[k] for k in np.sort(np.random.default_rng(0).permutation(len(texts))[:size])]

    def _texts(self, of: Config, texts: Sequence[Text]) -> TextInputs:
        """Token ids of texts, or their words."""
        network = self.network
        if not isinstance(network, VideoTextNetwork):
            return open_words(of, network.config.experts, texts_of(of), self.settings.text).inputs(texts)
        return network.tokenize([text.caption for text in texts])

    def _file_names(self, split: str, name: str) -> tuple[Path, Path] | None:
        """Where metrics and ranks are kept; nowhere for a checkpoint file."""
        if self.folder is None:
            return None
        kind = () if self.settings.rerank == "none" else (self.settings.rerank,)
        short = () if self.width is None else (f"at-{self.width}",)
        end = "-".join((*((name,) if name else ()), split, *kind, *short))
        folder = self.folder.folder
        return folder / f"evaluation-{end}.json", folder / f"ranks-{end}.npz"


def _kept(result: EvaluateResult, queries: QueryRanks, places: tuple[Path, Path]) -> EvaluateResult:
    """The result, once its metrics and ranks are written; else with the reason why they are not: a run that may only
    be read, a full disk. What was measured is not lost for that."""
    try:
        save_query_ranks(places[1], queries)
        publish(places[0], json.dumps(asdict(result), indent=1).encode())
    except OSError as error:
        return replace(result, ranks=None, not_kept=error.strerror or str(error))
    return result


def _mark_of_choice(chosen_by: str | None) -> str | None:
    """The published habit is told wherever its numbers are, on other data sets too."""
    if not chosen_by or "on the test split" not in chosen_by:
        return None
    return f"the network was chosen by {chosen_by}, of the data set it was trained on"


def _marks_of_queries(settings: EvaluateConfig) -> Iterator[str]:
    """What to say of numbers whose queries, or their ranks, are counted as TeachText does."""
    if settings.captions == "mean":
        yield "a query is all captions of a video, whose scores are averaged"
    if settings.ties == "teachtext":
        yield "video to text, a video's best caption is ranked among all captions, as TeachText does"


def _plain(intervals: Intervals) -> dict[str, Any]:
    return {way: {name: asdict(interval) for name, interval in each.items()} for way, each in intervals.items()}
