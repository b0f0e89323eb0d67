"""Features made of the frame cache: by any open_clip trunk, or by a function of the user's own."""

from collections.abc import Callable, Sequence
from typing import Any, Protocol

import numpy as np
import torch

from ....cache.experts.shard import NO_SOURCE, FeatureRecord
from ....cache.frames.cache import FrameCache
from ....cache.storage.identity import JSON
from ....configs.schema import Config, ExpertConfig
from ....errors import PluginError
from ....remedies import ReadPage, Remedy
from ...data.dataset import Dataset
from ...data.experts.checked import checked_expert
from ...models.named import OPENCLIP, named_model
from ...runtime.device import choose_device, plain_float32
from ...runtime.plugins import load_plugin, users_code
from ...runtime.reporting import Reporter

GROUP = "teachclip.experts"  # of entry points
_PAGE = Remedy("an expert of 20 lines is shown there", ReadPage("guide/teachtext"))
type Encode = Callable[[FrameCache, Sequence[str]], list[Any]]


class OwnExpert(Protocol):
    """What a plug-in makes of its `device` and options: called with the frames uint8 [F, 3, S, S] of a video and their
    times [F] in seconds, it gives a vector [D] or a sequence [N, D], or None where there is nothing (no face).

    Attributes:
        digest: stands for its weights and for what it computes.
    """

    digest: str

    def __call__(self, frames: np.ndarray, times: np.ndarray) -> np.ndarray | None: ...


class FromFrames:
    """Features of an expert that sees the frames of videos (`FeatureSource`).

    Args:
        identity: what stands for the network; encode: gives the arrays of some videos, in their order.
        at_once: videos that it gets at a time.
    """

    def __init__(
        self, frames: FrameCache, dataset: Dataset, title: str, identity: dict[str, JSON], encode: Encode, at_once: int
    ) -> None:
        self.frames, self.title, self.where, self.at_once = frames, title, title, at_once
        self.identity: dict[str, JSON] = identity
        self.encode = encode
        self.videos: Sequence[str] = [video.id for video in dataset.with_unlabelled().videos]
        self.usable = frozenset(frames.usable)
        self.sources: Sequence[bytes] = [
            frames.digest(video) if video in self.usable else NO_SOURCE for video in self.videos
        ]

    def make(self, videos: Sequence[str]) -> list[FeatureRecord]:
        """See `FeatureSource`."""
        usable = [video for video in videos if video in self.usable]
        made: dict[str, Any] = {}
        for start in range(0, len(usable), self.at_once):
            those = usable[start : start + self.at_once]
            made |= dict(zip(those, self.encode(self.frames, those), strict=True))
        return [self._record(video, made.get(video)) for video in videos]

    def _record(self, video: str, value: Any) -> FeatureRecord:
        if video not in self.usable:
            status = self.frames.statuses.get(video)
            why = "it is not in the frame cache" if status is None else f"no frames: {status.status}, {status.reason}"
            return FeatureRecord(video, "absent", why)
        if value is None:
            return FeatureRecord(video, "missing", "the expert found nothing")
        try:
            found = checked_expert(value)
        except ValueError as error:
            raise PluginError(f"{self.title}: of {video!r} it made {error}", hint=_PAGE) from None
        return FeatureRecord(video, found.status, found.reason, found.parts)


def trunk_frames(
    config: Config, expert: ExpertConfig, frames: FrameCache, dataset: Dataset, reporter: Reporter
) -> FromFrames:
    """Frame features [F, D], not normalised, by the trunk of `expert.model`.

    Raises:
        ConfigError, CheckpointError, UnreachableError: as `named_model`.
    """
    assert expert.model is not None
    name = expert.model if expert.model.startswith(OPENCLIP) else config.work / expert.model
    device = choose_device(config.features.device)
    model = named_model(name, device, reporter)

    @torch.no_grad()
    def encode(cache: FrameCache, videos: Sequence[str]) -> list[Any]:
        batch = cache.read(videos)
        pixels, mask = (torch.from_numpy(array).to(device) for array in (batch.frames, batch.mask))
        with plain_float32(device):
            found = model.network.frame_features(pixels, mask).float().cpu().numpy()
        return [found[k, batch.mask[k]] for k in range(len(videos))]

    identity: dict[str, JSON] = {"made by": "frame features of a trunk", "model": model.digest}
    return FromFrames(frames, dataset, f"expert {expert.name!r}", identity, encode, config.features.batch)


def plugin_frames(config: Config, expert: ExpertConfig, frames: FrameCache, dataset: Dataset) -> FromFrames:
    """Features by `expert.plugin` (`OwnExpert`), video by video.

    Raises:
        ConfigError: it cannot be loaded.
        PluginError: it lacks its digest, or fails.
    """
    assert expert.plugin is not None
    title, device = f"expert {expert.name!r} ({expert.plugin})", choose_device(config.features.device)
    make = load_plugin(expert.plugin, GROUP, f"features.experts.{expert.name}.plugin")
    with users_code(f"{title}: making it", make):
        own: OwnExpert = make(device=device, **expert.options)
        weights = getattr(own, "digest", None)
    if not isinstance(weights, str) or not weights or not callable(own):
        raise PluginError(f"{title} lacks what an expert needs: to be called, and a text `digest`", hint=_PAGE)

    @torch.no_grad()
    def encode(cache: FrameCache, videos: Sequence[str]) -> list[Any]:
        batch, found = cache.read(videos), []
        for k in range(len(videos)):
            valid = batch.mask[k]
            with plain_float32(device), users_code(f"{title}: video {videos[k]!r}", make):
                made = own(batch.frames[k, valid], batch.times[k, valid])
                found.append(None if made is None else np.asarray(made))
        return found

    identity: dict[str, JSON] = {"made by": expert.plugin, "digest": weights}
    return FromFrames(frames, dataset, title, identity, encode, 1)
