"""Frame numbers and choice equal the published ones."""

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from teachclip.stages.data.video.frame_choice import Choice, chosen, sampled_numbers

CHOICES: dict[int, Choice] = {0: "head", 1: "tail", 2: "uniform"}


@pytest.fixture(scope="module")
def cases(golden_files: Callable[..., list[Path]]) -> dict[str, list[dict[str, Any]]]:
    documents = [json.loads(path.read_text(encoding="utf-8")) for path in golden_files("frames", ".json")]
    return {kind: [case for document in documents for case in document[kind]] for kind in ("slice", "decode")}


def test_choice_equals_the_published_one(cases: dict[str, list[dict[str, Any]]]) -> None:
    assert cases["slice"]
    for case in cases["slice"]:
        positions = chosen(case["n_frames"], case["max_frames"], CHOICES[case["slice_framepos"]])
        # frame_order 1 reads the same frames backwards; teachclip keeps videos in their order
        assert positions == sorted(case["indices"]), case


def test_frame_numbers_equal_the_published_ones(cases: dict[str, list[dict[str, Any]]]) -> None:
    assert cases["decode"]
    for case in cases["decode"]:
        readable = case["frame_count"] if case["readable"] is None else case["readable"]
        numbers = sampled_numbers(readable, case["fps"], case["sample_fps"], case["start"], case["end"])
        if isinstance(case["frame_numbers"], str):
            # published: an exception, on videos below 1 fps or below the sampling rate; here: every frame of them
            assert case["fps"] < 1 or case["sample_fps"] > int(case["fps"]), case
            assert numbers == list(range(readable)), case
        else:
            assert numbers == case["frame_numbers"], case
