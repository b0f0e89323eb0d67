"""Coarse losses of a teacher that did not score every pair, against the definition written out in numpy."""

from typing import Any

import numpy as np
import pytest
import torch
from teachclip.cache.scores.reading.labels import Labels
from teachclip.configs.schema import LossConfig
from teachclip.stages.train.losses.combined import Losses
from teachclip.stages.train.losses.teaching import coarse_loss, mean_similarity, sparse_coarse_loss

NAN = float("nan")
KINDS = ("pearson", "ce", "huber")


def scores(*shape: int, seed: int = 0) -> torch.Tensor:
    return torch.randn(*shape, dtype=torch.float64, generator=torch.Generator().manual_seed(seed))


def holed(teacher: torch.Tensor, share: float = 0.5, seed: int = 3) -> torch.Tensor:
    random = torch.rand(teacher.shape, generator=torch.Generator().manual_seed(seed))
    keep = (random < share) | torch.eye(*teacher.shape, dtype=torch.bool)
    return teacher.masked_fill(~keep, NAN)


def softmax(values: np.ndarray) -> np.ndarray:
    powers = np.exp(values - values.max())
    return powers / powers.sum()


def one_way(kind: str, student: np.ndarray, teacher: np.ndarray) -> float:
    losses = []
    for s_row, t_row in zip(student, teacher, strict=True):
        here = ~np.isnan(t_row)
        if here.sum() < 3:
            continue
        s, t = softmax(s_row[here]), softmax(t_row[here])
        if kind == "ce":
            losses.append(-(t * np.log(s)).mean())
        elif s.std() and np.ptp(t_row[here]):
            losses.append(1 - np.corrcoef(s, t)[0, 1])
    return float(np.mean(losses)) if losses else 0.0


@pytest.mark.parametrize("kind", ["pearson", "ce"])
@pytest.mark.parametrize("shape", [(8, 8), (6, 11)])
def test_only_scored_entries_take_part(kind: str, shape: tuple[int, int]) -> None:
    student, teacher = scores(*shape), holed(scores(*shape, seed=1))
    teacher[2, :] = teacher[2, :].where(teacher[2].isnan(), 1.5)  # a row of one value
    loss, some = sparse_coarse_loss(kind, student, teacher)
    s, t = student.numpy(), teacher.numpy()
    expected = one_way(kind, s, t) + one_way(kind, s.T, t.T)
    assert float(some) == 1
    assert float(loss) == pytest.approx(expected, rel=1e-9)


def test_huber_is_a_mean_over_scored_pairs() -> None:
    student, teacher = scores(5, 7) * 3, holed(scores(5, 7, seed=1))
    apart = np.abs((student - teacher).numpy())
    expected = np.nanmean(np.where(apart < 1, apart**2 / 2, apart - 0.5))
    assert float(sparse_coarse_loss("huber", student, teacher)[0]) == pytest.approx(expected)


@pytest.mark.parametrize("kind", KINDS)
def test_with_every_pair_it_is_the_dense_loss(kind: str) -> None:
    student, teacher = scores(6, 9), scores(6, 9, seed=1)
    loss, _ = sparse_coarse_loss(kind, student, teacher)
    torch.testing.assert_close(loss, coarse_loss(kind, student, teacher))


@pytest.mark.parametrize("kind", KINDS)
@pytest.mark.parametrize("kept", ["half", "own alone", "nothing"])
def test_gradients_are_finite_and_none_comes_from_a_hole(kind: str, kept: str) -> None:
    teacher = holed(scores(6, 6, seed=1), {"half": 0.6, "own alone": 0.0, "nothing": 0.0}[kept])
    if kept == "nothing":
        teacher[:] = NAN
    student = scores(6, 6).requires_grad_()
    loss, some = sparse_coarse_loss(kind, student, teacher)
    loss.backward()
    assert student.grad is not None
    assert student.grad.isfinite().all()
    assert (student.grad[teacher.isnan()] == 0).all()
    taught = kept == "half" or (kind == "huber" and kept == "own alone")
    assert (float(some) == 1) == taught == bool(student.grad.any()) == bool(loss)


def test_a_sparse_teacher_without_a_pair_in_the_batch_is_counted_and_left_out_of_the_mean() -> None:
    student = scores(5, 5).requires_grad_()
    dense = Labels(scores(5, 5, seed=1), None, 2.0)
    empty = Labels(torch.full((5, 5), NAN, dtype=torch.float64), None, 2.0, sparse=True)

    def parts(*labels: Labels[torch.Tensor], **settings: Any) -> Any:
        return Losses(LossConfig(**settings), ["a", "b"][: len(labels)])(student, None, labels)

    both, alone = parts(dense, empty), parts(dense)
    torch.testing.assert_close(both.coarse, alone.coarse)
    assert (float(both.untaught), float(alone.untaught)) == (1, 0)
    nothing = parts(empty)
    assert (float(nothing.coarse.detach()), float(nothing.untaught)) == (0, 1)
    nothing.total.backward()
    assert student.grad is not None
    assert student.grad.isfinite().all()
    weighted = parts(dense, empty, teachers="weighted", teacher_weights={"a": 0.5, "b": 3.0})
    torch.testing.assert_close(weighted.coarse, 0.5 * alone.coarse)


@pytest.mark.parametrize("one_scale", ["raw", "standardised"])
def test_the_mean_of_teachers_is_over_those_that_scored_the_pair(one_scale: Any) -> None:
    first, second = scores(6, 6, seed=1), holed(scores(6, 6, seed=2) * 4 + 3)
    found = mean_similarity([first, second], one_scale, sparse=True)
    a, b = first.numpy(), second.numpy()
    if one_scale == "standardised":
        spread, middle = (a.std() + np.nanstd(b)) / 2, (a.mean() + np.nanmean(b)) / 2
        a, b = (a - a.mean()) / a.std() * spread + middle, (b - np.nanmean(b)) / np.nanstd(b) * spread + middle
    np.testing.assert_allclose(found, np.nanmean([a, b], axis=0))
    nobody = mean_similarity([holed(first), holed(second)], one_scale, sparse=True)
    assert (nobody.isnan() == (holed(first).isnan() & holed(second).isnan())).all()


def test_no_hole_no_difference() -> None:
    """A teacher that is dense is compared as ever, also beside a sparse one."""
    student, labels = scores(5, 5), [Labels(scores(5, 5, seed=k), None, 3.0) for k in (1, 2)]
    as_sparse = [Labels(each.coarse, None, 3.0, sparse=True) for each in labels]
    for teachers in ("mean", "sum", "mean-similarity"):
        losses = Losses(LossConfig(teachers=teachers), ["a", "b"])
        torch.testing.assert_close(losses(student, None, labels).coarse, losses(student, None, as_sparse).coarse)
