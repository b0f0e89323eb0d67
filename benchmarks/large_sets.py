"""What stage one comes to with 9,000, a million and 100 million videos: counts, no data.

    python benchmarks/large_sets.py [--videos 9000 1000000 100000000] [--captions 20] [--price 3.0] [--out FILE]

Tiles, shards and bytes are those that `score` would make: the same planner and the same sizes as in `stages/score`, of
ids that are numbers. Above a million videos they are a million's times as many. Hours are calculated for one H200 from
estimates that nobody has run: 32 videos of 12 frames through ViT-B/32 in 56 ms, 128 captions in 8.7 ms (with words) or
4.4 ms, pairs a second as listed. Reading frames, tokens and the disk are beside that, and bound the fast teachers.
"""

import argparse
import json
import time
from dataclasses import asdict, dataclass
from pathlib import Path

import numpy as np
from _machine import machine
from teachclip.cache.scores.format.sizes import tile_bytes
from teachclip.configs.schema import ScoreConfig
from teachclip.stages.score.tile_plan import choose_layout, plan_tiles, tile_layout

FRAMES, SIDE = 12, 224
MOST = 1_000_000
VIDEO_SECONDS = 0.056 / 32
TEACHERS = {  # seconds of a caption, pairs a second
    "X-CLIP": (0.0087 / 128, 42e6),
    "DRL": (0.0088 / 128, 130e6),
    "X-Pool": (0.0045 / 128, 380e6),
    "TS2-Net": (0.0044 / 128, 1500e6),
}


@dataclass(frozen=True)
class Counts:
    """Of one teacher, with all captions.

    Attributes:
        layout: dense or blocks; pairs, tiles, shards, bytes: of the store.
        frames: bytes of all frames, not compressed.
        planned: seconds that planning took here, on one core; None where it was not done.
    """

    videos: int
    texts: int
    layout: str
    pairs: int
    tiles: int
    shards: int
    bytes: int
    frames: int
    planned: float | None


def counts(videos: int, captions: int) -> Counts:
    """What `score` would make of so many videos with so many captions each."""
    if videos > MOST:
        part, times = counts(MOST, captions), videos / MOST
        scaled = {name: round(times * getattr(part, name)) for name in ("pairs", "tiles", "shards", "bytes", "frames")}
        return Counts(videos, videos * captions, part.layout, **scaled, planned=None)
    settings = ScoreConfig()
    ids = [f"video{k:07d}" for k in range(videos)]
    texts = [f"{video}#{k}" for video in ids for k in range(captions)]
    own = np.repeat(np.arange(videos), captions)
    layout = choose_layout(settings, None, tile_layout(settings, texts, ids, FRAMES, True))
    begun = time.process_time()
    plan = plan_tiles(None, texts, ids, own, layout, settings.block_videos)
    planned = time.process_time() - begun
    specs = [
        tile_layout(settings, [texts[k] for k in tile.texts], [ids[k] for k in tile.videos], FRAMES, True)
        for tile in plan.tiles
    ]
    sizes = sum(map(tile_bytes, specs)), videos * FRAMES * 3 * SIDE**2
    return Counts(videos, len(texts), layout, plan.pairs, len(specs), sum(s.shards for s in specs), *sizes, planned)


def hours(found: Counts, teacher: str) -> float:
    """Of one GPU, calculated: videos, captions, pairs."""
    caption, pairs = TEACHERS[teacher]
    return (found.videos * VIDEO_SECONDS + found.texts * caption + found.pairs / pairs) / 3600


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--videos", type=int, nargs="+", default=[9_000, 1_000_000, 100_000_000])
    parser.add_argument("--captions", type=int, default=20)
    parser.add_argument("--price", type=float, default=3.0, help="of a GPU's hour")
    parser.add_argument("--out", type=Path)
    given = parser.parse_args()
    every = [counts(videos, given.captions) for videos in given.videos]
    rows: dict[str, list[str]] = {
        "captions": [f"{one.texts:,}" for one in every],
        "layout": [one.layout for one in every],
        "pairs": [f"{one.pairs:,.3g}" for one in every],
        "tiles": [f"{one.tiles:,}" for one in every],
        "shards": [f"{one.shards:,}" for one in every],
        "scores of a teacher, GB": [f"{one.bytes / 1e9:,.1f}" for one in every],
        "frames, uncompressed, GB": [f"{one.frames / 1e9:,.0f}" for one in every],
        "planned in, s of one core": ["" if one.planned is None else f"{one.planned:.1f}" for one in every],
    }
    for teacher in TEACHERS:
        rows[f"{teacher}, GPU hours"] = [f"{hours(one, teacher):,.2g}" for one in every]
        rows[f"{teacher}, a million pairs"] = [
            f"{given.price * hours(one, teacher) / one.pairs * 1e6:.1g}" for one in every
        ]
    print(f"{machine()}\n\n| videos | {' | '.join(f'{one.videos:,}' for one in every)} |\n|{'---|' * (1 + len(every))}")
    for name, row in rows.items():
        print(f"| {name} | {' | '.join(row)} |")
    if given.out:
        made = [{**asdict(one), "hours": {name: hours(one, name) for name in TEACHERS}} for one in every]
        given.out.write_text(json.dumps({"machine": machine(), "price": given.price, "counts": made}))


if __name__ == "__main__":
    main()
