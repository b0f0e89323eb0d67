"""An index of windows, open to be asked: with a sentence, by another window, by a clip. Several threads may ask."""

import os
import threading
import time
from collections.abc import Sequence
from contextlib import suppress
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any, Literal, Self

import numpy as np
import torch
from numpy.typing import NDArray

from ....cache.library.library import Library
from ....cache.library.rows import Hit, Window
from ....configs.schema import PrepareConfig
from ....errors import CacheError, CacheMismatchError, CheckpointError, DataError, TeachclipError
from ....remedies import IndexVideos, Remedy
from ...data.readers.text_files import blank
from ...models.named import OPENCLIP
from ...runtime.device import choose_device, plain_float32
from ..library.models import VideoModel, load_model
from .nothing_fits import FEWEST, LEAST, MEANINGLESS, NOTHING_FITS, Usual
from .pictures import Clip

REFRESH_SECONDS = 2.0
_REST = 10  # times as long as taking up took, before the next time
_CHANGED = 0.1  # of the windows, after which what is usual is measured again
_MANY = 4  # windows of a video that are looked at for each video wanted


@dataclass(frozen=True)
class Filters:
    """What an answer must fit, all of it.

    Attributes:
        under: a folder (or a file) that the video lies below.
        since, until: the file's time, seconds since 1970, from and to inclusive.
        tag: that the video has.
    """

    under: str | None = None
    since: float | None = None
    until: float | None = None
    tag: str | None = None

    def given(self) -> dict[str, Any]:
        """As keyword arguments."""
        return {"under": self.under, "since": self.since, "until": self.until, "tag": self.tag}


ALL = Filters()


@dataclass(frozen=True)
class Found:
    """A video that was found: its best window.

    Attributes:
        rank: 1 is best; cosine: of the window.
        second: from the video's beginning, where to look first: of the window's frame that is nearest.
        hits: the best window, and those of the same video that came near it.
    """

    rank: int
    cosine: float
    window: Window
    second: float
    hits: tuple[Hit, ...] = ()


@dataclass(frozen=True)
class Answers:
    """Videos, best first; `seconds` took the search, without making the vector that was asked with.

    Attributes:
        notes: what is to be said of them.
        fits: whether the best fits the sentence at all, None where that is not told: of clips, of single
            words and among few windows.
        vector: that was asked with [D].
    """

    found: tuple[Found, ...]
    seconds: float
    notes: tuple[str, ...] = ()
    fits: bool | None = None
    vector: NDArray[np.float32] | None = field(default=None, compare=False, repr=False)


class OpenIndex:
    """A library, and the model that made its vectors where that can be loaded.

    Attributes:
        library: the windows.
        lacking: why sentences and clips cannot be asked with; None where they can.
    """

    def __init__(self, library: Library, model: VideoModel | None, lacking: TeachclipError | None = None) -> None:
        self.library, self.model, self.lacking = library, model, lacking
        self._next = time.monotonic() + REFRESH_SECONDS
        self._refreshing, self._encoding = threading.Lock(), threading.Lock()
        self._usual: Usual | None = None
        self._nearest(np.zeros(library.model.width, np.float32), 1, ALL)  # fills the exact index now
        if model is not None:
            model.network.tokenize_telling(["warm"])  # reads the vocabulary

    @classmethod
    def open(
        cls,
        folder: Path,
        model: str | None = None,
        device: Literal["auto", "cpu", "cuda"] = "auto",
    ) -> Self:
        """The windows of the model that was indexed with last, or of the one of this name.

        A model that is gone is told by `lacking`, unless it was asked for.

        Raises:
            CacheError: there is no index, none of this model, it is of another format, or damaged.
            CheckpointError: the model that was asked for cannot be loaded.
        """
        on = choose_device(device)
        if model is not None:
            loaded = load_model(model, on)
            return cls(Library.open(folder, loaded.digest), loaded)
        library = Library.open(folder)
        try:
            return cls(library, _model_of(library, on))
        except TeachclipError as error:
            return cls(library, None, error)

    def sentence(self, query: str, top: int = 10, filters: Filters = ALL) -> Answers:
        """Videos that a sentence describes.

        Raises:
            DataError: the sentence is empty, or `top` less than 1.
            TeachclipError: `lacking`.
        """
        if blank(query):
            raise DataError("an empty sentence finds nothing", hint="ask with words")
        model, notes = self._needed(), []
        made, cut = self._encoded(model, [query])
        if cut[0]:
            notes.append("the sentence is longer than what the model reads: its end does not count")
        vector = _vector(made)
        answers = self._nearest(vector, top, filters, notes=tuple(notes))
        return self._judged(vector, answers) if len(query.split()) > 1 else answers

    def like(self, row: int, top: int = 10, filters: Filters = ALL) -> Answers:
        """Videos like a window; that of the window itself is none of them.

        Raises:
            DataError: there is no such window.
        """
        self._refresh()
        vector, window = self.library.vector(row), self.library.window(row)
        if vector is None or window is None:
            raise DataError("there is no such window in the index any more", hint="search again")
        return self._nearest(vector.astype(np.float32), top, filters, without=window.video)

    def clip(self, clip: Clip, top: int = 10, filters: Filters = ALL) -> Answers:
        """Videos like a clip of at most `frames` frames.

        Raises:
            DataError: the model makes no vector of it.
            TeachclipError: `lacking`.
        """
        network = self._needed().network
        slots, count = self.library.model.frames, len(clip.frames)
        frames = np.zeros((1, slots, *clip.frames.shape[1:]), np.uint8)
        frames[0, :count] = clip.frames
        mask = torch.arange(slots)[None] < count
        on = network.logit_scale.device
        with self._encoding, torch.inference_mode(), plain_float32(on):
            made = network.encode_videos(torch.from_numpy(frames).to(on), mask.to(on))["vector"]
        return self._nearest(_vector(made), top, filters)

    def seconds(self, windows: Sequence[Window], vector: NDArray[np.float32]) -> list[float]:
        """Of each window the second, from its video's beginning, of the frame that is nearest to a vector [D]; as
        `second_of` where the index has no vectors of its frames."""
        frames = self.library.frames([window.row for window in windows])
        return [
            window.times[int(np.argmax(frames[window.row].astype(np.float32) @ vector))]
            if window.row in frames
            else second_of(window)
            for window in windows
        ]

    def reading(self, seconds: float) -> PrepareConfig:
        """How frames of a clip that is asked with are read."""
        trunk = self._needed().network.trunk
        return PrepareConfig(**trunk.prepared, max_frames=self.library.model.frames, timeout=seconds)

    def close(self) -> None:
        """Let go of the database."""
        self.library.close()

    def _encoded(self, model: VideoModel, sentences: Sequence[str]) -> tuple[torch.Tensor, list[bool]]:
        """Vectors of T sentences [T, D], and which are longer than what the model reads [T]."""
        network = model.network
        with self._encoding, torch.inference_mode(), plain_float32(network.logit_scale.device):
            ids, cut = network.tokenize_telling(sentences)
            return network.encode_texts(network.take_ids(ids))["vector"], cut.tolist()

    def _judged(self, vector: NDArray[np.float32], answers: Answers) -> Answers:
        """The same answers to a sentence, and whether they fit it."""
        if not answers.found or len(self.library) < FEWEST:
            return answers
        lead = self._usual_now().lead_of(vector, answers.found[0].cosine)
        if lead < LEAST:
            return replace(answers, notes=(*answers.notes, NOTHING_FITS), fits=False)
        return replace(answers, fits=None if np.isnan(lead) else True)

    def _usual_now(self) -> Usual:
        """What is usual of the index, measured again when it has changed by much."""
        windows, usual = len(self.library), self._usual
        if usual is None or abs(windows - usual.windows) > _CHANGED * usual.windows:
            sentences = self._encoded(self._needed(), MEANINGLESS)[0].float().cpu().numpy()
            best = [hit.score for each in sentences for hit in self.library.search(each, 1)]
            usual = self._usual = Usual.of(self.library.matrix(), sentences[: len(best)], best)
        return usual

    def _needed(self) -> VideoModel:
        if self.model is None:
            assert self.lacking is not None
            raise self.lacking
        return self.model

    def _refresh(self) -> None:
        """Take up what was written meanwhile, now and then; one thread does, the others go on with what there is."""
        if time.monotonic() < self._next or not self._refreshing.acquire(blocking=False):
            return
        began = time.monotonic()
        try:
            with suppress(CacheError):  # whoever writes may have it locked; the next one tries again
                self.library.refresh()
            now = time.monotonic()
            self._next = now + max(REFRESH_SECONDS, _REST * (now - began))
        finally:
            self._refreshing.release()

    def _nearest(
        self,
        vector: NDArray[np.float32],
        top: int,
        filters: Filters,
        without: int | None = None,
        notes: tuple[str, ...] = (),
    ) -> Answers:
        """One window each of the `top` videos that are nearest."""
        self._refresh()
        began = time.perf_counter()
        count = _MANY * (top + 1)
        while True:
            hits = self.library.search(vector, count, **filters.given())
            best: dict[int, list[Hit]] = {}
            for hit in hits:
                if hit.window.video != without:
                    best.setdefault(hit.window.video, []).append(hit)
            if len(best) >= top or len(hits) < count:
                break
            count *= _MANY
        chosen = list(best.values())[:top]
        seconds = self.seconds([own[0].window for own in chosen], vector)
        found = tuple(
            Found(rank, own[0].score, own[0].window, second, tuple(own))
            for rank, (own, second) in enumerate(zip(chosen, seconds, strict=True), start=1)
        )
        return Answers(found, time.perf_counter() - began, notes, vector=vector)


def second_of(window: Window) -> float:
    """Where to look first whatever was asked, seconds from the video's beginning: of the frame that counts most in the
    window's vector, its beginning where all count alike."""
    if window.weights is None or not window.times:
        return window.start
    return window.times[int(np.argmax(window.weights[: len(window.times)]))]


def _model_of(library: Library, device: torch.device) -> VideoModel:
    """The model that made the vectors.

    Raises:
        CheckpointError: it cannot be loaded.
        CacheMismatchError: another one has its name now.
    """
    name = library.model.name
    index_again = IndexVideos(str(library.folder))
    instead = Remedy("name it where it lies now, or index the videos with another one", index_again)
    if not name.startswith(OPENCLIP) and not os.path.exists(name):
        raise CheckpointError("the model that made this index is gone", where=name, hint=instead)
    try:
        model = load_model(name, device)
    except TeachclipError as error:
        what = f"the model that made this index cannot be loaded: {error.what}"
        raise CheckpointError(what, where=name, hint=error.hint or instead) from error
    if model.digest != library.model.digest:
        raise CacheMismatchError("this is another model than the one that made the index", where=name, hint=instead)
    return model


def _vector(made: torch.Tensor) -> NDArray[np.float32]:
    vector: NDArray[np.float32] = made[0].float().cpu().numpy()
    if not np.isfinite(vector).all():
        raise DataError("the model makes a vector that is not finite of this", hint="ask in other words")
    return vector
