"""Microseconds to score a pair of a text and a video, by network; X-Pool and DRL also in their plain forms.

    python benchmarks/pair_scores.py [--texts 256] [--videos 1024] [--device cuda] [--out pair_scores.json]

Features are random, of the sizes that ViT-B/32 gives: 512 numbers, 12 frames, 32 word slots of which 12.7 are valid on
average. They are there before the clock starts, as they are when a teacher scores a data set: each is made once per
video or text. `plain` is the published form: X-Pool pools the frames for every pair, DRL compares all word slots; it
works in blocks of the same size as the others. Repeats of all ways are interleaved; medians.
"""

import argparse
import json
import statistics
import time
from collections.abc import Callable
from pathlib import Path

import torch
from _machine import machine
from teachclip.configs.schema import NetworkConfig, TrunkConfig, TrunkSizes, Ts2NetConfig
from teachclip.stages.models.build import build_network
from teachclip.stages.models.common.network import Features
from teachclip.stages.models.common.pair_blocks import score_in_blocks
from torch import Tensor
from torch.nn import functional

type Score = Callable[[Features, Features], Tensor]

D, F, W = 512, 12, 32
VALID_WORDS = 12.7
FLOAT = 4
TRUNK = TrunkSizes(  # runs never; only embed_dim matters
    image_size=32, patch_size=16, vision_width=64, vision_layers=1, text_width=64, text_layers=1, embed_dim=D
)


class Way:
    """One way to score, and what it scores."""

    def __init__(self, score: Score, texts: Features, videos: Features) -> None:
        self.score, self.texts, self.videos = score, texts, videos
        self.seconds: list[float] = []

    def __call__(self) -> Tensor:
        return self.score(self.texts, self.videos)

    def measure(self, device: torch.device) -> None:
        """Time it once more."""
        _wait_for(device)
        begun = time.perf_counter()
        self()
        _wait_for(device)
        self.seconds.append(time.perf_counter() - begun)


def make(texts: int, videos: int, device: torch.device) -> dict[str, Way]:
    """Every way, over the same features."""
    torch.manual_seed(0)
    words, frames = torch.randn(texts, W, D, device=device), torch.randn(videos, F, D, device=device)
    valid = _valid_words(texts).to(device)
    sentences = words[torch.arange(texts), valid.sum(1) - 1]
    unit_sentences, unit_frames = functional.normalize(sentences, dim=-1), functional.normalize(frames, dim=-1)
    mean = functional.normalize(unit_frames.mean(dim=1), dim=-1)
    all_frames = torch.ones(videos, F, dtype=torch.bool, device=device)

    def network(kind: str):
        trunk = TrunkConfig(sizes=TRUNK, weights=None)
        ts2net = Ts2NetConfig(shift_layers=())
        config = NetworkConfig(kind=kind, trunk=trunk, temporal_layers=0, ts2net=ts2net)
        return build_network(config).to(device).eval()

    student, xclip, ts2net, xpool, drl = map(network, ("student", "xclip", "ts2net", "xpool", "drl"))
    drl_texts, drl_videos = drl.text_features(words, valid), drl.video_features(frames, all_frames, frames)
    pooling = xpool.pooling
    for parameter in pooling.parameters():  # away from the identity
        parameter.add_(0.02 * torch.randn_like(parameter))
    xpool_texts, xpool_videos = pooling.texts(sentences), pooling.videos(frames, None)
    condensed = {**xpool_videos, **pooling.condense(xpool_videos["values"])}
    del condensed["values"]
    return {
        "X-Pool, plain": Way(
            lambda texts, videos: score_in_blocks(pooling.plain_score, texts, videos, D * FLOAT),
            xpool_texts,
            xpool_videos,
        ),
        "X-Pool": Way(xpool.score, xpool_texts, condensed),
        "DRL, plain": Way(
            lambda texts, videos: score_in_blocks(drl.plain_score, texts, videos, W * F * FLOAT), drl_texts, drl_videos
        ),
        "DRL": Way(drl.score, drl_texts, drl_videos),
        "X-CLIP": Way(
            xclip.score,
            {"sentence": unit_sentences, "words": functional.normalize(words, dim=-1)},
            {"vector": mean, "frames": unit_frames},
        ),
        "TS2-Net": Way(ts2net.score, {"sentence": unit_sentences}, {"frames": unit_frames, "matched": all_frames}),
        "student": Way(student.score, {"vector": unit_sentences}, {"vector": mean}),
    }


def _valid_words(texts: int) -> Tensor:
    """Which of the word slots are valid [T, W]: 3 to W, VALID_WORDS on average but for the draw."""
    counts = torch.distributions.Binomial(W - 3, (VALID_WORDS - 3) / (W - 3)).sample((texts,)) + 3
    return torch.arange(W) < counts[:, None]


def _wait_for(device: torch.device) -> None:
    if device.type == "cuda":
        torch.cuda.synchronize(device)


def _where(device: torch.device) -> str:
    if device.type == "cuda":
        return f"{torch.cuda.get_device_name(device)}; {machine()}"
    return f"{machine()}, {torch.get_num_threads()} threads"


@torch.inference_mode()
def main() -> None:
    cuda = torch.cuda.is_available()
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--device", default="cuda" if cuda else "cpu")
    parser.add_argument("--texts", type=int, default=2048 if cuda else 128)
    parser.add_argument("--videos", type=int, default=1024, help="as many as a teacher scores at a time")
    parser.add_argument("--repeats", type=int, default=5)
    parser.add_argument("--threads", type=int, help="of the CPU; by default torch's choice")
    parser.add_argument("--out", type=Path, help="JSON file for the numbers")
    chosen = parser.parse_args()
    if chosen.threads:
        torch.set_num_threads(chosen.threads)
    device = torch.device(chosen.device)
    ways = make(chosen.texts, chosen.videos, device)
    scores = {name: way() for name, way in ways.items()}
    for name in ("X-Pool", "DRL"):
        torch.testing.assert_close(scores[name], scores[f"{name}, plain"], rtol=0, atol=2e-6)
    for _ in range(chosen.repeats):
        for way in ways.values():
            way.measure(device)
    pairs = chosen.texts * chosen.videos
    median_us = {name: 1e6 * statistics.median(way.seconds) / pairs for name, way in ways.items()}
    gain = {name: median_us[f"{name}, plain"] / median_us[name] for name in ("X-Pool", "DRL")}
    print(f"{_where(device)}; {chosen.texts:,} texts x {chosen.videos:,} videos, {chosen.repeats} repeats")
    print(f"\n{'microseconds a pair':22}{'median':>9}{'least':>9}{'most':>9}{'gain':>8}")
    for name, way in ways.items():
        spread = "".join(f"{1e6 * seconds / pairs:9.4f}" for seconds in (min(way.seconds), max(way.seconds)))
        print(f"  {name:20}{median_us[name]:9.4f}{spread}" + (f"{gain[name]:8.1f}" if name in gain else ""))
    if chosen.out:
        facts = {
            "machine": _where(device),
            "texts": chosen.texts,
            "videos": chosen.videos,
            "valid_words": ways["DRL"].texts["mask"].sum(1).float().mean().item(),
            "seconds": {name: way.seconds for name, way in ways.items()},
            "median_us": median_us,
            "gain": gain,
        }
        chosen.out.write_text(json.dumps(facts, indent=1) + "\n")


if __name__ == "__main__":
    main()
