"""Several processes of one machine, one a GPU: the store of one process, one voice, and an end without leftovers."""

import os
import signal
import subprocess
import sys
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch
from teachclip.configs.loading import dump_config
from teachclip.errors import ConfigError, PluginError, TeachclipError
from teachclip.stages.runtime.launch import Launch
from teachclip.stages.score.stage import score
from teachclip.stages.score.worker_part import WHOLE, WorkerPart
from teachclip.stages.score.workers import processes
from teachclip.stages.score.workers.processes import score_by_processes

from .conftest import done, loaded_by, tree

LAST = "number 16 in round 1"  # in the fifth shard, the last, which the first process makes
SECOND = "number 4 in round 0"  # in the second shard, which the second process makes


def test_they_make_the_store_of_one_and_one_tells(
    config_of: Callable[..., Any], expected: dict[str, str], heard: Any
) -> None:
    config = config_of()
    result = score_by_processes(config, heard, devices=2)
    assert tree(config.score_store) == expected
    (made,) = result.teachers
    assert (result.part, made.shards, made.shards_now, made.shards_left, made.texts) == (None, 5, 5, 0, 38)
    assert made.own_ranks is not None
    assert heard.infos[:2] == [
        "2 processes, which share the cores; what the first one does is shown",
        "on the CPU, 1 thread",
    ]
    told = [*heard.infos, *heard.warnings]
    assert len(set(told)) == len(told)


def test_what_one_raises_ends_all_and_is_raised_once(config_of: Callable[..., Any], expected: dict[str, str]) -> None:
    with pytest.raises(PluginError) as raised:
        score_by_processes(config_of(fails=SECOND), devices=2)
    assert raised.value.what == "teacher 'fake' (number_teacher:Numbers): encode_texts failed"
    assert raised.value.details[0] == "ValueError: it does not know this one"
    config = config_of()
    assert done(config.score_store) < 4
    score_by_processes(config, devices=2)
    assert tree(config.score_store) == expected


def test_a_process_that_is_killed_is_told_and_what_it_finished_stays(
    config_of: Callable[..., Any], expected: dict[str, str]
) -> None:
    config = config_of()
    with pytest.raises(TeachclipError, match="process 0 of those that score was killed: SIGKILL"):
        score_by_processes(config_of(dies=LAST), devices=2)
    assert done(config.score_store) >= 2
    assert score(config).teachers[0].shards_before >= 2
    assert tree(config.score_store) == expected


@pytest.mark.parametrize(
    ("number", "code", "all_get_it"),
    [(signal.SIGINT, 130, True), pytest.param(signal.SIGTERM, 143, False, marks=pytest.mark.slow)],
)
def test_a_command_that_is_stopped_leaves_no_process_and_goes_on(
    numbered: Path, config_of: Callable[..., Any], expected: dict[str, str], number: int, code: int, all_get_it: bool
) -> None:
    config = config_of(never_ends=LAST)
    (numbered / "own.yaml").write_text(dump_config(config))
    words = ["score", "own.yaml", "--devices", "2"]
    command = [sys.executable, "-m", "teachclip", *words]
    pipe = subprocess.PIPE
    with subprocess.Popen(command, stdout=pipe, stderr=pipe, text=True, start_new_session=True) as running:
        until = time.monotonic() + 150
        while (not done(config.score_store) or len(loaded_by(numbered)) < 2) and time.monotonic() < until:
            time.sleep(0.01)
        if all_get_it:  # Ctrl-C, which a terminal sends to all
            os.killpg(running.pid, number)
        else:
            running.send_signal(number)
        out, err = running.communicate(timeout=120)
    assert (running.returncode, out) == (code, ""), err
    assert err.endswith(f"stopped; everything finished is kept\ngo on with: teachclip {' '.join(words)}\n")
    assert "Traceback" not in err
    processes = loaded_by(numbered)
    assert len(processes) == 2
    assert not any(Path(f"/proc/{number}").exists() for number in processes)
    kept = done(config.score_store)
    assert 0 < kept < 5
    assert score(config_of()).teachers[0].shards_before == kept
    assert tree(config.score_store) == expected


@pytest.mark.parametrize(
    ("device", "part", "devices", "ranks", "expected"),
    [
        ("auto", WHOLE, None, 1, 4),
        ("cuda", WHOLE, None, 1, 1),
        ("cpu", WHOLE, None, 1, 1),
        ("auto", WorkerPart(0, 2), None, 1, 1),
        ("auto", WHOLE, None, 8, 1),
        ("auto", WHOLE, 1, 1, 1),
        ("cuda", WHOLE, 3, 1, 3),
        ("cpu", WHOLE, 9, 1, 9),
        ("auto", WorkerPart(0, 2), 2, 1, 2),
        ("auto", WHOLE, 5, 1, "5 GPUs are asked for; torch sees 4 here"),
        ("auto", WHOLE, 2, 8, "torchrun has started the processes"),
    ],
)
def test_how_many_on_a_machine_with_four_gpus(
    config_of: Callable[..., Any], monkeypatch: pytest.MonkeyPatch, device: str, part: WorkerPart, devices: int | None,
    ranks: int, expected: int | str,
) -> None:  # fmt: skip
    monkeypatch.setattr(torch.cuda, "is_available", lambda: True)
    monkeypatch.setattr(torch.cuda, "device_count", lambda: 4)
    monkeypatch.setattr(processes, "launch", lambda: Launch(0, ranks, 0))
    if isinstance(expected, str):
        with pytest.raises(ConfigError, match=expected):
            processes._count(config_of(device=device), part, devices)
    else:
        assert processes._count(config_of(device=device), part, devices) == expected
