"""Threads that each compute by themselves, rather than one operation over all cores.

An operation that is spread over cores waits at its end for the slowest: beside a busy neighbour that is most of the
time. And its last bits may depend on the number of cores. Blocks that each thread computes alone have neither.
"""

from collections import deque
from collections.abc import Callable, Iterable, Iterator
from concurrent.futures import Future, ThreadPoolExecutor
from contextlib import contextmanager, nullcontext
from functools import partial
from itertools import chain, islice
from typing import NamedTuple

import torch

from .cores import cores


def spread[T, R](
    work: Callable[[T], R], items: Iterable[T], device: torch.device, *, alone: bool, several: bool = True
) -> Iterator[R]:
    """What `work` makes of each item, in order, on a CPU by as many threads as torch and `cores` allow.

    Gradients are off, or inference mode on, in the threads as they are here when the first result is asked for. At most
    two items a thread are taken before their results are wanted.

    Args:
        work: called in any thread, by several at a time.
        alone: also a single item, or all of them where one core is allowed, are computed by one thread of torch, so
            that bits do not depend on the number of threads. Otherwise a single item has all threads of torch.
        several: False where `work` must not be called by several threads at a time: then each item has all of torch's.
    """
    if not several:
        yield from map(work, items)
        return
    taken = _in_its_place(items)
    first = list(islice(taken, 2))
    mode, on_cpu = _mode(), device.type == "cpu"
    count = min(torch.get_num_threads(), cores()) if on_cpu else 1

    def within(item: T | _Error) -> R:
        if isinstance(item, _Error):
            raise item.error
        with mode():
            return work(item)

    if count == 1 or len(first) < 2:
        with one_thread() if alone and on_cpu else nullcontext():
            yield from map(within, chain(first, taken))
        return
    waiting: deque[Future[R]] = deque()
    # A thread's operations have as many threads as it says itself, MKL's too.
    alone_each = partial(torch.set_num_threads, 1)
    with one_thread(), ThreadPoolExecutor(count, "compute", alone_each) as pool:
        try:
            for item in chain(first, taken):
                waiting.append(pool.submit(within, item))
                if len(waiting) > 2 * count:
                    yield waiting.popleft().result()
            while waiting:
                yield waiting.popleft().result()
        finally:
            pool.shutdown(cancel_futures=True)


class _Error(NamedTuple):
    """What taking an item ended with."""

    error: BaseException


def _in_its_place[T](items: Iterable[T]) -> Iterator[T | _Error]:
    """The items, and behind them the error that taking the next one ended with: results before it are not lost."""
    try:
        yield from items
    except (Exception, KeyboardInterrupt) as error:
        yield _Error(error)


@contextmanager
def one_thread() -> Iterator[None]:
    """Operations of this thread compute with one thread, on a CPU."""
    before = torch.get_num_threads()
    torch.set_num_threads(1)
    try:
        yield
    finally:
        torch.set_num_threads(before)


def _mode() -> Callable[[], torch.inference_mode | torch.set_grad_enabled]:
    """What makes the grad mode of this thread another's, which has its own."""
    if torch.is_inference_mode_enabled():
        return torch.inference_mode
    enabled = torch.is_grad_enabled()
    return lambda: torch.set_grad_enabled(enabled)
