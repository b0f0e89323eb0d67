"""Processes with unequal shares send the same things in the same order: where they did not, NCCL would hang."""

import json
import os
import subprocess
import sys
from itertools import groupby
from pathlib import Path
from typing import Any

PROGRAM = Path(__file__).with_name("collectives.py")
# Settings, pairs and videos without captions; of one pair, the second process has none.
CASES: list[tuple[dict[str, Any], int, int]] = [
    ({}, 7, 0),
    ({}, 3, 5),
    ({}, 1, 1),
    ({"chunk": 2}, 7, 0),
    ({"chunk": 2}, 3, 4),
    ({"network": {"kind": "xclip"}}, 5, 0),
    ({"network": {"kind": "drl", "drl": {"cdcr": 3}}}, 5, 0),
    ({"network": {"kind": "drl", "drl": {"cdcr": 0}}}, 5, 0),
]

COMPUTED = 3  # losses of two steps, and once more to find out whether some parameters have no part in them


def test_processes_send_the_same_in_the_same_order() -> None:
    environment = {**os.environ, "OMP_NUM_THREADS": "1"}
    command = [sys.executable, str(PROGRAM), json.dumps(CASES)]
    ended = subprocess.run(command, capture_output=True, text=True, timeout=200, env=environment)
    assert ended.returncode == 0, ended.stderr
    first, second = json.loads(ended.stdout)
    assert first == second
    cases = [list(sent) for is_start, sent in groupby(first, lambda each: each == ["case"]) if not is_start]
    assert len(cases) == len(CASES)
    assert all(any(name == "gradients" for name, *_ in sent) for sent in cases), "the hook hears them"
    student, without_texts, with_texts = ([name for name, *_ in cases[k]] for k in (0, -1, -2))
    # Texts' features travel only where a loss reads them: DRL's words, weights, mask and sentence.
    assert with_texts.count("all_gather_into_tensor") - without_texts.count("all_gather_into_tensor") == COMPUTED * 4
    assert student.count("all_gather_into_tensor") == COMPUTED * (2 + 1 + 2 + 1), "videos, scores, labels, mask"
