"""The next batch on its way to a GPU, by streams and events that only write down what is asked of them."""

from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

import pytest
import torch
from teachclip.stages.train.dataloader import to_device
from teachclip.stages.train.dataloader.to_device import on_device

GPU = torch.device("cuda", 0)


class Told(list[tuple[Any, ...]]):
    """What is asked of a GPU, in order; `now` is the time there, in seconds, and `busy` until when it computes."""

    now, busy = 0.0, 0.0


class Event:
    """At a time on the GPU: behind what it was asked for before."""

    def __init__(self, told: Told, name: str) -> None:
        self.told, self.name, self.at = told, name, 0.0

    def record(self, stream: "Stream") -> None:
        self.at = max(self.told.now, self.told.busy)

    def query(self) -> bool:
        return self.told.now >= self.at

    def elapsed_time(self, later: "Event") -> float:
        return 1000 * (later.at - self.at)


class Stream:
    def __init__(self, told: Told, name: str) -> None:
        self.told, self.name = told, name

    def wait_stream(self, other: "Stream") -> None:
        self.told.append((self.name, "waits for", other.name))

    def wait_event(self, event: Event) -> None:
        self.told.append((self.name, "waits for", event.name))

    def record_event(self) -> Event:
        event = Event(self.told, f"event {sum(each[1] == 'records' for each in self.told)}")
        self.told.append((self.name, "records", event.name))
        return event


class GivenBatch:
    """Stands for a batch; its tensors are one."""

    def __init__(self, told: Told, number: int, on: str = "") -> None:
        self.told, self.number, self.on = told, number, on

    def to(self, device: torch.device) -> "GivenBatch":
        self.told.append((self.told[-1][0], "copies", self.number))
        return GivenBatch(self.told, self.number, str(device))

    def keep_for(self, stream: Stream) -> None:
        self.told.append((stream.name, "keeps", self.number))


@pytest.fixture
def told(monkeypatch: pytest.MonkeyPatch) -> Told:
    told = Told()
    present = Stream(told, "present")

    @contextmanager
    def stream(chosen: Stream) -> Iterator[None]:
        told.append((chosen.name, "is current"))
        yield

    monkeypatch.setattr(torch.cuda, "Stream", lambda _: Stream(told, "copies"))
    monkeypatch.setattr(torch.cuda, "Event", lambda enable_timing: Event(told, "timing"))
    monkeypatch.setattr(torch.cuda, "current_stream", lambda _: present)
    monkeypatch.setattr(torch.cuda, "stream", stream)
    monkeypatch.setattr(to_device.time, "perf_counter", lambda: told.now)
    return told


class Failing(Exception):
    """Of a batch."""


def test_a_batch_is_copied_while_the_one_before_is_used_and_waited_for_on_the_gpu(told: Told) -> None:
    def given() -> Iterator[Any]:
        yield from (GivenBatch(told, number) for number in range(2))
        raise Failing

    batches = on_device(given(), GPU)
    first = next(batches)
    assert (first.number, first.on) == (0, "cuda:0")  # type: ignore[attr-defined]
    assert told == [
        ("copies", "waits for", "present"),
        ("copies", "is current"),
        ("copies", "copies", 0),
        ("copies", "records", "event 0"),
        ("copies", "is current"),
        ("copies", "copies", 1),
        ("copies", "records", "event 1"),
        ("present", "waits for", "event 0"),
        ("present", "keeps", 0),
    ]
    told.clear()
    assert next(batches).number == 1  # type: ignore[attr-defined]  # not the error behind it
    assert told == [("present", "waits for", "event 1"), ("present", "keeps", 1)]
    with pytest.raises(Failing):
        next(batches)


@pytest.mark.parametrize(
    ("reading", "computing", "waited"),
    [
        (0.2, 1.0, 0.0),  # the GPU is busy for longer than the reading takes
        (1.0, 0.3, 2 * 0.7),  # of the second that each of two batches takes, the GPU computes 0.3
        (1.0, 0.0, 2 * 1.0),
    ],
)
def test_only_what_the_gpu_idles_is_waiting(told: Told, reading: float, computing: float, waited: float) -> None:
    def given() -> Iterator[Any]:
        for number in range(4):
            told.now += reading
            yield GivenBatch(told, number)

    batches = on_device(given(), GPU)
    next(batches)  # two are read before there is anything to compute
    before = batches.waited
    assert before == pytest.approx(2 * reading)
    for _ in range(2):
        told.busy = told.now + computing
        next(batches)
    told.now = max(told.now, told.busy)
    assert batches.waited - before == pytest.approx(waited)


def test_on_a_cpu_all_waiting_counts(told: Told) -> None:
    def given() -> Iterator[Any]:
        for number in range(3):
            told.now += 2.0
            yield GivenBatch(told, number)

    batches = on_device(given(), torch.device("cpu"))
    assert [batch.number for batch in batches] == [0, 1, 2]  # type: ignore[attr-defined]
    assert batches.waited == pytest.approx(6.0)
    assert told == []
