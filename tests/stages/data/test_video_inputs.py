"""Videos encoded batch by batch: all of them, in order, in the caller's thread, the next ones read meanwhile."""

import threading

import numpy as np
import pytest
import torch
from teachclip.errors import CacheError
from teachclip.stages.data.video_inputs import encoded
from torch import Tensor

CPU = torch.device("cpu")


class Numbered:
    """Video k is the number k, with k seconds."""

    videos = tuple(map(str, range(100)))

    def __init__(self, broken: int | None = None) -> None:
        self.broken = broken
        self.read_so_far: list[list[int]] = []
        self.threads: set[int] = set()
        self.third = threading.Event()

    def read(self, index: np.ndarray) -> tuple[Tensor, Tensor, Tensor]:
        if self.broken in index:
            raise CacheError("damaged")
        self.read_so_far.append(index.tolist())
        self.threads.add(threading.get_ident())
        if len(self.read_so_far) == 3:
            self.third.set()
        values = torch.from_numpy(np.asarray(index, np.float64))
        return values, values > 3, values / 2


def together(frames: Tensor, mask: Tensor, times: Tensor) -> list[tuple[float, bool, float]]:
    return list(zip(frames.tolist(), mask.tolist(), times.tolist(), strict=True))


@pytest.mark.parametrize("at_once", [1, 3, 4, 9, 50])
def test_every_video_once_and_in_order(at_once: int) -> None:
    index = np.array([5, 0, 99, 3, 4, 17, 2, 1, 50])
    made = list(encoded(Numbered(), index, together, CPU, at_once))
    assert [len(batch) for batch, _ in made] == [len(index[k : k + at_once]) for k in range(0, 9, at_once)]
    np.testing.assert_array_equal(np.concatenate([batch for batch, _ in made]), index)
    assert [one for _, batch in made for one in batch] == [(k, k > 3, k / 2) for k in index]


def test_no_videos() -> None:
    assert list(encoded(Numbered(), np.arange(0), together, CPU, 4)) == []


def test_the_next_batches_are_read_while_one_is_encoded() -> None:
    inputs = Numbered()

    def encode(frames: Tensor, mask: Tensor, times: Tensor) -> int:
        assert inputs.third.wait(120)
        return threading.get_ident()

    assert {made for _, made in encoded(inputs, np.arange(12), encode, CPU, 4)} == {threading.get_ident()}
    assert threading.get_ident() not in inputs.threads


def test_what_cannot_be_read_is_told_after_what_could() -> None:
    made = encoded(Numbered(broken=9), np.arange(20), together, CPU, 4)
    assert [next(made)[0].tolist() for _ in range(2)] == [[0, 1, 2, 3], [4, 5, 6, 7]]
    with pytest.raises(CacheError, match="damaged"):
        next(made)


def test_inference_mode_of_the_caller_holds() -> None:
    weight = torch.ones((), requires_grad=True)
    with torch.inference_mode():
        for _, made in encoded(Numbered(), np.arange(4), lambda frames, mask, times: frames * weight, CPU, 2):
            assert made.is_inference()
