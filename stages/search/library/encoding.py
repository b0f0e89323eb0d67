"""Frames as they come from the decoders -> windows with their vectors, put down video by video."""

from collections import deque
from collections.abc import Callable
from dataclasses import dataclass, field
from typing import NamedTuple

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from ....cache.frames.record import VideoRecord
from ....cache.library.rows import NewWindow, Video
from ....errors import CheckpointError
from ...data.video.workers import Arrived, Decoded
from ...models.common.network import VideoTextNetwork
from ...models.student import Student
from ...runtime.device import plain_float32
from .windows import Cut, span

FRAMES_AT_ONCE = 96
# Frames of a lot, with empty ones: of fewer, products on a CPU come out otherwise in the last bits.
FEWEST = 16
WINDOWS_AT_ONCE = 256

type Keep = Callable[[Video, list[NewWindow]], object]


@dataclass
class Batch:
    """What came from the decoders, in order, until it is encoded."""

    events: deque[Arrived | Decoded] = field(default_factory=deque)
    frames: int = 0
    finished: int = 0

    def add(self, event: Arrived | Decoded) -> None:
        self.events.append(event)
        if isinstance(event, Arrived):
            self.frames += len(event.part.frames)
        else:
            self.finished += 1


class WindowEncoder:
    """Encodes each frame once, and makes windows of a video's frames when the last has come.

    Of a frame only its class token is held (2 to 4 kB), so that three hours take some 15 MB.

    Args:
        network: makes the vectors.
        cut: how videos are cut into windows.
        keep: is handed each video with its windows, none where it cannot be used.
    """

    def __init__(self, network: VideoTextNetwork, cut: Cut, keep: Keep) -> None:
        self.network, self.cut, self.keep = network, cut, keep
        self.device = network.logit_scale.device
        self.windows = self.frames = 0
        self._tokens: dict[int, list[Tensor]] = {}
        with torch.inference_mode(), plain_float32(self.device):
            size = network.trunk.image_size
            frames = torch.zeros(1, 1, 3, size, size, dtype=torch.uint8, device=self.device)
            self._blank = network.class_tokens(frames, torch.zeros(1, 1, dtype=torch.bool, device=self.device))[0]

    def take(self, batch: Batch) -> int:
        """Encode what has come, and put down the videos that are finished with it; how many.

        Raises:
            CheckpointError: the model makes vectors that are not finite.
            CacheError: they cannot be put down.
        """
        parts = [event.part.frames for event in batch.events if isinstance(event, Arrived)]
        with torch.inference_mode(), plain_float32(self.device):
            tokens = self._encoded(parts)
            for event in batch.events:
                if isinstance(event, Arrived):
                    own = self._tokens.setdefault(event.index, [])
                    if event.part.first:
                        own.clear()
                    own.append(tokens.popleft())
                else:
                    self._finish(event.record, self._tokens.pop(event.index, []))
        return batch.finished

    def _encoded(self, parts: list[NDArray[np.uint8]]) -> deque[Tensor]:
        """Class tokens [F, width] of each part."""
        if not parts:
            return deque()
        lengths = [len(part) for part in parts]
        empty = np.zeros((max(0, FEWEST - sum(lengths)), *parts[0].shape[1:]), np.uint8)
        frames = torch.from_numpy(np.concatenate([*parts, empty]))[None].to(self.device)
        mask = torch.ones(frames.shape[:2], dtype=torch.bool, device=self.device)
        self.frames += sum(lengths)
        tokens = self.network.class_tokens(frames, mask)[0]
        return deque(torch.split(tokens[: sum(lengths)], lengths))

    def _finish(self, record: VideoRecord, parts: list[Tensor]) -> None:
        status, stamp = record.status, record.stamp
        video = Video(
            0, status.video, stamp.size, stamp.mtime_ns, stamp.content, status.duration, status.status, status.reason,
            record.read_by.reader,
        )  # fmt: skip
        windows = self._windows(torch.cat(parts), record) if status.status == "ok" else []
        self.windows += len(windows)
        self.keep(video, windows)

    def _windows(self, tokens: Tensor, record: VideoRecord) -> list[NewWindow]:
        times, duration = record.times, record.status.duration or 0.0
        assert len(tokens) == len(times)
        made: list[NewWindow] = []
        places = list(self.cut.windows(len(times)))
        for start in range(0, len(places), WINDOWS_AT_ONCE):
            part = places[start : start + WINDOWS_AT_ONCE]
            for (first, last), encoded in zip(part, self._encoded_windows(tokens, part), strict=True):
                refuse_not_finite(encoded.vector, record.status.video)
                where = span(times, first, last, duration, self.cut)
                made.append(encoded.window(*where, times[first:last]))
        return made

    def _encoded_windows(self, tokens: Tensor, places: list[tuple[int, int]]) -> list["Encoded"]:
        """What the network makes of windows."""
        slots = torch.arange(self.network.config.frames, device=self.device)
        firsts, lasts = (torch.tensor(ends, device=self.device)[:, None] for ends in zip(*places, strict=True))
        places_of = firsts + slots
        mask = places_of < lasts
        padded = torch.cat([tokens, self._blank])
        return encoded_windows(self.network, padded[places_of.masked_fill(~mask, len(tokens))], mask)


class Encoded(NamedTuple):
    """A window as a network sees it: its unit vector [D], those of its frame slots [S, D], what each slot counts in the
    vector [S]; None where all count alike."""

    vector: NDArray[np.float32]
    frames: NDArray[np.float32]
    weights: NDArray[np.float32] | None

    def window(self, start: float, stop: float, times: NDArray[np.floating]) -> NewWindow:
        """The window of these seconds, with frames at `times`."""
        count = len(times)
        weights = None if self.weights is None else self.weights[:count]
        return NewWindow(start, stop, times, weights, self.vector, self.frames[:count])


def encoded_windows(network: VideoTextNetwork, frames: Tensor, mask: Tensor) -> list[Encoded]:
    """What a network makes of windows, of frames as `encode_videos` takes them."""
    features = network.encode_with_frames(frames, mask)
    vectors, vectors_of_frames = (features[name].float().cpu().numpy() for name in ("vector", "frames"))
    weights: list[NDArray[np.float32] | None] = [None] * len(vectors)
    if isinstance(network, Student) and "raw_weights" in features:
        weights = list(network.pooling_weights(features, mask).float().cpu().numpy())
    return [Encoded(*each) for each in zip(vectors, vectors_of_frames, weights, strict=True)]


def refuse_not_finite(vector: NDArray[np.float32], video: str) -> None:
    """Raise a CheckpointError where a video's vector is not finite."""
    if not np.isfinite(vector).all():
        raise CheckpointError(
            "the model makes vectors that are not finite",
            where=video,
            hint="its weights are damaged or its training diverged: train it again, or name another one",
        )
