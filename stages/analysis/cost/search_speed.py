"""Milliseconds of one search: a text against V videos whose features are there, scored, the best ten taken.

What a network keeps per video is made by its own encoders from random frames, behind a small trunk: the score only
depends on the width of the common space, frames and words. Features are of few distinct videos, copied to as many
as are held; their values do not change what a search takes.
"""

import os
import platform
import statistics
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import torch
from torch import Tensor
from torch.nn import functional

from ....cache.vectors import exact_index
from ....configs.schema import NetworkConfig, TrunkConfig, TrunkSizes
from ...models.build import build_network
from ...models.clip.catalog import description, resolved
from ...models.common.network import Features, RetrievalNetwork, VideoTextNetwork
from ...models.experts.networks import ExpertNetwork
from ...runtime.reporting import Reporter, Silent
from .network import needed

INDEX = "search (faiss, float16)"
TOP = 10
VALID_WORDS = 13  # with start and end: MSR-VTT's captions have 12.7 on average
DISTINCT = 64  # videos that are encoded
HELD_BYTES = {"cpu": 1 << 29, "cuda": 2 << 30}  # of one network's features, at most


@dataclass(frozen=True)
class Speed:
    """One way to search among `videos` videos.

    Attributes:
        name: the network's, or INDEX: what `teachclip search` does, which always runs on the CPU.
        milliseconds: median; fastest, slowest: of the repeats.
        held: videos whose features were in memory; the others were these again, block by block.
    """

    name: str
    videos: int
    milliseconds: float
    fastest: float
    slowest: float
    held: int


@torch.inference_mode()
def search_speed(
    networks: Mapping[str, NetworkConfig],
    sizes: Mapping[str, Sequence[int]],
    device: torch.device,
    repeats: int = 5,
    reporter: Reporter | None = None,
) -> tuple[Speed, ...]:
    """Time searches with every network, ways taking turns, after one that is not counted.

    Args:
        networks: by name. sizes: by name, numbers of videos; INDEX among the names is the exact index over the vectors
            that a student of width D keeps.
    """
    reporter = reporter or Silent()
    ways = [way for name, config in networks.items() for way in _ways(name, config, sizes[name], device)]
    width = next((_width(config) for config in networks.values() if not config.on_experts), 512)
    ways += [_index_way(width, videos) for videos in sizes.get(INDEX, ())]
    with reporter.progress("searches", (1 + repeats) * len(ways), "search") as progress:
        for repeat in range(1 + repeats):
            for way in ways:
                seconds = way.once(device)
                if repeat:
                    way.seconds.append(seconds)
                progress.advance()
    return tuple(way.speed() for way in ways)


def machine(device: torch.device) -> str:
    """What the searches ran on."""
    info = Path("/proc/cpuinfo")
    lines = info.read_text().splitlines() if info.exists() else []
    names = [line.split(":")[1].strip() for line in lines if line.startswith("model name")]
    cores = f"{names[0] if names else platform.processor() or platform.machine()}, {os.cpu_count()} cores"
    if device.type == "cuda":
        return f"{torch.cuda.get_device_name(device)}; {cores}"
    return f"{cores}, {torch.get_num_threads()} threads"


class _Way:
    """One search that can be repeated."""

    def __init__(self, name: str, videos: int, held: int, run: Callable[[], object]) -> None:
        self.name, self.videos, self.held, self.run = name, videos, held, run
        self.seconds: list[float] = []

    def once(self, device: torch.device) -> float:
        _wait_for(device)
        begun = time.perf_counter()
        self.run()
        _wait_for(device)
        return time.perf_counter() - begun

    def speed(self) -> Speed:
        median, fastest, slowest = (1e3 * f(self.seconds) for f in (statistics.median, min, max))
        return Speed(self.name, self.videos, median, fastest, slowest, self.held)


def _wait_for(device: torch.device) -> None:
    if device.type == "cuda":
        torch.cuda.synchronize(device)


def _ways(name: str, config: NetworkConfig, sizes: Sequence[int], device: torch.device) -> Iterator[_Way]:
    if not sizes:
        return
    network = _small(config).to(device).eval()
    texts, few = _features(network, device)
    room = max(1, HELD_BYTES[device.type] // sum(value[:1].nbytes for value in few.values()))
    held = min(max(sizes), room)
    many = {key: _repeated(value, held) for key, value in few.items()}
    for videos in sizes:
        yield _Way(name, videos, min(videos, held), _search(network, texts, many, videos))


def _search(network: RetrievalNetwork, texts: Features, videos: Features, count: int) -> Callable[[], object]:
    held = len(next(iter(videos.values())))
    whole, rest = divmod(count, held)
    part = {key: value[:rest] for key, value in videos.items()}

    def run() -> object:
        blocks = [network.score(texts, videos) for _ in range(whole)]
        if rest:
            blocks.append(network.score(texts, part))
        return torch.cat(blocks, dim=1).topk(min(TOP, count))

    return run


def _small(config: NetworkConfig) -> RetrievalNetwork:
    """The same score behind a small trunk and no temporal transformer; a network on experts has neither."""
    if config.on_experts:
        return build_network(config)
    sizes = TrunkSizes(
        image_size=32, patch_size=8, vision_width=64, vision_layers=1, text_width=64, text_layers=1,
        embed_dim=_width(config), context_length=max(config.words, 3), vocab_size=64,
    )  # fmt: skip
    changed: dict[str, object] = {"trunk": TrunkConfig(sizes=sizes, weights=None), "temporal_layers": 0}
    changed["ts2net"] = config.ts2net.model_copy(update={"shift_layers": (), "selected": 1, "samples": 1})
    return build_network(config.model_copy(update=changed))


def _features(network: RetrievalNetwork, device: torch.device) -> tuple[Features, Features]:
    """Of one text and of a few videos, as little as a score needs."""
    if isinstance(network, ExpertNetwork):
        values, there, words = network.any_inputs(DISTINCT)
        texts, videos = network.encode_texts(words), network.encode_videos(values, there)
        return texts, needed(network.score, texts, videos)
    assert isinstance(network, VideoTextNetwork)
    config, size = network.config, network.trunk.image_size
    valid = min(VALID_WORDS, config.words)
    ids = torch.zeros(1, config.words, dtype=torch.long, device=device)
    ids[0, :valid] = torch.arange(64 - valid, 64, device=device)  # the last one is the largest: end of text
    frames = torch.randint(256, (DISTINCT, config.frames, 3, size, size), dtype=torch.uint8, device=device)
    mask = torch.ones(DISTINCT, config.frames, dtype=torch.bool, device=device)
    texts, videos = network.encode_texts(ids), network.encode_videos(frames, mask)
    return texts, needed(network.score, texts, videos)


def _repeated(value: Tensor, count: int) -> Tensor:
    times = -(-count // len(value))
    return value.repeat(times, *[1] * (value.ndim - 1))[:count].contiguous()


def _index_way(width: int, videos: int) -> _Way:
    random = torch.Generator().manual_seed(0)
    matrix = functional.normalize(torch.randn(videos, width, generator=random), dim=-1).half().numpy()
    index, wanted = exact_index(matrix), np.ascontiguousarray(matrix[:1], np.float32)
    return _Way(INDEX, videos, videos, lambda: index.search(wanted, min(TOP, videos)))


def _width(config: NetworkConfig) -> int:
    """D of the configured network."""
    return description(resolved(config.trunk.model_copy(update={"weights": None}))).embed_dim
