"""A teacher of the user's own: what it says of itself and what it returns, checked (docs/guide/teachers.md)."""

import math
from collections.abc import Callable, Mapping, Sequence
from typing import Any

import torch
from torch import Tensor

from ....configs.schema import TeacherConfig
from ....errors import PluginError
from ....remedies import OTHER, Prepare, ReadPage, Remedy
from ...runtime.device import plain_float32
from ...runtime.plugins import load_plugin, users_code
from ..common.network import Features

GROUP = "teachclip.teachers"  # of entry points

ALONE = 1e-4  # how far rounding may move a score with what is computed beside it
_PAGE = Remedy("a teacher of about 40 lines is shown there", ReadPage("guide/teachers"))
_METHODS = ("encode_videos(frames, mask, times)", "encode_texts(captions)", "score(texts, videos)")


class OwnTeacher:
    """A class of the user's own as a teacher (`teachers.Teacher`); it is called in float32 without gradients.

    Shapes are checked at every call, values at the first call of each method.

    Args:
        config: names the class and its options.
        device: where it runs.
        plugin: the class itself, where it is at hand.

    Raises:
        ConfigError: the class cannot be loaded.
        PluginError: it lacks something, or fails; likewise every method, naming itself.
    """

    def __init__(self, config: TeacherConfig, device: torch.device, plugin: Callable[..., Any] | None = None) -> None:
        assert config.plugin is not None
        self.name, self._device = config.name, device
        self._title = f"teacher {config.name!r} ({config.plugin})"
        self._class = plugin or load_plugin(config.plugin, GROUP, f"score.teachers.{config.name}.plugin")
        with users_code(f"{self._title}: making it", self._class):
            self._teacher = self._class(name=config.name, device=device, **config.options)
            said: dict[str, Any] = {key: getattr(self._teacher, key, None) for key in _ATTRIBUTES}
        if lacks := [*wrong_attributes(said), *_missing_methods(self._teacher)]:
            raise PluginError(f"{self._title} lacks what a teacher needs", details=lacks, hint=_PAGE)
        self.score_version: int = said["score_version"]
        self.frames: int = said["frames"]
        self.words: int = said["words"]
        self.scale = float(said["scale"])
        self.weights_digest: str = said["weights_digest"]
        self._seen: set[str] = set()
        self._gives_frame_logits: bool | None = None
        self.pairs_alone = False
        """Whether no pair was seen to depend on others; so long each call of `score` is looked at."""

    def encode_videos(self, frames: Tensor, mask: Tensor, times: Tensor) -> Features:
        """See `Teacher`."""
        if frames.shape[1] != self.frames:
            raise PluginError(
                f"{self._title} takes {self.frames} frames a video; these have {frames.shape[1]}",
                hint=Remedy(
                    "set its `frames`, or prepare others for it and name them as its `prepared`",
                    Prepare({"prepare.max_frames": self.frames, "prepare.frames": OTHER}),
                ),
            )
        return self._features("encode_videos", self._call("encode_videos", frames, mask, times), len(frames))

    def encode_texts(self, captions: Sequence[str]) -> Features:
        """See `Teacher`."""
        return self._features("encode_texts", self._call("encode_texts", captions), len(captions))

    def score(self, texts: Features, videos: Features) -> Tensor:
        """See `Teacher`."""
        found = self._scores("score", self._call("score", texts, videos), (_count(texts), _count(videos)))
        if not self.pairs_alone and len(found) > 1 and found.shape[1] > 1:
            self._refuse_dependent(texts, videos, found)
            self.pairs_alone = True
        return found

    def frame_logits(self, texts: Features, videos: Features) -> Tensor | None:
        """See `Teacher`; None also when the class has no such method."""
        found = self._call("frame_logits", texts, videos) if hasattr(self._teacher, "frame_logits") else None
        if self._gives_frame_logits not in (None, found is not None):
            raise self._wrong("frame_logits", "None for some texts and scores for others")
        self._gives_frame_logits = found is not None
        return None if found is None else self._scores("frame_logits", found, (_count(texts), self.frames))

    @torch.no_grad()
    def _call(self, method: str, *arguments: Any) -> Any:
        with plain_float32(self._device), users_code(f"{self._title}: {method}", self._class):
            return getattr(self._teacher, method)(*arguments)

    def _features(self, method: str, found: object, count: int) -> Features:
        """In float32, as the store keeps them, so that cached features meet fresh ones in one precision."""
        if not isinstance(found, Mapping) or not found or not all(isinstance(key, str) for key in found):
            raise self._wrong(method, f"{_described(found)} instead of a dict of tensors by name")
        for key, value in found.items():
            if not isinstance(value, Tensor) or value.shape[:1] != (count,):
                wanted = f"a tensor whose first dimension is {count}, that of its input"
                raise self._wrong(method, f"{key!r}: {_described(value)} instead of {wanted}")
        features = {key: value.detach() for key, value in found.items()}
        features = {key: value.float() if value.is_floating_point() else value for key, value in features.items()}
        self._refuse_not_finite(method, features.values())
        return features

    def _scores(self, method: str, found: object, shape: tuple[int, int]) -> Tensor:
        if not isinstance(found, Tensor) or found.shape != shape:
            raise self._wrong(method, f"{_described(found)} instead of a tensor {list(shape)}")
        scores = found.detach().float()
        self._refuse_not_finite(method, [scores])
        return scores

    def _refuse_not_finite(self, method: str, values: Any) -> None:
        if method not in self._seen and not all(bool(value.isfinite().all()) for value in values):
            raise self._wrong(method, "values that are not finite")
        self._seen.add(method)

    def _refuse_dependent(self, texts: Features, videos: Features, scores: Tensor) -> None:
        """Refuse scores of pairs that are others when fewer texts and videos stand beside them."""
        fewer = {key: value[:1] for key, value in texts.items()}, {key: value[:2] for key, value in videos.items()}
        alone = self._scores("score", self._call("score", *fewer), (1, 2))
        if not torch.allclose(alone, scores[:1, :2], rtol=ALONE, atol=ALONE):
            raise self._wrong("score", "other scores for a pair when fewer texts and videos are beside it")

    def _wrong(self, method: str, what: str) -> PluginError:
        return PluginError(f"{self._title}: {method} returns {what}", hint=_PAGE)


def _is_count(value: object, least: int) -> bool:
    return isinstance(value, int) and not isinstance(value, bool) and value >= least


def _is_scale(value: object) -> bool:
    return isinstance(value, int | float) and not isinstance(value, bool) and math.isfinite(value) and value > 0


# Attributes: what each is, and whether a value is one.
_ATTRIBUTES: dict[str, tuple[str, Callable[[object], bool]]] = {
    "score_version": (
        "an int from 1, raised when the same weights give other scores",
        lambda value: _is_count(value, 1),
    ),
    "frames": ("an int from 1, the frame slots of a video", lambda value: _is_count(value, 1)),
    "words": ("an int from 0, the word slots of a caption, 0 for no limit", lambda value: _is_count(value, 0)),
    "scale": ("a positive number, the factor between scores and logits", _is_scale),
    "weights_digest": (
        "a str, the hash of everything that scores depend on",
        lambda value: isinstance(value, str) and value != "",
    ),
}


def wrong_attributes(said: Mapping[str, object]) -> list[str]:
    """What is wrong with attributes of a class of the user's own, by name; a line each."""
    return [
        f"{key}: {'missing' if said[key] is None else _described(said[key])}; it is {what}"
        for key, (what, fits) in _ATTRIBUTES.items()
        if key in said and not fits(said[key])
    ]


def _missing_methods(teacher: object) -> list[str]:
    return [f"the method {method}" for method in _METHODS if not callable(getattr(teacher, method.split("(")[0], None))]


def _count(features: Features) -> int:
    return len(next(iter(features.values())))


def _described(value: object) -> str:
    if isinstance(value, Tensor):
        return f"a tensor {list(value.shape)}"
    return repr(value) if isinstance(value, str | int | float | None) else f"a {type(value).__name__}"
