"""What indexing videos will cost, before anything runs."""

import time
from collections import Counter
from collections.abc import Sequence
from contextlib import closing
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import BinaryIO

from ....cache.library.database import is_library
from ....cache.library.library import Library
from ....cache.library.rows import Known
from ....configs.schema import PrepareConfig
from ...data.video.workers import Decoded, decode_in_parts
from ...models.common.network import VideoTextNetwork
from ...runtime.cores import cores
from ...runtime.device import choose_device
from ...runtime.reporting import Reporter, Silent
from .encoding import FRAMES_AT_ONCE, Batch, WindowEncoder
from .files import File, find_files, total_size
from .models import DeviceName, decoding, load_model, model_of
from .plan import plan_files
from .reading import read_windows
from .windows import Cut

PROBED, PROBING = 6, 20.0  # files, seconds


@dataclass(frozen=True)
class IndexEstimate:
    """What indexing would cost, from a few files decoded and encoded as a probe; nothing is written.

    Attributes:
        files: that were named or found; remaining: to be decoded; compared: to be read first, since they have another
            time or are as large as one that is known.
        bytes: of the remaining; seconds: that they take on `workers` processes; disk: bytes of their vectors.
        gone: videos of the library whose file is not there.
        probed: files.
    """

    files: int
    remaining: int
    compared: int
    gone: int
    bytes: int
    disk: int
    seconds: float
    workers: int
    probed: int


def estimate_videos(
    videos: Sequence[str],
    folder: Path,
    model: str | None = None,
    *,
    device: DeviceName = "auto",
    workers: int = 0,
    reporter: Reporter | None = None,
    stdin: BinaryIO | None = None,
) -> IndexEstimate:
    """What `index_videos` would cost.

    Raises:
        As `index_videos`.
    """
    found = find_files(videos, stdin)
    found.tell(reporter or Silent())
    loaded = load_model(model or model_of(folder), choose_device(device))
    network = loaded.network
    plan = plan_files(found, _known(folder, loaded.digest))
    files, config = plan.decode, decoding(network, workers)
    probe = files[:: max(1, len(files) // PROBED)][:PROBED]
    seen = _probed(probe, network, config, Cut.of(loaded.described))
    share = total_size(files) / max(1.0, seen.bytes)
    processes = min(config.workers or cores(), max(1, len(files)))
    width, slots = network.vector_width, network.config.frames
    window = 2 * (2 * width + 8 * slots + 100) + 2 * slots * width  # in the database and the matrix; its frames
    return IndexEstimate(
        files=len(found.files),
        remaining=len(files),
        compared=len(plan.touched) + len(plan.like),
        gone=len(plan.gone),
        bytes=total_size(files),
        disk=round(share * seen.windows * window),
        seconds=share * (seen.decoding / processes + seen.encoding),
        workers=processes,
        probed=len(probe),
    )


@dataclass
class _Probed:
    """What some files cost: bytes of them that were decoded, seconds on one process, and to encode; frames, windows."""

    bytes: float = 0.0
    decoding: float = 0.0
    encoding: float = 0.0
    frames: int = 0
    windows: int = 0

    def add(self, size: float, seconds: float, frames: int, cut: Cut) -> None:
        self.bytes, self.decoding, self.frames = self.bytes + size, self.decoding + seconds, self.frames + frames
        self.windows += len(list(cut.windows(frames))) if frames else 0


def _probed(files: Sequence[File], network: VideoTextNetwork, config: PrepareConfig, cut: Cut) -> _Probed:
    """What some files cost, or as much of them as can be decoded in `PROBING` seconds."""
    seen = _Probed()
    if not files:
        return seen
    came: Counter[int] = Counter()
    batch, begun = Batch(), time.monotonic()
    jobs = [(file.path, Path(file.path)) for file in files]
    with closing(decode_in_parts(jobs, config, partial(read_windows, cut))) as results:
        for event in results:
            if isinstance(event, Decoded):
                seen.add(files[event.index].size, event.seconds, len(event.record.times), cut)
                came.pop(event.index, None)
            else:
                before = 0 if event.part.first else came[event.index]
                came[event.index] = before + len(event.part.frames)
                if batch.frames < FRAMES_AT_ONCE:
                    batch.add(event)
            if time.monotonic() - begun > PROBING:
                break
    for index, frames in came.items():
        share = min(1.0, frames / len(cut.frame_times(_claimed(files[index].path))))
        seen.add(share * files[index].size, time.monotonic() - begun, frames, cut)
    encoder = WindowEncoder(network, cut, lambda video, windows: None)
    begun = time.monotonic()
    encoder.take(batch)
    seen.encoding = (time.monotonic() - begun) * seen.frames / max(1, batch.frames)
    return seen


def _known(folder: Path, digest: str) -> dict[str, Known]:
    """What the library knows, without writing to it."""
    if not is_library(folder):
        return {}
    with Library.open(folder) as library:
        digests = {model.digest for model in library.models()}
        if digest not in digests:
            return {video.path: Known(video, 0) for video in library.videos()}
    with Library.open(folder, digest) as library:
        return library.known()


def _claimed(path: str) -> float:
    """Seconds that a file claims to last, at least one."""
    import av

    try:
        with av.open(path) as container:
            return float(max(1.0, (container.duration or 0) / av.time_base))
    except (OSError, ValueError):
        return 1.0
