"""A small world to score, a teacher without a network, and processes that score in it and are killed.

As a program it reads lines `[FOLDER, KILLS, SEED, WORKERS, CHANGES, STORE, ENVIRONMENT]`, JSON, and for each scores the
world in FOLDER, into its own store or (STORE) at an address; KILLS times it kills the workers, at a random moment or
(CHANGES > 0) at one of their first CHANGES changes to the disk or requests to the server, and starts them again; it
answers with how many were killed, and how many shards were scored more than once, or with null where that failed: why
stands in FOLDER.errors then. Workers are forked before any array library has been used, and from one process, since one
that imports torch anew costs seconds.
"""

import csv
import hashlib
import itertools
import json
import os
import random
import signal
import sys
import time
import traceback
from collections.abc import Callable, Iterable, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import torch
from teachclip.cache.frames.cache import FrameFolder, frame_identity
from teachclip.cache.frames.record import FileStamp, VideoRecord, VideoStatus
from teachclip.cache.storage import locations
from teachclip.configs.schema import Config, TeacherConfig
from teachclip.stages.models.common.network import Features
from teachclip.stages.score import one_teacher, stage

sys.path.append(str(Path(__file__).parents[2] / "cache" / "faults"))
import faulty_disk

FRAMES, SIZE, WIDTH = 3, 2, 64


class FakeTeacher:
    """Knows a video by the value of its frames, and a caption by the number in it; both as noisy vectors.

    Its checkpoint is a text file: `good`, `chance` (vectors of captions have nothing to do with the videos'), `plain`
    (no frame logits), `nan-video 3`, `nan-pair 3 5`, `inf-pair 3 5`; what follows a `#` is not part of it.
    """

    name, score_version, frames, words, scale = "fake", 1, FRAMES, 8, 50.0
    loads = 0
    videos_encoded = 0
    pairs_scored = 0
    pause = 0.0

    def __init__(self, checkpoint: Path) -> None:
        FakeTeacher.loads += 1
        self.kind, *self.arguments = checkpoint.read_text().split("#")[0].split()
        self.weights_digest = hashlib.blake2b(self.kind.encode()).hexdigest()

    def _vectors(self, numbers: Sequence[int], salt: int) -> torch.Tensor:
        chance = salt if self.kind == "chance" else 0
        own = np.stack([np.random.default_rng([7, number, chance]).normal(size=WIDTH) for number in numbers])
        noise = np.stack([np.random.default_rng([salt, number]).normal(size=WIDTH) for number in numbers])
        return torch.nn.functional.normalize(torch.tensor(own + 0.5 * noise, dtype=torch.float32), dim=1)

    def encode_videos(self, frames: torch.Tensor, mask: torch.Tensor, times: torch.Tensor) -> Features:
        FakeTeacher.videos_encoded += len(frames)
        assert frames.shape[1:] == (FRAMES, 3, SIZE, SIZE)
        assert (mask == ~times.isnan()).all()
        time.sleep(self.pause)
        numbers = frames[:, 0, 0, 0, 0].long()
        vector = self._vectors(numbers.tolist(), 1)
        if self.kind == "nan-video":
            vector[numbers == int(self.arguments[0])] = torch.nan
        return {"vector": vector, "number": numbers}

    def encode_texts(self, captions: Sequence[str]) -> Features:
        time.sleep(self.pause)
        numbers = [int(caption.split()[1]) for caption in captions]
        return {"vector": self._vectors(numbers, 2), "number": torch.tensor(numbers)}

    def score(self, texts: Features, videos: Features) -> torch.Tensor:
        scores = texts["vector"] @ videos["vector"].T
        FakeTeacher.pairs_scored += scores.numel()
        if self.kind in ("nan-pair", "inf-pair"):
            text, video = map(int, self.arguments)
            hit = (texts["number"][:, None] == text) & (videos["number"][None] == video)
            scores[hit] = torch.nan if self.kind == "nan-pair" else torch.inf
        return scores

    def frame_logits(self, texts: Features, videos: Features) -> torch.Tensor | None:
        if self.kind == "plain":
            return None
        together = texts["vector"] * videos["vector"]
        return torch.stack([together[:, k::FRAMES].sum(dim=1) for k in range(FRAMES)], dim=1)


def load_fake(config: TeacherConfig, checkpoint: Path, device: object, *_: object, **__: object) -> FakeTeacher:
    return FakeTeacher(checkpoint)


def config_of(root: Path, **score: Any) -> Config:
    """The world's configuration; `score` changes settings of its section."""
    settings: dict[str, Any] = {
        "teachers": [{"name": "fake", "checkpoint": "teacher.txt"}],
        "shard_texts": 8,
        "text_batch": 5,
        "video_batch": 4,
        "device": "cpu",
    }
    return Config.model_validate(
        {
            "work": root / "work",
            "data": {"captions": root / "captions.csv", "val_fraction": 0.0},
            "score": settings | score,
        }
    )


def make_frames(root: Path, videos: int, choice: str = "uniform", changed: Sequence[int] = ()) -> None:
    """A frame cache: video k's frames have the value k; the last video could not be decoded."""
    identity = frame_identity(
        sample_fps=1, choice=choice, max_frames=FRAMES, image_size=SIZE, storage="raw", jpeg_quality=95
    )
    records = []
    for k in range(videos):
        count = 1 + k % FRAMES
        images = [np.full((3, SIZE, SIZE), k, np.uint8) for _ in range(count)]
        if k in changed:
            images[0][1] += 1
        status = VideoStatus(f"v{k:03d}.mp4", "ok", frames=count, duration=float(count))
        records.append(VideoRecord.of(status, images, list(np.arange(float(count))), FileStamp(1, 1)))
    records.append(VideoRecord(VideoStatus("broken.mp4", "corrupt", "not a video")))
    folder = FrameFolder.claim(root / "work" / "frames", identity)
    folder.write(0, records)
    folder.complete()


def make_world(root: Path, texts: int = 37, videos: int = 17, teacher: str = "good") -> Path:
    """Captions `number k` of video k, in rounds, and the frames; the captions are all of split train."""
    (root / "work").mkdir(parents=True)
    make_frames(root, videos)
    rows = [(f"v{i % videos:03d}.mp4", f"number {i % videos} in round {i // videos}") for i in range(texts)]
    with (root / "captions.csv").open("w", newline="") as file:
        csv.writer(file).writerows([("video", "caption", "split"), *((*row, "train") for row in rows)])
        csv.writer(file).writerow(("broken.mp4", "number 0 is broken", "train"))
        csv.writer(file).writerow(("v000.mp4", "number 0 once more", "train"))
    (root / "work" / "teacher.txt").write_text(teacher)
    return root


def grow(root: Path, videos: int, captions: Sequence[tuple[int, str]]) -> None:
    """More videos, of which there are `videos` then, and more captions: the number of the video and a word or two."""
    for file in (root / "work/frames").iterdir():
        file.unlink()
    make_frames(root, videos)
    with (root / "captions.csv").open("a", newline="") as file:
        csv.writer(file).writerows((f"v{k:03d}.mp4", f"number {k} {words}", "train") for k, words in captions)


def kill_at_request(number: int) -> None:
    """This process is killed once it has made so many requests, before it hears of the last one."""
    answer, made = locations.Remote._answer, itertools.count(1)

    def counted(*arguments: Any, **options: Any) -> Any:
        if next(made) >= number:
            os.kill(os.getpid(), signal.SIGKILL)
        return answer(*arguments, **options)

    locations.Remote._answer = counted  # type: ignore[method-assign]


def work(root: Path, at: int | None, store: str | None) -> None:
    """What one worker does; never returns."""
    code = 1
    log = os.open(root / "scored.log", os.O_WRONLY | os.O_APPEND | os.O_CREAT)
    score = one_teacher.Scorer.score

    def logged(scorer: one_teacher.Scorer, shards: Iterable[int], advance: Callable[[int], None]) -> Any:
        for shard, rows in score(scorer, shards, advance):
            os.write(log, f"{scorer.tile.name} {shard}\n".encode())
            yield shard, rows

    one_teacher.Scorer.score = logged  # type: ignore[method-assign]
    try:
        if store and at:
            kill_at_request(at)
        with faulty_disk.watched(faulty_disk.KillAt(None if store else at), within=root):
            stage.score(config_of(root, **({"store": store} if store else {})))
        code = 0
    finally:
        os._exit(code)


def start(root: Path, workers: int, at: int | None = None, store: str | None = None) -> list[int]:
    children = []
    for _ in range(workers):
        child = os.fork()
        if child == 0:
            work(root, at, store)
        children.append(child)
    return children


def main(
    root: Path,
    kills: int,
    seed: int,
    workers: int,
    changes: int,
    store: str | None = None,
    environment: dict[str, str] | None = None,
) -> int:
    os.environ.update(environment or {})
    torch.set_num_threads(1)
    one_teacher.load_teacher = load_fake  # type: ignore[assignment]
    FakeTeacher.pause = 0.03
    rng = random.Random(seed)
    killed = 0
    for _ in range(kills):
        children = start(root, workers, rng.randrange(1, changes) if changes else None, store)
        if not changes:
            time.sleep(rng.uniform(0.0, 3.0 if store else 0.35))
        for child in children:
            if not changes:
                os.kill(child, signal.SIGKILL)
            killed += os.waitpid(child, 0)[1] == signal.SIGKILL
    failed = sum(os.waitpid(child, 0)[1] != 0 for child in start(root, workers, store=store))
    scored = (root / "scored.log").read_text().splitlines()
    if not failed:
        sys.stdout.write(f"{json.dumps([killed, len(scored) - len(set(scored))])}\n")
        sys.stdout.flush()
    return failed


def answer(line: str) -> None:
    """Does in a process of its own what a line asks for."""
    child = os.fork()
    if child == 0:
        code = 1
        try:
            folder, *others = json.loads(line)
            os.dup2(os.open(f"{folder}.errors", os.O_WRONLY | os.O_CREAT), sys.stderr.fileno())
            code = main(Path(folder), *others)
        except BaseException:
            traceback.print_exc()
        finally:
            sys.stderr.flush()
            os._exit(code)
    if os.waitpid(child, 0)[1]:
        sys.stdout.write("null\n")
        sys.stdout.flush()


if __name__ == "__main__":
    for asked in sys.stdin:
        answer(asked)
