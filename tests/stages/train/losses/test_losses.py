"""What the losses ask of a student, and what must not change them."""

import pytest
import torch
from teachclip.cache.scores.reading.labels import Labels
from teachclip.configs.schema import LossConfig
from teachclip.stages.train.losses.combined import Losses
from teachclip.stages.train.losses.contrastive import info_nce
from teachclip.stages.train.losses.teaching import coarse_loss, fine_loss

COARSE = ("pearson", "ce", "huber")
FINE = ("ce", "pearson", "huber")


def _random(*shape: int, seed: int = 0) -> torch.Tensor:
    return torch.randn(*shape, dtype=torch.float64, generator=torch.Generator().manual_seed(seed))


@pytest.fixture
def mask() -> torch.Tensor:
    return torch.arange(5) < torch.tensor([[5], [3], [2], [4]])


def test_infonce_is_ln_b_at_chance_and_falls_towards_zero() -> None:
    assert info_nce(torch.zeros(8, 8)).item() == pytest.approx(torch.tensor(8.0).log().item())
    assert info_nce(50 * torch.eye(8)).item() < 1e-9


def test_infonce_leaves_out_other_captions_of_the_same_video() -> None:
    logits = _random(4, 4).requires_grad_()
    same = torch.zeros(4, 4, dtype=torch.bool)
    same[0, 1] = same[1, 0] = True
    loss = info_nce(logits, same)
    loss.backward()
    assert logits.grad[same].eq(0).all()
    assert logits.grad[~same].ne(0).all()
    # As if these pairs scored nothing at all.
    assert loss.item() == pytest.approx(info_nce(logits.detach().masked_fill(same, -1e9)).item(), abs=1e-12)
    assert loss.item() < info_nce(logits.detach()).item()


@pytest.mark.parametrize("kind", COARSE)
def test_coarse_loss_is_least_at_the_teachers_scores(kind) -> None:
    teacher = 3 * _random(6, 6)
    student = teacher.clone().requires_grad_()
    loss = coarse_loss(kind, student, teacher)
    loss.backward()
    assert student.grad.abs().max() < 1e-9
    assert all(coarse_loss(kind, teacher + 0.3 * _random(6, 6, seed=k), teacher) > loss for k in range(1, 6))


def test_coarse_loss_does_not_mind_a_constant_on_every_score_but_huber_does() -> None:
    student, teacher = _random(5, 5), _random(5, 5, seed=1)
    for kind in ("pearson", "ce"):
        moved = coarse_loss(kind, student + 7, teacher - 3)
        torch.testing.assert_close(moved, coarse_loss(kind, student, teacher))
    assert coarse_loss("huber", student + 7, teacher) > coarse_loss("huber", student, teacher)


@pytest.mark.parametrize("kind", COARSE)
def test_coarse_loss_looks_at_rows_and_columns_alike(kind) -> None:
    student, teacher = _random(5, 5), _random(5, 5, seed=1)
    torch.testing.assert_close(coarse_loss(kind, student.T, teacher.T), coarse_loss(kind, student, teacher))


@pytest.mark.parametrize("kind", FINE)
@pytest.mark.parametrize("temperature", [1.0, 0.1])
def test_fine_loss_is_least_at_the_teachers_frame_scores(kind, temperature, mask) -> None:
    teacher = _random(4, 5)
    raw = (teacher / temperature).clone().requires_grad_()
    loss = fine_loss(kind, raw, teacher, mask, "per-video", temperature)
    loss.backward()
    assert raw.grad.abs().max() < 1e-9
    assert fine_loss(kind, raw.detach() + _random(4, 5, seed=1), teacher, mask, "per-video", temperature) > loss


@pytest.mark.parametrize("kind", FINE)
@pytest.mark.parametrize("reduction", ["per-video", "per-frame"])
def test_masked_padding_does_not_change_the_fine_loss(kind, reduction, mask) -> None:
    raw, teacher = _random(4, 5).requires_grad_(), _random(4, 5, seed=1)
    loss = fine_loss(kind, raw, teacher, mask, reduction)
    loss.backward()
    assert raw.grad[~mask].eq(0).all()
    noisy_raw = torch.where(mask, raw.detach(), 100 * _random(4, 5, seed=2))
    noisy_teacher = torch.where(mask, teacher, torch.nan)
    torch.testing.assert_close(fine_loss(kind, noisy_raw, noisy_teacher, mask, reduction), loss.detach())
    alone = [
        fine_loss(kind, raw.detach()[k : k + 1, :n], teacher[k : k + 1, :n], None, reduction)
        for k, n in enumerate(mask.sum(1))
    ]
    torch.testing.assert_close(torch.stack(alone).mean(), loss.detach())


def test_reductions_differ_by_the_number_of_frames() -> None:
    raw, teacher = _random(4, 5), _random(4, 5, seed=1)
    per_frame = fine_loss("ce", raw, teacher, None, "per-frame")
    torch.testing.assert_close(fine_loss("ce", raw, teacher, None, "per-video"), 5 * per_frame)


@pytest.mark.parametrize("kind", FINE)
def test_a_video_with_one_frame_teaches_nothing_and_breaks_nothing(kind) -> None:
    raw = _random(2, 4).float().requires_grad_()
    mask = torch.tensor([[True, False, False, False], [True, True, True, True]])
    loss = fine_loss(kind, raw, _random(2, 4, seed=1).float(), mask)
    loss.backward()
    assert loss.isfinite()
    assert raw.grad.isfinite().all()
    assert raw.grad[0].abs().max() < 1e-6


@pytest.mark.parametrize("kind", FINE)
def test_frames_that_are_all_alike_break_nothing(kind) -> None:
    """A still image as video: AFA's scores are equal, and correlation undefined."""
    raw = torch.zeros(2, 4, requires_grad=True)
    fine_loss(kind, raw, _random(2, 4).float()).backward()
    assert raw.grad.isfinite().all()


def _parts(config: LossConfig, teachers: int = 1, names=(), **changes):
    given = {
        "student_logits": _random(4, 4),
        "raw_weights": _random(4, 5, seed=1),
        "labels": [Labels(_random(4, 4, seed=10 + k), _random(4, 5, seed=20 + k), 1.0) for k in range(teachers)],
    }
    return Losses(config, names)(**(given | changes))


def test_the_total_is_the_weighted_sum_of_its_parts() -> None:
    parts = _parts(LossConfig(infonce=0.2, coarse=1.0, fine=2.0))
    torch.testing.assert_close(parts.total, 0.2 * parts.infonce + parts.coarse + 2 * parts.fine)
    torch.testing.assert_close(parts.infonce, info_nce(_random(4, 4)))


def test_several_teachers_are_averaged_or_summed() -> None:
    one = [_parts(LossConfig(), labels=[Labels(_random(4, 4, seed=10 + k), None, 1.0)]).coarse for k in range(3)]
    torch.testing.assert_close(_parts(LossConfig(teachers="mean"), 3).coarse, torch.stack(one).mean())
    summed, mean = _parts(LossConfig(teachers="sum"), 3), _parts(LossConfig(teachers="mean"), 3)
    torch.testing.assert_close(summed.coarse, torch.stack(one).sum())
    torch.testing.assert_close(summed.fine, 3 * mean.fine)


def test_without_teachers_only_infonce_counts() -> None:
    parts = _parts(LossConfig(), labels=[])
    assert (parts.coarse.item(), parts.fine.item()) == (0, 0)
    torch.testing.assert_close(parts.total, LossConfig().infonce * parts.infonce)


def test_mean_pooling_has_no_fine_loss() -> None:
    assert _parts(LossConfig(), raw_weights=None).fine.item() == 0


def test_the_papers_coarse_loss_is_on_cosines() -> None:
    student, teacher = 0.3 * _random(4, 4), 0.3 * _random(4, 4, seed=1)
    parts = _parts(
        LossConfig(coarse_on="cosines"),
        student_logits=100 * student,
        labels=[Labels(teacher, None, 50.0)],
        student_scale=torch.tensor(100.0, dtype=torch.float64),
    )
    torch.testing.assert_close(parts.coarse, coarse_loss("pearson", student, teacher))
    torch.testing.assert_close(parts.infonce, info_nce(100 * student))


@pytest.mark.parametrize("coarse", COARSE)
@pytest.mark.parametrize("fine", FINE)
def test_sharp_logits_in_low_precision_stay_finite(coarse, fine) -> None:
    """CLIP-like logits reach 100: softmaxes are one-hot to float32."""
    student = (100 * torch.eye(6)).bfloat16().requires_grad_()
    raw = (100 * torch.eye(6)[:, :5]).bfloat16().requires_grad_()
    config = LossConfig(coarse_kind=coarse, fine_kind=fine)
    parts = Losses(config)(student, raw, [Labels(torch.eye(6).flip(0), torch.zeros(6, 5), 100.0)])
    parts.total.backward()
    assert parts.total.dtype == torch.float32
    assert all(part.isfinite() for part in parts)
    assert student.grad.isfinite().all()
    assert raw.grad.isfinite().all()


def test_label_smoothing_is_torchs_when_every_pair_takes_part_and_leaves_masked_pairs_alone() -> None:
    logits = torch.randn(6, 6, dtype=torch.float64, requires_grad=True)
    own = torch.arange(6)
    both = [torch.nn.functional.cross_entropy(matrix, own, label_smoothing=0.1) for matrix in (logits, logits.T)]
    torch.testing.assert_close(info_nce(logits, None, 0.1), sum(both) / 2)
    same_video = torch.zeros(6, 6, dtype=torch.bool)
    same_video[0, 1] = True
    info_nce(logits, same_video, 0.1).backward()
    assert logits.grad is not None
    assert logits.grad[0, 1] == 0
    assert logits.grad.isfinite().all()


def test_one_hot_targets_ask_for_the_own_video_and_no_teacher() -> None:
    config = LossConfig(coarse_target="one-hot", fine=0.0)
    sure = Losses(config)(torch.eye(4) * 100, None, [])
    unsure = Losses(config)(torch.eye(4).roll(1, 0) * 100, None, [])
    assert sure.coarse == pytest.approx(0, abs=1e-6)
    assert unsure.coarse > 2
