"""Every loss and its gradients, in float64, against the published training loop."""

import numpy as np
import pytest
import torch
from teachclip.cache.scores.reading.labels import Labels
from teachclip.configs.loading import load_config, shipped
from teachclip.configs.schema import LossConfig
from teachclip.stages.train.losses.combined import Losses

KINDS = {"pear": "pearson", "ce": "ce", "l1": "huber"}
TOLERANCE = {"rtol": 0.0, "atol": 1e-9}


def _official(tag: str) -> tuple[LossConfig, float]:
    """Recipe `official` with the methods of a tag such as "pear+ce+beta2", and the tag's temperature beta."""
    coarse, fine, *beta = tag.split("+")
    changes = [f"train.loss.coarse_kind={KINDS[coarse]}", f"train.loss.fine_kind={KINDS[fine]}"]
    if coarse == "ce":  # the published code's other weights, hard-coded for this method
        changes += ["train.loss.infonce=1", "train.loss.coarse=10", "train.loss.fine=1"]
    config = load_config(shipped()["recipes/official"], changes).train.loss
    return config, float(beta[0].removeprefix("beta")) if beta else 1.0


def _check(golden, case: int, tag: str) -> None:
    config, beta = _official(tag)
    given = {k: torch.from_numpy(v) for k, v in golden.group(f"case{case}/in/").items()}
    teachers = range(sum(name.startswith("yc") for name in given))
    scores = given["B"].clone().requires_grad_()
    raw = given["afa_raw"].clone().requires_grad_()
    parts = Losses(config)(
        scores / beta,
        raw,
        [Labels(given[f"yc{t}"] / beta, given[f"yf{t}"].log(), 1.0) for t in teachers],
    )
    expected = golden.group(f"case{case}/out/{tag}/")

    def gradient(loss: torch.Tensor, of: torch.Tensor) -> np.ndarray:
        return torch.autograd.grad(loss, of, retain_graph=True)[0].numpy()

    found = {
        "gt": parts.infonce.item(),
        "distill": parts.coarse.item(),
        "fine": parts.fine.item(),
        "total": parts.total.item(),
        "d_gt_dB": gradient(parts.infonce, scores),
        "d_distill_dB": gradient(parts.coarse, scores),
        "d_total_dB": gradient(parts.total, scores),
        "d_fine_draw": gradient(parts.fine, raw),
        "d_total_draw": gradient(parts.total, raw),
    }
    # The gradients with respect to the weights, pulled back through the softmax.
    w = given["w"]
    for name in ("fine", "total"):
        dw = torch.from_numpy(expected.pop(f"d_{name}_dw"))
        pulled = w * (dw - (w * dw).sum(-1, keepdim=True))
        np.testing.assert_allclose(found[f"d_{name}_draw"], pulled, **TOLERANCE, err_msg=f"{tag} d_{name}_dw")
    assert set(found) == set(expected)
    for name, value in found.items():
        np.testing.assert_allclose(value, expected[name], **TOLERANCE, err_msg=f"case {case} {tag} {name}")


@pytest.mark.golden("losses")
def test_losses_and_gradients_equal_the_published_loop(golden) -> None:
    tags = {(case["case"], tag) for case in golden.meta["cases"] for tag in case["combos"]}
    assert {tag for _, tag in tags} >= {f"{coarse}+{fine}" for coarse in KINDS for fine in KINDS}
    for case, tag in sorted(tags):
        _check(golden, case, tag)
