"""Features of videos, from the store or made and kept."""

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
import torch
from torch import Tensor

from ...cache.features import FeatureShards
from ...cache.scores.store import ScoreCache
from ...errors import DataError
from ..data.video_inputs import encoded
from ..data.views import View, view_inputs
from ..models.common.network import Features
from ..models.frozen.teacher import Teacher, may_be_shared
from ..runtime.reporting import Reporter
from .worker_part import WHOLE, WorkerPart


def _join(parts: Sequence[dict[str, np.ndarray]]) -> dict[str, np.ndarray]:
    return {key: np.concatenate([part[key] for part in parts]) for key in parts[0]}


@dataclass(frozen=True)
class _Group:
    """A file of features: the videos it holds by digest, and which of them, `at`, belong at `places` of a request."""

    digests: tuple[bytes, ...]
    at: np.ndarray
    places: np.ndarray


class VideoEncoder:
    """The teacher's features of videos, from the store where they are there, else made and kept.

    They are kept in float32, as they are scored with: a resumed run scores with the same bits as one that was never
    interrupted. A video is found in the files of every tile of the cache: another tile does not encode it again.
    """

    def __init__(
        self,
        teacher: Teacher,
        cache: ScoreCache,
        frames: View,
        device: torch.device,
        batch: int,
        part: WorkerPart = WHOLE,
    ) -> None:
        self.teacher, self.frames, self.device, self.batch, self.part = teacher, frames, device, batch, part
        identity = {key: cache.identity[key] for key in ("weights", "score_version", "frames")}
        self.shards = FeatureShards(cache.videos_folder, identity)
        self._tiles = cache.tiles

    @torch.inference_mode()
    def encode(self, videos: Sequence[str], reporter: Reporter) -> Features:
        """Features of `videos` on the device; first dimension V.

        Raises:
            DataError: a video's features are not finite; names it.
        """
        # In torch's own memory: its alignment, which last bits can depend on, is then the same in every run.
        features: Features = {}
        with reporter.progress(f"videos through {self.teacher.name}", len(videos), "video") as progress:
            for group in self.part.first(self._groups(videos)):
                values = self._read(group)
                if values is None:
                    own = [videos[place] for place in group.places]
                    values = self._make(own)
                    self.shards.write([self.frames.digest(video) for video in own], values)
                for key, value in values.items():
                    if key not in features:
                        dtype = torch.from_numpy(value[:0]).dtype
                        features[key] = torch.empty((len(videos), *value.shape[1:]), dtype=dtype)
                    features[key][torch.from_numpy(group.places)] = torch.from_numpy(value)
                progress.advance(len(group.places))
        return {key: value.to(self.device) for key, value in features.items()}

    def _groups(self, videos: Sequence[str]) -> list[_Group]:
        """The files that hold these videos, and those that are to be made."""
        digests = [self.frames.digest(video) for video in videos]
        wanted: dict[bytes, list[int]] = {}  # places by digest: videos may have the same frames
        for place in reversed(range(len(digests))):
            wanted.setdefault(digests[place], []).append(place)
        groups = []
        for tile in self._tiles:
            if not any(video in tile.video_columns for video in videos):
                continue
            held = [bytes(row) for row in tile.video_digests]
            for span in self.shards.groups(held):
                file = tuple(held[span])
                if self.shards.path(file).exists():
                    found = [(at, wanted[digest].pop()) for at, digest in enumerate(file) if wanted.get(digest)]
                    if found:
                        at, places = np.array(found).T
                        groups.append(_Group(file, at, places))
        rest = sorted(place for places in wanted.values() for place in places)
        for span in self.shards.groups([digests[place] for place in rest]):
            file = tuple(digests[place] for place in rest[span])
            groups.append(_Group(file, np.arange(len(file)), np.array(rest[span])))
        return groups

    def _read(self, group: _Group) -> dict[str, np.ndarray] | None:
        values = self.shards.read(group.digests)
        return None if values is None else {key: value[group.at] for key, value in values.items()}

    def _make(self, videos: Sequence[str]) -> dict[str, np.ndarray]:
        inputs = view_inputs(self.frames, videos, pin=self.device.type == "cuda")
        index = np.arange(len(videos))
        parts = []
        encode, several = self.teacher.encode_videos, may_be_shared(self.teacher)
        made = encoded(inputs, index, encode, self.device, self.batch, alone=True, several=several)
        for batch, features in made:
            part = {key: _plain(value) for key, value in features.items()}
            _refuse_not_finite(self.teacher.name, [videos[k] for k in batch], part)
            parts.append(part)
        return _join(parts)


def _plain(value: Tensor) -> np.ndarray:
    return (value.float() if value.is_floating_point() else value).cpu().numpy()


def _refuse_not_finite(teacher: str, videos: Sequence[str], features: dict[str, np.ndarray]) -> None:
    bad = np.zeros(len(videos), dtype=bool)
    for values in features.values():
        bad |= ~np.isfinite(values.reshape(len(videos), -1)).all(axis=1)
    if bad.any():
        raise DataError(
            f"teacher {teacher!r} makes features of these videos that are not finite",
            details=[video for video, wrong in zip(videos, bad, strict=True) if wrong],
            hint="check the teacher's checkpoint, or take these videos out of the caption file",
        )
