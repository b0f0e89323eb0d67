"""Does with stores whatever can be done with stores that came from elsewhere, with little memory and little time.

As a program: `hostile_reader.py STORE...` prints one line of JSON per store: what each way of reading it said.
"""

import json
import resource
import signal
import sys
from collections.abc import Callable
from pathlib import Path

import numpy as np
from teachclip.cache.features import FeatureShards
from teachclip.cache.scores.exchange.packing import Export
from teachclip.cache.scores.store import ScoreStore
from teachclip.cache.scores.upkeep.catalog import summaries, teacher_info
from teachclip.cache.scores.upkeep.check import Check
from teachclip.cache.scores.upkeep.removal import collect_garbage
from teachclip.errors import TeachclipError

MEMORY = 2 * 2**30
SECONDS = 20


def read(path: Path) -> None:
    """Every score, by the ids that the store says it has."""
    cache = ScoreStore.open(path).teacher("tiny")
    for tile in cache.tiles:
        texts = [(key, bytes(row)) for key, row in zip(tile.text_ids, tile.text_digests, strict=True)]
        videos = [(key, bytes(row)) for key, row in zip(tile.video_ids, tile.video_digests, strict=True)]
        reader = cache.reader(texts, videos)
        reader.read(np.arange(len(texts)), np.arange(len(videos)))


def resume(path: Path) -> None:
    """As `score` goes on: the features of the videos that are there."""
    cache = ScoreStore.open(path).teacher("tiny")
    shards = FeatureShards(cache.videos_folder, {"weights": "ab" * 16, "score_version": 1}, shard_videos=4)
    digests = [bytes(row) for row in cache.tiles[0].video_digests]
    for group in shards.groups(digests):
        shards.read(digests[group])


WAYS: dict[str, Callable[[Path], object]] = {
    "read": read,
    "resume": resume,
    "verify": lambda path: [f.why for f in Check(path).run().findings],
    "verify full": lambda path: [f.why for f in Check(path, full=True).run().findings],
    "info": lambda path: teacher_info(ScoreStore.open(path), "tiny"),
    "ls": lambda path: [each.problem for each in summaries(ScoreStore.open(path))],
    "gc": lambda path: collect_garbage(path, dry=True, age=0.0),
    "export": lambda path: Export(path, "tiny", path.with_suffix(".out")).run(),
}


def outcome(way: Callable[[Path], object], path: Path) -> tuple[str, str]:
    try:
        found = way(path)
    except TeachclipError as error:
        return "refused", f"{error.where}: {error.what}"
    except BaseException as error:
        return type(error).__name__, str(error)
    return ("told", str(found)) if isinstance(found, list) and any(found) else ("read", "")


if __name__ == "__main__":
    size = next(int(line.split()[1]) * 1024 for line in open("/proc/self/status") if line.startswith("VmSize"))  # noqa: SIM115
    resource.setrlimit(resource.RLIMIT_AS, (size + MEMORY, size + MEMORY))
    for store in map(Path, sys.argv[1:]):
        signal.alarm(SECONDS)
        print(json.dumps({name: outcome(way, store) for name, way in WAYS.items()}), flush=True)  # noqa: T201
