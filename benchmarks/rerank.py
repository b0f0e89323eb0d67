"""What a teacher that re-orders a student's candidates gains, and what it costs a query.

    python benchmarks/rerank.py demo/demo.yaml [--teacher xclip] [--queries 20] [--out rerank.json]

`demo/demo.yaml` is what `make demo` leaves; any configuration with a student (`search.run`), a teacher and a test split
will do. Gain: R@K in percent of the test split's captions among its videos, of the student alone, of the student whose
first N are re-ordered, of the teacher alone. Latency: milliseconds a query over all videos of the frame cache, median
over the queries: `student` alone; `re-rank, first time`: the frames of the first query's candidates go through the
teacher; `kept`: its features are read from the disk; `warm`: they are in memory; `teacher alone`: it scores every video
from memory. What
this makes lies in a folder of its own and goes with it; nothing of CONFIG's is changed.
"""

import argparse
import json
import statistics
import tempfile
import time
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any
from unittest import mock

import numpy as np
import torch
from _machine import machine
from teachclip.cache.frames.cache import FrameCache
from teachclip.configs.loading import load_config
from teachclip.configs.schema import Config
from teachclip.stages.data.dataset import read_dataset
from teachclip.stages.data.video_inputs import FrameInputs
from teachclip.stages.models.clip.tokens import tokenize
from teachclip.stages.models.frozen.teacher import load_teacher
from teachclip.stages.models.named import named_model
from teachclip.stages.retrieval.encode import comparing
from teachclip.stages.retrieval.metrics import retrieval_metrics
from teachclip.stages.runtime.reporting import Silent
from teachclip.stages.search import rerank
from teachclip.stages.search.rerank import CANDIDATES, Reranker
from teachclip.stages.search.stage import open_searcher

RECALLS = ("r1", "r5", "r10")
SHORTLISTS = (10, 25, 50, CANDIDATES)


def _whole(place: Path | str) -> Path | str:
    return place if isinstance(place, str) else place.absolute()


def elsewhere(config: Config, work: Path) -> Config:
    """The same student, teachers and frames; what is made lies in `work`."""
    teachers = tuple(
        each.model_copy(
            update={"checkpoint": config.teacher_checkpoint(each), "prepared": _whole(config.teacher_frames(each))}
        )
        for each in config.score.teachers
    )
    return config.model_copy(
        update={
            "work": work,
            "prepare": config.prepare.model_copy(update={"frames": _whole(config.frames_folder)}),
            "score": config.score.model_copy(update={"teachers": teachers}),
            "search": config.search.model_copy(update={"run": config.search_run.absolute()}),
        }
    )


def reordered(student: np.ndarray, teacher: np.ndarray, candidates: int) -> np.ndarray:
    """Scores [T, V] whose order is the student's, its first `candidates` of each text in the teacher's."""
    found = student - 4.0  # below every candidate: cosines lie in [-1, 1]
    first = np.argsort(-student, axis=1, kind="stable")[:, :candidates]
    order = np.argsort(np.argsort(np.take_along_axis(teacher, first, axis=1), axis=1, kind="stable"), axis=1)
    np.put_along_axis(found, first, order.astype(found.dtype), axis=1)
    return found


def gains(config: Config, teacher: str) -> dict[str, Any]:
    """Recalls of the test split by way."""
    frames = FrameCache.open(config.frames_folder)
    data, usable = read_dataset(config.data), set(frames.usable)
    videos = [video.id for video in data.videos if video.split == "test" and video.id in usable]
    place = {video: k for k, video in enumerate(videos)}
    texts = [text for text in data.texts if text.video in place]
    own = np.array([place[text.video] for text in texts])
    settings = next(each for each in config.score.teachers if each.name == teacher)
    networks = {
        "student": named_model(config.search_run).network,
        "teacher": load_teacher(settings, config.teacher_checkpoint(settings)).network,  # type: ignore[attr-defined]
    }
    scores = {}
    for name, network in networks.items():
        ids = tokenize([text.caption for text in texts], network.config.words)[0]
        seen = FrameCache.open(config.teacher_frames(settings)) if name == "teacher" else frames
        with comparing(network, FrameInputs(seen, videos), Silent()) as scores_of, torch.no_grad():
            blocks = [np.arange(start, min(start + 512, len(texts))) for start in range(0, len(texts), 512)]
            of = scores_of(ids)
            scores[name] = np.concatenate([of(block, slice(0, len(videos))) for block in blocks])
    ways = {"student alone": scores["student"]}
    for count in SHORTLISTS:
        ways[f"first {count} re-ranked"] = reordered(scores["student"], scores["teacher"], count)
    ways["teacher alone"] = scores["teacher"]
    found = {way: retrieval_metrics(matrix, own, len(videos))["t2v"] for way, matrix in ways.items()}
    recalls = {way: {key: float(getattr(metrics, key)) for key in RECALLS} for way, metrics in found.items()}
    return {"texts": len(texts), "videos": len(videos), "recalls": recalls}


def timed(run: Callable[[str], object], queries: Sequence[str]) -> float:
    """Milliseconds, the median over the queries."""
    took = []
    for query in queries:
        began = time.perf_counter()
        run(query)
        took.append(time.perf_counter() - began)
    return 1e3 * statistics.median(took)


def latencies(config: Config, teacher: str, queries: Sequence[str]) -> dict[str, Any]:
    """Of a query, by way; and what features take on the disk."""
    found: dict[str, Any] = {}
    with open_searcher(config) as searcher:
        searcher.search(queries[:1])
        found["student"] = timed(lambda query: searcher.search([query]), queries)
        reranker = Reranker.open(config, teacher)

        def ask(reranker: Reranker, asked: Sequence[str]) -> float:
            return timed(lambda query: searcher.search([query], rerank=reranker), asked)

        found["re-rank, first time"] = ask(reranker, queries[:1])
        ask(reranker, queries)
        found["re-rank, warm"] = ask(reranker, queries)
        with mock.patch.object(rerank, "MEMORY", 0):
            found["re-rank, kept"] = ask(Reranker.open(config, teacher), queries)
        kept = list((config.work / "rerank").rglob("*.safetensors"))
        found["bytes_a_video"] = statistics.mean(file.stat().st_size for file in kept)
        reranker.features(searcher.videos)
        found["teacher alone"] = timed(lambda query: reranker.scores(query, searcher.videos), queries)
        found["videos"] = len(searcher.videos)
    return found


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("config", type=Path)
    parser.add_argument("--teacher", default="xclip", help="a name in score.teachers")
    parser.add_argument("--queries", type=int, default=20, help="captions of the test split that are timed")
    parser.add_argument("--out", type=Path)
    given = parser.parse_args()
    config = load_config(given.config)
    captions = [text.caption for text in read_dataset(config.data).texts_of("test")][::7][: given.queries]
    with tempfile.TemporaryDirectory() as work:
        config = elsewhere(config, Path(work))
        gain, latency = gains(config, given.teacher), latencies(config, given.teacher, captions)
    print(f"{machine()}; {gain['texts']} captions, {gain['videos']} test videos: R@1, R@5, R@10")
    for way, recalls in gain["recalls"].items():
        print(f"{way:<24}", *(f"{recalls[key]:6.1f}" for key in RECALLS))
    print(f"milliseconds a query over {latency['videos']} videos")
    for way in ("student", "re-rank, first time", "re-rank, kept", "re-rank, warm", "teacher alone"):
        print(f"{way:<24} {latency[way]:8.1f}")
    print(f"features of a video: {latency['bytes_a_video']:,.0f} bytes")
    if given.out:
        given.out.write_text(json.dumps({"machine": machine(), "gain": gain, "latency_ms": latency}, indent=1))


if __name__ == "__main__":
    main()
