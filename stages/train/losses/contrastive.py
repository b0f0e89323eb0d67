"""InfoNCE and max-margin."""

import torch
from torch import Tensor
from torch.nn import functional


def max_margin(scores: Tensor, margin: float, fix_norm: bool = True, same_video: Tensor | None = None) -> Tensor:
    """TeachText's bidirectional ranking loss: the mean of relu(margin - s_ii + s_ij) and relu(margin - s_ii + s_ji).

    Args:
        scores: [b, b], without logit scale.
        margin: by how much the own video shall score above others, in the scores' unit.
        fix_norm: the mean is over wrong pairs; otherwise the diagonal's terms, which are `margin`, are averaged in.
        same_video: off-diagonal pairs [b, b] that take no part.
    """
    own = scores.diagonal()
    rows, columns = functional.relu(margin - own[:, None] + scores), functional.relu(margin - own[None, :] + scores)
    takes_part = torch.ones_like(scores, dtype=torch.bool)
    if fix_norm:
        takes_part = ~torch.eye(len(scores), dtype=torch.bool, device=scores.device)
    if same_video is not None:
        takes_part = takes_part & ~same_video
    # A batch whose pairs are all of one video has no wrong pair: its loss is 0.
    return ((rows + columns) * takes_part).sum() / (2 * takes_part.sum()).clamp(min=1)


def info_nce(logits: Tensor, same_video: Tensor | None = None, label_smoothing: float = 0.0) -> Tensor:
    """Symmetric InfoNCE: mean of the cross entropies of rows and of columns against the diagonal.

    Args:
        logits: [b, b].
        same_video: off-diagonal pairs [b, b] that are no negatives.
        label_smoothing: share of each target that is spread evenly over the pairs that take part.
    """
    own = torch.arange(len(logits), device=logits.device)
    if same_video is not None:
        logits = logits.masked_fill(same_video, float("-inf"))
    loss = (functional.cross_entropy(logits, own) + functional.cross_entropy(logits.T, own)) / 2
    if not label_smoothing:
        return loss
    taking_part = torch.isfinite(logits.detach())
    spread = (_mean_cross_entropy(logits, taking_part) + _mean_cross_entropy(logits.T, taking_part.T)) / 2
    return (1 - label_smoothing) * loss + label_smoothing * spread


def _mean_cross_entropy(logits: Tensor, taking_part: Tensor) -> Tensor:
    """Cross entropy of rows against an even distribution over the entries that take part."""
    log_p = logits.log_softmax(dim=-1).masked_fill(~taking_part, 0)
    return -(log_p.sum(dim=-1) / taking_part.sum(dim=-1)).mean()
