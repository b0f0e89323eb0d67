"""The next batch copied to the GPU while the present one is used."""

import time
from collections import deque
from collections.abc import Iterable, Iterator
from contextlib import contextmanager

import torch

from .batch import Batch


class DeviceBatches(Iterator[Batch]):
    """Batches on a device, made by `on_device`."""

    def __init__(self, batches: Iterable[Batch], device: torch.device) -> None:
        self._waits = _GpuWaits(device) if device.type == "cuda" else _Waits()
        given = iter(batches)
        self._moved = _copied_ahead(given, device, self._waits) if device.type == "cuda" else self._taken(given)

    def __next__(self) -> Batch:
        return next(self._moved)

    @property
    def waited(self) -> float:
        """Seconds that a batch was waited for so far; those in which a GPU was still at work are not counted."""
        return self._waits.seconds()

    def _taken(self, batches: Iterator[Batch]) -> Iterator[Batch]:
        while (batch := _next(batches, self._waits)) is not None:
            yield batch


def on_device(batches: Iterable[Batch], device: torch.device) -> DeviceBatches:
    """The same batches on `device`; the next one is copied to a GPU while the present one is used.

    Copies have a stream of their own; the present one waits for them on the GPU, not here. An error of `batches` is
    raised where its batch was due.
    """
    return DeviceBatches(batches, device)


class _Waits:
    """Seconds that batches were waited for."""

    def __init__(self) -> None:
        self._seconds = 0.0

    def seconds(self) -> float:
        """So far."""
        return self._seconds

    @contextmanager
    def counted(self) -> Iterator[None]:
        """The body waits for a batch."""
        begun = time.perf_counter()
        yield
        self._seconds += time.perf_counter() - begun


class _GpuWaits(_Waits):
    """Of these seconds those in which the GPU had nothing left to do: it tells by events before and behind the wait."""

    def __init__(self, device: torch.device) -> None:
        super().__init__()
        self._device = device
        self._pending: deque[tuple[torch.cuda.Event, torch.cuda.Event, float]] = deque()

    def seconds(self) -> float:
        """So far, as far as the GPU has come; nobody waits for it."""
        while self._pending and self._pending[0][1].query():  # type: ignore[no-untyped-call]
            idle_since, came, waited = self._pending.popleft()
            self._seconds += min(waited, idle_since.elapsed_time(came) / 1000)
        return self._seconds

    @contextmanager
    def counted(self) -> Iterator[None]:
        """The body waits for a batch."""
        idle_since, came = (torch.cuda.Event(enable_timing=True) for _ in range(2))  # type: ignore[no-untyped-call]
        present = torch.cuda.current_stream(self._device)
        idle_since.record(present)
        begun = time.perf_counter()
        yield
        waited = time.perf_counter() - begun
        came.record(present)
        self._pending.append((idle_since, came, waited))


def _next(batches: Iterator[Batch], waits: _Waits) -> Batch | None:
    with waits.counted():
        return next(batches, None)


def _copied_ahead(batches: Iterator[Batch], device: torch.device, waits: _Waits) -> Iterator[Batch]:
    copies = torch.cuda.Stream(device)  # type: ignore[no-untyped-call]
    copies.wait_stream(torch.cuda.current_stream(device))  # frames that are kept on the GPU have to be there

    def copied() -> tuple[Batch, torch.cuda.Event] | None:
        if (batch := _next(batches, waits)) is None:
            return None
        with torch.cuda.stream(copies):
            return batch.to(device), copies.record_event()

    ahead, failed = copied(), None
    while ahead is not None:
        batch, done = ahead
        try:
            ahead = copied()
        except Exception as error:  # of the next batch
            ahead, failed = None, error
        present = torch.cuda.current_stream(device)
        present.wait_event(done)
        batch.keep_for(present)
        yield batch
    if failed is not None:
        raise failed
