"""From frames to answers: what is indexed, what is found, what is refused."""

import csv
import os
import shutil
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from teachclip.cache.frames.cache import FrameCache
from teachclip.cache.vectors import Vectors, publish_vectors, read_vectors
from teachclip.configs.schema import Config
from teachclip.errors import CacheError, CacheMismatchError, CheckpointError, DataError, TeachclipError
from teachclip.remedies import DeleteFolder, Prepare
from teachclip.stages.demo.write_h264 import write_h264
from teachclip.stages.models.build import build_network
from teachclip.stages.models.checkpoints.files import load_network, save_network
from teachclip.stages.models.clip.tokens import tokenize
from teachclip.stages.prepare.stage import prepare
from teachclip.stages.search import index as index_stage
from teachclip.stages.search.index import index
from teachclip.stages.search.stage import search

FRAMES, SIZE = 4, 32
NETWORK = {
    "trunk": {
        "sizes": {
            "image_size": SIZE, "patch_size": 16, "vision_width": 64, "vision_layers": 1,
            "text_width": 64, "text_layers": 1, "embed_dim": 64, "context_length": 16,
        },
        "weights": None,
    },
    "words": 10, "frames": FRAMES, "temporal_layers": 1,
}  # fmt: skip


class Heard:
    """A reporter that remembers."""

    def __init__(self) -> None:
        self.infos: list[str] = []
        self.warnings: list[str] = []

    def info(self, message: str) -> None:
        self.infos.append(message)

    def warn(self, message: str) -> None:
        self.warnings.append(message)

    def progress(self, title: str, total: int | None, unit: str, done: int = 0) -> Any:
        from teachclip.stages.runtime.reporting import Silent

        return Silent().progress(title, total, unit, done)


class Place:
    """A folder with clips, a caption file and two students."""

    def __init__(self, root: Path, names: Sequence[str] = ()) -> None:
        self.root = root
        self.names = list(names)

    def config(self, **search: Any) -> Config:
        return Config.model_validate(
            {
                "work": self.root / "work",
                "data": {"captions": self.root / "own" / "captions.csv", "val_fraction": 0.0},
                "prepare": {"image_size": SIZE, "max_frames": FRAMES, "workers": 1},
                "search": {"device": "cpu", "run": "runs/a", **search},
            }
        )

    def add(self, name: str, seed: int, split: str = "train") -> None:
        noise = np.random.default_rng(seed).integers(0, 255, (FRAMES, 4, 4, 3), dtype=np.uint8)
        write_h264(self.root / "own" / name, noise.repeat(16, 1).repeat(16, 2), fps=1)
        self.names.append(name)
        with (self.root / "own" / "captions.csv").open("a", newline="") as file:
            writer = csv.writer(file)
            if file.tell() == 0:
                writer.writerow(["video", "caption", "split"])
            writer.writerow([name, f"clip number {seed}", split])

    def student(self, run: str, seed: int, **network: Any) -> Path:
        torch.manual_seed(seed)
        config = Config.model_validate({"train": {"network": {**NETWORK, **network}}}).train.network
        path = self.root / "work" / "runs" / run / "best.safetensors"
        path.parent.mkdir(parents=True, exist_ok=True)
        save_network(build_network(config), path)
        return path


@pytest.fixture(scope="module")
def prepared(tmp_path_factory: pytest.TempPathFactory) -> Place:
    made = Place(tmp_path_factory.mktemp("place"))
    for seed, split in enumerate(["train", "train", "test", "val", "train"]):
        made.add(f"clips/{seed} <ü>.mp4", seed, split)
    prepare(made.config())
    made.student("a", 1)
    return made


@pytest.fixture
def place(prepared: Place, tmp_path: Path) -> Place:
    """A copy of its own for each test."""
    shutil.copytree(prepared.root, tmp_path, dirs_exist_ok=True)
    return Place(tmp_path, prepared.names)


def exact(place: Place, query: str, run: str = "a") -> dict[str, float]:
    """Cosines of all videos, by the network itself."""
    network = load_network(place.root / "work" / "runs" / run)
    frames = FrameCache.open(place.config().frames_folder)
    clips = frames.read(frames.usable)
    with torch.no_grad():
        videos = network.encode_videos(torch.from_numpy(clips.frames), torch.from_numpy(clips.mask))
        scores = network.score(network.encode_texts(tokenize([query], 10)[0]), videos)[0]
    return dict(zip(frames.usable, scores.tolist(), strict=True))


def test_answers_are_the_networks_own_cosines_of_every_split(place: Place) -> None:
    made = index(place.config())
    assert (made.videos, made.added, made.kept, made.width) == (5, 5, 0, 64)
    result = search(place.config(top=3), ["clip number 2", "something else"])
    assert [found.query for found in result.queries] == ["clip number 2", "something else"]
    for found in result.queries:
        answers = found.answers
        wanted = sorted(exact(place, found.query).items(), key=lambda item: -item[1])[:3]
        assert [answer.video for answer in answers] == [video for video, _ in wanted]
        assert [answer.rank for answer in answers] == [1, 2, 3]
        # float16 storage: half a unit in the last place of each coordinate
        np.testing.assert_allclose([answer.cosine for answer in answers], [c for _, c in wanted], atol=5e-4)
        assert all(Path(answer.path).is_file() for answer in answers)


def test_top_larger_than_the_collection_gives_all(place: Place) -> None:
    index(place.config())
    (found,) = search(place.config(top=50), ["a"]).queries
    answers = found.answers
    assert {answer.video for answer in answers} == set(place.names)


def test_run_again_encodes_nothing(place: Place) -> None:
    index(place.config())
    before = {path: os.stat(path).st_mtime_ns for path in place.config().index_folder.iterdir()}
    again = index(place.config())
    assert (again.added, again.kept, again.removed, again.remade) == (0, 5, 0, None)
    assert {path: os.stat(path).st_mtime_ns for path in place.config().index_folder.iterdir()} == before


def test_new_videos_are_added_and_gone_ones_leave(place: Place) -> None:
    index(place.config())
    first = read_vectors(place.config().index_folder)
    assert first is not None
    text = (place.root / "own/captions.csv").read_text().splitlines(keepends=True)
    (place.root / "own/captions.csv").write_text("".join([text[0], *text[2:]]))  # the first clip leaves
    place.add("clips/new.mp4", 77)
    config = place.config()
    fresh = config.model_copy(update={"prepare": config.prepare.model_copy(update={"frames": Path("frames2")})})
    prepare(fresh)
    made = index(fresh)
    assert (made.videos, made.added, made.kept, made.removed, made.remade) == (5, 1, 4, 1, None)
    second = read_vectors(config.index_folder)
    assert second is not None
    assert second.videos[-1] == "clips/new.mp4"
    np.testing.assert_array_equal(second.matrix[:4], first.matrix[1:])


def test_another_model_remakes_every_vector_and_says_so(place: Place) -> None:
    index(place.config())
    place.student("b", 2)
    with pytest.raises(CacheMismatchError, match="another model"):
        search(place.config(run="runs/b"), ["a"])
    heard = Heard()
    made = index(place.config(run="runs/b"), heard)
    assert (made.added, made.kept, made.remade) == (5, 0, "the model")
    assert any("the model changed" in message for message in heard.infos)
    (found,) = search(place.config(run="runs/b", top=1), ["clip number 2"]).queries
    answers = found.answers
    wanted = exact(place, "clip number 2", "b")
    assert answers[0].video == max(wanted, key=wanted.__getitem__)


def test_killed_while_encoding_keeps_what_was_published(place: Place, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(index_stage, "VIDEOS_AT_ONCE", 2)
    monkeypatch.setattr(index_stage, "SAVE_SECONDS", 0.0)
    read, calls = index_stage.FrameInputs.read, []

    def killed(self: Any, rows: np.ndarray) -> Any:
        calls.append(len(rows))
        if len(calls) == 3:
            raise KeyboardInterrupt
        return read(self, rows)

    monkeypatch.setattr(index_stage.FrameInputs, "read", killed)
    with pytest.raises(KeyboardInterrupt):
        index(place.config())
    monkeypatch.undo()
    made = index(place.config())
    assert (made.kept, made.added, made.videos) == (4, 1, 5)


def test_mean_pooling_searches_too(place: Place) -> None:
    place.student("mean", 3, pooling="mean")
    index(place.config(run="runs/mean"))
    assert len(search(place.config(run="runs/mean"), ["a"]).queries[0].answers) == 5


@pytest.mark.parametrize("ask", [index, lambda config: search(config, ["a"])])
def test_a_teacher_is_refused(place: Place, ask: Callable[[Config], Any]) -> None:
    place.student("teacher", 4, kind="xclip")
    with pytest.raises(CheckpointError, match="no single vector per video") as caught:
        ask(place.config(run="runs/teacher"))
    assert "search.run" in str(caught.value.hint)


@pytest.mark.parametrize("queries", [[], [""], ["fine", "  \n"]])
def test_empty_sentences_are_refused(place: Place, queries: list[str]) -> None:
    with pytest.raises(DataError) as caught:
        search(place.config(), queries)
    if len(queries) > 1:
        assert "sentence 2" in str(caught.value)


def test_search_without_index_or_frames_says_what_to_do(place: Place) -> None:
    with pytest.raises(CacheError, match="no index"):
        search(place.config(), ["a"])
    config = place.config()
    elsewhere = config.model_copy(update={"prepare": config.prepare.model_copy(update={"frames": Path("none")})})
    with pytest.raises(TeachclipError) as caught:
        index(elsewhere)
    assert caught.value.hint.action == Prepare()


def test_vectors_that_are_not_finite_are_refused_with_the_videos(place: Place) -> None:
    network = build_network(Config.model_validate({"train": {"network": NETWORK}}).train.network)
    with torch.no_grad():
        next(parameter for name, parameter in network.named_parameters() if "afa" in name).fill_(1e38)
    save_network(network, place.root / "work/runs/a/best.safetensors")
    with pytest.raises(TeachclipError, match="not finite") as caught:
        index(place.config())
    assert place.names[0] in str(caught.value)
    assert read_vectors(place.config().index_folder) is None


def test_damaged_index_is_refused(place: Place) -> None:
    index(place.config())
    (path,) = place.config().index_folder.glob("*.npy")
    path.write_bytes(path.read_bytes()[:-1])
    with pytest.raises(CacheError, match="damaged") as caught:
        search(place.config(), ["a"])
    assert caught.value.hint.action == DeleteFolder(str(place.config().index_folder))


def test_a_sentence_that_is_cut_is_announced(place: Place) -> None:
    index(place.config())
    heard = Heard()
    search(
        place.config(),
        ["one two three four five six seven eight", "one two three four five six seven eight nine"],
        heard,
    )
    assert len(heard.warnings) == 1
    assert "nine" in heard.warnings[0]


def test_many_vectors_are_searched_exactly(place: Place, monkeypatch: pytest.MonkeyPatch) -> None:
    from teachclip.stages.search import searcher as nearest

    monkeypatch.setattr(nearest, "ROWS_AT_ONCE", 100)
    rows = np.random.default_rng(0).normal(size=(777, 64))
    rows = (rows / np.linalg.norm(rows, axis=1, keepdims=True)).astype(np.float16)
    index(place.config())
    made = read_vectors(place.config().index_folder)
    assert made is not None
    publish_vectors(place.config().index_folder, Vectors(made.identity, {f"{k}.mp4": "" for k in range(777)}, rows))
    (found,) = search(place.config(top=20), ["a"]).queries
    answers = found.answers
    network = load_network(place.root / "work/runs/a")
    with torch.no_grad():
        query = network.encode_texts(tokenize(["a"], 10)[0])["vector"][0].numpy()
    cosines = rows.astype(np.float32) @ query
    best = np.argsort(-cosines)[:20]
    assert [answer.video for answer in answers] == [f"{k}.mp4" for k in best]
    np.testing.assert_allclose([answer.cosine for answer in answers], cosines[best], atol=1e-6)
