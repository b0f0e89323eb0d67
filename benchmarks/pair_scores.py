"""Pairs of a text and a video that each teacher scores a second, beside its published form and the machine's limits.

    python benchmarks/pair_scores.py [--threads 1 2] [--texts 512] [--videos 1024] [--device cuda] [--out FILE]
    make bench-score

Features are random, of the sizes that ViT-B/32 gives: 512 numbers, 12 frames, 32 word slots of which 12.7 are valid on
average. They are there before the clock starts, as they are when a teacher scores a data set: each is made once per
video or text. Pairs are scored as `teachclip score` does it: 128 texts at a time with 1,024 videos, on a CPU each such
block by one thread and several at a time.

    us, pairs/s   of a pair; medians over rounds, in which all ways take turns
    published     the published form (specs) in blocks of the same size, and its time over ours: X-CLIP and TS2-Net in
                  the order of the formulas, X-Pool pools the frames for every pair, DRL compares all word slots
    products      share of the time that the pair's multiplications take at the rate of one large product, measured in
                  the same rounds
    moved         bytes that could have been copied meanwhile, read and written, at the rate of a large copy
"""

import argparse
import json
import os
import statistics
import time
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, field
from functools import partial
from pathlib import Path

import torch
from _machine import machine
from teachclip.configs.schema import NetworkConfig, TrunkConfig, TrunkSizes, Ts2NetConfig
from teachclip.stages.models.build import build_network
from teachclip.stages.models.common.network import Features, VideoTextNetwork
from teachclip.stages.models.common.pair_blocks import score_in_blocks
from teachclip.stages.runtime.cores import cores
from teachclip.stages.runtime.device import plain_float32
from teachclip.stages.runtime.threads import spread
from torch import Tensor
from torch.nn import functional
from torch.utils.flop_counter import FlopCounterMode

type Score = Callable[[Features, Features], Tensor]

D, F, W = 512, 12, 32
VALID_WORDS = 12.7
FLOAT = 4
TEXTS_AT_ONCE, VIDEOS_AT_ONCE = 128, 1024  # as stages/score/scorer.py has them by default
TAU, SHARPNESS = 0.01, 4.0
COPIED = 1 << 26  # bytes
TRUNK = TrunkSizes(  # runs never; only embed_dim matters
    image_size=32, patch_size=16, vision_width=64, vision_layers=1, text_width=64, text_layers=1, embed_dim=D
)


@dataclass
class Way:
    """One way to score, what it scores, and the seconds of each round.

    `published`: of which teacher it is the published form.
    """

    score: Score
    texts: Features
    videos: Features
    published: str | None = None
    seconds: list[float] = field(default_factory=list)

    def __call__(self, device: torch.device) -> Tensor:
        """Scores [T, V] of all, block by block."""
        columns = list(_blocks(self.videos, VIDEOS_AT_ONCE))

        def block(texts: Features) -> Tensor:
            with plain_float32(device):
                return torch.cat([self.score(texts, videos) for videos in columns], dim=1)

        return torch.cat(list(spread(block, _blocks(self.texts, TEXTS_AT_ONCE), device, alone=True)))

    def measure(self, device: torch.device) -> None:
        """Time it once more."""
        self.seconds.append(_seconds(partial(self, device), device))


class Limits:
    """What the machine can do with this many threads, round by round: products and copies of threads side by side."""

    def __init__(self, device: torch.device, threads: int) -> None:
        self.device, self.threads = device, threads
        self.flops: list[float] = []
        self.bytes: list[float] = []
        size = 8192 if device.type == "cuda" else 1536
        a, b = (torch.randn(size, size, device=device) for _ in range(2))
        source = torch.ones(COPIED // FLOAT, device=device)
        self._product, self._work = partial(torch.mm, a, b), 2 * size**3
        self._copy = source.clone

    def measure(self) -> None:
        """Time both once more."""
        self.flops.append(self.threads * self._work / self._alone(self._product))
        self.bytes.append(self.threads * 2 * COPIED / self._alone(self._copy))

    def _alone(self, work: Callable[[], Tensor]) -> float:
        """Seconds that `work` takes while each thread does as much."""
        items = range(self.threads)
        return _seconds(lambda: list(spread(lambda _: work(), items, self.device, alone=True)), self.device)


def make(texts: int, videos: int, device: torch.device) -> dict[str, Way]:
    """Every way, over the same features."""
    torch.manual_seed(0)
    words, frames = torch.randn(texts, W, D, device=device), torch.randn(videos, F, D, device=device)
    valid = _valid_words(texts).to(device)
    sentences = words[torch.arange(texts), valid.sum(1) - 1]
    unit_sentences, unit_frames = functional.normalize(sentences, dim=-1), functional.normalize(frames, dim=-1)
    mean = functional.normalize(unit_frames.mean(dim=1), dim=-1)
    all_frames = torch.ones(videos, F, dtype=torch.bool, device=device)

    def network(kind: str) -> VideoTextNetwork:
        trunk = TrunkConfig(sizes=TRUNK, weights=None)
        ts2net = Ts2NetConfig(shift_layers=())
        config = NetworkConfig(kind=kind, trunk=trunk, temporal_layers=0, ts2net=ts2net)
        made = build_network(config).to(device).eval()
        for name, parameter in made.named_parameters():  # away from the identity
            if "mat_weight" in name or "logit_weight" in name or name.startswith("pooling."):
                parameter.add_(0.02 * torch.randn_like(parameter))
        return made

    student, xclip, ts2net, xpool, drl = map(network, ("student", "xclip", "ts2net", "xpool", "drl"))
    drl_texts, drl_videos = drl.text_features(words, valid), drl.video_features(frames, all_frames, frames)
    pooling = xpool.pooling
    xpool_texts, xpool_videos = pooling.texts(sentences), pooling.videos(frames, None)
    condensed = {**xpool_videos, **pooling.condense(xpool_videos["values"])}
    del condensed["values"]
    xclip_features = (
        {"sentence": unit_sentences, "words": functional.normalize(words, dim=-1)},
        {"vector": mean, "frames": unit_frames},
    )
    ts2net_features = {"sentence": unit_sentences}, {"frames": unit_frames, "matched": all_frames}

    def published(score: Score, bytes_per_pair: int, features: tuple[Features, Features], of: str) -> Way:
        return Way(partial(score_in_blocks, score, bytes_per_pair=bytes_per_pair), *features, of)

    return {
        "X-CLIP": Way(xclip.score, *xclip_features),
        "X-CLIP, published": published(partial(_published_xclip, xclip), W * F * FLOAT, xclip_features, "X-CLIP"),
        "TS2-Net": Way(ts2net.score, *ts2net_features),
        "TS2-Net, published": published(_published_ts2net, F * FLOAT, ts2net_features, "TS2-Net"),
        "X-Pool": Way(xpool.score, xpool_texts, condensed),
        "X-Pool, published": published(pooling.plain_score, D * FLOAT, (xpool_texts, xpool_videos), "X-Pool"),
        "DRL": Way(drl.score, drl_texts, drl_videos),
        "DRL, published": published(drl.plain_score, W * F * FLOAT, (drl_texts, drl_videos), "DRL"),
        "student": Way(student.score, {"vector": unit_sentences}, {"vector": mean}),
    }


def _published_xclip(network: VideoTextNetwork, texts: Features, videos: Features) -> Tensor:
    """Specs: X-CLIP 5, term by term; pairs come first, words and frames last."""

    def attend(similarity: Tensor, matrix: Tensor) -> Tensor:
        return ((similarity / TAU).softmax(dim=-1) @ matrix * similarity).sum(dim=-1)

    sentence, words, vector, frames = texts["sentence"], texts["words"], videos["vector"], videos["frames"]
    pairs = torch.einsum("tld,vfd->tvlf", words @ network.local_mat_weight, frames)
    of_frames = attend(pairs.mT, network.word_mat_weight)
    of_words = attend(pairs, network.frame_mat_weight)
    both = attend(of_frames, network.frame_mat_weight2) + attend(of_words, network.word_mat_weight2)
    video_word = attend(torch.einsum("tld,vd->tvl", words, vector), network.word_logit_weight)
    sentence_frame = attend(torch.einsum("td,vfd->tvf", sentence, frames), network.frame_logit_weight)
    return (sentence @ network.global_mat_weight @ vector.T + video_word + sentence_frame + both / 2) / 4


def _published_ts2net(texts: Features, videos: Features) -> Tensor:
    """Specs: TS2-Net 4, with both of its equal parts; here every frame is matched."""

    def part() -> Tensor:
        cosines = torch.einsum("td,vfd->tvf", texts["sentence"], videos["frames"])
        lengths = torch.linalg.vector_norm(cosines, dim=2, keepdim=True)
        return ((SHARPNESS * cosines / lengths).softmax(dim=2) * cosines).sum(dim=2)

    return 1.0 * part() + 0.0 * part()


def _blocks(features: Features, size: int) -> Iterator[Features]:
    count = len(next(iter(features.values())))
    for start in range(0, count, size):
        yield {key: value[start : start + size] for key, value in features.items()}


def _valid_words(texts: int) -> Tensor:
    """Which of the word slots are valid [T, W]: 3 to W, VALID_WORDS on average but for the draw."""
    counts = torch.distributions.Binomial(W - 3, (VALID_WORDS - 3) / (W - 3)).sample((texts,)) + 3
    return torch.arange(W) < counts[:, None]


def _seconds(work: Callable[[], object], device: torch.device) -> float:
    _wait_for(device)
    begun = time.perf_counter()
    work()
    _wait_for(device)
    return time.perf_counter() - begun


def _wait_for(device: torch.device) -> None:
    if device.type == "cuda":
        torch.cuda.synchronize(device)


def count_flops(way: Way) -> float:
    """Of a pair: two for each multiply-add of products, as this way does them."""
    texts, videos = next(_blocks(way.texts, TEXTS_AT_ONCE)), next(_blocks(way.videos, VIDEOS_AT_ONCE))
    with FlopCounterMode(display=False) as counter:
        scores = way.score(texts, videos)
    return float(counter.get_total_flops()) / scores.numel()


def compare(ways: dict[str, Way], device: torch.device) -> None:
    """Refuse to measure what gives other scores.

    Raises:
        AssertionError: a way's scores are not those of the published form.
    """
    for way in ways.values():
        if way.published:
            torch.testing.assert_close(ways[way.published](device), way(device), rtol=0, atol=5e-6)


def measure(chosen: argparse.Namespace, device: torch.device, threads: int) -> dict[str, object]:
    """All ways, and the machine, with this many threads."""
    torch.set_num_threads(threads)
    ways, limits = make(chosen.texts, chosen.videos, device), Limits(device, threads)
    compare(ways, device)
    for _ in range(chosen.rounds):
        limits.measure()
        for way in ways.values():
            way.measure(device)
    pairs = chosen.texts * chosen.videos
    flop_rate, copy_rate = statistics.median(limits.flops), statistics.median(limits.bytes)
    rows = {}
    for name, way in ways.items():
        flops, seconds = count_flops(way), statistics.median(way.seconds) / pairs
        shares = [flops * pairs / one / rate for one, rate in zip(way.seconds, limits.flops, strict=True)]
        rows[name] = {
            "us": 1e6 * seconds,
            "pairs_per_second": 1 / seconds,
            "flop": flops,
            "product_us": 1e6 * flops / flop_rate,
            "products": statistics.median(shares),
            "moved": seconds * copy_rate,
            "seconds": way.seconds,
        }
    for name, way in ways.items():
        if way.published:
            gains = [slow / fast for slow, fast in zip(way.seconds, ways[way.published].seconds, strict=True)]
            rows[way.published] |= {"published_us": rows[name]["us"], "gain": statistics.median(gains)}
    return {"threads": threads, "flop_per_second": flop_rate, "bytes_per_second": copy_rate, "teachers": rows}


def shown(found: dict[str, object]) -> Iterator[str]:
    """The table of one number of threads."""
    gflop, copies = found["flop_per_second"] / 1e9, found["bytes_per_second"] / 1e9
    yield f"\nthreads: {found['threads']}; products {gflop:.0f} GFLOP/s, copies {copies:.1f} GB/s\n"
    yield "| teacher | us | pairs/s | published, us | over ours | products alone, us | products | moved, bytes |"
    yield "|---" * 8 + "|"
    for name, row in found["teachers"].items():
        if name.endswith("published"):
            continue
        published = f"{row['published_us']:.3f} | {row['gain']:.1f}" if "gain" in row else "- | -"
        yield (
            f"| {name} | {row['us']:.3f} | {row['pairs_per_second']:,.0f} | {published} | {row['product_us']:.3f} | "
            f"{100 * row['products']:.0f} % | {row['moved']:,.0f} |"
        )


def _threads(device: torch.device, asked: Sequence[int] | None) -> Sequence[int]:
    if asked:
        return asked
    return (1,) if device.type == "cuda" else sorted({1, min(cores(), torch.get_num_threads())})


@torch.inference_mode()
def main() -> None:
    cuda = torch.cuda.is_available()
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--device", default="cuda" if cuda else "cpu")
    parser.add_argument("--texts", type=int, default=2048 if cuda else 512)
    parser.add_argument("--videos", type=int, default=VIDEOS_AT_ONCE)
    parser.add_argument("--rounds", type=int, default=5)
    parser.add_argument("--threads", type=int, nargs="+", help="of the CPU; by default one, and all")
    parser.add_argument("--out", type=Path, help="JSON file for the numbers")
    chosen = parser.parse_args()
    device = torch.device(chosen.device)
    load = os.getloadavg()[0]
    found = [measure(chosen, device, threads) for threads in _threads(device, chosen.threads)]
    where = f"{torch.cuda.get_device_name(device)}; {machine()}" if device.type == "cuda" else machine()
    load = max(load, os.getloadavg()[0])
    sizes = f"{chosen.texts:,} texts x {chosen.videos:,} videos, {chosen.rounds} rounds"
    print(f"{where}; load {load:.1f}; torch {torch.__version__}; {sizes}")
    for each in found:
        print("\n".join(shown(each)))
    if chosen.out:
        facts = {"machine": where, "load": load, "texts": chosen.texts, "videos": chosen.videos, "threads": found}
        chosen.out.write_text(json.dumps(facts, indent=1) + "\n")


if __name__ == "__main__":
    main()
