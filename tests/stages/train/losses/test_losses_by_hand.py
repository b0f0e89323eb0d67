"""Each loss beside loops over its definition in numpy: masks that are uneven, every option."""

import hashlib
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from teachclip.cache.scores.reading.labels import Labels
from teachclip.configs.schema import LossConfig
from teachclip.errors import ConfigError, PluginError
from teachclip.stages.train.losses.combined import Losses, LossParts
from teachclip.stages.train.losses.contrastive import info_nce, max_margin
from teachclip.stages.train.losses.own import OwnLoss, loss_identity
from teachclip.stages.train.losses.teaching import coarse_loss, fine_loss, mean_similarity

TEXTS = 6
UNEVEN = torch.zeros(TEXTS, TEXTS, dtype=torch.bool)  # texts 0, 1 and 2 are of one video
UNEVEN[:3, :3] = ~torch.eye(3, dtype=torch.bool)
MASKS = pytest.mark.parametrize("same_video", [None, UNEVEN], ids=["all", "uneven"])


def scores(*shape: int, seed: int = 0) -> torch.Tensor:
    return torch.randn(*shape, dtype=torch.float64, generator=torch.Generator().manual_seed(seed))


def softmax(row: np.ndarray) -> np.ndarray:
    powers = np.exp(row - row.max())
    return powers / powers.sum()


@MASKS
@pytest.mark.parametrize("smoothing", [0.0, 0.3])
def test_infonce(same_video: torch.Tensor | None, smoothing: float) -> None:
    logits = scores(TEXTS, TEXTS)
    taking_part = np.ones((TEXTS, TEXTS), bool) if same_video is None else ~same_video.numpy()
    losses = []
    for matrix, part in ((logits.numpy(), taking_part), (logits.numpy().T, taking_part.T)):
        for own, (row, here) in enumerate(zip(matrix, part, strict=True)):
            log_p = np.full(TEXTS, np.nan)
            log_p[here] = np.log(softmax(row[here]))
            target = np.where(here, smoothing / here.sum(), 0.0)
            target[own] += 1 - smoothing
            losses.append(-(target[here] * log_p[here]).sum())
    assert info_nce(logits, same_video, smoothing).item() == pytest.approx(np.mean(losses), rel=1e-12)


@MASKS
@pytest.mark.parametrize("fix_norm", [True, False])
def test_max_margin(same_video: torch.Tensor | None, fix_norm: bool) -> None:
    matrix = scores(TEXTS, TEXTS).numpy()
    terms = []
    for i in range(TEXTS):
        for j in range(TEXTS):
            if (i == j and fix_norm) or (same_video is not None and same_video[i, j]):
                continue
            terms += [max(0, 0.4 - matrix[i, i] + matrix[i, j]), max(0, 0.4 - matrix[i, i] + matrix[j, i])]
    # As many terms as (i, j) and (j, i) have: a mask is symmetric.
    found = max_margin(torch.from_numpy(matrix), 0.4, fix_norm, same_video)
    assert found.item() == pytest.approx(np.mean(terms), rel=1e-12)


def test_max_margin_of_one_video_alone_is_zero() -> None:
    assert max_margin(torch.ones(1, 1), 0.4).item() == 0
    assert max_margin(torch.ones(3, 3), 0.4, same_video=~torch.eye(3, dtype=torch.bool)).item() == 0


@pytest.mark.parametrize("kind", ["pearson", "ce", "huber"])
def test_coarse(kind: str) -> None:
    student, teacher = scores(5, 5).numpy(), 2 * scores(5, 5, seed=1).numpy()
    if kind == "huber":
        away = np.abs(student - teacher)
        expected = np.where(away < 1, away**2 / 2, away - 0.5).mean()
    else:
        rows = [
            (softmax(one), softmax(other))
            for a, b in ((student, teacher), (student.T, teacher.T))
            for one, other in zip(a, b, strict=True)
        ]
        if kind == "pearson":
            expected = sum(1 - np.corrcoef(one, other)[0, 1] for one, other in rows) / 5
        else:
            expected = sum(-(other * np.log(one)).mean() for one, other in rows) / 5
    assert coarse_loss(kind, torch.from_numpy(student), torch.from_numpy(teacher)).item() == pytest.approx(expected)


@pytest.mark.parametrize("kind", ["pearson", "ce", "huber"])
@pytest.mark.parametrize("reduction", ["per-video", "per-frame"])
@pytest.mark.parametrize("masked", [True, False])
def test_fine(kind: str, reduction: Any, masked: bool) -> None:
    raw, teacher = 2 * scores(4, 5), 3 * scores(4, 5, seed=1)
    frames = [5, 2, 1, 4] if masked else [5] * 4
    mask = torch.arange(5) < torch.tensor(frames)[:, None] if masked else None
    losses = []
    for video, count in enumerate(frames):
        w, y = softmax(raw[video, :count].numpy()), softmax(teacher[video, :count].numpy() / 0.7)
        if kind == "pearson":
            losses.append(1 - np.corrcoef(w, y)[0, 1] if count > 1 else 0.0)
        elif kind == "ce":
            losses.append(-(y * np.log(w)).sum() / (1 if reduction == "per-video" else count))
        else:
            losses.append(((w - y) ** 2 / 2).mean())
    found = fine_loss(kind, raw, teacher, mask, reduction, 0.7)
    assert found.item() == pytest.approx(np.mean(losses), rel=1e-9)


def test_fine_as_it_is_by_default() -> None:
    raw, teacher = scores(3, 4), scores(3, 4, seed=1)
    assert fine_loss("ce", raw, teacher) == fine_loss("ce", raw, teacher, None, "per-video", 1.0)
    assert fine_loss("ce", raw, teacher) != fine_loss("ce", raw, teacher, None, "per-frame", 1.0)


def test_mean_similarity() -> None:
    first, second = scores(3, 3).numpy(), 5 * scores(3, 3, seed=1).numpy() + 2
    given = [torch.from_numpy(first), torch.from_numpy(second)]
    np.testing.assert_allclose(mean_similarity(given, "raw"), (first + second) / 2)
    standard = [(matrix - matrix.mean()) / matrix.std() for matrix in (first, second)]
    expected = np.mean(standard, axis=0) * np.mean([first.std(), second.std()]) + (first.mean() + second.mean()) / 2
    np.testing.assert_allclose(mean_similarity(given, "standardised"), expected)


def test_a_further_part_is_added_to_the_total() -> None:
    parts = LossParts(*(torch.tensor(float(k)) for k in (7, 1, 2, 3, 0, 0)))
    assert parts.with_auxiliary(torch.tensor(5.0)) == (12, 1, 2, 3, 5, 0)


CODE = """
class Both:
    def __call__(self, student, teacher):
        return (student - teacher).sum()

both = Both()
"""


def test_a_loss_is_known_by_its_file(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (tmp_path / "known_by_its_file.py").write_text(CODE)
    monkeypatch.chdir(tmp_path)
    expected = hashlib.blake2b(CODE.encode(), digest_size=16).hexdigest()
    for name in ("both", "Both"):
        assert OwnLoss(f"known_by_its_file:{name}", "key").source_digest() == expected
    assert loss_identity(LossConfig(coarse_kind="math:fsum", fine_kind="known_by_its_file:both")) == {
        "code of coarse_kind": "unknown",
        "code of fine_kind": expected,
    }


def test_a_loss_that_cannot_be_loaded_is_told_with_its_key() -> None:
    with pytest.raises(ConfigError, match=r"^train\.loss\.fine_kind: "):
        loss_identity(LossConfig(fine_kind="nowhere_at_all:loss"))


def test_settings_and_mask_reach_the_fine_loss() -> None:
    raw, frame_logits = scores(4, 5), scores(4, 5, seed=1)
    mask = torch.arange(5) < torch.tensor([5, 2, 1, 4])[:, None]
    for changes in ({}, {"fine_reduction": "per-frame"}, {"fine_temperature": 0.3}, {"fine_kind": "huber"}):
        config = LossConfig.model_validate(changes)
        settings = (config.fine_reduction, config.fine_temperature)
        expected = fine_loss(config.fine_kind, raw, frame_logits, mask, *settings)
        parts = Losses(config)(scores(4, 4), raw, [Labels(scores(4, 4), frame_logits, 1.0)], mask)
        assert parts.fine == expected


def test_a_teacher_without_a_name_has_no_weight() -> None:
    config = LossConfig(teachers="weighted", teacher_weights={"a": 0.5})
    taught = [Labels(scores(4, 4), None, 1.0)] * 2
    with pytest.raises(ValueError, match="zip"):
        Losses(config, ["a"])(scores(4, 4), None, taught)


def test_the_line_that_is_named_is_the_users_own_and_not_one_of_torch(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    (tmp_path / "fails_in_torch.py").write_text(
        "import torch\n\n\ndef loss(student, teacher):\n    return torch.nn.functional.cross_entropy(student, 'x')\n"
    )
    monkeypatch.chdir(tmp_path)
    with pytest.raises(PluginError, match=r"fails_in_torch\.py:5, in loss"):
        OwnLoss("fails_in_torch:loss", "key")(scores(2, 2), scores(2, 2))


def test_a_loss_without_a_file_has_no_digest(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (tmp_path / "without_a_file.py").write_text("exec('def loss(student, teacher):\\n    return student.sum()')\n")
    monkeypatch.chdir(tmp_path)
    assert OwnLoss("without_a_file:loss", "key").source_digest() is None
