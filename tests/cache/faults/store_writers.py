"""A small teacher's scores, written as `teachclip score` writes them; and a process whose children do so to be killed.

As a program: reads one JSON object per line: {"path": store, "log": file, "at": n, "count": c}. It forks `count`
children, each of which writes the store in `path` and kills itself at its n-th change to the disk (never, if null);
answers with their process ids; and, to one more line, with what became of each once all have ended. Forks are cheap,
since it has imported everything and used no array library.
"""

import json
import os
import sys
from collections.abc import Callable, Iterable
from pathlib import Path

import faulty_disk
import numpy as np
import teachclip.cache.scores.format.zarr_io  # noqa: F401 -- what else each child would import by itself
from teachclip.cache.features import FeatureShards
from teachclip.cache.scores.shard import missing_shards, problem, sweep, write_shard
from teachclip.cache.scores.store import ScoreStore
from teachclip.cache.scores.tile import Key, TileContents
from teachclip.cache.scores.upkeep.check import Check
from teachclip.cache.storage.identity import JSON, digest, text_digest
from teachclip.cache.storage.publish import remove_leftovers
from teachclip.errors import CacheError

TEXTS, VIDEOS, FRAMES, SHARD = 19, 7, 2, 8
SHARDS = -(-TEXTS // SHARD)
IDENTITY: dict[str, JSON] = {"weights": "ab" * 16, "score_version": 1}

OWN = np.arange(TEXTS) * 3 % VIDEOS
TEXT_KEYS: list[Key] = [(f"v{OWN[i]}.mp4#{i}", text_digest(f"caption {i}")) for i in range(TEXTS)]
VIDEO_KEYS: list[Key] = [(f"v{j}.mp4", digest(b"%d" % j)) for j in range(VIDEOS)]

_random = np.random.default_rng(3)
COARSE = _random.normal(0.3, 0.05, (TEXTS, VIDEOS)).astype(np.float32)
FINE = _random.normal(0.2, 0.05, (TEXTS, FRAMES)).astype(np.float32)
FEATURES = _random.normal(size=(VIDEOS, 4)).astype(np.float32)

type Report = Callable[[str], object]


def work(path: Path, report: Report = lambda _: None, other: float = 0.0) -> None:
    """Do what is left to do; `report` is told when the tile is there ("made") and of features and shards:
    "encoded first-video", "begun k", "written k", "finished". Scores are others by `other`."""
    store = ScoreStore.create(path)
    remove_leftovers(path)
    if "tiny" not in store.teachers:
        store.create_teacher("tiny", IDENTITY, 100.0, "uint16", FRAMES, True)
    cache = store.teacher("tiny")
    if not cache.tiles:
        cache.create_tile("dense", TileContents(TEXT_KEYS, VIDEO_KEYS, OWN, np.zeros((VIDEOS, FRAMES))), SHARD)
    report("made")
    shards = FeatureShards(cache.videos_folder, IDENTITY, shard_videos=4)
    digests = [key for _, key in VIDEO_KEYS]
    for group in shards.groups(digests):
        if shards.read(digests[group]) is None:
            shards.write(digests[group], {"vector": FEATURES[group]})
        report(f"encoded {group.start}")
    tile = cache.tiles[0]
    for shard in missing_shards(tile):
        if not problem(tile, shard):
            continue
        report(f"begun {shard}")
        rows = slice(shard * SHARD, (shard + 1) * SHARD)
        noise = np.float32(other)
        write_shard(tile, shard, COARSE[rows] + noise * COARSE[rows][:, ::-1], FINE[rows] + noise)
        report(f"written {shard}")
    if not missing_shards(tile):
        sweep(tile)
        report("finished")


def missing(path: Path, reported: Iterable[str]) -> list[str]:
    """Features and shards that were reported and are not there, with every byte."""
    lost = {line for line in reported if line.startswith(("encoded", "written", "finished"))}
    if not path.exists():
        return sorted(lost)
    store = ScoreStore.open(path)
    if "tiny" in store.teachers:
        cache = store.teacher("tiny")
        shards = FeatureShards(cache.videos_folder, IDENTITY, shard_videos=4)
        digests = [key for _, key in VIDEO_KEYS]
        for group in shards.groups(digests):
            held = shards.read(digests[group])
            if held is not None and np.array_equal(held["vector"], FEATURES[group]):
                lost.discard(f"encoded {group.start}")
        for tile in cache.tiles:
            lost -= {f"written {shard}" for shard in range(SHARDS) if not problem(tile, shard, every_byte=True)}
        if cache.complete:
            lost.discard("finished")
    return sorted(lost)


def first_to_notice(path: Path) -> str:
    """Who is the first to refuse the store: training (open, read), a resumed run, a full verification, or nobody."""
    try:
        cache = ScoreStore.open(path).teacher("tiny")
        reader = cache.reader(TEXT_KEYS, VIDEO_KEYS)
    except CacheError:
        return "open"
    try:
        reader.read(np.arange(TEXTS), np.arange(VIDEOS))
    except CacheError:
        return "read"
    try:
        digests = [key for _, key in VIDEO_KEYS]
        shards = FeatureShards(cache.videos_folder, IDENTITY, shard_videos=4)
        for group in shards.groups(digests):
            shards.read(digests[group])
    except CacheError:
        return "resume"
    return "verify" if verified(path) else "nobody"


def verified(path: Path) -> bool:
    """Whether a full verification refuses the store or finds something."""
    try:
        return bool(Check(path, full=True).run().findings)
    except CacheError:
        return True


def child(path: Path, log: Path, at: int | None) -> None:
    """Never returns."""
    code = 1
    try:
        handle = os.open(log, os.O_WRONLY | os.O_APPEND | os.O_CREAT)
        hook = faulty_disk.KillAt(at)
        with faulty_disk.watched(hook, sync=False):
            work(path, lambda line: os.write(handle, f"{line}\n".encode()))
        os.write(handle, f"changes {hook.calls}\n".encode())
        code = 0
    finally:
        os._exit(code)


def serve() -> None:
    for line in sys.stdin:
        order = json.loads(line)
        children = []
        for _ in range(order["count"]):
            pid = os.fork()
            if pid == 0:
                child(Path(order["path"]), Path(order["log"]), order["at"])
            children.append(pid)
        print(json.dumps(children), flush=True)  # noqa: T201
        sys.stdin.readline()  # until then nobody else has their ids
        print(json.dumps([os.waitpid(pid, 0)[1] for pid in children]), flush=True)  # noqa: T201


if __name__ == "__main__":
    serve()
