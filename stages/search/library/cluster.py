"""A library made on a Ray cluster: workers decode and encode groups of files, one process puts down what comes of them.

What crosses Ray of a group: its files' paths one way; statuses, times and vectors the other.
"""

import os
import socket
from collections.abc import Callable, Iterator, Sequence
from functools import partial
from pathlib import Path
from typing import Any, BinaryIO

from ....cache.library.rows import NewWindow, Video
from ....configs.schema import PrepareConfig
from ....errors import ConfigError
from ...data.video.workers import Decoders
from ...runtime.cluster import OnCluster, Place, connected, cpus_each, on_cluster, refuse_unseen, room, some_of
from ...runtime.device import choose_device
from ...runtime.reporting import Reporter, Silent
from .encoding import Keep, WindowEncoder
from .files import File
from .models import DeviceName, VideoModel, load_model, model_of
from .reading import read_windows
from .stage import VideosIndexed, encode_arriving, index_videos
from .windows import Cut

GROUPS_EACH = 8
"""Into so many groups for each worker the files are cut at least: one that is faster, or comes later, takes more."""

GROUP_FILES, GROUP_BYTES = 32, 2 * 10**9
"""No group is larger, but for a single file: so much is done again when a worker dies."""

type Made = list[tuple[Video, list[NewWindow]]]
"""What became of a group's files."""


def index_on_cluster(
    videos: Sequence[str],
    folder: Path,
    model: str | None = None,
    *,
    how: OnCluster,
    device: DeviceName = "auto",
    workers: int = 0,
    tags: Sequence[str] = (),
    untags: Sequence[str] = (),
    reporter: Reporter | None = None,
    stdin: BinaryIO | None = None,
) -> VideosIndexed:
    """As `index_videos`, with files decoded and encoded by workers of a Ray cluster, which each load the model once.

    What is to be done is planned here, files that were touched or moved are compared here, and what workers made is put
    down here, in the order in which it comes: a worker that dies costs the group of files that it had under way.

    Args:
        device: of the workers; this process computes nothing.
        workers: decoding processes of each worker, 0 for one a core of its.

    Raises:
        ConfigError: Ray is not installed, or there is no such cluster; its nodes see other files or another model, or
            have other versions or devices.
        TeachclipError: a group lost its worker again and again; else as `index_videos`.
    """
    reporter = reporter or Silent()
    with connected(how.address) as ray:
        name = model or model_of(folder)
        encode = partial(_encode, ray, how, name, device, workers or cpus_each(how), reporter)
        return index_videos(
            videos,
            folder,
            name,
            device="cpu",
            workers=workers,
            tags=tags,
            untags=untags,
            reporter=reporter,
            stdin=stdin,
            encode=encode,
        )


def _encode(
    ray: Any,
    how: OnCluster,
    name: str,
    device: DeviceName,
    workers: int,
    reporter: Reporter,
    files: Sequence[File],
    model: VideoModel,
    config: PrepareConfig,
    keep: Keep,
) -> None:
    checkpoint = [name] if Path(name).exists() else []
    place = Place(os.getcwd(), (*some_of([Path(file.path) for file in files]), *checkpoint), device)
    groups = list(grouped(files, GROUPS_EACH * room(ray, how, place)))
    settings = config.model_copy(update={"workers": workers})
    made: Made
    for made in on_cluster(ray, how, place, indexing_worker, (name, model.digest, device, settings), groups, reporter):
        for video, windows in made:
            keep(video, windows)


def grouped(files: Sequence[File], groups: int) -> Iterator[list[str]]:
    """Paths of files in groups: at least so many, if there are as many files, none too large."""
    most = min(GROUP_FILES, -(-len(files) // groups))
    group, size = list[str](), 0
    for file in files:
        if group and (len(group) == most or size + file.size > GROUP_BYTES):
            yield group
            group, size = [], 0
        group.append(file.path)
        size += file.size
    if group:
        yield group


def indexing_worker(name: str, digest: str, device: DeviceName, config: PrepareConfig) -> Callable[[list[str]], Made]:
    """What makes a group in a worker: the model is loaded once, and the processes that decode stay.

    Raises:
        ConfigError: the model is another one here.
    """
    model = load_model(name, choose_device(device))
    if model.digest != digest:
        raise ConfigError(f"{socket.gethostname()} has another model of this name", where=name)
    cut = Cut.of(model.described)
    decoders = Decoders.in_parts(config, partial(read_windows, cut))
    made: Made = []
    encoder = WindowEncoder(model.network, cut, lambda video, windows: made.append((video, windows)))

    def work(paths: list[str]) -> Made:
        refuse_unseen(map(Path, paths))
        made.clear()
        encode_arriving(decoders.run([(path, Path(path)) for path in paths], len(paths)), encoder)
        return list(made)

    return work
