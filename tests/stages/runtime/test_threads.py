"""Threads that each compute by themselves: order, grad modes, errors, and how many there are."""

import os
import subprocess
import sys
import threading
from collections.abc import Iterator
from pathlib import Path

import pytest
import torch
from teachclip.stages.runtime import cores as cores_module
from teachclip.stages.runtime.cores import cores
from teachclip.stages.runtime.threads import spread

CPU = torch.device("cpu")


@pytest.fixture(autouse=True)
def three(monkeypatch: pytest.MonkeyPatch) -> Iterator[None]:
    """Torch has three threads, and the machine as many cores as it likes."""
    monkeypatch.setattr("teachclip.stages.runtime.threads.cores", lambda: 8)
    before = torch.get_num_threads()
    torch.set_num_threads(3)
    yield
    torch.set_num_threads(before)


def test_results_come_in_order_from_several_threads_of_one_each() -> None:
    together = threading.Barrier(3, timeout=120)  # three at a time, or it breaks

    def work(item: int) -> tuple[int, int]:
        together.wait()
        return item * item, torch.get_num_threads()

    assert list(spread(work, range(9), CPU, alone=False)) == [(k * k, 1) for k in range(9)]
    assert torch.get_num_threads() == 3


@pytest.mark.parametrize(("alone", "threads"), [(True, 1), (False, 3)])
def test_a_single_item_has_all_threads_unless_bits_must_not_depend_on_them(alone: bool, threads: int) -> None:
    assert list(spread(lambda item: (item, torch.get_num_threads()), [7], CPU, alone=alone)) == [(7, threads)]
    assert torch.get_num_threads() == 3


def test_what_is_not_to_be_shared_is_called_by_the_thread_that_asks_with_all_of_torchs() -> None:
    here = threading.get_ident(), 3

    def work(_: int) -> tuple[int, int]:
        return threading.get_ident(), torch.get_num_threads()

    assert list(spread(work, range(4), CPU, alone=True, several=False)) == [here] * 4


def test_threads_have_the_grad_mode_of_whoever_asks() -> None:
    def work(_: int) -> tuple[bool, bool]:
        return torch.is_grad_enabled(), torch.is_inference_mode_enabled()

    with torch.no_grad():
        assert set(spread(work, range(6), CPU, alone=True)) == {(False, False)}
    with torch.inference_mode():
        assert set(spread(work, range(6), CPU, alone=True)) == {(False, True)}
    assert set(spread(work, range(6), CPU, alone=True)) == {(True, False)}


def test_an_error_comes_in_its_place_and_ends_it() -> None:
    def work(item: int) -> int:
        if item == 4:
            raise ValueError("this one")
        return item

    made = spread(work, range(1000), CPU, alone=True)
    assert [next(made) for _ in range(4)] == [0, 1, 2, 3]
    with pytest.raises(ValueError, match="this one"):
        next(made)
    assert torch.get_num_threads() == 3


@pytest.mark.parametrize("good", [0, 1, 2, 9])
@pytest.mark.parametrize("several", [True, False])
def test_an_error_of_the_items_comes_behind_the_results_before_it(good: int, several: bool) -> None:
    def items() -> Iterator[int]:
        yield from range(good)
        raise KeyboardInterrupt

    made, found = spread(lambda item: item, items(), CPU, alone=True, several=several), []
    with pytest.raises(KeyboardInterrupt):
        found.extend(made)
    assert found == list(range(good))


def test_few_items_are_taken_ahead_and_whoever_stops_asking_leaves_nothing_behind() -> None:
    taken = []

    def items() -> Iterator[int]:
        for k in range(1000):
            taken.append(k)
            yield k

    made = spread(lambda item: item, items(), CPU, alone=True)
    assert [next(made) for _ in range(2)] == [0, 1]
    made.close()  # type: ignore[attr-defined]
    assert len(taken) <= 2 + 2 * 3 + 1
    assert torch.get_num_threads() == 3
    assert not [thread for thread in threading.enumerate() if thread.name.startswith("compute")]


@pytest.mark.parametrize(
    ("files", "expected"),
    [
        ({"cpu.max": "150000 100000\n"}, 2),
        ({"cpu.max": "50000 100000\n"}, 1),
        ({"cpu.max": "max 100000\n"}, 5),
        ({"cpu/cpu.cfs_quota_us": "300000\n", "cpu/cpu.cfs_period_us": "100000\n"}, 3),
        ({"cpu/cpu.cfs_quota_us": "-1\n", "cpu/cpu.cfs_period_us": "100000\n"}, 5),
        ({"cpu.max": "nonsense"}, 5),
        ({}, 5),
    ],
)
def test_cores_follow_the_affinity_and_the_containers_quota(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, files: dict[str, str], expected: int
) -> None:
    for name, text in files.items():
        (tmp_path / name).parent.mkdir(exist_ok=True)
        (tmp_path / name).write_text(text)
    monkeypatch.setattr(cores_module, "CGROUP", tmp_path)
    monkeypatch.setattr(cores_module.os, "sched_getaffinity", lambda pid: set(range(5)))
    assert cores() == expected


SCRIPT = """
import hashlib
import torch
from teachclip.stages.runtime import threads

threads.cores = lambda: 8
torch.manual_seed(0)
rows, columns = [torch.randn(k % 9 + 1, 48) for k in range(40)], torch.randn(17, 48)
made = threads.spread(lambda each: each @ columns.T, rows, torch.device("cpu"), alone=True)
print(hashlib.sha256(torch.cat(list(made)).numpy().tobytes()).hexdigest())
"""


def test_bits_do_not_depend_on_the_threads_that_a_process_begins_with() -> None:
    found = {}
    for count in ("1", "2", "4"):
        environment = {**os.environ, "OMP_NUM_THREADS": count, "MKL_NUM_THREADS": count}
        line = [sys.executable, "-c", SCRIPT]
        ended = subprocess.run(line, env=environment, capture_output=True, text=True, timeout=120, check=True)
        found[count] = ended.stdout
    assert len(set(found.values())) == 1
