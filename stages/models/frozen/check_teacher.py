"""Checks of a teacher of the user's own that need no data set: `teachclip.testing.check_teacher`."""

import json
from collections.abc import Callable, Iterator, Mapping
from typing import Any

import torch
from torch import Tensor

from ....configs.schema import TeacherConfig
from ....errors import PluginError
from ....remedies import ReadPage, Remedy
from ..common.network import Features
from .own import ALONE, OwnTeacher

CAPTIONS = ("a dog runs on the beach", "two people talk", "", "a b c " * 60, "A DOG, again!")
LARGEST = 1e4
"""A frame score beyond it makes any softmax of frames a single 1."""
_VIDEOS = 5
_KEYS = ("score_version", "weights_digest", "frames", "words", "scale")


def check_teacher(
    plugin: Callable[..., Any],
    options: Mapping[str, Any] | None = None,
    *,
    image_size: int = 224,
    device: str | torch.device = "cpu",
) -> None:
    """Check a class that is to be a teacher (`score.teachers`, `plugin`), with random frames and some captions.

    What it is asked: attributes and methods that a teacher has; an identity that is JSON and the same when the class is
    made again; shapes; the same numbers for the same input; no video, caption or pair that depends on those beside it,
    and none on what stands in padded frames; frame scores that are finite, padding included, and of a usable size.

    Args:
        plugin: the class, or a function that makes a teacher.
        options: its keyword arguments, as an entry's `options`.
        image_size: pixels of a side of the frames.
        device: where it runs.

    Raises:
        PluginError: it is no teacher yet; `details` has a line for everything that was found.
    """
    name = getattr(plugin, "__qualname__", type(plugin).__name__)
    title = f"{getattr(plugin, '__module__', '')}:{name}"
    config = TeacherConfig(name="checked", plugin=title, options=dict(options or {}))
    check = _Check(OwnTeacher(config, torch.device(device), plugin), image_size, torch.device(device))
    found = [*_of_identity(check.teacher, OwnTeacher(config, torch.device(device), plugin)), *check.findings()]
    if found:
        hint = Remedy("what a teacher is, and one of about 40 lines", ReadPage("guide/teachers"))
        raise PluginError(f"{title} is no teacher yet", details=found, hint=hint)


def _of_identity(first: OwnTeacher, second: OwnTeacher) -> Iterator[str]:
    said = [{key: getattr(each, key) for key in _KEYS} for each in (first, second)]
    try:
        json.dumps(said[0])
    except (TypeError, ValueError) as error:
        yield f"its identity is not JSON: {error}"
    for key in _KEYS:
        one, other = (each[key] for each in said)
        if one != other:
            yield f"{key}: {one!r}, and {other!r} when the class is made again with the same options"


class _Check:
    """Asks one teacher; a check that ends in an error is a finding, and the next one follows."""

    def __init__(self, teacher: OwnTeacher, image_size: int, device: torch.device) -> None:
        self.teacher = teacher
        teacher.pairs_alone = True  # which is looked at here, after what is another every time
        random = torch.Generator().manual_seed(0)
        shape = (_VIDEOS, teacher.frames, 3, image_size, image_size)
        self.frames = torch.randint(0, 256, shape, dtype=torch.uint8, generator=random).to(device)
        self._given = self.frames.clone()
        counts = torch.arange(_VIDEOS) % teacher.frames + 1
        self.mask = (torch.arange(teacher.frames) < counts[:, None]).to(device)
        seconds = torch.arange(teacher.frames, dtype=torch.float64).expand(_VIDEOS, -1)
        self.times = seconds.to(device).where(self.mask, torch.nan)

    def findings(self) -> list[str]:
        """Everything that is wrong, a line each."""
        found: list[str] = []
        made: tuple[Features, Features] | None = None
        try:
            made = self._texts(), self._videos()
        except PluginError as error:
            found.append(_line(error))
        if made is None:
            return found
        checks: tuple[Callable[[Features, Features], Iterator[str]], ...] = (
            *(self._same_again, self._videos_alone, self._texts_alone, self._padding, self._pairs, self._frames),
        )
        for check in checks:
            try:
                found += check(*made)
            except PluginError as error:
                found.append(_line(error))
        return found

    def _texts(self) -> Features:
        return self.teacher.encode_texts(CAPTIONS)

    def _videos(self, rows: slice = slice(None)) -> Features:
        return self.teacher.encode_videos(self.frames[rows], self.mask[rows], self.times[rows])

    def _same_again(self, texts: Features, videos: Features) -> Iterator[str]:
        again = self._texts(), self._videos()
        for method, one, other in (("encode_texts", texts, again[0]), ("encode_videos", videos, again[1])):
            if (key := _differs(one, other, exact=True)) is not None:
                yield f"{method}: {key!r} is another for the same input when it is called again"
        if not torch.equal(self._given, self.frames):
            yield "encode_videos: it changes the frames that it is given"
        if not torch.equal(self.teacher.score(texts, videos), self.teacher.score(texts, videos)):
            yield "score: other numbers for the same input when it is called again"

    def _videos_alone(self, texts: Features, videos: Features) -> Iterator[str]:
        for row in range(_VIDEOS):
            alone = self._videos(slice(row, row + 1))
            if (key := _differs(_rows(videos, row), alone)) is not None:
                yield f"encode_videos: {key!r} of a video is another when other videos are encoded with it"
                return

    def _texts_alone(self, texts: Features, videos: Features) -> Iterator[str]:
        for row, caption in enumerate(CAPTIONS):
            if (key := _differs(_rows(texts, row), self.teacher.encode_texts([caption]))) is not None:
                yield f"encode_texts: {key!r} of a caption is another when other captions are encoded with it"
                return

    def _padding(self, texts: Features, videos: Features) -> Iterator[str]:
        if bool(self.mask.all()):
            return
        kept = self.frames
        self.frames = kept.where(self.mask[..., None, None, None], 255 - kept)
        try:
            other = self._videos()
        finally:
            self.frames = kept
        if not _close(self.teacher.score(texts, videos), self.teacher.score(texts, other)):
            yield "encode_videos: scores depend on the pixels of padded frames, which mean nothing (mask: False)"

    def _pairs(self, texts: Features, videos: Features) -> Iterator[str]:
        whole = self.teacher.score(texts, videos)
        for row, column in ((0, 0), (1, 3), (4, 2)):
            alone = self.teacher.score(*_pair(texts, videos, row, column))
            if not _close(whole[row : row + 1, column : column + 1], alone):
                yield "score: a pair's number is another when other captions and videos are beside it"
                return

    def _frames(self, texts: Features, videos: Features) -> Iterator[str]:
        whole = self.teacher.frame_logits(texts, videos)
        if whole is None:
            return
        if not bool(whole.isfinite().all()):
            yield "frame_logits: not finite everywhere; padded frames count, too"
        elif (largest := float(whole.abs().max())) > LARGEST:
            yield f"frame_logits: as large as {largest:.3g}, where a softmax of frames is a single 1"
        elif bool((whole == 0).all()):
            yield "frame_logits: all are 0, which teaches nothing; leave the method out"
        for row in range(_VIDEOS):
            alone = self.teacher.frame_logits(*_pair(texts, videos, row, row))
            if alone is None or not _close(whole[row : row + 1], alone):
                yield "frame_logits: a caption's numbers are others when other captions are beside it"
                return


def _line(error: PluginError) -> str:
    return "; ".join([error.what, *error.details])


def _rows(features: Features, row: int) -> Features:
    return {key: value[row : row + 1] for key, value in features.items()}


def _pair(texts: Features, videos: Features, row: int, column: int) -> tuple[Features, Features]:
    return _rows(texts, row), _rows(videos, column)


def _close(one: Tensor, other: Tensor) -> bool:
    return one.shape == other.shape and torch.allclose(one, other, rtol=ALONE, atol=ALONE, equal_nan=True)


def _differs(one: Features, other: Features, exact: bool = False) -> str | None:
    """The name of a feature that is not the same in both, in whatever way."""
    if one.keys() != other.keys():
        return ", ".join(sorted(one.keys() ^ other.keys()))
    same = torch.equal if exact else _close
    return next((key for key in one if not same(one[key].float(), other[key].float())), None)
