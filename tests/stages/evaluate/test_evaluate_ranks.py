"""What `evaluate` leaves in the run folder, beside what it returns."""

import json
from dataclasses import asdict
from typing import Any

import numpy as np
from teachclip.cache.frames.cache import FrameCache
from teachclip.stages.data.dataset import read_dataset
from teachclip.stages.data.usable_split import usable_split
from teachclip.stages.evaluate.stage import evaluate
from teachclip.stages.retrieval.confidence import confidence
from teachclip.stages.retrieval.query_ranks import read_query_ranks


def test_the_ranks_of_single_queries_are_written_and_are_those_of_the_metrics(world: Any) -> None:
    config = world.config(evaluate={"run": "runs/xclip", "split": "train", "block": 5})
    result = evaluate(config)
    assert result.ranks is not None
    ranks = read_query_ranks(config.evaluate_run / "ranks-train.npz")
    assert {way: asdict(metrics) for way, metrics in ranks.metrics().items()} == {"t2v": result.t2v, "v2t": result.v2t}
    split = usable_split(read_dataset(config.data), ["train"], FrameCache.open(config.frames_folder))
    assert ranks.text_ids == tuple(text.id for text in split.texts)
    assert ranks.captions == tuple(split.captions)
    assert [ranks.video_ids[k] for k in ranks.text_video] == [text.video for text in split.texts]
    assert ranks.first.shape == (28, 10)
    best = ranks.texts.better == 0
    alone = best & (ranks.texts.equal == 0)
    np.testing.assert_array_equal(ranks.first[alone, 0], ranks.text_video[alone])
    assert not (ranks.first[~best, 0] == ranks.text_video[~best]).any()


def test_intervals_and_how_the_network_was_chosen_are_told(world: Any) -> None:
    config = world.config(evaluate={"run": "runs/xclip"})
    result = evaluate(config)
    assert result.chosen_by == "sumr (text to video) on the validation split"
    ranks = read_query_ranks(config.evaluate_run / "ranks-test.npz")
    expected = {way: {name: asdict(each) for name, each in found.items()} for way, found in confidence(ranks).items()}
    assert result.confidence == expected
    written = json.loads((config.evaluate_run / "evaluation-test.json").read_text())
    assert written == json.loads(json.dumps(asdict(result)))


def test_a_checkpoint_file_is_measured_and_nothing_is_written_beside_it(world: Any) -> None:
    folder = world.root / "work" / "runs" / "xclip"
    before = sorted(path.name for path in folder.iterdir())
    result = evaluate(world.config(evaluate={"run": "runs/xclip/best.safetensors", "split": "val"}))
    assert (result.ranks, result.chosen_by) == (None, None)
    assert result.t2v["queries"] == 8
    assert sorted(path.name for path in folder.iterdir()) == before
