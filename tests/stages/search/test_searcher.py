"""A searcher: opened once, asked often, by several threads; what it reads, and what it refuses."""

import shutil
from collections import Counter
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

import faiss
import numpy as np
import pytest
import torch
from teachclip.cache.frames import cache as frame_cache
from teachclip.cache.vectors import Vectors, exact_index, publish_vectors, read_vectors
from teachclip.errors import CacheError, CacheMismatchError, CheckpointError, DataError
from teachclip.stages.models import named
from teachclip.stages.models.checkpoints import files
from teachclip.stages.models.checkpoints.files import load_network
from teachclip.stages.models.clip.tokens import tokenize
from teachclip.stages.models.common.network import VideoTextNetwork
from teachclip.stages.prepare.stage import prepare
from teachclip.stages.search import index as index_module
from teachclip.stages.search import searcher as searcher_module
from teachclip.stages.search.index import index
from teachclip.stages.search.searcher import Searcher
from teachclip.stages.search.stage import open_searcher, search

LONG = "one two three four five six seven eight"  # 8 tokens: all that a model of 10 words reads


@pytest.fixture
def indexed(place: Any) -> Any:
    index(place.config())
    return place


@pytest.fixture
def calls(monkeypatch: pytest.MonkeyPatch) -> Counter[str]:
    """How often what is slow is called."""
    counted: Counter[str] = Counter()

    def count(module: Any, name: str) -> None:
        function = getattr(module, name)

        def counting(*arguments: Any, **words: Any) -> Any:
            counted[name] += 1
            return function(*arguments, **words)

        monkeypatch.setattr(module, name, counting)

    count(files, "read_weights")
    count(named, "network_digest")
    count(searcher_module, "read_vectors")
    count(index_module, "read_vectors")
    count(searcher_module, "exact_index")
    count(VideoTextNetwork, "tokenize_telling")
    count(frame_cache, "_open_shard")
    return counted


def test_it_answers_as_a_search_does_whatever_was_asked_before(indexed: Any) -> None:
    queries = ["clip number 2", "something else", LONG, f"{LONG} nine"]
    with Searcher.open(indexed.config()) as searcher:
        assert sorted(searcher.videos) == sorted(indexed.names)
        for query in (*queries, *queries):
            alone = searcher.search([query], top=3)
            assert alone.queries == search(indexed.config(top=3), [query]).queries
            assert alone.videos == 5
        assert [len(found.answers) for found in searcher.search(queries, top=50).queries] == [5] * 4
        assert len(searcher.search(queries).queries) == 4


def test_a_search_reads_everything_once(indexed: Any, calls: Counter[str]) -> None:
    search(indexed.config(), ["clip number 2"])
    once = {"read_weights": 1, "network_digest": 1, "read_vectors": 1, "exact_index": 1, "tokenize_telling": 2}
    assert calls == once  # its vocabulary, and the sentence; no shard of frames is opened


def test_asking_again_reads_nothing(indexed: Any, calls: Counter[str]) -> None:
    with open_searcher(indexed.config()) as searcher:
        calls.clear()
        shutil.rmtree(indexed.root / "work")
        for _ in range(3):
            assert searcher.search(["clip number 2"]).queries[0].answers
        assert calls == {"tokenize_telling": 3}


def test_open_searcher_brings_the_index_up_to_date_and_open_does_not(indexed: Any) -> None:
    indexed.add("clips/new.mp4", 77)
    config = indexed.config()
    fresh = config.model_copy(update={"prepare": config.prepare.model_copy(update={"frames": Path("frames2")})})
    prepare(fresh)
    with Searcher.open(fresh) as old, open_searcher(fresh) as new:
        assert set(new.videos) - set(old.videos) == {"clips/new.mp4"}
        assert len(old.search(["a"], top=9).queries[0].answers) == 5
        assert len(new.search(["a"], top=9).queries[0].answers) == 6


def test_it_needs_no_frames_and_no_configuration(indexed: Any) -> None:
    config = indexed.config()
    wanted = search(config, ["clip number 2"]).queries[0]
    shutil.rmtree(config.frames_folder)
    with Searcher.open(config) as searcher:
        assert searcher.search(["clip number 2"]).queries == (wanted,)
    with Searcher.from_files(config.search_run, config.index_folder, device="cpu") as searcher:
        found = searcher.search(["clip number 2"]).queries[0]
    assert [(answer.video, answer.cosine) for answer in found.answers] == [
        (answer.video, answer.cosine) for answer in wanted.answers
    ]
    assert [answer.path for answer in found.answers] == [answer.video for answer in wanted.answers]


def test_many_threads_ask_at_once(indexed: Any) -> None:
    queries = [f"clip number {k} {'and so on ' * (k % 4)}" for k in range(64)]
    with Searcher.open(indexed.config()) as searcher:
        alone = [searcher.search([query]).queries[0] for query in queries]
        with ThreadPoolExecutor(8) as pool:
            together = list(pool.map(lambda query: searcher.search([query]).queries[0], queries))
    assert together == alone


def test_the_words_that_are_read_are_the_tokenizers(indexed: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    seen: list[torch.Tensor] = []
    queries = ["a", LONG, f"{LONG} nine", f"{LONG} nine ten eleven"]
    with Searcher.open(indexed.config()) as searcher:
        assert searcher._opened is not None
        encode = searcher._opened.network.encode_texts

        def spy(ids: torch.Tensor) -> Any:
            seen.append(ids)
            return encode(ids)

        monkeypatch.setattr(searcher._opened.network, "encode_texts", spy)
        searcher.search(queries)
    assert torch.equal(seen[0], tokenize(queries, 10)[0])


def test_each_sentence_that_is_cut_is_announced(indexed: Any, heard: Any) -> None:
    with Searcher.open(indexed.config()) as searcher:
        searcher.search([LONG, f"{LONG} nine"], reporter=heard)
    (warning,) = heard.warnings
    assert "first 8 tokens" in warning
    assert "nine" in warning


def test_an_index_of_another_model_is_refused(indexed: Any) -> None:
    indexed.student("b", 2)
    with pytest.raises(CacheMismatchError, match="another model"):
        Searcher.open(indexed.config(run="runs/b"))


def test_no_index_and_a_damaged_one_are_refused(place: Any) -> None:
    with pytest.raises(CacheError, match="no index"):
        Searcher.open(place.config())
    index(place.config())
    (path,) = place.config().index_folder.glob("*.npy")
    path.write_bytes(path.read_bytes()[:-1])
    with pytest.raises(CacheError, match="damaged"):
        Searcher.open(place.config())


def test_a_teacher_is_refused(indexed: Any) -> None:
    indexed.student("teacher", 4, kind="xclip")
    with pytest.raises(CheckpointError, match="no single vector per video"):
        Searcher.open(indexed.config(run="runs/teacher"))


@pytest.mark.parametrize("queries", [[], [""], ["fine", " "], "a dog"])
def test_what_is_no_list_of_sentences_is_refused(indexed: Any, queries: Any) -> None:
    with Searcher.open(indexed.config()) as searcher, pytest.raises(DataError):
        searcher.search(queries)


@pytest.mark.parametrize("top", [0, -1])
def test_no_answers_cannot_be_asked_for(indexed: Any, top: int) -> None:
    with Searcher.open(indexed.config()) as searcher, pytest.raises(DataError, match="answers are asked for"):
        searcher.search(["a"], top=top)


def test_a_closed_searcher_refuses(indexed: Any) -> None:
    with Searcher.open(indexed.config()) as searcher:
        pass
    with pytest.raises(ValueError, match="closed"):
        searcher.search(["a"])


def test_many_vectors_are_searched_exactly(indexed: Any) -> None:
    rows = np.random.default_rng(0).normal(size=(777, 64))
    rows = (rows / np.linalg.norm(rows, axis=1, keepdims=True)).astype(np.float16)
    folder = indexed.config().index_folder
    made = read_vectors(folder)
    assert made is not None
    publish_vectors(folder, Vectors(made.identity, {f"{k}.mp4": "" for k in range(777)}, rows))
    with Searcher.open(indexed.config()) as searcher:
        (found,) = searcher.search(["a"], top=20).queries
    network = load_network(indexed.root / "work/runs/a")
    with torch.no_grad():
        query = network.encode_texts(tokenize(["a"], 10)[0])["vector"][0].numpy()
    cosines = rows.astype(np.float32) @ query
    best = np.argsort(-cosines)[:20]
    assert [answer.video for answer in found.answers] == [f"{k}.mp4" for k in best]
    np.testing.assert_allclose([answer.cosine for answer in found.answers], cosines[best], atol=1e-6)


def test_the_index_holds_the_stored_bytes() -> None:
    """What faiss makes of float32 of the same rows, subnormal numbers and both zeros among them."""
    rows = np.random.default_rng(0).normal(size=(50, 8)).astype(np.float16)
    rows[0] = [6e-8, -6e-8, 5e-6, -5e-6, 0.0, -0.0, 1.0, -1.0]
    added = faiss.IndexScalarQuantizer(8, faiss.ScalarQuantizer.QT_fp16, faiss.METRIC_INNER_PRODUCT)
    added.add(rows.astype(np.float32))
    made = exact_index(rows)
    assert made.ntotal == 50
    np.testing.assert_array_equal(faiss.vector_to_array(made.codes), faiss.vector_to_array(added.codes))
