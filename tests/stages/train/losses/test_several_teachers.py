"""How the losses of several teachers, or their scores, become one; and the ranking loss in InfoNCE's place."""

from pathlib import Path

import pytest
import torch
from teachclip.cache.scores.reading.labels import Labels
from teachclip.configs.loading import load_config
from teachclip.configs.schema import LossConfig
from teachclip.errors import ConfigError
from teachclip.stages.train.losses.combined import Losses
from teachclip.stages.train.losses.contrastive import max_margin
from teachclip.stages.train.losses.teaching import coarse_loss, mean_similarity

NAMES = ("xclip", "drl", "xpool")
SCALES = (100.0, 1.0, 20.0)


def _random(*shape: int, seed: int = 0) -> torch.Tensor:
    return torch.randn(*shape, dtype=torch.float64, generator=torch.Generator().manual_seed(seed))


SCORES = [0.1 * _random(5, 5, seed=k) + 0.2 * k for k in range(3)]  # raw, as the cache holds them


def _parts(count: int = 3, without_frames: int | None = None, **settings):
    frames = [_random(5, 4, seed=20 + k) for k in range(count)]
    if without_frames is not None:
        frames[without_frames] = None
    return Losses(LossConfig(**settings), NAMES[:count])(
        30 * _random(5, 5, seed=9),
        _random(5, 4, seed=8),
        [Labels(*each) for each in zip(SCORES[:count], frames, SCALES[:count], strict=True)],
        student_scale=30.0,
    )


def test_weights_are_used_as_they_are_by_name() -> None:
    each = {name: {other: float(other == name) for other in NAMES} for name in NAMES}
    single = [_parts(teachers="weighted", teacher_weights=each[name]) for name in NAMES]
    weighted = _parts(teachers="weighted", teacher_weights={"drl": 3.0, "xclip": 0.5, "xpool": 0.0})
    for loss in ("coarse", "fine"):
        one = [getattr(parts, loss) for parts in single]
        torch.testing.assert_close(getattr(weighted, loss), 0.5 * one[0] + 3 * one[1])
    even = _parts(teachers="weighted", teacher_weights=dict.fromkeys(NAMES, 1 / 3))
    torch.testing.assert_close(even.total, _parts(teachers="mean").total)
    ones = _parts(teachers="weighted", teacher_weights=dict.fromkeys(NAMES, 1.0))
    torch.testing.assert_close(ones.total, _parts(teachers="sum").total)


def test_a_teacher_without_frame_scores_is_left_out_of_the_fine_loss() -> None:
    single = [
        _parts(teachers="weighted", teacher_weights={name: float(name == own) for name in NAMES}).fine for own in NAMES
    ]
    torch.testing.assert_close(_parts(without_frames=1).fine, (single[0] + single[2]) / 2)
    torch.testing.assert_close(_parts(without_frames=1, teachers="sum").fine, single[0] + single[2])
    weighted = {"teachers": "weighted", "teacher_weights": {"xclip": 1.0, "drl": 9.0, "xpool": 3.0}}
    torch.testing.assert_close(_parts(without_frames=1, **weighted).fine, single[0] + 3 * single[2])
    assert _parts(1, without_frames=0).fine == 0


def test_one_loss_on_the_mean_of_raw_scores() -> None:
    mean = sum(SCORES) / 3
    student = _random(5, 5, seed=9)
    on_cosines = _parts(teachers="mean-similarity", coarse_on="cosines", coarse_kind="huber")
    torch.testing.assert_close(on_cosines.coarse, coarse_loss("huber", student, mean))
    on_logits = _parts(teachers="mean-similarity", coarse_kind="pearson")
    torch.testing.assert_close(on_logits.coarse, coarse_loss("pearson", 30 * student, mean * sum(SCALES) / 3))
    torch.testing.assert_close(on_logits.fine, _parts(teachers="mean").fine)  # stays per teacher


@pytest.mark.parametrize("one_scale", ["raw", "standardised"])
@pytest.mark.parametrize("on", ["logits", "cosines"])
def test_the_mean_of_one_teacher_is_that_teacher(one_scale: str, on: str) -> None:
    alone = _parts(1, teachers="mean-similarity", one_scale=one_scale, coarse_on=on)
    torch.testing.assert_close(alone.total, _parts(1, coarse_on=on).total)


def test_the_mean_does_not_mind_logit_scales() -> None:
    losses = Losses(LossConfig(teachers="mean-similarity", coarse_on="cosines", one_scale="standardised"))
    plain, scaled = (
        losses(_random(5, 5, seed=9), None, [Labels(s, None, k) for s, k in zip(SCORES, scales, strict=True)])
        for scales in ((1.0,) * 3, SCALES)
    )
    torch.testing.assert_close(scaled.coarse, plain.coarse)


def test_standardised_scores_weigh_alike_whatever_their_spread() -> None:
    """A teacher that spreads its scores a thousandfold decides the raw mean alone, but not the standardised one."""
    wide = [SCORES[0], SCORES[1] * 1000 + 7]

    def correlation(a: torch.Tensor, b: torch.Tensor) -> float:
        return torch.corrcoef(torch.stack([a.flatten(), b.flatten()]))[0, 1].item()

    raw, standard = (mean_similarity(wide, kind) for kind in ("raw", "standardised"))
    assert correlation(raw, wide[1]) > 0.999
    assert correlation(standard, wide[0]) == pytest.approx(correlation(standard, wide[1]))
    torch.testing.assert_close(standard.mean(), torch.stack(wide).mean())


def test_a_teacher_that_cannot_tell_anything_apart_breaks_nothing() -> None:
    mean = mean_similarity([torch.full((4, 4), 0.3), torch.eye(4)], "standardised")
    assert mean.isfinite().all()
    assert (mean.diagonal() > mean[0, 1]).all()


@pytest.mark.parametrize("teachers", ["mean", "sum", "mean-similarity", "weighted"])
def test_combinations_without_teachers_are_infonce_alone(teachers: str) -> None:
    parts = _parts(0, teachers=teachers)
    torch.testing.assert_close(parts.total, LossConfig().infonce * parts.infonce)


def test_the_ranking_loss_is_zero_beyond_the_margin_and_counts_wrong_pairs_only() -> None:
    assert max_margin(torch.eye(4), 0.5) == 0
    assert max_margin(torch.zeros(4, 4), 0.5) == 0.5
    assert max_margin(torch.eye(4), 0.5, fix_norm=False) == pytest.approx(0.5 / 4)  # the diagonal's constant
    wrong = torch.eye(3)
    wrong[0, 1] = 0.9  # row 0 and column 1 are each 0.4 short
    assert max_margin(wrong, 0.5).item() == pytest.approx(0.8 / 12)


def test_the_ranking_loss_leaves_out_other_captions_of_the_same_video() -> None:
    scores = _random(4, 4).requires_grad_()
    same = torch.zeros(4, 4, dtype=torch.bool)
    same[0, 1] = same[1, 0] = True
    loss = max_margin(scores, 1.0, same_video=same)
    loss.backward()
    assert scores.grad[same].eq(0).all()
    moved = torch.where(same, 100.0, scores.detach())
    torch.testing.assert_close(max_margin(moved, 1.0, same_video=same), loss.detach())
    assert max_margin(scores, 1.0, same_video=~torch.eye(4, dtype=torch.bool)) == 0


def test_the_ranking_loss_is_on_raw_scores() -> None:
    parts = _parts(contrastive="max-margin", margin=0.2)
    torch.testing.assert_close(parts.infonce, max_margin(_random(5, 5, seed=9), 0.2))


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("teachers: weighted", ":4: train.loss.teacher_weights: no weight for a, b, which train.teachers names"),
        ("teachers: weighted, teacher_weights: {a: 1}", ":4: train.loss.teacher_weights: no weight for b, which"),
        (
            "teachers: weighted, teacher_weights: {a: 1, b: 1, c: 2}",
            ":4: train.loss.teacher_weights: c is not among train.teachers: a, b",
        ),
        ("teacher_weights: {a: 1, b: 1}", ":4: train.loss.teacher_weights: train.loss.teachers is mean; set it to we"),
        ("teachers: weighted, teacher_weights: {a: -1, b: 1}", "train.loss.teacher_weights.a: -1 must be at least 0"),
        ("contrastive: max-margin, label_smoothing: 0.1", ":4: train.loss.label_smoothing: max-margin has no labels"),
        ("teachers: mean_similarity", "did you mean mean-similarity?"),
    ],
)
def test_settings_that_do_not_fit_are_refused(tmp_path: Path, text: str, message: str) -> None:
    file = tmp_path / "conf.yaml"
    file.write_text(f"train:\n  teachers: [a, b]\n  epochs: 1\n  loss: {{fine: 1, {text}}}\n")
    with pytest.raises(ConfigError) as caught:
        load_config(file)
    assert message in str(caught.value)


def test_a_student_without_teachers_may_keep_the_weights() -> None:
    """Baselines are made by `--set train.teachers=[]` alone."""
    weighted = ["train.loss.teachers=weighted", "train.loss.teacher_weights={a: 0.7, b: 0.3}"]
    assert load_config(None, [*weighted, "train.teachers=[b, a]"]).train.loss.teacher_weights == {"a": 0.7, "b": 0.3}
    assert load_config(None, [*weighted, "train.teachers=[]"]).train.loss.teachers == "weighted"
