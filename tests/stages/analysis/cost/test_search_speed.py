"""Timed searches: the right ones, among as many videos as asked for, taking turns."""

import math

import numpy as np
import pytest
import torch
from teachclip.cache.vectors import exact_index
from teachclip.configs.schema import Config, NetworkConfig
from teachclip.stages.analysis.cost import search_speed as module
from teachclip.stages.analysis.cost.search_speed import INDEX, search_speed
from teachclip.stages.analysis.cost.table import cost

CPU = torch.device("cpu")
WIDTH = 64
KINDS = ("student", "openclip", "xclip", "ts2net", "xpool", "drl")


def config(kind: str = "student") -> NetworkConfig:
    sizes = {"embed_dim": WIDTH, "image_size": 16, "patch_size": 8}
    network = {"kind": kind, "frames": 4, "words": 6, "trunk": {"sizes": sizes, "weights": None}}
    return NetworkConfig.model_validate(network)


def test_every_network_is_timed_at_every_size() -> None:
    sizes = {**dict.fromkeys(KINDS, (30, 100)), INDEX: (100,)}
    found = search_speed({kind: config(kind) for kind in KINDS}, sizes, CPU, repeats=3)
    assert [(each.name, each.videos) for each in found] == [
        *((kind, videos) for kind in KINDS for videos in (30, 100)), (INDEX, 100),
    ]  # fmt: skip
    for each in found:
        assert 0 < each.fastest <= each.milliseconds <= each.slowest
        assert each.held == each.videos


def test_networks_on_experts_are_timed_and_have_no_index_of_vectors() -> None:
    experts = {"modalities": {"a": {"width": 5, "tokens": 3, "clusters": 2}, "b": {"width": 7}}, "shared": 8}
    experts |= {"text": {"width": 4, "words": 6, "clusters": 3}}
    network = {"kind": "ce", "experts": experts}
    found = cost(Config.model_validate({"train": {"network": network}}), measure=True, videos=(30,), repeats=1)
    assert [(each.name, each.videos) for each in found.speed] == [("train.network (ce)", 30)]
    assert (found.training, found.methods[0].words, found.methods[0].frames) == ((), 6, 0)


def test_ways_take_turns_and_the_first_round_is_not_counted(monkeypatch: pytest.MonkeyPatch) -> None:
    order: list[tuple[str, int]] = []

    def once(way: module._Way, device: torch.device) -> float:
        order.append((way.name, way.videos))
        return float(len(order))

    monkeypatch.setattr(module._Way, "once", once)
    found = search_speed({"student": config(), "xclip": config("xclip")}, {"student": (5, 9), "xclip": (5,)}, CPU, 3)
    assert order == [("student", 5), ("student", 9), ("xclip", 5)] * 4
    assert [each.milliseconds for each in found] == [7000, 8000, 9000]  # rounds 2 to 4, of three turns each


@pytest.mark.parametrize("kind", KINDS)
def test_videos_that_are_not_held_are_scored_in_blocks(kind: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(module.HELD_BYTES, "cpu", 20_000)
    scored: list[int] = []
    network = module._small(config(kind)).eval()
    score = type(network).score

    def counting(self: torch.nn.Module, texts: dict[str, torch.Tensor], videos: dict[str, torch.Tensor]) -> object:
        scored.append(len(next(iter(videos.values()))))
        return score(self, texts, videos)  # type: ignore[arg-type]

    monkeypatch.setattr(type(network), "score", counting)
    (found,) = search_speed({kind: config(kind)}, {kind: (211,)}, CPU, repeats=1)
    assert found.videos == 211
    assert found.held < 211
    blocks = math.ceil(211 / found.held)
    last = scored[-blocks:]  # of the last search
    assert sum(last) == 211
    assert max(last) == found.held


def test_the_answers_are_the_best_of_all_videos() -> None:
    network = module._small(config()).eval()
    with torch.inference_mode():
        texts, few = module._features(network, CPU)
        best = module._search(network, texts, few, 40)()
        scores = network.score(texts, {key: value[:40] for key, value in few.items()})
    assert torch.equal(best.indices, scores.topk(10).indices)  # type: ignore[attr-defined]


def test_the_index_finds_what_comparing_all_finds() -> None:
    random = np.random.default_rng(0)
    vectors = random.standard_normal((70_000, 8)).astype(np.float32)
    vectors /= np.linalg.norm(vectors, axis=1, keepdims=True)
    cosines, rows = exact_index(vectors.astype(np.float16)).search(vectors[69_990:69_993], 3)
    expected = vectors[69_990:69_993] @ vectors.T
    assert rows[:, 0].tolist() == [69_990, 69_991, 69_992]
    assert np.allclose(cosines, -np.sort(-expected, axis=1)[:, :3], atol=1e-3)
