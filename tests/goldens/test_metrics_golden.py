"""`ties=published` against the published rank metrics, exactly."""

import numpy as np
import pytest
from teachclip.stages.retrieval.metrics import Metrics, count_ranks, retrieval_metrics
from teachclip.stages.retrieval.rerank import dual_softmax

NAMES = {"R1": "r1", "R5": "r5", "R10": "r10", "R50": "r50", "MedianR": "mdr", "MR": "mdr", "MeanR": "mnr"}


def _check(metrics: Metrics, expected: dict, where: str) -> None:
    compared = NAMES.keys() & expected.keys()
    assert len(compared) == len(NAMES)
    for name in compared:
        assert getattr(metrics, NAMES[name]) == pytest.approx(float(expected[name]), abs=1e-12), f"{where} {name}"


@pytest.mark.golden("metrics")
@pytest.mark.parametrize("block", [512, 4])
def test_square_matrices(golden, block) -> None:
    cases = [case["name"] for case in golden.meta["cases"] if "n" in case]
    assert cases
    for name in cases:
        sim = golden[f"{name}/in/sim"]
        found = retrieval_metrics(sim, np.arange(len(sim)), len(sim), ties="published", block=block)
        for way in ("t2v", "v2t"):
            _check(found[way], golden.group(f"{name}/out/{way}/"), f"{name} {way}")
        ranks, _ = count_ranks(lambda t, v, sim=sim: sim[t, v], np.arange(len(sim)), len(sim), block)
        positions = [np.arange(b, b + e + 1) for b, e in zip(ranks.better, ranks.equal, strict=True)]
        np.testing.assert_array_equal(np.concatenate(positions), golden[f"{name}/out/t2v/cols"])


@pytest.mark.golden("metrics")
@pytest.mark.parametrize("block", [512, 4])
def test_dual_softmax(golden, block) -> None:
    """The published `compute_dsl_metrics`, of logits."""
    names = [case["name"] for case in golden.meta["cases"] if f"{case['name']}/out/t2v_dsl/R1" in golden]
    assert names
    for name in names:
        sim = golden[f"{name}/in/sim"].astype(np.float64)
        texts_ask, _ = dual_softmax(lambda t, v, sim=sim: sim[t, v], len(sim), len(sim), 1.0, block)
        found = retrieval_metrics(texts_ask, np.arange(len(sim)), len(sim), ties="published", block=block)["t2v"]
        expected = golden.group(f"{name}/out/t2v_dsl/")
        for key, value in expected.items():
            if key in NAMES:
                assert getattr(found, NAMES[key]) == pytest.approx(float(value), abs=1e-12), f"{name} {key}"


@pytest.mark.golden("metrics")
@pytest.mark.parametrize("block", [512, 4])
def test_several_captions_a_video(golden, block) -> None:
    cases = [case for case in golden.meta["cases"] if "caps" in case]
    assert cases
    for case in cases:
        name, sim = case["name"], golden[f"{case['name']}/in/sim"]
        captions = golden[f"{name}/in/captions_per_video"]
        text_video = np.repeat(np.arange(len(captions)), captions)
        found = retrieval_metrics(sim, text_video, len(captions), ties="published", block=block)
        _check(found["v2t"], golden.group(f"{name}/out/v2t/"), f"{name} v2t")
        if case["kind"] != "ties":  # the published order inside ties depends on torch's version
            _check(found["t2v"], golden.group(f"{name}/out/t2v/"), f"{name} t2v")
