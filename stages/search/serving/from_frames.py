"""The index of a configuration's frame cache: one window a video, made by its student, for a page to be served."""

import math
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path

import numpy as np
import torch
from torch import Tensor

from ....cache.frames.cache import FrameCache
from ....cache.library.database import is_library
from ....cache.library.rows import UNKNOWN, Known, Video
from ....cache.library.writer import LibraryWriter
from ....configs.schema import Config
from ....errors import CacheError, CheckpointError, DataError
from ....remedies import Remedy, Train
from ...data.dataset import file_finder, named_videos
from ...data.video.decode import READER
from ...data.video.source import stamp_or_none
from ...data.video_inputs import VIDEOS_AT_ONCE, FrameInputs, encoded
from ...models.checkpoints.shared import is_there
from ...models.common.network import VideoTextNetwork
from ...models.shortened import split_width
from ...retrieval.fits import check_fits
from ...runtime.device import choose_device, plain_float32
from ...runtime.reporting import Reporter
from ..library.encoding import Encoded, encoded_windows, refuse_not_finite
from ..library.models import load_model

FOLDER = "library"


def index_frames(config: Config, reporter: Reporter) -> Path:
    """The folder of the index, below `work`, brought up to date. One that cannot be written serves as it is.

    Raises:
        CheckpointError: the student is not there, cannot be loaded, is a teacher, or makes vectors that are not finite.
        CacheError: frames are missing or do not fit the student; there is no index and none can be made.
        DataError: the captions cannot be read; the videos are inside tars, where nobody can play them.
    """
    if config.data.set == "webdataset":
        raise DataError("videos inside of tar shards cannot be shown", where=str(config.data.video_folder))
    if not is_there(split_width(config.search_run)[0]):
        hint = Remedy("train it first", Train({"train.run": str(config.search.run)}))
        raise CheckpointError("there is no trained student yet", where=str(config.search_run), hint=hint)
    folder = config.work / FOLDER
    loaded = load_model(str(config.search_run), choose_device(config.search.device))
    network = loaded.network
    frames = FrameCache.open(config.frames_folder)
    check_fits(network, frames, config.frames_folder)
    model = replace(loaded.described, frames=frames.max_frames, whole=math.inf)
    try:
        with LibraryWriter.claim(folder, model) as writer:
            _fill(writer, config, network, frames, reporter)
            writer.finish()
    except CacheError as error:
        if not is_library(folder):
            raise
        reporter.warn(f"the index stays as it is: {error.what}")
    return folder


def _fill(
    writer: LibraryWriter, config: Config, network: VideoTextNetwork, frames: FrameCache, reporter: Reporter
) -> None:
    named, find = named_videos(config.data), file_finder(config.data)
    usable = [video for video in frames.usable if video in named]
    files = {video: str(path.absolute()) for video in usable if (path := find(video)) is not None}
    known = writer.known()
    writer.add_roots(folder.absolute() for folder in (config.data.video_folder, config.data.unlabelled) if folder)
    writer.remove([known[path].video.id for path in known.keys() - set(files.values())])
    missing = [k for k, video in enumerate(frames.usable) if video in files and not _there(known.get(files[video]))]
    inputs = FrameInputs(frames, frames.usable)
    made = encoded(inputs, np.array(missing, np.int64), _encoder(network), network.logit_scale.device, VIDEOS_AT_ONCE)
    with torch.inference_mode(), reporter.progress("vectors of videos", len(missing), "video") as progress:
        for part, windows in made:
            for k, window in zip(part, windows, strict=True):
                video = frames.usable[k]
                refuse_not_finite(window.vector, files[video])
                _keep(writer, frames, video, files[video], window)
            progress.advance(len(part))


def _keep(writer: LibraryWriter, frames: FrameCache, id: str, path: str, encoded: Encoded) -> None:
    times = frames.times([id])[0]
    times = times[np.isfinite(times)]
    status, stamp = frames.statuses[id], stamp_or_none(Path(path))
    video = Video(0, path, stamp.size, stamp.mtime_ns, UNKNOWN, status.duration, "ok", status.reason, READER)
    end = status.duration if status.duration is not None else float(times[-1])
    writer.keep(video, [encoded.window(0.0, end, times)])


def _encoder(network: VideoTextNetwork) -> Callable[[Tensor, Tensor, Tensor], list[Encoded]]:
    def encode(frames: Tensor, mask: Tensor, times: Tensor) -> list[Encoded]:
        with plain_float32(frames.device):
            return encoded_windows(network, frames, mask)

    return encode


def _there(known: Known | None) -> bool:
    """Whether a video's window is there, of the file as it is."""
    if known is None or not known.windows:
        return False
    stamp = stamp_or_none(Path(known.video.path))
    return (known.video.size, known.video.mtime_ns) == (stamp.size, stamp.mtime_ns)
